"""Hyperparameter tuning jobs: their record, their children and their end.

A tuning job runs nothing itself. ``advance`` compares it with its children and creates, stops or
concludes; it can be called at any time, and after a crash, with the same outcome.
"""

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.images import Program
from recsys_assets.sagemaker_local.jobs import search, training
from recsys_assets.sagemaker_local.store import (
    TRAINING_JOB,
    TUNING_JOB,
    Description,
    Query,
    Store,
)

_UNFINISHED = ("InProgress", "Stopping")

# Members of a training job definition that its children take over as they are.
_INHERITED = (
    "RoleArn",
    "InputDataConfig",
    "VpcConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "Environment",
)


def new_tuning_job(request: Mapping[str, Any], program: Program) -> Description:
    """Return the record of a tuning job that begins.

    Parameters
    ----------
    request
        A checked CreateHyperParameterTuningJob request.
    program
        What stands for its training image.
    """
    definition = request["TrainingJobDefinition"]
    objective = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    specification = definition["AlgorithmSpecification"]
    metrics = list(program.metric_definitions or specification.get("MetricDefinitions", []))
    # As on AWS, the objective is scraped under a name of its own too.
    metrics += [
        {**metric, "Name": "ObjectiveMetric"}
        for metric in metrics
        if metric["Name"] == objective["MetricName"]
    ]
    job = {
        **request,
        "HyperParameterTuningJobArn": TUNING_JOB.arn(request["HyperParameterTuningJobName"]),
        "HyperParameterTuningJobStatus": "InProgress",
        "TrainingJobDefinition": {
            **definition,
            "AlgorithmSpecification": {**specification, "MetricDefinitions": metrics},
            "StaticHyperParameters": {
                **definition.get("StaticHyperParameters", {}),
                "_tuning_objective_metric": objective["MetricName"],
            },
        },
    }
    job.pop("Tags", None)
    return job


def request_stop(job: Description) -> None:
    """Note in a tuning job's record that it is to stop; nothing if it is not in progress."""
    if job["HyperParameterTuningJobStatus"] == "InProgress":
        job["HyperParameterTuningJobStatus"] = "Stopping"


def advance(context: Context, job: Description) -> None:
    """Do what is next for an unfinished tuning job.

    Parameters
    ----------
    context
        The endpoint's shared parts.
    job
        The tuning job's record, as listed.
    """
    store, name = context.store, job["HyperParameterTuningJobName"]
    counts = store.count_children(TRAINING_JOB, name)
    launched = sum(counts.values())
    active = sum(count for (status, _), count in counts.items() if status in _UNFINISHED)
    if job["HyperParameterTuningJobStatus"] == "Stopping":
        _stop_children(store, name)
        if not active:
            end(store, name, "Stopped")
        return
    limits = job["HyperParameterTuningJobConfig"]["ResourceLimits"]
    remaining = limits["MaxNumberOfTrainingJobs"] - launched
    for number in range(1, min(remaining, limits["MaxParallelTrainingJobs"] - active) + 1):
        store.insert(TRAINING_JOB, _child(job, launched + number), parent=name)
    if remaining or active:
        return
    if counts.get(("Completed", "Succeeded")) or counts.get(("Stopped", "Succeeded")):
        end(store, name, "Completed")
    else:
        end(store, name, "Failed", _why_none_succeeded(counts))


def end(store: Store, name: str, status: str, reason: str | None = None) -> None:
    """Write the end of a tuning job to its record.

    Parameters
    ----------
    store, name
        The job.
    status
        ``Completed``, ``Failed`` or ``Stopped``.
    reason
        The FailureReason of a failed job.
    """
    with store.edit(TUNING_JOB, name) as job:
        job["HyperParameterTuningJobStatus"] = status
        job["HyperParameterTuningEndTime"] = time.time()
        if reason is not None:
            job["FailureReason"] = reason


def best_child(store: Store, job: Description) -> Description | None:
    """Return the training job with the best objective so far, the earlier one of equals."""
    objective = job["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    query = Query(
        parent=job["HyperParameterTuningJobName"],
        sort_by="FinalObjectiveMetricValue",
        descending=objective["Type"] == "Maximize",
        limit=1,
    )
    return next((listed.description for listed in store.find(TRAINING_JOB, query)), None)


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


def _child(job: Description, number: int) -> Description:
    """Return the record of a tuning job's child; the same number gives the same child."""
    name = job["HyperParameterTuningJobName"]
    config, definition = job["HyperParameterTuningJobConfig"], job["TrainingJobDefinition"]
    suffix = hashlib.sha256(f"{name}/{number}".encode()).hexdigest()[:8]
    seed = config.get("RandomSeed", search.default_seed(name))
    tuned = search.draw(config["ParameterRanges"], seed, number)
    child = training.new_training_job(
        {
            "TrainingJobName": f"{name}-{number:03d}-{suffix}",
            "HyperParameters": {**definition["StaticHyperParameters"], **tuned},
            "AlgorithmSpecification": definition["AlgorithmSpecification"],
            **{member: definition[member] for member in _INHERITED if member in definition},
        }
    )
    child |= {
        "TuningJobArn": job["HyperParameterTuningJobArn"],
        "TuningJobName": name,
        "TunedHyperParameters": tuned,
        "TuningObjective": config["HyperParameterTuningJobObjective"],
        "ObjectiveStatus": "Pending",
    }
    if "DefinitionName" in definition:
        child["TrainingJobDefinitionName"] = definition["DefinitionName"]
    return child


def _stop_children(store: Store, name: str) -> None:
    for listed in store.find(TRAINING_JOB, Query(parent=name, status="InProgress")):
        with store.edit(TRAINING_JOB, listed.description["TrainingJobName"]) as child:
            training.request_stop(child)


def _why_none_succeeded(counts: Mapping[tuple[str, str], int]) -> str:
    launched = sum(counts.values())
    if counts.get(("Completed", "Failed")):
        return (
            f"No objective metrics found after running {launched} training jobs. Please ensure that"
            " the algorithm is emitting the objective metric as defined by the regular expression"
            " of its metric definition."
        )
    return (
        f"No training job succeeded after {launched} attempts. Please take a look at the training"
        " job failures to get more details."
    )
