"""An HTTP proxy between unmodified AWS clients and the services, which sees and spoils their calls.

What belongs here: passing requests on as they came (the Host header too, which signatures cover),
writing down which action each one was and how it ended, and faults by rule. What does not: which
faults a test wants, and when.
"""

import json
import re
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_TARGETS = {"AmazonSQS": "sqs", "SageMaker": "sagemaker", "Logs_20140328": "logs"}
_CREDENTIAL = re.compile(r"Credential=[^/]+/[^/]+/[^/]+/([\w-]+)/")

# Of each action of S3: method, whether a key is named, and what its query or headers must have.
_S3_ACTIONS = (
    ("GET", False, "list-type", "ListObjectsV2"),
    ("GET", False, "location", "GetBucketLocation"),
    ("GET", False, "versioning", "GetBucketVersioning"),
    ("GET", False, "versions", "ListObjectVersions"),
    ("GET", False, "", "ListObjects"),
    ("HEAD", False, "", "HeadBucket"),
    ("PUT", False, "", "CreateBucket"),
    ("DELETE", False, "", "DeleteBucket"),
    ("POST", False, "delete", "DeleteObjects"),
    ("GET", True, "uploadid", "ListParts"),
    ("GET", True, "", "GetObject"),
    ("HEAD", True, "", "HeadObject"),
    ("PUT", True, "uploadid", "UploadPart"),
    ("PUT", True, "x-amz-copy-source", "CopyObject"),
    ("PUT", True, "", "PutObject"),
    ("POST", True, "uploads", "CreateMultipartUpload"),
    ("POST", True, "uploadid", "CompleteMultipartUpload"),
    ("DELETE", True, "uploadid", "AbortMultipartUpload"),
    ("DELETE", True, "", "DeleteObject"),
)


