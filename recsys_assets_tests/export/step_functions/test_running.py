"""The machine that polls, interpreted, with jobs that are run."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from recsys_assets.resources.sagemaker.leftovers import clean_up_after
from recsys_assets_tests.export.step_functions.conftest import Machine
from recsys_assets_tests.export.step_functions.interpreter import Execution
from recsys_assets_tests.proxy import Answer, Call, Forward, drop_after, refuse
from recsys_assets_tests.sagemaker_local.endpoint import BUCKET

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("step_functions")]


def run_of(execution: Execution) -> str:
    return str(json.loads(execution.output)["run"]["id"])


def seen(machine: Machine, run: str, program: str) -> dict[str, Any]:
    """Return what the project's program was given."""
    body = machine.s3.get_object(Bucket=BUCKET, Key=f"seen/{run}/{program}.json")["Body"]
    return dict(json.loads(body.read()))


def names(machine: Machine, action: str, since: int = 0) -> list[str]:
    """Return the names of what was created since a number of calls."""
    calls = [call for call in machine.proxy.calls[since:] if call.action == action]
    noun = action.removeprefix("Create")
    return [call.content[f"{noun}Name"] for call in calls]


def test_a_training_is_done_to_its_end_and_nothing_is_deployed(machine: Machine) -> None:
    before = len(machine.proxy.calls)
    execution = machine.execute("train", '{"x": 0.5}')
    assert execution.status == "SUCCEEDED", (execution.error, execution.cause)
    assert execution.passed("ratings", "how", "trained", "selected", "scores", "clean_up")
    assert not {"tuned", "serving_model", "serving"} & set(execution.states)
    run = run_of(execution)
    (job,) = names(machine, "CreateTrainingJob", before)
    assert job == f"trained-{run[:8]}-1"
    described = machine.endpoint.training_job(job)
    assert described["HyperParameters"] == {"x": "0.5", "rows": "2", "exit": "0"}
    assert {"Key": "recsys:run-id", "Value": run} in machine.endpoint.sagemaker.list_tags(
        ResourceArn=described["TrainingJobArn"]
    )["Tags"]
    scores = machine.s3.get_object(Bucket=BUCKET, Key=f"scores/{run}/part.csv.out")["Body"]
    assert scores.read() == b"1\n2\n"
    # The platform's own clean-up, in whose place a stand-in was run, knows what to delete.
    cleaned = clean_up_after(run, machine.endpoint.sagemaker, lambda line: None)
    assert cleaned == {"stopped": [], "deleted": [f"scores-transform-{run[:8]}-1"]}
    selected = seen(machine, run, "run-selected")
    assert selected["params"]["x"] == 0.5
    assert selected["params"]["jobs"] == 2  # a default that was not set anew
    created = ["--created", "trained", "sagemaker_training", job]
    created += ["--created", "tuned", "sagemaker_tuning", ""]
    result = ["--result-uri", f"s3://{BUCKET}/step-functions/tasks/{run}/selected.json"]
    expected = ["run", "selected", "--run", run, "--definitions", "some.definitions:defs"]
    assert selected["arguments"] == [*expected, *created, *result]


def test_a_tuning_is_deployed_and_the_next_model_takes_its_place(machine: Machine) -> None:
    served = []
    for name, given in (("tune", {"mode": "tune", "jobs": 3}), ("replace", {"mode": "train"})):
        execution = machine.execute(name, json.dumps({**given, "deploy": True}))
        assert execution.status == "SUCCEEDED", (execution.error, execution.cause)
        assert ("tuned" if name == "tune" else "trained") in execution.states
        assert ("trained" if name == "tune" else "tuned") not in execution.states
        assert execution.passed("serving_model", "serving_config", "serving_deployment", "serving")
        assert ("serving_deployment update" in execution.states) == (name == "replace")
        served.append(machine.endpoint.hosted("ratings")["EndpointConfigName"])
        assert served[-1] == f"serving-config-{run_of(execution)[:8]}-1"
    assert served[0] != served[1]
    (tuning,) = names(machine, "CreateHyperParameterTuningJob")
    assert len(tuning) <= 32
    assert len(machine.endpoint.children(tuning)) == 3


