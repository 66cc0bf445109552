import struct
from typing import Any

import pytest
from botocore.exceptions import ClientError

from recsys_assets_tests.sagemaker_local.endpoint import BUCKET, STAND_IN, Endpoint, eventually

MEGABYTE = 1 << 20


def framed(content: bytes) -> bytes:
    header = struct.pack("<II", 0xCED7230A, len(content))
    return header + content + b"\0" * (-len(content) % 4)


def payloads(endpoint: Endpoint, name: str) -> list[int]:
    """Return the sizes of the payloads that the server of a transform job was sent."""
    lines = endpoint.log_lines("Transform", name)
    return [int(line.split()[2]) for line in lines if line.startswith("payload of")]


@pytest.fixture(scope="module", autouse=True)
def models(endpoint: Endpoint) -> None:
    endpoint.create_model("echo", MODE="echo")
    endpoint.create_model("sizes")


def test_outputs_stand_beside_each_other_as_the_inputs_do(endpoint: Endpoint) -> None:
    inputs = {"a.csv": b"1\n2\n", "deep/b.csv": b"3\n", "empty.csv": b""}
    for name, content in inputs.items():
        endpoint.put(f"beside/in/{name}", content)
    endpoint.transform("beside", "echo", "beside/in", given={"SplitType": "Line"})
    job = endpoint.ended_transform_job("beside")

    assert job["TransformJobStatus"] == "Completed"
    assert job["CreationTime"] <= job["TransformStartTime"] < job["TransformEndTime"]
    assert endpoint.keys("out/beside/") == [f"out/beside/{name}.out" for name in inputs]
    for name, content in inputs.items():
        assert endpoint.get(f"out/beside/{name}.out") == content
    lines = endpoint.log_lines("Transform", "beside")
    assert lines[0] == "loaded ['weights.json']"
    assert not list(endpoint.state.glob("jobs/*/beside"))


def test_the_model_is_told_type_and_wanted_type(endpoint: Endpoint) -> None:
    endpoint.put("types/in.csv", b"1\n2\n")
    endpoint.transform(
        "types",
        "sizes",
        "types/in.csv",
        given={"ContentType": "text/csv"},
        wanted={"Accept": "application/jsonlines"},
    )
    endpoint.ended_transform_job("types")
    assert endpoint.get("out/types/in.csv.out") == b"4 application/jsonlines"
    assert "payload of 4 bytes as text/csv" in endpoint.log_lines("Transform", "types")


