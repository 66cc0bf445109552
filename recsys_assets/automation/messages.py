"""What people are told of a run: that it failed and why, or what its checks have found.

What belongs here: the words and the facts of messages, read out of a run's events. What does not:
which runs are worth one and when (``notifications.py``), and what channels make of it
(``recsys_assets.resources.notifications``).
"""

from collections.abc import Sequence
from math import isfinite
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    EventLogRecord,
)
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    HIDDEN_TAG_PREFIX,
    PARTITION_NAME_TAG,
    RETRY_NUMBER_TAG,
    SCHEDULE_NAME_TAG,
    SENSOR_NAME_TAG,
    SYSTEM_TAG_PREFIX,
    WILL_RETRY_TAG,
)

from recsys_assets.automation.config import NotificationsConfig
from recsys_assets.failures import evaluations, failed_steps
from recsys_assets.resources.notifications import Message, shortened

_LISTED = 10  # steps or checks
_NAMED = 3  # assets in a title
_CHARACTERS = 600  # of a line
_EVENTS = {
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    DagsterEventType.ASSET_CHECK_EVALUATION,
    DagsterEventType.STEP_FAILURE,
}
_SHOWN_TAGS = {
    PARTITION_NAME_TAG: "partition",
    ASSET_PARTITION_RANGE_START_TAG: "first partition",
    ASSET_PARTITION_RANGE_END_TAG: "last partition",
    BACKFILL_ID_TAG: "backfill",
    SCHEDULE_NAME_TAG: "schedule",
    SENSOR_NAME_TAG: "sensor",
}


class EndedRun:
    """A run that has ended, and what can be told of it.

    Parameters
    ----------
    instance
        That the run belongs to.
    run
        The run.
    config
        Which checks are told of, and where the UI is.
    """

    def __init__(
        self, instance: DagsterInstance, run: DagsterRun, config: NotificationsConfig
    ) -> None:
        self._run = run
        self._config = config
        entries = instance.all_logs(run.run_id, of_type=_EVENTS)
        self._events = [entry.get_dagster_event() for entry in entries]
        told = {AssetCheckSeverity.ERROR}
        if config.check_severity == "warn":
            told.add(AssetCheckSeverity.WARN)
        self._checks = [
            found
            for found in evaluations(self._events)
            if not found.passed and found.severity in told
        ]

    def failure(self, end: EventLogRecord) -> Message:
        """Return what is told of a run that failed for good.

        Parameters
        ----------
        end
            The event of its failure.
        """
        steps = failed_steps(self._events)
        reasons = [f"{step}: {reason}" for step, reason in steps.items()] or [_reason(end)]
        attempt = int(self._run.tags.get(RETRY_NUMBER_TAG, 0)) + 1
        again = "It is not tried again by itself."
        if self._run.tags.get(WILL_RETRY_TAG) == "true":
            again = "It was to be tried again, but no attempt has been started."
        elif attempt > 1:
            again = f"It was attempt {attempt}, the last one."
        return self._message(
            f"{self._work} failed",
            [*_first(reasons), *self._check_lines(), *self._about(), again],
            event="run_failure",
            attempt=attempt,
            failed_steps=[{"step": step, "reason": reason} for step, reason in steps.items()],
            reason="; ".join(reasons),
        )

    def check_failures(self) -> Message | None:
        """Return what is told of its checks; None if all that is told of passed."""
        if not self._checks:
            return None
        what = "A check" if len(self._checks) == 1 else f"{len(self._checks)} checks"
        return self._message(
            f"{what} did not pass in {self._work}",
            [*self._check_lines(), *self._about()],
            event="check_failure",
        )

    def _message(self, title: str, lines: Sequence[str], **facts: Any) -> Message:
        return Message(
            title=title,
            lines=[shortened(line, _CHARACTERS) for line in lines],
            url=f"{self._config.ui_url}/runs/{self._run.run_id}",
            facts={
                **facts,
                "run_id": self._run.run_id,
                "job": self._run.job_name,
                "assets": self._assets,
                "tags": self._tags,
                "checks": [_facts(check) for check in self._checks],
            },
        )

    @property
    def _is_of_assets(self) -> bool:
        """Whether it is about assets that somebody selected, and of no job of its own."""
        return self._run.job_name.startswith("__")

    @property
    def _assets(self) -> list[str]:
        """The assets that it was to make."""
        planned = {
            event.asset_materialization_planned_data.asset_key
            for event in self._events
            if event.event_type is DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        }
        # A run that never began has planned nothing.
        return sorted(key.to_user_string() for key in planned or self._run.asset_selection or ())

    @property
    def _work(self) -> str:
        """What it was to do, in a few words."""
        if not self._is_of_assets:
            return self._run.job_name
        more = f" and {len(self._assets) - _NAMED} more" if len(self._assets) > _NAMED else ""
        return f"a run of {', '.join(self._assets[:_NAMED])}{more}"

    @property
    def _tags(self) -> dict[str, str]:
        """Its tags without those that are for Dagster alone."""
        hidden = (SYSTEM_TAG_PREFIX, HIDDEN_TAG_PREFIX)
        return {
            _SHOWN_TAGS.get(name, name): value
            for name, value in sorted(self._run.tags.items())
            if name in _SHOWN_TAGS or not name.startswith(hidden)
        }

    def _about(self) -> list[str]:
        lines = []
        if self._is_of_assets and len(self._assets) > _NAMED:
            lines.append(f"Assets: {', '.join(self._assets)}")
        if self._tags:
            lines.append("Tags: " + ", ".join(f"{n}={value}" for n, value in self._tags.items()))
        return lines

    def _check_lines(self) -> list[str]:
        lines = []
        for check in self._checks:
            facts = _facts(check)
            kind = f"{facts['severity']}, blocking" if facts["blocking"] else facts["severity"]
            value = "" if facts["value"] is None else f" (value {facts['value']})"
            told = check.description or "it says nothing"
            lines.append(f"Check {check.check_name} of {facts['asset']} ({kind}): {told}{value}")
        return _first(lines)


def _reason(end: EventLogRecord) -> str:
    """Return why a run failed of which no step did."""
    event = end.event_log_entry.get_dagster_event()
    error = event.job_failure_data.error if event.event_specific_data is not None else None
    while error is not None and error.cause is not None:
        error = error.cause
    text = error.message if error is not None else event.message
    return " ".join((text or "no reason given").split())


def _first(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _LISTED
    return [*lines[:_LISTED], *([f"and {more} more"] if more > 0 else [])]


def _facts(check: AssetCheckEvaluation) -> dict[str, Any]:
    """Return what a check has found as JSON has it, which knows no infinite numbers."""
    found = check.metadata.get("value")
    value = None if found is None else found.value
    if not isinstance(value, int | str | None) and not (
        isinstance(value, float) and isfinite(value)
    ):
        value = str(value)
    return {
        "asset": check.asset_key.to_user_string(),
        "check": check.check_name,
        "severity": check.severity.value.lower(),
        "blocking": bool(check.blocking),
        "description": check.description,
        "value": value,
        "partition": check.partition,
    }
