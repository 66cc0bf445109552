"""What EMR Serverless and Glue are asked for, and what comes of their answers."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dagster import (
    DagsterExecutionInterruptedError,
    ExecuteInProcessResult,
)
from dagster_pipes import decode_param

from recsys_assets.domain.ratings.transformation import FilterRules
from recsys_assets.failures import failed_steps
from recsys_assets.iam import policy
from recsys_assets.settings import Settings
from recsys_assets_tests.iam.evaluation import (
    ACCOUNT,
    REGION,
    SPARK_ACTIONS,
    Permission,
    allowed_by,
)
from recsys_assets_tests.spark.cloud import (
    Cloud,
    Deployment,
    Parameters,
    filter_in_two_parts,
    pipes,
)

Deploy = Callable[[str], Deployment]

ROLE = "arn:aws:iam::123456789012:role/recsys-spark"
EMR = f"""
emr_serverless:
  application_id: 00f1a2b3
  execution_role_arn: {ROLE}
  conf: {{spark.executor.memory: 8g, spark.executor.cores: '4'}}
  timeout_minutes: 90
"""
GLUE = """
glue:
  job_name: recsys-filtered-ratings
  worker_type: G.1X
  workers: 4
  conf: {spark.sql.shuffle.partitions: '64', spark.sql.adaptive.enabled: 'true'}
  timeout_minutes: 90
"""
PLACE = f"{REGION}:{ACCOUNT}"
ARN = f"arn:aws:emr-serverless:{PLACE}:/applications/00f1a2b3"
STARTED = {"applicationId": "00f1a2b3", "jobRunId": "00job", "arn": f"{ARN}/jobruns/00job"}
DASHBOARD = {"url": "https://p-00job.emrappui-prod.eu-west-1.amazonaws.com/shs"}
CANCELLED = ("cancel_job_run", {"applicationId": "00f1a2b3", "jobRunId": "00job"})
STOPPED = ("batch_stop_job_run", {"SuccessfulSubmissions": [], "Errors": []})
APPLICATION = {
    "applicationId": "00f1a2b3",
    "arn": ARN,
    "releaseLabel": "emr-7.5.0",
    "type": "Spark",
    "state": "STARTED",
    "createdAt": 0,
    "updatedAt": 0,
}


def emr_state(state: str, details: str = "nothing to tell") -> tuple[str, dict[str, Any]]:
    run = {
        "applicationId": "00f1a2b3",
        "jobRunId": "00job",
        "arn": f"{ARN}/jobruns/00job",
        "createdBy": "arn:aws:iam::123456789012:role/platform",
        "createdAt": 0,
        "updatedAt": 0,
        "executionRole": ROLE,
        "state": state,
        "stateDetails": details,
        "releaseLabel": "emr-7.5.0",
        "jobDriver": {"sparkSubmit": {"entryPoint": "s3://b/x.py"}},
    }
    return "get_job_run", {"jobRun": run}


def glue_state(state: str, reason: str | None = None) -> tuple[str, dict[str, Any]]:
    run = {"Id": "jr_1", "JobName": "recsys-filtered-ratings", "JobRunState": state}
    return "get_job_run", {"JobRun": run | ({"ErrorMessage": reason} if reason else {})}


def emr_parameters(request: Parameters) -> dict[str, str]:
    """Return the environment of the driver, as a request sets it."""
    options = request["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"]
    return dict(re.findall(r"--conf spark\.emr-serverless\.driverEnv\.(\w+)=(\S+)", options))


def glue_parameters(request: Parameters) -> dict[str, str]:
    """Return Pipes' arguments of the script, as the names of variables."""
    return {
        name.lstrip("-").upper().replace("-", "_"): value
        for name, value in request["Arguments"].items()
    }


def reason(result: ExecuteInProcessResult) -> str:
    assert not result.success
    return failed_steps(result.all_events)["filtered_ratings"]


