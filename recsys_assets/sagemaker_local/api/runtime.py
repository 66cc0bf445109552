"""SageMaker Runtime: InvokeEndpoint."""

import http
from typing import Any

from recsys_assets.sagemaker_local.containers.model_server import NoAnswer
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.hosting.instance import log_group
from recsys_assets.sagemaker_local.validation import ANY, Supported, refuse_unsupported

LONGEST_ANSWER = 6 << 20
"""Bytes that a model's answer may have, as those of a request."""

_CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"

# Characters that the API allows an OriginalMessage.
_LONGEST_MESSAGE = 2048

_SUPPORTED: Supported = {
    "EndpointName": ANY,
    "Body": ANY,
    "ContentType": ANY,
    "Accept": ANY,
    "CustomAttributes": ANY,
    "TargetVariant": ANY,
    # Without effect here: it names a request in captured data, and none are captured.
    "InferenceId": ANY,
}


def invoke_endpoint(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Return what an endpoint's model answers."""
    refuse_unsupported(request, _SUPPORTED)
    endpoint = request["EndpointName"]
    sent = {
        "Content-Type": request.get("ContentType"),
        "Accept": request.get("Accept"),
        _CUSTOM_ATTRIBUTES: request.get("CustomAttributes"),
    }
    headers = {name: value for name, value in sent.items() if value is not None}
    with context.routing.instance(endpoint, request.get("TargetVariant")) as (variant, instance):
        try:
            answer = instance.send(request["Body"], headers)
        except NoAnswer as error:
            raise _model_error(endpoint, 0, f"The container gave no answer: {error}") from error
    if answer.status != http.HTTPStatus.OK:
        raise _model_error(endpoint, answer.status, answer.body.decode("utf-8", errors="replace"))
    if len(answer.body) > LONGEST_ANSWER:
        raise _model_error(
            endpoint,
            answer.status,
            f"The answer has {len(answer.body):,} bytes, more than {LONGEST_ANSWER:,}.",
        )
    told = {
        "ContentType": answer.headers.get("Content-Type"),
        "CustomAttributes": answer.headers.get(_CUSTOM_ATTRIBUTES),
    }
    return {
        "Body": answer.body,
        "InvokedProductionVariant": variant,
        **{member: value for member, value in told.items() if value is not None},
    }


def _model_error(endpoint: str, status: int, message: str) -> ServiceError:
    fault = "client" if 400 <= status < 500 else "server"
    message = message[:_LONGEST_MESSAGE]
    return ServiceError(
        "ModelError",
        f'Received {fault} error ({status}) from primary with message "{message}".'
        f" See log group {log_group(endpoint)} for more information.",
        http.HTTPStatus.FAILED_DEPENDENCY,
        OriginalStatusCode=status,
        OriginalMessage=message,
    )
