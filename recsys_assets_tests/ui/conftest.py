"""The Dagster UI as `recsys-assets ui` serves it, and the runs that several tests look at.

The fixtures that launch runs ask for each other where the order matters: an asset that is selected
alone reads what was made current last.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from recsys_assets.services.clients import isolated_session
from recsys_assets.services.control import find_services
from recsys_assets_tests.sagemaker_local.endpoint import free_port
from recsys_assets_tests.ui.dagster_ui import DagsterUI, Run, eventually, small_run


@pytest.fixture(scope="session")
def ui_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a new state folder."""
    return tmp_path_factory.mktemp("ui") / "state"


@pytest.fixture(scope="session")
def ui(ui_state: Path) -> Iterator[DagsterUI]:
    """Serve the UI on the state folder with `recsys-assets ui`; nothing may outlive it."""
    ours = ("RECSYS_", "AWS_", "DAGSTER_", "MLFLOW_")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    # Nothing is made here but by hand: automation looks once, at what is not there yet.
    automation = ui_state.with_name("automation.yaml")
    automation.write_text("landing: {interval_seconds: 86400}")
    environment["RECSYS_AUTOMATION_CONFIG"] = str(automation)
    port = free_port()
    program = Path(sys.executable).with_name("recsys-assets")
    log = ui_state.with_name("ui.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "ui", "--state", ui_state, "--port", str(port)],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    client = DagsterUI(f"http://127.0.0.1:{port}")

    def serves() -> bool:
        assert process.poll() is None, log.read_text()
        return client.answers()

    try:
        eventually(serves)
        yield client
    finally:
        client.close()
        outlived = _end(process)
    assert outlived == []
    assert find_services(ui_state) is None


def _end(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """End a process as a person does; return what had to be killed of it and its descendants."""
    if process.poll() is not None:
        return []
    itself = psutil.Process(process.pid)
    family = [itself, *itself.children(recursive=True)]
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=60)
    for member in alive:
        member.kill()
    process.wait()
    return alive


@pytest.fixture(scope="session")
def sagemaker(ui: DagsterUI, ui_state: Path) -> Any:
    """Return a boto3 client of the SageMaker that the runs use."""
    services = find_services(ui_state)
    assert services is not None
    session = isolated_session(services.access_key_id, services.secret_access_key, services.region)
    return session.client("sagemaker", endpoint_url=services.sagemaker_url)


@pytest.fixture(scope="session")
def mlflow(ui_state: Path) -> MlflowClient:
    """Return a client of the MLflow that the runs use."""
    (ui_state / "mlflow").mkdir(parents=True, exist_ok=True)
    return MlflowClient(f"sqlite:///{ui_state}/mlflow/mlflow.db")


@pytest.fixture(scope="session")
def run_on_an_empty_store(ui: DagsterUI) -> str:
    """Launch batch_predictions before anything has been made."""
    return ui.launch({}, job="__ASSET_JOB", assets=["batch_predictions"])


@pytest.fixture(scope="session")
def stopped_run(ui: DagsterUI, sagemaker: Any, run_on_an_empty_store: str) -> Run:
    """Run the main job until somebody else stops its batch transform job."""
    run_id = ui.launch(small_run(seed=1, hyperparameters={"epochs": 2}))

    def transform_jobs() -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = sagemaker.list_transform_jobs(
            NameContains=run_id[:8], StatusEquals="InProgress"
        )["TransformJobSummaries"]
        return jobs

    (job,) = eventually(transform_jobs)
    sagemaker.stop_transform_job(TransformJobName=job["TransformJobName"])
    return ui.ended(run_id)


@pytest.fixture(scope="session")
def whole_run(ui: DagsterUI, run_on_an_empty_store: str, stopped_run: Run) -> Run:
    """Run the main job to its end."""
    ui.ended(run_on_an_empty_store)
    return ui.ended(ui.launch(small_run(seed=2, hyperparameters={"epochs": 4})))
