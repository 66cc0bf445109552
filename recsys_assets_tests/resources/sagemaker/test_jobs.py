"""The SageMaker resource against the local endpoint: names, finding jobs again, stopping them."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from dagster import DagsterExecutionInterruptedError, Failure

from recsys_assets.definitions import build_resources
from recsys_assets.resources.sagemaker import (
    OBJECTIVE,
    JobFailed,
    Look,
    Run,
    SageMaker,
    Training,
    epoch_loss,
    final_metrics,
)
from recsys_assets.resources.sagemaker.config import CostConfig
from recsys_assets.settings import Settings
from recsys_assets_tests.proxy import Answer, Call, Forward, Proxy, refuse

RUN = Run("0123456789abcdef", "0123456789abcdef", "fm_model")


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
        description = job.follow(lambda look: lines.extend(look.lines))
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


def test_lines_that_tell_no_epoch_loss_are_passed_over() -> None:
    line = "[11/22/2026] #quality_metric: host=algo-1, epoch=3, train rmse <loss>=0.91"
    assert epoch_loss(line) == (3, 0.91)
    assert epoch_loss(line.replace("epoch=3,", "epoch=3, batch=0")) is None


def test_a_job_goes_on_after_a_cancelled_run_if_the_deployment_wants_it(
    settings: Settings, training: Callable[..., Training]
) -> None:
    resource = build_resources(settings)["sagemaker"].model_copy(update={"stop_on_cancel": False})
    with resource.process_config_and_initialize_cm() as sagemaker:
        with pytest.raises(DagsterExecutionInterruptedError):
            interrupted(sagemaker, training(epochs="10000000"), Run("x", "66666666", "fm_model"))
        (job,) = jobs_named(sagemaker, "66666666")
        assert status(sagemaker, job["TrainingJobName"]) == "InProgress"
        sagemaker.aws.client("sagemaker").stop_training_job(TrainingJobName=job["TrainingJobName"])


def test_a_job_that_runs_too_long_is_stopped_by_who_follows_it(
    sagemaker: SageMaker, training: Callable[..., Training]
) -> None:
    endless = training(epochs="10000000")
    with (
        pytest.raises(JobFailed, match="ran longer than max_runtime_seconds") as caught,
        sagemaker.training_job(endless, Run("x", "77777777", "fm_model")) as job,
    ):
        job.follow(max_runtime_seconds=0.1)
    assert status(sagemaker, job.name) == "Stopped"
    assert caught.value.allow_retries is False


def test_a_failure_shows_the_last_lines_of_the_log(
    sagemaker: SageMaker, training: Callable[..., Training]
) -> None:
    run = Run("x", "88888888", "fm_model")
    seen: list[Look] = []
    with (
        pytest.raises(JobFailed) as caught,
        sagemaker.training_job(training(num_factors="nonsense"), run) as job,
    ):
        job.follow(seen.append)
    lines = [line for look in seen for line in look.lines]
    assert lines
    assert lines[-1] in str(caught.value.metadata["log"].value)
    assert [status for look in seen for status in look.statuses][-1] == "Training job failed"


def test_a_log_is_read_to_its_end_through_all_pages_of_streams_and_empty_pages_of_lines(
    proxied: SageMaker, proxy: Proxy
) -> None:
    # As CloudWatch may answer: 50 streams a page, pages without lines between those with some.
    streams = [f"job/algo-{number}-1" for number in range(1, 61)]

    def stream_page(call: Call, forward: Forward) -> Answer:
        if "nextToken" in call.content:
            return as_json(logStreams=[{"logStreamName": name} for name in streams[50:]])
        first = [{"logStreamName": name} for name in streams[:50]]
        return as_json(logStreams=first, nextToken="more")

    def line_page(call: Call, forward: Forward) -> Answer:
        position = int(call.content.get("nextToken", 0))
        name = call.content["logStreamName"]
        events = [{"message": f"the line of {name}", "timestamp": 1}] if position == 1 else []
        return as_json(events=events, nextForwardToken=str(min(position + 1, 2)))

    proxy.inject(stream_page, "DescribeLogStreams", times=2)
    proxy.inject(line_page, "GetLogEvents", times=9999)
    assert proxied.log_lines("job") == [f"the line of {name}" for name in streams]


def as_json(**content: Any) -> Answer:
    media = ("Content-Type", "application/x-amz-json-1.1")
    return Answer(200, (media,), json.dumps(content).encode())


def test_a_role_that_is_not_set_is_told_before_anything_is_asked_for(
    settings: Settings, training: Callable[..., Training]
) -> None:
    resource = build_resources(settings)["sagemaker"].model_copy(update={"role_arn": ""})
    with (
        resource.process_config_and_initialize_cm() as sagemaker,
        pytest.raises(Failure, match=r"No role: set RECSYS_ROLE_ARN\.") as caught,
        sagemaker.training_job(training(), RUN),
    ):
        pass
    assert caught.value.allow_retries is False


@pytest.mark.parametrize(
    ("reason", "retried"),
    [
        ("InternalServerError: We encountered an internal error. Please try again.", True),
        ("CapacityError: Unable to provision requested ML compute capacity.", True),
        ("AlgorithmError: see the log, exit code: 1", False),
        ("ClientError: Data download failed", False),
        ("All training jobs failed; training job a: AlgorithmError: x", False),
    ],
)
def test_only_what_is_not_the_callers_fault_may_be_retried(reason: str, retried: bool) -> None:
    assert JobFailed("job", "Failed", reason, []).allow_retries is retried
    assert JobFailed("job", "Stopped", reason, []).allow_retries is False


def test_a_job_that_could_cost_too_much_is_not_created_and_one_that_runs_is_followed(
    settings: Settings, training: Callable[..., Training]
) -> None:
    run = Run("x", "99999999", "fm_model")
    price = {"ml.m5.xlarge": 0.25}

    def with_cap(usd: float) -> Any:
        cost = CostConfig(max_usd_per_job=usd, price_per_hour=price)
        resource = build_resources(settings)["sagemaker"].model_copy(update={"cost": cost})
        return resource.process_config_and_initialize_cm()

    with with_cap(5.9) as sagemaker:  # a day of it would cost 6 dollars
        with pytest.raises(Failure, match=r"could cost 6.00 USD.*is 5.90"):
            start_and_follow(sagemaker, training(), run)
        assert jobs_named(sagemaker, "99999999") == []
    with with_cap(6) as sagemaker:
        metadata = start_and_follow(sagemaker, training(), run)
        seconds = metadata["billable_seconds"]
        assert metadata["estimated_cost_usd"] == pytest.approx(seconds * 0.25 / 3600, abs=1e-4)
    with with_cap(5.9) as sagemaker:
        start_and_follow(sagemaker, training(), run)
        assert len(jobs_named(sagemaker, "99999999")) == 1


def start_and_follow(sagemaker: SageMaker, training: Training, run: Run) -> dict[str, Any]:
    with sagemaker.training_job(training, run) as job:
        seconds = job.follow()["BillableTimeInSeconds"]
    return job.metadata(sagemaker.links(), seconds, "s3://bucket/model.tar.gz")


@pytest.mark.parametrize(
    ("code", "retried"), [("AccessDeniedException", False), ("ResourceLimitExceeded", True)]
)
def test_a_job_that_sagemaker_refuses_to_create_is_a_failure_with_its_reason(
    proxied: SageMaker,
    proxy: Proxy,
    training: Callable[..., Training],
    code: str,
    retried: bool,
) -> None:
    proxy.inject(refuse(400, code, "not this one"), "CreateTrainingJob")
    with (
        pytest.raises(Failure, match=rf"does not create .*: not this one \({code}\)") as caught,
        proxied.training_job(training(), Run("x", "aaaaaaaa", "fm_model")),
    ):
        pass
    assert caught.value.allow_retries is retried
    assert len(proxy.seen("CreateTrainingJob")) == 1


@pytest.mark.parametrize(
    ("how", "said", "retried"),
    [
        ("Interrupted", "its spot instances were taken away", True),
        ("MaxWaitTimeExceeded", "there were no spot instances for it", True),
        ("MaxRuntimeExceeded", "no reason given", False),
        ("Stopped", "no reason given", False),
    ],
)
def test_a_job_that_found_no_spot_instances_may_be_tried_again_and_one_that_was_stopped_not(
    proxied: SageMaker,
    proxy: Proxy,
    training: Callable[..., Training],
    how: str,
    said: str,
    retried: bool,
) -> None:
    def ended(call: Call, forward: Forward) -> Answer:
        content = json.loads(forward().body)
        content |= {"TrainingJobStatus": "Stopped", "SecondaryStatus": how}
        return Answer(200, (), json.dumps(content).encode())

    run = Run("x", "ffffffff", "fm_model")
    with proxied.training_job(training(), run) as job:
        job.follow()
    proxy.inject(ended, "DescribeTrainingJob")
    with pytest.raises(JobFailed, match=f"ended as Stopped: {said}") as caught:
        job.follow()
    assert (caught.value.allow_retries, caught.value.stopped) == (retried, not retried)
