"""The main job with a solver that SageMaker's built-in does not have, on the local services."""

import pytest

from recsys_assets.settings import Settings
from recsys_assets_tests.main_job.in_process import platform

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("in_process")]


def test_recommendations_come_from_a_bayesian_model(settings: Settings) -> None:
    config = {
        "raw_ratings": {"generated_rows": 4_000},
        "model_training": {"hyperparameters": {"solver": "mcmc", "epochs": 30, "num_factors": 4}},
    }
    with platform(settings, "solvers") as made_by:
        made_by.run(config)
        trained = made_by.store.require("selected_model").facts["content"]
        evaluation = made_by.store.require("model_evaluation").facts["content"]
        assert made_by.store.find("recommendations") is not None
    assert trained["hyperparameters"]["solver"] == "mcmc"
    assert evaluation["test_rmse"] < evaluation["mean_rmse"]
