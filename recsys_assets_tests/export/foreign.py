"""Graphs that are not the platform's."""

from typing import Any, Literal

from dagster import (
    AssetCheckResult,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetOut,
    AssetSpec,
    Config,
    DailyPartitionsDefinition,
    Definitions,
    DynamicPartitionsDefinition,
    FilesystemIOManager,
    Output,
    RetryPolicy,
    StaticPartitionsDefinition,
    WeeklyPartitionsDefinition,
    asset,
    asset_check,
    multi_asset,
    multi_asset_check,
)
from pydantic import Field

from recsys_assets.export.metadata import (
    SPARK,
    TRAINING,
    TUNING,
    alternative,
    opt_in,
    remote_work,
)
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


def made_by_a_factory(name: str) -> Any:
    @multi_asset(specs=[AssetSpec(f"{name}_left"), AssetSpec(f"{name}_right")])
    def build(): ...

    return build


factories = _definitions(made_by_a_factory("one"), made_by_a_factory("other"))


@multi_asset(specs=[AssetSpec("first"), AssetSpec("last", deps=["between"])], can_subset=True)
def both_ends(): ...


@asset(deps=["first"])
def between() -> None: ...


zigzag = _definitions(both_ends, between)


@multi_asset_check(
    specs=[
        AssetCheckSpec("early", asset="numbers", blocking=True),
        AssetCheckSpec("late", asset="evens", blocking=True),
    ]
)
def early_and_late(): ...


checked_together = _definitions(numbers, evens, checks=[early_and_late])


@asset(deps=[published])
def plain_between() -> None: ...


@asset(deps=[plain_between], metadata=opt_in("publish", "Publish it."))
def archived() -> None: ...


asked_for_around = _definitions(numbers, evens, odds, together, published, plain_between, archived)


@asset(deps=[numbers], metadata=opt_in("numbers", "Count."))
def named_as_asked() -> None: ...


asked_by_name = _definitions(numbers, named_as_asked)


@asset(config_schema={"upto": int})
def legacy(context: AssetExecutionContext) -> None: ...


legacy_config = _definitions(legacy)


class PrefixConfig(Config):
    again: CountConfig = CountConfig()


@asset
def regional_count(config: PrefixConfig) -> None: ...


@asset(key=["regional_count", "again"])
def prefixed(config: CountConfig) -> None: ...


same_params = _definitions(regional_count, prefixed)


def no_such_field(context: RequestContext) -> dict[str, Any]:
    return {"sagemaker_training": {"Missing": context.param("missing")}}


@asset(metadata=remote_work(TRAINING, requests=f"{__name__}:no_such_field"))
def misread() -> None: ...


@asset(metadata=remote_work(TUNING, requests=f"{__name__}:job_request"))
def unasked(numbers: list[int]) -> None: ...


@asset(metadata=remote_work(TRAINING, requests=f"{__name__}:not_there"))
def unwritten() -> None: ...


@asset(metadata=remote_work("sagemaker_magic", requests=f"{__name__}:job_request"))
def unknown_work() -> None: ...


missing_field = _definitions(misread)
missing_request = _definitions(numbers, unasked)
missing_function = _definitions(unwritten)
missing_kind = _definitions(unknown_work)


@multi_asset(
    outs={
        "trained_one": AssetOut(
            is_required=False,
            metadata={
                **alternative("how", "train"),
                **remote_work(TRAINING, requests=f"{__name__}:job_request"),
            },
        ),
        "written_one": AssetOut(is_required=False, metadata=alternative("how", "write")),
        "one": AssetOut(),
    },
    can_subset=True,
)
def mixed_alternatives(): ...


mixed = _definitions(mixed_alternatives)


class HowConfig(Config):
    how: Literal["small", "large"] = "small"


@multi_asset(
    outs={
        "small_one": AssetOut(is_required=False, metadata=alternative("how", "small")),
        "large_one": AssetOut(is_required=False, metadata=alternative("how", "large")),
        "any_one": AssetOut(),
    },
    can_subset=True,
)
def own_alternatives(config: HowConfig): ...


@asset(deps=["small_one"])
def after_small_one() -> None: ...


alternatives = _definitions(own_alternatives, after_small_one)


@multi_asset(
    outs={"rare": AssetOut(is_required=False), "common": AssetOut()}, partitions_def=REGIONS
)
def regional_sizes(): ...


@asset
def all_rare(rare: dict[str, int]) -> None: ...


optional_partitions = _definitions(regional_sizes, all_rare)


@asset_check(asset=regional, blocking=True)
def whole(regional: dict[str, str]) -> AssetCheckResult:
    return AssetCheckResult(passed=True)


@asset_check(asset=regional, blocking=True, partitions_def=REGIONS)
def each(regional: str) -> AssetCheckResult:
    return AssetCheckResult(passed=regional == "eu")


checked_whole = _definitions(regional, checks=[whole])
checked_each = _definitions(regional, checks=[each])


@asset(partitions_def=StaticPartitionsDefinition([]))
def nowhere() -> None: ...


no_partitions = _definitions(nowhere)


@asset(partitions_def=DynamicPartitionsDefinition(name="customers"))
def by_customer() -> None: ...


customers = _definitions(by_customer)
