"""Who is served: signatures, names that lead elsewhere, and clients that waste its time."""

import asyncio
import contextlib
import datetime
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import psutil
import pytest
import uvicorn
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from recsys_assets.sagemaker_local import __main__ as command_line
from recsys_assets.sagemaker_local import connections
from recsys_assets_tests.sagemaker_local.endpoint import Endpoint, eventually, free_port

TOKEN = "a-token-of-the-tests-0123456789"
BODY = b'{"MaxResults": 1}'


@pytest.fixture(scope="module")
def guarded(object_store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Return a running endpoint for everyone who has the token."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(f"{TOKEN}\n")
    options = ["--host=0.0.0.0", f"--token-file={folder / 'token'}"]
    endpoint = Endpoint(folder / "state", object_store, free_port(), *options)
    with contextlib.closing(endpoint):
        endpoint.start()
        yield endpoint


def client(endpoint: Endpoint, service: str, secret: str = TOKEN) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint.url,
        region_name="eu-west-1",
        aws_access_key_id="anyone",
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}),
    )


def signed(endpoint: Endpoint, secret: str = TOKEN) -> dict[str, str]:
    """Return the headers of a good ListModels request with ``BODY``."""
    request = AWSRequest(
        "POST",
        f"{endpoint.url}/",
        {"X-Amz-Target": "SageMaker.ListModels", "Content-Type": "application/x-amz-json-1.1"},
        BODY,
    )
    SigV4Auth(Credentials("anyone", secret), "sagemaker", "us-east-1").add_auth(request)
    return dict(request.headers.items())


def post(
    endpoint: Endpoint, headers: dict[str, str], body: bytes = BODY, target: str = "/"
) -> httpx.Response:
    return httpx.post(endpoint.url + target, content=body, headers=headers, timeout=10)


def code(response: httpx.Response) -> str:
    assert response.status_code == 403, response.text
    told: str = response.json()["__type"]
    return told


def test_clients_with_the_token_are_served_in_every_protocol(guarded: Endpoint) -> None:
    assert client(guarded, "sagemaker").list_models()["Models"] == []
    assert client(guarded, "sts").get_caller_identity()["Account"] == "123456789012"
    assert client(guarded, "logs").describe_log_groups()["logGroups"] == []
    with pytest.raises(ClientError, match=r"ValidationError.*Endpoint absent .* not found"):
        client(guarded, "sagemaker-runtime").invoke_endpoint(EndpointName="absent", Body=b"{}")
    assert post(guarded, signed(guarded)).json() == {"Models": []}


@pytest.mark.parametrize(
    ("service", "action", "arguments"),
    [
        ("sagemaker", "list_models", {}),
        ("logs", "describe_log_groups", {}),
        ("sts", "get_caller_identity", {}),
        ("iam", "get_role", {"RoleName": "sagemaker"}),
        ("sagemaker-runtime", "invoke_endpoint", {"EndpointName": "e", "Body": b"{}"}),
    ],
)
def test_clients_with_another_secret_are_refused_in_every_protocol(
    guarded: Endpoint, service: str, action: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ClientError, match="SignatureDoesNotMatch") as caught:
        getattr(client(guarded, service, "another-" + TOKEN), action)(**arguments)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert TOKEN not in str(caught.value.response)


def test_what_is_not_signed_is_refused_and_the_ping_is_open(guarded: Endpoint) -> None:
    headers = {"X-Amz-Target": "SageMaker.ListModels"}
    assert code(post(guarded, headers)) == "MissingAuthenticationTokenException"
    for authorization in ("", "Bearer " + TOKEN, TOKEN, "AWS4-HMAC-SHA256 Credential=a/b"):
        answer = post(guarded, {**headers, "Authorization": authorization})
        assert code(answer) == "IncompleteSignatureException"
    runtime = httpx.post(f"{guarded.url}/endpoints/e/invocations", content=b"", timeout=10)
    assert runtime.status_code == 403
    assert httpx.get(f"{guarded.url}/ping", timeout=10).is_success


def test_a_signature_is_good_for_its_own_request_alone(guarded: Endpoint) -> None:
    good = signed(guarded)
    assert post(guarded, good).is_success
    assert code(post(guarded, good, b'{"MaxResults": 2}')) == "SignatureDoesNotMatch"
    assert code(post(guarded, good, target="/?a=b")) == "SignatureDoesNotMatch"
    other = {**good, "X-Amz-Target": "SageMaker.DeleteModel"}
    assert code(post(guarded, other)) == "SignatureDoesNotMatch"
    assert code(post(guarded, {**good, "Host": "other"})) == "SignatureDoesNotMatch"
    added = {**good, "X-Amz-Security-Token": "t"}
    assert "must be signed" in post(guarded, added).json()["message"]
    stated = {**good, "X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}
    assert code(post(guarded, stated)) == "SignatureDoesNotMatch"


def test_an_unsigned_body_is_refused_even_if_that_is_signed(guarded: Endpoint) -> None:
    headers = {"X-Amz-Target": "SageMaker.ListModels", "X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}
    request = AWSRequest("POST", f"{guarded.url}/", headers, BODY)
    SigV4Auth(Credentials("anyone", TOKEN), "sagemaker", "us-east-1").add_auth(request)
    answer = post(guarded, dict(request.headers.items()))
    assert "not the one that x-amz-content-sha256 states" in answer.json()["message"]


@pytest.mark.parametrize("minutes", [-6, 6])
def test_an_old_signature_is_refused(
    guarded: Endpoint, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: moment)
    answer = post(guarded, signed(guarded))
    assert code(answer) == "SignatureDoesNotMatch"
    assert "Signature expired" in answer.json()["message"]


def test_the_token_shows_neither_in_the_log_nor_among_the_processes(guarded: Endpoint) -> None:
    assert guarded.process is not None
    process = psutil.Process(guarded.process.pid)
    assert TOKEN not in " ".join(process.cmdline())
    assert TOKEN not in str(process.environ())
    assert TOKEN not in guarded.state.with_name("state.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host=0.0.0.0"], "--host 0.0.0.0 can be reached by others and needs --token-file"),
        (["--token-file={folder}/absent"], "No such file"),
        (["--token-file={folder}/short", "--host=0.0.0.0"], "at least 16 characters"),
    ],
)
def test_an_endpoint_that_anyone_could_ask_does_not_start(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "short").write_text("x" * 15 + "\n")
    options = [argument.format(folder=tmp_path) for argument in arguments]
    with pytest.raises(SystemExit, match=message):
        command_line.main(["--port=0", f"--state={tmp_path / 'state'}", *options])
    assert not (tmp_path / "state").exists()


