import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from recsys_assets.sagemaker_local.api import common, perform
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.images import Images, Program
from recsys_assets.sagemaker_local.s3 import ObjectStore
from recsys_assets.sagemaker_local.store import Store
from recsys_assets_tests.sagemaker_local.endpoint import (
    BUCKET,
    ENDED,
    ROLE,
    STAND_IN,
    Endpoint,
    eventually,
)
from recsys_assets_tests.sagemaker_local.test_training import FM_IMAGE
from recsys_assets_tests.sagemaker_local.test_training_inputs import needs_private_mounts

FOLDER = "/opt/ml/processing"


def given(name: str, key: str, path: str = "", **changes: Any) -> dict[str, Any]:
    source = {
        "S3Uri": f"s3://{BUCKET}/{key}",
        "LocalPath": f"{FOLDER}/input{path}",
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
    }
    return {"InputName": name, "S3Input": {**source, **changes}}


def wanted(name: str, key: str, mode: str = "EndOfJob", path: str = "/output") -> dict[str, Any]:
    target = {
        "S3Uri": f"s3://{BUCKET}/{key}",
        "LocalPath": f"{FOLDER}{path}",
        "S3UploadMode": mode,
    }
    return {"OutputName": name, "S3Output": target}


def request(name: str, environment: Mapping[str, object] = {}, **changes: Any) -> dict[str, Any]:
    return {
        "ProcessingJobName": name,
        "AppSpecification": {"ImageUri": STAND_IN, "ContainerArguments": ["process"]},
        "Environment": {key: str(value) for key, value in environment.items()},
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": "ml.m5.large",
                "VolumeSizeInGB": 1,
            }
        },
        "ProcessingOutputConfig": {"Outputs": [wanted("out", f"processed/{name}")]},
        "RoleArn": ROLE,
        **changes,
    }


def process(
    endpoint: Endpoint, name: str, environment: Mapping[str, object] = {}, **changes: Any
) -> None:
    endpoint.sagemaker.create_processing_job(**request(name, environment, **changes))


def processing_job(endpoint: Endpoint, name: str) -> dict[str, Any]:
    job: dict[str, Any] = endpoint.sagemaker.describe_processing_job(ProcessingJobName=name)
    return job


def ended(endpoint: Endpoint, name: str) -> dict[str, Any]:
    eventually(lambda: processing_job(endpoint, name)["ProcessingJobStatus"] in ENDED)
    return processing_job(endpoint, name)


def test_a_job_takes_its_inputs_from_s3_and_leaves_its_outputs_there(endpoint: Endpoint) -> None:
    endpoint.put("process/in/a.txt", b"one")
    endpoint.put("process/in/deep/b.txt", b"two")
    endpoint.put(
        "process/manifest", json.dumps([{"prefix": f"s3://{BUCKET}/process/in/"}, "a.txt"]).encode()
    )
    process(
        endpoint,
        "process",
        {"MESSAGE": "two files"},
        AppSpecification={"ImageUri": STAND_IN, "ContainerArguments": ["process", "--x", "1"]},
        ProcessingInputs=[
            given("all", "process/in"),
            given("one", "process/manifest", "/listed", S3DataType="ManifestFile"),
        ],
        Tags=[{"Key": "team", "Value": "ratings"}],
    )
    job = ended(endpoint, "process")
    assert job["ProcessingJobStatus"] == "Completed", job["FailureReason"]
    assert job["ExitMessage"] == "two files"
    assert job["CreationTime"] <= job["ProcessingStartTime"] < job["ProcessingEndTime"]
    assert job["StoppingCondition"] == {"MaxRuntimeInSeconds": 86_400}
    assert endpoint.get("processed/process/a.txt") == b"ONE"
    assert endpoint.get("processed/process/deep/b.txt") == b"TWO"
    assert endpoint.get("processed/process/listed/a.txt") == b"ONE"

    found = json.loads(endpoint.get("processed/process/found.json"))
    assert found["arguments"] == ["--x", "1"]
    assert found["resourceconfig.json"] == {"current_host": "algo-1", "hosts": ["algo-1"]}
    config = found["processingjobconfig.json"]
    for member in ("ProcessingJobArn", "ProcessingInputs", "ProcessingOutputConfig", "Environment"):
        assert config[member] == job[member]
    assert "started" in endpoint.log_lines("Processing", "process")
    arn = "arn:aws:sagemaker:us-east-1:123456789012:processing-job/process"
    assert job["ProcessingJobArn"] == arn
    tags = endpoint.sagemaker.list_tags(ResourceArn=arn)["Tags"]
    assert tags == [{"Key": "team", "Value": "ratings"}]
    eventually(lambda: not list(endpoint.state.glob("jobs/*/process")))


