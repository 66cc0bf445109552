"""Data checks: what warns, what fails, and that a failure stops what depends on the asset."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster import AssetCheckResult, AssetCheckSeverity, Output, asset, materialize

from recsys_assets.assets.checks import (
    FilteredRatingsChecksConfig,
    Limits,
    RawRatingsChecksConfig,
    filtered_ratings_checks,
    raw_ratings_checks,
)
from recsys_assets.definitions import build_resources
from recsys_assets.io_managers import ParquetFolder, RawRatings
from recsys_assets.io_managers.ratings import RATINGS, REJECTS
from recsys_assets.settings import Settings
from recsys_assets_tests.domain.literal_ratings import random_ratings, write_ratings


def tables(rows: list) -> ParquetFolder:
    folder = ParquetFolder()
    write_ratings(folder.main, rows)
    return folder


def raw_tables(rows: list, rejects: int = 0) -> RawRatings:
    ratings = RawRatings()
    write_ratings(ratings.file(RATINGS, "source"), rows)
    rejected = pa.table({"reason": ["too few fields"] * rejects})
    pq.write_table(rejected, ratings.file(REJECTS, "source"))
    return ratings


def verdicts(results: Any) -> dict[str, str]:
    def verdict(result: AssetCheckResult) -> str:
        if result.passed:
            return "ok"
        return "fails" if result.severity is AssetCheckSeverity.ERROR else "warns"

    return {result.check_name: verdict(result) for result in results}


def raw_verdicts(
    rows: list, rejects: int = 0, config: RawRatingsChecksConfig | None = None
) -> dict[str, str]:
    config = config or RawRatingsChecksConfig()
    return verdicts(raw_ratings_checks(config=config, raw_ratings=raw_tables(rows, rejects)))


def test_ordinary_ratings_pass() -> None:
    assert set(raw_verdicts(random_ratings(60, 60)).values()) == {"ok"}


@pytest.mark.parametrize(("rejects", "verdict"), [(1, "ok"), (50, "warns"), (900, "fails")])
def test_rejected_lines_warn_and_then_fail(rejects: int, verdict: str) -> None:
    rows = random_ratings(60, 60)
    assert raw_verdicts(rows, rejects)["rejected_share"] == verdict


def test_ratings_of_one_and_the_same_value_fail() -> None:
    rows = [(c, v, 5.0, *rest) for c, v, _, *rest in random_ratings()]
    assert raw_verdicts(rows)["most_frequent_rating_share"] == "fails"


def test_missing_dates_warn() -> None:
    rows = [(c, v, r, None, i, t) for c, v, r, _, i, t in random_ratings()]
    assert raw_verdicts(rows)["missing_share"] == "warns"


def test_pairs_rated_again_warn_and_then_fail() -> None:
    rows = random_ratings()
    assert raw_verdicts(rows + rows[: len(rows) // 5])["duplicate_share"] == "warns"
    assert raw_verdicts(rows * 3)["duplicate_share"] == "fails"


def test_thresholds_are_config() -> None:
    config = RawRatingsChecksConfig(rejected_share=Limits(warn=0.9))
    assert raw_verdicts(random_ratings(), 100, config)["rejected_share"] == "ok"


def test_one_customer_or_video_that_outweighs_the_rest_warns() -> None:
    rows = random_ratings(60, 60) + [("greedy", f"v{v}", 3.0) for v in range(300)]
    found = verdicts(
        filtered_ratings_checks(config=FilteredRatingsChecksConfig(), filtered_ratings=tables(rows))
    )
    assert found["largest_customer_share"] == "warns"
    assert found["largest_video_share"] == "ok"


@pytest.mark.parametrize(("customers", "verdict"), [(10, "fails"), (100, "warns"), (1000, "ok")])
def test_too_few_ratings_left_warn_and_then_fail(customers: int, verdict: str) -> None:
    rows = random_ratings(customers, 20)
    found = verdicts(
        filtered_ratings_checks(config=FilteredRatingsChecksConfig(), filtered_ratings=tables(rows))
    )
    assert found["min_rows"] == verdict


def test_a_failing_check_stops_what_depends_on_the_asset(
    settings: Settings, tmp_path: Path
) -> None:
    started: list[str] = []

    @asset(io_manager_key="raw_ratings_io_manager")
    def raw_ratings() -> Output[RawRatings]:
        return Output(raw_tables(random_ratings(), rejects=5000))

    @asset
    def downstream(raw_ratings: RawRatings) -> None:
        started.append("downstream")

    resources = build_resources(Settings(**{**vars(settings), "prefix": "failing-check"}))
    definitions = [raw_ratings, downstream, raw_ratings_checks]
    failed = materialize(definitions, resources=resources, raise_on_error=False)
    assert not failed.success
    assert started == []
    lenient = {"ops": {"raw_ratings_checks": {"config": {"rejected_share": {"error": None}}}}}
    assert materialize(definitions, resources=resources, run_config=lenient).success
    assert started == ["downstream"]
