"""CreateTransformJob, DescribeTransformJob, StopTransformJob and ListTransformJobs."""

from typing import Any

from recsys_assets.sagemaker_local.api.common import list_page, queue_job, stop_job
from recsys_assets.sagemaker_local.api.models import container_of
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import (
    resource_not_found,
    validation_error,
)
from recsys_assets.sagemaker_local.jobs.transform.data_processing import DataProcessing
from recsys_assets.sagemaker_local.jobs.transform.execution_parameters import (
    MOST_MEGABYTES,
    ExecutionParameters,
)
from recsys_assets.sagemaker_local.jobs.transform.job import TransformRun, new_transform_job
from recsys_assets.sagemaker_local.s3 import S3Uri
from recsys_assets.sagemaker_local.store import MODEL, TRANSFORM_JOB
from recsys_assets.sagemaker_local.validation import ANY, Supported, refuse_unsupported

_SUPPORTED: Supported = {
    "TransformJobName": ANY,
    "ModelName": ANY,
    "ModelClientConfig": ANY,
    "MaxPayloadInMB": ANY,
    "BatchStrategy": ANY,
    "Environment": ANY,
    "TransformInput.DataSource.S3DataSource.S3DataType": ("S3Prefix", "ManifestFile"),
    "TransformInput.DataSource.S3DataSource.S3Uri": ANY,
    "TransformInput.ContentType": ANY,
    "TransformInput.CompressionType": ANY,
    "TransformInput.SplitType": ANY,
    "TransformOutput.S3OutputPath": ANY,
    "TransformOutput.Accept": ANY,
    "TransformOutput.AssembleWith": ANY,
    "DataProcessing": ANY,
    "MaxConcurrentTransforms": ANY,
    "Tags": ANY,
    # Without effect here: one server does the work of all instances.
    "TransformResources": ANY,
    # Without effect here: there are no keys, and nothing is tracked beside the job's own work.
    "TransformOutput.KmsKeyId": ANY,
    "ExperimentConfig": ANY,
}


def create_transform_job(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Queue a batch transform job."""
    refuse_unsupported(request, _SUPPORTED)
    given, wanted = request["TransformInput"], request["TransformOutput"]
    S3Uri.parse(given["DataSource"]["S3DataSource"]["S3Uri"], "TransformInput's S3Uri")
    S3Uri.parse(wanted["S3OutputPath"], "TransformOutput.S3OutputPath")
    _check_execution_parameters(request)
    model = context.store.get(MODEL, request["ModelName"])
    if model is None:
        raise resource_not_found(f'Could not find model "{MODEL.arn(request["ModelName"])}".')
    job = new_transform_job(request, container_of(model))
    return {"TransformJobArn": queue_job(context, TRANSFORM_JOB, job, request)}


def describe_transform_job(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Tell all about a transform job."""
    job = context.store.get(TRANSFORM_JOB, request["TransformJobName"])
    if job is None:
        raise validation_error(
            f"Could not find requested job with name: {request['TransformJobName']}."
        )
    return job


def stop_transform_job(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Ask a transform job to end early; what it has written stays."""
    name = request["TransformJobName"]
    if context.store.get(TRANSFORM_JOB, name) is None:
        raise resource_not_found(f"Could not find job to update with name: {name}.")
    stop_job(context, TRANSFORM_JOB, name, "transform job", TransformRun.request_stop)
    return {}


def list_transform_jobs(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List transform jobs."""
    jobs, more = list_page(context.store, TRANSFORM_JOB, request, default_order="Descending")
    return {"TransformJobSummaries": jobs, **more}


def _check_execution_parameters(request: dict[str, Any]) -> None:
    parameters = ExecutionParameters().overridden_by(request)
    if max(1, parameters.payload_mb) * parameters.concurrent > MOST_MEGABYTES:
        raise validation_error(
            "MaxPayloadInMB * MaxConcurrentTransforms (each at least 1) must be at most"
            f" {MOST_MEGABYTES}, not {parameters.payload_mb} * {parameters.concurrent}."
        )
    processing = DataProcessing(request)
    split_type = request["TransformInput"].get("SplitType", "None")
    if parameters.payload_mb == 0 and (split_type != "None" or processing.reads_records):
        raise validation_error(
            "The local SageMaker endpoint supports 0 for MaxPayloadInMB, which streams each object"
            " whole, only with None for SplitType and without InputFilter and JoinSource."
        )
