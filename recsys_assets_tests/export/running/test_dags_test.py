"""The exported DAG under `airflow dags test`: what fails, and real ratings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys_assets_tests.export.running import parity
from recsys_assets_tests.export.running.airflow_home import Airflow

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("airflow")]

SMALL = {
    "raw_ratings": {"generated_rows": 4_000},
    "filtered_ratings": {"min_ratings_per_customer": 2, "min_ratings_per_video": 2},
    "model_training": {"hyperparameters": {"epochs": 2, "num_factors": 8}, "select": "new"},
}


@pytest.fixture(scope="module")
def test_run(airflow: Airflow, export: Callable[..., Path]) -> Callable[..., str]:
    """Run the DAG with some params; return the run's id."""
    export("recommender", "--retries", "0")

    def run(**params: Any) -> str:
        return airflow.dags_test("recommender", {**parity.params(SMALL), **params})

    return run


def test_a_run_fails_with_its_training_job_and_cleans_up(
    airflow: Airflow, test_run: Callable[..., str]
) -> None:
    # The built-in wants a scale as well, which this run does not give.
    run_id = test_run(model_training__hyperparameters__factors_init_method="uniform")
    states = airflow.states(run_id)
    assert airflow.state(run_id) == "failed"
    assert states["models.fm_model"] == "failed"
    assert states["models.selected_model"] == "upstream_failed"
    assert states["clean_up"] == "success"


def test_a_check_that_fails_skips_what_follows_and_cleans_up(
    airflow: Airflow, test_run: Callable[..., str]
) -> None:
    run_id = test_run(raw_ratings_checks__most_frequent_rating_share__error=0.01)
    states = airflow.states(run_id)
    done = {task for task, state in states.items() if state == "success"}
    assert done == {"start", "ratings.raw_ratings", "ratings.raw_ratings_checks", "clean_up"}
    assert {state for task, state in states.items() if task not in done} == {"skipped"}
    assert airflow.state(run_id) == "success"
    (check,) = [
        found
        for name, found in airflow.returned(run_id, "ratings.raw_ratings_checks")["checks"].items()
        if not found["passed"] and found["severity"] == "ERROR"
    ]
    assert check["description"] in airflow.said.read_text()


def test_real_ratings_become_recommendations(
    airflow: Airflow, test_run: Callable[..., str], real_data: Callable[[str], Path]
) -> None:
    source = real_data("movietweetings")
    run_id = test_run(raw_ratings__source=str(source))
    assert airflow.state(run_id) == "success", airflow.states(run_id)
    made = airflow.returned(run_id, "predictions.model_evaluation")["model_evaluation"]
    assert made["test_rmse"] < made["mean_rmse"]
    assert airflow.returned(run_id, "predictions.recommendations")["recommendations"]["rows"] > 1000
