"""The HTTP side: AWS's protocols in front of the actions, as an ASGI application.

A request's protocol and action are read off its headers, its body is decoded, the action is
performed in a worker thread, and its answer or error is written in the words of the protocol. Which
actions there are and what they do is not known here.
"""

import contextlib
import logging
import re
import urllib.parse
import uuid
from collections.abc import AsyncIterator
from typing import Any, Protocol
from xml.sax.saxutils import escape

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from recsys_assets.sagemaker_local.api import perform
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.jobs.scheduler import Scheduler
from recsys_assets.sagemaker_local.validation import parse_json

LARGEST_REQUEST = 1 << 20
"""Bytes that a request's body may have; the largest that clients send are some 100 kB."""

_JSON_TARGETS = {"SageMaker": "sagemaker", "Logs_20140328": "logs"}

_STS_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"

_logger = logging.getLogger(__name__)


def create_app(context: Context, scheduler: Scheduler, host: str) -> Starlette:
    """Return the application.

    Parameters
    ----------
    context
        The endpoint's shared parts.
    scheduler
        Runs as long as the application does.
    host
        The address that it is served at; requests that name another host are refused, so that a
        page in a browser cannot reach it through a name of its own.
    """
    dispatcher = _Dispatcher(context)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        scheduler.start()
        try:
            yield
        finally:
            await run_in_threadpool(scheduler.shutdown)

    return Starlette(
        routes=[
            Route("/", dispatcher.handle, methods=["POST"]),
            Route("/ping", _ping, methods=["GET"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[host, "localhost"])],
        exception_handlers={404: _no_such_route, 405: _no_such_route},
        lifespan=lifespan,
    )


class _Wire(Protocol):
    """How one protocol writes answers."""

    def success(self, action: str, output: dict[str, Any]) -> Response: ...

    def failure(self, error: ServiceError) -> Response: ...


class _Dispatcher:
    """Finds the action that a request asks for, calls it and answers."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def handle(self, request: Request) -> Response:
        request_id = str(uuid.uuid4())
        wire: _Wire = _Json()
        try:
            body = await _body(request)
            target = request.headers.get("x-amz-target")
            if target is not None:
                prefix, _, action = target.partition(".")
                service = _JSON_TARGETS.get(prefix, prefix)
                content = _decoded(body)
            else:
                wire, service = _Query(request_id), _signed_for(request) or "sts"
                content = dict(urllib.parse.parse_qsl(body.decode("utf-8", errors="replace")))
                action = content.pop("Action", "")
                content.pop("Version", None)
            output = await run_in_threadpool(perform, self._context, service, action, content)
            response = wire.success(action, output)
        except ServiceError as error:
            response = wire.failure(error)
        except Exception as error:
            _logger.exception("Request %s failed", request_id)
            failure = ServiceError("InternalFailure", f"{type(error).__name__}: {error}", 500)
            response = wire.failure(failure)
        response.headers["x-amzn-RequestId"] = request_id
        return response


class _Json:
    """JSON 1.1: SageMaker and CloudWatch Logs."""

    def success(self, action: str, output: dict[str, Any]) -> Response:
        return JSONResponse(output, media_type="application/x-amz-json-1.1")

    def failure(self, error: ServiceError) -> Response:
        return JSONResponse(
            {"__type": error.code, "message": error.message},
            status_code=error.status,
            media_type="application/x-amz-json-1.1",
        )


class _Query:
    """The query protocol: STS, whose answers here have text members only."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id

    def success(self, action: str, output: dict[str, Any]) -> Response:
        members = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in output.items())
        return self._xml(
            f'<{action}Response xmlns="{_STS_NAMESPACE}"><{action}Result>{members}'
            f"</{action}Result><ResponseMetadata><RequestId>{self._request_id}</RequestId>"
            f"</ResponseMetadata></{action}Response>",
            200,
        )

    def failure(self, error: ServiceError) -> Response:
        fault = "Sender" if error.status < 500 else "Receiver"
        return self._xml(
            f'<ErrorResponse xmlns="{_STS_NAMESPACE}"><Error><Type>{fault}</Type>'
            f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message></Error>"
            f"<RequestId>{self._request_id}</RequestId></ErrorResponse>",
            error.status,
        )

    @staticmethod
    def _xml(content: str, status: int) -> Response:
        return Response(content, status_code=status, media_type="text/xml")


async def _ping(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _no_such_route(request: Request, _error: Exception) -> Response:
    message = f"The local SageMaker endpoint does not support {request.method} {request.url.path}."
    return _Json().failure(ServiceError("UnknownOperationException", message, 404))


def _signed_for(request: Request) -> str | None:
    """Return the service that a request's signature names, which is not checked."""
    scope = re.search(
        r"Credential=[^/]+/[^/]+/[^/]+/([\w-]+)/", request.headers.get("authorization", "")
    )
    return scope[1] if scope else None


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_REQUEST:
            raise ServiceError(
                "RequestEntityTooLargeException",
                f"The request is longer than {LARGEST_REQUEST:,} bytes.",
                413,
            )
    return bytes(body)


def _decoded(body: bytes) -> object:
    try:
        return parse_json(body or b"{}")
    except ValueError as error:
        raise ServiceError("SerializationException", f"The body is not JSON: {error}") from error
