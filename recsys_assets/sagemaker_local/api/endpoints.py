"""Create, describe, update, delete and list endpoints, and change their weights and capacities."""

from typing import Any

from recsys_assets.sagemaker_local.api.common import list_page
from recsys_assets.sagemaker_local.api.endpoint_configs import existing_config
from recsys_assets.sagemaker_local.api.models import container_of, existing_model
from recsys_assets.sagemaker_local.api.tags import tags_of
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError, validation_error
from recsys_assets.sagemaker_local.hosting import records
from recsys_assets.sagemaker_local.store import ENDPOINT, Description, Query
from recsys_assets.sagemaker_local.validation import ANY, Supported, refuse_unsupported

MOST_INSTANCES = 20
"""Instances that all endpoints may have together, each a process: SageMaker's default quota."""

_SUPPORTED_CREATE: Supported = {"EndpointName": ANY, "EndpointConfigName": ANY, "Tags": ANY}

_SUPPORTED_UPDATE: Supported = {
    "EndpointName": ANY,
    "EndpointConfigName": ANY,
    "RetainAllVariantProperties": (False,),
    "RetainDeploymentConfig": (False,),
}

_SUPPORTED_WEIGHTS: Supported = {
    "EndpointName": ANY,
    "DesiredWeightsAndCapacities.VariantName": ANY,
    "DesiredWeightsAndCapacities.DesiredWeight": ANY,
    "DesiredWeightsAndCapacities.DesiredInstanceCount": ANY,
}


def create_endpoint(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Begin to serve what a configuration describes."""
    refuse_unsupported(request, _SUPPORTED_CREATE)
    name = request["EndpointName"]
    fleet = _fleet(context, request["EndpointConfigName"])
    _check_quota(context, name, fleet)
    endpoint = records.new_endpoint(name, fleet)
    if not context.store.insert(ENDPOINT, endpoint, tags=tags_of(request)):
        raise validation_error(
            f'Cannot create already existing endpoint "{endpoint["EndpointArn"]}".'
        )
    context.hosting_changed.set()
    return {"EndpointArn": endpoint["EndpointArn"]}


def describe_endpoint(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Tell all about an endpoint."""
    return records.describe(_existing(context, request["EndpointName"]))


def update_endpoint(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Begin to serve another configuration; the present one answers until that is in service."""
    refuse_unsupported(request, _SUPPORTED_UPDATE)
    name = request["EndpointName"]
    # SageMaker needs the present configuration too, to go back to, and so tells if it is gone.
    existing_config(context, _existing(context, name)["EndpointConfigName"])
    return _update(context, name, _fleet(context, request["EndpointConfigName"]))


def update_endpoint_weights_and_capacities(
    context: Context, request: dict[str, Any]
) -> dict[str, Any]:
    """Begin to share the traffic otherwise, and to run other numbers of instances."""
    refuse_unsupported(request, _SUPPORTED_WEIGHTS)
    name, changes = request["EndpointName"], request["DesiredWeightsAndCapacities"]
    endpoint = _existing(context, name)
    _check_updatable(endpoint)
    fleet = records.changed_fleet(endpoint["Fleet"], changes)
    known = {variant["VariantName"] for variant in fleet["Variants"]}
    for change in changes:
        if change["VariantName"] not in known:
            raise validation_error(
                f"Endpoint {name} has no production variant {change['VariantName']!r};"
                f" it has: {', '.join(sorted(known))}."
            )
        if change.get("DesiredInstanceCount") == 0:
            raise validation_error(
                "The local SageMaker endpoint supports only 1 or more for"
                " DesiredWeightsAndCapacities.DesiredInstanceCount, not 0."
            )
    if not any(variant["Weight"] for variant in fleet["Variants"]):
        raise validation_error("At least one production variant must have a weight above 0.")
    return _update(context, name, fleet)


def delete_endpoint(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Begin to end an endpoint's programs; it is gone when they are."""
    name = request["EndpointName"]
    _existing(context, name)
    with context.store.edit(ENDPOINT, name) as endpoint:
        # One that a new process brings back can be deleted too, or it might never be rid of.
        if endpoint["EndpointStatus"] in ("Creating", "Updating", "Deleting"):
            raise _in_progress(endpoint)
        endpoint["EndpointStatus"] = "Deleting"
    context.hosting_changed.set()
    return {}


def list_endpoints(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List endpoints."""
    endpoints, more = list_page(context.store, ENDPOINT, request, default_order="Descending")
    return {"Endpoints": endpoints, **more}


def _existing(context: Context, name: str) -> Description:
    endpoint = context.store.get(ENDPOINT, name)
    if endpoint is None:
        raise validation_error(f'Could not find endpoint "{ENDPOINT.arn(name)}".')
    return endpoint


def _fleet(context: Context, config_name: str) -> Description:
    config = existing_config(context, config_name)
    names = {variant["ModelName"] for variant in config["ProductionVariants"]}
    containers = {name: container_of(existing_model(context, name)) for name in names}
    for container in containers.values():
        context.images.program(container["Image"])
    return records.new_fleet(config, containers)


def _update(context: Context, name: str, fleet: Description) -> dict[str, Any]:
    _check_quota(context, name, fleet)
    with context.store.edit(ENDPOINT, name) as endpoint:
        _check_updatable(endpoint)
        records.begin_update(endpoint, fleet)
    context.hosting_changed.set()
    return {"EndpointArn": ENDPOINT.arn(name)}


def _check_updatable(endpoint: Description) -> None:
    if endpoint["EndpointStatus"] == "Failed":
        raise validation_error(f'Cannot update failed endpoint "{endpoint["EndpointArn"]}".')
    if endpoint["EndpointStatus"] != "InService":
        raise _in_progress(endpoint)


def _in_progress(endpoint: Description) -> ServiceError:
    return validation_error(f'Cannot update in-progress endpoint "{endpoint["EndpointArn"]}".')


def _check_quota(context: Context, name: str, fleet: Description) -> None:
    """Refuse a fleet that would have too many processes run at once."""
    used, more = 0, len(records.slots(fleet))
    for item in context.store.find(ENDPOINT, Query()):
        slots = records.wanted_slots(item.description)
        used += len(slots)
        if item.description["EndpointName"] == name:
            more -= len(records.slots(fleet).keys() & slots.keys())
    if used + more > MOST_INSTANCES:
        raise ServiceError(
            "ResourceLimitExceeded",
            "The account-level service limit 'Number of instances across active endpoints' is"
            f" {MOST_INSTANCES} Instances, with current utilization of {used} Instances and a"
            f" request delta of {more} Instances.",
        )