def test_a_failed_check_holds_up_what_follows_and_fails_the_execution(machine: Machine) -> None:
    execution = machine.execute("check", '{"checks_pass": false}')
    assert (execution.status, execution.error) == ("FAILED", "WorkFailed")
    error, _, result = execution.cause.partition(": ")
    assert error == "BlockingCheckFailed"
    assert json.loads(result) == {"passed": False, "checks": {}}
    assert execution.passed("ratings_checks passed", "clean_up")
    assert not {"train", "how", "trained"} & set(execution.states)


def test_a_job_that_fails_is_tried_again_under_another_name_and_then_cleaned_up(
    machine: Machine,
) -> None:
    before = len(machine.proxy.calls)
    execution = machine.execute("fail", '{"exit": 3}')
    assert (execution.status, execution.error) == ("FAILED", "WorkFailed")
    failed = names(machine, "CreateTrainingJob", before)
    assert [name[-2:] for name in failed] == ["-1", "-2"]
    assert failed[1] in execution.cause
    assert "exit code: 3" in execution.cause.lower()
    assert execution.passed("trained", "clean_up", "execution failed")
    assert "selected" not in execution.states


@pytest.mark.parametrize(
    ("given", "error", "cause"),
    [
        ({"lacks": "train"}, "ResultIncomplete", "The result of train lacks one of"),
        ({"fails": "report"}, "JobFailed", "report-"),
        ({"fails": "ratings"}, "JobFailed", "ratings-"),
    ],
)
def test_whatever_fails_the_clean_up_follows_and_the_first_error_is_told(
    machine: Machine, given: dict[str, str], error: str, cause: str
) -> None:
    (what,) = given.values()
    execution = machine.execute(f"{error}-{what}", json.dumps(given))
    assert (execution.status, execution.error) == ("FAILED", "WorkFailed")
    assert execution.cause.startswith(f"{error}: ")
    assert cause in execution.cause
    assert execution.passed(what, "clean_up", "execution failed")


def test_a_clean_up_that_fails_fails_nothing_else(machine: Machine) -> None:
    execution = machine.execute("dirty", '{"fails": "clean-up"}')
    assert execution.status == "SUCCEEDED", (execution.error, execution.cause)


@pytest.mark.parametrize("given", ['{"mode": "guess"}', '{"deploy": "yes"}'])
def test_a_wrong_parameter_ends_an_execution_before_it_does_anything(
    machine: Machine, given: str
) -> None:
    before = len(machine.proxy.calls)
    execution = machine.execute(re.sub(r"\W", "", given), given)
    assert (execution.status, execution.error) == ("FAILED", "WrongParameter")
    assert execution.cause == "Expected mode to be train or tune; deploy to be true or false."
    assert machine.proxy.calls[before:] == []


def throttle(call: Call, forward: Forward) -> Answer | None:
    """Refuse as AWS does, with the request's id."""
    answer = refuse(400, "ThrottlingException")(call, forward)
    assert answer is not None
    return replace(answer, headers=(*answer.headers, ("x-amzn-RequestId", "1")))


def test_throttling_and_lost_answers_neither_fail_nor_start_anything_twice(
    machine: Machine,
) -> None:
    before = len(machine.proxy.calls)
    machine.proxy.inject(throttle, "CreateTrainingJob", times=2)
    machine.proxy.inject(drop_after, "CreateTrainingJob")
    execution = machine.execute("throttled")
    assert execution.status == "SUCCEEDED", (execution.error, execution.cause)
    (one,) = {*names(machine, "CreateTrainingJob", before)}
    assert len(names(machine, "CreateTrainingJob", before)) >= 3
    assert machine.endpoint.training_job(one)["TrainingJobStatus"] == "Completed"
