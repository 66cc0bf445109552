"""Schedules of training: every night from scratch, every week with a search.

What belongs here: when such runs are asked for, and with what config. What does not: training
because enough is new (``conditions.py``) and the job that is run (``recsys_assets.definitions``).

A run makes everything from filtered_ratings to recommendations, so that all of it is of one set of
versions. Both schedules are off until somebody turns them on.
"""

from typing import Literal

from dagster import (
    DefaultScheduleStatus,
    RunRequest,
    RunsFilter,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    schedule,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import SCHEDULE_NAME_TAG

from recsys_assets.automation.config import SchedulesConfig


def training_schedules(
    config: SchedulesConfig, job: UnresolvedAssetJobDefinition
) -> list[ScheduleDefinition]:
    """Return the schedules.

    Parameters
    ----------
    config
        When, and in which time zone. A time that the clocks skip in spring comes as soon as they
        have; one that they repeat in autumn comes once.
    job
        What is run; its step model_training takes the mode.
    """
    return [
        _training_schedule(
            "nightly_retraining", config.nightly_retraining, config.timezone, job, "train"
        ),
        _training_schedule("weekly_tuning", config.weekly_tuning, config.timezone, job, "tune"),
    ]


def _training_schedule(
    name: str,
    cron: str,
    timezone: str,
    job: UnresolvedAssetJobDefinition,
    mode: Literal["train", "tune"],
) -> ScheduleDefinition:
    @schedule(
        name=name,
        cron_schedule=cron,
        execution_timezone=timezone,
        job=job,
        default_status=DefaultScheduleStatus.STOPPED,
        description=f"Everything from filtered_ratings on, with mode {mode}.",
    )
    def training(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        last = RunsFilter(tags={SCHEDULE_NAME_TAG: name}, statuses=NOT_FINISHED_STATUSES)
        at_work = context.instance.get_runs(last, limit=1)
        if at_work:
            return SkipReason(f"Run {at_work[0].run_id} of this schedule is still at work.")
        return RunRequest(run_config={"ops": {"model_training": {"config": {"mode": mode}}}})

    return training
