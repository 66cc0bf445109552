"""Hyperparameter tuning jobs: their record, their children and their end.

A tuning job runs nothing itself. ``advance`` compares it with its children and creates, stops or
concludes; it can be called at any time, and after a crash, with the same outcome. What is tried
and what is given up early is decided in ``search``; what came of it is told in
``tuning_results``.
"""

import hashlib
import math
import time
from collections.abc import Mapping
from typing import Any

from recsys_assets.sagemaker_local.images import Program
from recsys_assets.sagemaker_local.jobs import training
from recsys_assets.sagemaker_local.jobs.run import LONGEST_FAILURE_REASON, new_job
from recsys_assets.sagemaker_local.jobs.search.ranges import parse_ranges
from recsys_assets.sagemaker_local.jobs.search.stopping import below_median, parse_hyperband
from recsys_assets.sagemaker_local.jobs.search.strategies import Search, hash_32
from recsys_assets.sagemaker_local.jobs.tuning_results import (
    best_child,
    children_of,
    is_better,
    maximizes,
    not_improving,
    objective_of,
    parents_of,
    trial,
)
from recsys_assets.sagemaker_local.store import TRAINING_JOB, TUNING_JOB, Description, Store

_UNFINISHED = ("InProgress", "Stopping")

_COMPLETION = "CompletionTime"
"""Member of a record, for this module alone: when a criterion was met that ends it early."""

_OBJECTIVE_METRIC = "ObjectiveMetric"

_MOST_METRICS = 40
"""Metric definitions that the API allows a training job."""

# Members of a training job definition that its children do not take over as they are.
_OWN = ("DefinitionName", "HyperParameterTuningResourceConfig", "StaticHyperParameters")


def new_tuning_job(request: Mapping[str, Any], program: Program) -> Description:
    """Return the record of a tuning job that begins.

    Parameters
    ----------
    request
        A checked CreateHyperParameterTuningJob request, with its MaxNumberOfTrainingJobs.
    program
        What stands for its training image.
    """
    definition = request["TrainingJobDefinition"]
    objective = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    specification = definition["AlgorithmSpecification"]
    metrics = list(program.metric_definitions or specification.get("MetricDefinitions", []))
    # As on AWS, the objective is scraped under a name of its own too, if that is not taken.
    renamed = [
        {**metric, "Name": _OBJECTIVE_METRIC}
        for metric in metrics
        if metric["Name"] == objective["MetricName"]
    ]
    taken = any(metric["Name"] == _OBJECTIVE_METRIC for metric in metrics)
    if not taken and len(metrics) + len(renamed) <= _MOST_METRICS:
        metrics += renamed
    return {
        **new_job(TUNING_JOB, request),
        "TrainingJobDefinition": {
            **definition,
            "AlgorithmSpecification": {**specification, "MetricDefinitions": metrics},
            "StaticHyperParameters": {
                **definition.get("StaticHyperParameters", {}),
                "_tuning_objective_metric": objective["MetricName"],
            },
        },
    }


def request_stop(job: Description) -> None:
    """Note in a tuning job's record that it is to stop; nothing if it is not in progress."""
    if job["HyperParameterTuningJobStatus"] == "InProgress":
        job["HyperParameterTuningJobStatus"] = "Stopping"


def search_of(store: Store, job: Mapping[str, Any]) -> Search:
    """Return the search that a tuning job, or a request for one, asks for.

    Raises
    ------
    ServiceError
        When its ranges cannot be searched.
    """
    config = job["HyperParameterTuningJobConfig"]
    return Search(
        strategy=config["Strategy"],
        ranges=parse_ranges(config["ParameterRanges"]),
        maximize=maximizes(job),
        seed=config.get("RandomSeed", hash_32(job["HyperParameterTuningJobName"])),
        inherited=tuple(
            trial(child) for parent in parents_of(job) for child in children_of(store, parent)
        ),
    )


def deadline(job: Description) -> float:
    """Return when a tuning job's time is over, in seconds since the epoch; infinite if never."""
    limits = job["HyperParameterTuningJobConfig"]["ResourceLimits"]
    if _COMPLETION in job or "MaxRuntimeInSeconds" not in limits:
        return math.inf
    return float(job["CreationTime"] + limits["MaxRuntimeInSeconds"])


