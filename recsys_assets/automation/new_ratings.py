"""The sensor that has new ratings ingested.

What belongs here: when a run is requested, and for what. What does not: finding what has arrived
(``recsys_assets.resources.landing``) and ingesting it (``recsys_assets.assets.ratings``).

What has been ingested says the ledger, which is committed with raw_ratings. The cursor is a
position in the listing and nothing more: without it, a look begins at the beginning. A tick that
died, a daemon that was started again and two daemons at once request the same run by the same key,
which Dagster starts once; and a run passes over what the ledger has.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from dagster import (
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRecord,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES
from dagster._grpc.utils import default_sensor_grpc_timeout

from recsys_assets.assets.ratings import LANDING
from recsys_assets.automation.config import AutomationConfig
from recsys_assets.domain.ratings.ledger import Ledger
from recsys_assets.resources.landing import LandedObject, Landing, Look, read_ledger
from recsys_assets.resources.landing.ledgers import RAW_RATINGS
from recsys_assets.resources.landing.looking import is_known
from recsys_assets.resources.object_store import Head, ObjectStore

INGEST_JOB = "ingest_ratings"
LANDING_TAG = "recsys/landing"
"""Of every run that ingests: the id of its landing."""

_PAUSE_SECONDS = 60
_LONGEST_PAUSE_SECONDS = 3600
_RUNS_LOOKED_AT = 20

# A run that was created and not handed over is not at work: the daemon that died in between may
# never come back. When the same run is requested again, Dagster hands it over.
_AT_WORK = [
    status for status in NOT_FINISHED_STATUSES if status is not DagsterRunStatus.NOT_STARTED
]


def new_ratings_sensor(config: AutomationConfig) -> SensorDefinition:
    """Return the sensor that looks at the landing and requests runs of :data:`INGEST_JOB`."""

    @sensor(
        job_name=INGEST_JOB,
        minimum_interval_seconds=config.landing.interval_seconds,
        default_status=DefaultSensorStatus.RUNNING,
        description="Has new, overwritten and deleted objects of the landing ingested.",
    )
    def new_ratings_sensor(
        context: SensorEvaluationContext, landing: Landing, store: ObjectStore
    ) -> SensorResult:
        instance = context.instance
        at_work = instance.get_runs(
            RunsFilter(tags={LANDING_TAG: landing.id}, statuses=_AT_WORK), limit=1
        )
        if at_work:
            reason = f"Run {at_work[0].run_id} is ingesting from {landing.uri}."
            return SensorResult(skip_reason=reason, cursor=context.cursor)
        head, ledger = read_ledger(store, landing.id)
        ended = instance.get_run_records(
            RunsFilter(tags={LANDING_TAG: landing.id}, statuses=FINISHED_STATUSES),
            limit=_RUNS_LOOKED_AT,
        )
        failed = _failed_since(ended, head)
        pause = _pause(failed)
        if pause > 0:
            reason = (
                f"Failed in a row from {landing.uri}: {len(failed)}, the last of them run "
                f"{failed[0].dagster_run.run_id}. The next is started in {pause / 60:.1f} minutes."
            )
            return SensorResult(skip_reason=reason, cursor=context.cursor)
        left_over = _left_over(ended, ledger)[: config.landing.objects_per_run]
        look = landing.look(
            ledger,
            _position(context.cursor),
            budget_seconds=default_sensor_grpc_timeout() / 2,
            limit=config.landing.objects_per_run - len(left_over),
        )
        cursor = json.dumps({"after": look.after})
        arrivals = [*dict.fromkeys([*left_over, *look.arrivals])]
        # Without arrivals a run publishes what is committed, and Dagster hears of it.
        if arrivals or _is_untold(instance, ended, head):
            request = _request(landing, arrivals, head, failed)
            return SensorResult(run_requests=[request], cursor=cursor)
        return SensorResult(skip_reason=_said(landing, look), cursor=cursor)

    return new_ratings_sensor


def _position(cursor: str | None) -> str | None:
    """Return the key after which to go on; a cursor that cannot be read is a lost one."""
    try:
        after = json.loads(cursor or "")["after"]
    except (ValueError, KeyError, TypeError):
        return None
    return after if isinstance(after, str) else None


def _request(
    landing: Landing,
    arrivals: Sequence[LandedObject],
    head: Head,
    failed: Sequence[RunRecord],
) -> RunRequest:
    """Return the request for a run, by a key that says what it starts from and what it adds.

    What is new is new to a ledger: a file that goes A, B, A arrives three times. A run that failed
    is no reason not to start another.
    """
    told = [found.to_json() for found in arrivals]
    run_key = {
        "landing": landing.id,
        "committed": head.version.run_id if head.version else None,
        "failed": failed[0].dagster_run.run_id if failed else None,
        "arrivals": told,
    }
    return RunRequest(
        run_key=hashlib.sha256(json.dumps(run_key, sort_keys=True).encode()).hexdigest(),
        run_config={"ops": {RAW_RATINGS: {"config": {"source": LANDING, "arrivals": told}}}},
        tags={LANDING_TAG: landing.id},
    )


def _failed_since(ended: Sequence[RunRecord], head: Head) -> list[RunRecord]:
    """Return the runs that failed since one committed, the latest first."""
    return [*takewhile(lambda record: not _is_success(record) and not _made(record, head), ended)]


def _left_over(ended: Sequence[RunRecord], ledger: Ledger) -> list[LandedObject]:
    """Return what failed runs were to ingest and the ledger does not have.

    By now another object may be in its place, so that a look does not find it again.
    """
    configs: list[Any] = [
        record.dagster_run.run_config for record in reversed(ended) if not _is_success(record)
    ]
    told = [
        LandedObject.from_json(arrival)
        for config in configs
        # A person may have started one that looks for itself.
        for arrival in config["ops"][RAW_RATINGS]["config"].get("arrivals") or ()
    ]
    return [found for found in told if not found.deleted and not is_known(ledger, found)]


def _pause(failed: Sequence[RunRecord]) -> float:
    """Return the seconds to wait after failures: 1, 2, 4 and so on to 60 minutes from the last.

    Nobody waits for a time to come that another machine's clock has written.
    """
    if not failed or failed[0].end_time is None:
        return 0
    pause: float = min(_PAUSE_SECONDS * 2 ** (len(failed) - 1), _LONGEST_PAUSE_SECONDS)
    since = time.time() - failed[0].end_time
    return pause - since if since >= 0 else 0


def _is_untold(instance: DagsterInstance, ended: Sequence[RunRecord], head: Head) -> bool:
    """Tell whether Dagster has not heard of what is committed.

    A run that is killed between the two leaves it so.
    """
    if head.version is None:
        return False
    later = takewhile(lambda record: not _made(record, head), ended)
    runs = [*(record.dagster_run.run_id for record in later), head.version.run_id]
    return not any(_has_told(instance, run_id) for run_id in runs)


def _has_told(instance: DagsterInstance, run_id: str) -> bool:
    told = instance.get_records_for_run(
        run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION
    ).records
    return any(
        record.event_log_entry.dagster_event is not None
        and record.event_log_entry.dagster_event.asset_key is not None
        and record.event_log_entry.dagster_event.asset_key.path == [RAW_RATINGS]
        for record in told
    )


def _is_success(record: RunRecord) -> bool:
    return record.dagster_run.status is DagsterRunStatus.SUCCESS


def _made(record: RunRecord, head: Head) -> bool:
    return head.version is not None and record.dagster_run.run_id == head.version.run_id


def _said(landing: Landing, look: Look) -> str:
    """Return what a person should know of a look without arrivals."""
    said = f"Nothing new in {landing.uri}"
    if look.waiting:
        waiting = ", ".join(f"{count:,} {what}" for what, count in look.waiting.most_common())
        said += f"; waiting: {waiting}"
    if not look.finished:
        said += f"; the next look goes on after {look.after}"
    return said + "."
