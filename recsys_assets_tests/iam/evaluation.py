"""IAM's evaluation of a recorded call, as far as the policies of this project go.

What belongs here: which permissions a call needs, and whether a policy gives them. What does not:
which calls are made.
"""

import fnmatch
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recsys_assets_tests.proxy import Call

REGION, ACCOUNT = "us-east-1", "123456789012"

_S3_PERMISSIONS = {
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "CompleteMultipartUpload": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "GetBucketVersioning": "s3:GetBucketVersioning",
    "GetObject": "s3:GetObject",
    "HeadBucket": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "UploadPart": "s3:PutObject",
}
LANDING_ACTIONS = {
    "s3:GetBucketVersioning",
    "s3:GetObjectVersion",
    "s3:ListBucketVersions",
    "sqs:DeleteMessage",
    "sqs:ReceiveMessage",
}
"""What nothing but the landing needs."""
SPARK_ACTIONS = {
    "emr-serverless:CancelJobRun",
    "emr-serverless:GetApplication",
    "emr-serverless:GetDashboardForJobRun",
    "emr-serverless:GetJobRun",
    "emr-serverless:StartJobRun",
    "emr-serverless:TagResource",
    "glue:BatchStopJobRun",
    "glue:GetJobRun",
    "glue:StartJobRun",
    "iam:PassRole",  # of the role of Spark jobs
}
"""What nothing but Spark on AWS needs."""

_FREE = {"sts:GetCallerIdentity"}
_RESOURCE_TYPES = {
    "EndpointName": "endpoint",
    "EndpointConfigName": "endpoint-config",
    "HyperParameterTuningJobName": "hyper-parameter-tuning-job",
    "ModelName": "model",
    "TrainingJobName": "training-job",
    "TransformJobName": "transform-job",
}


@dataclass(frozen=True)
class Permission:
    """One permission that a call needs: an action on a resource, in a context."""

    action: str
    resource: str
    context: tuple[tuple[str, str], ...] = ()


def permissions_for(call: Call, role_arn: str) -> list[Permission]:
    """Return what IAM looks at when a call comes in."""
    if call.service == "s3":
        return [_s3_permission(call)]
    if call.service == "iam":
        return [Permission(f"iam:{call.action}", role_arn)]
    if call.service == "logs":
        return [
            Permission(
                f"logs:{call.action}",
                f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{call.content['logGroupName']}"
                f":log-stream:{call.content.get('logStreamName', '')}",
            )
        ]
    if call.service == "sqs":
        queue = call.content["QueueUrl"].rpartition("/")[2]
        action = call.action.removesuffix("Batch")
        return [Permission(f"sqs:{action}", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}")]
    if call.service == "sagemaker":
        return _sagemaker_permissions(call, role_arn)
    return [Permission(f"{call.service}:{call.action}", "*")]


def allowed_by(statement: Mapping[str, Any], permission: Permission) -> bool:
    """Tell whether a statement allows what a call needs."""
    return (
        _matches(permission.action, statement["Action"])
        and _matches(permission.resource, statement["Resource"])
        and all(
            _holds(operator, key, as_list(values), dict(permission.context))
            for operator, operands in statement.get("Condition", {}).items()
            for key, values in operands.items()
        )
    )


def needs_no_permission(permission: Permission) -> bool:
    """Tell whether AWS lets everybody do it."""
    return permission.action in _FREE


def _holds(operator: str, key: str, wanted: list[str], context: Mapping[str, str]) -> bool:
    match operator:
        case "Null":
            return all((key not in context) == (value == "true") for value in wanted)
        case "StringEquals":
            return context.get(key) in wanted
        case "StringLike":
            return key in context and _matches(context[key], wanted)
        case _:
            raise AssertionError(f"{operator} is used in a policy and not known here")


def _s3_permission(call: Call) -> Permission:
    place, _, query = call.path.partition("?")
    action = _S3_PERMISSIONS[call.action]
    asked = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    if "/" not in place.strip("/"):
        prefix = asked.get("prefix")
        context = () if prefix is None else (("s3:prefix", prefix),)
        return Permission(action, f"arn:aws:s3:::{place.strip('/')}", context)
    if action == "s3:GetObject" and "versionId" in asked:
        action = "s3:GetObjectVersion"
    return Permission(action, f"arn:aws:s3:::{urllib.parse.unquote(place.lstrip('/'))}")


def _sagemaker_permissions(call: Call, role_arn: str) -> list[Permission]:
    member = next((name for name in _RESOURCE_TYPES if name in call.content), None)
    if member is None:  # a list of all that there is
        return [Permission(f"sagemaker:{call.action}", "*")]
    resource = (
        f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{_RESOURCE_TYPES[member]}/{call.content[member]}"
    )
    # What exists was made by the platform, with its tags; what is made must bring them.
    tags = {tag["Key"]: tag["Value"] for tag in call.content.get("Tags", [])}
    context = [(f"aws:RequestTag/{key}", value) for key, value in tags.items()]
    if not call.action.startswith("Create"):
        context.append(("aws:ResourceTag/recsys:run-id", "some run"))
    needed = [Permission(f"sagemaker:{call.action}", resource, tuple(context))]
    if call.action.startswith("Create") and tags:
        tagging = ("sagemaker:TaggingAction", call.action)
        needed.append(Permission("sagemaker:AddTags", resource, (*context, tagging)))
    if role_arn in str(call.content):
        service = ("iam:PassedToService", "sagemaker.amazonaws.com")
        needed.append(Permission("iam:PassRole", role_arn, (service,)))
    return needed


def _matches(text: str, patterns: str | list[str]) -> bool:
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in as_list(patterns))


def as_list(value: str | list[str]) -> list[str]:
    """Return what a policy may write as one string or as a list of them."""
    return [value] if isinstance(value, str) else value
