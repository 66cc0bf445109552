"""Cancelled runs: Dagster interrupts a step wherever it stands.

What belongs here: what holds an interrupt back, and what recognizes one. What does not: what is to
be done when a run is cancelled (``sagemaker.py``, ``tracking.py``).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from dagster import DagsterExecutionInterruptedError
from dagster._utils.interrupts import capture_interrupts, check_captured_interrupt

INTERRUPTS = (DagsterExecutionInterruptedError, KeyboardInterrupt)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold an interrupt back until the end of a ``with`` block or of a decorated function.

    A write to SQLite that is cut short leaves the database locked for as long as the traceback
    lives: nothing can be written down about the run that was cancelled.
    """
    with capture_interrupts():
        try:
            yield
        finally:
            if check_captured_interrupt():
                raise DagsterExecutionInterruptedError


def was_interrupted(error: BaseException) -> bool:
    """Tell whether a run was cancelled, be it that cleaning up after that has failed too."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, INTERRUPTS):
            return True
        cause = cause.__context__
    return False
