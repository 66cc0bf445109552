"""A model's serving program: fetched, started, asked over HTTP and ended.

Batch transform and endpoints both serve a model so. What they send it, what they make of its
answers and what its end means to them is their own business.
"""

import contextlib
import http
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import urllib3
from botocore.exceptions import BotoCoreError, ClientError

from recsys_assets.sagemaker_local.containers.archives import unpack
from recsys_assets.sagemaker_local.containers.container import Container, ContainerFolder
from recsys_assets.sagemaker_local.s3 import ObjectStore, S3Uri

STARTUP_SECONDS = 300.0
"""How long a server may take to answer its first ping, for a model that loads slowly."""

_GET_SECONDS = 2.0

_HOST = "127.0.0.1"

_MOST_IDLE_CONNECTIONS = 16


class ModelDataError(Exception):
    """The model's artefact cannot be had; the message says which and why."""


class ServerFailed(Exception):  # noqa: N818 - it failed, as a job does
    """The serving program has ended or does not get ready; the message is a sentence."""


class NoAnswer(Exception):  # noqa: N818 - says what is the matter
    """A request was not answered at all."""


class InvocationFailed(Exception):  # noqa: N818 - as ServerFailed
    """A payload was not answered with 200; ``retryable`` unless the payload is at fault."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


@dataclass(frozen=True)
class Answer:
    """What a server answered; names of headers are compared without regard to case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def fetch_model(
    objects: ObjectStore, definition: Mapping[str, Any], folder: Path
) -> ContainerFolder:
    """Make the ``/opt/ml`` of a serving program, with its model unpacked.

    Parameters
    ----------
    objects
        Where artefacts are.
    definition
        The model's container definition; without ModelDataUrl it has no files.
    folder
        An existing folder for ``/opt/ml`` and the archive.

    Raises
    ------
    ModelDataError
        When the archive cannot be fetched or is refused.
    """
    container_folder = ContainerFolder(folder / "ml")
    container_folder.create()
    if "ModelDataUrl" in definition:
        source = S3Uri.parse(definition["ModelDataUrl"], "ModelDataUrl")
        archive = folder / "model.tar.gz"
        try:
            objects.download(source, archive)
            unpack(archive, container_folder.model)
        except (BotoCoreError, ClientError, ValueError) as error:
            raise ModelDataError(f"{source}: {error}") from error
        finally:
            archive.unlink(missing_ok=True)
    return container_folder


