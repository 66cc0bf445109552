"""Sensors that tell people of runs that failed and of checks that did not pass.

What belongs here: what is worth a message, and that each is sent. What does not: what it says
(``messages.py``), the channels (``recsys_assets.resources.notifications``) and whether a run is
tried again (``dagster.yaml``).

Dagster's own run failure sensor passes over a run when its message could not be sent. These two go
through the ends of runs in the order of the event log, and go on only when a channel has taken what
it is to be told. Each channel has a position of its own: one that is away keeps nobody else waiting
and is told later. A position is a number, so that the cursor stays as small as it is.

One run gives one message: what its checks found is told with its failure, if it failed for good.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dagster import (
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    EventLogRecord,
    RunStatusChangeRecordsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)
from dagster._core.event_api import RunStatusChangeEventType
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG

from recsys_assets.automation.config import NotificationsConfig
from recsys_assets.automation.messages import EndedRun
from recsys_assets.resources.notifications import (
    WEBHOOK_URL,
    Channel,
    ChannelError,
    Message,
    Notifications,
)

_INTERVAL_SECONDS = 15
_RUNS_A_TICK = 50
_TICK_SECONDS = 25  # a sensor has a minute, and one message may take ten seconds
# Events become visible in another order than that of their ids when they are written at once.
_SETTLED_SECONDS = 5
# A run that is to be tried again and is not after so long is told as any other.
_RETRY_STARTS_SECONDS = 600
_ENDS: Final = (
    DagsterEventType.RUN_SUCCESS,
    DagsterEventType.RUN_FAILURE,
    DagsterEventType.RUN_CANCELED,
)


class _UnknownYetError(Exception):
    """It will be known later whether there is something to tell."""


_MessageOf = Callable[[EventLogRecord, DagsterRun], Message | None]


def notification_sensors(config: NotificationsConfig) -> list[SensorDefinition]:
    """Return the sensors, which run unless they are turned off."""

    @sensor(
        name="run_failure_notifications",
        description="Tells every channel of a run that failed and is not tried again.",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
    )
    def run_failures(
        context: SensorEvaluationContext, notifications: Notifications
    ) -> SensorResult | SkipReason:
        def message_of(end: EventLogRecord, run: DagsterRun) -> Message | None:
            if _is_tried_again(context.instance, run, end):
                return None  # its last attempt is worth a message
            return EndedRun(context.instance, run, config).failure(end)

        return _tell(context, notifications, (DagsterEventType.RUN_FAILURE,), message_of)

    @sensor(
        name="check_failure_notifications",
        description="Tells every channel of checks that did not pass, in runs that went on.",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
    )
    def check_failures(
        context: SensorEvaluationContext, notifications: Notifications
    ) -> SensorResult | SkipReason:
        def message_of(end: EventLogRecord, run: DagsterRun) -> Message | None:
            failed = run.status is DagsterRunStatus.FAILURE
            if failed and not _is_tried_again(context.instance, run, end):
                return None  # told with the run's failure
            return EndedRun(context.instance, run, config).check_failures()

        return _tell(context, notifications, _ENDS, message_of)

    return [run_failures, check_failures]


def _tell(
    context: SensorEvaluationContext,
    notifications: Notifications,
    ends: Sequence[RunStatusChangeEventType],
    message_of: _MessageOf,
) -> SensorResult | SkipReason:
    """Tell each channel of what has happened since it was last told.

    Raises
    ------
    ChannelError
        If a channel took nothing, and nothing else was done that the cursor has to remember.
    """
    channels = notifications.channels()
    if not channels:
        return SkipReason(
            f"There is nobody to tell: neither {WEBHOOK_URL} nor notifications.sns_topic_arn is "
            "set."
        )
    before: dict[str, int] = json.loads(context.cursor or "{}")
    told: dict[str, _Told] = {}
    deadline = time.monotonic() + _TICK_SECONDS
    for channel in channels:
        position = before.get(channel.name)
        if position is None:  # what was before is no news to who has just come
            told[channel.name] = _Told(_latest(context.instance, ends))
        else:
            after = _ends(context.instance, ends, position)
            told[channel.name] = _tell_one(
                context, channel, after, message_of, _Told(position), deadline
            )
    positions = {name: each.position for name, each in told.items()}
    problems = [each.problem for each in told.values() if each.problem]
    if problems and positions == before:
        raise ChannelError("; ".join(problems))
    sent = sum(each.messages for each in told.values())
    said = [f"{sent} messages sent", *(f"{problem}; sent again later" for problem in problems)]
    return SensorResult(skip_reason="; ".join(said), cursor=json.dumps(positions))


@dataclass
class _Told:
    """How far a channel has been told, in how many messages, and why no further."""

    position: int
    messages: int = 0
    problem: str | None = None


def _tell_one(
    context: SensorEvaluationContext,
    channel: Channel,
    ends: Sequence[EventLogRecord],
    message_of: _MessageOf,
    told: _Told,
    deadline: float,
) -> _Told:
    """Go on telling a channel of the ends of runs, until it does not take a message."""
    for end in ends:
        if time.monotonic() > deadline or abs(time.time() - end.timestamp) < _SETTLED_SECONDS:
            break
        run = context.instance.get_run_by_id(end.run_id)
        try:
            message = message_of(end, run) if run and _is_ours(run, context) else None
            if message is not None:
                channel.send(message)
                told.messages += 1
        except _UnknownYetError:
            break
        except ChannelError as error:
            told.problem = str(error)
            break
        told.position = end.storage_id
    return told


def _ends(
    instance: DagsterInstance, types: Sequence[RunStatusChangeEventType], after: int
) -> list[EventLogRecord]:
    """Return the ends of runs after a position, the earliest first."""
    found = [
        record
        for event_type in types
        for record in instance.fetch_run_status_changes(
            RunStatusChangeRecordsFilter(event_type=event_type, after_storage_id=after),
            limit=_RUNS_A_TICK,
            ascending=True,
        ).records
    ]
    return sorted(found, key=lambda record: record.storage_id)[:_RUNS_A_TICK]


def _latest(instance: DagsterInstance, types: Sequence[RunStatusChangeEventType]) -> int:
    """Return the position of the last end of a run; -1 if none has ended."""
    return max(
        (
            record.storage_id
            for event_type in types
            for record in instance.fetch_run_status_changes(event_type, limit=1).records
        ),
        default=-1,
    )


def _is_ours(run: DagsterRun, context: SensorEvaluationContext) -> bool:
    """Tell whether a run is of this code location; one that was started in a shell has none."""
    if run.remote_job_origin is None or context.code_location_origin is None:
        return True
    theirs = run.remote_job_origin.repository_origin.code_location_origin
    return theirs.location_name == context.code_location_origin.location_name


def _is_tried_again(instance: DagsterInstance, run: DagsterRun, end: EventLogRecord) -> bool:
    """Tell whether Dagster has started a failed run again.

    That it is going to is no certainty: the code location may be broken.

    Raises
    ------
    _UnknownYetError
        If it may still do so.
    """
    again = run.tags.get(AUTO_RETRY_RUN_ID_TAG)
    retry = None if again is None else instance.get_run_by_id(again)
    if retry is not None and retry.status is not DagsterRunStatus.NOT_STARTED:
        return True
    announced = run.tags.get(WILL_RETRY_TAG) == "true"
    if announced and time.time() - end.timestamp < _RETRY_STARTS_SECONDS:
        raise _UnknownYetError
    return False
