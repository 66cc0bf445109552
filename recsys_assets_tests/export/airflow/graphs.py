"""Graphs of remote work on the endpoint's stand-in image, written by hand."""

from typing import Any

from recsys_assets.export.airflow import AirflowOptions, export_airflow
from recsys_assets.export.graph import Graph, Kind, Param, Task
from recsys_assets_tests.sagemaker_local.endpoint import BUCKET, ROLE, STAND_IN

QUICK = {"check_interval": 1, "retry_seconds": 0.0, "print_log": False}
ARTEFACT = f"s3://{BUCKET}/artefacts/exported/model.tar.gz"
INPUT = f"s3://{BUCKET}/exported/input"

_TRAINING = {
    "AlgorithmSpecification": {"TrainingImage": STAND_IN, "TrainingInputMode": "File"},
    "RoleArn": ROLE,
    "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/models"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
    "StoppingCondition": {"MaxRuntimeInSeconds": 600},
}
_MODEL = {
    "PrimaryContainer": {"Image": STAND_IN, "ModelDataUrl": ARTEFACT},
    "ExecutionRoleArn": ROLE,
}
_TRANSFORM = {
    "TransformInput": {
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": INPUT}},
        "SplitType": "Line",
    },
    "TransformOutput": {"S3OutputPath": f"s3://{BUCKET}/exported/out/${{run.id}}"},
    "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
}


def graph(*tasks: Task, params: tuple[Param, ...] = ()) -> Graph:
    return Graph("somewhere:defs", "1.2.3", tasks, params)


def training(**hyperparameters: str) -> Graph:
    """Return a graph of one training job, whose ``seconds`` and ``failure`` are params."""
    given = {"seconds": "${params.seconds}", **hyperparameters}
    task = Task(
        "trained", Kind.TRAINING, assets=("a",), request={**_TRAINING, "HyperParameters": given}
    )
    return graph(task, params=(Param("seconds", {"type": "number"}, 0, "", "Run"),))


def tuning() -> Graph:
    ranges = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
    objective = {"Name": "objective", "Regex": r"objective=(\S+);"}
    definition = {
        **_TRAINING,
        "AlgorithmSpecification": {
            **_TRAINING["AlgorithmSpecification"],
            "MetricDefinitions": [objective],
        },
        "InputDataConfig": [
            {
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": INPUT}},
            }
        ],
        "StaticHyperParameters": {},
    }
    config = {
        "Strategy": "Random",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "objective"},
        "ResourceLimits": {
            "MaxNumberOfTrainingJobs": "${params.jobs}",
            "MaxParallelTrainingJobs": 1,
        },
        "ParameterRanges": ranges,
    }
    request = {"HyperParameterTuningJobConfig": config, "TrainingJobDefinition": definition}
    task = Task("tuned", Kind.TUNING, assets=("tuned",), request=request)
    return graph(task, params=(Param("jobs", {"type": "integer"}, 2, "", "Run"),))


def serving(endpoint: str) -> Graph:
    """Return a graph of a transform job, and of a model that is put behind an endpoint."""
    transform = {"Model": _MODEL, "Transform": _TRANSFORM}
    variant = {
        "VariantName": "all",
        "ModelName": "${created.model}",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    deployment = {"EndpointName": endpoint, "EndpointConfigName": "${created.config}"}
    return graph(
        Task("predicted", Kind.TRANSFORM, assets=("predicted",), request=transform),
        Task("model", Kind.MODEL, assets=("served",), request=_MODEL),
        Task(
            "config",
            Kind.ENDPOINT_CONFIG,
            ("model",),
            assets=("served",),
            request={"ProductionVariants": [variant]},
        ),
        Task("deployed", Kind.ENDPOINT, ("config",), assets=("served",), request=deployment),
    )


def exported(exported_graph: Graph, dag_id: str, **options: Any) -> dict[str, str]:
    return export_airflow(exported_graph, AirflowOptions(dag_id, **{**QUICK, **options}))
