"""Runs launched through the UI: what becomes of them in Dagster, in MLflow and in SageMaker."""

import re
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as TrackedRun

from recsys_assets.definitions import MAIN_JOB, defs
from recsys_assets_tests.ui.dagster_ui import DagsterUI, Run, eventually, small_run

pytestmark = pytest.mark.xdist_group("ui")

ASSETS = {
    key.to_user_string() for key in defs.resolve_job_def(MAIN_JOB).asset_layer.executable_asset_keys
}
ASSET_JOB = "__ASSET_JOB"  # what the UI launches when assets are selected in the graph
ENDLESS = {"epochs": 10_000_000}
TRIALS = 3
SEARCH = {"max_jobs": TRIALS, "ranges": {"linear_lr": {"min": 0.001, "max": 0.01}}}


def tracked_runs(mlflow: MlflowClient, run_id: str) -> list[TrackedRun]:
    """Return the MLflow runs of a Dagster run."""
    experiment = mlflow.get_experiment_by_name("recsys_assets")
    assert experiment is not None
    by_run = f"tags.`dagster.run_id` = '{run_id}'"
    return list(mlflow.search_runs([experiment.experiment_id], by_run))


def parent_and_children(runs: list[TrackedRun]) -> tuple[TrackedRun, list[TrackedRun]]:
    """Split the MLflow runs of a search."""
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    return parent, children


def job_of(run: TrackedRun) -> str:
    name: str = run.data.tags["sagemaker.job"]
    return name


def training_job(sagemaker: Any, name: str) -> dict[str, Any]:
    job: dict[str, Any] = sagemaker.describe_training_job(TrainingJobName=name)
    return job


@pytest.fixture(scope="module")
def models_alone(ui: DagsterUI, whole_run: Run) -> dict[str, Run]:
    """Launch fm_model alone and tuned_model alone, both with the mode left at train."""
    hyperparameters = {"epochs": 2}
    config = {
        "fm_model": {"hyperparameters": hyperparameters},
        "tuned_model": {"hyperparameters": hyperparameters, "tuning": {**SEARCH, "max_jobs": 1}},
    }
    launched = {
        asset: ui.launch(
            {"ops": {"model_training": {"config": chosen}}}, job=ASSET_JOB, assets=[asset]
        )
        for asset, chosen in config.items()
    }
    return {asset: ui.ended(run_id) for asset, run_id in launched.items()}


@pytest.fixture(scope="module")
def selected_alone(ui: DagsterUI, models_alone: dict[str, Run]) -> Run:
    """Launch selected_model alone."""
    newest = {"ops": {"model_training": {"config": {"select": "new"}}}}
    return ui.ended(ui.launch(newest, job=ASSET_JOB, assets=["selected_model"]))


@pytest.fixture(scope="module")
def predictions_alone(ui: DagsterUI, selected_alone: Run) -> dict[str, Run]:
    """Launch batch_predictions alone and recommendations alone."""
    launched = {
        asset: ui.launch({}, job=ASSET_JOB, assets=[asset])
        for asset in ("batch_predictions", "recommendations")
    }
    return {asset: ui.ended(run_id) for asset, run_id in launched.items()}


@pytest.fixture(scope="module")
def runs_at_once(
    ui: DagsterUI,
    sagemaker: Any,
    mlflow: MlflowClient,
    stopped_run: Run,
    predictions_alone: dict[str, Run],
) -> dict[str, Run]:
    """Launch runs of other ratings each and two retries; cancel two while they train."""
    bad = {"factors_init_method": "constant", "factors_init_value": 1e30}
    launched = {
        "tuned": ui.launch(small_run(3, mode="tune", hyperparameters={"epochs": 2}, tuning=SEARCH)),
        "broken": ui.launch(small_run(4, hyperparameters=bad)),
        "cancelled": ui.launch(small_run(5, hyperparameters=ENDLESS)),
        "cancelled search": ui.launch(
            small_run(6, mode="tune", hyperparameters=ENDLESS, tuning=SEARCH)
        ),
        "retried": ui.retry(stopped_run.run_id, "FROM_FAILURE"),
        "retried assets": ui.retry(stopped_run.run_id, "FROM_ASSET_FAILURE"),
    }

    def first_losses() -> list[TrackedRun]:
        runs = tracked_runs(mlflow, launched["cancelled"])
        return [run for run in runs if "train_rmse" in run.data.metrics]

    def trials_in_training() -> list[TrackedRun]:
        return [
            run
            for run in tracked_runs(mlflow, launched["cancelled search"])
            if "mlflow.parentRunId" in run.data.tags
            and training_job(sagemaker, job_of(run))["SecondaryStatus"] == "Training"
        ]

    # In the order in which they come: the endpoint trains as many jobs at once as there are CPUs.
    to_cancel = {"cancelled": first_losses, "cancelled search": trials_in_training}

    def all_cancelled() -> bool:
        for name, trains in list(to_cancel.items()):
            if trains():
                ui.cancel(launched[name])
                del to_cancel[name]
        return not to_cancel

    eventually(all_cancelled)
    return {name: ui.ended(run_id) for name, run_id in launched.items()}


