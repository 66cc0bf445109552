"""One instance of a variant: a serving program that is started again whenever it ends.

How long an instance is wanted, and which requests it gets, is decided elsewhere (``host``,
``routing``).
"""

import logging
import shutil
import threading
import time
import uuid
from collections.abc import Mapping, Sequence

from recsys_assets.sagemaker_local.containers.container import ContainerFolder
from recsys_assets.sagemaker_local.containers.model_server import (
    Answer,
    ModelDataError,
    ModelServer,
    ServerFailed,
    fetch_model,
)
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.store import ENDPOINT, Description

INVOCATION_SECONDS = 60.0
"""How long a model may take over an answer, as on SageMaker."""

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 60.0
"""A program that has served so long is started again after the first pause, not a longer one."""

_logger = logging.getLogger(__name__)


def log_group(endpoint: str) -> str:
    """Return the name of an endpoint's log group."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


class _Ending(Exception):  # noqa: N818 - no fault of anyone's
    """The instance is not wanted any more."""


class Instance:
    """A program that serves one variant's model, in a thread and a folder of its own.

    Parameters
    ----------
    context
        The endpoint's shared parts.
    endpoint
        The name of the (SageMaker) endpoint.
    variant
        The variant, from a fleet.

    Attributes
    ----------
    in_service
        Whether it answers now.
    outstanding
        How many requests it has not answered yet.
    failure
        Why it did not get in service when it was last tried; None if it did or is being tried for
        the first time.
    ended
        Whether its program is gone for good.
    """

    def __init__(self, context: Context, endpoint: str, variant: Description) -> None:
        self.in_service = False
        self.outstanding = 0
        self.failure: str | None = None
        self.ended = False
        self._context = context
        self._variant = variant
        name = f"i-{uuid.uuid4().hex[:17]}"
        self._folder = context.work_folder / ENDPOINT.resource_type / endpoint / name
        self._log_stream = context.store.open_log_stream(
            log_group(endpoint), f"{variant['VariantName']}/{name}", ""
        )
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._retiring = False
        self._server: ModelServer | None = None
        self._thread = threading.Thread(target=self._run, name=f"{endpoint} {name}", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def acquire(self) -> None:
        """Note that a request begins."""
        with self._lock:
            self.outstanding += 1

    def release(self) -> None:
        """Note that a request has ended."""
        with self._lock:
            self.outstanding -= 1
            last = self._retiring and not self.outstanding
        if last:
            self.kill()

    def send(self, payload: bytes, headers: Mapping[str, str]) -> Answer:
        """Return the program's answer to a request.

        Raises
        ------
        NoAnswer
            When there is none.
        """
        server = self._server
        assert server is not None  # noqa: S101 - it was in service when it was chosen
        return server.send(payload, headers, INVOCATION_SECONDS)

    def retire(self) -> None:
        """End as soon as the outstanding requests are answered; there must be no further ones."""
        with self._lock:
            self._retiring = True
            idle = not self.outstanding
        if idle:
            self.kill()

    def kill(self) -> None:
        """End at once."""
        with self._lock:
            self._ending.set()
            server = self._server
        if server is not None:
            server.kill()

    def join(self, seconds: float) -> None:
        """Wait so long for the end of the instance."""
        self._thread.join(timeout=seconds)

    def _run(self) -> None:
        files: ContainerFolder | None = None
        pause = _FIRST_PAUSE_SECONDS
        try:
            while True:
                began = time.monotonic()
                try:
                    files = files or self._fetch()
                    self._serve(files)
                except (ModelDataError, ServerFailed, ServiceError) as error:
                    self._fail(str(error))
                except _Ending:
                    raise
                except Exception as error:
                    _logger.exception("An instance of %s failed", self._folder.parent.name)
                    self._fail(f"{type(error).__name__}: {error}")
                if time.monotonic() - began > _STEADY_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS
                self._ending.wait(pause)
                self._check()
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        except _Ending:
            pass
        finally:
            self.in_service = False
            shutil.rmtree(self._folder, ignore_errors=True)
            self.ended = True
            self._context.hosting_changed.set()

    def _fetch(self) -> ContainerFolder:
        shutil.rmtree(self._folder, ignore_errors=True)  # what a failed attempt has left
        self._folder.mkdir(parents=True)
        try:
            return fetch_model(self._context.objects, self._variant["Container"], self._folder)
        except ModelDataError as error:
            raise ModelDataError(f"Failed to download model data: {error}") from error

    def _serve(self, files: ContainerFolder) -> None:
        """Serve until the program ends, or raise what it failed of."""
        try:
            with self._lock:
                self._check()
                server = self._server = ModelServer(
                    self._context.images.program(self._variant["Container"]["Image"]).serve,
                    self._variant["Container"],
                    files,
                    {},
                    self._log,
                    self._context.lock,
                )
            server.await_ready(self._check, self._variant["StartupSeconds"])
            self.failure = None
            self.in_service = True
            self._context.hosting_changed.set()
            status = server.wait()
            self._check()
            self._log([f"[sagemaker logs]: The model's container ended, exit code: {status}."])
        except ServerFailed as error:
            raise ServerFailed(
                f"The primary container for production variant {self._variant['VariantName']} did"
                f" not pass the ping health check. {error}"
                " Please check CloudWatch logs for this endpoint."
            ) from error
        finally:
            self.in_service = False
            if self._server is not None:
                self._server.kill()

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self._log([f"[sagemaker logs]: {reason}"])
        self._context.hosting_changed.set()

    def _check(self) -> None:
        if self._ending.is_set():
            raise _Ending

    def _log(self, lines: Sequence[str]) -> None:
        self._context.store.append_log(self._log_stream, lines)
