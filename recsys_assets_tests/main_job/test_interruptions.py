"""A run that is interrupted stops what it has started, and nothing else."""

import signal
import sqlite3
from pathlib import Path
from typing import Any

import psutil
import pytest

from recsys_assets_tests.main_job.command import (
    Started,
    client,
    only_sentence,
    recsys_assets,
    services_of,
    write_config,
)
from recsys_assets_tests.sagemaker_local.endpoint import eventually

pytestmark = pytest.mark.xdist_group("main_job_interruptions")

KEEP_ALMOST_ALL = {"min_ratings_per_customer": 2, "min_ratings_per_video": 2}
HOURS = {"hyperparameters": {"epochs": 1_000_000, "num_factors": 100, "mini_batch_size": 10}}


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """Run config of a training that takes hours."""
    return write_config(
        tmp_path / "endless.yaml",
        raw_ratings={"generated_rows": 2_000},
        filtered_ratings=KEEP_ALMOST_ALL,
        model_training=HOURS,
    )


def test_a_second_run_on_a_state_folder_is_refused(
    state: Path, endless: Path, tmp_path: Path
) -> None:
    first = Started(tmp_path, "run", "--state", state, "--config", endless)
    first.wait_until_it_says("raw_ratings")
    said = only_sentence(recsys_assets("run", "--state", state))
    assert said == f"another run is at work in {state}; wait for it or give another --state"
    assert first.process.poll() is None
    first.process.send_signal(signal.SIGINT)
    assert only_sentence(first.ended()) == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_training_is_stopped_and_running_services_go_on(
    state: Path, endless: Path, tmp_path: Path, number: signal.Signals
) -> None:
    before = services_of(state)
    run = Started(tmp_path, "run", "--state", state, "--config", endless)
    run.wait_until_it_says("epoch 1")
    run.process.send_signal(number)
    assert only_sentence(run.ended()) == "interrupted"

    assert services_of(state) == before
    job = newest_training_job(state)
    assert job.startswith("fm-model-")
    eventually(lambda: status_of(state, job) == "Stopped")
    assert tracked_status(state, job) == "KILLED"
    assert "STARTED" not in dagster_statuses(state)


def newest_training_job(state: Path) -> str:
    jobs = client(state, "sagemaker").list_training_jobs(SortOrder="Descending")
    return str(jobs["TrainingJobSummaries"][0]["TrainingJobName"])


def status_of(state: Path, job: str) -> str:
    description = client(state, "sagemaker").describe_training_job(TrainingJobName=job)
    return str(description["TrainingJobStatus"])


def tracked_status(state: Path, job: str) -> str:
    ((status,),) = query(
        state / "mlflow" / "mlflow.db", "SELECT status FROM runs WHERE name = ?", job
    )
    return str(status)


def dagster_statuses(state: Path) -> set[str]:
    path = state / "dagster" / "history" / "runs.db"
    return {status for (status,) in query(path, "SELECT status FROM runs")}


def query(database: Path, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("moment", ["while services start", "while training"])
def test_services_that_an_interrupted_run_has_started_end_with_it(
    endless: Path, tmp_path: Path, moment: str
) -> None:
    own = tmp_path / "state"
    run = Started(tmp_path, "run", "--state", own, "--config", endless)
    if moment == "while training":
        run.wait_until_it_says("epoch 1")
    else:
        eventually(lambda: any("weed" in command_line[0] for command_line in processes_of(own)))
    run.process.send_signal(signal.SIGTERM)
    assert only_sentence(run.ended()) == "interrupted"
    assert processes_of(own) == []


def processes_of(state: Path) -> list[list[str]]:
    """The command lines of all processes that name a state folder."""
    listed = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
    return [command_line for command_line in listed if str(state) in " ".join(command_line)]
