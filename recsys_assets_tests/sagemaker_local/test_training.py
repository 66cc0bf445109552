import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from recsys_assets.sagemaker_local.api import perform
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.images import Images, Program
from recsys_assets.sagemaker_local.jobs.training import TrainingRun, new_training_job
from recsys_assets.sagemaker_local.s3 import ObjectStore, S3Uri
from recsys_assets.sagemaker_local.store import TRAINING_JOB, Store
from recsys_assets_tests.sagemaker_local.endpoint import (
    BUCKET,
    OBJECTIVE,
    STAND_IN,
    Endpoint,
    eventually,
)

FM_IMAGE = "382416733822.dkr.ecr.us-east-1.amazonaws.com/factorization-machines:1"


def channel(name: str, prefix: str, **changes: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{prefix}"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, **changes}


def algorithm(**changes: Any) -> dict[str, Any]:
    return {"TrainingImage": STAND_IN, "TrainingInputMode": "File", **changes}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_a_job_runs_under_the_container_contract_and_leaves_its_artefact(
    endpoint: Endpoint,
) -> None:
    endpoint.put("contract/train/part-1.bin", b"one")
    endpoint.put("contract/train/deep/part-2.bin", b"two")
    endpoint.put("contract/test.bin", b"three")
    endpoint.train(
        "contract",
        {"seconds": 0.1, "output_data": "notes"},
        InputDataConfig=[
            channel("train", "contract/train", ContentType="application/x-recordio-protobuf"),
            channel("test", "contract/test.bin"),
        ],
        Environment={"EXTRA": "from the request"},
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/contract/models/"},
    )
    job = endpoint.ended_training_job("contract")

    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Completed"
    uri = f"s3://{BUCKET}/contract/models/contract/output/model.tar.gz"
    assert job["ModelArtifacts"] == {"S3ModelArtifacts": uri}
    seen = json.loads(endpoint.archive(uri)["seen.json"])
    assert seen["hyperparameters"] == {"seconds": "0.1", "output_data": "notes"}
    assert seen["files"] == {
        "train/part-1.bin": md5(b"one"),
        "train/deep/part-2.bin": md5(b"two"),
        "test/test.bin": md5(b"three"),
    }
    assert seen["inputdataconfig"]["train"] == {
        "ContentType": "application/x-recordio-protobuf",
        "TrainingInputMode": "File",
        "S3DistributionType": "FullyReplicated",
        "RecordWrapperType": "None",
    }
    assert seen["resourceconfig"]["hosts"] == [seen["resourceconfig"]["current_host"]]
    assert seen["environment"] == {
        "TRAINING_JOB_NAME": "contract",
        "TRAINING_JOB_ARN": job["TrainingJobArn"],
        "EXTRA": "from the request",
    }
    output = uri.replace("model.tar.gz", "output.tar.gz")
    assert endpoint.archive(output) == {"notes.txt": b"notes"}
    eventually(lambda: not list(endpoint.state.glob("jobs/*/contract")))


def test_a_description_tells_the_course_of_a_job(endpoint: Endpoint) -> None:
    endpoint.train("course", {"seconds": 0.1}, EnableManagedSpotTraining=False)
    job = endpoint.ended_training_job("course")

    transitions = job["SecondaryStatusTransitions"]
    assert [step["Status"] for step in transitions] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    messages = [step["StatusMessage"] for step in transitions]
    assert len(set(messages)) == len(messages), "clients see progress by changed messages"
    for step, following in itertools.pairwise(transitions):
        assert step["StartTime"] <= step["EndTime"] == following["StartTime"]
    assert (
        job["CreationTime"]
        <= job["TrainingStartTime"]
        < job["TrainingEndTime"]
        == transitions[-1]["EndTime"]
        <= job["LastModifiedTime"]
    )
    assert job["BillableTimeInSeconds"] == job["TrainingTimeInSeconds"] >= 1
    assert job["ResourceConfig"]["InstanceCount"] == 1
    assert job["TrainingJobArn"] == "arn:aws:sagemaker:us-east-1:123456789012:training-job/course"
    assert "FailureReason" not in job


def test_metrics_are_read_off_the_log_by_the_requests_definitions(endpoint: Endpoint) -> None:
    endpoint.train(
        "metrics",
        {"print": "loss=3|loss=0.25|loss=nan", "x": 0.5},
        AlgorithmSpecification=algorithm(
            MetricDefinitions=[{"Name": "loss", "Regex": r"loss=(\S+)"}, OBJECTIVE]
        ),
    )
    metrics = endpoint.ended_training_job("metrics")["FinalMetricDataList"]
    assert {metric["MetricName"]: metric["Value"] for metric in metrics} == {
        "loss": 0.25,
        "objective": pytest.approx(0.04),
    }


@pytest.mark.parametrize(
    ("name", "hyperparameters", "reason"),
    [
        ("told", {"failure": "no such column"}, "AlgorithmError: no such column, exit code: 1"),
        ("customer", {"failure": "ClientError: yours"}, "ClientError: yours, exit code: 1"),
        (
            "untold",
            {"exit": 7},
            "AlgorithmError: See job logs for more information, exit code: 7",
        ),
        ("long", {"failure": "x" * 2000}, f"AlgorithmError: {'x' * 994}, exit code: 1"),
    ],
)
def test_a_failed_job_tells_the_programs_reason(
    endpoint: Endpoint, name: str, hyperparameters: dict[str, object], reason: str
) -> None:
    endpoint.train(f"fails-{name}", hyperparameters)
    job = endpoint.ended_training_job(f"fails-{name}")
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Failed"
    assert job["FailureReason"] == reason
    assert job["TrainingEndTime"] >= job["TrainingStartTime"]
    assert not endpoint.keys(f"models/fails-{name}/")


def running(endpoint: Endpoint, name: str, kind: str = "Training") -> bool:
    return "started" in endpoint.log_lines(kind, name)


def test_a_stopped_job_keeps_the_model_that_it_has(endpoint: Endpoint) -> None:
    endpoint.train("stopped", {"seconds": 600, "early_model": "half"})
    eventually(lambda: running(endpoint, "stopped"))
    endpoint.sagemaker.stop_training_job(TrainingJobName="stopped")
    stopping = endpoint.training_job("stopped")
    job = endpoint.ended_training_job("stopped")

    assert stopping["TrainingJobStatus"] in ("Stopping", "Stopped")
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Stopped"
    assert [step["Status"] for step in job["SecondaryStatusTransitions"]][-2:] == [
        "Stopping",
        "Stopped",
    ]
    uri = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert endpoint.archive(uri) == {"early.txt": b"half"}
    with pytest.raises(ClientError, match=r"ValidationException.*job is in status Stopped"):
        endpoint.sagemaker.stop_training_job(TrainingJobName="stopped")


def test_a_job_that_exceeds_its_time_is_stopped_with_the_model_that_it_has(
    endpoint: Endpoint,
) -> None:
    endpoint.train(
        "overtime",
        {"seconds": 600, "early_model": "half"},
        StoppingCondition={"MaxRuntimeInSeconds": 1},
    )
    job = endpoint.ended_training_job("overtime")
    assert job["TrainingJobStatus"] == "Stopped"
    assert job["SecondaryStatus"] == "MaxRuntimeExceeded"
    assert job["TrainingTimeInSeconds"] >= 1
    uri = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert endpoint.archive(uri) == {"early.txt": b"half"}


def test_a_name_is_used_once(endpoint: Endpoint) -> None:
    endpoint.train("twice")
    with pytest.raises(endpoint.sagemaker.exceptions.ResourceInUse, match="already exists"):
        endpoint.train("twice")


def test_what_does_not_exist_is_told_as_aws_tells_it(endpoint: Endpoint) -> None:
    with pytest.raises(ClientError, match=r"ValidationException.*Requested resource not found"):
        endpoint.training_job("absent")
    with pytest.raises(endpoint.sagemaker.exceptions.ResourceNotFound):
        endpoint.sagemaker.stop_training_job(TrainingJobName="absent")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"AlgorithmSpecification": algorithm(TrainingImage="other:1")}, "no program for image"),
        (
            {"AlgorithmSpecification": {"TrainingInputMode": "File"}},
            r"AlgorithmSpecification\.TrainingImage is required",
        ),
        (
            {"AlgorithmSpecification": algorithm(TrainingImage=FM_IMAGE, ContainerArguments=["x"])},
            "ContainerEntrypoint must name another one",
        ),
        (
            {
                "AlgorithmSpecification": algorithm(
                    TrainingImage=FM_IMAGE, MetricDefinitions=[OBJECTIVE]
                )
            },
            "can't override the metric definitions",
        ),
        (
            {
                "AlgorithmSpecification": algorithm(
                    MetricDefinitions=[{"Name": "loss", "Regex": "("}]
                )
            },
            "not a regular expression",
        ),
        ({"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2}}, "only 1 for"),
        ({"ResourceConfig": {"InstanceType": "ml.m5.large"}}, "InstanceCount is required"),
        ({"OutputDataConfig": {"S3OutputPath": "https://b/k"}}, "form s3://bucket/key"),
        (
            {"CheckpointConfig": {"S3Uri": "s3://b/k", "LocalPath": "/home/me"}},
            "supports only '/opt/ml/checkpoints' or .* for CheckpointConfig.LocalPath, not '/home",
        ),
        ({"RetryStrategy": {"MaximumRetryAttempts": 2}}, "does not support RetryStrategy"),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}},
            "MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set",
        ),
        (
            {"EnableManagedSpotTraining": True},
            "MaxWaitTimeInSeconds. It must be present and be greater than or equal",
        ),
        (
            {
                "EnableManagedSpotTraining": True,
                "StoppingCondition": {"MaxRuntimeInSeconds": 61, "MaxWaitTimeInSeconds": 60},
            },
            "be greater than or equal to MaxRuntimeInSeconds, got 60",
        ),
        ({"InputDataConfig": [channel("..", "refused")]}, "'..' cannot be a ChannelName"),
        (
            {"InputDataConfig": [channel("a", "refused"), channel("a", "refused")]},
            "Duplicate channel name 'a'",
        ),
        ({"InputDataConfig": [channel("a", "no/such/prefix")]}, "No S3 objects found under S3 URL"),
        (
            {"InputDataConfig": [channel("a", "refused", CompressionType="Gzip")]},
            "CompressionType Gzip of channel 'a' needs the input mode Pipe, not File",
        ),
        (
            {"InputDataConfig": [channel("a", "refused", RecordWrapperType="RecordIO")]},
            "supports only 'None' for InputDataConfig.RecordWrapperType, not 'RecordIO'",
        ),
        (
            {
                "InputDataConfig": [
                    {
                        "ChannelName": "a",
                        "DataSource": {
                            "S3DataSource": {
                                "S3DataType": "AugmentedManifestFile",
                                "S3Uri": f"s3://{BUCKET}/refused",
                            }
                        },
                    }
                ]
            },
            "supports only 'S3Prefix' or 'ManifestFile' for InputDataConfig",
        ),
        ({"Tags": [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}]}, "Duplicate tag key"),
        (
            {"OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/{'x' * 930}"}},
            "S3OutputPath must have at most 940 characters",
        ),
        ({"RoleArn": "the-role-of-nobody-here"}, "'roleArn' failed to satisfy constraint"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    endpoint: Endpoint, changes: dict[str, Any], message: str
) -> None:
    endpoint.put("refused/file", b"")
    with pytest.raises(ClientError, match=f"ValidationException.*{message}"):
        endpoint.train("refused", **changes)
    with pytest.raises(ClientError, match="not found"):
        endpoint.training_job("refused")


