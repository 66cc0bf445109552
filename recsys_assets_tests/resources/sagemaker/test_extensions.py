"""Hyperparameters that AWS's built-in does not have never reach it, and reach everything else."""

from collections.abc import Mapping
from typing import Any

import pytest
from dagster import Failure

from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.sagemaker import (
    Range,
    Run,
    SageMaker,
    Training,
    Tuning,
    built_in_image,
)

RUN = Run("r", "root", "fm_model")
REGION = "eu-west-1"
OWN_IMAGE = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/own:1"
EXTENDED = {"epochs": "120", "solver": "mcmc", "burn_in": "20"}
REFUSAL = r"built-in .* does not have the hyperparameters burn_in, solver\..*local services"


def sagemaker(endpoint_url: str | None = None, **settings: Any) -> SageMaker:
    """Return the resource of a deployment; nothing here calls AWS."""
    aws = AwsClients(
        local=False,
        region_name=REGION,
        endpoint_url=endpoint_url,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    return SageMaker(aws=aws, role_arn="arn:aws:iam::123456789012:role/recsys", **settings)


def training(hyperparameters: Mapping[str, str]) -> Training:
    return Training(hyperparameters, "s3://b/train/", "s3://b/validate/", "s3://b/out/")


@pytest.mark.parametrize("image", [None, built_in_image("us-east-1")])
def test_a_job_of_the_built_in_with_an_extension_is_refused_before_anything_is_sent(
    image: str | None,
) -> None:
    deployment = sagemaker(image=image)
    with (
        pytest.raises(Failure, match=REFUSAL) as caught,
        deployment.training_job(training(EXTENDED), RUN),
    ):
        pytest.fail("there is a job")
    assert caught.value.allow_retries is False


def test_a_search_of_the_built_in_over_an_extension_is_refused() -> None:
    ranges = (Range("burn_in", "Integer", 5, 50), Range("epochs", "Integer", 60, 120))
    tuning = Tuning(training({"num_factors": "8"}), ranges, "Random", 4, 2, seed=7)
    with pytest.raises(Failure, match="does not have the hyperparameters burn_in"):
        sagemaker().tuning_request(tuning, RUN)


def test_the_built_ins_own_hyperparameters_are_sent_to_it() -> None:
    request = sagemaker().training_request(training({"epochs": "3"}), RUN)
    assert request["HyperParameters"] == {"epochs": "3"}
    assert request["AlgorithmSpecification"]["TrainingImage"] == built_in_image(REGION)


@pytest.mark.parametrize(
    "settings", [{"image": OWN_IMAGE}, {"endpoint_url": "http://127.0.0.1:9"}], ids=str
)
def test_an_image_of_ones_own_and_what_stands_in_for_aws_get_them(settings: dict[str, str]) -> None:
    request = sagemaker(**settings).training_request(training(EXTENDED), RUN)
    assert request["HyperParameters"] == EXTENDED