def test_a_failed_job_leaves_only_what_was_to_be_left_all_along(endpoint: Endpoint) -> None:
    endpoint.put("failing/in/a.txt", b"one")
    process(
        endpoint,
        "failing",
        {"EXIT": 3, "MESSAGE": "no such column"},
        ProcessingInputs=[given("all", "failing/in")],
        ProcessingOutputConfig={
            "Outputs": [
                wanted("at-the-end", "failed/end"),
                wanted("all-along", "failed/along", "Continuous"),
            ]
        },
    )
    job = ended(endpoint, "failing")
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"] == (
        "AlgorithmError: See job logs for more information, exit code: 3"
    )
    assert job["ExitMessage"] == "no such column"
    assert endpoint.keys("failed/") == ["failed/along/a.txt", "failed/along/found.json"]


def test_a_continuous_output_is_there_while_the_job_runs(endpoint: Endpoint) -> None:
    endpoint.put("along/in/a.txt", b"one")
    process(
        endpoint,
        "along",
        {"SECONDS": 600},
        ProcessingInputs=[given("all", "along/in")],
        ProcessingOutputConfig={
            "Outputs": [
                wanted("at-the-end", "along/end", path="/output"),
                wanted("all-along", "along/out", "Continuous", path="/output"),
            ]
        },
    )
    eventually(lambda: "along/out/found.json" in endpoint.keys("along/out"))
    assert processing_job(endpoint, "along")["ProcessingJobStatus"] == "InProgress"
    assert not endpoint.keys("along/end")
    endpoint.sagemaker.stop_processing_job(ProcessingJobName="along")
    assert ended(endpoint, "along")["ProcessingJobStatus"] == "Stopped"
    assert endpoint.get("along/end/a.txt") == b"ONE"
    with pytest.raises(ClientError, match="processing job is in status Stopped"):
        endpoint.sagemaker.stop_processing_job(ProcessingJobName="along")


