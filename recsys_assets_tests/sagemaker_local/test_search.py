import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.jobs.search import check_ranges, default_seed, draw


def number_range(low: object, high: object, scaling: str | None = None) -> dict[str, Any]:
    found = {"Name": "x", "MinValue": str(low), "MaxValue": str(high)}
    return found if scaling is None else {**found, "ScalingType": scaling}


def continuous(*arguments: Any) -> dict[str, Any]:
    return {"ContinuousParameterRanges": [number_range(*arguments)]}


def integer(*arguments: Any) -> dict[str, Any]:
    return {"IntegerParameterRanges": [number_range(*arguments)]}


def draws(ranges: dict[str, Any], count: int = 400) -> list[float]:
    return [float(draw(ranges, 1, number)["x"]) for number in range(count)]


def test_a_seed_and_a_number_give_the_same_draw_in_every_version() -> None:
    ranges = {
        **continuous("0.001", "1", "Logarithmic"),
        "IntegerParameterRanges": [{"Name": "n", "MinValue": "1", "MaxValue": "100"}],
        "CategoricalParameterRanges": [{"Name": "c", "Values": ["a", "b", "c"]}],
    }
    assert draw(ranges, 42, 1) == {"x": "0.4870762556047491", "n": "3", "c": "b"}
    assert draw(ranges, 42, 1) != draw(ranges, 42, 2)
    assert draw(ranges, 42, 1) != draw(ranges, 43, 1)


def test_the_default_seed_is_a_hash_of_the_name() -> None:
    assert default_seed("tuning") == 0xC72DEE7F  # the first digits that sha256sum prints
    assert default_seed("tuning") != default_seed("tuning-2")


@given(
    st.floats(1e-6, 1e6),
    st.floats(0, 1e6),
    st.sampled_from([None, "Auto", "Linear", "Logarithmic"]),
    st.integers(0, 1000),
)
def test_continuous_draws_lie_within_their_range(
    low: float, width: float, scaling: str | None, number: int
) -> None:
    ranges = continuous(low, low + width, scaling)
    check_ranges(ranges)
    assert low <= float(draw(ranges, 0, number)["x"]) <= low + width


@given(
    st.integers(1, 1000),
    st.integers(0, 1000),
    st.sampled_from([None, "Auto", "Linear", "Logarithmic"]),
    st.integers(0, 1000),
)
def test_integer_draws_are_whole_and_within_their_range(
    low: int, width: int, scaling: str | None, number: int
) -> None:
    ranges = integer(low, low + width, scaling)
    check_ranges(ranges)
    assert low <= int(draw(ranges, 0, number)["x"]) <= low + width


# On its scale a draw is uniform, so that half of the draws lie below the middle of the scale.
@pytest.mark.parametrize(
    ("ranges", "middle"),
    [
        (continuous(0, 10, "Linear"), 5.0),
        (continuous("1e-4", "1", "Logarithmic"), 1e-2),
        (continuous("0", "0.9999", "ReverseLogarithmic"), 0.99),
        (continuous("1e-4", "1", "Auto"), 1e-2),
        (continuous("1e-4", "1"), 1e-2),
        (continuous("1", "99", "Auto"), 50.0),
        (continuous("-1", "999", "Auto"), 499.0),
        (integer(1, 10_000, "Logarithmic"), 100.0),
        (integer(1, 10_000, "Linear"), 5_000.0),
        (integer(1, 10_000, "Auto"), 100.0),
    ],
)
def test_half_of_the_draws_lie_below_the_middle_of_the_scale(
    ranges: dict[str, Any], middle: float
) -> None:
    below = statistics.mean(value <= middle for value in draws(ranges))
    assert 0.42 < below < 0.58


def test_every_integer_of_a_range_is_drawn_about_equally_often() -> None:
    counts = [draws(integer(1, 4, "Linear"), 2000).count(value) for value in (1, 2, 3, 4)]
    assert sum(counts) == 2000
    assert all(430 < count < 570 for count in counts)


def test_every_category_is_drawn_about_equally_often() -> None:
    ranges = {"CategoricalParameterRanges": [{"Name": "x", "Values": ["1", "2"]}]}
    assert 0.42 < statistics.mean(value == 1 for value in draws(ranges)) < 0.58


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({}, "at least one range"),
        (continuous(1, 0), "'x' is 1 to 0: MinValue must not exceed MaxValue"),
        (continuous("low", 1), "MinValue must be a number"),
        (continuous(0, math.inf), "MaxValue must be a number"),
        (continuous(0, 1, "Logarithmic"), "for Logarithmic, MinValue must be above 0"),
        (continuous(0, 1, "ReverseLogarithmic"), "must lie in 0 <= x < 1"),
        (continuous(-0.5, 0.5, "ReverseLogarithmic"), "must lie in 0 <= x < 1"),
        (integer(0, "2.5"), "MaxValue must be a whole number"),
        (integer(0, 10**400), "MaxValue must lie within"),
        (integer(0, 9, "Logarithmic"), "for Logarithmic, MinValue must be above 0"),
        (integer(1, 9, "ReverseLogarithmic"), "for continuous ranges only"),
        ({**continuous(0, 1), **integer(0, 1)}, "'x' more than once"),
    ],
)
def test_ranges_that_cannot_be_searched_are_refused(ranges: dict[str, Any], message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        check_ranges(ranges)
