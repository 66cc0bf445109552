"""The actions, as clients see them: what a request may ask for and what it is answered.

Each module holds the actions of one kind of resource, as functions from the shared context and a
request that has passed the service model to a response. ``ACTIONS`` names them all, by botocore's
name of the service; ``perform`` is the way to them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from recsys_assets.sagemaker_local.api import logs, models, sts, tags, training, transform, tuning
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.validation import check_request, project, service_model

Action = Callable[[Context, dict[str, Any]], dict[str, Any]]

ACTIONS: Mapping[str, Mapping[str, Action]] = {
    "sagemaker": {
        "AddTags": tags.add_tags,
        "CreateHyperParameterTuningJob": tuning.create_hyper_parameter_tuning_job,
        "CreateModel": models.create_model,
        "CreateTrainingJob": training.create_training_job,
        "CreateTransformJob": transform.create_transform_job,
        "DeleteModel": models.delete_model,
        "DescribeHyperParameterTuningJob": tuning.describe_hyper_parameter_tuning_job,
        "DescribeModel": models.describe_model,
        "DescribeTrainingJob": training.describe_training_job,
        "DescribeTransformJob": transform.describe_transform_job,
        "ListHyperParameterTuningJobs": tuning.list_hyper_parameter_tuning_jobs,
        "ListModels": models.list_models,
        "ListTags": tags.list_tags,
        "ListTrainingJobs": training.list_training_jobs,
        "ListTrainingJobsForHyperParameterTuningJob": (
            tuning.list_training_jobs_for_hyper_parameter_tuning_job
        ),
        "ListTransformJobs": transform.list_transform_jobs,
        "StopHyperParameterTuningJob": tuning.stop_hyper_parameter_tuning_job,
        "StopTrainingJob": training.stop_training_job,
        "StopTransformJob": transform.stop_transform_job,
    },
    "logs": {
        "DescribeLogStreams": logs.describe_log_streams,
        "GetLogEvents": logs.get_log_events,
    },
    "sts": {
        "GetCallerIdentity": sts.get_caller_identity,
    },
}


def perform(context: Context, service: str, action: str, content: object) -> dict[str, Any]:
    """Check a request, perform its action and return the members that its response has.

    Parameters
    ----------
    context
        The endpoint's shared parts.
    service, action
        Botocore's name of the service and AWS's name of the action.
    content
        The decoded request.

    Raises
    ------
    ServiceError
        When the action is not supported, or refuses the request.
    """
    function = ACTIONS.get(service, {}).get(action)
    if function is None:
        raise ServiceError(
            "UnknownOperationException",
            f"The local SageMaker endpoint does not support {service}:{action}.",
        )
    operation = service_model(service).operation_model(action)
    output = function(context, check_request(operation, content))
    shape = operation.output_shape
    response: dict[str, Any] = project(shape, output) if shape else {}
    return response
