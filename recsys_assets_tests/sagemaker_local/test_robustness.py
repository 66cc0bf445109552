"""Whatever a client sends, the answer is one that AWS's model has."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_assets.sagemaker_local.api import ACTIONS, InvalidAnswer, perform
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.images import Images, Program
from recsys_assets.sagemaker_local.s3 import ObjectStore, S3Uri
from recsys_assets.sagemaker_local.store import Store
from recsys_assets.sagemaker_local.validation import parse_json
from recsys_assets.service_model import WrongTypeError, service_model, violations

CALLS = [
    (service, action) for service in ("sagemaker", "logs", "iam") for action in ACTIONS[service]
]

# What gets past the model into the actions, and some that should not.
CANDIDATES: list[object] = [
    *("$", "$.a", "$[0,1:]", "text/csv", "application/json"),
    *("a", "b", "..", "0.5", "7", "objective", r"objective=(\S+)", "(", "f/0", "WyJhIiwgImIiXQ=="),
    *("s3://bucket/key", "s3://", "https://host/key", "factorization-machines:1", "unknown:1"),
    "arn:aws:iam::123456789012:role/sagemaker",
    "arn:aws:sagemaker:us-east-1:123456789012:model/a",
    "arn:aws:sagemaker:us-east-1:123456789012:training-job/a",
    "/aws/sagemaker/TrainingJobs",
    *(0, 1, 2, 50, 600, 1 << 40, 1.5e9),
]

JUNK = st.text(max_size=3) | st.sampled_from([-1, 1 << 31, 1 << 63, 10**30, 1e300, "", {}, []])


def fits(shape: Shape, value: object) -> bool:
    try:
        return not list(violations(shape, value))
    except WrongTypeError:
        return False


def values(shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
    """Return values of a shape, mostly such as the model allows."""
    match shape:
        case StructureShape():
            members = {name: values(member, depth + 1) for name, member in shape.members.items()}
            needed = {name: members[name] for name in shape.required_members}
            rest = {name: members[name] for name in members.keys() - needed.keys()}
            return st.fixed_dictionaries(needed, optional=rest if depth < 4 else {})
        case ListShape():
            return st.lists(values(shape.member, depth + 1), min_size=1, max_size=2)
        case MapShape():
            keys = values(shape.key, depth + 1).filter(lambda key: isinstance(key, str))
            return st.dictionaries(keys, values(shape.value, depth + 1), max_size=2)
        case StringShape() if shape.enum:
            return st.sampled_from(shape.enum[:4])
        case _ if shape.type_name == "boolean":
            return st.booleans()
        case _:
            fitting = st.sampled_from([item for item in CANDIDATES if fits(shape, item)] or [""])
            return st.integers(0, 30).flatmap(lambda dice: fitting if dice else JUNK)


class FullStore(ObjectStore):
    """An object store where something lies under every prefix."""

    def has_objects(self, prefix: S3Uri) -> bool:
        return True


ROLE = "arn:aws:iam::123456789012:role/sagemaker"

DEFINITION = {
    "AlgorithmSpecification": {
        "TrainingImage": "stand-in",
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "objective", "Regex": r"objective=(\S+)"}],
    },
    "RoleArn": ROLE,
    "InputDataConfig": [
        {
            "ChannelName": "train",
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/in"}},
        }
    ],
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
}

GOOD_REQUESTS: dict[str, dict[str, Any]] = {
    "CreateModel": {
        "ModelName": "a",
        "PrimaryContainer": {"Image": "stand-in", "ModelDataUrl": "s3://bucket/model.tar.gz"},
        "ExecutionRoleArn": ROLE,
    },
    "CreateTrainingJob": {
        "TrainingJobName": "a",
        "HyperParameters": {"x": "1"},
        "Tags": [{"Key": "k", "Value": "v"}],
        **DEFINITION,
    },
    "CreateHyperParameterTuningJob": {
        "HyperParameterTuningJobName": "a",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "objective"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": {
                "ContinuousParameterRanges": [
                    {
                        "Name": "x",
                        "MinValue": "0.1",
                        "MaxValue": "0.9",
                        "ScalingType": "ReverseLogarithmic",
                    }
                ],
                "IntegerParameterRanges": [{"Name": "n", "MinValue": "1", "MaxValue": "9"}],
                "CategoricalParameterRanges": [{"Name": "c", "Values": ["a", "b"]}],
            },
            "RandomSeed": 1,
        },
        "TrainingJobDefinition": {"StaticHyperParameters": {"y": "1"}, **DEFINITION},
    },
    "CreateTransformJob": {
        "TransformJobName": "a",
        "ModelName": "a",
        "MaxPayloadInMB": 6,
        "BatchStrategy": "MultiRecord",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/in"}},
            "ContentType": "application/jsonlines",
            "SplitType": "Line",
        },
        "TransformOutput": {
            "S3OutputPath": "s3://bucket/out",
            "Accept": "application/json",
            "AssembleWith": "Line",
        },
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        "DataProcessing": {
            "InputFilter": "$.features",
            "JoinSource": "Input",
            "OutputFilter": "$['id','SageMakerOutput']",
        },
    },
    "CreateProcessingJob": {
        "ProcessingJobName": "a",
        "AppSpecification": {"ImageUri": "stand-in", "ContainerArguments": ["--x"]},
        "Environment": {"X": "1"},
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": "ml.m5.large",
                "VolumeSizeInGB": 1,
            }
        },
        "ProcessingInputs": [
            {
                "InputName": "in",
                "S3Input": {
                    "S3Uri": "s3://bucket/in",
                    "LocalPath": "/opt/ml/processing/in",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                },
            }
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "out",
                    "S3Output": {
                        "S3Uri": "s3://bucket/out",
                        "LocalPath": "/opt/ml/processing/out",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
        "RoleArn": ROLE,
    },
    "CreateEndpointConfig": {
        "EndpointConfigName": "a",
        "ProductionVariants": [
            {
                "VariantName": "v",
                "ModelName": "a",
                "InitialInstanceCount": 1,
                "InstanceType": "ml.m5.large",
            }
        ],
    },
    "CreateEndpoint": {"EndpointName": "a", "EndpointConfigName": "a"},
}

ABSENT = object()


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """Yield every place in a request: what holds it, and its key or position there."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """Return the parts of an endpoint with one resource of each kind, whose jobs never start."""
    folder = tmp_path_factory.mktemp("robustness")
    store = Store(folder / "store.sqlite")
    program = Program(train=("false",), serve=("false",), entrypoint=("false",))
    context = Context(store, FullStore(), Images({"stand-in": program}), folder, lock=0)
    for action, request in GOOD_REQUESTS.items():
        perform(context, "sagemaker", action, copy.deepcopy(request))
    yield context
    store.close()


def check_answer(context: Context, service: str, action: str, request: object) -> None:
    """Check that a request is refused in AWS's form or answered as the model has it."""
    try:
        perform(context, service, action, request)  # raises for an answer that the model has not
    except ServiceError as error:
        assert error.status in (400, 404)  # IAM has 404 for what is not there
        assert error.message


