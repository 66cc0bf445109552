"""The SageMaker resource: one way to run each kind of remote job, from request to record.

What belongs here: the deployment's settings as fields, and the steps that all jobs take (name,
look, price, create, stop when the run is cancelled). What does not: which data jobs read and what
their results mean (``recsys_assets.assets``), and experiment tracking (``tracking.py``).

A job's name is made from the Dagster run, the asset and the request, and a job is looked for before
it is created, so that a step that starts again finds its job and waits for it. Where another
orchestrator has created a job (``created``), the step waits for that one.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from dagster import ConfigurableResource, Failure, InitResourceContext
from pydantic import Field, PrivateAttr, model_validator

from recsys_assets.domain.factorization_machine.extensions import extensions
from recsys_assets.lost_interrupts import lost_interrupts_repeated
from recsys_assets.resources.aws import AwsClients, is_aws
from recsys_assets.resources.interrupts import was_interrupted
from recsys_assets.resources.sagemaker.config import (
    LONGEST_SPOT_WAIT_WITHOUT_CHECKPOINTS,
    CostConfig,
    EncryptionConfig,
    EndpointConfig,
    NetworkConfig,
    TrainingConfig,
    TransformConfig,
)
from recsys_assets.resources.sagemaker.cost import (
    Fleet,
    fleet,
    require_affordable_endpoint,
    require_affordable_job,
)
from recsys_assets.resources.sagemaker.endpoints import Deployment, Log
from recsys_assets.resources.sagemaker.images import built_in_image, is_built_in
from recsys_assets.resources.sagemaker.jobs import (
    ENDPOINT,
    ENDPOINT_CONFIG,
    MODEL,
    TRAINING,
    TRANSFORM,
    TUNING,
    JobLog,
    Kind,
    Remote,
    RemoteJob,
)
from recsys_assets.resources.sagemaker.links import Links
from recsys_assets.resources.sagemaker.names import Run, job_name
from recsys_assets.resources.sagemaker.requests import (
    Request,
    RequestMaker,
    Training,
    Tuning,
)
from recsys_assets.settings import SettingsError
from recsys_assets.settings_files import read_settings_file, settings_of

AnyRemote = TypeVar("AnyRemote", bound=Remote)

_TRIES = 10
_EPOCH_LOSS = re.compile(r"#quality_metric: host=\S+, epoch=(\d+), train rmse <loss>=(\S+)")


@dataclass(frozen=True)
class Trial:
    """A training job of a search, as listed by the API.

    Attributes
    ----------
    seconds
        How long it has trained; 0 until it has ended.
    """

    job_name: str
    status: str
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    objective: float | None = None
    seconds: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether its status will not change."""
        return self.status in ("Completed", "Failed", "Stopped")