class ModelServer:
    """A running serving program on a loopback port of its own; safe to use from any thread.

    Parameters
    ----------
    command
        What serves the model's image.
    definition
        The model's container definition: its Environment.
    folder
        The program's ``/opt/ml``, from ``fetch_model``.
    environment
        Further variables of the program.
    on_output
        Called with each batch of lines that the program writes.
    lock
        As of ``Container``.
    """

    def __init__(
        self,
        command: Sequence[str],
        definition: Mapping[str, Any],
        folder: ContainerFolder,
        environment: Mapping[str, str],
        on_output: Callable[[Sequence[str]], None],
        lock: int,
    ) -> None:
        self._port = _free_port()
        self._connections = self._open_connections()  # kept for further payloads
        self._container = Container(
            command,
            folder,
            {
                **definition.get("Environment", {}),
                **environment,
                "SAGEMAKER_BIND_TO_PORT": str(self._port),
            },
            on_output,
            lock,
        )

    def await_ready(self, check: Callable[[], None], seconds: float = STARTUP_SECONDS) -> None:
        """Wait until the server answers GET /ping with 200.

        Parameters
        ----------
        check
            Called time and again; what it raises ends the waiting.
        seconds
            How long to wait.

        Raises
        ------
        ServerFailed
            When the program ends instead, or takes longer.
        """
        deadline = time.monotonic() + seconds
        while not self._answers_ping():
            check()
            self.check_running()
            if time.monotonic() > deadline:
                raise ServerFailed(
                    "The model's container did not answer GET /ping with 200"
                    f" within {seconds:g} seconds."
                )

    def check_running(self, seconds: float = 0.1) -> None:
        """Wait so long for the program's end.

        Raises
        ------
        ServerFailed
            When it has ended.
        """
        status = self._container.wait(seconds)
        if status is not None:
            raise ServerFailed(f"The model's container ended, exit code: {status}.")

    def wait(self) -> int:
        """Wait for the program's end; return its exit status."""
        status = self._container.wait(None)
        assert status is not None  # noqa: S101 - it waited without limit
        return status

    def get(self, path: str) -> Answer:
        """Return whatever GET of a path is answered within a moment.

        Raises
        ------
        NoAnswer
            When there is no answer; the message says why.
        """
        with self._open_connections() as connections:
            return _ask(connections, "GET", path, None, {}, _GET_SECONDS)

    def send(self, payload: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """Return whatever POST /invocations is answered.

        It is sent once, over a connection of its own: a server may close a kept one just when
        it is used again.

        Parameters
        ----------
        payload, headers
            The request.
        timeout
            Seconds that the server may be silent.

        Raises
        ------
        NoAnswer
            When there is no answer; the message says why.
        """
        with self._open_connections() as connections:
            return _ask(connections, "POST", "/invocations", payload, headers, timeout)

    def invoke(
        self,
        payload: bytes | Path,
        headers: Mapping[str, str],
        *,
        timeout: float,
        retries: int,
        check: Callable[[], None],
    ) -> bytes:
        """Return the answer to a payload, asking again while the payload is not at fault.

        Parameters
        ----------
        payload, headers
            The request; a file is streamed, in chunks, without its length.
        timeout
            Seconds that the server may be silent.
        retries
            How many times to ask again.
        check
            Called before asking again; what it raises ends the attempts.

        Raises
        ------
        InvocationFailed
            When the last answer is not 200 or there is none.
        ServerFailed
            When the program has ended.
        """
        for attempts_left in range(retries, -1, -1):
            try:
                return self._invoke_once(payload, headers, timeout)
            except InvocationFailed as error:
                check()
                self.check_running()
                if not error.retryable or not attempts_left:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def kill(self) -> None:
        """End the program at once, cutting off requests under way."""
        self._container.kill()
        self._connections.close()

    def _answers_ping(self) -> bool:
        try:
            answer = self.get("/ping")
        except NoAnswer:
            return False
        return answer.status == http.HTTPStatus.OK

    def _invoke_once(
        self, payload: bytes | Path, headers: Mapping[str, str], timeout: float
    ) -> bytes:
        try:
            answer = self._post(payload, headers, timeout)
        except NoAnswer as error:
            raise InvocationFailed(
                f"no answer from the model's container: {error}", retryable=True
            ) from error
        if answer.status != http.HTTPStatus.OK:
            message = answer.body[:300].decode("utf-8", errors="replace")
            raise InvocationFailed(
                f"Bad HTTP status received from algorithm: {answer.status}: {message}",
                retryable=answer.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR,
            )
        return answer.body

    def _post(self, payload: bytes | Path, headers: Mapping[str, str], timeout: float) -> Answer:
        connections = self._connections
        if isinstance(payload, bytes):
            return _ask(connections, "POST", "/invocations", payload, headers, timeout)
        with payload.open("rb") as content:
            return _ask(connections, "POST", "/invocations", content, headers, timeout)

    def _open_connections(self) -> urllib3.HTTPConnectionPool:
        return urllib3.HTTPConnectionPool(
            _HOST, self._port, maxsize=_MOST_IDLE_CONNECTIONS, retries=False
        )


def _ask(
    connections: urllib3.HTTPConnectionPool,
    method: str,
    path: str,
    body: bytes | BinaryIO | None,
    headers: Mapping[str, str],
    timeout: float,
) -> Answer:
    try:
        response = connections.request(
            method, path, body=body, headers=headers, timeout=timeout, decode_content=False
        )
    except urllib3.exceptions.TimeoutError as error:
        raise NoAnswer(f"nothing within {timeout:g} seconds") from error
    except urllib3.exceptions.HTTPError as error:
        raise NoAnswer(f"{type(error).__name__}: {error}") from error
    return Answer(response.status, response.headers, response.data)


def _free_port() -> int:
    with contextlib.closing(socket.create_server((_HOST, 0))) as listener:
        port: int = listener.getsockname()[1]
    return port
