"""filtered_ratings: what it shows of the filter, and what it says when nothing is left."""

from collections.abc import Callable
from typing import Any

import pytest
from dagster import ExecuteInProcessResult, Output, asset, materialize

from recsys_assets.assets.ratings import filtered_ratings
from recsys_assets.definitions import build_resources
from recsys_assets.io_managers import RawRatings
from recsys_assets.io_managers.ratings import RATINGS
from recsys_assets.settings import Settings
from recsys_assets_tests.domain.literal_ratings import write_ratings

# With both thresholds at 2, c goes; then y has one rating left, and goes from the core.
PAIRS = ["av", "ax", "bv", "bx", "by", "cy"]
TWO_TWO = {"min_ratings_per_customer": 2, "min_ratings_per_video": 2}

Filter = Callable[..., ExecuteInProcessResult]


@pytest.fixture(scope="module")
def filtered(settings: Settings) -> Filter:
    """Return what materializes filtered_ratings of those pairs, given its config."""
    resources = build_resources(Settings(**{**vars(settings), "prefix": "filtered-ratings"}))

    @asset(io_manager_key="raw_ratings_io_manager")
    def raw_ratings() -> Output[RawRatings]:
        ratings = RawRatings()
        write_ratings(ratings.file(RATINGS, "source"), [(*pair, 3.0) for pair in PAIRS])
        return Output(ratings)

    def run(**config: Any) -> ExecuteInProcessResult:
        return materialize(
            [raw_ratings, filtered_ratings],
            resources=resources,
            run_config={"ops": {"filtered_ratings": {"config": config}}},
            raise_on_error=False,
        )

    return run


def metadata_of(result: ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node("filtered_ratings")
    return {name: value.value for name, value in event.metadata.items()}


def test_the_long_tail_is_shown_before_and_after_as_a_table_and_a_picture(filtered: Filter) -> None:
    metadata = metadata_of(filtered(**TWO_TWO))
    header, _, *rows = metadata["percentiles"].splitlines()
    assert header == "| ratings per | filter | min | p5 | p25 | p50 | p75 | p90 | p95 | p99 | max |"
    assert rows == [
        "| customer | before | 1 | 1 | 1 | 2 | 3 | 3 | 3 | 3 | 3 |",
        "| customer | after | 2 | 2 | 2 | 2 | 3 | 3 | 3 | 3 | 3 |",
        "| video | before | 2 | 2 | 2 | 2 | 2 | 2 | 2 | 2 | 2 |",
        "| video | after | 1 | 1 | 1 | 2 | 2 | 2 | 2 | 2 | 2 |",
    ]
    assert metadata["long_tail"].startswith("![plot](data:image/png;base64,iVBOR")


@pytest.mark.parametrize(("k_core", "kept", "outside"), [(False, 5, 0), (True, 4, 1)])
def test_the_config_chooses_between_counting_once_and_the_k_core(
    filtered: Filter, k_core: bool, kept: int, outside: int
) -> None:
    metadata = metadata_of(filtered(**TWO_TWO, k_core=k_core))
    assert (metadata["rows_kept"], metadata["outside_core"]) == (kept, outside)


def test_nothing_left_fails_and_says_why(filtered: Filter) -> None:
    result = filtered()
    assert not result.success
    failure = result.failure_data_for_node("filtered_ratings")
    assert failure is not None
    assert "none of 6 ratings is from a customer with at least 5" in str(failure.error)
