"""The check before the endpoint, and the model registry."""

from pathlib import Path

import pytest
from dagster import AssetCheckResult, AssetCheckSeverity, build_asset_check_context

from recsys_assets.assets.serving import GoodEnoughConfig, good_enough
from recsys_assets.io_managers import Document
from recsys_assets.resources.registry import register_model
from recsys_assets.resources.sagemaker import Run
from recsys_assets.resources.tracking import MlflowTracking


def checked(rmse: float, model: str = "fm-model-1", margin: float = 0.01) -> AssetCheckResult:
    evaluation = {"model": "fm-model-1", "test_rmse": rmse, "bias_rmse": 0.9}
    result = good_enough(
        context=build_asset_check_context(),
        config=GoodEnoughConfig(margin=margin),
        registered_model=Document({"job_name": model}),
        model_evaluation=Document(evaluation),
    )
    assert isinstance(result, AssetCheckResult)
    return result


@pytest.mark.parametrize("rmse", [0.5, 0.9, 0.909])
def test_a_model_within_the_margin_is_good_enough(rmse: float) -> None:
    assert checked(rmse).passed


@pytest.mark.parametrize("rmse", [0.911, 5.0, float("nan")])
def test_a_model_that_is_worse_than_the_biases_is_not_deployed(rmse: float) -> None:
    result = checked(rmse)
    assert not result.passed
    assert result.severity is AssetCheckSeverity.ERROR
    assert str(result.description).startswith(f"Not deployed: test RMSE {rmse:.4f}")
    assert checked(rmse, margin=10).passed or rmse != rmse


def test_an_evaluation_of_another_model_counts_for_nothing() -> None:
    result = checked(0.1, model="fm-model-2")
    assert not result.passed
    assert "model_evaluation is of fm-model-1, registered_model of fm-model-2" in str(
        result.description
    )


def test_an_artefact_is_registered_once_with_its_run_and_its_source(tmp_path: Path) -> None:
    tracking = MlflowTracking(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    tracked = tracking.open("job", Run("run", "run", "fm_model"), {})

    def register(artefact: str, model: str) -> str:
        tags = {"sagemaker.model": model}
        return register_model(tracking.client, "recommender", artefact, tracked.run_id, tags)

    assert register("s3://b/1.tar.gz", "a") == "1"
    assert register("s3://b/2.tar.gz", "b") == "2"
    assert register("s3://b/1.tar.gz", "c") == "1"
    first, second = (tracking.client.get_model_version("recommender", v) for v in ("1", "2"))
    assert (second.source, second.run_id) == ("s3://b/2.tar.gz", tracked.run_id)
    assert (first.tags, second.tags) == ({"sagemaker.model": "c"}, {"sagemaker.model": "b"})
