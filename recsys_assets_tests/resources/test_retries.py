"""Which failures of a step are tried again, how often, and which end it at once."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, IncompleteReadError
from dagster import (
    AssetExecutionContext,
    AssetKey,
    DagsterEventType,
    DagsterExecutionInterruptedError,
    DagsterInstance,
    Definitions,
    Failure,
    asset,
    in_process_executor,
    materialize,
)
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from recsys_assets.definitions import build_defs
from recsys_assets.resources import retries
from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.object_store import ConflictError, MissingObjectError, ObjectStore
from recsys_assets.resources.retries import AWAY, CONFLICT, JOB, retried, retried_asset
from recsys_assets.resources.sagemaker import JobFailed
from recsys_assets.settings import Settings
from recsys_assets_tests.proxy import Proxy, refuse

JOB_RETRIES = 2
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, policy in {"AWAY": AWAY, "CONFLICT": CONFLICT, "JOB": JOB}.items():
        monkeypatch.setattr(retries, name, policy._replace(delay=0))


def failing_with(fail: Callable[[], Any], retry_mode: str = "enabled") -> tuple[int, Any]:
    """Execute a step that always fails; return how often it was tried, and what is kept of it."""
    tries: list[int] = []

    @asset
    def model(context: AssetExecutionContext) -> None:
        with retried(context.get_step_execution_context(), JOB_RETRIES):
            tries.append(context.retry_number)
            fail()

    executor = in_process_executor.configured({"retries": {retry_mode: {}}}, name="in_process")
    definitions = Definitions(assets=[model], executor=executor)
    job = definitions.resolve_implicit_global_asset_job_def()
    with DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(job)
        with suppress(DagsterExecutionInterruptedError):
            execute_run(InMemoryJob(job), run, instance)
        (failed,) = instance.all_logs(run.run_id, of_type=DagsterEventType.STEP_FAILURE)
    assert tries == [*range(len(tries))]
    return len(tries), failed.get_dagster_event().step_failure_data


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def refused(status: int, code: str) -> ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": "no"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "GetObject")


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (refused(503, "SlowDown"), 1 + AWAY.max_retries),
        (refused(400, "ThrottlingException"), 1 + AWAY.max_retries),
        (EndpointConnectionError(endpoint_url=NOWHERE), 1 + AWAY.max_retries),
        (IncompleteReadError(actual_bytes=1, expected_bytes=2), 1 + AWAY.max_retries),
        (refused(403, "AccessDenied"), 1),
        (ConflictError("another run has committed"), 1 + CONFLICT.max_retries),
        (JobFailed("job", "Failed", "InternalServerError: try again", []), 1 + JOB_RETRIES),
        (JobFailed("job", "Failed", "CapacityError: no instances", []), 1 + JOB_RETRIES),
        (JobFailed("job", "Stopped", "", [], no_spot=True), 1 + JOB_RETRIES),
        (JobFailed("job", "Stopped", "", []), 1),
        (JobFailed("job", "Failed", "AlgorithmError: no", []), 1),
        (JobFailed("job", "Failed", "ClientError: no", []), 1),
        (Failure("no such column", allow_retries=False), 1),
        (MissingObjectError("no such object", "s3://b/k"), 1),
        (ValueError("a mistake of ours"), 1),
    ],
    ids=repr,
)
def test_what_passes_by_itself_is_tried_again_and_what_does_not_is_not(
    error: Exception, tries: int
) -> None:
    assert failing_with(raising(error))[0] == tries


def test_the_reason_of_the_last_failure_is_kept_with_its_metadata() -> None:
    error = JobFailed("job", "Failed", "InternalServerError: try again", ["the last line"])
    shown = failing_with(raising(error))[1].user_failure_data
    assert shown.description == "job ended as Failed: InternalServerError: try again"
    assert "the last line" in shown.metadata["log"].value


def test_an_upload_that_a_throttled_store_refuses_is_tried_again(
    settings: Settings, proxied_aws: AwsClients, proxy: Proxy, tmp_path: Path
) -> None:
    impatient = AwsClients(**{**dict(proxied_aws), "patience_seconds": 0.0})
    store = ObjectStore(aws=impatient, bucket=settings.bucket)
    (tmp_path / "file").write_text("content")

    def publish() -> None:
        store.publish("uploaded", "run", tmp_path, row_count=None, facts={})

    proxy.inject(refuse(503, "SlowDown"), "PutObject", times=1 + AWAY.max_retries)
    tries, failure = failing_with(publish)
    assert "S3UploadFailedError" in failure.error.to_string()
    assert tries == len(proxy.seen("PutObject")) == 1 + AWAY.max_retries
    proxy.inject(refuse(403, "AccessDenied"), "PutObject")
    assert failing_with(publish)[0] == 1


def test_an_mlflow_server_that_is_away_is_waited_for_and_one_that_refuses_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = MlflowClient(NOWHERE)
    tries, failure = failing_with(lambda: away.get_experiment("0"))
    assert "MlflowException" in failure.error.to_string()
    assert tries == 1 + AWAY.max_retries
    with pytest.raises(MlflowException, match="No Experiment with id=7") as missing:
        MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_experiment("7")
    assert failing_with(raising(missing.value))[0] == 1


@pytest.mark.parametrize("cleaning_up_fails", [False, True])
def test_a_step_that_was_cancelled_is_not_tried_again(cleaning_up_fails: bool) -> None:
    def fail() -> None:
        try:
            raise DagsterExecutionInterruptedError
        finally:
            if cleaning_up_fails:
                raise refused(503, "SlowDown")

    assert failing_with(fail)[0] == 1


def test_a_run_without_retries_has_none() -> None:
    tries, failure = failing_with(raising(refused(503, "SlowDown")), "disabled")
    assert tries == 1
    assert "SlowDown" in failure.error.to_string()
    assert "RetryRequested" not in failure.error.to_string()


def test_what_another_run_has_committed_first_is_started_from_the_next_time() -> None:
    commits = iter([raising(ConflictError("too late")), raising(ConflictError("again")), int])
    seen: list[int] = []

    @asset
    @retried_asset
    def raw_ratings(context: AssetExecutionContext) -> int:
        seen.append(context.retry_number)
        next(commits)()
        return 7

    run = materialize([raw_ratings])
    assert run.output_for_node("raw_ratings") == 7
    assert seen == [0, 1, 2]
    pauses = run.filter_events(lambda e: e.event_type is DagsterEventType.STEP_UP_FOR_RETRY)
    assert len(pauses) == 2


def test_pauses_grow_with_each_try_and_differ_from_run_to_run() -> None:
    for policy in (AWAY, CONFLICT, JOB):
        drawn = [[policy.calculate_delay(n) for n in (1, 2, 3)] for _ in range(200)]
        middles = [sum(column) / len(column) for column in zip(*drawn, strict=True)]
        assert middles == sorted(middles)
        assert all(min(pauses) >= 0 for pauses in drawn)
        assert len({tuple(pauses) for pauses in drawn}) == len(drawn)


ASSETS = build_defs(Settings.from_environment({"RECSYS_STATE": "/nowhere"}))


@pytest.mark.parametrize(
    "name", sorted(spec.key.to_user_string() for spec in ASSETS.resolve_all_asset_specs())
)
def test_no_asset_gives_up_while_the_store_is_away(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "made up")
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOWHERE)
    variables = {"ENV": "aws", "STATE": str(tmp_path), "BUCKET": "b", "PATIENCE_SECONDS": "0"}
    settings = Settings.from_environment({f"RECSYS_{k}": v for k, v in variables.items()})
    everything = build_defs(settings).resolve_implicit_global_asset_job_def()
    job = everything.get_subset(asset_selection={AssetKey(name)})
    run = job.execute_in_process(raise_on_error=False)
    again = run.filter_events(lambda e: e.event_type is DagsterEventType.STEP_UP_FOR_RETRY)
    steps = {node.name for node in job.nodes if not node.name.endswith(("_checks", "_enough"))}
    assert [event.step_key for event in again] == [*steps] * AWAY.max_retries
