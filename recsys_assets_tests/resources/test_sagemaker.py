"""The SageMaker resource against the local endpoint: names, finding jobs again, stopping them."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from dagster import DagsterExecutionInterruptedError
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_assets.definitions import build_resources
from recsys_assets.domain.recordio import write_recordio
from recsys_assets.resources.object_store import ObjectStore
from recsys_assets.resources.sagemaker import (
    OBJECTIVE,
    JobFailed,
    Run,
    SageMaker,
    Training,
    built_in_image,
    epoch_loss,
    final_metrics,
    job_name,
)
from recsys_assets.settings import Settings

RUN = Run("0123456789abcdef", "0123456789abcdef", "fm_model")
HYPERPARAMETERS = {
    "feature_dim": "20",
    "num_factors": "2",
    "predictor_type": "regressor",
    "epochs": "3",
}


@pytest.fixture(scope="module")
def sagemaker(settings: Settings) -> Iterator[SageMaker]:
    with build_resources(settings)["sagemaker"].process_config_and_initialize_cm() as resource:
        yield resource


@pytest.fixture(scope="module")
def store(settings: Settings) -> Iterator[ObjectStore]:
    with build_resources(settings)["store"].process_config_and_initialize_cm() as resource:
        yield resource


@pytest.fixture(scope="module")
def training(
    store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Training]:
    """Return a training of 400 random rows, with hyperparameters changed at will."""
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(0)
    columns = np.stack([rng.integers(0, 10, 400), rng.integers(10, 20, 400)], axis=1)
    features = csr_matrix(
        (np.ones(800, np.float32), columns.ravel(), np.arange(0, 801, 2)), shape=(400, 20)
    )
    write_recordio(folder / "rows", features, rng.integers(1, 6, 400).astype(np.float32))
    uris = []
    for name in ("train", "validate"):
        version = store.publish(f"{name}_rows", "r", folder, row_count=400, facts={})
        uris.append(version.uri)

    def changed(**hyperparameters: str) -> Training:
        return Training(
            {**HYPERPARAMETERS, **hyperparameters}, *uris, store.uri("fm_model", "jobs")
        )

    return changed


def jobs_named(sagemaker: SageMaker, part: str) -> list[dict[str, Any]]:
    answer = sagemaker.aws.client("sagemaker").list_training_jobs(NameContains=part)
    return answer["TrainingJobSummaries"]


def status(sagemaker: SageMaker, name: str) -> str:
    return sagemaker.describe_training_job(name)["TrainingJobStatus"]


def interrupted(sagemaker: SageMaker, training: Training, run: Run) -> None:
    """Start a job and be cancelled while it trains, as Dagster cancels a step."""
    with sagemaker.training_job(training, run) as job:
        assert status(sagemaker, job.name) == "InProgress"
        raise DagsterExecutionInterruptedError


def test_a_training_job_completes_with_epoch_losses_in_its_log(
    sagemaker: SageMaker, training: Callable[..., Training]
) -> None:
    lines: list[str] = []
    with sagemaker.training_job(training(), RUN) as job:
        description = job.follow(lines.extend)
    losses = [loss for loss in map(epoch_loss, lines) if loss]
    assert [epoch for epoch, _ in losses] == [0, 1, 2]
    assert final_metrics(description)[OBJECTIVE] > 0
    tags = sagemaker.aws.client("sagemaker").list_tags(ResourceArn=description["TrainingJobArn"])
    assert {"Key": "recsys:asset", "Value": "fm_model"} in tags["Tags"]


def test_the_same_step_started_again_finds_its_job_and_creates_none(
    sagemaker: SageMaker, training: Callable[..., Training]
) -> None:
    run = Run("retry", "11111111", "fm_model")
    with sagemaker.training_job(training(), Run("first", "11111111", "fm_model")) as job:
        pass  # the step dies here: SageMaker goes on
    with sagemaker.training_job(training(), run) as found:
        found.follow()
    assert found.name == job.name
    assert len(jobs_named(sagemaker, "11111111")) == 1


def test_another_request_is_another_job(
    sagemaker: SageMaker, training: Callable[..., Training]
) -> None:
    run = Run("x", "22222222", "fm_model")
    for epochs in ("1", "2"):
        with sagemaker.training_job(training(epochs=epochs), run) as job:
            job.follow()
    assert len(jobs_named(sagemaker, "22222222")) == 2


def test_a_failed_job_tells_its_reason_and_the_next_try_has_the_next_name(
    sagemaker: SageMaker, training: Callable[..., Training]
) -> None:
    run = Run("x", "33333333", "fm_model")
    names = []
    for _ in range(2):
        with (
            pytest.raises(JobFailed, match="feature_dim") as caught,
            sagemaker.training_job(training(feature_dim="nonsense"), run) as job,
        ):
            job.follow()
        assert caught.value.allow_retries is False
        names.append(job.name)
    assert names[1] == f"{names[0]}-2"


def test_a_cancelled_run_stops_its_job(
    sagemaker: SageMaker, training: Callable[..., Training]
) -> None:
    run = Run("x", "44444444", "fm_model")
    with pytest.raises(DagsterExecutionInterruptedError):
        interrupted(sagemaker, training(epochs="10000000"), run)
    (job,) = jobs_named(sagemaker, "44444444")
    deadline = time.monotonic() + 30
    while status(sagemaker, job["TrainingJobName"]) != "Stopped":
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_any_other_error_leaves_the_job_running(
    sagemaker: SageMaker, training: Callable[..., Training]
) -> None:
    run = Run("x", "55555555", "fm_model")
    with (
        pytest.raises(RuntimeError),
        sagemaker.training_job(training(epochs="10000000"), run) as job,
    ):
        raise RuntimeError("the network is gone")
    try:
        assert status(sagemaker, job.name) == "InProgress"
    finally:
        job.stop()


@given(
    asset=st.text(min_size=1, max_size=80),
    root=st.uuids().map(str),
    length=st.sampled_from([29, 32, 63]),
)
def test_job_names_fit_the_api(asset: str, root: str, length: int) -> None:
    name = job_name(Run(root, root, f"a{asset}"), {"x": 1}, length)
    assert len(name) <= length
    assert all(part.isascii() and part.isalnum() for part in name.split("-"))


def test_the_tags_of_a_request_do_not_change_its_name() -> None:
    first = job_name(RUN, {"x": 1, "Tags": [1]}, 63)
    assert first == job_name(RUN, {"x": 1, "Tags": [2]}, 63)
    assert first != job_name(RUN, {"x": 2}, 63)


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "cn-north-1"])
def test_the_image_is_the_one_that_the_sagemaker_sdk_retrieves(region: str) -> None:
    code = (
        "from sagemaker.core import image_uris; "
        f"print(image_uris.retrieve('factorization-machines', '{region}'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == built_in_image(region)


def test_a_region_without_the_built_in_is_named_in_the_error() -> None:
    with pytest.raises(Exception, match="not offered in 'mars-1'"):
        built_in_image("mars-1")


def test_lines_that_tell_no_epoch_loss_are_passed_over() -> None:
    line = "[11/22/2026] #quality_metric: host=algo-1, epoch=3, train rmse <loss>=0.91"
    assert epoch_loss(line) == (3, 0.91)
    assert epoch_loss(line.replace("epoch=3,", "epoch=3, batch=0")) is None
