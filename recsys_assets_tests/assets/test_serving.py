"""The gate before the endpoint, and the model registry."""

from pathlib import Path

import pytest
from dagster import Failure

from recsys_assets.assets.serving import _require_good
from recsys_assets.resources.registry import register_model
from recsys_assets.resources.sagemaker import Run
from recsys_assets.resources.tracking import MlflowTracking

MODEL = {"job_name": "fm-model-1"}


def evaluation(test_rmse: float, bias_rmse: float = 0.9) -> dict[str, object]:
    return {"model": "fm-model-1", "test_rmse": test_rmse, "bias_rmse": bias_rmse}


@pytest.mark.parametrize("rmse", [0.5, 0.9, 0.909])
def test_a_model_within_the_margin_is_good_enough(rmse: float) -> None:
    _require_good(MODEL, evaluation(rmse), margin=0.01)


@pytest.mark.parametrize("rmse", [0.911, 5.0, float("nan")])
def test_a_model_that_is_worse_than_the_biases_is_not_deployed(rmse: float) -> None:
    with pytest.raises(Failure, match="Not deployed: test RMSE") as caught:
        _require_good(MODEL, evaluation(rmse), margin=0.01)
    assert caught.value.allow_retries is False


def test_an_evaluation_of_another_model_counts_for_nothing() -> None:
    with pytest.raises(Failure, match="model_evaluation is of fm-model-1"):
        _require_good({"job_name": "fm-model-2"}, evaluation(0.1), margin=0.01)


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
