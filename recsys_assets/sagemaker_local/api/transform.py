"""CreateTransformJob, DescribeTransformJob, StopTransformJob and ListTransformJobs."""

from typing import Any

from recsys_assets.sagemaker_local.api.common import job_exists, list_page, stop_job
from recsys_assets.sagemaker_local.api.models import container_of
from recsys_assets.sagemaker_local.api.tags import tags_of
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import (
    resource_not_found,
    validation_error,
)
from recsys_assets.sagemaker_local.jobs import transform
from recsys_assets.sagemaker_local.s3 import S3Uri
from recsys_assets.sagemaker_local.store import MODEL, TRANSFORM_JOB
from recsys_assets.sagemaker_local.validation import ANY, Supported, refuse_unsupported

_MOST_PAYLOAD_MB = 100

_SUPPORTED: Supported = {
    "TransformJobName": ANY,
    "ModelName": ANY,
    "ModelClientConfig": ANY,
    "MaxPayloadInMB": ANY,
    "BatchStrategy": ANY,
    "Environment": ANY,
    "TransformInput.DataSource.S3DataSource.S3DataType": ("S3Prefix",),
    "TransformInput.DataSource.S3DataSource.S3Uri": ANY,
    "TransformInput.ContentType": ANY,
    "TransformInput.CompressionType": ("None",),
    "TransformInput.SplitType": ("None", "Line", "RecordIO"),
    "TransformOutput.S3OutputPath": ANY,
    "TransformOutput.Accept": ANY,
    "TransformOutput.AssembleWith": ANY,
    "DataProcessing.InputFilter": ("$",),
    "DataProcessing.OutputFilter": ("$",),
    "DataProcessing.JoinSource": ("None",),
    "Tags": ANY,
    # Without effect here: one server answers one request at a time, and the answers are the same.
    "MaxConcurrentTransforms": ANY,
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
    payload = request.get("MaxPayloadInMB", transform.DEFAULT_MAX_PAYLOAD_MB)
    if not 1 <= payload <= _MOST_PAYLOAD_MB:
        raise validation_error(
            f"The local SageMaker endpoint supports 1 to {_MOST_PAYLOAD_MB} for MaxPayloadInMB,"
            f" not {payload}."
        )
    model = context.store.get(MODEL, request["ModelName"])
    if model is None:
        raise resource_not_found(f'Could not find model "{MODEL.arn(request["ModelName"])}".')
    job = transform.new_transform_job(request, container_of(model))
    arn = job["TransformJobArn"]
    if not context.store.insert(TRANSFORM_JOB, job, tags=tags_of(request)):
        raise job_exists(arn)
    context.changed.set()
    return {"TransformJobArn": arn}


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
    stop_job(context, TRANSFORM_JOB, name, "transform job", transform.request_stop)
    return {}


def list_transform_jobs(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List transform jobs."""
    jobs, more = list_page(context.store, TRANSFORM_JOB, request, default_order="Descending")
    return {"TransformJobSummaries": jobs, **more}
