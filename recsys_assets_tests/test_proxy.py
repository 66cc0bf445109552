"""The proxy of the tests passes calls on unchanged, names them, and spoils those it is told to."""

from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from recsys_assets.services.record import Services
from recsys_assets_tests.proxy import Proxy, delay, drop_after, drop_before, refuse

pytestmark = pytest.mark.xdist_group("in_process")


def client(proxy: Proxy, services: Services, name: str) -> Any:
    return boto3.client(
        name,
        endpoint_url=proxy.url,
        region_name=services.region,
        aws_access_key_id=services.access_key_id,
        aws_secret_access_key=services.secret_access_key,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


def actions(proxy: Proxy) -> list[tuple[str, str]]:
    return [(call.service, call.action) for call in proxy.calls]


def test_signed_calls_of_s3_reach_the_store_and_are_named(proxy: Proxy, services: Services) -> None:
    s3 = client(proxy, services, "s3")
    body = b"\x00\xff" * 100_000
    s3.put_object(Bucket="recsys", Key="proxied/a b+c=ü", Body=body)
    assert s3.get_object(Bucket="recsys", Key="proxied/a b+c=ü")["Body"].read() == body
    assert s3.head_object(Bucket="recsys", Key="proxied/a b+c=ü")["ContentLength"] == len(body)
    assert s3.list_objects_v2(Bucket="recsys", Prefix="proxied/")["KeyCount"] == 1
    upload = {"Bucket": "recsys", "Key": "proxied/parts"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    part = s3.upload_part(**upload, PartNumber=1, Body=body)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(**upload, MultipartUpload=parts)
    s3.delete_object(Bucket="recsys", Key="proxied/parts")
    assert actions(proxy) == [
        ("s3", name)
        for name in (
            "PutObject",
            "GetObject",
            "HeadObject",
            "ListObjectsV2",
            "CreateMultipartUpload",
            "UploadPart",
            "CompleteMultipartUpload",
            "DeleteObject",
        )
    ]
    assert {call.access_key_id for call in proxy.calls} == {services.access_key_id}


def test_a_wrong_signature_is_the_stores_to_refuse(proxy: Proxy, services: Services) -> None:
    broken = Services(**{**vars(services), "secret_access_key": "nonsense"})
    with pytest.raises(ClientError, match=r"Forbidden|SignatureDoesNotMatch"):
        client(proxy, broken, "s3").get_object(Bucket="recsys", Key="x")


def test_calls_of_the_other_services_are_named_with_their_content(
    proxy: Proxy, services: Services
) -> None:
    client(proxy, services, "sts").get_caller_identity()
    sagemaker = client(proxy, services, "sagemaker")
    with pytest.raises(ClientError, match="not found"):
        sagemaker.describe_training_job(TrainingJobName="absent")
    with pytest.raises(ClientError):
        client(proxy, services, "logs").describe_log_streams(logGroupName="/absent")
    assert actions(proxy) == [
        ("sts", "GetCallerIdentity"),
        ("sagemaker", "DescribeTrainingJob"),
        ("logs", "DescribeLogStreams"),
    ]
    (described,) = proxy.seen("DescribeTrainingJob")
    assert described.content == {"TrainingJobName": "absent"}
    assert (described.forwarded, described.answered) == (400, 400)


def test_faults_spoil_the_calls_that_they_are_for_and_no_others(
    proxy: Proxy, services: Services
) -> None:
    s3 = client(proxy, services, "s3")

    def put() -> None:
        s3.put_object(Bucket="recsys", Key="proxied/faults", Body=b"x")

    proxy.inject(drop_before, "PutObject")
    proxy.inject(drop_after, "PutObject")
    proxy.inject(refuse(503, "SlowDown"), service="s3")
    proxy.inject(delay(0.1), "PutObject")
    for error in (ConnectionClosedError, ConnectionClosedError, ClientError):
        with pytest.raises(error):
            put()
    put()
    s3.head_object(Bucket="recsys", Key="proxied/faults")
    assert [(call.forwarded, call.answered) for call in proxy.calls] == [
        (None, None),
        (200, None),
        (None, 503),
        (200, 200),
        (200, 200),
    ]


def test_a_cut_network_answers_nobody_until_it_is_mended(proxy: Proxy, services: Services) -> None:
    sts = client(proxy, services, "sts")
    proxy.cut()
    for _ in range(2):
        with pytest.raises(ConnectionClosedError):
            sts.get_caller_identity()
    proxy.mend()
    sts.get_caller_identity()
    assert [call.answered for call in proxy.calls] == [None, None, 200]
