"""The inference program: ``python -m recsys_assets.domain.factorization_machine.container.serve``.

What belongs here: SageMaker's routes, ``GET /ping`` and ``POST /invocations``, in front of one
model. What does not: reading and writing their bodies (``payloads``) and scoring (``model``).

The program serves the model in ``model/`` until SIGTERM: on 127.0.0.1, or the address that
FACTORIZATION_MACHINE_HOST names, at port 8080, or the one that SAGEMAKER_BIND_TO_PORT names. It
answers a ping only once the model is loaded.
"""

import os
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from recsys_assets.domain.factorization_machine.artefact import (
    MODEL_FILE,
    ArtefactError,
    read_model,
)
from recsys_assets.domain.factorization_machine.container.layout import Layout
from recsys_assets.domain.factorization_machine.model import FactorizationMachine
from recsys_assets.domain.factorization_machine.payloads import (
    JSON,
    AcceptError,
    ContentTypeError,
    PayloadError,
    decode_request,
    encode_response,
    response_type,
)

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080
MAX_BODY_BYTES = 100 << 20  # the largest MaxPayloadInMB of a batch transform


def application(model: FactorizationMachine) -> Starlette:
    """Return the web application that serves a model."""

    def predict(body: bytes, content_type: str, accept: str | None) -> Response:
        try:
            answer_type = response_type(accept, content_type)
            X = decode_request(body, content_type, model.feature_dim)
        except AcceptError as error:
            return PlainTextResponse(str(error), 406)
        except ContentTypeError as error:
            return PlainTextResponse(str(error), 415)
        except PayloadError as error:
            return PlainTextResponse(str(error), 400)
        answer = encode_response(model.predict(X), model.predictor_type, answer_type)
        return Response(answer, media_type=answer_type)

    async def invocations(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return PlainTextResponse(f"expected at most {MAX_BODY_BYTES} bytes", 413)
        content_type = request.headers.get("content-type", JSON)
        accept = request.headers.get("accept")
        # in a thread, so that pings are answered while a large request is scored
        return await run_in_threadpool(predict, bytes(body), content_type, accept)

    async def ping(request: Request) -> Response:
        return Response()

    return Starlette(
        routes=[
            Route("/ping", ping),
            Route("/invocations", invocations, methods=["POST"]),
        ]
    )


def main() -> int:
    """Serve the model that the environment describes; return the exit code."""
    layout = Layout.from_environment()
    host = os.environ.get("FACTORIZATION_MACHINE_HOST", DEFAULT_HOST)
    port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", DEFAULT_PORT))
    try:
        model = read_model(layout.model / MODEL_FILE)
    except (OSError, ArtefactError) as error:
        sys.stderr.write(f"cannot load the model: {error}\n")
        return 1
    uvicorn.run(application(model), host=host, port=port, access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