class SageMaker(ConfigurableResource[Any]):
    """Runs SageMaker's built-in Factorization Machines."""

    aws: AwsClients
    role_arn: str = Field(description="Role that the jobs take.")
    image: str | None = Field(
        default=None, description="Image of jobs; by default the built-in one of the region."
    )
    training: TrainingConfig = Field(default=TrainingConfig())
    transform: TransformConfig = Field(default=TransformConfig())
    endpoint: EndpointConfig = Field(default=EndpointConfig())
    network: NetworkConfig = Field(default=NetworkConfig())
    encryption: EncryptionConfig = Field(default=EncryptionConfig())
    cost: CostConfig = Field(default=CostConfig())
    tags: dict[str, str] = Field(
        default={}, description="Of everything that is created, beside the run's own."
    )
    poll_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Between two looks at a job; by default 15, and 0.5 on the local services.",
    )
    max_retries: int = Field(
        default=2,
        ge=0,
        description="How often a job that fails is tried again, unless the fault is its caller's.",
    )
    stop_on_cancel: bool = Field(
        default=True, description="Stop the remote job when the Dagster run is cancelled."
    )
    created: dict[str, str] = Field(
        default={},
        description="What another orchestrator has created for the step: names by kind of work "
        "(sagemaker_training, ...). The step goes on with it and creates nothing of that kind.",
    )

    _clients: dict[str, Any] = PrivateAttr(default_factory=dict)

    @contextmanager
    def yield_for_execution(self, context: InitResourceContext) -> Iterator["SageMaker"]:
        """Be used in a run, which hears of every interrupt: its jobs cost money."""
        with lost_interrupts_repeated():
            yield self

    @model_validator(mode="after")
    def _check_image(self) -> "SageMaker":
        training = self.training
        if self.image is not None:
            return self
        if training.metric_definitions:
            raise ValueError("training.metric_definitions are for an image of your own: set image")
        longest = LONGEST_SPOT_WAIT_WITHOUT_CHECKPOINTS
        if training.spot is not None and training.spot.max_wait_seconds > longest:
            raise ValueError(
                f"expected training.spot.max_wait_seconds to be at most {longest} with the "
                f"built-in image, which writes no checkpoints; got {training.spot.max_wait_seconds}"
            )
        return self

    @contextmanager
    def training_job(self, training: Training, run: Run) -> Iterator[RemoteJob]:
        """Start or find a training job; a run cancelled within the ``with`` block stops it.

        Raises
        ------
        Failure
            As :meth:`training_request`.
        """

        def request() -> Request:
            return self.training_request(training, run)

        with self._job(TRAINING, request, run, self._training_fleet()) as job:
            yield job

    @contextmanager
    def tuning_job(self, tuning: Tuning, run: Run) -> Iterator[RemoteJob]:
        """Start or find a tuning job; a run cancelled within the ``with`` block stops it.

        Raises
        ------
        Failure
            If it would run more training jobs at once than the deployment allows, and as
            :meth:`training_request`.
        """
        if tuning.max_parallel_jobs > self.training.max_parallel_jobs:
            raise Failure(
                f"Expected max_parallel_jobs to be at most {self.training.max_parallel_jobs}, as "
                "training.max_parallel_jobs of the SageMaker settings says, got "
                f"{tuning.max_parallel_jobs}.",
                allow_retries=False,
            )

        def request() -> Request:
            return self.tuning_request(tuning, run)

        with self._job(TUNING, request, run, self._training_fleet(), tuning.max_jobs) as job:
            yield job

    @contextmanager
    def transform_job(
        self, artefact_uri: str, input_uri: str, output_uri: str, run: Run
    ) -> Iterator[RemoteJob]:
        """Start or find a batch transform job; a run cancelled within the ``with`` block stops it.

        For each RecordIO file `f` below `input_uri`, ``<output_uri>f.out`` gets one JSON line a
        record, with its ``score``.
        """

        def request() -> Request:
            model = self.ensure_model(artefact_uri, run)
            return self.requests().transform(self.transform, model, input_uri, output_uri)

        what = self._fleet(self.transform.instance_type, self.transform.instance_count)
        with self._job(TRANSFORM, request, run, what) as job:
            yield job

    def ensure_model(self, artefact_uri: str, run: Run) -> str:
        """Create the model of an artefact unless it exists, and return its name."""
        return self._ensure(MODEL, lambda: self.requests().model(artefact_uri), run)

    def deploy(self, model: str, run: Run, log: Log) -> dict[str, Any]:
        """Have the endpoint serve a model, and return the endpoint's description.

        Parameters
        ----------
        model
            Name of a SageMaker model.
        run
            On whose behalf.
        log
            Is told each state that the endpoint enters.

        Raises
        ------
        Failure
            If it costs more than the cap, does not come up, or was rolled back.
        """
        require_affordable_endpoint(self.endpoint_fleet(), self.cost)
        config = self._ensure(
            ENDPOINT_CONFIG, lambda: self.requests().endpoint_config(self.endpoint, model), run
        )
        if ENDPOINT.work in self.created:
            self._require(self._remote(ENDPOINT, self.created[ENDPOINT.work]))
        return self._deployment(log).bring_to(config, run.tags(self.tags))

    def delete_endpoint(self, log: Log) -> None:
        """Delete the endpoint with its configuration and its model; nothing if there is none."""
        self._deployment(log).delete()

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
            .paginate(HyperParameterTuningJobName=tuning_job, SortOrder="Ascending", MaxResults=100)
        )
        return [_trial(item) for page in pages for item in page["TrainingJobSummaries"]]

    def log_lines(self, training_job: str) -> list[str]:
        """Return all lines that a training job has logged."""
        return JobLog(self._client("logs"), TRAINING.log_group, training_job).new_lines()

    def training_image(self) -> str:
        """Return the image of training jobs and models."""
        region = self.aws.region_name or self._client("sagemaker").meta.region_name
        return self.image or built_in_image(region)

    def links(self) -> Links:
        """Return what links to the console, if there is one."""
        return Links(self._client("sagemaker"))

    def endpoint_fleet(self) -> Fleet:
        """Return the instances of the endpoint."""
        return self._fleet(self.endpoint.instance_type, self.endpoint.instance_count)

    def _training_fleet(self) -> Fleet:
        return self._fleet(self.training.instance_type, self.training.instance_count)

    def _fleet(self, instance_type: str, instance_count: int) -> Fleet:
        client = self._client("sagemaker")
        region = client.meta.region_name if is_aws(client) else None
        return fleet(instance_type, instance_count, self.cost, region)

    def tagged(self, request: Request, run: Run) -> Request:
        """Return a request with the tags of everything that is created, and the run's own."""
        return {**request, "Tags": run.tags(self.tags)}

    def training_request(self, training: Training, run: Run) -> Request:
        """Return the request of a training job.

        Raises
        ------
        Failure
            If there is no role, or if AWS's own built-in is to train with hyperparameters that it
            does not have.
        """
        self._require_known(training.hyperparameters)
        return self.requests().training(self.training, training, run)

    def tuning_request(self, tuning: Tuning, run: Run) -> Request:
        """Return the request of a tuning job; raises as :meth:`training_request`."""
        self._require_known(
            [*tuning.training.hyperparameters, *(item.name for item in tuning.ranges)]
        )
        return self.requests().tuning(self.training, tuning, run)

    def requests(self) -> RequestMaker:
        """Return what makes the requests of this deployment; nothing is called for it.

        Raises
        ------
        Failure
            If there is no role.
        """
        if not self.role_arn:
            raise Failure("No role: set RECSYS_ROLE_ARN.", allow_retries=False)
        return RequestMaker(self.training_image(), self.role_arn, self.network, self.encryption)

    def _require_known(self, hyperparameters: Iterable[str]) -> None:
        """Refuse what only the algorithm of this project knows when AWS's own is to train."""
        unknown = extensions(hyperparameters)
        if (
            unknown
            and not self.aws.local
            and is_built_in(self.training_image())
            and is_aws(self._client("sagemaker"))
        ):
            raise Failure(
                "SageMaker's built-in Factorization Machines does not have the hyperparameters "
                f"{', '.join(unknown)}. They are for the local services, and for the image of "
                "images/factorization_machine, which `image` of the SageMaker settings names.",
                allow_retries=False,
            )

    def _deployment(self, log: Log) -> Deployment:
        return Deployment(
            self.created.get(ENDPOINT.work, self.endpoint.name),
            self._client("sagemaker"),
            self._seconds_between_looks,
            self.aws.patience_seconds,
            log,
        )

    def _ensure(self, kind: Kind, make_request: Callable[[], Request], run: Run) -> str:
        """Create something that has no life of its own unless it exists, and return its name."""
        if kind.work in self.created:
            return self._require(self._remote(kind, self.created[kind.work])).name
        request = make_request()
        remote = self._remote(kind, job_name(run, request, kind.name_length))
        if remote.describe() is None:
            remote.create(self.tagged(request, run))
        return remote.name

    def _remote(self, kind: Kind, name: str) -> Remote:
        return Remote(kind, name, self._client("sagemaker"), self.aws.patience_seconds)

    def _require(self, remote: AnyRemote) -> AnyRemote:
        """Return what another orchestrator says it has created.

        Raises
        ------
        Failure
            If it does not exist.
        """
        if remote.describe() is None:
            raise Failure(
                f"There is no {remote.kind.words} {remote.name}, which should have been created "
                "before this step.",
                allow_retries=False,
            )
        return remote

    @contextmanager
    def _job(
        self,
        kind: Kind,
        make_request: Callable[[], Request],
        run: Run,
        what: Fleet,
        jobs: int = 1,
    ) -> Iterator[RemoteJob]:
        if kind.work in self.created:
            job = self._require(self._remote_job(kind, self.created[kind.work], what))
            request, exists = {}, True
        else:
            request = make_request()
            job, exists = self._find(kind, request, run, what)
        try:
            if not exists:
                require_affordable_job(what, self._longest_seconds(kind), jobs, self.cost)
                job.create(self.tagged(request, run))
            yield job
        except BaseException as error:
            # A request that is interrupted may have reached SageMaker all the same.
            if self.stop_on_cancel and was_interrupted(error):
                job.stop()
            raise

    def _longest_seconds(self, kind: Kind) -> int:
        """Return the longest time that one job's instances may be paid for."""
        if kind is TRANSFORM:
            return self.transform.max_runtime_seconds
        return self.training.max_runtime_seconds + self.training.warm_pool_seconds

    def _find(self, kind: Kind, request: Request, run: Run, what: Fleet) -> tuple[RemoteJob, bool]:
        """Return a job that runs or has completed, else one to create; say whether it exists.

        A job that failed or was stopped keeps its name for ever; the next try has the next name.
        """
        base = job_name(run, request, kind.name_length - len(f"-{_TRIES}"))
        for number in range(1, _TRIES + 1):
            job = self._remote_job(kind, base if number == 1 else f"{base}-{number}", what)
            description = job.describe()
            if description is None:
                return job, False
            if description[kind.status_field] not in ("Failed", "Stopped", "Stopping"):
                return job, True
        raise Failure(f"{base} failed {_TRIES} times", allow_retries=False)

    def _remote_job(self, kind: Kind, name: str, what: Fleet) -> RemoteJob:
        return RemoteJob(
            kind,
            name,
            self._client("sagemaker"),
            self.aws.patience_seconds,
            logs=self._client("logs"),
            poll_seconds=self._seconds_between_looks,
            fleet=what,
        )

    @property
    def _seconds_between_looks(self) -> float:
        if self.poll_seconds is not None:
            return self.poll_seconds
        return 0.5 if self.aws.local else 15.0

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self.aws.client(service)
        return self._clients[service]


