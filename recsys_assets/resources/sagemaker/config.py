"""What a deployment may ask of its jobs: instances, spot, network, keys, cost.

What belongs here: the groups of settings that the SageMaker resource has as fields, and their
limits. What does not: requests (``requests.py``).
"""

from typing import Literal

from dagster import Config
from pydantic import ConfigDict, Field, model_validator

# SageMaker's limit for built-in algorithms that write no checkpoints, as Factorization Machines:
# "Managed Spot Training" in the Amazon SageMaker developer guide.
LONGEST_SPOT_WAIT_WITHOUT_CHECKPOINTS = 3600

_DAY = 86_400


class _Group(Config):
    """A group of settings; one that it does not have is an error."""

    model_config = ConfigDict(extra="forbid")


class SpotConfig(_Group):
    """Managed spot training."""

    max_wait_seconds: int = Field(
        default=LONGEST_SPOT_WAIT_WITHOUT_CHECKPOINTS,
        ge=1,
        description="Waiting and training together; at least max_runtime_seconds. SageMaker allows "
        "no more than 3600 for the built-in Factorization Machines.",
    )
    checkpoint_uri: str | None = Field(
        default=None,
        description="s3:// prefix of checkpoints, for an image of your own that writes them; each "
        "run has its own folder below it. The built-in writes none: interrupted, it begins again.",
    )


class TrainingConfig(_Group):
    """Training jobs, alone or in a search."""

    instance_type: str = "ml.m5.xlarge"
    instance_count: int = Field(default=1, ge=1, description="Each instance reads all rows.")
    volume_gb: int = Field(default=30, ge=1, description="Storage of each instance, in GB.")
    max_runtime_seconds: int = Field(default=_DAY, ge=1, description="SageMaker then stops a job.")
    input_mode: Literal["File", "Pipe"] = Field(
        default="File", description="Whether data is downloaded first, or streamed while training."
    )
    warm_pool_seconds: int = Field(
        default=0,
        ge=0,
        le=21_600,
        description="How long to keep the instances, at their price, for a next training job.",
    )
    spot: SpotConfig | None = Field(
        default=None, description="Train on spot instances; by default on demand."
    )
    max_parallel_jobs: int = Field(
        default=4,
        ge=1,
        description="A search that would run more training jobs at once is refused.",
    )
    metric_definitions: dict[str, str] = Field(
        default={},
        description="Regular expressions by metric, for an image of your own; SageMaker knows the "
        "built-in's and takes no others.",
    )

    @model_validator(mode="after")
    def _check_spot(self) -> "TrainingConfig":
        if self.spot is None:
            return self
        if self.warm_pool_seconds:
            raise ValueError("expected spot or warm_pool_seconds; SageMaker does not do both")
        if self.spot.max_wait_seconds < self.max_runtime_seconds:
            raise ValueError(
                f"expected spot.max_wait_seconds to be at least max_runtime_seconds, got "
                f"{self.spot.max_wait_seconds} and {self.max_runtime_seconds}"
            )
        return self


class TransformConfig(_Group):
    """Batch transform jobs."""

    instance_type: str = "ml.m5.xlarge"
    instance_count: int = Field(
        default=1, ge=1, description="The files of the test set are dealt out among them."
    )
    max_runtime_seconds: int = Field(
        default=_DAY,
        ge=1,
        description="After which the step that follows a job stops it; SageMaker has no such "
        "limit for a transform.",
    )


class EndpointConfig(_Group):
    """The endpoint that answers single requests."""

    name: str = Field(default="recsys-assets", description="Of the endpoint, in the account.")
    instance_type: str = "ml.m5.large"
    instance_count: int = Field(default=1, ge=1)


class NetworkConfig(_Group):
    """Where jobs and models run."""

    subnets: list[str] = Field(default=[], description="Ids of your VPC's; none: SageMaker's own.")
    security_group_ids: list[str] = Field(default=[], description="Needed with subnets.")
    isolation: bool = Field(default=False, description="Containers have no network at all.")
    encrypt_traffic: bool = Field(
        default=False, description="Encrypt what the instances of a training job tell each other."
    )

    @model_validator(mode="after")
    def _check_vpc(self) -> "NetworkConfig":
        if bool(self.subnets) != bool(self.security_group_ids):
            raise ValueError(
                "expected subnets and security_group_ids together, got "
                f"{self.subnets} and {self.security_group_ids}"
            )
        return self


class EncryptionConfig(_Group):
    """KMS keys (id, ARN or alias); without them, AWS's own."""

    volume_kms_key_id: str | None = Field(default=None, description="Of the instances' storage.")
    output_kms_key_id: str | None = Field(
        default=None, description="Of artefacts and predictions in S3."
    )


class CostConfig(_Group):
    """What jobs may cost. All prices are in US dollars and for one instance."""

    max_usd_per_job: float | None = Field(
        default=None,
        gt=0,
        description="A job that could cost more (instances x price x the longest that it may run, "
        "for every training job of a search) is not created.",
    )
    max_usd_per_endpoint_hour: float | None = Field(
        default=None, gt=0, description="An endpoint that costs more an hour is not created."
    )
    price_per_hour: dict[str, float] = Field(
        default={},
        description="By instance type; these go before the few list prices that are known here.",
    )
