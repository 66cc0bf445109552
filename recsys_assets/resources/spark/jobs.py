"""Spark jobs, run through Dagster's Pipes clients: on EMR Serverless, in Glue, on this machine.

What belongs here: the request for a job, following it, cancelling it and telling why it failed.
What does not: what the job reads and leaves (``resource.py``).

The clients of dagster-aws cancel a job if the run is cancelled while they wait for it, and say that
a job has failed. Here it is cancelled, too, if the run is cancelled as the job starts, and if it
cannot be followed any longer; and what the service says of a failure is told.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from botocore.exceptions import BotoCoreError, ClientError
from dagster import (
    AssetExecutionContext,
    Failure,
    MetadataValue,
    PipesContextInjector,
    PipesMessageReader,
    PipesSubprocessClient,
)
from dagster._core.errors import DagsterPipesExecutionError
from dagster._core.pipes.client import PipesClientCompletedInvocation

from recsys_assets.resources.interrupts import uninterrupted, was_interrupted
from recsys_assets.resources.spark.config import (
    EmrServerlessConfig,
    GlueConfig,
    LocalSparkConfig,
)

_ON_THIS_MACHINE = {
    "spark.master": "local[*]",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.log.level": "WARN",
}


@dataclass(frozen=True)
class Code:
    """Where the files of a job are: paths or URIs of the script and of what it imports."""

    script: str
    modules: str


class SparkJob(Protocol):
    """A place where a job can run."""

    def run(
        self, context: AssetExecutionContext, code: Code, extras: Mapping[str, Any]
    ) -> PipesClientCompletedInvocation:
        """Run a job to its end, with `extras` for the script.

        Raises
        ------
        dagster.Failure
            If the job fails or somebody else stops it; it says why.
        """


@dataclass(frozen=True)
class Look:
    """What a service says of a job.

    Attributes
    ----------
    state
        As the service calls it.
    ended
        Whether it will not change any more.
    failed
        Whether the job has ended or will end without its result.
    reason
        The service's own words; empty if it has none.
    """

    state: str
    ended: bool
    failed: bool
    reason: str


@dataclass(frozen=True)
class AwsJob(ABC):
    """A job that a service of AWS runs.

    Parameters
    ----------
    client
        boto3's client of the service, not used by anybody else.
    injector, reader
        Pipes' ways to the job and back.
    tags
        Of the job, where the service has any.
    """

    client: Any
    injector: PipesContextInjector
    reader: PipesMessageReader
    tags: Mapping[str, str]

    _ID: ClassVar[str]  # the name of a job's id in the answer that starts it

    def run(
        self, context: AssetExecutionContext, code: Code, extras: Mapping[str, Any]
    ) -> PipesClientCompletedInvocation:
        """Run a job to its end; see :class:`SparkJob`."""
        client = self._pipes_client()(
            client=self.client,
            context_injector=self.injector,
            message_reader=self.reader,
            forward_termination=False,  # `_minded` does it
        )
        with self._minded():
            run: PipesClientCompletedInvocation = client.run(
                context=context,
                start_job_run_params=self._request(context, code),
                extras=dict(extras),
            )
        return run

    @contextmanager
    def _minded(self) -> Iterator[None]:
        """See to it that the job that is started does not outlive its step."""
        started: list[str] = []
        start = self.client.start_job_run

        @uninterrupted()  # until it is known what has been started
        def start_job_run(**parameters: Any) -> dict[str, Any]:
            answer: dict[str, Any] = start(**parameters)
            started.append(answer[self._ID])
            return answer

        self.client.start_job_run = start_job_run
        try:
            yield
        except BaseException as error:
            for job_run in started:
                self._end(job_run, error)
            raise

    def _end(self, job_run: str, error: BaseException) -> None:
        """Tell why a job has failed; cancel one that may be running."""
        if not was_interrupted(error):
            with suppress(BotoCoreError, ClientError):  # if nobody can tell, it may well be running
                look = self._look(job_run)
                if look.failed:
                    raise Failure(
                        f"{self._name(job_run)} is {look.state}: {look.reason or 'no reason told'}",
                        metadata={"job_run": job_run, **self._links(job_run)},
                        allow_retries=False,
                    ) from error
                if look.ended:
                    return
        with uninterrupted():
            self._cancel(job_run)

    @abstractmethod
    def _pipes_client(self) -> Any:
        """Return the class of the service's Pipes client."""

    @abstractmethod
    def _request(self, context: AssetExecutionContext, code: Code) -> dict[str, Any]:
        """Return the parameters of ``start_job_run``."""

    @abstractmethod
    def _name(self, job_run: str) -> str:
        """Return what a person calls a job."""

    @abstractmethod
    def _look(self, job_run: str) -> Look:
        """Ask the service for the state of a job."""

    @abstractmethod
    def _links(self, job_run: str) -> dict[str, MetadataValue]:
        """Return where a person can look at a job."""

    @abstractmethod
    def _cancel(self, job_run: str) -> None:
        """Have the service stop a job."""


