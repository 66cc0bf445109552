"""The policy of the machine's role allows what the machine calls, and nothing else."""

import json
from dataclasses import replace
from typing import Any

import parliament
import pytest

from recsys_assets.export.step_functions import StepFunctionsOptions, export_step_functions
from recsys_assets_tests.export.step_functions.graphs import GRAPH, OPTIONS, TASKS, graph_of
from recsys_assets_tests.export.step_functions.test_machine import exported, states
from recsys_assets_tests.iam import evaluation
from recsys_assets_tests.iam.evaluation import Permission, allowed_by, as_list, permissions_for
from recsys_assets_tests.proxy import Call
from recsys_assets_tests.sagemaker_local.endpoint import BUCKET, ROLE

POLLING = replace(OPTIONS, polling=True)
RUN = {"Key": "recsys:run-id", "Value": "some run"}
# What Step Functions itself does to follow a job, as AWS documents it.
BY_STEP_FUNCTIONS = {"sagemaker:ListTags", "events:DescribeRule", "events:PutRule"} | {
    "events:PutTargets"
}


def policy(options: StepFunctionsOptions) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        export_step_functions(GRAPH, options)["ratings.policy.json"]
    )
    return document


@pytest.fixture(autouse=True)
def _processing_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(evaluation._RESOURCE_TYPES, "ProcessingJobName", "processing-job")


def needed(options: StepFunctionsOptions) -> set[Permission]:
    """Return what the calls of the machine's states need."""
    found: set[Permission] = set()
    for _, state in states(exported(options=options)):
        *_, service, action = state.get("Resource", ":").split(":")
        if service == "sagemaker":
            action, _, sync = action.partition(".")
            noun = action.removeprefix("create").removeprefix("update").removeprefix("describe")
            verbs = ["Create", "Describe", "Stop"] if sync else [action.removesuffix(noun).title()]
            for verb in verbs:
                content: dict[str, Any] = {f"{noun}Name": "any"}
                if verb == "Create":
                    content |= {"Tags": [RUN], "RoleArn": ROLE if "Endpoint" not in noun else ""}
                call = Call("sagemaker", f"{verb}{noun}", "POST", "/", content)
                found |= {*permissions_for(call, ROLE)}
        elif service == "s3":
            key = "params.json" if action == "putObject" else "result.json"
            path = f"/{BUCKET}/step-functions/tasks/any/{key}"
            verb = action[0].upper() + action[1:]
            found |= {*permissions_for(Call("s3", verb, "GET", path), ROLE)}
    return found


@pytest.mark.parametrize("options", [OPTIONS, POLLING], ids=["sync", "polling"])
def test_a_policy_allows_every_call_and_no_other(options: StepFunctionsOptions) -> None:
    statements = policy(options)["Statement"]
    calls = needed(options)
    assert {
        call for call in calls if not any(allowed_by(item, call) for item in statements)
    } == set()
    allowed = {action for item in statements for action in as_list(item["Action"])}
    own = BY_STEP_FUNCTIONS if options is OPTIONS else set()
    assert allowed == {call.action for call in calls} | own


@pytest.mark.parametrize("options", [OPTIONS, POLLING], ids=["sync", "polling"])
def test_a_linter_finds_nothing(options: StepFunctionsOptions) -> None:
    text = json.dumps(policy(options))
    assert parliament.analyze_policy_string(text).findings == []


def test_nothing_of_others_can_be_touched() -> None:
    statements = policy(OPTIONS)["Statement"]
    arn = "arn:aws:sagemaker:us-east-1:123456789012"
    for foreign in (
        Permission("sagemaker:StopTrainingJob", f"{arn}:training-job/others"),
        Permission("sagemaker:UpdateEndpoint", f"{arn}:endpoint/others"),
        Permission("sagemaker:CreateTrainingJob", f"{arn}:training-job/untagged"),
        Permission("s3:PutObject", f"arn:aws:s3:::{BUCKET}/step-functions/tasks/run/result.json"),
        Permission("iam:PassRole", ROLE, (("iam:PassedToService", "ec2.amazonaws.com"),)),
    ):
        assert not any(allowed_by(statement, foreign) for statement in statements)


def test_the_rules_of_step_functions_are_those_of_the_kinds_that_it_follows() -> None:
    files = export_step_functions(graph_of(TASKS[0]), OPTIONS)
    (rules,) = (
        item["Resource"]
        for item in json.loads(files["ratings.policy.json"])["Statement"]
        if item["Sid"] == "HearOfTheEndOfJobs"
    )
    rule = "StepFunctionsGetEventsForSageMakerProcessingJobsRule"
    assert rules == [f"arn:aws:events:us-east-1:123456789012:rule/{rule}"]
