"""What jobs of every kind have in common: their record's course and one run of their work.

A new record, a request to stop, an interruption, a program's end and the end of the job stand
here once. What a kind of job does meanwhile, and what more its record tells, stands in its own
module.
"""

import abc
import contextlib
import logging
import math
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from recsys_assets.sagemaker_local.containers.container import HOST, Container
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.jobs.background import Background
from recsys_assets.sagemaker_local.store import RETRY_SECONDS, Description, Kind, StoreError

DEFAULT_MAX_RUNTIME_SECONDS = 86_400
"""How long a job's program may run when its request does not say, as on AWS."""

LONGEST_FAILURE_REASON = 1024
"""Characters that the API allows a FailureReason."""

STOP_GRACE_SECONDS = 10.0
"""How long a program may take between SIGTERM and SIGKILL (AWS: 120; people wait here)."""

_logger = logging.getLogger(__name__)


class StopRequested(Exception):  # noqa: N818 - a request, not an error
    """The client asked to stop the job."""


class Interrupted(Exception):  # noqa: N818 - no fault of the job
    """The endpoint is ending; the job is to be started again by the next one."""


class JobFailed(Exception):  # noqa: N818 - the name that the job's status has
    """The job cannot go on; the message is its FailureReason."""


def new_job(kind: Kind, request: Mapping[str, Any]) -> Description:
    """Return what the record of every new job has.

    Parameters
    ----------
    kind
        The kind of job.
    request
        A checked Create request; its tags are kept elsewhere.
    """
    job = {member: value for member, value in request.items() if member != "Tags"}
    job[kind.arn_member] = kind.arn(request[kind.name_member])
    job[kind.status_member] = "InProgress"
    return job


