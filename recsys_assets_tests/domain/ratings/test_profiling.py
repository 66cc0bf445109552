"""Measures of ratings on literal tables."""

import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recsys_assets.domain.ratings.profiling import RatingsPerId, profile_ratings
from recsys_assets_tests.domain.literal_ratings import SCHEMA, write_ratings


def test_a_small_table_gives_the_measures_counted_by_hand(tmp_path: Path) -> None:
    rows = [
        ("a", "x", 5.0, 1, "r1", "X"),
        ("a", "x", 4.0, 2),
        ("a", "y", 0.5, 3),
        ("b", "x", 4.5),
        ("c", "x", 1.4),
    ]
    profile = profile_ratings(write_ratings(tmp_path / "ratings.parquet", rows))
    assert (profile.rows, profile.customers, profile.videos) == (5, 3, 2)
    assert profile.mean == pytest.approx(15.4 / 5, abs=1e-6)
    # 0.5 counts as 1, 4.5 as 5.
    assert profile.star_shares == {1: 0.4, 2: 0.0, 3: 0.0, 4: 0.2, 5: 0.4}
    assert profile.missing_shares == {"title": 0.8, "reviewed_at": 0.4, "review_id": 0.8}
    assert profile.duplicate_share == 0.2
    assert profile.per_customer == RatingsPerId(
        {"min": 1, "p5": 1, "p25": 1, "p50": 1, "p75": 3, "p90": 3, "p95": 3, "p99": 3, "max": 3},
        0.6,
    )
    assert profile.per_video == RatingsPerId(
        {"min": 1, "p5": 1, "p25": 1, "p50": 1, "p75": 4, "p90": 4, "p95": 4, "p99": 4, "max": 4},
        0.8,
    )


def test_a_percentile_is_the_smallest_count_that_so_many_do_not_exceed(tmp_path: Path) -> None:
    # 100 customers, of whom number n has n ratings.
    rows = [(f"c{n:03}", f"v{i}", 3.0) for n in range(1, 101) for i in range(n)]
    profile = profile_ratings(write_ratings(tmp_path / "ratings.parquet", rows))
    assert profile.per_customer.percentiles == {
        "min": 1,
        "p5": 5,
        "p25": 25,
        "p50": 50,
        "p75": 75,
        "p90": 90,
        "p95": 95,
        "p99": 99,
        "max": 100,
    }


def test_columns_that_are_not_there_are_not_measured(tmp_path: Path) -> None:
    path = write_ratings(tmp_path / "ratings.parquet", [("a", "x", 3.0, 1)])
    pq.write_table(pq.read_table(path).drop_columns(["review_id", "title"]), path)
    assert profile_ratings(path).missing_shares == {"reviewed_at": 0.0}


def test_no_rows_at_all_are_measured_as_nothing(tmp_path: Path) -> None:
    pq.write_table(SCHEMA.empty_table(), tmp_path / "ratings.parquet")
    profile = profile_ratings(tmp_path / "ratings.parquet")
    assert (profile.rows, profile.customers, profile.videos) == (0, 0, 0)
    assert math.isnan(profile.mean)
    assert profile.duplicate_share == 0
    assert set(profile.star_shares.values()) == {0.0}
    assert profile.per_video.percentiles["max"] == 0


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    rows = [(f"c{n % 7}", f"v{n % 11}", 1 + (n % 41) / 10) for n in range(3000)]
    one = profile_ratings(write_ratings(tmp_path / "one.parquet", rows))
    assert profile_ratings(write_ratings(tmp_path / "two.parquet", rows[::-1])) == one


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no ratings at .*nowhere\.parquet"):
        profile_ratings(tmp_path / "nowhere.parquet")
