"""Training jobs: their record from creation to end, and the run in between.

The record is what DescribeTrainingJob tells, with its status transitions. A child of a tuning job
carries its part of the tuning record too (tuned hyperparameters, objective).
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from recsys_assets.sagemaker_local.jobs.archives import pack
from recsys_assets.sagemaker_local.jobs.container import Container, ContainerFolder
from recsys_assets.sagemaker_local.jobs.run import (
    LONGEST_FAILURE_REASON,
    Interrupted,
    JobFailed,
    Run,
)
from recsys_assets.sagemaker_local.metrics import MetricScraper
from recsys_assets.sagemaker_local.s3 import S3Uri, no_objects, path_below
from recsys_assets.sagemaker_local.store import TRAINING_JOB, Description

DEFAULT_MAX_RUNTIME_SECONDS = 86_400
"""How long a training job may run when its request does not say, as on AWS."""

STOP_GRACE_SECONDS = 10.0
"""How long a program may take between SIGTERM and SIGKILL (AWS: 120; people wait here)."""

_HOST = "algo-1"

_ENDS = {
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
}


def new_training_job(request: Mapping[str, Any]) -> Description:
    """Return the record of a training job that waits for its turn.

    Parameters
    ----------
    request
        A checked CreateTrainingJob request; all its metric definitions are in it, those that
        SageMaker knows for a built-in algorithm too.
    """
    name = request["TrainingJobName"]
    output = S3Uri.parse(request["OutputDataConfig"]["S3OutputPath"], "S3OutputPath")
    job = {
        "EnableNetworkIsolation": False,
        "EnableInterContainerTrafficEncryption": False,
        "EnableManagedSpotTraining": False,
        **request,
        "TrainingJobArn": TRAINING_JOB.arn(name),
        "TrainingJobStatus": "InProgress",
        "ModelArtifacts": {"S3ModelArtifacts": str(output.child(f"{name}/output/model.tar.gz"))},
        "AlgorithmSpecification": {
            "EnableSageMakerMetricsTimeSeries": False,
            **request["AlgorithmSpecification"],
        },
        "StoppingCondition": {
            "MaxRuntimeInSeconds": DEFAULT_MAX_RUNTIME_SECONDS,
            **request.get("StoppingCondition", {}),
        },
        "SecondaryStatusTransitions": [],
    }
    job.pop("Tags", None)
    if "InputDataConfig" in request:
        job["InputDataConfig"] = [
            {"CompressionType": "None", "RecordWrapperType": "None", **channel}
            for channel in request["InputDataConfig"]
        ]
    _transition(job, "Starting", "Starting the training job")
    return job


def request_stop(job: Description) -> None:
    """Note in a training job's record that it is to stop; nothing if it is not in progress."""
    if job["TrainingJobStatus"] == "InProgress":
        job["TrainingJobStatus"] = "Stopping"
        _transition(job, "Stopping", "Stopping the training job")


def note_interruption(job: Description) -> None:
    """Note in a training job's record that its run was lost and that it waits for another."""
    if job.pop("TrainingStartTime", None) is not None:
        job.pop("FinalMetricDataList", None)
        _transition(
            job, "Interrupted", "The training job was interrupted and will start from the beginning"
        )


def end(job: Description, status: str, reason: str | None = None) -> None:
    """Write the end to a training job's record, unless it has one.

    Parameters
    ----------
    job
        The record.
    status
        ``Completed``, ``Failed``, ``Stopped`` or, as a secondary status, ``MaxRuntimeExceeded``.
        A job that the client stopped meanwhile ends as ``Stopped`` unless it failed.
    reason
        The FailureReason of a failed job.
    """
    if job["TrainingJobStatus"] not in ("InProgress", "Stopping"):
        return
    if job["TrainingJobStatus"] == "Stopping" and status != "Failed":
        status = "Stopped"
    _transition(job, status, _ENDS[status])
    last = job["SecondaryStatusTransitions"][-1]
    now = last["EndTime"] = last["StartTime"]
    job["TrainingJobStatus"] = "Stopped" if status == "MaxRuntimeExceeded" else status
    job["TrainingEndTime"] = now
    if "TrainingStartTime" in job:
        seconds = max(1, math.ceil(now - job["TrainingStartTime"]))
        job["TrainingTimeInSeconds"] = job["BillableTimeInSeconds"] = seconds
    if reason is not None:
        job["FailureReason"] = reason
    if "TuningObjective" in job:
        _settle_objective(job)


