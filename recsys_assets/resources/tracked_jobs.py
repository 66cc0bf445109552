"""Training and tuning jobs on SageMaker, tracked in MLflow and in Dagster while they run.

What belongs here: how a job's progress becomes log lines, events and metadata of the step, and
metrics of an MLflow run. What does not: requests and polling (``sagemaker``), MLflow itself
(``tracking.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dagster import AssetExecutionContext, AssetObservation

from recsys_assets.resources.sagemaker import (
    OBJECTIVE,
    JobFailed,
    Look,
    RemoteJob,
    Run,
    SageMaker,
    Training,
    Trial,
    Tuning,
    epoch_loss,
    final_metrics,
)
from recsys_assets.resources.tracking import MlflowTracking, TrackedRun

_MLFLOW_STATUS = {"Completed": "FINISHED", "Failed": "FAILED", "Stopped": "KILLED"}


@dataclass(frozen=True)
class Trained:
    """What a training or tuning job has made.

    Attributes
    ----------
    record
        Enough to use the model and to find its job again (JSON).
    losses
        The train RMSE by epoch (from 0) of the job that made the model.
    metadata
        What the asset shows of the job: links and cost.
    """

    record: dict[str, Any]
    losses: Mapping[int, float]
    metadata: dict[str, Any]


def train(
    sagemaker: SageMaker,
    tracking: MlflowTracking,
    training: Training,
    run: Run,
    context: AssetExecutionContext,
) -> Trained:
    """Run a training job.

    Raises
    ------
    JobFailed
        If it does not complete.
    """
    with (
        sagemaker.training_job(training, run) as job,
        tracking.job(job.name, run, training.hyperparameters) as tracked,
    ):
        announce(job, sagemaker, context)
        losses: dict[int, float] = {}

        def on_look(look: Look) -> None:
            log_look(look, context)
            new = dict(filter(None, map(epoch_loss, look.lines)))
            losses.update(new)
            for epoch, rmse in new.items():
                tracked.log_metric("train_rmse", rmse, step=epoch)
                context.log.info(f"epoch {epoch}: train RMSE {rmse:.4f}")
            if new:  # one event a look, whose numbers the UI draws while the job runs
                epoch = max(new)
                context.log_event(
                    AssetObservation(
                        run.asset,
                        partition=run.partition,
                        metadata={"epoch": epoch, "train_rmse": new[epoch]},
                    )
                )

        description = job.follow(on_look)
        record = training_record(description, tracked)
        tracked.log_metric("validate_rmse", record["metrics"]["validate_rmse"])
        tracked.tag("artefact", record["artefact"])
    seconds = description.get("BillableTimeInSeconds", 0)
    metadata = job.metadata(sagemaker.links(), seconds, record["artefact"])
    return Trained(record, losses, metadata)


def tune(
    sagemaker: SageMaker,
    tracking: MlflowTracking,
    tuning: Tuning,
    run: Run,
    context: AssetExecutionContext,
) -> Trained:
    """Run a tuning job; its model is that of its best training job.

    Raises
    ------
    JobFailed
        If it does not complete, or no training job did.
    """
    params = {
        "strategy": tuning.strategy,
        "max_jobs": tuning.max_jobs,
        "max_parallel_jobs": tuning.max_parallel_jobs,
        "seed": tuning.seed,
        **{f"range.{r.name}": f"{r.minimum:g} to {r.maximum:g} {r.scaling}" for r in tuning.ranges},
    }
    with (
        sagemaker.tuning_job(tuning, run) as job,
        tracking.job(job.name, run, params) as parent,
    ):
        announce(job, sagemaker, context)
        trials = _TrackedTrials(sagemaker, tracking, parent, run, context, tuning)
        try:
            description = job.follow(lambda look: trials.update(sagemaker.trials(job.name)))
        except JobFailed as error:
            raise _with_first_failure(error, job, sagemaker) from error
        finally:
            trials.close()
        if "BestTrainingJob" not in description:
            failed = JobFailed(job.name, "Failed", "none of its training jobs completed", [])
            raise _with_first_failure(failed, job, sagemaker)
        best = description["BestTrainingJob"]["TrainingJobName"]
        record = training_record(sagemaker.describe_training_job(best), trials.run_of(best))
        record["tuning_job"] = job.name
        parent.log_metric("validate_rmse", record["metrics"]["validate_rmse"])
        parent.tag("best_job", record["job_name"])
    losses = dict(filter(None, map(epoch_loss, sagemaker.log_lines(best))))
    seconds = sum(trial.seconds for trial in sagemaker.trials(job.name))
    metadata = job.metadata(sagemaker.links(), seconds, record["artefact"])
    return Trained(record, losses, metadata)


def announce(job: RemoteJob, sagemaker: SageMaker, context: AssetExecutionContext) -> None:
    """Tell which job a step follows, and where to look at it."""
    link = sagemaker.links().resource(job.kind.noun, job.name)
    shown = f" ({link.value})" if link.value != job.name else ""
    context.log.info(f"{job.kind.words} {job.name}{shown}")


def log_look(look: Look, context: AssetExecutionContext) -> None:
    """Log what a look at a job has found: one event a kind, for each costs milliseconds."""
    for status in look.statuses:
        context.log.info(status)
    if look.lines:
        context.log.debug("\n".join(look.lines))


def training_record(description: Mapping[str, Any], tracked: TrackedRun) -> dict[str, Any]:
    """Return what is kept of a training job: enough to use its model and to find the job again."""
    metrics = final_metrics(description)
    if OBJECTIVE not in metrics:
        raise JobFailed(
            description["TrainingJobName"],
            "Completed",
            f"it reported no {OBJECTIVE}, only {sorted(metrics) or 'nothing'}",
            [],
        )
    renamed = {"validate_rmse": metrics[OBJECTIVE]}
    if "train:rmse:epoch" in metrics:
        renamed["train_rmse"] = metrics["train:rmse:epoch"]
    return {
        "job_name": description["TrainingJobName"],
        "job_arn": description["TrainingJobArn"],
        "artefact": description["ModelArtifacts"]["S3ModelArtifacts"],
        "hyperparameters": {
            name: value
            for name, value in description["HyperParameters"].items()
            if not name.startswith("_")
        },
        "metrics": renamed,
        "billable_seconds": description.get("BillableTimeInSeconds"),
        "mlflow_run_id": tracked.run_id,
    }


def _with_first_failure(error: JobFailed, job: RemoteJob, sagemaker: SageMaker) -> JobFailed:
    """Return the failure of a tuning job with the reason and the log of a trial that failed."""
    failed = next(
        (trial.job_name for trial in sagemaker.trials(job.name) if trial.status == "Failed"), None
    )
    if failed is None or error.stopped:
        return error
    reason = sagemaker.describe_training_job(failed).get("FailureReason", "no reason given")
    return JobFailed(
        job.name,
        "Failed",
        f"{error.reason}; training job {failed}: {reason}",
        sagemaker.log_lines(failed),
    )


class _TrackedTrials:
    """Keeps an MLflow run for each training job of a tuning job."""

    def __init__(
        self,
        sagemaker: SageMaker,
        tracking: MlflowTracking,
        parent: TrackedRun,
        run: Run,
        context: AssetExecutionContext,
        tuning: Tuning,
    ) -> None:
        self._sagemaker = sagemaker
        self._tracking = tracking
        self._parent = parent
        self._run = run
        self._context = context
        self._static = tuning.training.hyperparameters
        self._max_jobs = tuning.max_jobs
        self._open: dict[str, TrackedRun] = {}
        self._ended: dict[str, TrackedRun] = {}

    def update(self, trials: list[Trial]) -> None:
        """Open the runs of new trials and end those of trials that have ended."""
        for trial in trials:
            if trial.job_name in self._ended:
                continue
            if trial.job_name not in self._open:
                params = {**self._static, **trial.hyperparameters}
                self._open[trial.job_name] = self._tracking.open(
                    trial.job_name, self._run, params, self._parent
                )
            if trial.ended:
                self._end(trial)

    def close(self) -> None:
        """End the runs of trials that still run: they go down with their tuning job."""
        for tracked in self._open.values():
            tracked.end("KILLED")

    def run_of(self, job: str) -> TrackedRun:
        """Return the run of a trial that has ended."""
        return self._ended[job]

    def _end(self, trial: Trial) -> None:
        tracked = self._open.pop(trial.job_name)
        self._ended[trial.job_name] = tracked
        for line in self._sagemaker.log_lines(trial.job_name):
            loss = epoch_loss(line)
            if loss is not None:
                tracked.log_metric("train_rmse", loss[1], step=loss[0])
        if trial.objective is not None:
            tracked.log_metric("validate_rmse", trial.objective)
        tracked.end(_MLFLOW_STATUS[trial.status])
        shown = "no result" if trial.objective is None else f"RMSE {trial.objective:.4f}"
        self._context.log.info(
            f"trial {len(self._ended)} of {self._max_jobs} {trial.status}: {shown} on validate"
        )