class HostileObjects(ObjectStore):
    """A store with a key that leads out of every folder, which the real one does not take."""

    def keys(self, prefix: S3Uri) -> Iterator[str]:
        yield f"{prefix.key}/../../../../escaped"

    def download(self, source: S3Uri, path: Path) -> None:
        raise AssertionError(f"{source} would be written to {path}")


def test_a_key_that_leads_out_of_its_channel_fails_the_job(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store.sqlite")
    request = endpoint.training_request("escape", InputDataConfig=[channel("train", "in")])
    store.insert(TRAINING_JOB, new_training_job(request))
    TrainingRun(Context(store, HostileObjects(), Images(), tmp_path, lock=0), "escape").run()
    job = store.get(TRAINING_JOB, "escape")
    store.close()
    assert job is not None
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: Data download failed: s3://")
    assert "does not name a file below its prefix" in job["FailureReason"]


class AbsentObjects(ObjectStore):
    """A store that does not answer."""

    def has_objects(self, prefix: S3Uri) -> bool:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


def test_a_client_is_told_to_try_again_while_the_object_store_is_away(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store.sqlite")
    images = Images({"stand-in": Program(("false",), ("false",))})
    context = Context(store, AbsentObjects(), images, tmp_path, lock=0)
    request = endpoint.training_request("away", InputDataConfig=[channel("train", "in")])
    with pytest.raises(ServiceError, match="Cannot look for s3://") as caught:
        perform(context, "sagemaker", "CreateTrainingJob", request)
    store.close()
    assert caught.value.status == 503


def test_a_built_in_algorithm_is_described_with_its_metrics(endpoint: Endpoint) -> None:
    endpoint.train("built-in", AlgorithmSpecification=algorithm(TrainingImage=FM_IMAGE))
    definitions = endpoint.training_job("built-in")["AlgorithmSpecification"]["MetricDefinitions"]
    assert {
        "Name": "test:rmse",
        "Regex": r"#quality_metric: host=\S+, test rmse <loss>=(\S+)",
    } in definitions
    endpoint.sagemaker.stop_training_job(TrainingJobName="built-in")
    endpoint.ended_training_job("built-in")
