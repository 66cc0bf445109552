"""The endpoint: created, left alone, brought to another model, rolled back, taken down."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from dagster import Failure

from recsys_assets.definitions import build_resources
from recsys_assets.resources.object_store import ObjectStore
from recsys_assets.resources.sagemaker import Run, SageMaker, Training
from recsys_assets.resources.sagemaker.config import CostConfig, EndpointConfig
from recsys_assets.settings import Settings
from recsys_assets_tests.proxy import Proxy, drop_after

NAME = "recsys-assets"
RUN = Run("run", "12121212", "endpoint")
INSTANCE = {"data": {"features": {"keys": [1, 11], "shape": [20], "values": [1, 1]}}}


@pytest.fixture(scope="module")
def artefacts(
    sagemaker: SageMaker, store: ObjectStore, training: Callable[..., Training]
) -> dict[str, str]:
    """Two models, and an archive that holds none."""
    found = {}
    for number in ("1", "2"):
        run = Run("x", f"bbbbbbb{number}", "fm_model")
        with sagemaker.training_job(training(epochs=number), run) as job:
            found[number] = job.follow()["ModelArtifacts"]["S3ModelArtifacts"]
    store.client.put_object(Bucket="recsys", Key="broken/model.tar.gz", Body=b"not an archive")
    return {**found, "broken": "s3://recsys/broken/model.tar.gz"}


def score(sagemaker: SageMaker) -> float:
    answer = sagemaker.aws.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=NAME,
        ContentType="application/json",
        Body=json.dumps({"instances": [INSTANCE]}),
    )
    value: float = json.loads(answer["Body"].read())["predictions"][0]["score"]
    return value


def test_an_endpoint_through_its_life(
    proxied: SageMaker, artefacts: dict[str, str], proxy: Proxy
) -> None:
    said: list[str] = []

    def deploy(artefact: str) -> dict[str, Any]:
        model = proxied.ensure_model(artefacts[artefact], RUN)
        return proxied.deploy(model, RUN, said.append)

    # Created, though the answers get lost; and found as it is by the next one who asks.
    for action in ("CreateModel", "CreateEndpointConfig", "CreateEndpoint"):
        proxy.inject(drop_after, action)
    first = deploy("1")
    assert deploy("1")["EndpointConfigName"] == first["EndpointConfigName"]
    one = score(proxied)
    assert len(proxy.seen("CreateEndpoint")) == 1
    assert proxy.seen("UpdateEndpoint") == []
    assert said[:2] == [f"endpoint {NAME}: absent", f"endpoint {NAME}: Creating"]

    # Brought to another model, which then answers.
    proxy.inject(drop_after, "UpdateEndpoint")
    second = deploy("2")
    assert second["EndpointConfigName"] != first["EndpointConfigName"]
    assert score(proxied) != one
    assert len(proxy.seen("UpdateEndpoint")) == 1

    # Rolled back from a model that does not come up, with the old one still answering.
    with pytest.raises(Failure, match=f"rolled endpoint {NAME} back") as caught:
        deploy("broken")
    assert caught.value.allow_retries is False
    two = score(proxied)
    assert two != one

    # Taken down with its configuration and its model.
    proxied.delete_endpoint(said.append)
    client = proxied.aws.client("sagemaker")
    listed = (
        client.list_endpoints()["Endpoints"] + client.list_endpoint_configs()["EndpointConfigs"]
    )
    assert second["EndpointConfigName"] not in json.dumps(listed, default=str)
    assert client.list_endpoints(NameContains=NAME)["Endpoints"] == []
    proxied.delete_endpoint(said.append)  # nothing is there any more


def test_an_endpoint_that_costs_too_much_an_hour_is_not_made(settings: Settings) -> None:
    cost = CostConfig(max_usd_per_endpoint_hour=0.1, price_per_hour={"ml.m5.large": 0.115})
    resource = build_resources(settings)["sagemaker"].model_copy(
        update={"cost": cost, "endpoint": EndpointConfig(name="too-dear")}
    )
    with resource.process_config_and_initialize_cm() as sagemaker:
        with pytest.raises(Failure, match=r"would cost 0.12 USD an hour"):
            sagemaker.deploy("model", RUN, print)
        client = sagemaker.aws.client("sagemaker")
        assert client.list_endpoints(NameContains="too-dear")["Endpoints"] == []
        configs = client.list_endpoint_configs(NameContains="too-dear")["EndpointConfigs"]
        assert configs == []