def test_an_asset_of_an_empty_store_says_what_to_materialize_first(
    ui: DagsterUI, run_on_an_empty_store: str
) -> None:
    run = ui.ended(run_on_an_empty_store)
    assert run.status == "FAILURE"
    assert run.made == {}
    found = re.fullmatch(
        r"(\w+) has not been materialized: there is no s3://recsys/\1/current\.json\. "
        r"Materialize \1 first\.",
        run.failures["batch_predictions"],
    )
    assert found
    assert found[1] in {"protobuf_test", "selected_model", "sparse_matrix"}


def test_a_whole_run_makes_everything_but_the_model_of_the_other_mode(whole_run: Run) -> None:
    assert whole_run.status == "SUCCESS", whole_run.failures
    assert set(whole_run.made) == ASSETS - {"tuned_model"}


def test_a_whole_run_is_tracked_with_parameters_losses_and_results(
    whole_run: Run, mlflow: MlflowClient, sagemaker: Any
) -> None:
    (tracked,) = tracked_runs(mlflow, whole_run.run_id)
    job = training_job(sagemaker, job_of(tracked))
    assert job["TrainingJobStatus"] == "Completed"
    assert tracked.info.status == "FINISHED"
    assert tracked.info.run_name == job["TrainingJobName"]
    assert tracked.data.tags["dagster.asset"] == "fm_model"
    assert tracked.data.params == job["HyperParameters"]
    assert tracked.data.params["epochs"] == "4"

    losses = mlflow.get_metric_history(tracked.info.run_id, "train_rmse")
    losses.sort(key=lambda loss: loss.step)
    assert [loss.step for loss in losses] == [0, 1, 2, 3]
    assert losses[-1].value < losses[0].value
    final = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    evaluation = whole_run.made["model_evaluation"]
    assert tracked.data.metrics["validate_rmse"] == pytest.approx(final["test:rmse"])
    assert tracked.data.metrics["test_rmse"] == pytest.approx(evaluation["test_rmse"])


def test_tuned_model_alone_is_made_although_the_mode_says_train(
    models_alone: dict[str, Run],
) -> None:
    run = models_alone["tuned_model"]
    assert run.status == "SUCCESS", run.failures
    assert set(run.made) == {"tuned_model"}
    assert run.made["tuned_model"]["tuning_job"].startswith("tuned-model-")


def test_assets_made_one_at_a_time_build_on_each_other(
    models_alone: dict[str, Run], selected_alone: Run, predictions_alone: dict[str, Run]
) -> None:
    model = models_alone["fm_model"]
    assert model.status == "SUCCESS", model.failures
    assert set(model.made) == {"fm_model"}
    job = model.made["fm_model"]["training_job"]

    assert selected_alone.status == "SUCCESS", selected_alone.failures
    assert set(selected_alone.made) == {"selected_model"}
    assert selected_alone.made["selected_model"]["selected"] == "fm_model"
    assert selected_alone.made["selected_model"]["training_job"] == job

    for asset, run in predictions_alone.items():
        assert run.status == "SUCCESS", run.failures
        assert set(run.made) == {asset}
        assert run.made[asset]["model"] == job