def test_a_job_that_exceeds_its_time_is_stopped(endpoint: Endpoint) -> None:
    process(endpoint, "overlong", {"SECONDS": 600}, StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert ended(endpoint, "overlong")["ProcessingJobStatus"] == "Stopped"
    assert endpoint.keys("processed/overlong") == ["processed/overlong/found.json"]


def test_an_exit_message_is_kept_up_to_its_limit(endpoint: Endpoint) -> None:
    process(endpoint, "message-long", {"MESSAGE": "x", "TIMES": 2000})
    process(endpoint, "message-cut", {"MESSAGE": "\u20ac", "TIMES": 400})  # three bytes each
    assert ended(endpoint, "message-long")["ExitMessage"] == "x" * 1024
    assert ended(endpoint, "message-cut")["ExitMessage"] == "\u20ac" * 341


def test_an_exit_message_that_is_not_utf_8_fails_the_job(endpoint: Endpoint) -> None:
    process(endpoint, "message-latin", {"MESSAGE": "caf\xe9", "ENCODING": "latin-1"})
    job = ended(endpoint, "message-latin")
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: The file /opt/ml/output/message is not")


@needs_private_mounts
def test_a_script_finds_its_inputs_where_sagemaker_has_them(endpoint: Endpoint) -> None:
    endpoint.put(
        "script/code.py",
        f"""
import pathlib, sys
folder = pathlib.Path("{FOLDER}")
text = (folder / "input" / "data" / "a.txt").read_text()
(folder / "train" / "out.txt").write_text(text + " ".join(sys.argv[1:]))
""".encode(),
    )
    endpoint.put("script/data/a.txt", b"data ")
    process(
        endpoint,
        "script",
        AppSpecification={
            "ImageUri": STAND_IN,
            "ContainerEntrypoint": ["python3", f"{FOLDER}/input/code/code.py"],
            "ContainerArguments": ["--rows", "10"],
        },
        ProcessingInputs=[
            given("code", "script/code.py", "/code"),
            given("data", "script/data", "/data"),
        ],
        ProcessingOutputConfig={"Outputs": [wanted("train", "script/out", path="/train")]},
    )
    job = ended(endpoint, "script")
    assert job["ProcessingJobStatus"] == "Completed", endpoint.log_lines("Processing", "script")
    assert endpoint.get("script/out/out.txt") == b"data --rows 10"


def test_an_entrypoint_is_refused_where_there_is_no_opt_ml_for_it(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "private_mounts_work", lambda: False)
    store = Store(tmp_path / "store.sqlite")
    program = Program(("false",), ("false",), ("false",))
    context = Context(store, ObjectStore(), Images({"stand-in": program}), tmp_path, lock=0)
    specification = {"ImageUri": STAND_IN, "ContainerEntrypoint": ["python3"]}
    with pytest.raises(ServiceError, match="only where the kernel gives a program /opt/ml"):
        perform(
            context,
            "sagemaker",
            "CreateProcessingJob",
            request("mountless", AppSpecification=specification),
        )
    store.close()


def test_a_lost_job_is_run_again_and_leaves_the_same(
    own_endpoint: Endpoint, tmp_path: Path
) -> None:
    own_endpoint.start()
    own_endpoint.put("lost/in/a.txt", b"one")
    slow = {"SLOW_ONCE": tmp_path / "begun"}
    process(own_endpoint, "lost", slow, ProcessingInputs=[given("all", "lost/in")])
    eventually((tmp_path / "begun").exists)
    own_endpoint.signal(signal.SIGKILL)
    own_endpoint.start()
    assert ended(own_endpoint, "lost")["ProcessingJobStatus"] == "Completed"
    assert own_endpoint.log_lines("Processing", "lost").count("started") == 2
    assert own_endpoint.get("processed/lost/a.txt") == b"ONE"


def test_jobs_are_listed_page_by_page(endpoint: Endpoint) -> None:
    for number in range(3):
        process(endpoint, f"listed-{number}", {"EXIT": number})
        ended(endpoint, f"listed-{number}")
    pages = [
        [item["ProcessingJobName"] for item in page["ProcessingJobSummaries"]]
        for page in endpoint.sagemaker.get_paginator("list_processing_jobs").paginate(
            NameContains="listed-",
            SortBy="Name",
            SortOrder="Ascending",
            PaginationConfig={"PageSize": 2},
        )
    ]
    assert pages == [["listed-0", "listed-1"], ["listed-2"]]
    failed = endpoint.sagemaker.list_processing_jobs(NameContains="listed-", StatusEquals="Failed")[
        "ProcessingJobSummaries"
    ]
    assert [item["ProcessingJobName"] for item in failed] == ["listed-1", "listed-2"]
    assert failed[1]["FailureReason"].endswith("exit code: 2")


def test_a_name_is_used_once_and_an_absent_one_is_told(endpoint: Endpoint) -> None:
    process(endpoint, "twice")
    with pytest.raises(endpoint.sagemaker.exceptions.ResourceInUse, match="already exists"):
        process(endpoint, "twice")
    with pytest.raises(ClientError, match=r"ValidationException.*Could not find requested job"):
        processing_job(endpoint, "absent")
    with pytest.raises(endpoint.sagemaker.exceptions.ResourceNotFound):
        endpoint.sagemaker.stop_processing_job(ProcessingJobName="absent")


CLUSTER = request("unused")["ProcessingResources"]["ClusterConfig"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"AppSpecification": {"ImageUri": "other:1"}}, "no program for image"),
        ({"AppSpecification": {"ImageUri": FM_IMAGE}}, "ContainerEntrypoint must name another"),
        (
            {"ProcessingResources": {"ClusterConfig": {**CLUSTER, "InstanceCount": 2}}},
            "supports only 1 for ProcessingResources.ClusterConfig.InstanceCount, not 2",
        ),
        (
            {"ProcessingResources": {"ClusterConfig": {"VolumeSizeInGB": 1}}},
            "InstanceCount is required",
        ),
        ({"ProcessingInputs": [given("a", "no/such/prefix")]}, "No S3 objects found under S3 URL"),
        (
            {"ProcessingInputs": [given("a", "refused", S3InputMode="Pipe")]},
            "supports only 'File' for ProcessingInputs.S3Input.S3InputMode, not 'Pipe'",
        ),
        (
            {"ProcessingInputs": [given("a", "refused", LocalPath=f"{FOLDER}/../../etc")]},
            "LocalPath of ProcessingInput 'a' must be a path below /opt/ml/processing",
        ),
        (
            {"ProcessingInputs": [given("a", "refused", LocalPath="/opt/ml/model")]},
            "must be a path below /opt/ml/processing, got '/opt/ml/model'",
        ),
        (
            {"ProcessingInputs": [{"InputName": "a"}]},
            "ProcessingInput 'a' must have an S3Input",
        ),
        (
            {"ProcessingInputs": [given("a", "refused"), given("a", "refused", "/more")]},
            "Duplicate InputName 'a'",
        ),
        (
            {
                "ProcessingInputs": [
                    {
                        "InputName": "a",
                        "DatasetDefinition": {"LocalPath": f"{FOLDER}/a", "InputMode": "File"},
                    }
                ]
            },
            "does not support ProcessingInputs.DatasetDefinition",
        ),
        (
            {
                "ProcessingOutputConfig": {
                    "Outputs": [
                        {
                            "OutputName": "a",
                            "AppManaged": True,
                            "FeatureStoreOutput": {"FeatureGroupName": "g"},
                        }
                    ]
                }
            },
            "supports only False for ProcessingOutputConfig.Outputs.AppManaged, not True",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    endpoint: Endpoint, changes: dict[str, Any], message: str
) -> None:
    endpoint.put("refused/file", b"")
    with pytest.raises(ClientError, match=f"ValidationException.*{message}"):
        process(endpoint, "refused", **changes)
    with pytest.raises(ClientError, match="Could not find"):
        processing_job(endpoint, "refused")