HOSTILE = ["..", "../../escaped", "/tmp/escaped", "a/b", "a\0b", "n" * 300, ".", "", "a\n"]

NAMES = {
    "CreateTrainingJob": ["TrainingJobName"],
    "CreateTransformJob": ["TransformJobName", "ModelName"],
    "CreateHyperParameterTuningJob": ["HyperParameterTuningJobName"],
    "CreateProcessingJob": ["ProcessingJobName"],
    "CreateModel": ["ModelName"],
    "CreateEndpointConfig": ["EndpointConfigName"],
    "CreateEndpoint": ["EndpointName", "EndpointConfigName"],
    "UpdateEndpoint": ["EndpointName", "EndpointConfigName"],
    "DeleteEndpoint": ["EndpointName"],
}


@pytest.mark.parametrize(
    ("action", "member"), [(action, name) for action, names in NAMES.items() for name in names]
)
def test_no_name_leads_out_of_the_state_folder(
    endpoint: Endpoint, action: str, member: str
) -> None:
    before = set(endpoint.state.parent.iterdir())
    for name in HOSTILE:
        answer = httpx.post(
            endpoint.url,
            content=json.dumps({member: name}),
            headers={"X-Amz-Target": f"SageMaker.{action}"},
            timeout=10,
        )
        assert answer.status_code == 400
        path = f"{member[0].lower()}{member[1:]}"
        assert f"at '{path}' failed to satisfy constraint" in answer.json()["message"], name
    assert set(endpoint.state.parent.iterdir()) == before


def test_no_name_inside_a_request_leads_out_of_the_state_folder(endpoint: Endpoint) -> None:
    for name in HOSTILE:
        channel = {
            "ChannelName": name,
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/k"}},
        }
        variant = {"VariantName": name, "ModelName": name}
        for action, request in (
            ("CreateTrainingJob", endpoint.training_request("a", InputDataConfig=[channel])),
            ("CreateEndpointConfig", {"EndpointConfigName": "a", "ProductionVariants": [variant]}),
        ):
            answer = httpx.post(
                endpoint.url,
                content=json.dumps(request),
                headers={"X-Amz-Target": f"SageMaker.{action}"},
                timeout=10,
            )
            assert answer.status_code == 400
            message = answer.json()["message"]
            assert "1.member." in message or "cannot be a ChannelName" in message, name


@pytest.mark.parametrize("name", ["..", "%2e%2e", "a%00b", "a%20b", "n" * 300, "a.b"])
def test_no_path_of_a_request_leads_anywhere_else(endpoint: Endpoint, name: str) -> None:
    with socket.create_connection(("127.0.0.1", int(endpoint.url.rpartition(":")[2]))) as raw:
        raw.sendall(
            f"POST /endpoints/{name}/invocations HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Length: 2\r\nConnection: close\r\n\r\n{}".encode()
        )
        answer = b"".join(iter(lambda: raw.recv(1 << 16), b""))
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))
    assert b"x-amzn-requestid" in answer.lower() or b"does not support POST" in answer


@pytest.fixture
def hasty_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    """Return a server with the endpoint's protocol and little patience."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)

    async def slow(request: Request) -> Response:
        body = await request.body()
        await asyncio.sleep(0.6)
        return Response(body)

    listener = socket.create_server(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/", slow, methods=["POST"])])
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=connections.LimitedProtocol,
            loop="asyncio",  # as the endpoint's
            log_config=None,
            lifespan="off",
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    eventually(lambda: server.started)
    yield server
    server.should_exit = True
    thread.join()


def port(server: uvicorn.Server) -> int:
    number: int = server.servers[0].sockets[0].getsockname()[1]
    return number


@pytest.mark.parametrize("beginning", [b"", b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
def test_a_connection_that_does_not_come_to_the_point_is_closed(
    hasty_server: uvicorn.Server, beginning: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", port(hasty_server))) as raw:
        raw.sendall(beginning)
        # It would be kept by a byte now and then, if that were enough.
        while beginning:
            try:
                raw.sendall(b"x")
            except OSError:
                break
            raw.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                assert raw.recv(1) == b""
                break
        raw.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert raw.recv(1) == b""


def test_a_request_may_take_longer_than_its_head(hasty_server: uvicorn.Server) -> None:
    with httpx.Client(timeout=30) as connection:
        for body in (b"first", b"second"):
            answer = connection.post(f"http://127.0.0.1:{port(hasty_server)}/", content=body)
            assert answer.content == body


def test_an_answer_does_not_wait_for_the_confirmation_of_its_head(
    hasty_server: uvicorn.Server,
) -> None:
    with socket.create_connection(("127.0.0.1", port(hasty_server))):
        (connection,) = eventually(lambda: list(hasty_server.server_state.connections))
        raw = connection.transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
