"""The example of a workload of a user's own: it tunes, tracks and leaves a model that predicts."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import xgboost

from recsys_assets_tests.conftest import PROJECT
from recsys_assets_tests.sagemaker_local.endpoint import BUCKET, CREDENTIALS, Endpoint

# One run of the example serves all tests.
pytestmark = pytest.mark.xdist_group("xgboost_regressor")

TUNE = PROJECT / "examples" / "xgboost_regressor" / "tune.py"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> mlflow.MlflowClient:
    """Return a client of an MLflow of this test's own."""
    folder = tmp_path_factory.mktemp("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment("example", artifact_location=str(folder))
    return client


@pytest.fixture(scope="module")
def summary(endpoint: Endpoint, tracking: mlflow.MlflowClient) -> dict[str, Any]:
    """Return what the example prints at its end."""
    done = subprocess.run(
        [
            *(sys.executable, str(TUNE), f"--bucket={BUCKET}", "--name=example", "--interval=0.2"),
            *("--jobs=2", "--parallel=2", "--rounds=8", "--rows=300"),
        ],
        env={
            **os.environ,
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": endpoint.url,
            "AWS_ENDPOINT_URL_S3": endpoint.s3.meta.endpoint_url,
            "MLFLOW_TRACKING_URI": tracking.tracking_uri,
            "MLFLOW_EXPERIMENT_NAME": "example",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def test_the_best_job_is_the_one_whose_log_ends_with_the_lowest_error(
    endpoint: Endpoint, summary: dict[str, Any]
) -> None:
    told = {}
    for child in endpoint.children("example"):
        name = child["TrainingJobName"]
        log = "\n".join(endpoint.log_lines("Training", name))
        errors = [float(text) for text in re.findall(r"validation-rmse=(\S+)", log)]
        assert len(errors) == 8
        assert errors[-1] < errors[0]
        told[name] = errors[-1]
        objective = child["FinalHyperParameterTuningJobObjectiveMetric"]
        assert objective["Value"] == pytest.approx(errors[-1])
    assert len(told) == 2
    assert summary["training_job"] == min(told, key=told.__getitem__)
    assert summary["validation:rmse"] == pytest.approx(min(told.values()))


def test_each_training_job_has_a_run_in_mlflow_with_its_hyperparameters_and_errors(
    endpoint: Endpoint, summary: dict[str, Any], tracking: mlflow.MlflowClient
) -> None:
    experiment = tracking.get_experiment_by_name("example")
    runs = {run.info.run_name: run for run in tracking.search_runs([experiment.experiment_id])}
    children = {child["TrainingJobName"]: child for child in endpoint.children("example")}
    assert runs.keys() == children.keys()
    for name, run in runs.items():
        assert run.info.status == "FINISHED"
        tuned = children[name]["TunedHyperParameters"]
        assert {key: float(run.data.params[key]) for key in tuned} == {
            key: float(value) for key, value in tuned.items()
        }
        assert len(tracking.get_metric_history(run.info.run_id, "validation-rmse")) == 8
    best = runs[summary["training_job"]]
    assert best.data.metrics["validation-rmse"] == pytest.approx(
        summary["validation:rmse"], abs=1e-6
    )


def test_the_best_model_predicts_as_well_as_it_was_told_to(
    endpoint: Endpoint, summary: dict[str, Any], tmp_path: Path
) -> None:
    files = endpoint.archive(summary["model"])
    assert files.keys() == {"model.json"}
    (tmp_path / "model.json").write_bytes(files["model.json"])
    booster = xgboost.Booster(model_file=tmp_path / "model.json")
    rows = np.loadtxt(io.BytesIO(endpoint.get("example/validation/part-0.csv")), delimiter=",")
    predicted = booster.predict(xgboost.DMatrix(rows[:, 1:]))
    rmse = float(np.sqrt(np.mean((predicted - rows[:, 0]) ** 2)))
    assert rmse == pytest.approx(summary["validation:rmse"], abs=1e-4)
