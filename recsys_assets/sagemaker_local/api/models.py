"""CreateModel, DescribeModel, DeleteModel and ListModels."""

from typing import Any

from recsys_assets.sagemaker_local.api.common import list_page
from recsys_assets.sagemaker_local.api.tags import tags_of
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import validation_error
from recsys_assets.sagemaker_local.s3 import S3Uri
from recsys_assets.sagemaker_local.store import MODEL, Description
from recsys_assets.sagemaker_local.validation import ANY, Supported, refuse_unsupported

_CONTAINER: Supported = {
    "ContainerHostname": ANY,
    "Image": ANY,
    "Mode": ("SingleModel",),
    "ModelDataUrl": ANY,
    "Environment": ANY,
}

_SUPPORTED: Supported = {
    "ModelName": ANY,
    **{f"PrimaryContainer.{member}": values for member, values in _CONTAINER.items()},
    **{f"Containers.{member}": values for member, values in _CONTAINER.items()},
    "InferenceExecutionConfig.Mode": ("Serial",),
    "Tags": ANY,
    # Without effect here: there are no roles, networks or containers to isolate.
    "ExecutionRoleArn": ANY,
    "VpcConfig": ANY,
    "EnableNetworkIsolation": ANY,
}


def create_model(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Note which program serves which artefact."""
    refuse_unsupported(request, _SUPPORTED)
    name = request["ModelName"]
    if ("PrimaryContainer" in request) == bool(request.get("Containers")):
        raise validation_error("A model must have either PrimaryContainer or Containers.")
    if len(request.get("Containers", [])) > 1:
        raise validation_error(
            "The local SageMaker endpoint supports only one container in Containers, "
            f"not {len(request['Containers'])}."
        )
    container = container_of(request)
    if "Image" not in container:
        raise validation_error("A model's container must have an Image.")
    context.images.program(container["Image"])
    if "ModelDataUrl" in container:
        S3Uri.parse(container["ModelDataUrl"], "ModelDataUrl")
    model = {"EnableNetworkIsolation": False, **request, "ModelArn": MODEL.arn(name)}
    model.pop("Tags", None)
    if not context.store.insert(MODEL, model, tags=tags_of(request)):
        raise validation_error(f'Cannot create already existing model "{MODEL.arn(name)}".')
    return {"ModelArn": MODEL.arn(name)}


def describe_model(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Tell what CreateModel was told."""
    return existing_model(context, request["ModelName"])


def delete_model(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Forget a model; its artefact stays."""
    existing_model(context, request["ModelName"])
    context.store.delete(MODEL, request["ModelName"])
    return {}


def list_models(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List models."""
    models, more = list_page(context.store, MODEL, request, default_order="Descending")
    return {"Models": models, **more}


def container_of(model: Description) -> dict[str, Any]:
    """Return the one container definition of a model."""
    container: dict[str, Any]
    (container,) = (
        [model["PrimaryContainer"]] if "PrimaryContainer" in model else model["Containers"]
    )
    return container


def existing_model(context: Context, name: str) -> Description:
    """Return a model.

    Raises
    ------
    ServiceError
        When there is none of that name.
    """
    model = context.store.get(MODEL, name)
    if model is None:
        raise validation_error(f'Could not find model "{MODEL.arn(name)}".')
    return model