def configured_sagemaker(path: Path | None, **platform: Any) -> SageMaker:
    """Make the resource from a file of settings (YAML, its keys are the resource's fields).

    Parameters
    ----------
    path
        The file; None for the defaults.
    platform
        Fields that the platform sets itself, and that the file cannot.

    Raises
    ------
    SettingsError
        If a setting does not exist or does not fit; the message names file and key.
    """
    content = {} if path is None else read_settings_file(path, "RECSYS_SAGEMAKER_CONFIG")
    settable = SageMaker.model_fields.keys() - platform.keys() - {"created"}
    unknown = sorted(map(str, content.keys() - settable))
    if unknown:
        raise SettingsError(
            f"{path}: {', '.join(unknown)}: not known; expected {', '.join(sorted(settable))}"
        )
    with settings_of(path):
        return SageMaker(**content, **platform)


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


def _trial(item: Mapping[str, Any]) -> Trial:
    seconds = 0.0
    if "TrainingStartTime" in item and "TrainingEndTime" in item:
        seconds = (item["TrainingEndTime"] - item["TrainingStartTime"]).total_seconds()
    return Trial(
        job_name=item["TrainingJobName"],
        status=item["TrainingJobStatus"],
        hyperparameters=item["TunedHyperParameters"],
        objective=item.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value"),
        seconds=seconds,
    )
