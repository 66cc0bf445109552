"""The job's side of Pipes against Dagster's own side."""

import sys
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetExecutionContext,
    DagsterInstance,
    EventLogEntry,
    ExecuteInProcessResult,
    MaterializeResult,
    PipesSubprocessClient,
    asset,
    materialize,
)
from dagster._core.errors import DagsterPipesExecutionError

from recsys_assets.resources.spark.code import packed_modules

# As the script that is submitted does it; local files need no Spark.
PROGRAM = """
import sys
from recsys_assets.spark.pipes_session import PipesSession
with PipesSession(None) as dagster:
    number = dagster.extras["number"]
    dagster.report({"doubled": 2 * number, "name": "ünïcode 🎬\\n"})
    if number < 0:
        raise ValueError(f"{number} is below zero")
"""


def run(
    folder: Path, number: int, told: list[Any], instance: DagsterInstance
) -> ExecuteInProcessResult:
    """Run the program, with nothing of the platform to import but what is sent along."""
    modules = folder / "modules.zip"
    modules.write_bytes(packed_modules())

    @asset
    def doubled(context: AssetExecutionContext) -> MaterializeResult:
        client = PipesSubprocessClient(cwd=str(folder), env={"PYTHONPATH": str(modules)})
        done = client.run(
            context=context, command=[sys.executable, "-c", PROGRAM], extras={"number": number}
        )
        told.extend(done.get_custom_messages())
        return MaterializeResult()

    return materialize([doubled], instance=instance, raise_on_error=False)


def test_extras_arrive_and_reports_come_back(tmp_path: Path) -> None:
    told: list[Any] = []
    with DagsterInstance.ephemeral() as instance:
        assert run(tmp_path, 21, told, instance).success
    assert told == [{"doubled": 42, "name": "ünïcode 🎬\n"}]


def test_the_log_of_the_run_has_what_the_script_failed_for(tmp_path: Path) -> None:
    with DagsterInstance.ephemeral() as instance:
        result = run(tmp_path, -1, [], instance)
        log = instance.all_logs(result.run_id)
    assert not result.success
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    cause = failure.step_failure_data.error.cause or failure.step_failure_data.error
    assert DagsterPipesExecutionError.__name__ in cause.message
    told = [entry.dagster_event.engine_event_data.error for entry in log if is_engine_event(entry)]
    assert [error.message for error in told if error] == ["ValueError: -1 is below zero\n"]


def is_engine_event(entry: EventLogEntry) -> bool:
    event = entry.dagster_event
    return event is not None and event.event_type_value == "ENGINE_EVENT"


def test_a_script_that_nobody_started_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys_assets.spark.pipes_session import PipesSession

    monkeypatch.setattr(sys, "argv", ["filter_ratings.py"])
    with pytest.raises(SystemExit, match="expected DAGSTER_PIPES_MESSAGES in the environment"):
        PipesSession(None)  # type: ignore[arg-type]
