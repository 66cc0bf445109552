"""CreateTrainingJob, DescribeTrainingJob, StopTrainingJob and ListTrainingJobs.

Also what a training job and a tuning job's definition of its children have in common: what they
may ask for and what is checked before anything is run.
"""

from collections.abc import Mapping
from typing import Any

from recsys_assets.sagemaker_local.api.common import (
    check_inputs_exist,
    check_own_command,
    list_page,
    queue_job,
    stop_job,
)
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import resource_not_found, validation_error
from recsys_assets.sagemaker_local.images import Program
from recsys_assets.sagemaker_local.jobs import training
from recsys_assets.sagemaker_local.jobs.run import DEFAULT_MAX_RUNTIME_SECONDS
from recsys_assets.sagemaker_local.metrics import check_definitions
from recsys_assets.sagemaker_local.s3 import S3Uri
from recsys_assets.sagemaker_local.store import TRAINING_JOB
from recsys_assets.sagemaker_local.validation import ANY, Supported, refuse_unsupported

_LONGEST_OUTPUT_PATH = 1024 - len(f"/{'x' * 63}/output/model.tar.gz")
"""Characters of an S3OutputPath below which every job's artefact has a URI that the API allows."""

_CHANNEL = "InputDataConfig"
_S3_SOURCE = f"{_CHANNEL}.DataSource.S3DataSource"

SUPPORTED_DEFINITION: Supported = {
    "AlgorithmSpecification.TrainingImage": ANY,
    # FastFile is as File here: the objects are fetched before the start, and read as files.
    "AlgorithmSpecification.TrainingInputMode": ANY,
    "AlgorithmSpecification.MetricDefinitions": ANY,
    f"{_CHANNEL}.ChannelName": ANY,
    f"{_CHANNEL}.ContentType": ANY,
    f"{_CHANNEL}.CompressionType": ANY,
    f"{_CHANNEL}.RecordWrapperType": ("None",),
    f"{_CHANNEL}.InputMode": ANY,
    f"{_CHANNEL}.ShuffleConfig.Seed": ANY,
    f"{_S3_SOURCE}.S3DataType": ("S3Prefix", "ManifestFile"),
    f"{_S3_SOURCE}.S3Uri": ANY,
    f"{_S3_SOURCE}.S3DataDistributionType": ANY,  # all the same on one instance
    "OutputDataConfig.S3OutputPath": ANY,
    "OutputDataConfig.CompressionType": ANY,
    "ResourceConfig.InstanceType": ANY,
    "ResourceConfig.InstanceCount": (1,),
    "StoppingCondition.MaxRuntimeInSeconds": ANY,
    "Environment": ANY,
    # Without effect here: there are no roles, keys, networks, volumes, spot or warm instances.
    "RoleArn": ANY,
    "OutputDataConfig.KmsKeyId": ANY,
    "ResourceConfig.VolumeSizeInGB": ANY,
    "ResourceConfig.VolumeKmsKeyId": ANY,
    "ResourceConfig.KeepAlivePeriodInSeconds": ANY,
    "StoppingCondition.MaxWaitTimeInSeconds": ANY,
    "StoppingCondition.MaxPendingTimeInSeconds": ANY,
    "VpcConfig": ANY,
    "EnableNetworkIsolation": ANY,
    "EnableInterContainerTrafficEncryption": ANY,
    "EnableManagedSpotTraining": ANY,
}
"""What a training job, alone or as a tuning job's child, may ask for."""

_SUPPORTED: Supported = {
    **SUPPORTED_DEFINITION,
    "TrainingJobName": ANY,
    "HyperParameters": ANY,
    "AlgorithmSpecification.ContainerEntrypoint": ANY,
    "AlgorithmSpecification.ContainerArguments": ANY,
    "CheckpointConfig.S3Uri": ANY,
    "CheckpointConfig.LocalPath": (training.CHECKPOINTS, f"{training.CHECKPOINTS}/"),
    "Tags": ANY,
    # Without effect here: nothing is profiled, debugged or tracked beside the job's own work.
    "AlgorithmSpecification.EnableSageMakerMetricsTimeSeries": ANY,
    "DebugHookConfig": ANY,
    "ProfilerConfig": ANY,
    "ExperimentConfig": ANY,
    "RemoteDebugConfig": ANY,
    "InfraCheckConfig": ANY,
    "SessionChainingConfig": ANY,
}

_SUPPORTED_LISTING: Supported = dict.fromkeys(
    (
        "NextToken",
        "MaxResults",
        "CreationTimeAfter",
        "CreationTimeBefore",
        "LastModifiedTimeAfter",
        "LastModifiedTimeBefore",
        "NameContains",
        "StatusEquals",
        "SortBy",
        "SortOrder",
    ),
    ANY,
)


