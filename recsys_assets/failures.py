"""Why steps of a run failed, in one line each.

What belongs here: reading it out of Dagster's events. What does not: whom it is told
(``recsys_assets.cli``, ``recsys_assets.automation.notifications``).

Dagster is imported where it is needed alone: the command line imports this at its start.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import AssetCheckEvaluation, DagsterEvent

# The module of an exception's class, and pydantic's link to its web pages.
_NOISE = re.compile(r"^[\w.]+\.(?=\w+: )|\s*For further information visit \S+")


def failed_steps(events: Iterable["DagsterEvent"]) -> dict[str, str]:
    """Return the reason of each failed step by its key, in the order of their failing.

    A step whose checks stopped the run failed for what they found.

    Parameters
    ----------
    events
        Of one run; at least those of failed steps and of checks.
    """
    events = [*events]
    return {
        str(event.step_key): _blocking(events, str(event.step_key)) or _reason(event)
        for event in events
        if event.is_step_failure
    }


def evaluations(events: Iterable["DagsterEvent"]) -> "list[AssetCheckEvaluation]":
    """Return what checks have found, in the order of the events."""
    return [
        event.asset_check_evaluation_data
        for event in events
        if event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]


def _blocking(events: Sequence["DagsterEvent"], step: str) -> str:
    """Return what the checks of a failed step have found that do not let it pass."""
    from dagster import AssetCheckSeverity

    return "; ".join(
        f"{found.check_name}: {found.description}"
        for found in evaluations(event for event in events if event.step_key == step)
        if not found.passed and found.severity is AssetCheckSeverity.ERROR
    )


def _reason(event: "DagsterEvent") -> str:
    failure = event.step_failure_data
    if failure.user_failure_data and failure.user_failure_data.description:
        text = failure.user_failure_data.description
    else:
        error = failure.error
        while error is not None and error.cause is not None:
            error = error.cause
        text = _NOISE.sub("", error.message) if error is not None else "unknown reason"
    return " ".join(text.split())
