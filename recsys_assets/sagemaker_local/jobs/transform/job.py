"""Batch transform jobs: their record, and the run that serves a model to transform S3 objects.

A run starts the model's serving program, has the objects transformed while it is up
(``objects``) and ends it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys_assets.sagemaker_local.containers.model_server import (
    ModelDataError,
    ModelServer,
    ServerFailed,
    fetch_model,
)
from recsys_assets.sagemaker_local.jobs.run import JobFailed, Run, new_job
from recsys_assets.sagemaker_local.jobs.transform.execution_parameters import ExecutionParameters
from recsys_assets.sagemaker_local.jobs.transform.objects import Transformation
from recsys_assets.sagemaker_local.store import TRANSFORM_JOB, Description


def new_transform_job(request: Mapping[str, Any], container: Mapping[str, Any]) -> Description:
    """Return the record of a transform job that waits for its turn.

    Parameters
    ----------
    request
        A checked CreateTransformJob request.
    container
        The model's container definition, which the job keeps: a model may be deleted meanwhile.
    """
    return {
        **new_job(TRANSFORM_JOB, request),
        "TransformInput": {
            "CompressionType": "None",
            "SplitType": "None",
            **request["TransformInput"],
        },
        "TransformOutput": {"AssembleWith": "None", **request["TransformOutput"]},
        "DataProcessing": {
            "InputFilter": "$",
            "OutputFilter": "$",
            "JoinSource": "None",
            **request.get("DataProcessing", {}),
        },
        "ModelContainer": dict(container),
    }


class TransformRun(Run):
    """One run of a transform job: a server and the requests to it."""

    kind = TRANSFORM_JOB
    log_group = "/aws/sagemaker/TransformJobs"

    _server: ModelServer | None = None

    def stop(self) -> None:
        """Ask for an early end and cut off the requests under way."""
        super().stop()
        self._end_server()

    def interrupt(self) -> None:
        """Ask for an end at once and cut off the requests under way."""
        super().interrupt()
        self._end_server()

    def _do(self, folder: Path) -> None:
        with self.context.store.edit(TRANSFORM_JOB, self.name) as job:
            self.note_start(job)
        definition = job["ModelContainer"]
        try:
            container_folder = fetch_model(self.context.objects, definition, folder)
        except ModelDataError as error:
            raise JobFailed(f"ClientError: Model data download failed: {error}") from error
        stream = self._open_log()
        server = self._server = ModelServer(
            self.context.images.program(definition["Image"]).serve,
            definition,
            container_folder,
            {
                **job.get("Environment", {}),
                **ExecutionParameters().overridden_by(job).environment(),
            },
            lambda lines: self._log(stream, lines),
            self.context.lock,
        )
        try:
            server.await_ready(self._check)
            parameters = ExecutionParameters.preferred_by(server).overridden_by(job)
            Transformation(
                job,
                parameters,
                server,
                self.context.objects,
                folder,
                self._check,
                lambda line: self._log(stream, [f"[sagemaker logs]: {line}"]),
            ).run()
        except ServerFailed as error:
            self._check()  # a stop or an interruption has ended it
            raise JobFailed(f"AlgorithmError: {error} See job logs for more information") from error
        finally:
            self._end_server()
        self._end("Completed")

    def _end_server(self) -> None:
        if self._server is not None:
            self._server.kill()
