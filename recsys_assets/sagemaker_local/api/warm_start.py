"""Warm starts: which earlier tuning jobs a new one may start from.

The rules are SageMaker's. What is made of the parents' results is the search's business.
"""

from collections.abc import Mapping
from typing import Any

from recsys_assets.sagemaker_local.errors import resource_not_found, validation_error
from recsys_assets.sagemaker_local.images import repository
from recsys_assets.sagemaker_local.jobs.tuning_results import parents_of
from recsys_assets.sagemaker_local.store import TUNING_JOB, Store

_CONFIG = "HyperParameterTuningJobConfig"
_DEFINITION = "TrainingJobDefinition"

_MOST_CHANGES = 10
"""How many changes of hyperparameters from a parent SageMaker allows."""

_KINDS = ("ContinuousParameterRanges", "IntegerParameterRanges", "CategoricalParameterRanges")


def check_warm_start(store: Store, request: Mapping[str, Any]) -> None:
    """Check the ``WarmStartConfig`` of a request for a tuning job against its parents.

    Parameters
    ----------
    store
        Where the parents are.
    request
        A CreateHyperParameterTuningJob request that has ranges, an objective and a definition.

    Raises
    ------
    ServiceError
        When a parent does not exist, has not ended, or differs in what must be the same.
    """
    names = parents_of(request)
    if len(names) < len(request["WarmStartConfig"]["ParentHyperParameterTuningJobs"]):
        raise validation_error(
            "ParentHyperParameterTuningJobs: each must have a HyperParameterTuningJobName."
        )
    if len(set(names)) < len(names):
        raise validation_error("ParentHyperParameterTuningJobs name a tuning job more than once.")
    for name in names:
        parent = store.get(TUNING_JOB, name)
        if parent is None:
            raise resource_not_found(f"Amazon SageMaker can't find a tuning job called {name}.")
        _check_parent(name, parent, request)


def _check_parent(name: str, parent: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    status = parent["HyperParameterTuningJobStatus"]
    if status not in ("Completed", "Failed", "Stopped"):
        raise validation_error(f"Parent tuning job {name} must have ended; it is {status}.")
    member = "HyperParameterTuningJobObjective"
    if parent[_CONFIG][member] != request[_CONFIG][member]:
        raise validation_error(
            f"The objective must be the same as that of parent tuning job {name},"
            f" {parent[_CONFIG][member]}."
        )
    _check_definition(name, parent[_DEFINITION], request)
    _check_hyperparameters(name, parent, request)


def _check_definition(name: str, definition: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    image, parents_image = (
        repository(item["AlgorithmSpecification"]["TrainingImage"])
        for item in (request[_DEFINITION], definition)
    )
    if image != parents_image:
        raise validation_error(
            f"The training image must be of the same algorithm as that of parent tuning job {name},"
            f" {parents_image!r}; it is {image!r}."
        )
    identical = request["WarmStartConfig"]["WarmStartType"] == "IdenticalDataAndAlgorithm"
    if identical and _data(definition) != _data(request[_DEFINITION]):
        raise validation_error(
            "For WarmStartType IdenticalDataAndAlgorithm the InputDataConfig must have the same"
            f" channels and data as that of parent tuning job {name}."
        )


def _data(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return what each channel of a definition reads."""
    return {
        channel["ChannelName"]: channel["DataSource"]
        for channel in definition.get("InputDataConfig", [])
    }


def _check_hyperparameters(
    name: str, parent: Mapping[str, Any], request: Mapping[str, Any]
) -> None:
    (static, ranges), (old_static, old_ranges) = (
        _hyperparameters(job) for job in (request, parent)
    )
    count, old_count = len(static) + len(ranges), len(old_static) + len(old_ranges)
    if count != old_count:
        raise validation_error(
            "The number of static and tunable hyperparameters together must be the same as that of"
            f" parent tuning job {name}, {old_count}; it is {count}."
        )
    changes = 0
    for hyperparameter, (kind, old_range) in old_ranges.items():
        if hyperparameter in ranges and ranges[hyperparameter][0] != kind:
            raise validation_error(
                f"Hyperparameter {hyperparameter!r} must be in {kind}, as in parent tuning job"
                f" {name}."
            )
        if hyperparameter in static:
            changes += len(old_range.get("Values", [None]))
    # Whether a static value is one of several categories is not known: it counts once.
    changes += sum(
        value != old_static[hyperparameter]
        for hyperparameter, value in static.items()
        if hyperparameter in old_static
    )
    if changes > _MOST_CHANGES:
        raise validation_error(
            f"Compared with parent tuning job {name}, {changes} hyperparameters or categories"
            f" became static or changed their static value; {_MOST_CHANGES} may."
        )


def _hyperparameters(
    job: Mapping[str, Any],
) -> tuple[dict[str, str], dict[str, tuple[str, Mapping[str, Any]]]]:
    """Return a tuning job's static hyperparameters, and its ranges with their kinds, by name."""
    static = dict(job[_DEFINITION].get("StaticHyperParameters", {}))
    static.pop("_tuning_objective_metric", None)
    ranges = {
        item["Name"]: (kind, item)
        for kind in _KINDS
        for item in job[_CONFIG]["ParameterRanges"].get(kind, [])
    }
    return static, ranges
