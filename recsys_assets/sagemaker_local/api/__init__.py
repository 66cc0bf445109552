"""The actions, as clients see them: what a request may ask for and what it is answered.

Each module holds the actions of one kind of resource, as functions from the shared context and a
request that has passed the service model to a response; members that the model's response lacks
are dropped afterwards. ``ACTIONS`` names them all, by botocore's name of the service.
"""

from collections.abc import Callable, Mapping
from typing import Any

from recsys_assets.sagemaker_local.api import logs, models, sts, tags, training, transform, tuning
from recsys_assets.sagemaker_local.context import Context

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