@pytest.mark.parametrize(
    ("name", "split_type", "strategy", "records", "expected"),
    [
        ("whole", "None", "MultiRecord", [b"1\n", b"2\n"], [4]),
        ("lines", "Line", "MultiRecord", [b"1\n", b"2\n"], [4]),
        ("single-lines", "Line", "SingleRecord", [b"1\n", b"22\n"], [2, 3]),
        (
            "full-lines",
            "Line",
            "MultiRecord",
            [b"x" * 400_000 + b"\n"] * 5,
            [800_002, 800_002, 400_001],
        ),
        (
            "exact-lines",
            "Line",
            "MultiRecord",
            [b"x" * (MEGABYTE // 2 - 1) + b"\n"] * 3,
            [MEGABYTE, MEGABYTE // 2],
        ),
        ("records", "RecordIO", "MultiRecord", [framed(b"a"), framed(b"bcdef")], [28]),
        ("single-records", "RecordIO", "SingleRecord", [framed(b"a"), framed(b"bcdef")], [12, 16]),
        (
            "full-records",
            "RecordIO",
            "MultiRecord",
            [framed(b"x" * 400_000)] * 3,
            [800_016, 400_008],
        ),
    ],
)
def test_objects_are_cut_into_payloads_of_whole_records(
    endpoint: Endpoint,
    name: str,
    split_type: str,
    strategy: str,
    records: list[bytes],
    expected: list[int],
) -> None:
    content = b"".join(records)
    endpoint.put(f"cut/{name}", content)
    endpoint.transform(
        f"cut-{name}",
        "echo",
        f"cut/{name}",
        given={"SplitType": split_type},
        BatchStrategy=strategy,
        MaxPayloadInMB=1,
    )
    assert endpoint.ended_transform_job(f"cut-{name}")["TransformJobStatus"] == "Completed"
    assert payloads(endpoint, f"cut-{name}") == expected
    assert endpoint.get(f"out/cut-{name}/{name}.out") == content


@pytest.mark.parametrize(
    ("assemble", "expected"), [("None", b"2 None3 None"), ("Line", b"2 None\n3 None\n")]
)
def test_answers_are_put_together_as_asked_for(
    endpoint: Endpoint, assemble: str, expected: bytes
) -> None:
    endpoint.put("assembled/in", b"1\n22\n")
    name = f"assembled-{assemble}"
    endpoint.transform(
        name,
        "sizes",
        "assembled/in",
        given={"SplitType": "Line"},
        wanted={"AssembleWith": assemble},
        BatchStrategy="SingleRecord",
    )
    endpoint.ended_transform_job(name)
    assert endpoint.get(f"out/{name}/in.out") == expected


def test_an_object_that_cannot_be_transformed_fails_the_job_and_not_the_others(
    endpoint: Endpoint,
) -> None:
    endpoint.put("faulty/1", b"good\n")
    endpoint.put("faulty/2", b"good\nbad\n")
    endpoint.put("faulty/3", b"x" * (MEGABYTE + 1))
    endpoint.put("faulty/4", b"good too\n")
    endpoint.transform("faulty", "echo", "faulty", given={"SplitType": "Line"}, MaxPayloadInMB=1)
    job = endpoint.ended_transform_job("faulty")
    assert job["TransformJobStatus"] == "Failed"
    assert job["FailureReason"] == (
        f"ClientError: s3://{BUCKET}/faulty/2: Bad HTTP status received from algorithm: 400:"
        " a bad record (2 of 4 input objects failed). See job logs for more information"
    )
    assert endpoint.keys("out/faulty/") == ["out/faulty/1.out", "out/faulty/4.out"]
    assert payloads(endpoint, "faulty") == [5, 9, 9], "a bad record is not sent again"
    lines = endpoint.log_lines("Transform", "faulty")
    assert (
        f"[sagemaker logs]: {BUCKET}/faulty/3: the record at byte 0 is longer than 1,048,576 bytes"
        in lines
    )


def test_a_busy_model_is_asked_again_and_a_failing_one_not_for_ever(endpoint: Endpoint) -> None:
    endpoint.put("busy/in", b"1\n")
    endpoint.transform("busy", "echo", "busy/in", Environment={"FAILURES": "3"})
    endpoint.transform(
        "busier",
        "echo",
        "busy/in",
        Environment={"FAILURES": "3"},
        ModelClientConfig={"InvocationsMaxRetries": 2},
    )
    assert endpoint.ended_transform_job("busy")["TransformJobStatus"] == "Completed"
    assert len(payloads(endpoint, "busy")) == 4
    job = endpoint.ended_transform_job("busier")
    assert "Bad HTTP status received from algorithm: 503: busy" in job["FailureReason"]
    assert len(payloads(endpoint, "busier")) == 3


def test_a_model_that_does_not_answer_in_time_fails_the_job(endpoint: Endpoint) -> None:
    endpoint.put("slow/in", b"1\n")
    endpoint.transform(
        "timeout",
        "sizes",
        "slow/in",
        Environment={"MODE": "slow"},
        ModelClientConfig={"InvocationsTimeoutInSeconds": 1, "InvocationsMaxRetries": 0},
    )
    job = endpoint.ended_transform_job("timeout")
    assert job["TransformJobStatus"] == "Failed"
    assert "no answer from the model's container: TimeoutError" in job["FailureReason"]


def test_a_model_that_cannot_be_loaded_fails_the_job(endpoint: Endpoint) -> None:
    endpoint.put("crash/in", b"1\n")
    endpoint.transform("crash", "echo", "crash/in", Environment={"MODE": "crash"})
    job = endpoint.ended_transform_job("crash")
    assert job["FailureReason"] == (
        "AlgorithmError: The model's container ended, exit code: 3."
        " See job logs for more information"
    )
    assert endpoint.log_lines("Transform", "crash") == ["cannot load the model"]


def test_a_hostile_or_missing_artefact_fails_the_job(endpoint: Endpoint) -> None:
    endpoint.put("artefacts/broken/model.tar.gz", b"no archive")
    endpoint.put("hostile/in", b"1\n")
    for name, reason in (("broken", "cannot unpack the model archive"), ("absent", "404")):
        endpoint.sagemaker.create_model(
            ModelName=name,
            PrimaryContainer={
                "Image": STAND_IN,
                "ModelDataUrl": f"s3://{BUCKET}/artefacts/{name}/model.tar.gz",
            },
        )
        endpoint.transform(f"model-{name}", name, "hostile/in")
        job = endpoint.ended_transform_job(f"model-{name}")
        assert job["FailureReason"].startswith("ClientError: Model data download failed: s3://")
        assert reason in job["FailureReason"]


def test_a_prefix_without_objects_fails_the_job(endpoint: Endpoint) -> None:
    endpoint.transform("nothing", "echo", "no/such/prefix")
    job = endpoint.ended_transform_job("nothing")
    assert job["TransformJobStatus"] == "Failed"
    assert "No S3 objects found under S3 URL" in job["FailureReason"]


def test_a_job_is_stopped_while_its_model_is_busy(endpoint: Endpoint) -> None:
    endpoint.put("stop/1", b"1\n")
    endpoint.transform("stop", "sizes", "stop/", Environment={"MODE": "slow"})
    eventually(lambda: payloads(endpoint, "stop"))
    endpoint.sagemaker.stop_transform_job(TransformJobName="stop")
    assert endpoint.ended_transform_job("stop")["TransformJobStatus"] == "Stopped"
    assert endpoint.keys("out/stop/") == []
    with pytest.raises(ClientError, match="transform job is in status Stopped"):
        endpoint.sagemaker.stop_transform_job(TransformJobName="stop")


def test_a_model_may_be_deleted_while_its_job_waits(endpoint: Endpoint) -> None:
    endpoint.create_model("short-lived", MODE="echo")
    endpoint.put("short/in", b"1\n")
    endpoint.transform("short", "short-lived", "short/in")
    endpoint.sagemaker.delete_model(ModelName="short-lived")
    assert endpoint.ended_transform_job("short")["TransformJobStatus"] == "Completed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"given": {"SplitType": "TFRecord"}}, "supports only 'None' or 'Line' or 'RecordIO'"),
        ({"given": {"CompressionType": "Gzip"}}, "supports only 'None' for"),
        ({"MaxPayloadInMB": 0}, "supports 1 to 100 for MaxPayloadInMB, not 0"),
        ({"DataProcessing": {"JoinSource": "Input"}}, r"for DataProcessing\.JoinSource"),
        ({"DataProcessing": {"InputFilter": "$[1:]"}}, r"for DataProcessing\.InputFilter"),
        (
            {"DataCaptureConfig": {"DestinationS3Uri": "s3://b/k"}},
            "does not support DataCaptureConfig",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    endpoint: Endpoint, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=f"ValidationException.*{message}"):
        endpoint.transform("refused", "echo", "in", **changes)


def test_names_are_used_once_and_absent_things_are_told_as_aws_tells_them(
    endpoint: Endpoint,
) -> None:
    exceptions = endpoint.sagemaker.exceptions
    with pytest.raises(exceptions.ResourceNotFound, match="Could not find model"):
        endpoint.transform("orphan", "absent-model", "in")
    endpoint.transform("once", "echo", "no/such/prefix")
    with pytest.raises(exceptions.ResourceInUse, match="already exists"):
        endpoint.transform("once", "echo", "no/such/prefix")
    with pytest.raises(ClientError, match=r"ValidationException.*with name: absent"):
        endpoint.transform_job("absent")
    with pytest.raises(exceptions.ResourceNotFound):
        endpoint.sagemaker.stop_transform_job(TransformJobName="absent")
    endpoint.ended_transform_job("once")