@dataclass(frozen=True)
class EmrServerlessJob(AwsJob):
    """A job run of an EMR Serverless application."""

    config: EmrServerlessConfig

    _ID = "jobRunId"

    def _pipes_client(self) -> Any:
        from dagster_aws.pipes import PipesEMRServerlessClient

        return PipesEMRServerlessClient

    def _request(self, context: AssetExecutionContext, code: Code) -> dict[str, Any]:
        options = " ".join(["--py-files", code.modules, *_spark_options(self.config.conf)])
        return {
            "applicationId": self.config.application_id,
            "executionRoleArn": self.config.execution_role_arn,
            "name": f"{context.asset_key.path[-1]}-{context.run.run_id}",
            "jobDriver": {
                "sparkSubmit": {"entryPoint": code.script, "sparkSubmitParameters": options}
            },
            "executionTimeoutMinutes": self.config.timeout_minutes,
            "tags": dict(self.tags),
        }

    def _name(self, job_run: str) -> str:
        return f"job run {job_run} of EMR Serverless application {self.config.application_id}"

    def _look(self, job_run: str) -> Look:
        found = self.client.get_job_run(**self._named(job_run))["jobRun"]
        state = found["state"]
        return Look(
            state=state,
            ended=state in ("SUCCESS", "FAILED", "CANCELLED"),
            failed=state in ("FAILED", "CANCELLING", "CANCELLED"),
            reason=found.get("stateDetails", ""),
        )

    def _links(self, job_run: str) -> dict[str, MetadataValue]:
        try:
            answer = self.client.get_dashboard_for_job_run(**self._named(job_run))
        except ClientError:  # a job that ended before Spark began has none
            return {}
        return {"dashboard": MetadataValue.url(answer["url"])}

    def _cancel(self, job_run: str) -> None:
        self.client.cancel_job_run(**self._named(job_run))

    def _named(self, job_run: str) -> dict[str, str]:
        return {"applicationId": self.config.application_id, "jobRunId": job_run}


@dataclass(frozen=True)
class GlueJob(AwsJob):
    """A run of a Glue job, with our script in the place of its own."""

    config: GlueConfig

    _ID = "JobRunId"

    def _pipes_client(self) -> Any:
        from dagster_aws.pipes import PipesGlueClient

        return PipesGlueClient

    def _request(self, context: AssetExecutionContext, code: Code) -> dict[str, Any]:
        arguments = {"--scriptLocation": code.script, "--extra-py-files": code.modules}
        if self.config.conf:
            # Glue has one argument for all of Spark's settings, and begins it itself.
            arguments["--conf"] = " ".join(_spark_options(self.config.conf)).removeprefix("--conf ")
        size = {"WorkerType": self.config.worker_type, "NumberOfWorkers": self.config.workers}
        return {
            "JobName": self.config.job_name,
            "Arguments": arguments,
            "Timeout": self.config.timeout_minutes,
            **{key: value for key, value in size.items() if value is not None},
        }

    def _name(self, job_run: str) -> str:
        return f"run {job_run} of Glue job {self.config.job_name}"

    def _look(self, job_run: str) -> Look:
        answer = self.client.get_job_run(JobName=self.config.job_name, RunId=job_run)
        state = answer["JobRun"]["JobRunState"]
        failed = state in ("FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED")
        return Look(
            state=state,
            ended=failed or state == "SUCCEEDED",
            failed=failed or state == "STOPPING",
            reason=answer["JobRun"].get("ErrorMessage", ""),
        )

    def _links(self, job_run: str) -> dict[str, MetadataValue]:
        region = self.client.meta.region_name
        console = f"https://{region}.console.aws.amazon.com/gluestudio/home?region={region}"
        return {"job": MetadataValue.url(f"{console}#/job/{self.config.job_name}/run/{job_run}")}

    def _cancel(self, job_run: str) -> None:
        answer = self.client.batch_stop_job_run(JobName=self.config.job_name, JobRunIds=[job_run])
        for error in answer.get("Errors", []):
            raise Failure(f"{self._name(job_run)} cannot be stopped: {error['ErrorDetail']}")


@dataclass(frozen=True)
class LocalJob:
    """Spark on this machine, in processes of its own."""

    config: LocalSparkConfig
    folder: Path

    def run(
        self, context: AssetExecutionContext, code: Code, extras: Mapping[str, Any]
    ) -> PipesClientCompletedInvocation:
        """Run a job to its end; see :class:`SparkJob`."""
        python = Path(self.config.python)
        submit = python.parent / "spark-submit"
        if not (os.access(python, os.X_OK) and os.access(submit, os.X_OK)):
            raise Failure(
                f"expected PySpark 3.5 beside {python}, found no {submit}: install it there, or "
                "name another interpreter in the file that RECSYS_SPARK_CONFIG names",
                allow_retries=False,
            )
        conf = {**_ON_THIS_MACHINE, "spark.local.dir": str(self.folder), **self.config.conf}
        client = PipesSubprocessClient(
            cwd=str(self.folder),
            env={"PYSPARK_PYTHON": str(python), "PYSPARK_DRIVER_PYTHON": str(python)},
        )
        command = [str(submit), *_spark_options(conf), "--py-files", code.modules, code.script]
        try:
            return client.run(context=context, command=command, extras=dict(extras))
        except DagsterPipesExecutionError as error:
            raise Failure(
                f"Spark on this machine has failed; the log of the run says why ({error})",
                allow_retries=False,
            ) from error


def _spark_options(conf: Mapping[str, str]) -> list[str]:
    """Return settings of Spark as options of spark-submit."""
    return [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
