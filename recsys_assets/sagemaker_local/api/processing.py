"""CreateProcessingJob, DescribeProcessingJob, StopProcessingJob and ListProcessingJobs."""

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from recsys_assets.sagemaker_local.api.common import (
    check_inputs_exist,
    check_own_command,
    list_page,
    queue_job,
    stop_job,
)
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import (
    ServiceError,
    resource_not_found,
    validation_error,
)
from recsys_assets.sagemaker_local.jobs.processing import ProcessingRun, new_processing_job
from recsys_assets.sagemaker_local.s3 import S3Uri
from recsys_assets.sagemaker_local.store import PROCESSING_JOB, Description
from recsys_assets.sagemaker_local.validation import ANY, Supported, refuse_unsupported

_FOLDER = PurePosixPath("/opt/ml/processing")

_INPUT = "ProcessingInputs"
_OUTPUT = "ProcessingOutputConfig.Outputs"

_SUPPORTED: Supported = {
    "ProcessingJobName": ANY,
    "AppSpecification.ImageUri": ANY,
    "AppSpecification.ContainerEntrypoint": ANY,
    "AppSpecification.ContainerArguments": ANY,
    "Environment": ANY,
    f"{_INPUT}.InputName": ANY,
    f"{_INPUT}.AppManaged": (False,),
    f"{_INPUT}.S3Input.S3Uri": ANY,
    f"{_INPUT}.S3Input.LocalPath": ANY,
    f"{_INPUT}.S3Input.S3DataType": ANY,
    f"{_INPUT}.S3Input.S3InputMode": ("File",),
    f"{_INPUT}.S3Input.S3DataDistributionType": ANY,  # all the same on one instance
    f"{_INPUT}.S3Input.S3CompressionType": ("None",),  # as on AWS for File mode
    f"{_OUTPUT}.OutputName": ANY,
    f"{_OUTPUT}.AppManaged": (False,),
    f"{_OUTPUT}.S3Output.S3Uri": ANY,
    f"{_OUTPUT}.S3Output.LocalPath": ANY,
    f"{_OUTPUT}.S3Output.S3UploadMode": ANY,
    "ProcessingResources.ClusterConfig.InstanceCount": (1,),
    "ProcessingResources.ClusterConfig.InstanceType": ANY,
    "StoppingCondition.MaxRuntimeInSeconds": ANY,
    "Tags": ANY,
    # Without effect here: there are no roles, keys, networks or volumes, and nothing is tracked
    # beside the job's own work.
    "RoleArn": ANY,
    "NetworkConfig": ANY,
    "ProcessingOutputConfig.KmsKeyId": ANY,
    "ProcessingResources.ClusterConfig.VolumeSizeInGB": ANY,
    "ProcessingResources.ClusterConfig.VolumeKmsKeyId": ANY,
    "ExperimentConfig": ANY,
}


def create_processing_job(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Queue a processing job."""
    refuse_unsupported(request, _SUPPORTED)
    specification = request["AppSpecification"]
    check_own_command(context.images.program(specification["ImageUri"]), specification)
    cluster = request["ProcessingResources"]["ClusterConfig"]
    for member in ("InstanceCount", "InstanceType"):
        if member not in cluster:
            raise validation_error(f"ProcessingResources.ClusterConfig.{member} is required.")
    outputs = request.get("ProcessingOutputConfig", {}).get("Outputs", [])
    for kind, items in (("Input", request.get(_INPUT, [])), ("Output", outputs)):
        _check_names([item[f"{kind}Name"] for item in items], kind)
        for item in items:
            where = f"Processing{kind} {item[f'{kind}Name']!r}"
            if f"S3{kind}" not in item:
                raise validation_error(f"{where} must have an S3{kind}.")
            S3Uri.parse(item[f"S3{kind}"]["S3Uri"], f"S3Uri of {where}")
            _check_local_path(item[f"S3{kind}"].get("LocalPath"), where)
    for given in request.get(_INPUT, []):
        check_inputs_exist(context, given["S3Input"])
    arn = queue_job(context, PROCESSING_JOB, new_processing_job(request), request)
    return {"ProcessingJobArn": arn}


def describe_processing_job(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Tell all about a processing job."""
    return _existing(context, request, validation_error)


def stop_processing_job(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Ask a processing job to end early; what it has written is uploaded."""
    name = _existing(context, request, resource_not_found)["ProcessingJobName"]
    stop_job(context, PROCESSING_JOB, name, "processing job", ProcessingRun.request_stop)
    return {}


def list_processing_jobs(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List processing jobs."""
    jobs, more = list_page(context.store, PROCESSING_JOB, request)
    return {"ProcessingJobSummaries": jobs, **more}


def _existing(
    context: Context, request: dict[str, Any], error: Callable[[str], ServiceError]
) -> Description:
    job = context.store.get(PROCESSING_JOB, request["ProcessingJobName"])
    if job is None:
        raise error(f"Could not find requested job with name: {request['ProcessingJobName']}")
    return job


def _check_names(names: list[str], kind: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise validation_error(f"Duplicate {kind}Name {name!r} in the request.")


def _check_local_path(local_path: str | None, where: str) -> None:
    path = PurePosixPath(local_path or "")
    if _FOLDER not in path.parents or ".." in path.parts or "\0" in str(path):
        raise validation_error(
            f"LocalPath of {where} must be a path below {_FOLDER}, got {local_path!r}."
        )