class Run(abc.ABC):
    """One run of one job, from its start to the end of its record or of the endpoint.

    Parameters
    ----------
    context
        The endpoint's shared parts.
    name
        The job's name.
    """

    kind: ClassVar[Kind]
    log_group: ClassVar[str]

    def __init__(self, context: Context, name: str) -> None:
        self.context = context
        self.name = name
        self._stop_requested = threading.Event()
        self._interrupted = threading.Event()

    # The course of a job's record

    @classmethod
    def note_start(cls, job: Description) -> None:
        """Note in a job's record that a run of it begins."""
        job[f"{cls._prefix()}StartTime"] = time.time()

    @classmethod
    def request_stop(cls, job: Description) -> None:
        """Note in a job's record that it is to stop; nothing if it is not in progress."""
        if job[cls.kind.status_member] == "InProgress":
            job[cls.kind.status_member] = "Stopping"

    @classmethod
    def note_interruption(cls, job: Description) -> None:
        """Note in a job's record that its run was lost and that it waits for another."""
        job.pop(f"{cls._prefix()}StartTime", None)

    @classmethod
    def end(cls, job: Description, status: str, reason: str | None = None) -> None:
        """Write the end to a job's record, unless it has one.

        Parameters
        ----------
        job
            The record.
        status
            ``Completed``, ``Failed`` or ``Stopped``. A job that the client stopped meanwhile ends
            as ``Stopped`` unless it failed.
        reason
            The FailureReason of a failed job; its beginning if it is too long for the API.
        """
        member = cls.kind.status_member
        if job[member] not in ("InProgress", "Stopping"):
            return
        if job[member] == "Stopping" and status != "Failed":
            status = "Stopped"
        job[member] = status
        job[f"{cls._prefix()}EndTime"] = time.time()
        if reason is not None:
            job["FailureReason"] = reason[:LONGEST_FAILURE_REASON]

    @classmethod
    def _prefix(cls) -> str:
        """Return how members of the job's own begin, such as ``Training`` in TrainingStartTime."""
        return cls.kind.label.removesuffix("Job")

    # The run

    def stop(self) -> None:
        """Ask for an early end, because the client did. May be called repeatedly."""
        self._stop_requested.set()

    def interrupt(self) -> None:
        """Ask for an end at once that leaves the record as it is, because the endpoint ends."""
        self._interrupted.set()

    def run(self) -> None:
        """Do the job. Every end but an interruption is written to the job's record."""
        folder = self.context.work_folder / self.kind.resource_type / self.name
        try:
            folder.mkdir(parents=True)
            self._do(folder)
        except Interrupted:
            return
        except StopRequested:
            self._end("Stopped")
        except JobFailed as failure:
            self._end("Failed", str(failure))
        except ServiceError as error:
            self._end("Failed", f"ClientError: {error}")
        except Exception as error:
            if self._interrupted.is_set():
                return  # a consequence of the interruption
            _logger.exception("%s %s failed", self.kind.resource_type, self.name)
            self._end("Failed", f"InternalServerError: {type(error).__name__}: {error}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @abc.abstractmethod
    def _do(self, folder: Path) -> None:
        """Do the job in a fresh folder and write its good end to the record."""

    def _end(self, status: str, reason: str | None = None) -> None:
        """Write the end to the record, as soon as that can be written."""
        while True:
            try:
                with self.context.store.edit(self.kind, self.name) as job:
                    self.end(job, status, reason)
            except StoreError:
                _logger.exception("%s %s has to wait for its end", self.kind.label, self.name)
                if self._interrupted.wait(RETRY_SECONDS):
                    return
            else:
                return

    def _check(self) -> None:
        """Give way to a stop or an interruption.

        Raises
        ------
        Interrupted, StopRequested
            When asked for.
        """
        if self._interrupted.is_set():
            raise Interrupted
        if self._stop_requested.is_set():
            raise StopRequested

    def _await_end(
        self, container: Container, max_runtime: float, beside: Sequence[Background]
    ) -> tuple[int, bool]:
        """Follow a program to its end.

        It is asked to end when its time is over or the client stops the job, and is killed when it
        does not, when the endpoint ends or when the work beside it fails.

        Parameters
        ----------
        container
            The program.
        max_runtime
            Seconds that it may run.
        beside
            What goes on beside it, to be started here and ended with it.

        Returns
        -------
        tuple[int, bool]
            Its exit status, and whether its time ran out.

        Raises
        ------
        Interrupted
            When the endpoint ends.
        Exception
            What the work beside the program failed with.
        """
        deadline = time.monotonic() + max_runtime
        kill_at = math.inf
        timed_out = False
        with contextlib.ExitStack() as stack:
            for work in beside:
                stack.enter_context(work)
            stack.callback(container.kill)  # ahead of the work's end, which may wait for that
            while (status := container.wait(0.1)) is None:
                now = time.monotonic()
                for work in beside:
                    work.check()
                if self._interrupted.is_set():
                    raise Interrupted
                if now >= kill_at:
                    container.kill()
                elif kill_at == math.inf and (now >= deadline or self._stop_requested.is_set()):
                    timed_out = not self._stop_requested.is_set()
                    container.terminate()
                    kill_at = now + STOP_GRACE_SECONDS
        for work in beside:
            work.check()
        return status, timed_out

    def _open_log(self) -> int:
        """Return the number of the job's log stream."""
        suffix = f"{HOST}-{int(time.time())}"
        return self.context.store.open_log_stream(self.log_group, f"{self.name}/", suffix)

    def _log(self, stream: int, lines: Sequence[str]) -> None:
        self.context.store.append_log(stream, lines)


def program_failure(text: str, status: int) -> JobFailed:
    """Return the failure of a job whose program has failed, in AWS's words.

    Parameters
    ----------
    text
        What the program told about it, or ''.
    status
        Its exit status.
    """
    text = text or "See job logs for more information"
    if not text.startswith(("AlgorithmError: ", "ClientError: ", "InternalServerError: ")):
        text = f"AlgorithmError: {text}"
    suffix = f", exit code: {status}"
    return JobFailed(text[: LONGEST_FAILURE_REASON - len(suffix)] + suffix)
