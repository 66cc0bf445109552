"""How a run's events are shown on a terminal.

What belongs here: the loggers. What does not: what is logged.
"""

import logging
import sys
import time

from dagster import InitLoggerContext, colored_console_logger, logger
from dagster._core.events import DagsterEvent, DagsterEventType

console_logger = colored_console_logger


class _ProgressFormatter(logging.Formatter):
    """One line a step and a message, with the seconds since the run began."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()

    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", None)
        event: DagsterEvent | None = getattr(meta, "dagster_event", None)
        step = getattr(meta, "step_key", None) or ""
        text = _event_text(event) if event else getattr(meta, "orig_message", record.getMessage())
        return f"[{time.monotonic() - self._began:6.1f} s] {step:<24} {text}"


def _event_text(event: DagsterEvent) -> str:
    if event.event_type is DagsterEventType.STEP_SUCCESS:
        return f"done in {event.step_success_data.duration_ms / 1000:.1f} s"
    return "started"


def _is_progress(record: logging.LogRecord) -> bool:
    event = getattr(getattr(record, "dagster_meta", None), "dagster_event", None)
    if event is None:
        return record.levelno >= logging.INFO
    return event.event_type in (DagsterEventType.STEP_START, DagsterEventType.STEP_SUCCESS)


@logger
def progress_logger(context: InitLoggerContext) -> logging.Logger:
    """Write one line for each step and message, for a person who waits for the run."""
    progress = logging.Logger("recsys_assets.progress", level=logging.DEBUG)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_ProgressFormatter())
    handler.addFilter(_is_progress)
    progress.addHandler(handler)
    return progress
