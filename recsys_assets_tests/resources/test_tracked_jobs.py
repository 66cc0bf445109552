"""Which failures of a job a step tries again, as Dagster executes it."""

from collections.abc import Callable
from typing import Any

import pytest
from dagster import (
    AssetExecutionContext,
    DagsterExecutionInterruptedError,
    DagsterInstance,
    asset,
    materialize,
)

from recsys_assets.resources import tracked_jobs
from recsys_assets.resources.sagemaker import JobFailed, configured_sagemaker

SAGEMAKER = configured_sagemaker(
    None, aws={"local": True}, role_arn="arn:aws:iam::123456789012:role/recsys"
)


@pytest.fixture
def execute(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], tuple[int, Any]]:
    """Return what executes a step whose job always fails with an error.

    It tells how often the step was tried, and what Dagster keeps of its failure.
    """
    monkeypatch.setattr(tracked_jobs, "_FIRST_RETRY_SECONDS", 0)

    def executed(error: BaseException) -> tuple[int, Any]:
        tries = []

        @asset
        def model(context: AssetExecutionContext) -> None:
            with tracked_jobs.retried(context, SAGEMAKER):
                tries.append(context.retry_number)
                raise error

        with DagsterInstance.ephemeral() as instance:
            run = materialize([model], instance=instance, raise_on_error=False)
            (failed,) = run.filter_events(lambda event: event.is_step_failure)
        return len(tries), failed.step_failure_data

    return executed


@pytest.mark.parametrize(
    ("reason", "tries"), [("InternalServerError: try again", 3), ("AlgorithmError: no", 1)]
)
def test_a_failed_job_is_tried_again_unless_the_fault_is_its_callers(
    execute: Any, reason: str, tries: int
) -> None:
    tried, failure = execute(JobFailed("job", "Failed", reason, ["the last line"]))
    assert tried == tries
    shown = failure.user_failure_data
    assert shown.description == f"job ended as Failed: {reason}"
    assert "the last line" in shown.metadata["log"].value


def test_a_step_that_was_cancelled_is_not_tried_again(execute: Any) -> None:
    assert execute(DagsterExecutionInterruptedError())[0] == 1
