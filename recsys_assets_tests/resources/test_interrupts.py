"""Cancelled runs: what an interrupt may not cut short, and how it is recognized."""

import os
import signal
import threading
from itertools import count
from pathlib import Path

import pytest
from dagster import DagsterExecutionInterruptedError
from dagster._core.errors import raise_execution_interrupts

from recsys_assets.resources.interrupts import uninterrupted, was_interrupted
from recsys_assets.resources.sagemaker import Run
from recsys_assets.resources.tracking import MlflowTracking, TrackedRun


def interrupt_this_process() -> None:
    """Do what Dagster does to a run that is cancelled."""
    os.kill(os.getpid(), signal.SIGINT)


def write_until_interrupted(tracked: TrackedRun) -> None:
    with raise_execution_interrupts():
        threading.Timer(0.02, interrupt_this_process).start()
        for step in count():
            tracked.log_metric("train_rmse", 1.0, step)


def test_a_run_that_is_cancelled_while_it_writes_can_still_be_ended(tmp_path: Path) -> None:
    tracking = MlflowTracking(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    tracked = tracking.open("job", Run("run", "run", "fm_model"), {})
    errors = []  # whose tracebacks would keep a write that was cut short alive, and its lock
    for _ in range(15):
        with pytest.raises(DagsterExecutionInterruptedError) as caught:
            write_until_interrupted(tracked)
        errors.append(caught)
        tracked.tag("cancelled", f"{len(errors)} times")
    tracked.end("KILLED")
    ended = tracking.client.get_run(tracked.run_id)
    assert ended.info.status == "KILLED"
    assert ended.data.tags["cancelled"] == "15 times"


def test_an_interrupt_is_held_back_until_the_block_ends() -> None:
    done = []

    def work() -> None:
        with raise_execution_interrupts():
            with uninterrupted():
                interrupt_this_process()
                done.append("the block")
            done.append("what follows")

    with pytest.raises(DagsterExecutionInterruptedError):
        work()
    assert done == ["the block"]


def test_an_interrupt_is_not_lost_when_the_block_fails() -> None:
    def work() -> None:
        with raise_execution_interrupts(), uninterrupted():
            interrupt_this_process()
            raise OSError("the database is gone")

    with pytest.raises(DagsterExecutionInterruptedError) as caught:
        work()
    assert isinstance(caught.value.__context__, OSError)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, DagsterExecutionInterruptedError])
def test_a_cancelled_run_is_recognized_when_cleaning_up_fails_too(
    interrupt: type[BaseException],
) -> None:
    def work() -> None:
        try:
            raise interrupt
        finally:
            raise OSError("MLflow is gone")

    with pytest.raises(OSError, match="MLflow is gone") as caught:
        work()
    assert was_interrupted(caught.value)
    assert was_interrupted(interrupt())
    assert not was_interrupted(OSError("the network is gone"))
