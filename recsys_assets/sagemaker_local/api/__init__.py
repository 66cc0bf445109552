"""The actions, as clients see them: what a request may ask for and what it is answered.

Each module holds the actions of one kind of resource, as functions from the shared context and a
request that has passed the service model to a response. ``ACTIONS`` names them all, by botocore's
name of the service; ``perform`` is the way to them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from recsys_assets.sagemaker_local.api import (
    endpoint_configs,
    endpoints,
    iam,
    logs,
    models,
    processing,
    runtime,
    sts,
    tags,
    training,
    transform,
    tuning,
)
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.validation import check_request
from recsys_assets.service_model import project, service_model, violations

Action = Callable[[Context, dict[str, Any]], dict[str, Any]]

ACTIONS: Mapping[str, Mapping[str, Action]] = {
    "sagemaker": {
        "AddTags": tags.add_tags,
        "CreateEndpoint": endpoints.create_endpoint,
        "CreateEndpointConfig": endpoint_configs.create_endpoint_config,
        "CreateHyperParameterTuningJob": tuning.create_hyper_parameter_tuning_job,
        "CreateModel": models.create_model,
        "CreateProcessingJob": processing.create_processing_job,
        "CreateTrainingJob": training.create_training_job,
        "CreateTransformJob": transform.create_transform_job,
        "DeleteEndpoint": endpoints.delete_endpoint,
        "DeleteEndpointConfig": endpoint_configs.delete_endpoint_config,
        "DeleteHyperParameterTuningJob": tuning.delete_hyper_parameter_tuning_job,
        "DeleteModel": models.delete_model,
        "DeleteTags": tags.delete_tags,
        "DescribeEndpoint": endpoints.describe_endpoint,
        "DescribeEndpointConfig": endpoint_configs.describe_endpoint_config,
        "DescribeHyperParameterTuningJob": tuning.describe_hyper_parameter_tuning_job,
        "DescribeModel": models.describe_model,
        "DescribeProcessingJob": processing.describe_processing_job,
        "DescribeTrainingJob": training.describe_training_job,
        "DescribeTransformJob": transform.describe_transform_job,
        "ListEndpointConfigs": endpoint_configs.list_endpoint_configs,
        "ListEndpoints": endpoints.list_endpoints,
        "ListHyperParameterTuningJobs": tuning.list_hyper_parameter_tuning_jobs,
        "ListModels": models.list_models,
        "ListProcessingJobs": processing.list_processing_jobs,
        "ListTags": tags.list_tags,
        "ListTrainingJobs": training.list_training_jobs,
        "ListTrainingJobsForHyperParameterTuningJob": (
            tuning.list_training_jobs_for_hyper_parameter_tuning_job
        ),
        "ListTransformJobs": transform.list_transform_jobs,
        "StopHyperParameterTuningJob": tuning.stop_hyper_parameter_tuning_job,
        "StopProcessingJob": processing.stop_processing_job,
        "StopTrainingJob": training.stop_training_job,
        "StopTransformJob": transform.stop_transform_job,
        "UpdateEndpoint": endpoints.update_endpoint,
        "UpdateEndpointWeightsAndCapacities": endpoints.update_endpoint_weights_and_capacities,
    },
    "sagemaker-runtime": {
        "InvokeEndpoint": runtime.invoke_endpoint,
    },
    "logs": {
        "DescribeLogGroups": logs.describe_log_groups,
        "DescribeLogStreams": logs.describe_log_streams,
        "FilterLogEvents": logs.filter_log_events,
        "GetLogEvents": logs.get_log_events,
    },
    "iam": {
        "GetRole": iam.get_role,
        "SimulatePrincipalPolicy": iam.simulate_principal_policy,
    },
    "sts": {
        "GetCallerIdentity": sts.get_caller_identity,
    },
}


class InvalidAnswer(Exception):  # noqa: N818 - says what is the matter
    """An action's answer that does not fit the service model: a defect of the action."""


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
    InvalidAnswer
        When the response would not be one that the service gives.
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
    wrong = list(violations(shape, response)) if shape else []
    if wrong:
        raise InvalidAnswer(f"{service}:{action}: {'; '.join(wrong)}")
    return response