def create_training_job(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Queue a training job."""
    refuse_unsupported(request, _SUPPORTED)
    program = check_definition(context, request)
    if program.metric_definitions:
        definitions = {"MetricDefinitions": list(program.metric_definitions)}
        request["AlgorithmSpecification"] = request["AlgorithmSpecification"] | definitions
    specification = request["AlgorithmSpecification"]
    if "ContainerEntrypoint" in specification or "ContainerArguments" in specification:
        check_own_command(program, specification)
    if "CheckpointConfig" in request:
        S3Uri.parse(request["CheckpointConfig"]["S3Uri"], "CheckpointConfig.S3Uri")
    arn = queue_job(context, TRAINING_JOB, training.new_training_job(request), request)
    return {"TrainingJobArn": arn}


def describe_training_job(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Tell all about a training job."""
    job = context.store.get(TRAINING_JOB, request["TrainingJobName"])
    if job is None:
        raise validation_error("Requested resource not found.")
    return job


def stop_training_job(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Ask a training job to end early, keeping what model it has."""
    name = request["TrainingJobName"]
    if context.store.get(TRAINING_JOB, name) is None:
        raise resource_not_found("Requested resource not found.")
    stop_job(context, TRAINING_JOB, name, "training job", training.TrainingRun.request_stop)
    return {}


def list_training_jobs(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List training jobs, those of tuning jobs too."""
    refuse_unsupported(request, _SUPPORTED_LISTING)
    jobs, more = list_page(context.store, TRAINING_JOB, request)
    return {"TrainingJobSummaries": jobs, **more}


def check_definition(context: Context, definition: Mapping[str, Any]) -> Program:
    """Check what the service model cannot say about a training job's definition.

    Parameters
    ----------
    context
        The endpoint's shared parts.
    definition
        A CreateTrainingJob request or a tuning job's TrainingJobDefinition, checked against the
        service model.

    Returns
    -------
    Program
        What stands for its image.

    Raises
    ------
    ServiceError
        For whatever would make the job fail and can be known now.
    """
    specification = definition.get("AlgorithmSpecification", {})
    resources = definition.get("ResourceConfig", {})
    for member, given in (
        ("AlgorithmSpecification.TrainingImage", "TrainingImage" in specification),
        ("ResourceConfig.InstanceType", "InstanceType" in resources),
        ("ResourceConfig.InstanceCount", "InstanceCount" in resources),
    ):
        if not given:
            raise validation_error(f"{member} is required.")
    program = context.images.program(specification["TrainingImage"])
    if program.metric_definitions and specification.get("MetricDefinitions"):
        raise validation_error(
            "You can't override the metric definitions for Amazon SageMaker algorithms. Please"
            " retry the request without specifying metric definitions."
        )
    check_definitions(specification.get("MetricDefinitions", []))
    output = definition["OutputDataConfig"]["S3OutputPath"]
    S3Uri.parse(output, "OutputDataConfig.S3OutputPath")
    if len(output) > _LONGEST_OUTPUT_PATH:
        raise validation_error(
            f"OutputDataConfig.S3OutputPath must have at most {_LONGEST_OUTPUT_PATH} characters, so"
            f" that an artefact below it has a name that S3 allows; it has {len(output)}."
        )
    _check_waiting_time(definition)
    _check_channels(context, definition)
    return program


def _check_waiting_time(definition: Mapping[str, Any]) -> None:
    condition = definition.get("StoppingCondition", {})
    wait = condition.get("MaxWaitTimeInSeconds")
    if not definition.get("EnableManagedSpotTraining", False):
        if wait is not None:
            raise validation_error(
                "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining"
                " is set to true"
            )
    elif wait is None or wait < condition.get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_SECONDS):
        raise validation_error(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to"
            f" MaxRuntimeInSeconds, got {wait}."
        )


def _check_channels(context: Context, definition: Mapping[str, Any]) -> None:
    names: set[str] = set()
    for channel in definition.get("InputDataConfig", []):
        name = channel["ChannelName"]
        if name in names:
            raise validation_error(f"Duplicate channel name {name!r} in InputDataConfig.")
        if name in (".", ".."):  # the service model allows them; a folder is named so
            raise validation_error(f"{name!r} cannot be a ChannelName.")
        names.add(name)
        source = channel["DataSource"].get("S3DataSource")
        if source is None:
            raise validation_error(f"Channel {name!r} must have an S3DataSource.")
        S3Uri.parse(source["S3Uri"], f"S3Uri of channel {name!r}")
        mode = channel.get("InputMode", definition["AlgorithmSpecification"]["TrainingInputMode"])
        if channel.get("CompressionType") == "Gzip" and mode != "Pipe":
            raise validation_error(
                f"CompressionType Gzip of channel {name!r} needs the input mode Pipe, not {mode}."
            )
        check_inputs_exist(context, source)
