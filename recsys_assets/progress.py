"""How a run's events are shown on a terminal.

What belongs here: the loggers. What does not: what is logged.
"""

import logging
import sys
import time
from typing import Any

from dagster import InitLoggerContext, colored_console_logger, logger
from dagster._core.events import DagsterEvent, DagsterEventType

console_logger = colored_console_logger

_SHOWN = (
    DagsterEventType.STEP_START,
    DagsterEventType.STEP_SUCCESS,
    DagsterEventType.STEP_FAILURE,
)
_SKIPPED = "Dependencies for step"  # said of each step that a failed one keeps from running


class _ProgressFormatter(logging.Formatter):
    """One line a step and a message, with the seconds since the run began."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()

    def format(self, record: logging.LogRecord) -> str:
        meta = _dagster_meta(record)
        event = meta.get("dagster_event")
        text = _event_text(event) if event else meta.get("orig_message", record.getMessage())
        step = meta.get("step_key") or ""
        return f"[{time.monotonic() - self._began:6.1f} s] {step:<24} {text}"


def _dagster_meta(record: logging.LogRecord) -> dict[str, Any]:
    """Return what Dagster says about a log record."""
    return getattr(record, "dagster_meta", {})


def _event_text(event: DagsterEvent) -> str:
    if event.event_type is DagsterEventType.STEP_SUCCESS:
        return f"done in {event.step_success_data.duration_ms / 1000:.1f} s"
    return "started" if event.event_type is DagsterEventType.STEP_START else "failed"


def _is_progress(record: logging.LogRecord) -> bool:
    meta = _dagster_meta(record)
    event = meta.get("dagster_event")
    if event is not None:
        return event.event_type in _SHOWN
    skipped = str(meta.get("orig_message", "")).startswith(_SKIPPED)
    return record.levelno >= logging.INFO and not skipped


@logger
def progress_logger(context: InitLoggerContext) -> logging.Logger:
    """Write one line for each step and message, for a person who waits for the run."""
    progress = logging.Logger("recsys_assets.progress", level=logging.DEBUG)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_ProgressFormatter())
    handler.addFilter(_is_progress)
    progress.addHandler(handler)
    return progress
