"""What every request has in common: protocols, errors and limits."""

import re
from xml.etree import ElementTree

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from recsys_assets_tests.sagemaker_local.endpoint import Endpoint, aws_client

JSON = {"Content-Type": "application/x-amz-json-1.1"}


def call(endpoint: Endpoint, target: str, body: bytes, **headers: str) -> httpx.Response:
    return httpx.post(
        endpoint.url, content=body, headers={**JSON, "X-Amz-Target": target, **headers}, timeout=10
    )


def test_ping_tells_that_the_endpoint_is_there(endpoint: Endpoint) -> None:
    assert httpx.get(f"{endpoint.url}/ping", timeout=10).json() == {"status": "ok"}


def test_the_caller_is_the_user_of_the_one_account(endpoint: Endpoint) -> None:
    identity = aws_client("sts", endpoint.url).get_caller_identity()
    assert identity["Account"] == "123456789012"
    assert identity["Arn"] == "arn:aws:iam::123456789012:user/local"


def test_errors_have_the_form_of_aws(endpoint: Endpoint) -> None:
    response = call(endpoint, "SageMaker.DescribeTrainingJob", b'{"TrainingJobName": "absent"}')
    assert response.status_code == 400
    assert response.json() == {
        "__type": "ValidationException",
        "message": "Requested resource not found.",
    }
    assert response.headers["Content-Type"] == "application/x-amz-json-1.1"
    assert response.headers["x-amzn-RequestId"]


@pytest.mark.parametrize(
    ("service", "action", "arguments", "named"),
    [
        ("sagemaker", "create_auto_ml_job_v2", None, "sagemaker:CreateAutoMLJobV2"),
        ("sagemaker", "list_pipelines", {}, "sagemaker:ListPipelines"),
        ("logs", "describe_queries", {}, "logs:DescribeQueries"),
        ("sts", "get_session_token", {}, "sts:GetSessionToken"),
        ("iam", "list_users", {}, "iam:ListUsers"),
    ],
)
def test_an_action_that_is_not_supported_is_named(
    endpoint: Endpoint, service: str, action: str, arguments: dict[str, str] | None, named: str
) -> None:
    if arguments is None:
        response = call(endpoint, "SageMaker.CreateAutoMLJobV2", b"{}")
        assert (response.status_code, named in response.json()["message"]) == (400, True)
        return
    client = aws_client(service, endpoint.url)
    with pytest.raises(ClientError, match=f"UnknownOperationException.*not support {named}"):
        getattr(client, action)(**arguments)


def test_a_route_that_is_not_supported_is_named(endpoint: Endpoint) -> None:
    response = httpx.put(f"{endpoint.url}/endpoints/e", timeout=10)
    assert response.status_code == 404
    assert response.json()["message"].endswith("does not support PUT /endpoints/e.")
    assert httpx.get(endpoint.url, timeout=10).status_code == 404


def form(endpoint: Endpoint, body: bytes) -> httpx.Response:
    return httpx.post(
        endpoint.url,
        content=body,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        timeout=10,
    )


def xml_error(response: httpx.Response) -> ElementTree.Element:
    error = ElementTree.fromstring(response.content).find("Error")  # noqa: S314 - our own answer
    assert error is not None
    return error


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"", "UnknownOperationException", "action ''"),
        (b"Action=GetRole&Version=1999-01-01", "UnknownOperationException", "of version"),
        (b"\xff", "SerializationException", "not a form"),
        (b"Action=GetRole&Version=2010-05-08", "ValidationError", "at 'roleName'"),
        (b"Action=GetRole&Version=2010-05-08&RoleName=a&X=1", "ValidationError", "at 'x'"),
        (b"Action=GetRole&Version=2010-05-08&RoleName.a=1", "SerializationException", "OBJECT"),
        (b"Action=GetRole&Version=2010-05-08&A=1&A.b=1", "MalformedInput", "A.b comes both"),
        (
            b"Action=SimulatePrincipalPolicy&Version=2010-05-08&MaxItems=x"
            b"&PolicySourceArn=arn:aws:iam::123456789012:role/a&ActionNames.member.1=s3:a",
            "SerializationException",
            "converted to integer at 'maxItems'",
        ),
        (
            b"Action=SimulatePrincipalPolicy&Version=2010-05-08"
            b"&PolicySourceArn=arn:aws:iam::123456789012:role/a&ActionNames.member.x=s3:a",
            "SerializationException",
            "converted to list at 'actionNames'",
        ),
    ],
)
def test_a_form_that_is_wrong_is_refused_in_the_form_of_the_query_protocol(
    endpoint: Endpoint, body: bytes, code: str, message: str
) -> None:
    response = form(endpoint, body)
    assert response.status_code == 400
    error = xml_error(response)
    assert error.findtext("Code") == code
    assert re.search(message, error.findtext("Message") or "")
    assert error.findtext("Type") == "Sender"


def test_text_that_xml_cannot_hold_is_told_without_it(endpoint: Endpoint) -> None:
    response = form(endpoint, b"Action=GetRole&Version=2010-05-08&RoleName=%00%0b%3Cb%3E")
    error = xml_error(response)
    assert "'??<b>' at 'roleName'" in (error.findtext("Message") or "")


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'"text"', b"[1]", b"NaN"])
def test_a_body_that_is_no_json_structure_is_a_serialization_error(
    endpoint: Endpoint, body: bytes
) -> None:
    response = call(endpoint, "SageMaker.ListModels", body)
    assert response.status_code == 400
    assert response.json()["__type"] == "SerializationException"


def test_a_request_of_more_than_a_megabyte_is_refused(endpoint: Endpoint) -> None:
    response = call(endpoint, "SageMaker.ListModels", b" " * ((1 << 20) + 1))
    assert response.status_code == 413
    assert call(endpoint, "SageMaker.ListModels", b"{}" + b" " * 100_000).is_success


def test_a_request_for_another_host_is_refused(endpoint: Endpoint) -> None:
    response = call(endpoint, "SageMaker.ListModels", b"{}", Host="attacker.example")
    assert response.status_code == 400


def test_a_session_of_endpoint_urls_alone_works(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL_SAGEMAKER": endpoint.url,
        "AWS_ENDPOINT_URL_STS": endpoint.url,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    assert boto3.Session().client("sts").get_caller_identity()["Account"] == "123456789012"
    assert "Models" in boto3.Session().client("sagemaker").list_models()
