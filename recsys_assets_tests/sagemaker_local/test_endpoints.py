"""Endpoint configurations and endpoints as resources: names, listings, refusals and limits."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from recsys_assets_tests.sagemaker_local.endpoint import STAND_IN, Endpoint, eventually

VARIANT = {
    "VariantName": "v",
    "ModelName": "hosting",
    "InitialInstanceCount": 1,
    "InstanceType": "ml.m5.large",
}


@pytest.fixture(scope="module", autouse=True)
def model(endpoint: Endpoint) -> None:
    endpoint.sagemaker.create_model(ModelName="hosting", PrimaryContainer={"Image": STAND_IN})


def test_a_configuration_is_described_until_it_is_deleted(endpoint: Endpoint) -> None:
    sagemaker = endpoint.sagemaker
    arn = sagemaker.create_endpoint_config(
        EndpointConfigName="described",
        ProductionVariants=[{**VARIANT, "VolumeSizeInGB": 5}],
        Tags=[{"Key": "k", "Value": "v"}],
    )["EndpointConfigArn"]
    assert arn == "arn:aws:sagemaker:us-east-1:123456789012:endpoint-config/described"
    config = sagemaker.describe_endpoint_config(EndpointConfigName="described")
    assert config["ProductionVariants"] == [
        {**VARIANT, "VolumeSizeInGB": 5, "InitialVariantWeight": 1.0}
    ]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "k", "Value": "v"}]
    with pytest.raises(
        ClientError,
        match=r"ValidationException.*Cannot create already existing endpoint configuration \"arn:",
    ):
        sagemaker.create_endpoint_config(
            EndpointConfigName="described", ProductionVariants=[VARIANT]
        )
    sagemaker.delete_endpoint_config(EndpointConfigName="described")
    for action in (sagemaker.describe_endpoint_config, sagemaker.delete_endpoint_config):
        with pytest.raises(
            ClientError, match=r"ValidationException.*Could not find endpoint configuration"
        ):
            action(EndpointConfigName="described")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "DataCaptureConfig": {
                    "InitialSamplingPercentage": 1,
                    "DestinationS3Uri": "s3://b/k",
                    "CaptureOptions": [{"CaptureMode": "Input"}],
                }
            },
            "does not support DataCaptureConfig",
        ),
        (
            {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://b/k"}}},
            "does not support AsyncInferenceConfig",
        ),
        ({"ShadowProductionVariants": [VARIANT]}, "does not support ShadowProductionVariants"),
        (
            {
                "ProductionVariants": [
                    {**VARIANT, "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}
                ]
            },
            "does not support ProductionVariants.ServerlessConfig",
        ),
        (
            {"ProductionVariants": [{**VARIANT, "ModelDataDownloadTimeoutInSeconds": 60}]},
            "does not support ProductionVariants.ModelDataDownloadTimeoutInSeconds",
        ),
        (
            {"ProductionVariants": [{**VARIANT, "RoutingConfig": {"RoutingStrategy": "RANDOM"}}]},
            "only 'LEAST_OUTSTANDING_REQUESTS' for ProductionVariants.RoutingConfig",
        ),
        ({"ProductionVariants": [VARIANT, VARIANT]}, "Variant names must be unique, got v, v"),
        (
            {"ProductionVariants": [{**VARIANT, "InitialVariantWeight": 0.0}]},
            "must have a weight above 0",
        ),
        ({"ProductionVariants": [{**VARIANT, "ModelName": "absent"}]}, "Could not find model"),
        *(
            (
                {"ProductionVariants": [{k: v for k, v in VARIANT.items() if k != member}]},
                f"{member} is required for production variant v",
            )
            for member in ("ModelName", "InitialInstanceCount", "InstanceType")
        ),
    ],
)
def test_a_configuration_that_cannot_be_served_is_refused(
    endpoint: Endpoint, changes: dict[str, Any], message: str
) -> None:
    request = {"EndpointConfigName": "refused", "ProductionVariants": [VARIANT], **changes}
    with pytest.raises(ClientError, match=f"ValidationException.*{message}"):
        endpoint.sagemaker.create_endpoint_config(**request)


def test_configurations_are_listed_the_newest_first(endpoint: Endpoint) -> None:
    for name in ("list-b", "list-a"):
        endpoint.create_endpoint_config(name, VARIANT)
    found = endpoint.sagemaker.list_endpoint_configs(NameContains="list-")["EndpointConfigs"]
    assert [config["EndpointConfigName"] for config in found] == ["list-a", "list-b"]
    found = endpoint.sagemaker.list_endpoint_configs(
        NameContains="list-", SortBy="Name", SortOrder="Descending", MaxResults=1
    )
    assert [config["EndpointConfigName"] for config in found["EndpointConfigs"]] == ["list-b"]
    assert "NextToken" in found


def test_absent_and_taken_names_are_told_as_aws_tells_them(endpoint: Endpoint) -> None:
    sagemaker = endpoint.sagemaker
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="absent")
    endpoint.create_endpoint_config("taken", VARIANT)
    endpoint.create_endpoint_config("short-lived", VARIANT)
    sagemaker.create_endpoint(EndpointName="taken", EndpointConfigName="short-lived")
    with pytest.raises(ClientError) as caught:
        sagemaker.create_endpoint(EndpointName="taken", EndpointConfigName="taken")
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert error["Message"].startswith("Cannot create already existing endpoint ")
    for action, arguments in (
        (sagemaker.describe_endpoint, {}),
        (sagemaker.delete_endpoint, {}),
        (sagemaker.update_endpoint, {"EndpointConfigName": "taken"}),
        (
            sagemaker.update_endpoint_weights_and_capacities,
            {"DesiredWeightsAndCapacities": [{"VariantName": "v"}]},
        ),
    ):
        with pytest.raises(
            ClientError, match=r"ValidationException.*Could not find endpoint \"arn"
        ):
            action(EndpointName="absent", **arguments)

    assert endpoint.settled_endpoint("taken")["EndpointStatus"] == "InService"
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        sagemaker.update_endpoint(EndpointName="taken", EndpointConfigName="absent")
    # An endpoint serves on without its configuration, and cannot be updated any more, as on AWS.
    sagemaker.delete_endpoint_config(EndpointConfigName="short-lived")
    with pytest.raises(ClientError, match=r"Could not find endpoint configuration .*short-lived"):
        sagemaker.update_endpoint(EndpointName="taken", EndpointConfigName="taken")
    assert endpoint.invoke("taken")["Body"].read()
    sagemaker.delete_endpoint(EndpointName="taken")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"VariantName": "w"}, "has no production variant 'w'; it has: v"),
        ({"DesiredInstanceCount": 0}, "only 1 or more"),
        ({"DesiredWeight": 0}, "weight above 0"),
        (
            {"ServerlessUpdateConfig": {"MaxConcurrency": 1}},
            "does not support DesiredWeightsAndCapacities.ServerlessUpdateConfig",
        ),
        (
            {"DesiredInstanceCount": 21},
            "ResourceLimitExceeded.*is 20 Instances.*request delta of 20 Instances",
        ),
    ],
)
def test_weights_and_capacities_that_cannot_be_are_refused(
    endpoint: Endpoint, listed: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        endpoint.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=listed, DesiredWeightsAndCapacities=[{"VariantName": "v", **change}]
        )
    assert endpoint.hosted(listed)["EndpointStatus"] == "InService"


@pytest.fixture(scope="module")
def listed(endpoint: Endpoint) -> str:
    """Return the name of an endpoint in service, the first of two."""
    for name in ("listed-a", "listed-b"):
        endpoint.host(name, VARIANT)
        assert endpoint.settled_endpoint(name)["EndpointStatus"] == "InService"
    return "listed-a"


def test_endpoints_are_listed_by_status_and_tagged(endpoint: Endpoint, listed: str) -> None:
    found = endpoint.sagemaker.list_endpoints(NameContains="listed-", StatusEquals="InService")
    assert [item["EndpointName"] for item in found["Endpoints"]] == ["listed-b", "listed-a"]
    assert endpoint.sagemaker.list_endpoints(StatusEquals="RollingBack")["Endpoints"] == []
    arn = endpoint.hosted(listed)["EndpointArn"]
    endpoint.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "k", "Value": "v"}])
    assert endpoint.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "k", "Value": "v"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"RetainAllVariantProperties": True}, "only False for RetainAllVariantProperties"),
        (
            {
                "DeploymentConfig": {
                    "RollingUpdatePolicy": {
                        "MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1},
                        "WaitIntervalInSeconds": 0,
                    }
                }
            },
            "does not support DeploymentConfig",
        ),
    ],
)
def test_an_update_that_cannot_be_done_is_refused(
    endpoint: Endpoint, listed: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=f"ValidationException.*{message}"):
        endpoint.sagemaker.update_endpoint(
            EndpointName=listed, EndpointConfigName=listed, **arguments
        )


def test_endpoints_have_a_quota_of_instances(endpoint: Endpoint) -> None:
    endpoint.create_endpoint_config("many", {**VARIANT, "InitialInstanceCount": 21})
    with pytest.raises(endpoint.sagemaker.exceptions.ResourceLimitExceeded, match="delta of 21"):
        endpoint.sagemaker.create_endpoint(EndpointName="many", EndpointConfigName="many")
    with pytest.raises(ClientError, match="Could not find endpoint"):
        endpoint.hosted("many")


def test_a_deleted_endpoint_leaves_its_name_free(endpoint: Endpoint) -> None:
    for _ in range(2):
        endpoint.host("again", VARIANT)
        endpoint.settled_endpoint("again")
        endpoint.sagemaker.delete_endpoint(EndpointName="again")
        endpoint.sagemaker.delete_endpoint_config(EndpointConfigName="again")
        eventually(lambda: not endpoint.sagemaker.list_endpoints(NameContains="again")["Endpoints"])
