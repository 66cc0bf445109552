import gzip
import json
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


def test_binary_records_are_sent_alone_without_their_framing(endpoint: Endpoint) -> None:
    # Of a TFRecord the checksum of the length 0 or 1 is known; that of the content is not checked.
    tfrecords = bytes.fromhex("000000000000000029039807d8ea82a2")
    contents = {"RecordIO": framed(b"a") + framed(b"bcdef"), "TFRecord": tfrecords * 3}
    for split_type, content in contents.items():
        endpoint.put(f"binary/{split_type}", content)
        endpoint.transform(
            f"binary-{split_type}",
            "echo",
            f"binary/{split_type}",
            given={"SplitType": split_type},
            BatchStrategy="SingleRecord",
        )
    for split_type, sizes, output in (
        ("RecordIO", [1, 5], b"abcdef"),
        ("TFRecord", [0, 0, 0], b""),
    ):
        name = f"binary-{split_type}"
        assert endpoint.ended_transform_job(name)["TransformJobStatus"] == "Completed"
        assert payloads(endpoint, name) == sizes
        assert endpoint.get(f"out/{name}/{split_type}.out") == output


def test_compressed_objects_are_decompressed_and_keep_their_names(endpoint: Endpoint) -> None:
    endpoint.put("packed/1.csv.gz", gzip.compress(b"1\n2\n") + gzip.compress(b"3\n"))
    endpoint.put("packed/2.csv.gz", gzip.compress(b"4\n")[:-1])
    endpoint.put("packed/3.csv", b"no gzip")
    endpoint.put("packed/4.csv.gz", gzip.compress(b""))
    given = {"SplitType": "Line", "CompressionType": "Gzip"}
    endpoint.transform("packed", "echo", "packed/", given=given)
    job = endpoint.ended_transform_job("packed")
    assert "packed/2.csv.gz: cannot decompress it: " in job["FailureReason"]
    assert "(2 of 4 input objects failed)" in job["FailureReason"]
    assert endpoint.keys("out/packed/") == ["out/packed/1.csv.gz.out", "out/packed/4.csv.gz.out"]
    assert endpoint.get("out/packed/1.csv.gz.out") == b"1\n2\n3\n"
    assert endpoint.get("out/packed/4.csv.gz.out") == b""


def test_a_manifest_names_the_objects(endpoint: Endpoint) -> None:
    for name in ("a/1.csv", "a/2.csv", "b/3.csv"):
        endpoint.put(f"named/{name}", name.encode())
    manifest = [{"prefix": f"s3://{BUCKET}/named/"}, "b/3.csv", "a/1.csv"]
    endpoint.put("manifest", json.dumps(manifest).encode())
    endpoint.put("no-manifest", b'["a/1.csv"]')
    for name in ("manifest", "no-manifest"):
        source = {"S3DataType": "ManifestFile", "S3Uri": f"s3://{BUCKET}/{name}"}
        endpoint.transform(name, "echo", "", given={"DataSource": {"S3DataSource": source}})
    assert endpoint.ended_transform_job("manifest")["TransformJobStatus"] == "Completed"
    assert endpoint.keys("out/manifest/") == [
        "out/manifest/a/1.csv.out",
        "out/manifest/b/3.csv.out",
    ]
    assert endpoint.get("out/manifest/b/3.csv.out") == b"b/3.csv"
    assert payloads(endpoint, "manifest") == [7, 7]
    reason = endpoint.ended_transform_job("no-manifest")["FailureReason"]
    assert reason.startswith(f"ClientError: s3://{BUCKET}/no-manifest is not a manifest")


def test_names_that_begin_alike_keep_apart(endpoint: Endpoint) -> None:
    for name in ("day", "day.csv", "day-2/x.csv", "other"):
        endpoint.put(f"alike/{name}", name.encode())
    endpoint.transform("alike", "echo", "alike/day")
    assert endpoint.ended_transform_job("alike")["TransformJobStatus"] == "Completed"
    for name in ("day", "day.csv", "day-2/x.csv"):
        assert endpoint.get(f"out/alike/{name}.out") == name.encode()
    assert len(endpoint.keys("out/alike/")) == 3


