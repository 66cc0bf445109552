import json
from typing import Any

import pytest
from botocore.model import ListShape, MapShape, Shape, StructureShape
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.sagemaker_local.api import ACTIONS
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.validation import ANY, check_request, refuse_unsupported
from recsys_assets.service_model import project, service_model, violations


def operation(action: str) -> Any:
    return service_model("sagemaker").operation_model(action)


def refusal(action: str, request: object) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        check_request(operation(action), request)
    return caught.value


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            {},
            "1 validation error detected: Value null at 'trainingJobName' failed to satisfy"
            " constraint: Member must not be null",
        ),
        (
            {"TrainingJobName": None},
            "1 validation error detected: Value null at 'trainingJobName' failed to satisfy"
            " constraint: Member must not be null",
        ),
        (
            {"TrainingJobName": "a_b"},
            "1 validation error detected: Value 'a_b' at 'trainingJobName' failed to satisfy"
            " constraint: Member must satisfy regular expression pattern:"
            " [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}",
        ),
        (
            {"TrainingJobName": "x" * 64},
            f"1 validation error detected: Value '{'x' * 64}' at 'trainingJobName' failed to"
            " satisfy constraint: Member must have length less than or equal to 63",
        ),
        (
            {"TrainingJobName": "a", "Colour": "red"},
            "1 validation error detected: Value 'red' at 'colour' failed to satisfy constraint:"
            " Member must be one of: [TrainingJobName]",
        ),
    ],
)
def test_violations_are_told_in_the_words_of_aws(request_: dict[str, Any], expected: str) -> None:
    error = refusal("DescribeTrainingJob", request_)
    assert (error.code, error.status) == ("ValidationException", 400)
    assert error.message == expected


def test_all_violations_of_a_request_are_told_with_their_places() -> None:
    message = refusal(
        "CreateTrainingJob",
        {
            "TrainingJobName": "fine",
            "RoleArn": "arn:aws:iam::123456789012:role/sagemaker",
            "OutputDataConfig": {},
            "HyperParameters": {"k" * 257: "v" * 2501},
            "InputDataConfig": [
                {"ChannelName": "a", "DataSource": {}},
                {"ChannelName": "b", "DataSource": {}, "CompressionType": "Zip"},
            ],
            "StoppingCondition": {"MaxRuntimeInSeconds": 0},
        },
    ).message
    assert message.startswith("5 validation errors detected: ")
    assert "Value null at 'outputDataConfig.s3OutputPath'" in message
    assert "'hyperParameters' failed to satisfy constraint: Member must have length less" in message
    assert f"'hyperParameters.{'k' * 257}.member'" in message
    assert (
        "Value 'Zip' at 'inputDataConfig.2.member.compressionType' failed to satisfy constraint:"
        " Member must satisfy enum value set: [None, Gzip]" in message
    )
    assert (
        "'stoppingCondition.maxRuntimeInSeconds' failed to satisfy constraint: Member must have"
        " value greater than or equal to 1" in message
    )


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ([], "ARRAY_VALUE can not be converted to structure at 'request'"),
        (
            {"TrainingJobName": 5},
            "NUMBER_VALUE can not be converted to string at 'trainingJobName'",
        ),
        (
            {"TrainingJobName": True},
            "BOOLEAN_VALUE can not be converted to string at 'trainingJobName'",
        ),
    ],
)
def test_wrong_json_types_are_serialization_errors(request_: object, expected: str) -> None:
    error = refusal("DescribeTrainingJob", request_)
    assert (error.code, error.message) == ("SerializationException", expected)


def test_of_very_many_violations_the_first_are_told() -> None:
    request = {"TrainingJobName": "a", **{f"unknown{number}": 1 for number in range(1000)}}
    message = refusal("DescribeTrainingJob", request).message
    assert message.startswith("20 validation errors detected: Value '1' at 'unknown0'")


def test_a_boolean_is_no_integer() -> None:
    request = {"MaxResults": True}
    assert refusal("ListTrainingJobs", request).code == "SerializationException"


def test_a_text_too_long_for_its_pattern_is_refused_at_once() -> None:
    # Matched against the pattern, this would take hours.
    endless = "https://" + "/a" * 400_000 + "\n"
    request = {"ModelName": "m", "PrimaryContainer": {"ModelDataUrl": endless}}
    assert "length less than or equal to 1024" in refusal("CreateModel", request).message


def test_tags_may_hold_letters_of_every_script() -> None:
    request = {
        "ResourceArn": "arn:aws:sagemaker:us-east-1:123456789012:model/m",
        "Tags": [{"Key": "größe ß", "Value": "推荐 1.0+x=@/:-_"}],
    }
    assert check_request(operation("AddTags"), request) == request
    request["Tags"] = [{"Key": "a#b", "Value": ""}]
    assert "Value 'a#b' at 'tags.1.member.key'" in refusal("AddTags", request).message


def shapes(shape: Shape, seen: set[str]) -> Any:
    if shape.name in seen:
        return
    seen.add(shape.name)
    yield shape
    match shape:
        case StructureShape():
            inner = list(shape.members.values())
        case ListShape():
            inner = [shape.member]
        case MapShape():
            inner = [shape.key, shape.value]
        case _:
            inner = []
    for item in inner:
        yield from shapes(item, seen)


@pytest.mark.parametrize("service", ACTIONS)
def test_every_text_of_every_action_can_be_checked(service: str) -> None:
    for action in ACTIONS[service]:
        model = service_model(service).operation_model(action)
        for top in (model.input_shape, model.output_shape):
            for shape in shapes(top, set()) if top is not None else ():
                if shape.type_name == "string":
                    list(violations(shape, "some text"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(list(operation("CreateTrainingJob").input_shape.members))
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_no_json_at_all_breaks_the_check(request: object) -> None:
    try:
        check_request(operation("CreateTrainingJob"), request)
    except ServiceError as error:
        assert error.status == 400
        json.dumps(error.message)


def test_what_a_table_does_not_name_is_refused_by_name() -> None:
    supported = {"Name": ANY, "Channels.Mode": ("File",), "Vpc": ANY}
    refuse_unsupported(
        {"Name": "n", "Channels": [{"Mode": "File"}, {}], "Vpc": {"Subnets": ["s"]}, "Spot": {}},
        supported,
    )
    with pytest.raises(ServiceError, match=r"does not support Channels\.Shuffle\.Seed\."):
        refuse_unsupported({"Channels": [{"Shuffle": {"Seed": 1}}]}, supported)
    with pytest.raises(ServiceError, match=r"supports only 'File' for Channels\.Mode, not 'Pipe'"):
        refuse_unsupported({"Channels": [{"Mode": "File"}, {"Mode": "Pipe"}]}, supported)


def test_a_projection_drops_what_the_model_does_not_know_at_any_depth() -> None:
    shape = operation("ListTrainingJobs").output_shape
    summary = {"TrainingJobName": "a", "TrainingJobStatus": "Failed"}
    answer = {"TrainingJobSummaries": [{**summary, "RoleArn": "r"}], "Private": 1}
    assert project(shape, answer) == {"TrainingJobSummaries": [summary]}
