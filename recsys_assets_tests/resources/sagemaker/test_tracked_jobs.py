"""What a step shows of its job while and after it runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dagster import AssetExecutionContext, DagsterInstance, Failure, asset, materialize

from recsys_assets.resources import tracked_jobs
from recsys_assets.resources.sagemaker import JobFailed, Range, Run, SageMaker, Training, Tuning
from recsys_assets.resources.tracking import MlflowTracking
from recsys_assets_tests.proxy import Proxy

Follow = Callable[[AssetExecutionContext], tracked_jobs.Trained]


class Followed:
    """A step that has followed a job: what came of it, and what Dagster has written down."""

    def __init__(self, follow: Follow) -> None:
        made: list[tracked_jobs.Trained] = []

        @asset
        def fm_model(context: AssetExecutionContext) -> None:
            made.append(follow(context))

        with DagsterInstance.ephemeral() as instance:
            run = materialize([fm_model], instance=instance)
            observed = run.filter_events(lambda event: event.is_asset_observation)
            self.observations = [
                {name: value.value for name, value in event.asset_observation.metadata.items()}
                for event in (event.asset_observation_data for event in observed)
            ]
            self.messages = [entry.user_message for entry in instance.all_logs(run.run_id)]
        (self.trained,) = made


@pytest.fixture
def tracking(tmp_path: Path) -> MlflowTracking:
    return MlflowTracking(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")


def test_states_and_losses_stand_in_the_log_in_events_and_in_the_metadata(
    sagemaker: SageMaker, training: Callable[..., Training], tracking: MlflowTracking
) -> None:
    run = Run("run", "cccccccc", "fm_model")
    step = Followed(
        lambda context: tracked_jobs.train(sagemaker, tracking, training(), run, context)
    )
    job, losses = step.trained.record["job_name"], step.trained.losses
    assert [*losses] == [0, 1, 2]
    assert step.observations[-1] == {"epoch": 2, "train_rmse": losses[2]}
    messages = [f"training job {job}", "Training job completed"]
    messages += [f"epoch {epoch}: train RMSE {loss:.4f}" for epoch, loss in losses.items()]
    assert [message for message in messages if message not in step.messages] == []
    shown = {name: getattr(value, "value", value) for name, value in step.trained.metadata.items()}
    assert shown == {
        "training_job": job,
        "log": f"/aws/sagemaker/TrainingJobs: {job}/",
        "artefact": step.trained.record["artefact"],
        "billable_seconds": step.trained.record["billable_seconds"],
        "instances": "1 x ml.m5.xlarge",
    }


def search(training: Training) -> Tuning:
    ranges = (Range("linear_lr", "Continuous", 0.001, 0.01),)
    return Tuning(training, ranges, "Random", max_jobs=2, max_parallel_jobs=2, seed=0)


def test_a_search_counts_the_seconds_of_all_its_jobs_and_shows_the_losses_of_the_best(
    sagemaker: SageMaker, training: Callable[..., Training], tracking: MlflowTracking
) -> None:
    run = Run("run", "dddddddd", "tuned_model")
    tuning = search(training())
    step = Followed(lambda context: tracked_jobs.tune(sagemaker, tracking, tuning, run, context))
    record = step.trained.record
    trials = sagemaker.trials(record["tuning_job"])
    assert len(trials) == 2
    seconds = sum(trial.seconds for trial in trials)
    assert seconds > 0
    assert step.trained.metadata["billable_seconds"] == round(seconds)
    assert [*step.trained.losses] == [0, 1, 2]
    assert step.trained.metadata["tuning_job"].value == record["tuning_job"]


def test_a_search_that_fails_tells_why_its_training_jobs_did(
    sagemaker: SageMaker, training: Callable[..., Training], tracking: MlflowTracking
) -> None:
    run = Run("run", "eeeeeeee", "tuned_model")
    tuning = search(training(num_factors="nonsense"))
    with pytest.raises(JobFailed, match="num_factors") as caught:
        Followed(lambda context: tracked_jobs.tune(sagemaker, tracking, tuning, run, context))
    assert caught.value.allow_retries is False
    assert "num_factors" in str(caught.value.metadata["log"].value)


def test_a_search_that_would_run_more_jobs_at_once_than_is_allowed_is_never_asked_for(
    proxied: SageMaker, proxy: Proxy, training: Callable[..., Training]
) -> None:
    allowed = proxied.training.max_parallel_jobs
    run = Run("run", "eeeeeeee", "tuned_model")
    tuning = replace(search(training()), max_jobs=10, max_parallel_jobs=allowed + 1)
    with (
        pytest.raises(Failure, match=f"at most {allowed}, .* got {allowed + 1}") as caught,
        proxied.tuning_job(tuning, run),
    ):
        pass
    assert caught.value.allow_retries is False
    assert proxy.seen("CreateHyperParameterTuningJob") == []
    with proxied.tuning_job(replace(tuning, max_parallel_jobs=allowed), run) as job:
        job.stop()
    assert len(proxy.seen("CreateHyperParameterTuningJob")) == 1
