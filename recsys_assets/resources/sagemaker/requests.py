"""Requests of the SageMaker API, made from what a job is about and what the deployment asks for.

What belongs here: which member of a request says what, and checking it against botocore's model
before it is sent. What does not: sending it, names and tags.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dagster import Failure

from recsys_assets.resources.sagemaker.config import (
    EncryptionConfig,
    EndpointConfig,
    NetworkConfig,
    TrainingConfig,
    TransformConfig,
)
from recsys_assets.resources.sagemaker.names import Run
from recsys_assets.service_model import WrongTypeError, service_model, violations

RECORDIO_CONTENT_TYPE = "application/x-recordio-protobuf"
OBJECTIVE = "test:rmse"  # measured by the built-in on its `test` channel: our validate split
VARIANT = "model"  # of an endpoint's production variants the only one

Request = dict[str, Any]

_MOST_TOLD = 10


@dataclass(frozen=True)
class Training:
    """What a training job reads and makes.

    Attributes
    ----------
    hyperparameters
        The algorithm's, all as strings.
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
class RequestMaker:
    """Makes the requests of one deployment; none of them has a name or tags.

    Attributes
    ----------
    image
        Of training jobs and models.
    role_arn
        Role that jobs and models take.
    """

    image: str
    role_arn: str
    network: NetworkConfig
    encryption: EncryptionConfig

    def training(self, config: TrainingConfig, training: Training, run: Run) -> Request:
        """Return the request of a training job."""
        return {
            **self._training_definition(config, training, run),
            "HyperParameters": dict(training.hyperparameters),
        }

    def tuning(self, config: TrainingConfig, tuning: Tuning, run: Run) -> Request:
        """Return the request of a tuning job."""
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
        definition = self._training_definition(config, tuning.training, run)
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
        }

    def transform(
        self, config: TransformConfig, model: str, input_uri: str, output_uri: str
    ) -> Request:
        """Return the request of a batch transform job of RecordIO files."""
        return {
            "ModelName": model,
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
                **_given(KmsKeyId=self.encryption.output_kms_key_id),
            },
            "TransformResources": {
                "InstanceType": config.instance_type,
                "InstanceCount": config.instance_count,
                **_given(VolumeKmsKeyId=self.encryption.volume_kms_key_id),
            },
        }

    def model(self, artefact_uri: str) -> Request:
        """Return the request of the model of an artefact."""
        return {
            "PrimaryContainer": {"Image": self.image, "ModelDataUrl": artefact_uri},
            "ExecutionRoleArn": self.role_arn,
            **self._vpc(),
            **_given(EnableNetworkIsolation=self.network.isolation),
        }

    def endpoint_config(self, config: EndpointConfig, model: str) -> Request:
        """Return the request of the configuration of an endpoint with one model."""
        variant = {
            "VariantName": VARIANT,
            "ModelName": model,
            "InstanceType": config.instance_type,
            "InitialInstanceCount": config.instance_count,
            "InitialVariantWeight": 1.0,
        }
        return {
            "ProductionVariants": [variant],
            **_given(KmsKeyId=self.encryption.volume_kms_key_id),
        }

    def _training_definition(self, config: TrainingConfig, training: Training, run: Run) -> Request:
        channels = {"train": training.train_uri, "test": training.validate_uri}
        metrics = [
            {"Name": name, "Regex": regex} for name, regex in config.metric_definitions.items()
        ]
        spot, checkpoints = config.spot, None
        if spot is not None and spot.checkpoint_uri is not None:
            folder = f"{spot.checkpoint_uri.rstrip('/')}/{run.asset}/{run.root_run_id}"
            checkpoints = {"S3Uri": folder}
        return {
            "AlgorithmSpecification": {
                "TrainingImage": self.image,
                "TrainingInputMode": config.input_mode,
                **_given(MetricDefinitions=metrics),
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
            "OutputDataConfig": {
                "S3OutputPath": training.output_uri.rstrip("/"),
                **_given(KmsKeyId=self.encryption.output_kms_key_id),
            },
            "ResourceConfig": {
                "InstanceType": config.instance_type,
                "InstanceCount": config.instance_count,
                "VolumeSizeInGB": config.volume_gb,
                **_given(
                    VolumeKmsKeyId=self.encryption.volume_kms_key_id,
                    KeepAlivePeriodInSeconds=config.warm_pool_seconds,
                ),
            },
            "StoppingCondition": {
                "MaxRuntimeInSeconds": config.max_runtime_seconds,
                **_given(MaxWaitTimeInSeconds=spot.max_wait_seconds if spot else None),
            },
            **_given(
                EnableManagedSpotTraining=spot is not None,
                CheckpointConfig=checkpoints,
                EnableNetworkIsolation=self.network.isolation,
                EnableInterContainerTrafficEncryption=self.network.encrypt_traffic,
            ),
            **self._vpc(),
        }

    def _vpc(self) -> Request:
        if not self.network.subnets:
            return {}
        return {
            "VpcConfig": {
                "Subnets": list(self.network.subnets),
                "SecurityGroupIds": list(self.network.security_group_ids),
            }
        }


def require_valid(action: str, request: Request) -> None:
    """Check a request against botocore's model of SageMaker.

    Parameters
    ----------
    action
        The API's name of the action, such as ``CreateTrainingJob``.

    Raises
    ------
    Failure
        With what does not fit, in AWS's words; nothing has been sent then.
    """
    shape = service_model("sagemaker").operation_model(action).input_shape
    assert shape is not None  # noqa: S101 - all actions that create something have one
    try:
        found = list(itertools.islice(violations(shape, request), _MOST_TOLD))
    except WrongTypeError as error:
        found = [str(error)]
    if found:
        raise Failure(
            f"{action} does not fit the SageMaker API: {'; '.join(found)}", allow_retries=False
        )


def _given(**members: Any) -> Request:
    """Return the members that ask for something: what is not asked for is not sent."""
    return {name: value for name, value in members.items() if value}
