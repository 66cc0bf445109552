"""A code location in which things go wrong and people are told, and runs wait for one another."""

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

from dagster import (
    AssetCheckResult,
    Definitions,
    Failure,
    FreshnessPolicy,
    asset,
    asset_check,
    define_asset_job,
    in_process_executor,
    job,
    op,
)

from recsys_assets.assets.models import SAGEMAKER_POOL
from recsys_assets.automation.config import NotificationsConfig
from recsys_assets.automation.notifications import notification_sensors
from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.notifications import Notifications


@asset
def broken() -> None:
    """Fail."""
    raise Failure("no column rating", allow_retries=False)


@asset(freshness_policy=FreshnessPolicy.time_window(fail_window=timedelta(days=1)))
def doubtful() -> None:
    """Make nothing."""


@asset_check(asset=doubtful)
def certain() -> AssetCheckResult:
    """Find that something is wrong."""
    return AssetCheckResult(passed=False, metadata={"value": 0.5}, description="half of it")


@op
def crash() -> None:
    """End the process as a machine that runs out of memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


@job
def crashing() -> None:
    """Crash."""
    crash()


@op(pool=SAGEMAKER_POOL)
def wait() -> None:
    """Wait until the file is there that the environment names."""
    while not Path(os.environ["GO"]).exists():
        time.sleep(0.1)


@job
def waiting() -> None:
    """Wait, as a run does whose job trains."""
    wait()


defs = Definitions(
    assets=[broken, doubtful],
    asset_checks=[certain],
    jobs=[
        define_asset_job("failing", selection=[broken]),
        define_asset_job("checking", selection=[doubtful]),
        crashing,
        waiting,
    ],
    sensors=notification_sensors(NotificationsConfig()),
    resources={"notifications": Notifications(aws=AwsClients(local=True))},
    executor=in_process_executor,
)
