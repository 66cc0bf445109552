"""The HTTP side: limits and access in front of the actions, as an ASGI application.

A request's protocol is told by its path and headers (``protocols``), its body is read up to a
limit, its signature is checked if there is a secret (``authentication``), the action is performed
in a worker thread and its answer or error written. What the actions do is not known here.
"""

import asyncio
import contextlib
import functools
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import anyio
from botocore.model import OperationModel
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from recsys_assets.sagemaker_local.api import perform
from recsys_assets.sagemaker_local.authentication import Authenticator
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.protocols import REST_SERVICE, Json, Query, RestJson, Wire
from recsys_assets.service_model import service_model

LARGEST_REQUEST = 1 << 20
"""Bytes that a request's body may have, where the service model does not say.

The largest that clients send are some 100 kB.
"""

BODY_SECONDS = 60.0
"""How long a client may take to send a body."""

MOST_INVOCATIONS = 32
"""Models that are asked at a time; further invocations wait."""

_logger = logging.getLogger(__name__)


class Worker(Protocol):
    """What works beside the requests, as long as the application runs."""

    def start(self) -> None:
        """Begin."""

    def shutdown(self) -> None:
        """End at once."""


def create_app(
    context: Context,
    workers: Sequence[Worker],
    allowed_hosts: Sequence[str],
    authenticator: Authenticator | None = None,
) -> Starlette:
    """Return the application.

    Parameters
    ----------
    context
        The endpoint's shared parts.
    workers
        Run as long as the application does.
    allowed_hosts
        The hosts that requests may be for; others are refused, so that a page in a browser cannot
        reach the endpoint through a name of its own.
    authenticator
        Checks every request but ``GET /ping``; without one every request is good.
    """
    dispatcher = _Dispatcher(context, authenticator)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            await asyncio.gather(*(run_in_threadpool(worker.shutdown) for worker in workers))

    runtime = service_model(REST_SERVICE)
    operations = [runtime.operation_model(name) for name in runtime.operation_names]
    return Starlette(
        routes=[
            Route("/", dispatcher.handle, methods=["POST"]),
            Route("/ping", _ping, methods=["GET"]),
            *(
                Route(
                    operation.http["requestUri"],
                    functools.partial(dispatcher.handle_rest, operation),
                    methods=[operation.http["method"]],
                )
                for operation in operations
            ),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts))],
        exception_handlers={404: _no_such_route, 405: _no_such_route},
        lifespan=lifespan,
    )


class _Dispatcher:
    """Finds the action that a request asks for, calls it and answers."""

    def __init__(self, context: Context, authenticator: Authenticator | None) -> None:
        self._context = context
        self._authenticator = authenticator
        # Slow models must not keep the other actions from their threads.
        self._invocations = anyio.CapacityLimiter(MOST_INVOCATIONS)

    async def handle(self, request: Request) -> Response:
        wire: Wire = Json() if "x-amz-target" in request.headers else Query()
        return await self._answer(request, wire, LARGEST_REQUEST, None)

    async def handle_rest(self, operation: OperationModel, request: Request) -> Response:
        wire = RestJson(operation, request.path_params)
        return await self._answer(request, wire, wire.largest, self._invocations)

    async def _answer(
        self, request: Request, wire: Wire, largest: int, limiter: anyio.CapacityLimiter | None
    ) -> Response:
        request_id = str(uuid.uuid4())
        try:
            body = await _body(request, largest)
            if self._authenticator is not None:
                self._authenticator.check(request.method, _target(request), request.headers, body)
            call = wire.call(request.headers, body)
            output = await anyio.to_thread.run_sync(
                perform,
                self._context,
                call.service,
                call.action,
                call.content,
                limiter=limiter,
            )
            response = wire.success(call, output, request_id)
        except ServiceError as error:
            response = wire.failure(error, request_id)
        except Exception as error:
            _logger.exception("Request %s failed", request_id)
            # Whatever else an error's text may show is for the log alone.
            failure = ServiceError(
                "InternalFailure",
                f"{type(error).__name__}; the endpoint's log tells more of request {request_id}.",
                500,
            )
            response = wire.failure(failure, request_id)
        response.headers["x-amzn-RequestId"] = request_id
        return response


async def _ping(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _no_such_route(request: Request, _error: Exception) -> Response:
    message = f"The local SageMaker endpoint does not support {request.method} {request.url.path}."
    return Json().failure(ServiceError("UnknownOperationException", message, 404), "")


def _target(request: Request) -> str:
    """Return a request's path and query, as they stood in it."""
    query = request.scope["query_string"]
    target: bytes = request.scope["raw_path"] + (b"?" + query if query else b"")
    return target.decode("latin-1")


async def _body(request: Request, largest: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > largest:
                    raise ServiceError(
                        "RequestEntityTooLargeException",
                        f"The request is longer than {largest:,} bytes.",
                        413,
                    )
    except TimeoutError:
        raise ServiceError(
            "RequestTimeoutException",
            f"The request's body did not come within {BODY_SECONDS:g} seconds.",
            408,
        ) from None
    return bytes(body)
