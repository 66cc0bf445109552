"""Create, describe, stop and list hyperparameter tuning jobs, and list their training jobs."""

from typing import Any

from recsys_assets.sagemaker_local.api.common import list_page, stop_job
from recsys_assets.sagemaker_local.api.tags import tags_of
from recsys_assets.sagemaker_local.api.training import SUPPORTED_DEFINITION, check_definition
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import (
    resource_in_use,
    resource_not_found,
    validation_error,
)
from recsys_assets.sagemaker_local.jobs import search, tuning
from recsys_assets.sagemaker_local.store import TRAINING_JOB, TUNING_JOB, Description
from recsys_assets.sagemaker_local.validation import ANY, Supported, refuse_unsupported

_CONFIG = "HyperParameterTuningJobConfig"
_DEFINITION = "TrainingJobDefinition"

_SUPPORTED: Supported = {
    "HyperParameterTuningJobName": ANY,
    f"{_CONFIG}.Strategy": ("Random",),
    f"{_CONFIG}.HyperParameterTuningJobObjective": ANY,
    f"{_CONFIG}.ResourceLimits.MaxNumberOfTrainingJobs": ANY,
    f"{_CONFIG}.ResourceLimits.MaxParallelTrainingJobs": ANY,
    f"{_CONFIG}.ParameterRanges.ContinuousParameterRanges": ANY,
    f"{_CONFIG}.ParameterRanges.IntegerParameterRanges": ANY,
    f"{_CONFIG}.ParameterRanges.CategoricalParameterRanges": ANY,
    f"{_CONFIG}.TrainingJobEarlyStoppingType": ("Off",),
    f"{_CONFIG}.RandomSeed": ANY,
    f"{_DEFINITION}.DefinitionName": ANY,
    f"{_DEFINITION}.StaticHyperParameters": ANY,
    **{f"{_DEFINITION}.{member}": values for member, values in SUPPORTED_DEFINITION.items()},
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
        (f"{_CONFIG}.ResourceLimits", config["ResourceLimits"], "MaxNumberOfTrainingJobs"),
    ):
        if member not in holder:
            raise validation_error(f"{member} is required in {where}.")
    definition = request[_DEFINITION]
    tuned = search.check_ranges(config["ParameterRanges"])
    for hyperparameter in tuned:
        if hyperparameter in definition.get("StaticHyperParameters", {}):
            raise validation_error(
                f"Hyperparameter {hyperparameter!r} is in StaticHyperParameters and in"
                " ParameterRanges; it can be in only one of them."
            )
    program = check_definition(context, definition)
    job = tuning.new_tuning_job(request, program)
    _check_objective(job)
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
    job = _existing(context, request)
    best = tuning.best_child(context.store, job)
    return {
        **job,
        **tuning.counters(context.store, job),
        **({"BestTrainingJob": best} if best else {}),
    }


def stop_hyper_parameter_tuning_job(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Ask a tuning job and its training jobs to end early."""
    name = _existing(context, request)["HyperParameterTuningJobName"]
    stop_job(context, TUNING_JOB, name, "hyperparameter tuning job", tuning.request_stop)
    return {}


def list_hyper_parameter_tuning_jobs(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List tuning jobs."""
    jobs, more = list_page(context.store, TUNING_JOB, request, default_sort="Name")
    summaries = [
        {
            **job,
            "Strategy": job[_CONFIG]["Strategy"],
            "ResourceLimits": job[_CONFIG]["ResourceLimits"],
            **tuning.counters(context.store, job),
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


def _check_objective(job: Description) -> None:
    metric = job[_CONFIG]["HyperParameterTuningJobObjective"]["MetricName"]
    definitions = job[_DEFINITION]["AlgorithmSpecification"]["MetricDefinitions"]
    names = [definition["Name"] for definition in definitions]
    if metric not in names:
        raise validation_error(
            f"The objective metric {metric!r} is not among the algorithm's metrics:"
            f" {', '.join(names) or 'none is defined'}."
        )
