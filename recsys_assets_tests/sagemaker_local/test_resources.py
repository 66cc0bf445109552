"""Models, tags and listings."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from recsys_assets_tests.sagemaker_local.endpoint import BUCKET, ROLE, STAND_IN, Endpoint

CONTAINER = {"Image": STAND_IN, "ModelDataUrl": f"s3://{BUCKET}/m/model.tar.gz"}


def test_a_model_is_described_until_it_is_deleted(endpoint: Endpoint) -> None:
    created = endpoint.sagemaker.create_model(
        ModelName="described", PrimaryContainer=CONTAINER, ExecutionRoleArn=ROLE
    )
    model = endpoint.sagemaker.describe_model(ModelName="described")
    assert model["ModelArn"] == created["ModelArn"]
    assert model["ModelArn"] == "arn:aws:sagemaker:us-east-1:123456789012:model/described"
    assert model["PrimaryContainer"] == CONTAINER
    assert "VpcConfig" not in model  # strict clients fail on an empty one
    with pytest.raises(ClientError, match=r"ValidationException.*Cannot create already existing"):
        endpoint.sagemaker.create_model(ModelName="described", PrimaryContainer=CONTAINER)
    endpoint.sagemaker.delete_model(ModelName="described")
    for action in (endpoint.sagemaker.describe_model, endpoint.sagemaker.delete_model):
        with pytest.raises(ClientError, match=r"ValidationException.*Could not find model"):
            action(ModelName="described")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either PrimaryContainer or Containers"),
        ({"PrimaryContainer": {"ModelDataUrl": "s3://b/k"}}, "must have an Image"),
        ({"PrimaryContainer": {"Image": "other:1"}}, "no program for image 'other:1'"),
        ({"Containers": [CONTAINER, CONTAINER]}, "supports only one container"),
        (
            {"PrimaryContainer": {**CONTAINER, "Mode": "MultiModel"}},
            "only 'SingleModel' for PrimaryContainer.Mode",
        ),
        (
            {"PrimaryContainer": {**CONTAINER, "ModelDataUrl": "https://b/k"}},
            "ModelDataUrl must be of the form s3://bucket/key",
        ),
    ],
)
def test_a_model_that_cannot_be_served_is_refused(
    endpoint: Endpoint, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=f"ValidationException.*{message}"):
        endpoint.sagemaker.create_model(ModelName="refused", **arguments)


def test_tags_are_added_changed_and_listed(endpoint: Endpoint) -> None:
    tags = [{"Key": "run", "Value": "1"}, {"Key": "asset", "Value": "fm_model"}]
    arn = endpoint.sagemaker.create_model(
        ModelName="tagged", PrimaryContainer=CONTAINER, Tags=tags
    )["ModelArn"]
    answer = endpoint.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "run", "Value": "2"}])
    listed = endpoint.sagemaker.list_tags(ResourceArn=arn)["Tags"]
    expected = [{"Key": "asset", "Value": "fm_model"}, {"Key": "run", "Value": "2"}]
    assert listed == answer["Tags"] == expected

    many = [{"Key": f"k{number}", "Value": ""} for number in range(49)]
    with pytest.raises(ClientError, match="at most 50 tags"):
        endpoint.sagemaker.add_tags(ResourceArn=arn, Tags=many)
    for absent in (arn + "-absent", arn.replace("us-east-1", "eu-west-1"), arn.split("/")[0] + ":"):
        with pytest.raises(ClientError, match=r"ValidationException"):
            endpoint.sagemaker.list_tags(ResourceArn=absent)
    endpoint.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["run", "absent"])
    assert endpoint.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [expected[0]]
    endpoint.sagemaker.delete_model(ModelName="tagged")
    endpoint.sagemaker.create_model(ModelName="tagged", PrimaryContainer=CONTAINER)
    assert endpoint.sagemaker.list_tags(ResourceArn=arn)["Tags"] == []


def test_models_are_listed_in_pages_the_newest_first(endpoint: Endpoint) -> None:
    names = [f"listed-{number:02d}" for number in range(12)]
    for name in names:
        endpoint.sagemaker.create_model(ModelName=name, PrimaryContainer=CONTAINER)
    first = endpoint.sagemaker.list_models(NameContains="listed-")
    assert len(first["Models"]) == 10
    pages = endpoint.sagemaker.get_paginator("list_models").paginate(
        NameContains="listed-", PaginationConfig={"PageSize": 5}
    )
    sizes, found = [], []
    for page in pages:
        sizes.append(len(page["Models"]))
        found += [model["ModelName"] for model in page["Models"]]
    assert sizes == [5, 5, 2]
    assert found == names[::-1]
    by_name = endpoint.sagemaker.list_models(
        NameContains="listed-1", SortBy="Name", SortOrder="Ascending"
    )
    assert [model["ModelName"] for model in by_name["Models"]] == names[10:]


def test_training_jobs_are_listed_by_status_and_time(endpoint: Endpoint) -> None:
    endpoint.train("listing-good")
    endpoint.ended_training_job("listing-good")
    time.sleep(0.01)
    between = datetime.now(UTC)
    endpoint.train("listing-bad", {"exit": 1})
    endpoint.ended_training_job("listing-bad")

    def listed(**filters: Any) -> list[str]:
        found = endpoint.sagemaker.list_training_jobs(NameContains="listing-", **filters)
        return [job["TrainingJobName"] for job in found["TrainingJobSummaries"]]

    assert listed() == ["listing-good", "listing-bad"]
    assert listed(SortBy="Name") == ["listing-bad", "listing-good"]
    assert listed(SortBy="Status") == ["listing-good", "listing-bad"]
    assert listed(SortOrder="Descending") == ["listing-bad", "listing-good"]
    assert listed(StatusEquals="Failed") == ["listing-bad"]
    assert listed(CreationTimeAfter=between) == ["listing-bad"]
    assert listed(CreationTimeBefore=between) == ["listing-good"]
    assert listed(LastModifiedTimeBefore=between) == ["listing-good"]
    assert listed(LastModifiedTimeAfter=between + timedelta(days=1)) == []
    with pytest.raises(ClientError, match="does not support WarmPoolStatusEquals"):
        listed(WarmPoolStatusEquals="InUse")


def test_tuning_and_transform_jobs_are_listed_with_their_own_defaults(endpoint: Endpoint) -> None:
    ranges = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
    for name in ("listed-b", "listed-a"):
        endpoint.tune(name, ranges, jobs=1, parallel=1)
        endpoint.ended_tuning_job(name)
    found = endpoint.sagemaker.list_hyper_parameter_tuning_jobs(NameContains="listed-")
    summaries = found["HyperParameterTuningJobSummaries"]
    assert [job["HyperParameterTuningJobName"] for job in summaries] == ["listed-a", "listed-b"]
    assert summaries[0]["Strategy"] == "Random"
    assert summaries[0]["TrainingJobStatusCounters"]["Completed"] == 1

    endpoint.sagemaker.create_model(ModelName="listing", PrimaryContainer={"Image": STAND_IN})
    for name in ("listed-a", "listed-b"):
        endpoint.transform(name, "listing", "no/such/prefix")
        endpoint.ended_transform_job(name)
    found = endpoint.sagemaker.list_transform_jobs(NameContains="listed-", StatusEquals="Failed")
    names = [job["TransformJobName"] for job in found["TransformJobSummaries"]]
    assert names == ["listed-b", "listed-a"]
    assert "No S3 objects" in found["TransformJobSummaries"][0]["FailureReason"]
