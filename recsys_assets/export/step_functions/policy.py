"""What the role of a state machine may do, read off the machine itself.

What belongs here: the IAM policy for what the machine's states call. What does not: the policies of
the platform and of its jobs (``recsys_assets.iam``).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from recsys_assets.export.step_functions.expressions import State
from recsys_assets.export.step_functions.options import StepFunctionsOptions

_SAGEMAKER = re.compile(
    r":sagemaker:(?P<verb>create|update|describe)(?P<noun>\w+?)(?P<sync>\.sync)?$"
)

_TYPES = {
    "Endpoint": "endpoint",
    "EndpointConfig": "endpoint-config",
    "HyperParameterTuningJob": "hyper-parameter-tuning-job",
    "Model": "model",
    "ProcessingJob": "processing-job",
    "TrainingJob": "training-job",
    "TransformJob": "transform-job",
}
# Step Functions hears of the end of a job through a rule of its own in the account.
_RULES = {
    "HyperParameterTuningJob": "StepFunctionsGetEventsForSageMakerTuningJobsRule",
    "ProcessingJob": "StepFunctionsGetEventsForSageMakerProcessingJobsRule",
    "TrainingJob": "StepFunctionsGetEventsForSageMakerTrainingJobsRule",
    "TransformJob": "StepFunctionsGetEventsForSageMakerTransformJobsRule",
}


def all_states(machine: Mapping[str, Any]) -> Iterator[tuple[str, State]]:
    """Yield every state of a machine by its name, those within other states too."""
    for name, state in machine["States"].items():
        yield name, state
        for inner in (*state.get("Branches", ()), state.get("ItemProcessor", {"States": {}})):
            yield from all_states(inner)


def policy(machine: Mapping[str, Any], options: StepFunctionsOptions) -> dict[str, Any]:
    """Return the IAM policy that lets a machine do its work, and nothing else.

    Parameters
    ----------
    machine
        Its definition.
    options
        Bucket, region, account and role.
    """
    verbs: dict[str, set[str]] = {verb: set() for verb in ("create", "update", "describe", "sync")}
    for _, state in all_states(machine):
        if found := _SAGEMAKER.search(state.get("Resource", "")):
            verbs[found["verb"]].add(found["noun"])
            if found["sync"]:
                verbs["sync"].add(found["noun"])
    scope = f"{options.partition}:sagemaker:{options.region}:{options.account}"

    def allowed(sid: str, actions: Mapping[str, set[str]], **more: Any) -> State:
        nouns = set().union(*actions.values())
        if "Endpoint" in nouns:  # whoever changes an endpoint needs its configuration as well
            nouns.add("EndpointConfig")
        return {
            "Sid": sid,
            "Effect": "Allow",
            "Action": sorted(
                f"sagemaker:{verb}{noun}" for verb, found in actions.items() for noun in found
            ),
            "Resource": [f"arn:{scope}:{_TYPES[noun]}/*" for noun in sorted(nouns)],
            **more,
        }

    created = sorted(verbs["create"])
    statements = [
        allowed(
            "CreateWhatCarriesARunsTag",
            {"Create": verbs["create"]},
            Condition={"Null": {"aws:RequestTag/recsys:run-id": "false"}},
        ),
        {
            **allowed("TagWhatIsCreated", {"": verbs["create"]}),
            "Action": "sagemaker:AddTags",
            "Condition": {
                "StringEquals": {"sagemaker:TaggingAction": [f"Create{noun}" for noun in created]}
            },
        },
        allowed("FollowWhatIsCreated", {"Describe": verbs["describe"] | verbs["sync"]}),
    ]
    if verbs["sync"] or verbs["update"]:
        statements.append(
            allowed(
                "StopAndReplaceWhatIsOurs",
                {"Stop": verbs["sync"], "Update": verbs["update"]},
                Condition={"Null": {"aws:ResourceTag/recsys:run-id": "false"}},
            )
        )
    if verbs["sync"]:
        events = f"arn:{options.partition}:events:{options.region}:{options.account}:rule"
        statements += [
            {**allowed("ReadTagsOfJobs", {"": verbs["sync"]}), "Action": "sagemaker:ListTags"},
            {
                "Sid": "HearOfTheEndOfJobs",
                "Effect": "Allow",
                "Action": ["events:DescribeRule", "events:PutRule", "events:PutTargets"],
                "Resource": [f"{events}/{_RULES[noun]}" for noun in sorted(verbs["sync"])],
            },
        ]
    objects = f"arn:{options.partition}:s3:::{options.bucket}/{options.tasks_key}"
    statements += [
        {
            "Sid": "HandTheRoleToSageMakerAlone",
            "Effect": "Allow",
            "Action": "iam:PassRole",
            "Resource": options.role_arn,
            "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        },
        {
            "Sid": "ReadResults",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": f"{objects}/*",
        },
        {
            "Sid": "StoreParameters",
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": f"{objects}/*/params.json",
        },
    ]
    return {"Version": "2012-10-17", "Statement": statements}
