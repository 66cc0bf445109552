"""Create, describe, stop, delete and list hyperparameter tuning jobs, and list their training jobs.

What a tuning job may ask for is decided here, but for warm starts, which have a module of their
own.
"""

from collections.abc import Sequence
from typing import Any

from recsys_assets.sagemaker_local.api.common import list_page, stop_job
from recsys_assets.sagemaker_local.api.tags import tags_of
from recsys_assets.sagemaker_local.api.training import SUPPORTED_DEFINITION, check_definition
from recsys_assets.sagemaker_local.api.warm_start import check_warm_start
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import (
    resource_in_use,
    resource_not_found,
    validation_error,
)
from recsys_assets.sagemaker_local.images import Program
from recsys_assets.sagemaker_local.jobs import tuning, tuning_results
from recsys_assets.sagemaker_local.jobs.search.ranges import CategoricalRange, Range
from recsys_assets.sagemaker_local.jobs.search.stopping import parse_hyperband
from recsys_assets.sagemaker_local.jobs.search.strategies import Search
from recsys_assets.sagemaker_local.store import TRAINING_JOB, TUNING_JOB, Description, Query
from recsys_assets.sagemaker_local.validation import ANY, Supported, refuse_unsupported

_MOST_TRAINING_JOBS = 750
"""How many a tuning job has that does not limit them, and a Grid at most: AWS's quota."""

_MOST_HYPERPARAMETERS = 100
"""How many the API allows a training job, one of them SageMaker's own: the objective's name."""

_CONFIG = "HyperParameterTuningJobConfig"
_DEFINITION = "TrainingJobDefinition"
_CRITERIA = f"{_CONFIG}.TuningJobCompletionCriteria"
_RESOURCES = "HyperParameterTuningResourceConfig"
_HYPERBAND = f"{_CONFIG}.StrategyConfig.HyperbandStrategyConfig"

_SUPPORTED: Supported = {
    "HyperParameterTuningJobName": ANY,
    f"{_CONFIG}.Strategy": ANY,
    f"{_HYPERBAND}.MinResource": ANY,
    f"{_HYPERBAND}.MaxResource": ANY,
    f"{_CONFIG}.HyperParameterTuningJobObjective": ANY,
    f"{_CONFIG}.ResourceLimits": ANY,
    f"{_CONFIG}.ParameterRanges.ContinuousParameterRanges": ANY,
    f"{_CONFIG}.ParameterRanges.IntegerParameterRanges": ANY,
    f"{_CONFIG}.ParameterRanges.CategoricalParameterRanges": ANY,
    f"{_CONFIG}.TrainingJobEarlyStoppingType": ANY,
    f"{_CRITERIA}.TargetObjectiveMetricValue": ANY,
    f"{_CRITERIA}.BestObjectiveNotImproving": ANY,
    # How SageMaker detects convergence is not published.
    f"{_CRITERIA}.ConvergenceDetected.CompleteOnConvergence": ("Disabled",),
    f"{_CONFIG}.RandomSeed": ANY,
    f"{_DEFINITION}.DefinitionName": ANY,
    f"{_DEFINITION}.StaticHyperParameters": ANY,
    **{f"{_DEFINITION}.{member}": values for member, values in SUPPORTED_DEFINITION.items()},
    **{
        f"{_DEFINITION}.{_RESOURCES}.{member}": SUPPORTED_DEFINITION[f"ResourceConfig.{member}"]
        for member in ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")
    },
    "WarmStartConfig": ANY,
    "Tags": ANY,
}


