"""Requests of the SageMaker API as dictionaries, for the clients that take them as they are.

What belongs here: the smallest requests that do real work on the data of the contract tests. What
does not: sending them.
"""

from typing import Any

from cases import DATA, HYPERPARAMETERS, IMAGE, JSON_LINES, RECORDIO, ROLE

Request = dict[str, Any]

RESOURCES = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
OBJECTIVE = {"Type": "Minimize", "MetricName": "test:rmse"}
TUNED = "linear_lr"


def channel(name: str) -> Request:
    source = {"S3DataType": "S3Prefix", "S3Uri": f"{DATA}/{name}"}
    return {"ChannelName": name, "ContentType": RECORDIO, "DataSource": {"S3DataSource": source}}


def training(name: str, **hyperparameters: str) -> Request:
    return {
        "TrainingJobName": name,
        "HyperParameters": HYPERPARAMETERS | hyperparameters,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "RoleArn": ROLE,
        "InputDataConfig": [channel("train"), channel("test")],
        "OutputDataConfig": {"S3OutputPath": f"{DATA}/models"},
        "ResourceConfig": RESOURCES,
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }


def tuning(name: str, jobs: int = 2, parallel: int = 2, **hyperparameters: str) -> Request:
    definition = training("unused")
    del definition["TrainingJobName"], definition["HyperParameters"]
    definition["StaticHyperParameters"] = HYPERPARAMETERS | hyperparameters
    rates = {"Name": TUNED, "MinValue": "0.001", "MaxValue": "0.1", "ScalingType": "Logarithmic"}
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": OBJECTIVE,
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": jobs,
                "MaxParallelTrainingJobs": parallel,
            },
            "ParameterRanges": {"ContinuousParameterRanges": [rates]},
        },
        "TrainingJobDefinition": definition,
    }


def model(name: str, artefact: str) -> Request:
    return {
        "ModelName": name,
        "PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": artefact},
        "ExecutionRoleArn": ROLE,
    }


def transform(name: str, of_model: str) -> Request:
    source = {"S3DataType": "S3Prefix", "S3Uri": f"{DATA}/unlabelled/"}
    return {
        "TransformJobName": name,
        "ModelName": of_model,
        "TransformInput": {
            "DataSource": {"S3DataSource": source},
            "ContentType": RECORDIO,
            "SplitType": "RecordIO",
        },
        "TransformOutput": {
            "S3OutputPath": f"{DATA}/scores/{name}",
            "Accept": JSON_LINES,
            "AssembleWith": "Line",
        },
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        "MaxPayloadInMB": 1,
        "BatchStrategy": "MultiRecord",
    }


def long_transform(name: str, of_model: str) -> Request:
    """Return a request for a job that takes long enough to be stopped."""
    request = transform(name, of_model)
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    source["S3Uri"] = f"{DATA}/many/"
    return request | {"BatchStrategy": "SingleRecord"}


def endpoint_config(name: str, of_model: str) -> Request:
    variant = {
        "VariantName": "all",
        "ModelName": of_model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        "InitialVariantWeight": 1.0,
    }
    return {"EndpointConfigName": name, "ProductionVariants": [variant]}


def processing(name: str, *command: str) -> Request:
    """Return a request for a job whose program sees ``input/`` and leaves ``output/``."""
    folder = "/opt/ml/processing"
    given = {"S3Uri": f"{DATA}/unlabelled/", "LocalPath": f"{folder}/input"}
    wanted = {"S3Uri": f"{DATA}/processed/{name}", "LocalPath": f"{folder}/output"}
    return {
        "ProcessingJobName": name,
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": list(command)},
        "RoleArn": ROLE,
        "ProcessingInputs": [
            {
                "InputName": "ratings",
                "S3Input": given | {"S3DataType": "S3Prefix", "S3InputMode": "File"},
            }
        ],
        "ProcessingOutputConfig": {
            "Outputs": [{"OutputName": "copies", "S3Output": wanted | {"S3UploadMode": "EndOfJob"}}]
        },
        "ProcessingResources": {"ClusterConfig": RESOURCES},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }


COPY = ("cp", "-r", "/opt/ml/processing/input/.", "/opt/ml/processing/output")
"""A processing job's command that leaves its input as its output."""
