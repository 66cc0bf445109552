"""One run of one job: how it is stopped, interrupted and brought to an end.

What a kind of job does meanwhile stands in its own module.
"""

import abc
import logging
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.store import Kind

LONGEST_FAILURE_REASON = 1024
"""Characters that the API allows a FailureReason."""

_logger = logging.getLogger(__name__)


class StopRequested(Exception):  # noqa: N818 - a request, not an error
    """The client asked to stop the job."""


class Interrupted(Exception):  # noqa: N818 - no fault of the job
    """The endpoint is ending; the job is to be started again by the next one."""


class JobFailed(Exception):  # noqa: N818 - the name that the job's status has
    """The job cannot go on; the message is its FailureReason."""


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
            # What an earlier run left behind is not to be met.
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._do(folder)
        except Interrupted:
            return
        except StopRequested:
            self._end("Stopped")
        except JobFailed as failure:
            self._end("Failed", str(failure)[:LONGEST_FAILURE_REASON])
        except ServiceError as error:
            self._end("Failed", f"ClientError: {error}"[:LONGEST_FAILURE_REASON])
        except Exception as error:
            if self._interrupted.is_set():
                return  # a consequence of the interruption
            _logger.exception("%s %s failed", self.kind.resource_type, self.name)
            reason = f"InternalServerError: {type(error).__name__}: {error}"
            self._end("Failed", reason[:LONGEST_FAILURE_REASON])
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @abc.abstractmethod
    def _do(self, folder: Path) -> None:
        """Do the job in a fresh folder and write its good end to the record."""

    @abc.abstractmethod
    def _end(self, status: str, reason: str | None = None) -> None:
        """Write the end of the job to its record, unless it is written already."""

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

    def _open_log(self) -> int:
        """Return the number of the job's log stream."""
        suffix = f"algo-1-{int(time.time())}"
        return self.context.store.open_log_stream(self.log_group, f"{self.name}/", suffix)

    def _log(self, stream: int, lines: Sequence[str]) -> None:
        self.context.store.append_log(stream, lines)
