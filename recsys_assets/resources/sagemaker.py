"""SageMaker: one way to run each kind of remote job, from request to record.

What belongs here: building requests, naming jobs, creating or finding them again, following them,
stopping them when the run is cancelled. What does not: which data they read and what their results
mean (``recsys_assets.assets``), and experiment tracking (``tracking.py``).

A job's name is made from the Dagster run, the asset and the request, and a job is looked for before
it is created, so that a step that starts again finds its job and waits for it.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import distribution
from typing import Any

from botocore.exceptions import ClientError
from dagster import ConfigurableResource, Failure, MetadataValue
from pydantic import Field, PrivateAttr

from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.interrupts import uninterrupted, was_interrupted

RECORDIO_CONTENT_TYPE = "application/x-recordio-protobuf"
OBJECTIVE = "test:rmse"  # measured by the built-in on its `test` channel: our validate split
_EPOCH_LOSS = re.compile(r"#quality_metric: host=\S+, epoch=(\d+), train rmse <loss>=(\S+)")

_ABSENT = ("ValidationException", "ResourceNotFound", "ResourceNotFoundException")
_TRIES = 10
_LAST_LINES = 15
_CALLERS_FAULT = ("ClientError", "AlgorithmError")


@dataclass(frozen=True)
class Run:
    """On whose behalf a job runs.

    Attributes
    ----------
    run_id, root_run_id
        The Dagster run, and the first of the runs that it retries; the latter names the job.
    asset
        The asset that the job makes.
    """

    run_id: str
    root_run_id: str
    asset: str

    @property
    def tags(self) -> list[dict[str, str]]:
        """The tags of everything made for this run."""
        pairs = {
            "recsys:run-id": self.run_id,
            "recsys:root-run-id": self.root_run_id,
            "recsys:asset": self.asset,
        }
        return [{"Key": key, "Value": value} for key, value in pairs.items()]


@dataclass(frozen=True)
class _Kind:
    """How the SageMaker API names the parts of one kind of job."""

    noun: str
    name_length: int
    log_group: str | None = None

    @property
    def name_field(self) -> str:
        return f"{self.noun}Name"

    @property
    def status_field(self) -> str:
        return f"{self.noun}Status"

    def method(self, verb: str) -> str:
        return f"{verb}_{re.sub('(?<!^)(?=[A-Z])', '_', self.noun).lower()}"


_TRAINING = _Kind("TrainingJob", 63, "/aws/sagemaker/TrainingJobs")
_TUNING = _Kind("HyperParameterTuningJob", 32)
_TRANSFORM = _Kind("TransformJob", 63, "/aws/sagemaker/TransformJobs")


@dataclass(frozen=True)
class Training:
    """What a training job reads and makes.

    Attributes
    ----------
    hyperparameters
        The built-in's, all as strings.
    train_uri, validate_uri
        S3 prefixes of RecordIO files; the second is SageMaker's ``test`` channel.
    output_uri
        S3 prefix below which the artefact is written as ``<job>/output/model.tar.gz``.
    """

    hyperparameters: Mapping[str, str]
    train_uri: str
    validate_uri: str
    output_uri: str


@dataclass(frozen=True)
class Range:
    """A hyperparameter's range in a search, in the API's own words."""

    name: str
    kind: str
    minimum: float
    maximum: float
    scaling: str = "Auto"


@dataclass(frozen=True)
class Tuning:
    """A search: a training whose hyperparameters are the static ones, and what varies."""

    training: Training
    ranges: tuple[Range, ...]
    strategy: str
    max_jobs: int
    max_parallel_jobs: int
    seed: int


@dataclass(frozen=True)
class Trial:
    """A training job of a search, as listed by the API."""

    job_name: str
    status: str
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    objective: float | None = None

    @property
    def ended(self) -> bool:
        """Whether its status will not change."""
        return self.status in ("Completed", "Failed", "Stopped")


class JobFailed(Failure):
    """A remote job that did not complete."""

    def __init__(self, name: str, status: str, reason: str, last_lines: Iterable[str]) -> None:
        lines = "\n".join(last_lines)
        super().__init__(
            f"{name} ended as {status}: {reason or 'no reason given'}",
            metadata={"job": name, "log": MetadataValue.md(f"```\n{lines}\n```")},
            allow_retries=not reason.startswith(_CALLERS_FAULT) and status == "Failed",
        )
        self.stopped = status == "Stopped"


class SageMaker(ConfigurableResource[Any]):
    """Runs SageMaker's built-in Factorization Machines."""

    aws: AwsClients
    role_arn: str = Field(description="Role that the jobs take.")
    image: str | None = Field(
        default=None, description="Training image; by default the region's built-in one."
    )
    instance_type: str = Field(default="ml.m5.xlarge", description="Of every job.")
    volume_gb: int = Field(default=30, description="Storage of a training instance, in GB.")
    max_runtime_seconds: int = Field(default=86_400, description="After which a job is stopped.")
    poll_seconds: float = Field(default=15.0, description="Between two looks at a job.")
    stop_on_cancel: bool = Field(
        default=True, description="Stop the remote job when the Dagster run is cancelled."
    )

    _clients: dict[str, Any] = PrivateAttr(default_factory=dict)

    @contextmanager
    def training_job(self, training: Training, run: Run) -> Iterator["RemoteJob"]:
        """Start or find a training job; a run cancelled within the ``with`` block stops it."""
        with self._job(_TRAINING, self._training_request(training, run), run) as job:
            yield job

    @contextmanager
    def tuning_job(self, tuning: Tuning, run: Run) -> Iterator["RemoteJob"]:
        """Start or find a tuning job; a run cancelled within the ``with`` block stops it."""
        with self._job(_TUNING, self._tuning_request(tuning, run), run) as job:
            yield job

    @contextmanager
    def transform_job(
        self, artefact_uri: str, input_uri: str, output_uri: str, run: Run
    ) -> Iterator["RemoteJob"]:
        """Start or find a batch transform job; a run cancelled within the ``with`` block stops it.

        For each RecordIO file `f` below `input_uri`, ``<output_uri>f.out`` gets one JSON line a
        record, with its ``score``.
        """
        request = {
            "ModelName": self._ensure_model(artefact_uri, run),
            "BatchStrategy": "MultiRecord",
            "MaxPayloadInMB": 6,
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": input_uri}},
                "ContentType": RECORDIO_CONTENT_TYPE,
                "SplitType": "RecordIO",
            },
            "TransformOutput": {
                "S3OutputPath": output_uri.rstrip("/"),
                "Accept": "application/jsonlines",
                "AssembleWith": "Line",
            },
            "TransformResources": {"InstanceType": self.instance_type, "InstanceCount": 1},
            "Tags": run.tags,
        }
        with self._job(_TRANSFORM, request, run) as job:
            yield job

    def describe_training_job(self, name: str) -> dict[str, Any]:
        """Return a training job's description."""
        description: dict[str, Any] = self._client("sagemaker").describe_training_job(
            TrainingJobName=name
        )
        return description

    def trials(self, tuning_job: str) -> list[Trial]:
        """Return the training jobs of a tuning job, the oldest first."""
        pages = (
            self._client("sagemaker")
            .get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
            .paginate(HyperParameterTuningJobName=tuning_job, SortOrder="Ascending")
        )
        return [
            Trial(
                job_name=item["TrainingJobName"],
                status=item["TrainingJobStatus"],
                hyperparameters=item["TunedHyperParameters"],
                objective=item.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value"),
            )
            for page in pages
            for item in page["TrainingJobSummaries"]
        ]

    def log_lines(self, training_job: str) -> list[str]:
        """Return all lines that a training job has logged."""
        return _JobLog(self._client("logs"), _TRAINING.log_group, training_job).new_lines()

    def training_image(self) -> str:
        """Return the image of training jobs and models."""
        return self.image or built_in_image(self._client("sagemaker").meta.region_name)

    def _training_request(self, training: Training, run: Run) -> dict[str, Any]:
        return {
            **self._training_definition(training),
            "HyperParameters": dict(training.hyperparameters),
            "Tags": run.tags,
        }

    def _tuning_request(self, tuning: Tuning, run: Run) -> dict[str, Any]:
        ranges: dict[str, list[dict[str, str]]] = {}
        for item in tuning.ranges:
            shown = int if item.kind == "Integer" else float
            ranges.setdefault(f"{item.kind}ParameterRanges", []).append(
                {
                    "Name": item.name,
                    "MinValue": str(shown(item.minimum)),
                    "MaxValue": str(shown(item.maximum)),
                    "ScalingType": item.scaling,
                }
            )
        searched = {item.name for item in tuning.ranges}
        static = {
            name: value
            for name, value in tuning.training.hyperparameters.items()
            if name not in searched
        }
        definition = self._training_definition(tuning.training)
        return {
            "HyperParameterTuningJobConfig": {
                "Strategy": tuning.strategy,
                "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": OBJECTIVE},
                "ResourceLimits": {
                    "MaxNumberOfTrainingJobs": tuning.max_jobs,
                    "MaxParallelTrainingJobs": tuning.max_parallel_jobs,
                },
                "ParameterRanges": ranges,
                "RandomSeed": tuning.seed,
            },
            "TrainingJobDefinition": {**definition, "StaticHyperParameters": static},
            "Tags": run.tags,
        }

    def _training_definition(self, training: Training) -> dict[str, Any]:
        channels = {"train": training.train_uri, "test": training.validate_uri}
        return {
            "AlgorithmSpecification": {
                "TrainingImage": self.training_image(),
                "TrainingInputMode": "File",
            },
            "RoleArn": self.role_arn,
            "InputDataConfig": [
                {
                    "ChannelName": name,
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": uri,
                            "S3DataDistributionType": "FullyReplicated",
                        }
                    },
                    "ContentType": RECORDIO_CONTENT_TYPE,
                }
                for name, uri in channels.items()
            ],
            "OutputDataConfig": {"S3OutputPath": training.output_uri.rstrip("/")},
            "ResourceConfig": {
                "InstanceType": self.instance_type,
                "InstanceCount": 1,
                "VolumeSizeInGB": self.volume_gb,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": self.max_runtime_seconds},
        }

    def _ensure_model(self, artefact_uri: str, run: Run) -> str:
        """Create the model of an artefact unless it exists, and return its name."""
        client = self._client("sagemaker")
        request = {
            "PrimaryContainer": {"Image": self.training_image(), "ModelDataUrl": artefact_uri},
            "ExecutionRoleArn": self.role_arn,
            "Tags": run.tags,
        }
        name = job_name(run, request, 63)
        try:
            client.describe_model(ModelName=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _ABSENT:
                raise
            client.create_model(ModelName=name, **request)
        return name

    @contextmanager
    def _job(self, kind: _Kind, request: dict[str, Any], run: Run) -> Iterator["RemoteJob"]:
        job, exists = self._find(kind, request, run)
        try:
            if not exists:
                job.create(request)
            yield job
        except BaseException as error:
            # A request that is interrupted may have reached SageMaker all the same.
            if self.stop_on_cancel and was_interrupted(error):
                job.stop()
            raise

    def _find(self, kind: _Kind, request: dict[str, Any], run: Run) -> tuple["RemoteJob", bool]:
        """Return a job that runs or has completed, else one to create; say whether it exists.

        A job that failed or was stopped keeps its name for ever; the next try has the next name.
        """
        base = job_name(run, request, kind.name_length - len(f"-{_TRIES}"))
        for number in range(1, _TRIES + 1):
            name = base if number == 1 else f"{base}-{number}"
            log = _JobLog(self._client("logs"), kind.log_group, name)
            job = RemoteJob(kind, name, self._client("sagemaker"), log, self.poll_seconds)
            description = job.describe()
            if description is None:
                return job, False
            if description[kind.status_field] not in ("Failed", "Stopped", "Stopping"):
                return job, True
        raise Failure(f"{base} failed {_TRIES} times", allow_retries=False)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self.aws.client(service)
        return self._clients[service]


class RemoteJob:
    """A job on SageMaker, known by its name."""

    def __init__(
        self, kind: _Kind, name: str, client: Any, log: "_JobLog", poll_seconds: float
    ) -> None:
        self.name = name
        self._kind = kind
        self._client = client
        self._log = log
        self._poll_seconds = poll_seconds

    def create(self, request: Mapping[str, Any]) -> None:
        """Create the job, unless it has come into being in the meantime."""
        try:
            self._call("create", **request)
        except ClientError as error:
            # Another process of this run was faster, or an answer got lost and boto3 asked twice.
            if error.response["Error"]["Code"] != "ResourceInUse":
                raise

    def describe(self) -> dict[str, Any] | None:
        """Return the job's description, None if there is no such job."""
        try:
            return self._call("describe")
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return None
            raise

    def stop(self) -> None:
        """Ask SageMaker to stop the job; nothing happens if it has ended or was never created."""
        try:
            self._call("stop")
        except ClientError as error:
            if error.response["Error"]["Code"] not in _ABSENT:
                raise

    def follow(
        self,
        on_lines: Callable[[list[str]], None] = lambda lines: None,
        on_look: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Wait for the job's end and return its description.

        At each look, `on_lines` gets the new lines of its log, if any, and `on_look` is called.

        Raises
        ------
        JobFailed
            If it fails or is stopped.
        """
        last_lines: list[str] = []
        while True:
            description = self._call("describe")  # before the log: its end must be in the log
            lines = self._log.new_lines()
            last_lines = [*last_lines, *lines][-_LAST_LINES:]
            with uninterrupted():
                if lines:
                    on_lines(lines)
                on_look()
            status = description[self._kind.status_field]
            if status == "Completed":
                return description
            if status in ("Failed", "Stopped"):
                reason = description.get("FailureReason", "")
                raise JobFailed(self.name, status, reason, last_lines)
            time.sleep(self._poll_seconds)

    def _call(self, verb: str, **parameters: Any) -> dict[str, Any]:
        method = getattr(self._client, self._kind.method(verb))
        answer: dict[str, Any] = method(**{self._kind.name_field: self.name}, **parameters)
        return answer


class _JobLog:
    """Reads on in a job's CloudWatch log."""

    def __init__(self, client: Any, group: str | None, job: str) -> None:
        self._client = client
        self._group = group
        self._job = job
        self._tokens: dict[str, str] = {}

    def new_lines(self) -> list[str]:
        """Return the lines that have come since the last call."""
        if self._group is None:
            return []
        try:
            streams = self._client.describe_log_streams(
                logGroupName=self._group, logStreamNamePrefix=f"{self._job}/"
            )["logStreams"]
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return []  # nothing logged yet
            raise
        return [line for stream in streams for line in self._read(stream["logStreamName"])]

    def _read(self, stream: str) -> list[str]:
        lines = []
        while True:
            token = self._tokens.get(stream)
            page = self._client.get_log_events(
                logGroupName=self._group,
                logStreamName=stream,
                startFromHead=True,
                **({"nextToken": token} if token else {}),
            )
            lines += [event["message"] for event in page["events"]]
            self._tokens[stream] = page["nextForwardToken"]
            if page["nextForwardToken"] == token or not page["events"]:
                return lines


def epoch_loss(line: str) -> tuple[int, float] | None:
    """Return the epoch (from 0) and its train RMSE, if a log line of the built-in tells them."""
    match = _EPOCH_LOSS.search(line)
    return (int(match[1]), float(match[2])) if match else None


def final_metrics(description: Mapping[str, Any]) -> dict[str, float]:
    """Return a training job's final metrics by name."""
    return {
        item["MetricName"]: float(item["Value"])
        for item in description.get("FinalMetricDataList", [])
    }


def job_name(run: Run, request: Mapping[str, Any], length: int) -> str:
    """Return the name of a job: the asset, the root run and a hash of the request.

    Tags are left out of the hash: they name the run that asks, which differs between retries.
    """
    body = {key: value for key, value in request.items() if key != "Tags"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:8]
    suffix = f"-{run.root_run_id[:8]}-{digest}"
    asset = re.sub("[^a-zA-Z0-9]+", "-", run.asset).strip("-")
    return asset[: length - len(suffix)].rstrip("-") + suffix


@cache
def built_in_image(region: str) -> str:
    """Return the URI of the built-in Factorization Machines image of a region.

    It is read from the table that the SageMaker Python SDK ships
    (``sagemaker.core.image_uris.retrieve`` reads the same one); importing the SDK for it would take
    many seconds.

    Raises
    ------
    Failure
        If the built-in is not offered in that region.
    """
    path = "sagemaker/core/image_uri_config/factorization-machines.json"
    table = json.loads(distribution("sagemaker-core").locate_file(path).read_text())
    (version,) = table["versions"].values()
    account = version["registries"].get(region)
    if account is None:
        known = ", ".join(sorted(version["registries"]))
        raise Failure(
            f"Factorization Machines is not offered in {region!r}; it is in {known}.",
            allow_retries=False,
        )
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"{account}.dkr.ecr.{region}.{domain}/{version['repository']}:1"