def advance(store: Store, job: Description) -> None:
    """Do what is next for an unfinished tuning job.

    Parameters
    ----------
    store
        Where its children are.
    job
        The tuning job's record, as listed.
    """
    name = job["HyperParameterTuningJobName"]
    counts = store.count_children(TRAINING_JOB, name)
    active = sum(count for (status, _), count in counts.items() if status in _UNFINISHED)
    if job["HyperParameterTuningJobStatus"] == "Stopping":
        _stop_children(store, name)
        if not active:
            end(store, name, "Stopped")
        return
    if _COMPLETION in job or _is_complete(store, job):
        # Noted, for the children that are stopped now may change what the criterion looks at.
        with store.edit(TUNING_JOB, name) as record:
            record.setdefault(_COMPLETION, time.time())
        _stop_children(store, name)
        remaining = 0
    else:
        _stop_lagging_children(store, job)
        limits = job["HyperParameterTuningJobConfig"]["ResourceLimits"]
        remaining = limits["MaxNumberOfTrainingJobs"] - sum(counts.values())
        _launch(store, job, min(remaining, limits["MaxParallelTrainingJobs"] - active))
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
        The FailureReason of a failed job; its beginning if it is too long for the API.
    """
    with store.edit(TUNING_JOB, name) as job:
        job["HyperParameterTuningJobStatus"] = status
        job["HyperParameterTuningEndTime"] = time.time()
        if reason is not None:
            job["FailureReason"] = reason[:LONGEST_FAILURE_REASON]


def _is_complete(store: Store, job: Description) -> bool:
    """Return whether a criterion is met that ends a tuning job before its last child."""
    if time.time() >= deadline(job):
        return True
    criteria = job["HyperParameterTuningJobConfig"].get("TuningJobCompletionCriteria", {})
    target = criteria.get("TargetObjectiveMetricValue")
    if target is not None:
        best = best_child(store, job, [job["HyperParameterTuningJobName"]])
        if best is not None and not is_better(job, target, objective_of(best)):
            return True
    most = criteria.get("BestObjectiveNotImproving", {}).get("MaxNumberOfTrainingJobsNotImproving")
    return most is not None and bool(not_improving(store, job) >= most)


def _stop_lagging_children(store: Store, job: Description) -> None:
    """Ask the children to stop that early stopping or Hyperband gives up."""
    config = job["HyperParameterTuningJobConfig"]
    hyperband = None
    if config["Strategy"] == "Hyperband":
        hyperband = parse_hyperband(config, job["TrainingJobDefinition"])
    elif config.get("TrainingJobEarlyStoppingType") != "Auto":
        return
    name, maximize = job["HyperParameterTuningJobName"], maximizes(job)
    metric = config["HyperParameterTuningJobObjective"]["MetricName"]
    children = children_of(store, name)
    courses = store.metric_courses(metric, name)
    by_number = {_number(child): courses.get(child["TrainingJobName"], []) for child in children}
    ended = [
        by_number[_number(child)]
        for child in children
        if child["TrainingJobStatus"] in ("Completed", "Stopped")
    ]
    for child in children:
        course = by_number[_number(child)]
        # Before it trains, a course is one of an interrupted run; after that, it saves nothing.
        if child["SecondaryStatus"] != "Training" or not course:
            continue
        if hyperband is not None:
            given_up = hyperband.gives_up(_number(child), by_number, maximize=maximize)
        else:
            given_up = below_median(course, ended, maximize=maximize)
        if given_up:
            _request_stop(store, child)


def _launch(store: Store, job: Description, how_many: int) -> None:
    """Create the next children, if any."""
    if how_many < 1:
        return
    name = job["HyperParameterTuningJobName"]
    search = search_of(store, job)
    trials = [trial(child) for child in children_of(store, name)]
    tags = store.tags(job["HyperParameterTuningJobArn"])
    for _ in range(how_many):
        number = len(trials) + 1
        child = _child(job, number, search.suggest(number, trials))
        store.insert(TRAINING_JOB, child, tags=tags, parent=name)
        trials.append(trial(child))


def _child(job: Description, number: int, tuned: Mapping[str, str]) -> Description:
    """Return the record of a tuning job's child; the same number gives the same name."""
    name = job["HyperParameterTuningJobName"]
    config, definition = job["HyperParameterTuningJobConfig"], job["TrainingJobDefinition"]
    # A tuning job of the same name may have been here before, and left its children.
    origin = f"{name}/{job['CreationTime']}/{number}"
    child = training.new_training_job(
        {
            **{member: value for member, value in definition.items() if member not in _OWN},
            "TrainingJobName": (
                f"{name}-{number:03d}-{hashlib.sha256(origin.encode()).hexdigest()[:8]}"
            ),
            "HyperParameters": {**definition["StaticHyperParameters"], **tuned},
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


def _number(child: Description) -> int:
    """Return which child of its tuning job one is, from 1."""
    return int(child["TrainingJobName"].rsplit("-", 2)[1])


def _stop_children(store: Store, name: str) -> None:
    for child in children_of(store, name, status="InProgress"):
        _request_stop(store, child)


def _request_stop(store: Store, child: Description) -> None:
    with store.edit(TRAINING_JOB, child["TrainingJobName"]) as record:
        training.TrainingRun.request_stop(record)


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