def test_columns_are_left_out_for_the_model_and_come_back_with_its_answers(
    endpoint: Endpoint,
) -> None:
    endpoint.create_model("sums", MODE="sums")
    endpoint.put("joined/in.csv", b'"one, two",1,2\nthree,3,4\n\n"five",5,6\n')
    endpoint.transform(
        "joined",
        "sums",
        "joined/in.csv",
        given={"ContentType": "text/csv", "SplitType": "Line"},
        wanted={"Accept": "text/csv", "AssembleWith": "Line"},
        DataProcessing={
            "InputFilter": "$[1:]",
            "JoinSource": "Input",
            "OutputFilter": "$[0,-1]",
        },
    )
    job = endpoint.ended_transform_job("joined")
    assert job["TransformJobStatus"] == "Completed", job
    assert endpoint.get("out/joined/in.csv.out") == b'"one, two",3.0\nthree,7.0\nfive,11.0\n'
    assert payloads(endpoint, "joined") == [len("1,2\n3,4\n5,6\n")]
    assert job["DataProcessing"]["JoinSource"] == "Input"


@pytest.mark.parametrize("strategy", ["MultiRecord", "SingleRecord"])
def test_answers_are_joined_to_the_lines_of_json_that_they_belong_to(
    endpoint: Endpoint, strategy: str
) -> None:
    endpoint.create_model(f"sums-{strategy}", MODE="sums")
    lines = [{"id": number, "x": [number, 0.5]} for number in range(20)]
    endpoint.put("joined/lines", "\n".join(map(json.dumps, lines)).encode())
    endpoint.transform(
        f"lines-{strategy}",
        f"sums-{strategy}",
        "joined/lines",
        given={"ContentType": "application/jsonlines", "SplitType": "Line"},
        wanted={"Accept": "application/jsonlines", "AssembleWith": "Line"},
        BatchStrategy=strategy,
        MaxConcurrentTransforms=4,
        DataProcessing={"InputFilter": "$.x", "JoinSource": "Input"},
    )
    job = endpoint.ended_transform_job(f"lines-{strategy}")
    assert job["TransformJobStatus"] == "Completed", job
    output = endpoint.get(f"out/lines-{strategy}/lines.out").splitlines()
    assert [json.loads(line) for line in output] == [
        {**line, "SageMakerOutput": {"sum": line["id"] + 0.5}} for line in lines
    ]


def test_a_record_that_cannot_be_filtered_or_joined_fails_its_object(endpoint: Endpoint) -> None:
    endpoint.put("misfit/1", b"1\n")
    endpoint.put("misfit/2", b"1,2\n")
    for name, processing in (
        ("misfit-input", {"InputFilter": "$[1]"}),
        ("misfit-output", {"JoinSource": "Input", "OutputFilter": "$[2]"}),
    ):
        endpoint.transform(
            name,
            "echo",
            "misfit/",
            given={"ContentType": "text/csv", "SplitType": "Line"},
            wanted={"Accept": "text/csv", "AssembleWith": "Line"},
            DataProcessing=processing,
        )
        reason = endpoint.ended_transform_job(name)["FailureReason"]
        assert f"s3://{BUCKET}/misfit/1: " in reason
        assert "selects what is not there" in reason
        assert "(1 of 2 input objects failed)" in reason
        assert endpoint.keys(f"out/{name}/") == [f"out/{name}/2.out"]


def test_as_many_requests_as_asked_for_are_under_way_and_answers_keep_their_order(
    endpoint: Endpoint,
) -> None:
    # The server answers nothing until three requests wait, and the last of them first.
    content = b"".join(b"%d\n" % number for number in range(5))
    for name in ("1", "2", "3"):
        endpoint.put(f"party/{name}", content)
    endpoint.create_model("party", MODE="party", PARTY="3")
    endpoint.transform(
        "party",
        "party",
        "party/",
        given={"SplitType": "Line"},
        BatchStrategy="SingleRecord",
        MaxConcurrentTransforms=3,
    )
    job = endpoint.ended_transform_job("party")
    assert job["TransformJobStatus"] == "Completed", job
    for name in ("1", "2", "3"):
        assert endpoint.get(f"out/party/{name}.out") == content
    lines = endpoint.log_lines("Transform", "party")
    assert max(int(line[0]) for line in lines if line.endswith("under way")) == 3


def test_an_object_is_streamed_whole_where_payloads_have_no_limit(endpoint: Endpoint) -> None:
    content = b"x" * (7 * MEGABYTE)
    endpoint.put("streamed/in", content)
    environment = {"FAILURES": "1"}
    endpoint.transform("streamed", "echo", "streamed/in", MaxPayloadInMB=0, Environment=environment)
    assert endpoint.ended_transform_job("streamed")["TransformJobStatus"] == "Completed"
    assert endpoint.get("out/streamed/in.out") == content
    assert payloads(endpoint, "streamed") == [len(content)] * 2, "a busy server is sent it again"
    assert endpoint.log_lines("Transform", "streamed").count("chunks") == 2


