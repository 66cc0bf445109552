"""Training on a schedule: when runs are asked for, through clock changes too, and which."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    DefaultScheduleStatus,
    Definitions,
    ScheduleDefinition,
    build_schedule_context,
    validate_run_config,
)
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import SCHEDULE_NAME_TAG
from dagster._core.test_utils import create_run_for_test
from dagster._utils.schedules import schedule_execution_time_iterator

from recsys_assets.automation.config import AutomationConfig, SchedulesConfig
from recsys_assets.definitions import RETRAINING_JOB, build_defs
from recsys_assets.settings import Settings

MODES = {"nightly_retraining": "train", "weekly_tuning": "tune"}
BERLIN = "schedules: {timezone: Europe/Berlin, nightly_retraining: 30 2 * * *}"


def definitions(folder: Path, config: str = "{}") -> Definitions:
    path = folder / "automation.yaml"
    path.write_text(config)
    variables = {"RECSYS_STATE": "/nowhere", "RECSYS_AUTOMATION_CONFIG": str(path)}
    return build_defs(Settings.from_environment(variables))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    settings = {"telemetry": {"enabled": False}}
    with DagsterInstance.local_temp(str(tmp_path), overrides=settings) as made:
        yield made


def times(schedule: ScheduleDefinition, day: datetime, days: int) -> list[datetime]:
    """Return when Dagster's scheduler evaluates a schedule, from a day on, in its time zone."""
    zone = ZoneInfo(schedule.execution_timezone or "UTC")
    ticks = schedule_execution_time_iterator(
        day.timestamp(), schedule.cron_schedule, schedule.execution_timezone, ascending=True
    )
    end = day + timedelta(days=days)
    return [tick.astimezone(zone) for tick in takewhile(lambda tick: tick < end, ticks)]


@pytest.mark.parametrize("name", MODES)
def test_schedules_are_off_until_somebody_turns_them_on(name: str, tmp_path: Path) -> None:
    schedule = definitions(tmp_path).resolve_schedule_def(name)
    assert schedule.default_status is DefaultScheduleStatus.STOPPED


@pytest.mark.parametrize("name", MODES)
def test_a_tick_asks_for_one_run_of_everything_from_filtered_ratings_on(
    name: str, tmp_path: Path, instance: DagsterInstance
) -> None:
    defs = definitions(tmp_path)
    schedule = defs.resolve_schedule_def(name)
    context = build_schedule_context(instance, scheduled_execution_time=datetime.now(UTC))
    (request,) = schedule.evaluate_tick(context).run_requests or []
    assert schedule.job_name == RETRAINING_JOB
    assert request.partition_key is None
    assert request.run_config == {"ops": {"model_training": {"config": {"mode": MODES[name]}}}}
    job = defs.resolve_job_def(RETRAINING_JOB)
    assert validate_run_config(job, request.run_config)
    made = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    everything = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    assert made == everything - {"raw_ratings", "registered_model", "endpoint"}
    assert "filtered_ratings_checks" in {node.name for node in job.nodes}


AT_WORK = {*NOT_FINISHED_STATUSES} - {DagsterRunStatus.QUEUED}  # which needs a code location


@pytest.mark.parametrize("status", sorted(AT_WORK, key=str))
@pytest.mark.parametrize("name", MODES)
def test_no_run_is_asked_for_while_the_last_one_is_at_work(
    name: str, status: DagsterRunStatus, tmp_path: Path, instance: DagsterInstance
) -> None:
    schedule = definitions(tmp_path).resolve_schedule_def(name)
    (other,) = MODES.keys() - {name}
    create_run_for_test(instance, status=DagsterRunStatus.STARTED, tags={SCHEDULE_NAME_TAG: other})
    for ended in (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED):
        create_run_for_test(instance, status=ended, tags={SCHEDULE_NAME_TAG: name})
    context = build_schedule_context(instance, scheduled_execution_time=datetime.now(UTC))
    assert schedule.evaluate_tick(context).run_requests
    last = create_run_for_test(instance, status=status, tags={SCHEDULE_NAME_TAG: name})
    done = schedule.evaluate_tick(context)
    assert not done.run_requests
    assert last.run_id in str(done.skip_message)


def test_the_hour_that_is_skipped_in_spring_skips_no_night(tmp_path: Path) -> None:
    schedule = definitions(tmp_path, BERLIN).resolve_schedule_def("nightly_retraining")
    found = times(schedule, datetime(2026, 3, 28, tzinfo=UTC), 3)
    assert [f"{tick:%d %H:%M %z}" for tick in found] == [
        "28 02:30 +0100",
        "29 03:00 +0200",  # there is no 02:30
        "30 02:30 +0200",
    ]


def test_the_hour_that_comes_twice_in_autumn_has_one_run(tmp_path: Path) -> None:
    schedule = definitions(tmp_path, BERLIN).resolve_schedule_def("nightly_retraining")
    found = times(schedule, datetime(2026, 10, 24, tzinfo=UTC), 3)
    assert [f"{tick:%d %H:%M %z}" for tick in found] == [
        "24 02:30 +0200",
        "25 02:30 +0100",
        "26 02:30 +0100",
    ]


def test_a_whole_year_has_one_run_a_night_and_one_a_week(tmp_path: Path) -> None:
    defs = definitions(tmp_path, "schedules: {timezone: Europe/Berlin}")
    new_year = datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    nights = times(defs.resolve_schedule_def("nightly_retraining"), new_year, 365)
    assert [tick.date() for tick in nights] == [
        new_year.date() + timedelta(days=day) for day in range(365)
    ]
    weeks = times(defs.resolve_schedule_def("weekly_tuning"), new_year, 365)
    assert {tick.isoweekday() for tick in weeks} == {7}
    assert {later.date() - earlier.date() for earlier, later in pairwise(weeks)} == {
        timedelta(days=7)
    }


def test_cron_and_time_zone_are_those_of_the_configuration(tmp_path: Path) -> None:
    defs = definitions(tmp_path, "schedules: {timezone: Asia/Tokyo, weekly_tuning: 15 4 * * 6}")
    tuning = defs.resolve_schedule_def("weekly_tuning")
    assert (tuning.cron_schedule, tuning.execution_timezone) == ("15 4 * * 6", "Asia/Tokyo")
    nightly = defs.resolve_schedule_def("nightly_retraining")
    assert nightly.cron_schedule == SchedulesConfig().nightly_retraining
    assert AutomationConfig().schedules.timezone == "UTC"
