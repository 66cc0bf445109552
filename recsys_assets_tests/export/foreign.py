"""Graphs that are not the platform's."""

from typing import Any

from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    AssetOut,
    Config,
    DailyPartitionsDefinition,
    Definitions,
    FilesystemIOManager,
    Output,
    RetryPolicy,
    StaticPartitionsDefinition,
    WeeklyPartitionsDefinition,
    asset,
    asset_check,
    multi_asset,
)
from pydantic import Field

from recsys_assets.export.metadata import SPARK, TRAINING, opt_in, remote_work
from recsys_assets.export.requests import RequestContext

REGIONS = StaticPartitionsDefinition(["eu", "us", "asia"])
DAYS = DailyPartitionsDefinition("2026-01-01")


class CountConfig(Config):
    """How far to count."""

    upto: int = Field(default=3, ge=1, description="The last number.")


@asset(
    group_name="numbers",
    owners=["team:counting"],
    tags={"tier": "gold"},
    kinds={"python"},
    retry_policy=RetryPolicy(max_retries=4, delay=7),
    pool="counters",
)
def numbers(config: CountConfig) -> list[int]:
    """All numbers up to one."""
    return list(range(1, config.upto + 1))


@asset
def evens(numbers: list[int]) -> list[int]:
    return [n for n in numbers if n % 2 == 0]


@asset
def odds(numbers: list[int]) -> list[int]:
    return [n for n in numbers if n % 2]


@asset
def together(evens: list[int], odds: list[int]) -> int:
    return sum(evens) + sum(odds)


def _definitions(*assets: Any, checks: Any = ()) -> Definitions:
    return Definitions(
        assets=assets,
        asset_checks=checks,
        resources={"io_manager": FilesystemIOManager(base_dir="stored")},
    )


diamond = _definitions(numbers, evens, odds, together)


@multi_asset(
    outs={
        "large": AssetOut(is_required=False),
        "small": AssetOut(is_required=False),
        "counted": AssetOut(),
    }
)
def sizes(config: CountConfig):
    if config.upto > 10:
        yield Output(config.upto, "large")
    else:
        yield Output(config.upto, "small")
    yield Output(config.upto, "counted")


@asset
def after_large(large: int) -> int:
    return large


@asset
def after_small(small: int) -> int:
    return small


@asset
def after_counted(counted: int) -> int:
    return counted


optional = _definitions(sizes, after_large, after_small, after_counted)


@asset(partitions_def=REGIONS)
def regional(context: AssetExecutionContext) -> str:
    return context.partition_key


@asset(partitions_def=REGIONS)
def regional_again(regional: str) -> str:
    return regional.upper()


@asset
def everywhere(regional_again: dict[str, str]) -> str:
    return ",".join(sorted(regional_again.values()))


one_region = _definitions(regional, regional_again)
all_regions = _definitions(regional, regional_again, everywhere)


@asset(partitions_def=DAYS)
def daily(context: AssetExecutionContext) -> str:
    return context.partition_key


@asset(partitions_def=WeeklyPartitionsDefinition("2026-01-01"))
def weekly(daily: dict[str, str]) -> int:
    return len(daily)


@asset
def ever(daily: dict[str, str]) -> int:
    return len(daily)


days = _definitions(daily)
weeks = _definitions(daily, weekly)
all_days = _definitions(daily, ever)


@asset_check(asset=numbers, blocking=True)
def enough(config: CountConfig, numbers: list[int]) -> AssetCheckResult:
    return AssetCheckResult(passed=len(numbers) >= config.upto)


@asset_check(asset=numbers)
def beautiful() -> AssetCheckResult:
    return AssetCheckResult(passed=False)


checked = _definitions(numbers, evens, checks=[enough, beautiful])


def job_request(context: RequestContext) -> dict[str, Any]:
    return {
        "sagemaker_training": {"HyperParameters": {"upto": context.result("numbers", "rows")}},
        "spark": {"application_id": "app", "release": context.run_id},
    }


@asset(metadata=remote_work(TRAINING, requests=f"{__name__}:job_request"))
def trained(numbers: list[int]) -> str:
    return "model"


@asset(metadata=remote_work(SPARK, requests=f"{__name__}:job_request"))
def sparked(numbers: list[int]) -> str:
    return "rows"


remote = _definitions(numbers, trained, sparked)


@asset(partitions_def=REGIONS, metadata=remote_work(TRAINING, requests=f"{__name__}:job_request"))
def trained_everywhere() -> str:
    return "model"


@asset
def best(trained_everywhere: dict[str, str]) -> str:
    return "model"


remote_everywhere = _definitions(trained_everywhere, best)


@asset(metadata=opt_in("publish", "Publish it."))
def published(together: int) -> int:
    return together


@asset(metadata=opt_in("publish", "Publish it."))
def announced(published: int) -> int:
    return published


asked_for = _definitions(numbers, evens, odds, together, published, announced)


@asset(key=["numbers", "evens"])
def nested() -> int:
    return 1


@asset
def numbers_evens() -> int:
    return 2


same_names = _definitions(nested, numbers_evens)
