"""The IAM policies that ship allow what the platform and its jobs call, and nothing else."""

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import parliament
import pytest

from recsys_assets.iam import POLICIES, policy
from recsys_assets.settings import LOCAL_ROLE_ARN, Settings, SettingsError
from recsys_assets_tests.conftest import PROJECT
from recsys_assets_tests.iam.evaluation import (
    LANDING_ACTIONS,
    SPARK_ACTIONS,
    Permission,
    allowed_by,
    as_list,
    needs_no_permission,
    permissions_for,
)
from recsys_assets_tests.main_job.command import recsys_assets, shell_environment
from recsys_assets_tests.proxy import Call, Proxy
from recsys_assets_tests.sagemaker_local.endpoint import BUCKET, CREDENTIALS, Endpoint, free_port

PREFIX = "policies/of"
SETTINGS = Settings.from_environment(
    {"RECSYS_BUCKET": BUCKET, "RECSYS_PREFIX": PREFIX, "RECSYS_ROLE_ARN": LOCAL_ROLE_ARN}
)

# What a policy allows and the calls recorded here do not show, and when it is called.
ONLY_SOMETIMES = {
    "sagemaker:StopHyperParameterTuningJob": "a cancelled run",
    "sagemaker:StopProcessingJob": "a run of another orchestrator that is cleaned up",
    "sagemaker:StopTrainingJob": "a cancelled run",
    "sagemaker:StopTransformJob": "a cancelled run",
    "servicequotas:ListServiceQuotas": "doctor, on AWS",
    **dict.fromkeys(SPARK_ACTIONS, "ratings that are filtered on Spark, which spark/ has"),
    "s3:AbortMultipartUpload": "an upload of a large file that is given up",
    "s3:DeleteObject": "retention",
    **dict.fromkeys(LANDING_ACTIONS, "a look at the landing, which test_landing_policy.py has"),
}
# What SageMaker itself does for a job, beside what the local endpoint does in its place.
BY_SAGEMAKER_ITSELF = {
    "logs:CreateLogGroup",
    "logs:CreateLogStream",
    "logs:DescribeLogStreams",
    "logs:PutLogEvents",
    "cloudwatch:PutMetricData",
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:GetAuthorizationToken",
    "ecr:GetDownloadUrlForLayer",
}


@pytest.mark.parametrize("name", ["platform", "sagemaker_role", "spark_role"])
def test_an_independent_linter_finds_nothing_in_a_policy(name: str) -> None:
    text = json.dumps(policy(name, SETTINGS))
    assert parliament.analyze_policy_string(text).findings == []
    misspelt = text.replace("s3:GetObject", "s3:GetObjekt")
    assert parliament.analyze_policy_string(misspelt).findings != []


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_filled_in_with_the_names_of_the_deployment(name: str) -> None:
    text = json.dumps(policy(name, SETTINGS))
    assert "$" not in text
    assert "123456789012" in text
    china = Settings.from_environment(
        {
            "RECSYS_BUCKET": "b",
            "RECSYS_REGION": "cn-north-1",
            "RECSYS_ROLE_ARN": "arn:aws-cn:iam::1:role/r",
        }
    )
    assert "arn:aws:" not in json.dumps(policy(name, china))


@pytest.mark.parametrize("role", ["", "recsys-role", "arn:aws:s3:::bucket"])
def test_a_role_that_is_no_arn_is_told(role: str) -> None:
    settings = Settings.from_environment(
        {"RECSYS_ENV": "aws", "RECSYS_BUCKET": "b", "RECSYS_ROLE_ARN": role}
    )
    with pytest.raises(SettingsError, match="RECSYS_ROLE_ARN: expected arn:aws:iam::"):
        policy("platform", settings)


