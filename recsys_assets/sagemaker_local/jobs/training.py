"""Training jobs: their record from creation to end, and the run in between.

The record is what DescribeTrainingJob tells, with its status transitions. A child of a tuning job
carries its part of the tuning record too (tuned hyperparameters, objective).
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys_assets.sagemaker_local.containers.container import HOST, Container, ContainerFolder
from recsys_assets.sagemaker_local.images import Program
from recsys_assets.sagemaker_local.jobs.background import Background
from recsys_assets.sagemaker_local.jobs.inputs import PipeFeed, download
from recsys_assets.sagemaker_local.jobs.outputs import FolderMirror, upload_archive
from recsys_assets.sagemaker_local.jobs.run import (
    DEFAULT_MAX_RUNTIME_SECONDS,
    Run,
    new_job,
    program_failure,
)
from recsys_assets.sagemaker_local.metrics import MetricScraper
from recsys_assets.sagemaker_local.s3 import S3Uri
from recsys_assets.sagemaker_local.store import TRAINING_JOB, Description

CHECKPOINTS = "/opt/ml/checkpoints"
"""The LocalPath of checkpoints when a request does not say, and the only one here."""

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
    output = S3Uri.parse(request["OutputDataConfig"]["S3OutputPath"], "S3OutputPath")
    compressed = request["OutputDataConfig"].get("CompressionType", "GZIP") == "GZIP"
    model = output.child(
        f"{request['TrainingJobName']}/output/{'model.tar.gz' if compressed else 'model/'}"
    )
    job = {
        "EnableNetworkIsolation": False,
        "EnableInterContainerTrafficEncryption": False,
        "EnableManagedSpotTraining": False,
        **new_job(TRAINING_JOB, request),
        "ModelArtifacts": {"S3ModelArtifacts": str(model)},
        "AlgorithmSpecification": {
            "EnableSageMakerMetricsTimeSeries": False,
            **request["AlgorithmSpecification"],
        },
        "OutputDataConfig": {"KmsKeyId": "", **request["OutputDataConfig"]},
        "StoppingCondition": {
            "MaxRuntimeInSeconds": DEFAULT_MAX_RUNTIME_SECONDS,
            **request.get("StoppingCondition", {}),
        },
        "SecondaryStatusTransitions": [],
    }
    if "CheckpointConfig" in request:
        job["CheckpointConfig"] = {"LocalPath": CHECKPOINTS, **request["CheckpointConfig"]}
    if "InputDataConfig" in request:
        job["InputDataConfig"] = [
            {"CompressionType": "None", "RecordWrapperType": "None", **channel}
            for channel in request["InputDataConfig"]
        ]
    _transition(job, "Starting", "Starting the training job")
    return job


class TrainingRun(Run):
    """One run of a training job's program."""

    kind = TRAINING_JOB
    log_group = "/aws/sagemaker/TrainingJobs"

    @classmethod
    def request_stop(cls, job: Description) -> None:
        """Note in a training job's record that it is to stop; nothing if not in progress."""
        if job["TrainingJobStatus"] == "InProgress":
            super().request_stop(job)
            _transition(job, "Stopping", "Stopping the training job")

    @classmethod
    def note_interruption(cls, job: Description) -> None:
        """Note in a training job's record that its run was lost and that it waits for another."""
        if "TrainingStartTime" in job:
            super().note_interruption(job)
            job.pop("FinalMetricDataList", None)
            _transition(
                job,
                "Interrupted",
                "The training job was interrupted and will start from the beginning",
            )

    @classmethod
    def end(cls, job: Description, status: str, reason: str | None = None) -> None:
        """Write the end to a training job's record, unless it has one.

        ``MaxRuntimeExceeded``, a secondary status, is one of a stopped job.
        """
        if job["TrainingJobStatus"] not in ("InProgress", "Stopping"):
            return
        stopping = job["TrainingJobStatus"] == "Stopping"
        super().end(job, "Stopped" if status == "MaxRuntimeExceeded" else status, reason)
        if stopping or status != "MaxRuntimeExceeded":
            status = job["TrainingJobStatus"]
        _transition(job, status, _ENDS[status])
        last = job["SecondaryStatusTransitions"][-1]
        now = job["TrainingEndTime"] = last["EndTime"] = last["StartTime"]
        if "TrainingStartTime" in job:
            seconds = max(1, math.ceil(now - job["TrainingStartTime"]))
            job["TrainingTimeInSeconds"] = job["BillableTimeInSeconds"] = seconds
        if "TuningObjective" in job:
            _settle_objective(job)

    def _do(self, folder: Path) -> None:
        with self.context.store.edit(TRAINING_JOB, self.name) as job:
            self.note_start(job)
            self._progress(job, "Downloading", "Downloading input data")
        container_folder = ContainerFolder(folder / "ml")
        container_folder.create()
        _write_config(container_folder, job)
        feeds = self._open_channels(job, container_folder)
        checkpoints = self._restore_checkpoints(job, container_folder)

        with self.context.store.edit(TRAINING_JOB, self.name) as job:
            self._progress(
                job, "Training", "Training image download completed. Training in progress."
            )
        status, timed_out = self._run_program(job, container_folder, [*feeds, *checkpoints])
        for mirror in checkpoints:
            mirror.finish()
        stopped = timed_out or self._stop_requested.is_set()
        if status != 0 and not stopped:
            raise program_failure(container_folder.failure(), status)

        with self.context.store.edit(TRAINING_JOB, self.name) as job:
            self._progress(job, "Uploading", "Uploading generated training model")
        # A program that was stopped may have left nothing, or what it had so far.
        if not stopped or any(container_folder.model.iterdir()):
            self._upload(job, container_folder)
        self._end("MaxRuntimeExceeded" if timed_out else "Completed")

    @staticmethod
    def _progress(job: Description, status: str, message: str) -> None:
        if job["TrainingJobStatus"] == "InProgress":
            _transition(job, status, message)

    def _open_channels(self, job: Description, folder: ContainerFolder) -> list[PipeFeed]:
        """Fetch the channels in File mode; return the feeds of those in Pipe mode."""
        feeds = []
        for channel in job.get("InputDataConfig", []):
            if _input_mode(job, channel) == "Pipe":
                feeds.append(PipeFeed(self.context.objects, channel, folder.data))
            else:
                data = channel["DataSource"]["S3DataSource"]
                target = folder.channel(channel["ChannelName"])
                download(self.context.objects, data, target, self._check)
        return feeds

    def _restore_checkpoints(self, job: Description, folder: ContainerFolder) -> list[FolderMirror]:
        """Fetch the checkpoints; return what keeps them in S3, if the job asks for any."""
        if "CheckpointConfig" not in job:
            return []
        target = S3Uri.parse(job["CheckpointConfig"]["S3Uri"], "CheckpointConfig.S3Uri")
        mirror = FolderMirror(self.context.objects, folder.checkpoints, target)
        mirror.restore(self._check)
        return [mirror]

    def _upload(self, job: Description, folder: ContainerFolder) -> None:
        model = S3Uri.parse(job["ModelArtifacts"]["S3ModelArtifacts"], "S3ModelArtifacts")
        data = folder.output / "data"
        if job["OutputDataConfig"].get("CompressionType") == "NONE":
            FolderMirror(self.context.objects, folder.model, model).upload()
            FolderMirror(self.context.objects, data, model.parent.child("data/")).upload()
            return
        upload_archive(self.context.objects, folder.model, model)
        if any(data.iterdir()):
            upload_archive(self.context.objects, data, model.parent.child("output.tar.gz"))

    def _run_program(
        self, job: Description, folder: ContainerFolder, beside: Sequence[Background]
    ) -> tuple[int, bool]:
        """Run the program to its end; return its exit status and whether its time ran out."""
        specification = job["AlgorithmSpecification"]
        scraper = MetricScraper(specification.get("MetricDefinitions", []))
        self.context.store.forget_metrics(self.name)  # those of an interrupted run
        stream = self._open_log()

        def keep(lines: Sequence[str]) -> None:
            self._log(stream, lines)
            found = [metric for line in lines for metric in scraper.scan(line)]
            if found:
                self.context.store.append_metrics(self.name, found)
                with self.context.store.edit(TRAINING_JOB, self.name) as current:
                    current["FinalMetricDataList"] = scraper.final()
                if "TuningObjective" in job:
                    self.context.changed.set()  # its tuning job may give it up

        container = Container(
            _command(specification, self.context.images.program(specification["TrainingImage"])),
            folder,
            {
                **job.get("Environment", {}),
                "TRAINING_JOB_NAME": self.name,
                "TRAINING_JOB_ARN": job["TrainingJobArn"],
            },
            keep,
            self.context.lock,
        )
        return self._await_end(container, job["StoppingCondition"]["MaxRuntimeInSeconds"], beside)


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
                "TrainingInputMode": _input_mode(job, channel),
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
            "current_host": HOST,
            "current_instance_type": resources["InstanceType"],
            "current_group_name": "homogeneousCluster",
            "hosts": [HOST],
            "instance_groups": [
                {
                    "instance_group_name": "homogeneousCluster",
                    "instance_type": resources["InstanceType"],
                    "hosts": [HOST],
                }
            ],
            "network_interface_name": "lo",
        },
    )


def _input_mode(job: Description, channel: Mapping[str, Any]) -> str:
    mode: str = channel.get("InputMode", job["AlgorithmSpecification"]["TrainingInputMode"])
    return mode


def _command(specification: Mapping[str, Any], program: Program) -> Sequence[str]:
    own = {"ContainerEntrypoint", "ContainerArguments"} & specification.keys()
    return program.command(specification) if own else program.train