def create_hyper_parameter_tuning_job(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Begin a tuning job."""
    refuse_unsupported(request, _SUPPORTED)
    name, config = request["HyperParameterTuningJobName"], request[_CONFIG]
    for where, holder, member in (
        ("CreateHyperParameterTuningJob", request, _DEFINITION),
        (_CONFIG, config, "HyperParameterTuningJobObjective"),
        (_CONFIG, config, "ParameterRanges"),
    ):
        if member not in holder:
            raise validation_error(f"{member} is required in {where}.")
    definition = request[_DEFINITION]
    if _RESOURCES in definition:
        if "ResourceConfig" in definition:
            raise validation_error(
                f"{_DEFINITION} can have only one of ResourceConfig and {_RESOURCES}."
            )
        # Clients that use the one look for the other in the description.
        definition["ResourceConfig"] = definition[_RESOURCES]
    program = check_definition(context, definition)
    if "WarmStartConfig" in request:
        check_warm_start(context.store, request)
    search = tuning.search_of(context.store, request)
    _check_ranges(search.ranges, definition, program)
    _check_strategy(config, definition, program)
    config["ResourceLimits"] = {
        **config["ResourceLimits"],
        "MaxNumberOfTrainingJobs": _number_of_training_jobs(search, config["ResourceLimits"]),
    }
    job = tuning.new_tuning_job(request, program)
    _check_objective(job, program)
    if not context.store.insert(TUNING_JOB, job, tags=tags_of(request)):
        raise resource_in_use(
            f"A hyperparameter tuning job with the name, {name}, already exists."
            " Choose a different name."
        )
    context.changed.set()
    return {"HyperParameterTuningJobArn": TUNING_JOB.arn(name)}


def describe_hyper_parameter_tuning_job(
    context: Context, request: dict[str, Any]
) -> dict[str, Any]:
    """Tell all about a tuning job, counted and compared at this moment."""
    with context.store.unchanging():
        job = _existing(context, request)
        return {**job, **tuning_results.progress(context.store, job)}


def stop_hyper_parameter_tuning_job(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Ask a tuning job and its training jobs to end early."""
    name = _existing(context, request)["HyperParameterTuningJobName"]
    stop_job(context, TUNING_JOB, name, "hyperparameter tuning job", tuning.request_stop)
    return {}


def delete_hyper_parameter_tuning_job(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Forget a tuning job that has ended; its training jobs stay."""
    with context.store.unchanging():
        job = _existing(context, request)
        name, status = job["HyperParameterTuningJobName"], job["HyperParameterTuningJobStatus"]
        if status in ("InProgress", "Stopping"):
            raise validation_error(f"Tuning job {name} cannot be deleted while it is {status}.")
        for user in (
            listed.description
            for unfinished in ("InProgress", "Stopping")
            for listed in context.store.find(TUNING_JOB, Query(status=unfinished))
        ):
            if name in tuning_results.parents_of(user):
                raise validation_error(
                    f"The local SageMaker endpoint cannot delete tuning job {name} while"
                    f" {user['HyperParameterTuningJobName']}, which started from it, runs."
                )
        context.store.delete(TUNING_JOB, name, children=TRAINING_JOB)
    return {}


def list_hyper_parameter_tuning_jobs(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List tuning jobs."""
    jobs, more = list_page(context.store, TUNING_JOB, request, default_sort="Name")
    summaries = [
        {
            **job,
            "Strategy": job[_CONFIG]["Strategy"],
            "ResourceLimits": job[_CONFIG]["ResourceLimits"],
            **tuning_results.counters(context.store, job),
        }
        for job in jobs
    ]
    return {"HyperParameterTuningJobSummaries": summaries, **more}


def list_training_jobs_for_hyper_parameter_tuning_job(
    context: Context, request: dict[str, Any]
) -> dict[str, Any]:
    """List a tuning job's training jobs with what was tuned and what came of it."""
    name = _existing(context, request)["HyperParameterTuningJobName"]
    children, more = list_page(
        context.store, TRAINING_JOB, request, default_sort="Name", parent=name
    )
    return {"TrainingJobSummaries": children, **more}


def _existing(context: Context, request: dict[str, Any]) -> Description:
    name = request["HyperParameterTuningJobName"]
    job = context.store.get(TUNING_JOB, name)
    if job is None:
        raise resource_not_found(
            f"Amazon SageMaker can't find a tuning job called {name}. Type another name."
        )
    return job


def _check_ranges(ranges: Sequence[Range], definition: Description, program: Program) -> None:
    tunable = program.tunable_hyperparameters
    static = definition.get("StaticHyperParameters", {})
    if len(static) + len(ranges) >= _MOST_HYPERPARAMETERS:
        raise validation_error(
            f"At most {_MOST_HYPERPARAMETERS - 1} hyperparameters, static and tunable together, are"
            f" allowed; there are {len(static)} and {len(ranges)}."
        )
    for item in ranges:
        if item.name in static:
            raise validation_error(
                f"Hyperparameter {item.name!r} is in StaticHyperParameters and in"
                " ParameterRanges; it can be in only one of them."
            )
        if tunable and item.name not in tunable:
            raise validation_error(
                f"Hyperparameter {item.name!r} of the algorithm is not tunable; tunable are:"
                f" {', '.join(sorted(tunable))}."
            )


def _check_strategy(config: Description, definition: Description, program: Program) -> None:
    if config["Strategy"] != "Hyperband":
        if "StrategyConfig" in config:
            raise validation_error(
                f"StrategyConfig is for Strategy Hyperband only, not for {config['Strategy']}."
            )
        return
    if config.get("TrainingJobEarlyStoppingType") == "Auto":
        raise validation_error(
            "TrainingJobEarlyStoppingType must be Off for Strategy Hyperband, which stops training"
            " jobs early itself."
        )
    if program.objective_metrics:
        raise validation_error(
            "The local SageMaker endpoint does not support Strategy Hyperband for this built-in"
            " algorithm: it emits its objective metrics once, at its end, and not after every"
            " epoch."
        )
    parse_hyperband(config, definition)


def _number_of_training_jobs(search: Search, limits: Description) -> int:
    """Return how many training jobs a request asks for."""
    given: int | None = limits.get("MaxNumberOfTrainingJobs")
    if search.strategy != "Grid":
        return _MOST_TRAINING_JOBS if given is None else given
    combinations = 1
    for item in search.ranges:
        if not isinstance(item, CategoricalRange):
            raise validation_error(
                f"Strategy Grid is for categorical ranges only; {item.name!r} is none."
            )
        combinations *= len(item.categories)
    if combinations > _MOST_TRAINING_JOBS:
        raise validation_error(
            f"ParameterRanges have {combinations:,} combinations; Strategy Grid can try"
            f" {_MOST_TRAINING_JOBS}."
        )
    untried = len(search.untried())
    if untried == 0:
        raise validation_error(
            "The parents of the warm start have tried every combination of ParameterRanges."
        )
    if given not in (None, untried):
        raise validation_error(
            f"MaxNumberOfTrainingJobs must be absent for Strategy Grid, or the number of"
            f" combinations to try, {untried}; it is {given}."
        )
    return untried


def _check_objective(job: Description, program: Program) -> None:
    objective = job[_CONFIG]["HyperParameterTuningJobObjective"]
    metric = objective["MetricName"]
    definitions = job[_DEFINITION]["AlgorithmSpecification"]["MetricDefinitions"]
    allowed = list(program.objective_metrics) or [item["Name"] for item in definitions]
    if metric not in allowed:
        raise validation_error(
            f"The objective metric {metric!r} is not among the algorithm's metrics:"
            f" {', '.join(allowed) or 'none is defined'}."
        )
    kind = program.objective_metrics.get(metric, objective["Type"])
    if objective["Type"] != kind:
        raise validation_error(
            f"The objective metric type, [{objective['Type']}], that you specified for objective"
            f" metric, [{metric}], isn't valid for the algorithm: it is {kind}."
        )