@pytest.fixture(scope="module")
def recorded(
    object_store: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, list[Call]]]:
    """Record what the platform calls, and what the endpoint calls in the role's place."""
    folder = tmp_path_factory.mktemp("policies")
    with contextlib.ExitStack() as stack:
        of_jobs = stack.enter_context(Proxy(object_store))
        role = f"--role={LOCAL_ROLE_ARN.rpartition('/')[2]}"
        endpoint = Endpoint(folder / "endpoint", of_jobs.url, free_port(), role)
        (folder / "endpoint").mkdir()
        stack.enter_context(contextlib.closing(endpoint)).start()
        of_platform = stack.enter_context(Proxy(endpoint.url, s3=object_store))
        variables = {
            **CREDENTIALS,
            **of_platform.environment(),
            "RECSYS_ENV": "aws",
            "RECSYS_BUCKET": BUCKET,
            "RECSYS_PREFIX": PREFIX,
            "RECSYS_ROLE_ARN": LOCAL_ROLE_ARN,
            "RECSYS_SAGEMAKER_CONFIG": str(folder / "sagemaker.yaml"),
        }
        (folder / "sagemaker.yaml").write_text("poll_seconds: 0.2")
        state = folder / "state"
        for mode in ("train", "tune"):
            config = folder / f"{mode}.yaml"
            config.write_text(json.dumps(run_config(mode)))
            recsys(variables, "run", "--state", str(state), "--config", str(config))
            # The endpoint is created for the first model and updated to the second.
            lenient = "ops: {registered_model_good_enough: {config: {margin: 5}}}"
            execute(variables, state, "serving", lenient)
        execute(variables, state, "stop_serving")
        recsys(variables, "doctor", "--state", str(state))
        recsys(variables, "task", "clean-up", "--run", str(uuid.uuid4()))
        yield {"platform": of_platform.calls, "sagemaker_role": of_jobs.calls}


def recsys(variables: dict[str, str], *arguments: str) -> None:
    done = recsys_assets(*arguments, **variables)
    assert done.returncode == 0, done.stdout + done.stderr


def execute(variables: dict[str, str], state: Path, job: str, config: str = "{}") -> None:
    """Execute a job of the platform as a person types it."""
    path = state / "config.yaml"
    path.write_text(config)
    places = {
        "DAGSTER_HOME": str(PROJECT),
        "RECSYS_STATE": str(state),
        "RECSYS_DAGSTER_STORAGE": str(state / "dagster"),
        "RECSYS_DAGSTER_LOGS": str(state / "dagster" / "logs"),
    }
    named = ["-m", "recsys_assets.definitions", "-j", job, "-c", str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "job", "execute", *named],
        env=shell_environment(**variables, **places),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def run_config(mode: str) -> dict[str, object]:
    small = {"mode": mode, "tuning": {"max_jobs": 2}, "hyperparameters": {"epochs": 2}}
    return {
        "ops": {
            "raw_ratings": {"config": {"generated_rows": 8000}},
            "model_training": {"config": small},
        }
    }


def unused(document: dict[str, object], permissions: list[Permission]) -> set[str]:
    """Return the actions that a policy allows and nothing has needed."""
    statements = document["Statement"]
    assert isinstance(statements, list)
    return {
        action
        for statement in statements
        for action in as_list(statement["Action"])
        if not any(
            permission.action == action and allowed_by(statement, permission)
            for permission in permissions
        )
    }


@pytest.mark.parametrize("name", ["platform", "sagemaker_role"])
def test_a_policy_allows_every_call_that_is_made(
    name: str, recorded: dict[str, list[Call]]
) -> None:
    statements = policy(name, SETTINGS)["Statement"]
    needed = {
        permission
        for call in recorded[name]
        for permission in permissions_for(call, LOCAL_ROLE_ARN)
        if not needs_no_permission(permission)
    }
    assert needed
    refused = {
        permission
        for permission in needed
        if not any(allowed_by(statement, permission) for statement in statements)
    }
    assert refused == set()


def test_the_platforms_policy_allows_nothing_that_it_does_not_call(
    recorded: dict[str, list[Call]],
) -> None:
    permissions = [
        permission
        for call in recorded["platform"]
        for permission in permissions_for(call, LOCAL_ROLE_ARN)
    ]
    found = unused(policy("platform", SETTINGS), permissions)
    assert found - ONLY_SOMETIMES.keys() == set()


def test_the_jobs_policy_allows_nothing_that_jobs_do_not_do(
    recorded: dict[str, list[Call]],
) -> None:
    permissions = [
        permission
        for call in recorded["sagemaker_role"]
        for permission in permissions_for(call, LOCAL_ROLE_ARN)
    ]
    found = unused(policy("sagemaker_role", SETTINGS), permissions)
    assert found - ONLY_SOMETIMES.keys() == BY_SAGEMAKER_ITSELF


def test_an_endpoint_that_carries_no_runs_tag_can_be_neither_made_nor_replaced() -> None:
    statements = policy("platform", SETTINGS)["Statement"]
    endpoint = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/somebody-elses"
    for action in ("CreateEndpoint", "UpdateEndpoint", "DeleteEndpoint"):
        foreign = Permission(f"sagemaker:{action}", endpoint)
        assert not any(allowed_by(statement, foreign) for statement in statements)
    late_tag = (("aws:RequestTag/recsys:run-id", "x"),)
    tagging = Permission("sagemaker:AddTags", endpoint, late_tag)
    assert not any(allowed_by(statement, tagging) for statement in statements)