def test_a_search_is_tracked_as_a_parent_with_a_child_for_each_trial(
    runs_at_once: dict[str, Run], mlflow: MlflowClient, sagemaker: Any
) -> None:
    run = runs_at_once["tuned"]
    assert run.status == "SUCCESS", run.failures
    assert set(run.made) == ASSETS - {"fm_model"}

    parent, children = parent_and_children(tracked_runs(mlflow, run.run_id))
    trials = sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=job_of(parent)
    )["TrainingJobSummaries"]
    assert len(trials) == TRIALS
    assert {job_of(child) for child in children} == {trial["TrainingJobName"] for trial in trials}
    assert {tracked.info.status for tracked in (parent, *children)} == {"FINISHED"}
    for child in children:
        assert len(mlflow.get_metric_history(child.info.run_id, "train_rmse")) == 2
    results = {job_of(child): child.data.metrics["validate_rmse"] for child in children}
    assert parent.data.metrics["validate_rmse"] == min(results.values())
    assert run.made["tuned_model"]["training_job"] == min(results, key=lambda name: results[name])
    (evaluated,) = [child for child in children if "test_rmse" in child.data.metrics]
    assert job_of(evaluated) == run.made["tuned_model"]["training_job"]


def test_a_cancelled_run_stops_its_training_job(
    runs_at_once: dict[str, Run], mlflow: MlflowClient, sagemaker: Any
) -> None:
    run = runs_at_once["cancelled"]
    assert run.status == "CANCELED"
    assert "protobuf_train" in run.made
    assert not run.made.keys() & {"fm_model", "selected_model"}
    (tracked,) = tracked_runs(mlflow, run.run_id)
    assert tracked.info.status == "KILLED"
    job = job_of(tracked)
    eventually(lambda: training_job(sagemaker, job)["TrainingJobStatus"] == "Stopped")


def test_a_cancelled_run_stops_its_search_and_every_trial(
    runs_at_once: dict[str, Run], mlflow: MlflowClient, sagemaker: Any
) -> None:
    run = runs_at_once["cancelled search"]
    assert run.status == "CANCELED"
    assert not run.made.keys() & {"tuned_model", "selected_model"}
    parent, children = parent_and_children(tracked_runs(mlflow, run.run_id))
    assert parent.info.status == "KILLED"
    assert {child.info.status for child in children} == {"KILLED"}

    def status() -> str:
        search = sagemaker.describe_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=job_of(parent)
        )
        return str(search["HyperParameterTuningJobStatus"])

    eventually(lambda: status() == "Stopped")
    for child in children:
        assert training_job(sagemaker, job_of(child))["TrainingJobStatus"] == "Stopped"


def test_a_training_job_that_breaks_fails_its_run_with_its_own_reason(
    runs_at_once: dict[str, Run], mlflow: MlflowClient, sagemaker: Any
) -> None:
    run = runs_at_once["broken"]
    assert run.status == "FAILURE"
    assert not run.made.keys() & {"fm_model", "selected_model"}
    (tracked,) = tracked_runs(mlflow, run.run_id)
    assert tracked.info.status == "FAILED"
    job = training_job(sagemaker, job_of(tracked))
    assert job["TrainingJobStatus"] == "Failed"
    assert "diverged" in job["FailureReason"]
    assert job["FailureReason"] in run.failures["model_training"]
    assert set(run.failures) == {"model_training"}


@pytest.mark.parametrize("retry", ["retried", "retried assets"])
def test_a_retry_makes_what_is_missing_from_what_its_forerunner_made(
    retry: str,
    stopped_run: Run,
    whole_run: Run,
    runs_at_once: dict[str, Run],
    mlflow: MlflowClient,
    sagemaker: Any,
) -> None:
    assert stopped_run.status == "FAILURE"
    assert "ended as Stopped" in stopped_run.failures["batch_predictions"]
    missing = {"batch_predictions", "model_evaluation"}
    assert stopped_run.made.keys() == ASSETS - missing - {"tuned_model"}
    assert stopped_run.made.keys() <= whole_run.made.keys()  # which made its own current later

    run = runs_at_once[retry]
    assert run.status == "SUCCESS", run.failures
    # From asset failure, Dagster makes again what a check has warned of: these ratings are few.
    assert set(run.made) - {"filtered_ratings"} == missing
    assert tracked_runs(mlflow, run.run_id) == []  # nothing was trained again
    predictions = run.made["batch_predictions"]
    assert predictions["model"] == stopped_run.made["selected_model"]["training_job"]
    transform = sagemaker.describe_transform_job(TransformJobName=predictions["transform_job"])
    source = transform["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    assert source == stopped_run.made["protobuf_test"]["dagster/uri"]