class TrainingRun(Run):
    """One run of a training job's program."""

    kind = TRAINING_JOB
    log_group = "/aws/sagemaker/TrainingJobs"

    def _do(self, folder: Path) -> None:
        with self.context.store.edit(TRAINING_JOB, self.name) as job:
            job["TrainingStartTime"] = time.time()
            self._progress(job, "Downloading", "Downloading input data")
        container_folder = ContainerFolder(folder / "ml")
        container_folder.create()
        _write_config(container_folder, job)
        for channel in job.get("InputDataConfig", []):
            self._download(channel, container_folder.channel(channel["ChannelName"]))

        with self.context.store.edit(TRAINING_JOB, self.name) as job:
            self._progress(
                job, "Training", "Training image download completed. Training in progress."
            )
        status, timed_out = self._run_program(job, container_folder)
        stopped = timed_out or self._stop_requested.is_set()
        if status != 0 and not stopped:
            raise JobFailed(_failure_reason(container_folder, status))

        with self.context.store.edit(TRAINING_JOB, self.name) as job:
            self._progress(job, "Uploading", "Uploading generated training model")
        # A program that was stopped may have left nothing, or what it had so far.
        if not stopped or any(container_folder.model.iterdir()):
            model = S3Uri.parse(job["ModelArtifacts"]["S3ModelArtifacts"], "S3ModelArtifacts")
            self._upload(container_folder.model, model)
            if any((container_folder.output / "data").iterdir()):
                target = S3Uri(model.bucket, model.key.replace("model.tar.gz", "output.tar.gz"))
                self._upload(container_folder.output / "data", target)
        self._end("MaxRuntimeExceeded" if timed_out else "Completed")

    def _end(self, status: str, reason: str | None = None) -> None:
        with self.context.store.edit(TRAINING_JOB, self.name) as job:
            end(job, status, reason)

    @staticmethod
    def _progress(job: Description, status: str, message: str) -> None:
        if job["TrainingJobStatus"] == "InProgress":
            _transition(job, status, message)

    def _download(self, channel: Mapping[str, Any], folder: Path) -> None:
        folder.mkdir()
        prefix = S3Uri.parse(channel["DataSource"]["S3DataSource"]["S3Uri"], "S3Uri")
        try:
            for key in self.context.objects.keys(prefix):
                self._check()
                path = path_below(folder, prefix.relative(key))
                self.context.objects.download(S3Uri(prefix.bucket, key), path)
        except (BotoCoreError, ClientError, OSError, ValueError) as error:
            raise JobFailed(f"ClientError: Data download failed: {prefix}: {error}") from error
        if not any(folder.iterdir()):
            raise JobFailed(f"ClientError: {no_objects(prefix)}")

    def _upload(self, folder: Path, target: S3Uri) -> None:
        archive = folder.with_suffix(".tar.gz")
        pack(folder, archive)
        try:
            self.context.objects.upload(archive, target)
        except (BotoCoreError, ClientError) as error:
            raise JobFailed(f"ClientError: Artifact upload failed: {target}: {error}") from error

    def _run_program(self, job: Description, folder: ContainerFolder) -> tuple[int, bool]:
        """Run the program to its end; return its exit status and whether its time ran out."""
        specification = job["AlgorithmSpecification"]
        scraper = MetricScraper(specification.get("MetricDefinitions", []))
        stream = self._open_log()

        def keep(lines: Sequence[str]) -> None:
            self._log(stream, lines)
            found = [scraper.scan(line) for line in lines]
            if any(found):
                with self.context.store.edit(TRAINING_JOB, self.name) as current:
                    current["FinalMetricDataList"] = scraper.final()

        container = Container(
            self.context.images.program(specification["TrainingImage"]).train,
            folder,
            {
                **job.get("Environment", {}),
                "TRAINING_JOB_NAME": self.name,
                "TRAINING_JOB_ARN": job["TrainingJobArn"],
            },
            keep,
            self.context.lock,
        )
        deadline = time.monotonic() + job["StoppingCondition"]["MaxRuntimeInSeconds"]
        kill_at = math.inf
        timed_out = False
        while (status := container.wait(0.1)) is None:
            now = time.monotonic()
            if self._interrupted.is_set():
                container.kill()
                raise Interrupted
            if now >= kill_at:
                container.kill()
            elif kill_at == math.inf and (now >= deadline or self._stop_requested.is_set()):
                timed_out = not self._stop_requested.is_set()
                container.terminate()
                kill_at = now + STOP_GRACE_SECONDS
        return status, timed_out


def _transition(job: Description, status: str, message: str) -> None:
    """Enter a secondary status; clients follow a job by the change of its message."""
    now = time.time()
    transitions = job["SecondaryStatusTransitions"]
    if transitions:
        transitions[-1].setdefault("EndTime", now)
    transitions.append({"Status": status, "StartTime": now, "StatusMessage": message})
    job["SecondaryStatus"] = status


def _settle_objective(job: Description) -> None:
    objective = job["TuningObjective"]
    values = {
        metric["MetricName"]: metric["Value"] for metric in job.get("FinalMetricDataList", [])
    }
    value = values.get(objective["MetricName"])
    if job["TrainingJobStatus"] == "Failed" or value is None:
        job["ObjectiveStatus"] = "Failed"
    else:
        job["ObjectiveStatus"] = "Succeeded"
        job["FinalHyperParameterTuningJobObjectiveMetric"] = {**objective, "Value": value}


def _write_config(folder: ContainerFolder, job: Description) -> None:
    resources = job["ResourceConfig"]
    folder.write_config("hyperparameters.json", job.get("HyperParameters", {}))
    folder.write_config(
        "inputdataconfig.json",
        {
            channel["ChannelName"]: {
                "TrainingInputMode": "File",
                "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
                    "S3DataDistributionType", "FullyReplicated"
                ),
                "RecordWrapperType": "None",
                **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
            }
            for channel in job.get("InputDataConfig", [])
        },
    )
    folder.write_config(
        "resourceconfig.json",
        {
            "current_host": _HOST,
            "current_instance_type": resources["InstanceType"],
            "current_group_name": "homogeneousCluster",
            "hosts": [_HOST],
            "instance_groups": [
                {
                    "instance_group_name": "homogeneousCluster",
                    "instance_type": resources["InstanceType"],
                    "hosts": [_HOST],
                }
            ],
            "network_interface_name": "lo",
        },
    )


def _failure_reason(folder: ContainerFolder, status: int) -> str:
    text = folder.failure() or "See job logs for more information"
    if not text.startswith(("AlgorithmError: ", "ClientError: ", "InternalServerError: ")):
        text = f"AlgorithmError: {text}"
    suffix = f", exit code: {status}"
    return text[: LONGEST_FAILURE_REASON - len(suffix)] + suffix
