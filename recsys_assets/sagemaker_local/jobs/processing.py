"""Processing jobs: their record, and the run of a program between folders and S3.

Inputs are fetched to, and outputs uploaded from, the paths below ``/opt/ml/processing`` that a
request names.

Sources: "How to Build Your Own Processing Container" and "Save and Access Metadata Information
About Your Processing Job" in the Amazon SageMaker developer guide.
"""

import codecs
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys_assets.sagemaker_local.containers.container import HOST, Container, ContainerFolder
from recsys_assets.sagemaker_local.jobs.inputs import download
from recsys_assets.sagemaker_local.jobs.outputs import FolderMirror
from recsys_assets.sagemaker_local.jobs.run import (
    DEFAULT_MAX_RUNTIME_SECONDS,
    JobFailed,
    Run,
    new_job,
    program_failure,
)
from recsys_assets.sagemaker_local.s3 import S3Uri
from recsys_assets.sagemaker_local.store import PROCESSING_JOB, Description

_LONGEST_EXIT_MESSAGE = 1024
"""Bytes of the program's message that the job's record keeps."""


def new_processing_job(request: Mapping[str, Any]) -> Description:
    """Return the record of a processing job that waits for its turn.

    Parameters
    ----------
    request
        A checked CreateProcessingJob request.
    """
    return {
        **new_job(PROCESSING_JOB, request),
        "StoppingCondition": {
            "MaxRuntimeInSeconds": DEFAULT_MAX_RUNTIME_SECONDS,
            **request.get("StoppingCondition", {}),
        },
    }


class ProcessingRun(Run):
    """One run of a processing job's program."""

    kind = PROCESSING_JOB
    log_group = "/aws/sagemaker/ProcessingJobs"

    def _do(self, folder: Path) -> None:
        with self.context.store.edit(PROCESSING_JOB, self.name) as job:
            self.note_start(job)
        container_folder = ContainerFolder(folder / "ml")
        container_folder.create()
        _write_config(container_folder, job)
        for given in job.get("ProcessingInputs", []):
            source = given["S3Input"]
            target = container_folder.path(source["LocalPath"])
            download(self.context.objects, source, target, self._check)
        continuous = self._mirrors(job, container_folder, "Continuous")
        at_the_end = self._mirrors(job, container_folder, "EndOfJob")
        specification = job["AppSpecification"]
        stream = self._open_log()
        container = Container(
            self.context.images.program(specification["ImageUri"]).command(specification),
            container_folder,
            job.get("Environment", {}),
            lambda lines: self._log(stream, lines),
            self.context.lock,
        )
        max_runtime = job["StoppingCondition"]["MaxRuntimeInSeconds"]
        status, timed_out = self._await_end(container, max_runtime, continuous)
        self._keep_exit_message(container_folder)
        failed = status != 0 and not timed_out and not self._stop_requested.is_set()
        # What a failed program has written is kept only where it was to be kept all along.
        for mirror in [*continuous, *([] if failed else at_the_end)]:
            mirror.finish()
        if failed:
            raise program_failure("", status)
        self._end("Stopped" if timed_out else "Completed")

    def _mirrors(self, job: Description, folder: ContainerFolder, mode: str) -> list[FolderMirror]:
        """Return what uploads the outputs with an S3UploadMode, and make their folders."""
        outputs = job.get("ProcessingOutputConfig", {}).get("Outputs", [])
        return [
            FolderMirror(
                self.context.objects,
                folder.path(output["S3Output"]["LocalPath"]),
                S3Uri.parse(output["S3Output"]["S3Uri"], "S3Uri"),
            )
            for output in outputs
            if output["S3Output"]["S3UploadMode"] == mode
        ]

    def _keep_exit_message(self, folder: ContainerFolder) -> None:
        try:
            with (folder.output / "message").open("rb") as file:
                content = file.read(_LONGEST_EXIT_MESSAGE)
        except OSError:
            return
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            # The limit may cut the last character, which is left out then.
            message = decoder.decode(content, final=len(content) < _LONGEST_EXIT_MESSAGE)
        except UnicodeDecodeError as error:
            raise JobFailed(
                "ClientError: The file /opt/ml/output/message is not encoded in UTF-8"
            ) from error
        if message:
            with self.context.store.edit(PROCESSING_JOB, self.name) as job:
                job["ExitMessage"] = message


def _write_config(folder: ContainerFolder, job: Description) -> None:
    members = (
        "ProcessingJobArn",
        "ProcessingJobName",
        "AppSpecification",
        "Environment",
        "ProcessingInputs",
        "ProcessingOutputConfig",
        "ProcessingResources",
        "RoleArn",
        "StoppingCondition",
    )
    contents = {
        "processingjobconfig.json": {member: job[member] for member in members if member in job},
        "resourceconfig.json": {"current_host": HOST, "hosts": [HOST]},
    }
    config = folder.root / "config"
    config.mkdir()
    for name, content in contents.items():
        (config / name).write_text(json.dumps(content), encoding="utf-8")