def test_a_container_tells_how_it_likes_to_be_asked(endpoint: Endpoint) -> None:
    told = {"BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 1, "MaxConcurrentTransforms": 2}
    endpoint.put("liked/in", b"1\n2\n")
    for name, text, request in (
        ("liked", json.dumps(told), {}),
        ("overruled", json.dumps(told), {"BatchStrategy": "MultiRecord", "MaxPayloadInMB": 3}),
        ("misunderstood", '{"MaxPayloadInMB": 0}', {}),
    ):
        environment = {"EXECUTION_PARAMETERS": text}
        given = {"SplitType": "Line"}
        endpoint.transform(
            name, "echo", "liked/in", given=given, Environment=environment, **request
        )
    assert endpoint.ended_transform_job("liked")["TransformJobStatus"] == "Completed"
    assert payloads(endpoint, "liked") == [2, 2]
    assert (
        "[sagemaker logs]: MaxConcurrentTransforms=2, MaxPayloadInMB=1, BatchStrategy=SINGLE_RECORD"
        in endpoint.log_lines("Transform", "liked")
    )
    assert endpoint.ended_transform_job("overruled")["TransformJobStatus"] == "Completed"
    assert payloads(endpoint, "overruled") == [4]
    reason = endpoint.ended_transform_job("misunderstood")["FailureReason"]
    assert reason.startswith("AlgorithmError: GET /execution-parameters must be answered with")


def test_keys_and_tags_are_taken(endpoint: Endpoint) -> None:
    endpoint.put("keyed/in", b"1\n")
    endpoint.transform(
        "keyed",
        "echo",
        "keyed/in",
        wanted={"KmsKeyId": "alias/mine"},
        Tags=[{"Key": "team", "Value": "films"}],
    )
    job = endpoint.ended_transform_job("keyed")
    assert job["TransformJobStatus"] == "Completed"
    assert job["TransformOutput"]["KmsKeyId"] == "alias/mine"
    tags = endpoint.sagemaker.list_tags(ResourceArn=job["TransformJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "films"}]


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
    assert "no answer from the model's container: nothing within 1 seconds" in job["FailureReason"]


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
    for name, reason in (("broken", "cannot unpack the archive"), ("absent", "404")):
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


@pytest.mark.parametrize("concurrent", [1, 3])
def test_a_job_is_stopped_while_its_model_is_busy_and_what_is_written_stays(
    endpoint: Endpoint, concurrent: int
) -> None:
    name = f"stop-{concurrent}"
    for number, content in enumerate([b"1\n", *[b"slow\n"] * concurrent]):
        endpoint.put(f"{name}/{number}", content)
    endpoint.transform(name, "echo", f"{name}/", MaxConcurrentTransforms=concurrent)
    eventually(lambda: payloads(endpoint, name).count(5) == concurrent)
    eventually(lambda: endpoint.keys(f"out/{name}/"))
    endpoint.sagemaker.stop_transform_job(TransformJobName=name)
    assert endpoint.ended_transform_job(name)["TransformJobStatus"] == "Stopped"
    assert endpoint.keys(f"out/{name}/") == [f"out/{name}/0.out"]
    with pytest.raises(ClientError, match="transform job is in status Stopped"):
        endpoint.sagemaker.stop_transform_job(TransformJobName=name)


def test_a_model_may_be_deleted_while_its_job_waits(endpoint: Endpoint) -> None:
    endpoint.create_model("short-lived", MODE="echo")
    endpoint.put("short/in", b"1\n")
    endpoint.transform("short", "short-lived", "short/in")
    endpoint.sagemaker.delete_model(ModelName="short-lived")
    assert endpoint.ended_transform_job("short")["TransformJobStatus"] == "Completed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"given": {"CompressionType": "Bzip2"}}, r"enum value set: \[None, Gzip\]"),
        (
            {
                "given": {
                    "DataSource": {
                        "S3DataSource": {"S3DataType": "AugmentedManifestFile", "S3Uri": "s3://b/k"}
                    }
                }
            },
            "supports only 'S3Prefix' or 'ManifestFile'",
        ),
        (
            {"MaxPayloadInMB": 51, "MaxConcurrentTransforms": 2},
            r"MaxPayloadInMB \* MaxConcurrentTransforms .* at most 100, not 51 \* 2",
        ),
        ({"MaxPayloadInMB": 101}, r"at most 100, not 101 \* 1"),
        ({"MaxPayloadInMB": 0, "MaxConcurrentTransforms": 101}, r"at most 100, not 0 \* 101"),
        ({"MaxPayloadInMB": 0, "given": {"SplitType": "Line"}}, "only with None for SplitType"),
        ({"DataProcessing": {"JoinSource": "Input"}}, r"for TransformInput\.ContentType, not ''"),
        ({"DataProcessing": {"InputFilter": "$..a"}}, r"DataProcessing\.InputFilter: "),
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
