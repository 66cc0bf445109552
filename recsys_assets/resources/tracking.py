"""MLflow: every training job is a run with its parameters, losses and final status.

What belongs here: starting, finding, filling and ending MLflow runs. What does not: what a job is
and when it ends (``sagemaker.py``).

Runs are written through ``MlflowClient``. dagster-mlflow serves where it holds: to attach to a run
whose id is known (:meth:`MlflowTracking.attached`). Its way of finding and ending runs leaves them
RUNNING or ends them early when a run is launched from the UI, so that jobs do not rely on it.
"""

import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import BetaWarning, ConfigurableResource
from dagster import build_resources as build_dagster_resources
from pydantic import Field, PrivateAttr

from recsys_assets.resources.interrupts import INTERRUPTS, uninterrupted
from recsys_assets.resources.sagemaker import JobFailed, Run

if TYPE_CHECKING:
    from mlflow import MlflowClient

_JOB_TAG = "sagemaker.job"
_PARENT_TAG = "mlflow.parentRunId"
_MAX_PARAM = 6000  # characters that MLflow stores of a parameter


@dataclass(frozen=True)
class TrackedRun:
    """An open MLflow run."""

    run_id: str
    client: "MlflowClient"

    @uninterrupted()
    def log_metric(self, name: str, value: float, step: int = 0) -> None:
        """Record a value of a metric."""
        self.client.log_metric(self.run_id, name, value, step=step)

    @uninterrupted()
    def tag(self, name: str, value: str) -> None:
        """Set a tag."""
        self.client.set_tag(self.run_id, name, value)

    @uninterrupted()
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters, as they stand in the job's request."""
        from mlflow.entities import Param

        entries = [Param(name, str(value)[:_MAX_PARAM]) for name, value in params.items()]
        self.client.log_batch(self.run_id, params=entries)

    @uninterrupted()
    def end(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)


class MlflowTracking(ConfigurableResource[Any]):
    """Tracks training jobs in MLflow."""

    tracking_uri: str = Field(description="MLflow's tracking server or database.")
    artifact_location: str | None = Field(
        default=None, description="Where artifacts of a new experiment go; MLflow's own by default."
    )
    experiment: str = Field(default="recsys_assets", description="Experiment of all runs.")

    _client: Any = PrivateAttr(default=None)

    @contextmanager
    def job(
        self,
        job: str,
        run: Run,
        params: Mapping[str, Any],
    ) -> Iterator[TrackedRun]:
        """Track a job: the run ends FINISHED, FAILED or KILLED as the ``with`` block does.

        A run that an earlier try of the same job has left is taken up again.
        """
        tracked = self.open(job, run, params)
        try:
            yield tracked
        except INTERRUPTS:
            tracked.end("KILLED")
            raise
        except JobFailed as error:
            tracked.end("KILLED" if error.stopped else "FAILED")
            raise
        except BaseException:
            tracked.end("FAILED")
            raise
        tracked.end("FINISHED")

    @uninterrupted()
    def open(
        self, job: str, run: Run, params: Mapping[str, Any], parent: TrackedRun | None = None
    ) -> TrackedRun:
        """Start the run of a job, or take it up again; the caller ends it."""
        client, experiment_id = self.client, self._experiment_id()
        found = client.search_runs(
            [experiment_id], f"tags.`{_JOB_TAG}` = '{job}'", max_results=1, order_by=[]
        )
        if found:
            tracked = TrackedRun(found[0].info.run_id, client)
            client.update_run(tracked.run_id, status="RUNNING")
            return tracked
        tags = {
            _JOB_TAG: job,
            "dagster.run_id": run.run_id,
            "dagster.root_run_id": run.root_run_id,
            "dagster.asset": run.asset,
        }
        if parent is not None:
            tags[_PARENT_TAG] = parent.run_id
        created = client.create_run(
            experiment_id, start_time=int(time.time() * 1000), tags=tags, run_name=job
        )
        tracked = TrackedRun(created.info.run_id, client)
        tracked.log_params(params)
        return tracked

    @contextmanager
    def attached(self, run_id: str, context: Any) -> Iterator[Any]:
        """Attach dagster-mlflow's resource to an ended run, to add to it, and end it again.

        Parameters
        ----------
        run_id
            The MLflow run.
        context
            The asset's execution context.

        Yields
        ------
        dagster_mlflow.resources.MlFlow
            It has all functions of ``mlflow``, acting on that run.
        """
        _quiet_mlflow()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BetaWarning)
            yield from self._attached(run_id, context)

    def _attached(self, run_id: str, context: Any) -> Iterator[Any]:
        from dagster_mlflow import mlflow_tracking

        before = self.client.get_run(run_id).info
        config = {
            "experiment_name": self.experiment,
            "mlflow_tracking_uri": self.tracking_uri,
            "mlflow_run_id": run_id,
            "env": {},
            "extra_tags": {},
        }
        with build_dagster_resources(
            {"mlflow": mlflow_tracking},
            instance=context.instance,
            resource_config={"mlflow": {"config": config}},
            dagster_run=context.run,
            log_manager=context.log,
        ) as resources:
            mlflow = resources.mlflow
            try:
                yield mlflow
            finally:
                mlflow.end_run(status=before.status)
                # dagster-mlflow gives the run the name of the Dagster job.
                self.client.update_run(run_id, name=before.run_name)

    @property
    def client(self) -> "MlflowClient":
        """The MLflow client, made when first asked for."""
        if self._client is None:
            _quiet_mlflow()
            from mlflow import MlflowClient

            if self.tracking_uri.startswith("sqlite:///"):
                database = Path(self.tracking_uri.removeprefix("sqlite:///"))
                database.parent.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(tracking_uri=self.tracking_uri)
        client: MlflowClient = self._client
        return client

    def _experiment_id(self) -> str:
        experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is not None:
            return str(experiment.experiment_id)
        return str(self.client.create_experiment(self.experiment, self.artifact_location))


def _quiet_mlflow() -> None:
    """Keep MLflow's telemetry off unless it is asked for, and its migrations out of the log."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