@dataclass(frozen=True)
class Answer:
    """What a service, or a fault in its place, answers."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass
class Call:
    """A request, and what became of it.

    Attributes
    ----------
    service, action
        As botocore names the service (of the request's signature) and AWS the action.
    method, path
        Of the HTTP request; the path has its query.
    content
        The decoded JSON of a request that has a target (SageMaker, CloudWatch Logs).
    forwarded
        Status that the service gave; None if the request has not reached it.
    answered
        Status that the client was given; None if the connection was dropped on it.
    access_key_id
        Whose signature it bears; empty if it is not signed.
    """

    service: str
    action: str
    method: str
    path: str
    content: dict[str, Any] = field(default_factory=dict)
    forwarded: int | None = None
    answered: int | None = None
    access_key_id: str = ""


Forward = Callable[[], Answer]

Fault = Callable[[Call, Forward], Answer | None]
"""What stands in for a service: it may pass the call on, and answers or (None) hangs up."""


def drop_before(call: Call, forward: Forward) -> None:
    """Hang up on the client; the service never hears of the call."""


def drop_after(call: Call, forward: Forward) -> None:
    """Let the service do what it was asked, and hang up on the client."""
    forward()


def refuse(status: int, code: str, message: str = "injected by the proxy") -> Fault:
    """Return a fault that answers with an AWS error, in the service's place."""

    def fault(call: Call, forward: Forward) -> Answer:
        if call.service in ("s3", "sts", "iam"):
            error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
            nested = error if call.service == "s3" else f"<ErrorResponse>{error}</ErrorResponse>"
            body, media = nested.encode(), "application/xml"
        else:
            body = json.dumps({"__type": code, "message": message}).encode()
            media = "application/x-amz-json-1.1"
        return Answer(status, (("Content-Type", media),), body)

    return fault


def delay(seconds: float) -> Fault:
    """Return a fault that lets the service answer, late."""

    def fault(call: Call, forward: Forward) -> Answer:
        answer = forward()
        time.sleep(seconds)
        return answer

    return fault


@dataclass
class _Rule:
    fault: Fault
    action: str | None
    service: str | None
    remaining: float

    def takes(self, call: Call) -> bool:
        return (
            self.remaining > 0
            and self.action in (None, call.action)
            and self.service in (None, call.service)
        )


class Proxy:
    """A proxy on a free port of its own, in threads of this process.

    Use it as a context manager, and give its :attr:`url` to clients in the place of the services'.

    Parameters
    ----------
    default
        URL of the service that gets all calls but those in `services`.
    services
        URLs by the service's name, as requests are signed for it (``s3``).
    """

    def __init__(self, default: str, **services: str) -> None:
        self.calls: list[Call] = []
        self._default = default
        self._services = services
        self._rules: list[_Rule] = []
        self._cut = False
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where clients reach the proxy."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self) -> dict[str, str]:
        """Return the variables that send all calls of an AWS client here."""
        names = ("S3", "SAGEMAKER", "SAGEMAKER_RUNTIME", "CLOUDWATCH_LOGS", "STS", "IAM")
        return {f"AWS_ENDPOINT_URL_{name}": self.url for name in names}

    def inject(
        self,
        fault: Fault,
        action: str | None = None,
        *,
        service: str | None = None,
        times: float = 1,
    ) -> None:
        """Spoil the next calls of an action (of a service; by default any); earlier rules first."""
        with self._lock:
            self._rules.append(_Rule(fault, action, service, times))

    def cut(self) -> None:
        """Cut the network: every call is hung up on, unanswered, until it is mended."""
        self._cut = True

    def mend(self) -> None:
        """Mend a network that was cut."""
        self._cut = False

    def seen(self, action: str) -> list[Call]:
        """Return the calls of an action so far, the oldest first."""
        with self._lock:
            return [call for call in self.calls if call.action == action]

    def handle(self, call: Call, headers: Message, body: bytes) -> Answer | None:
        """Write a call down, spoil it or pass it on, and return its answer."""

        def forward() -> Answer:
            answer = self._forward(call, headers, body)
            call.forwarded = answer.status
            return answer

        with self._lock:
            self.calls.append(call)
            rule = next((rule for rule in self._rules if rule.takes(call)), None)
            if rule is not None and not self._cut:
                rule.remaining -= 1
        if self._cut:
            return None
        try:
            answer = forward() if rule is None else rule.fault(call, forward)
        except (OSError, HTTPException):  # the service is gone: so is this connection
            return None
        if answer is not None:
            call.answered = answer.status
        return answer

    def _forward(self, call: Call, headers: Message, body: bytes) -> Answer:
        target = urllib.parse.urlsplit(self._services.get(call.service, self._default))
        connection = HTTPConnection(target.netloc)
        try:
            connection.putrequest(call.method, call.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in ("expect", "transfer-encoding", "content-length"):
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, tuple(response.getheaders()), response.read())
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away in the middle, as tests make them do."""


def _handler_of(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _handle(self) -> None:
            body = self._body()
            answer = proxy.handle(
                _call(self.command, self.path, self.headers, body), self.headers, body
            )
            if answer is None:
                self._hang_up()
                return
            self.send_response_only(answer.status)
            length = str(len(answer.body))
            for name, value in answer.headers:
                if name.lower() == "content-length" and self.command == "HEAD":
                    length = value
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = bytearray()
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            return bytes(body)

        def _hang_up(self) -> None:
            # Without lingering the client gets a reset, not an orderly end.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet; calls are written down by the proxy."""

    return Handler


def _call(method: str, path: str, headers: Message, body: bytes) -> Call:
    """Return which call a request is."""
    authorization = urllib.parse.unquote(headers.get("Authorization", "") or path)
    scope = _CREDENTIAL.search(authorization.replace("X-Amz-Credential", "Credential"))
    signed_for = scope[1] if scope else ""
    access_key_id = scope[0].removeprefix("Credential=").partition("/")[0] if scope else ""
    if "X-Amz-Target" in headers:
        prefix, _, action = headers["X-Amz-Target"].partition(".")
        service, content = _TARGETS.get(prefix, prefix), json.loads(body or b"{}")
        return Call(service, action, method, path, content, access_key_id=access_key_id)
    if headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        action = urllib.parse.parse_qs(body.decode())["Action"][0]  # STS, IAM
    elif path.endswith("/invocations"):
        signed_for, action = "sagemaker-runtime", "InvokeEndpoint"
    else:
        signed_for, action = "s3", _s3_action(method, path, headers)
    return Call(signed_for, action, method, path, access_key_id=access_key_id)


def _s3_action(method: str, path: str, headers: Mapping[str, str] | Message) -> str:
    place, _, query = path.partition("?")
    marks = {name.lower() for name, _ in urllib.parse.parse_qsl(query, keep_blank_values=True)}
    marks |= {name.lower() for name in headers.keys()} | {""}  # noqa: SIM118
    _, bucket, *key = place.split("/", 2)
    if not bucket:
        return "ListBuckets"
    for wanted, has_key, mark, action in _S3_ACTIONS:
        if (wanted, has_key) == (method, bool(key and key[0])) and mark in marks:
            return action
    return f"{method} {path}"
