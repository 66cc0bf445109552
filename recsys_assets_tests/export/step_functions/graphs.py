"""A graph with every kind of task, whose jobs a stand-in program does in a moment."""

from dataclasses import replace

from recsys_assets.export.graph import Created, Graph, Kind, Param, Task
from recsys_assets.export.step_functions import StepFunctionsOptions
from recsys_assets_tests.sagemaker_local.endpoint import BUCKET, OBJECTIVE, ROLE, STAND_IN

OPTIONS = StepFunctionsOptions(
    image="123456789012.dkr.ecr.us-east-1.amazonaws.com/project:1",
    role_arn=ROLE,
    bucket=BUCKET,
    prefix="step-functions",
    region="us-east-1",
    name="ratings",
    poll_seconds=1,
)

_DEFINITION = {
    "AlgorithmSpecification": {
        "TrainingImage": STAND_IN,
        "TrainingInputMode": "File",
        "MetricDefinitions": [OBJECTIVE],
    },
    "RoleArn": ROLE,
    "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/models/${{run.id}}"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
    "StoppingCondition": {"MaxRuntimeInSeconds": 600},
}
_MODEL = {
    "PrimaryContainer": {
        "Image": STAND_IN,
        "ModelDataUrl": "${results.selected.selected.artefact}",
        "Environment": {"MODE": "echo"},
    },
    "ExecutionRoleArn": ROLE,
}
_INSTANCES = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}


def _python(name: str, *upstream: str, **more: object) -> Task:
    return replace(Task(name, Kind.PYTHON, upstream, assets=(name,)), **more)  # type: ignore[arg-type]


TASKS = (
    _python("ratings", description="All ratings."),
    Task("ratings_checks", Kind.CHECK, ("ratings",), assets=("ratings",), checks=("enough",)),
    _python("train", "ratings_checks"),
    _python("test", "ratings_checks"),
    Task(
        "how",
        Kind.CHOICE,
        ("train",),
        param="mode",
        alternatives={"train": "trained", "tune": "tuned"},
    ),
    Task(
        "trained",
        Kind.TRAINING,
        ("how",),
        assets=("trained",),
        request={
            **_DEFINITION,
            "HyperParameters": {
                "x": "${params.x}",
                "rows": "${results.train.train.rows}",
                "exit": "${params.exit}",
            },
        },
        retries=1,
        retry_seconds=1,
    ),
    Task(
        "tuned",
        Kind.TUNING,
        ("how",),
        assets=("tuned",),
        request={
            "HyperParameterTuningJobConfig": {
                "Strategy": "Random",
                "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "objective"},
                "ResourceLimits": {
                    "MaxNumberOfTrainingJobs": "${params.jobs}",
                    "MaxParallelTrainingJobs": 2,
                },
                "ParameterRanges": {
                    "ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]
                },
            },
            "TrainingJobDefinition": _DEFINITION,
        },
    ),
    _python(
        "selected",
        "trained",
        "tuned",
        joins=True,
        created=(
            Created("trained", Kind.TRAINING, "trained"),
            Created("tuned", Kind.TUNING, "tuned"),
        ),
    ),
    Task(
        "scores_transform",
        Kind.TRANSFORM,
        ("selected", "test"),
        assets=("scores",),
        request={
            "Model": _MODEL,
            "Transform": {
                "TransformInput": {
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": "${results.test.test.uri}",
                        }
                    }
                },
                "TransformOutput": {"S3OutputPath": f"s3://{BUCKET}/scores/${{run.id}}"},
                "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
            },
        },
    ),
    _python("report", "selected"),
    _python(
        "scores",
        "scores_transform",
        created=(Created("scores", Kind.TRANSFORM, "scores_transform"),),
    ),
    Task("deploy", Kind.OPT_IN, ("scores",), param="deploy"),
    Task("serving_model", Kind.MODEL, ("deploy", "selected"), assets=("serving",), request=_MODEL),
    Task(
        "serving_config",
        Kind.ENDPOINT_CONFIG,
        ("serving_model",),
        assets=("serving",),
        request={
            "ProductionVariants": [
                {
                    "VariantName": "model",
                    "ModelName": "${created.serving_model}",
                    **_INSTANCES,
                }
            ]
        },
    ),
    Task(
        "serving_deployment",
        Kind.ENDPOINT,
        ("serving_config",),
        assets=("serving",),
        request={
            "EndpointName": "ratings",
            "EndpointConfigName": "${created.serving_config}",
        },
    ),
    _python(
        "serving",
        "serving_deployment",
        created=(Created("serving", Kind.ENDPOINT, "serving_deployment"),),
    ),
    Task("clean_up", Kind.CLEAN_UP, ("report", "serving")),
)
PARAMS = (
    Param("mode", {"type": "string", "enum": ["train", "tune"]}, "train", "What to do.", "how"),
    Param("deploy", {"type": "boolean"}, False, "", "Run"),
    Param("x", {"type": "number"}, 0.25, "", "how"),
    Param("exit", {"type": "integer"}, 0, "", "how"),
    Param("jobs", {"type": "integer"}, 2, "", "how"),
    # What the stand-in for the project's program is to do wrong.
    Param("fails", {"type": "string"}, "", "", "program"),
    Param("lacks", {"type": "string"}, "", "", "program"),
    Param("checks_pass", {"type": "boolean"}, True, "", "program"),
)
GRAPH = Graph("some.definitions:defs", "1.0", TASKS, PARAMS)


def graph_of(*tasks: Task) -> Graph:
    return replace(GRAPH, tasks=tasks)
