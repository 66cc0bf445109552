"""The record of an endpoint: its fleets and its states.

Only what stands in the store belongs here: how a record begins, changes and is told. Making the
programs agree with it is the host's part (``host``).

A record has beside the members of DescribeEndpoint up to two fleets. ``Fleet`` answers;
``PendingFleet`` is to answer in its place as soon as all of it is in service. A fleet keeps all
that it was made of, for configurations and models may be deleted meanwhile.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recsys_assets.sagemaker_local.store import ENDPOINT, Description

_DEFAULT_STARTUP_SECONDS = 300


@dataclass(frozen=True)
class Slot:
    """The place of one instance in a fleet.

    Attributes
    ----------
    deployment
        Which deployment it came with; every new one has instances of its own.
    variant
        The variant's name.
    number
        Counts the variant's instances from 0.
    """

    deployment: str
    variant: str
    number: int


def new_fleet(config: Description, containers: Mapping[str, Mapping[str, Any]]) -> Description:
    """Return the fleet that a configuration describes.

    Parameters
    ----------
    config
        The endpoint configuration.
    containers
        The container definitions of its models, by the models' names.
    """
    return {
        "EndpointConfigName": config["EndpointConfigName"],
        "Deployment": uuid.uuid4().hex,
        "StartTime": time.time(),
        "Variants": [
            {
                "VariantName": variant["VariantName"],
                "Container": dict(containers[variant["ModelName"]]),
                "InstanceType": variant["InstanceType"],
                "InstanceCount": variant["InitialInstanceCount"],
                "Weight": variant["InitialVariantWeight"],
                "StartupSeconds": variant.get(
                    "ContainerStartupHealthCheckTimeoutInSeconds", _DEFAULT_STARTUP_SECONDS
                ),
            }
            for variant in config["ProductionVariants"]
        ],
    }


def changed_fleet(fleet: Description, changes: Sequence[Mapping[str, Any]]) -> Description:
    """Return a fleet with other weights and instance counts; instances that remain are the same.

    Parameters
    ----------
    fleet
        The fleet.
    changes
        ``DesiredWeightsAndCapacities`` of variants that the fleet has.
    """
    by_name = {change["VariantName"]: change for change in changes}
    variants = []
    for variant in fleet["Variants"]:
        change = by_name.get(variant["VariantName"], {})
        variants.append(
            {
                **variant,
                "Weight": change.get("DesiredWeight", variant["Weight"]),
                "InstanceCount": change.get("DesiredInstanceCount", variant["InstanceCount"]),
            }
        )
    return {**fleet, "StartTime": time.time(), "Variants": variants}


def new_endpoint(name: str, fleet: Description) -> Description:
    """Return the record of an endpoint whose fleet is to be started."""
    return {
        "EndpointName": name,
        "EndpointArn": ENDPOINT.arn(name),
        "EndpointConfigName": fleet["EndpointConfigName"],
        "EndpointStatus": "Creating",
        "PendingFleet": fleet,
    }


def begin_update(endpoint: Description, fleet: Description) -> None:
    """Note in a record that another fleet is to take over."""
    endpoint["EndpointStatus"] = "Updating"
    endpoint["PendingFleet"] = fleet
    endpoint.pop("FailureReason", None)


def take_over(endpoint: Description) -> None:
    """Note in a record that its pending fleet answers now."""
    fleet = endpoint["Fleet"] = endpoint.pop("PendingFleet")
    endpoint["EndpointConfigName"] = fleet["EndpointConfigName"]
    endpoint["EndpointStatus"] = "InService"


def give_up(endpoint: Description, reason: str) -> None:
    """Note in a record that its pending fleet cannot start.

    A new endpoint has failed by that; an older one stays as it was, with the reason beside it.
    """
    del endpoint["PendingFleet"]
    endpoint["EndpointStatus"] = "InService" if "Fleet" in endpoint else "Failed"
    endpoint["FailureReason"] = reason


def slots(fleet: Description | None) -> dict[Slot, Description]:
    """Return a fleet's slots, each with its variant; none for no fleet."""
    if fleet is None:
        return {}
    return {
        Slot(fleet["Deployment"], variant["VariantName"], number): variant
        for variant in fleet["Variants"]
        for number in range(variant["InstanceCount"])
    }


def wanted_slots(endpoint: Description) -> dict[Slot, Description]:
    """Return the slots of all fleets that an endpoint has, each with its variant."""
    return slots(endpoint.get("Fleet")) | slots(endpoint.get("PendingFleet"))


def describe(endpoint: Description) -> Description:
    """Return what DescribeEndpoint tells."""
    current, pending = endpoint.get("Fleet"), endpoint.get("PendingFleet")
    # New weights and capacities are told beside the present ones, a new deployment on its own.
    rescaling = current and pending and current["Deployment"] == pending["Deployment"]
    description = dict(endpoint)
    if current:
        desired = pending if rescaling and pending else current
        description["ProductionVariants"] = _summaries(current, desired)
    if pending and not rescaling:
        description["PendingDeploymentSummary"] = {
            "EndpointConfigName": pending["EndpointConfigName"],
            "StartTime": pending["StartTime"],
            "ProductionVariants": [
                {**summary, "InstanceType": variant["InstanceType"]}
                for summary, variant in zip(
                    _summaries(pending, pending), pending["Variants"], strict=True
                )
            ],
        }
    return description


def _summaries(current: Description, desired: Description) -> list[Description]:
    return [
        {
            "VariantName": variant["VariantName"],
            "DeployedImages": [
                {
                    "SpecifiedImage": variant["Container"]["Image"],
                    "ResolvedImage": variant["Container"]["Image"],
                    "ResolutionTime": current["StartTime"],
                }
            ],
            "CurrentWeight": variant["Weight"],
            "DesiredWeight": wanted["Weight"],
            "CurrentInstanceCount": variant["InstanceCount"],
            "DesiredInstanceCount": wanted["InstanceCount"],
        }
        for variant, wanted in zip(current["Variants"], desired["Variants"], strict=True)
    ]