@pytest.mark.parametrize(
    "answer",
    [{}, {"TrainingJobArn": "not an ARN"}, {"TrainingJobArn": 5}],
    ids=["absent", "misshapen", "mistyped"],
)
def test_an_answer_that_the_service_would_not_give_is_not_given(
    context: Context, monkeypatch: pytest.MonkeyPatch, answer: dict[str, object]
) -> None:
    request = GOOD_REQUESTS["CreateTrainingJob"]
    monkeypatch.setitem(ACTIONS["sagemaker"], "CreateTrainingJob", lambda *_: answer)
    with pytest.raises((InvalidAnswer, WrongTypeError), match=r"trainingJobArn|TrainingJobArn"):
        perform(context, "sagemaker", "CreateTrainingJob", copy.deepcopy(request))


@pytest.mark.parametrize("action", GOOD_REQUESTS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_good_request_with_one_thing_changed_is_answered(
    context: Context, action: str, data: st.DataObject
) -> None:
    request = copy.deepcopy(GOOD_REQUESTS[action])
    holder, key = data.draw(st.sampled_from(list(places(request))))
    change = data.draw(st.sampled_from([ABSENT, *CANDIDATES]) | JUNK)
    if change is ABSENT:
        del holder[key]
    else:
        holder[key] = change
    check_answer(context, "sagemaker", action, request)


@pytest.mark.parametrize(("service", "action"), CALLS)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_any_request_is_answered(
    context: Context, service: str, action: str, data: st.DataObject
) -> None:
    operation = service_model(service).operation_model(action)
    assert operation.input_shape is not None
    request = data.draw(values(operation.input_shape))
    check_answer(context, service, action, request)


@pytest.mark.parametrize(
    "body",
    [
        b'{"NameContains": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"CreationTimeAfter": NaN}',
        b'{"CreationTimeAfter": -Infinity}',
        b'{"CreationTimeAfter": 1e400}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\x00",
        b"",
    ],
)
def test_what_only_python_takes_for_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(body)
