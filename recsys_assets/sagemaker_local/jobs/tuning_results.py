"""What came of a tuning job so far, read off the records of its training jobs.

Nothing is kept of it but the records themselves, so that it is right at every moment. Nothing is
changed here.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from recsys_assets.sagemaker_local.jobs.search.strategies import Trial
from recsys_assets.sagemaker_local.store import TRAINING_JOB, Description, Query, Store

_SIGNIFICANT = 0.01
"""By this part of the best objective a child must be better to count as improving, as on AWS."""

_OBJECTIVE = "FinalHyperParameterTuningJobObjectiveMetric"


def children_of(store: Store, name: str, status: str | None = None) -> list[Description]:
    """Return a tuning job's children, of one status if it is given, as they were created."""
    query = Query(parent=name, status=status)
    return [listed.description for listed in store.find(TRAINING_JOB, query)]


def parents_of(job: Mapping[str, Any]) -> list[str]:
    """Return the names of the tuning jobs that one starts from (warm start)."""
    return [
        parent["HyperParameterTuningJobName"]
        for parent in job.get("WarmStartConfig", {}).get("ParentHyperParameterTuningJobs", [])
    ]


def trial(child: Description) -> Trial:
    """Return what a strategy is to know of a child."""
    return Trial(
        hyperparameters=child["HyperParameters"],
        objective=objective_of(child) if _OBJECTIVE in child else None,
        pending=child["ObjectiveStatus"] == "Pending",
    )


def objective_of(child: Description) -> float:
    """Return the final value of the objective metric of a child that has one."""
    value: float = child[_OBJECTIVE]["Value"]
    return value


def maximizes(job: Mapping[str, Any]) -> bool:
    """Return whether high values of a tuning job's objective are good."""
    objective = job["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    return bool(objective["Type"] == "Maximize")


def is_better(job: Mapping[str, Any], value: float, than: float) -> bool:
    """Return whether one value of a tuning job's objective is better than another."""
    return value > than if maximizes(job) else value < than


def best_child(store: Store, job: Description, names: Sequence[str]) -> Description | None:
    """Return the child with the best objective so far, the earlier one of equals.

    Parameters
    ----------
    store, job
        The tuning job, which tells what is good.
    names
        The tuning jobs whose children are compared.
    """
    best: Description | None = None
    for name in names:
        query = Query(
            parent=name,
            sort_by="FinalObjectiveMetricValue",
            descending=maximizes(job),
            limit=1,
        )
        for listed in store.find(TRAINING_JOB, query):
            child = listed.description
            if best is None or is_better(job, objective_of(child), objective_of(best)):
                best = child
    return best


def not_improving(store: Store, job: Description) -> int:
    """Return how many children have ended since the last one that improved the objective.

    To improve is to be better by 1 % than the best child before. Children without an objective
    are not counted.
    """
    children = [
        child
        for child in children_of(store, job["HyperParameterTuningJobName"])
        if _OBJECTIVE in child
    ]
    count = 0
    best: float | None = None
    for child in sorted(children, key=lambda child: child["TrainingEndTime"]):
        value = objective_of(child)
        if best is None:
            best = value
            continue
        improves = is_better(job, value, best)
        if improves and abs(value - best) >= _SIGNIFICANT * abs(best):
            count = 0
        else:
            count += 1
        if improves:
            best = value
    return count


def counters(store: Store, job: Description) -> dict[str, dict[str, int]]:
    """Return how many children are in which state, as the members that Describe has for it."""
    statuses = dict.fromkeys(
        ("Completed", "InProgress", "RetryableError", "NonRetryableError", "Stopped"), 0
    )
    objectives = dict.fromkeys(("Succeeded", "Pending", "Failed"), 0)
    counted_as = {"Failed": "NonRetryableError", "Stopping": "InProgress"}
    counts = store.count_children(TRAINING_JOB, job["HyperParameterTuningJobName"])
    for (status, objective), count in counts.items():
        statuses[counted_as.get(status, status)] += count
        objectives[objective] += count
    return {"TrainingJobStatusCounters": statuses, "ObjectiveStatusCounters": objectives}


def progress(store: Store, job: Description) -> dict[str, Any]:
    """Return the members of Describe that tell what came of a tuning job up to this moment."""
    name = job["HyperParameterTuningJobName"]
    until = job.get("HyperParameterTuningEndTime", time.time())
    told: dict[str, Any] = {
        **counters(store, job),
        "TuningJobCompletionDetails": {
            "NumberOfTrainingJobsObjectiveNotImproving": not_improving(store, job)
        },
        "ConsumedResources": {"RuntimeInSeconds": int(until - job["CreationTime"])},
    }
    compared = {"BestTrainingJob": [name]}
    if job.get("WarmStartConfig", {}).get("WarmStartType") == "IdenticalDataAndAlgorithm":
        compared["OverallBestTrainingJob"] = [name, *parents_of(job)]
    for member, names in compared.items():
        best = best_child(store, job, names)
        if best is not None:
            told[member] = best
    return told
