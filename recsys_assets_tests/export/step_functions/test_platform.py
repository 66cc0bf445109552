"""The platform's own graph as a state machine, whose Python tasks run the project's program."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recsys_assets.export.reading import read_graph
from recsys_assets.export.step_functions import StepFunctionsOptions
from recsys_assets.settings import LOCAL_BUCKET, LOCAL_REGION, LOCAL_ROLE_ARN
from recsys_assets_tests.export.step_functions.conftest import Machine, running_machine
from recsys_assets_tests.main_job.command import PROGRAM

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("step_functions")]

SMALL = {
    "raw_ratings__generated_rows": 3_000,
    "filtered_ratings__min_ratings_per_customer": 2,
    "filtered_ratings__min_ratings_per_video": 2,
    "model_training__hyperparameters__epochs": 3,
    "model_training__tuning__max_jobs": 2,
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("platform")
    options = StepFunctionsOptions(
        image="123456789012.dkr.ecr.us-east-1.amazonaws.com/project:1",
        role_arn=LOCAL_ROLE_ARN,
        bucket=LOCAL_BUCKET,
        region=LOCAL_REGION,
        poll_seconds=1,
        environment={"RECSYS_MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
    )
    path = f"{Path(PROGRAM).parent}:/usr/bin:/bin"
    with running_machine(folder, read_graph(), options, path) as machine:
        yield machine


def result(machine: Machine, run: str, task: str) -> dict[str, Any]:
    """Return what a task has told."""
    body = machine.s3.get_object(Bucket=LOCAL_BUCKET, Key=f"tasks/{run}/{task}.json")["Body"]
    return dict(json.loads(body.read()))


@pytest.mark.parametrize(("mode", "model"), [("train", "fm_model"), ("tune", "tuned_model")])
def test_ratings_become_recommendations(platform: Machine, mode: str, model: str) -> None:
    given = {**SMALL, "model_training__mode": mode, "deploy": mode == "tune"}
    if mode == "tune":
        given["registered_model_good_enough__margin"] = 9
    execution = platform.execute(mode, json.dumps(given))
    assert execution.status == "SUCCEEDED", (execution.error, execution.cause)
    run = str(json.loads(execution.output)["run"]["id"])
    selected = result(platform, run, "selected_model")
    assert selected["selected_model"]["selected"] == model
    assert set(selected) == {model, "selected_model"}
    evaluation = result(platform, run, "model_evaluation")["model_evaluation"]
    assert 0 < evaluation["test_rmse"] < 4
    recommended = result(platform, run, "recommendations")["recommendations"]
    assert recommended["uri"] == f"s3://{LOCAL_BUCKET}/recommendations/{run}/data/"
    assert recommended["rows"] > 0
    if mode == "tune":
        endpoint = result(platform, run, "endpoint")["endpoint"]
        assert endpoint["model_version"] == "recsys_assets 1"
        assert platform.endpoint.hosted("recsys-assets")["EndpointStatus"] == "InService"
