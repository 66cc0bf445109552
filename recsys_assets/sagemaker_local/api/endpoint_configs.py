"""CreateEndpointConfig, DescribeEndpointConfig, DeleteEndpointConfig and ListEndpointConfigs."""

from typing import Any

from recsys_assets.sagemaker_local.api.common import list_page
from recsys_assets.sagemaker_local.api.models import existing_model
from recsys_assets.sagemaker_local.api.tags import tags_of
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import validation_error
from recsys_assets.sagemaker_local.store import ENDPOINT_CONFIG, Description
from recsys_assets.sagemaker_local.validation import ANY, Supported, refuse_unsupported

_SUPPORTED: Supported = {
    "EndpointConfigName": ANY,
    "ProductionVariants.VariantName": ANY,
    "ProductionVariants.ModelName": ANY,
    "ProductionVariants.InitialInstanceCount": ANY,
    "ProductionVariants.InitialVariantWeight": ANY,
    "ProductionVariants.ContainerStartupHealthCheckTimeoutInSeconds": ANY,
    "ProductionVariants.RoutingConfig.RoutingStrategy": ("LEAST_OUTSTANDING_REQUESTS",),
    "Tags": ANY,
    # Without effect here: instances are processes of this machine, with its hardware and disk.
    "ProductionVariants.InstanceType": ANY,
    "ProductionVariants.AcceleratorType": ANY,
    "ProductionVariants.VolumeSizeInGB": ANY,
    # Without effect here: there are no roles, keys, networks or containers to isolate.
    "ExecutionRoleArn": ANY,
    "KmsKeyId": ANY,
    "VpcConfig": ANY,
    "EnableNetworkIsolation": ANY,
}


def create_endpoint_config(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Note which models an endpoint is to serve, and how many of each."""
    refuse_unsupported(request, _SUPPORTED)
    variants = [
        {"InitialVariantWeight": 1.0, **variant} for variant in request["ProductionVariants"]
    ]
    names = [variant["VariantName"] for variant in variants]
    if len(set(names)) < len(names):
        raise validation_error(f"Variant names must be unique, got {', '.join(names)}.")
    for variant in variants:
        for member in ("ModelName", "InitialInstanceCount", "InstanceType"):
            if member not in variant:
                raise validation_error(
                    f"{member} is required for production variant {variant['VariantName']}."
                )
        existing_model(context, variant["ModelName"])
    if not any(variant["InitialVariantWeight"] for variant in variants):
        raise validation_error("At least one production variant must have a weight above 0.")
    name = request["EndpointConfigName"]
    arn = ENDPOINT_CONFIG.arn(name)
    config = {**request, "ProductionVariants": variants, "EndpointConfigArn": arn}
    config.pop("Tags", None)
    if not context.store.insert(ENDPOINT_CONFIG, config, tags=tags_of(request)):
        raise validation_error(f'Cannot create already existing endpoint configuration "{arn}".')
    return {"EndpointConfigArn": arn}


def describe_endpoint_config(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Tell what CreateEndpointConfig was told."""
    return existing_config(context, request["EndpointConfigName"])


def delete_endpoint_config(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Forget a configuration; endpoints that were made of it go on, as on AWS."""
    existing_config(context, request["EndpointConfigName"])
    context.store.delete(ENDPOINT_CONFIG, request["EndpointConfigName"])
    return {}


def list_endpoint_configs(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List endpoint configurations."""
    configs, more = list_page(context.store, ENDPOINT_CONFIG, request, default_order="Descending")
    return {"EndpointConfigs": configs, **more}


def existing_config(context: Context, name: str) -> Description:
    """Return an endpoint configuration.

    Raises
    ------
    ServiceError
        When there is none of that name.
    """
    config = context.store.get(ENDPOINT_CONFIG, name)
    if config is None:
        raise validation_error(
            f'Could not find endpoint configuration "{ENDPOINT_CONFIG.arn(name)}".'
        )
    return config