def failure_metadata(result: ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = (event for event in result.all_events if event.is_step_failure)
    data = event.step_failure_data.user_failure_data
    return {name: value.value for name, value in data.metadata.items()}


def test_emr_serverless_is_asked_for_a_job_and_its_result_is_taken_in(
    deployment: Deploy,
) -> None:
    world = deployment(EMR)
    cloud = Cloud(
        [
            ("start_job_run", STARTED),
            emr_state("SUBMITTED"),
            emr_state("SCHEDULED"),
            emr_state("RUNNING"),
            ("get_dashboard_for_job_run", DASHBOARD),
            emr_state("SUCCESS"),
            ("get_application", {"application": APPLICATION}),
        ],
        work=lambda request: filter_in_two_parts(
            pipes(emr_parameters(request), world.store.client), world.store.client
        ),
    )
    result = world.run(cloud)
    assert result.success
    assert len(cloud.requests) == len(cloud.answers)
    (_, request), *_ = cloud.requests
    code = world.store.uri("spark")
    submitted = request["jobDriver"]["sparkSubmit"]
    modules = submitted["sparkSubmitParameters"].split()[1]
    assert re.fullmatch(rf"{code}/[0-9a-f]{{32}}/filter_ratings\.py", submitted["entryPoint"])
    assert re.fullmatch(rf"{code}/[0-9a-f]{{32}}/modules\.zip", modules)
    assert submitted["sparkSubmitParameters"].startswith(
        f"--py-files {modules} --conf spark.executor.memory=8g --conf spark.executor.cores=4 "
        "--conf spark.emr-serverless.driverEnv.DAGSTER_PIPES_CONTEXT="
    )
    assert request["applicationId"] == "00f1a2b3"
    assert request["executionRoleArn"] == ROLE
    assert request["name"] == f"filtered_ratings-{result.run_id}"
    assert request["executionTimeoutMinutes"] == 90
    assert request["tags"]["recsys:run-id"] == result.run_id
    assert request["tags"]["recsys:asset"] == "filtered_ratings"
    (event,) = result.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    assert metadata["AWS EMR Serverless Job Run ID"].value == "00job"
    assert metadata["dagster/row_count"].value == len(world.rows())
    assert world.rows() == world.rows_without_spark()


def test_glue_is_asked_for_a_run_with_our_script(deployment: Deploy) -> None:
    world = deployment(GLUE)
    cloud = Cloud(
        [
            ("start_job_run", {"JobRunId": "jr_1"}),
            *map(glue_state, ("STARTING", "WAITING", "RUNNING", "SUCCEEDED")),
        ],
        work=lambda request: filter_in_two_parts(
            pipes(glue_parameters(request), world.store.client), world.store.client
        ),
    )
    result = world.run(cloud)
    assert result.success
    assert len(cloud.requests) == len(cloud.answers)
    (_, request), *_ = cloud.requests
    code = world.store.uri("spark")
    arguments = request["Arguments"]
    assert re.fullmatch(rf"{code}/[0-9a-f]{{32}}/filter_ratings\.py", arguments["--scriptLocation"])
    assert re.fullmatch(rf"{code}/[0-9a-f]{{32}}/modules\.zip", arguments["--extra-py-files"])
    assert (
        arguments["--conf"]
        == "spark.sql.shuffle.partitions=64 --conf spark.sql.adaptive.enabled=true"
    )
    assert request["JobName"] == "recsys-filtered-ratings"
    assert (request["WorkerType"], request["NumberOfWorkers"]) == ("G.1X", 4)
    assert request["Timeout"] == 90
    assert world.rows() == world.rows_without_spark()


def test_the_size_of_a_glue_job_is_its_own_unless_it_is_set(deployment: Deploy) -> None:
    world = deployment("glue: {job_name: recsys-filtered-ratings}")
    cloud = Cloud([("start_job_run", "AccessDeniedException")])
    assert "AccessDeniedException" in reason(world.run(cloud))
    ((_, request),) = cloud.requests
    assert request.keys() == {"JobName", "Arguments", "Timeout"}
    assert "--conf" not in request["Arguments"]


def test_the_job_reads_ratings_where_they_lie_and_leaves_nothing_but_the_result(
    deployment: Deploy,
) -> None:
    world = deployment(EMR)
    seen = {}

    def work(request: Parameters) -> None:
        parameters = emr_parameters(request)
        seen["messages"] = decode_param(parameters["DAGSTER_PIPES_MESSAGES"])
        seen["context"] = decode_param(parameters["DAGSTER_PIPES_CONTEXT"])
        session = pipes(parameters, world.store.client)
        seen.update(session.extras)
        filter_in_two_parts(session, world.store.client)

    answers = [
        ("start_job_run", STARTED),
        emr_state("SUCCESS"),
        ("get_application", {"application": APPLICATION}),
    ]
    result = world.run(Cloud(answers, work), min_ratings_per_customer=2, k_core=False)
    raw = world.store.require("raw_ratings")
    assert seen["ratings"] == [f"{raw.uri}ratings/source.parquet"]
    assert seen["scratch"] == world.store.uri("filtered_ratings", result.run_id, "spark", "0")
    scratch = seen["scratch"].removeprefix(f"s3://{world.store.bucket}/")
    assert seen["messages"]["key_prefix"].startswith(f"{scratch}/")
    assert seen["context"]["key"].startswith(f"{scratch}/")
    assert FilterRules(**seen["rules"]) == FilterRules(min_ratings_per_customer=2)
    assert world.objects("filtered_ratings") == ["", "data/data.parquet", "manifest.json"]
    assert len(list(world.store.objects("spark"))) == 2


def test_nothing_left_is_the_same_failure_as_without_spark(deployment: Deploy) -> None:
    world = deployment(GLUE)
    cloud = Cloud(
        [("start_job_run", {"JobRunId": "jr_1"}), glue_state("RUNNING"), glue_state("SUCCEEDED")],
        work=lambda request: filter_in_two_parts(
            pipes(glue_parameters(request), world.store.client), world.store.client
        ),
    )
    told = reason(world.run(cloud, min_ratings_per_video=100_000))
    assert re.fullmatch(
        r"none of \d+ ratings is from a customer with at least 5 and of a video with at least "
        r"100000 ratings",
        told,
    )


def test_a_failed_job_of_emr_serverless_is_told_with_its_reason_and_a_link(
    deployment: Deploy,
) -> None:
    world = deployment(EMR)
    cloud = Cloud(
        [
            ("start_job_run", STARTED),
            emr_state("RUNNING"),
            ("get_dashboard_for_job_run", DASHBOARD),
            emr_state("FAILED", "Job failed, please check complete logs"),
            ("get_dashboard_for_job_run", DASHBOARD),
            emr_state("FAILED", "Job failed, please check complete logs"),
            ("get_dashboard_for_job_run", DASHBOARD),
        ]
    )
    result = world.run(cloud)
    assert reason(result) == (
        "job run 00job of EMR Serverless application 00f1a2b3 is FAILED: "
        "Job failed, please check complete logs"
    )
    assert failure_metadata(result) == {"job_run": "00job", "dashboard": DASHBOARD["url"]}
    assert "CancelJobRun" not in cloud.operations
    assert world.objects("filtered_ratings") == []


@pytest.mark.parametrize("state", ["FAILED", "TIMEOUT", "STOPPED", "ERROR"])
def test_a_failed_run_of_glue_is_told_with_its_reason_and_a_link(
    deployment: Deploy, state: str
) -> None:
    world = deployment(GLUE)
    why = "AnalysisException: Path does not exist"
    cloud = Cloud(
        [
            ("start_job_run", {"JobRunId": "jr_1"}),
            glue_state("RUNNING"),
            glue_state(state, why),
            glue_state(state, why),
        ]
    )
    result = world.run(cloud)
    assert reason(result) == f"run jr_1 of Glue job recsys-filtered-ratings is {state}: {why}"
    assert failure_metadata(result) == {
        "job_run": "jr_1",
        "job": "https://eu-west-1.console.aws.amazon.com/gluestudio/home?region=eu-west-1"
        "#/job/recsys-filtered-ratings/run/jr_1",
    }


def test_a_job_that_ends_without_a_word_is_a_failure(deployment: Deploy) -> None:
    world = deployment(GLUE)
    started = ("start_job_run", {"JobRunId": "jr_1"})
    cloud = Cloud([started, glue_state("RUNNING"), glue_state("SUCCEEDED")])
    assert reason(world.run(cloud)) == "the Spark job has ended without telling what it did"


def test_files_that_a_job_has_lost_are_noticed(deployment: Deploy) -> None:
    world = deployment(GLUE)

    def work(request: Parameters) -> None:
        session = pipes(glue_parameters(request), world.store.client)
        filter_in_two_parts(session, world.store.client)
        scratch = session.extras["scratch"]
        (last,) = (u for u in world.store.list(f"{scratch}/filtered/") if "part-00001" in u)
        world.store.client.delete_object(
            Bucket=world.store.bucket, Key=last.removeprefix(f"s3://{world.store.bucket}/")
        )

    started = ("start_job_run", {"JobRunId": "jr_1"})
    cloud = Cloud([started, glue_state("RUNNING"), glue_state("SUCCEEDED")], work)
    told = reason(world.run(cloud))
    assert re.fullmatch(
        r"expected \d+ rows, as the Spark job has reported, found \d+ in 1 files", told
    )


def interrupt(*_: Any) -> None:
    raise DagsterExecutionInterruptedError


@pytest.mark.parametrize("state", ["RUNNING", "SUBMITTED"])
def test_a_cancelled_run_cancels_its_job_of_emr_serverless(deployment: Deploy, state: str) -> None:
    world = deployment(EMR)
    dashboard = [("get_dashboard_for_job_run", DASHBOARD)] if state == "RUNNING" else []
    cloud = Cloud(
        [
            ("start_job_run", STARTED),
            emr_state(state),
            *dashboard,
            CANCELLED,
        ]
    )
    assert not world.run(cloud, sleep=interrupt).success
    assert cloud.requests[-1] == (
        "CancelJobRun",
        {"applicationId": "00f1a2b3", "jobRunId": "00job"},
    )
    assert world.objects("filtered_ratings") == []


def test_a_cancelled_run_stops_its_run_of_glue(deployment: Deploy) -> None:
    world = deployment(GLUE)
    cloud = Cloud(
        [
            ("start_job_run", {"JobRunId": "jr_1"}),
            glue_state("RUNNING"),
            glue_state("RUNNING"),
            STOPPED,
        ]
    )
    assert not world.run(cloud, sleep=interrupt).success
    assert cloud.requests[-1] == (
        "BatchStopJobRun",
        {"JobName": "recsys-filtered-ratings", "JobRunIds": ["jr_1"]},
    )


def test_a_run_that_is_cancelled_as_its_job_starts_cancels_it(deployment: Deploy) -> None:
    world = deployment(EMR)
    cloud = Cloud(
        [
            ("start_job_run", STARTED),
            CANCELLED,
        ],
        work=lambda request: os.kill(os.getpid(), signal.SIGINT),
    )
    assert not world.run(cloud).success
    assert cloud.operations == ["StartJobRun", "CancelJobRun"]


@pytest.mark.parametrize("look", [emr_state("RUNNING"), ("get_job_run", "AccessDeniedException")])
def test_a_job_that_cannot_be_followed_any_longer_is_cancelled(
    deployment: Deploy, look: tuple[str, Any]
) -> None:
    world = deployment(EMR)
    cloud = Cloud(
        [
            ("start_job_run", STARTED),
            ("get_job_run", "ValidationException"),
            look,
            CANCELLED,
        ]
    )
    assert "ValidationException" in reason(world.run(cloud))
    assert cloud.operations[-1] == "CancelJobRun"


def permissions_for(operation: str, asked: Parameters) -> Iterator[Permission]:
    """Yield what IAM looks at when a request comes in."""
    if "JobName" in asked:
        yield Permission(f"glue:{operation}", f"arn:aws:glue:{PLACE}:job/{asked['JobName']}")
        return
    action = f"emr-serverless:{operation}"
    application = f"arn:aws:emr-serverless:{PLACE}:/applications/{asked['applicationId']}"
    if operation == "StartJobRun":
        tags = tuple((f"aws:RequestTag/{key}", value) for key, value in asked["tags"].items())
        yield Permission(action, application, tags)
        yield Permission("emr-serverless:TagResource", f"{application}/jobruns/00job", tags)
        service = ("iam:PassedToService", "emr-serverless.amazonaws.com")
        yield Permission("iam:PassRole", asked["executionRoleArn"], (service,))
    elif "jobRunId" in asked:
        ours = (("aws:ResourceTag/recsys:run-id", "some run"),)
        yield Permission(action, f"{application}/jobruns/{asked['jobRunId']}", ours)
    else:
        yield Permission(action, application)


def test_the_platforms_policy_allows_what_is_asked_for_and_no_more(deployment: Deploy) -> None:
    dashboard = ("get_dashboard_for_job_run", DASHBOARD)
    application = ("get_application", {"application": APPLICATION})
    on_emr = deployment(EMR)
    clouds = [
        Cloud([("start_job_run", STARTED), emr_state("SUCCESS"), application]),
        Cloud([("start_job_run", STARTED), emr_state("RUNNING"), dashboard, CANCELLED]),
    ]
    for cloud in clouds:
        on_emr.run(cloud, sleep=interrupt)
    running = [glue_state("RUNNING"), glue_state("RUNNING")]
    clouds.append(Cloud([("start_job_run", {"JobRunId": "jr_1"}), *running, STOPPED]))
    deployment(GLUE).run(clouds[-1], sleep=interrupt)
    needed = {
        permission
        for cloud in clouds
        for operation, asked in cloud.requests
        for permission in permissions_for(operation, asked)
    }
    statements = policy("platform", Settings.from_environment({}))["Statement"]
    assert all(any(allowed_by(it, permission) for it in statements) for permission in needed)
    assert {permission.action for permission in needed} == SPARK_ACTIONS
    others = Permission("emr-serverless:CancelJobRun", f"{ARN}/jobruns/00others")
    assert not any(allowed_by(statement, others) for statement in statements)
