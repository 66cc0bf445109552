from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.jobs.search.stopping import (
    Hyperband,
    below_median,
    parse_hyperband,
)

PREVIOUS = [[4.0, 2.0, 1.0], [6.0, 4.0, 2.0], [8.0, 8.0, 8.0]]
"""Their running averages are 4, 3, ...; 6, 5, ...; 8, 8, ...: medians 6 and 5."""


@pytest.mark.parametrize(
    ("course", "given_up"),
    [([6.0], False), ([6.1], True), ([9.0, 5.0], False), ([1.0, 5.1], True)],
)
def test_a_job_is_given_up_when_it_is_worse_than_the_median_of_running_averages(
    course: list[float], given_up: bool
) -> None:
    assert below_median(course, PREVIOUS, maximize=False) is given_up
    negative = [[-value for value in other] for other in PREVIOUS]
    assert below_median([-value for value in course], negative, maximize=True) is given_up


def test_previous_jobs_that_did_not_come_so_far_are_not_compared_with() -> None:
    assert below_median([9.0, 5.0], [*PREVIOUS, [0.0], [0.0]], maximize=False) is False


@pytest.mark.parametrize("previous", [[], [[1.0]], [[1.0], [2.0]]])
def test_where_no_job_went_on_nobody_is_given_up(previous: list[list[float]]) -> None:
    assert below_median([9.0], previous, maximize=False) is False


BAND = Hyperband(min_resource=1, max_resource=9, self_ending=True)
"""Three brackets of 9, 5 and 3 jobs, with rungs at 1 and 3 epochs, at 3, and none."""


def test_brackets_are_filled_one_after_the_other() -> None:
    assert [BAND.bracket(number) for number in range(1, 19)] == [0] * 9 + [1] * 5 + [2] * 3 + [0]


def given_up(courses: list[list[float]], band: Hyperband = BAND) -> set[int]:
    """Return which of the courses are given up, by their number."""
    numbered = dict(enumerate(courses, start=1))
    return {number for number in numbered if band.gives_up(number, numbered, maximize=False)}


def test_a_third_of_a_rung_goes_on() -> None:
    assert given_up([[float(value)] for value in (5, 3, 8, 1, 9, 2, 7, 4, 6)]) == {1, 3, 5, 7, 8, 9}


def test_the_first_at_a_rung_go_on_only_if_they_are_the_best() -> None:
    assert given_up([[2.0]]) == set()
    assert given_up([[2.0], [3.0]]) == {2}
    assert given_up([[2.0], [1.0]]) == {1}


def test_a_job_is_compared_at_its_last_rung_and_not_where_it_is() -> None:
    # At epoch 1 the first is better; what it has become since counts at epoch 3.
    assert given_up([[1.0, 9.0], [2.0, 2.0]]) == {2}
    assert given_up([[1.0, 9.0, 9.0], [2.0, 2.0, 2.0]]) == {1}


def test_jobs_of_other_brackets_are_no_rivals() -> None:
    last_bracket = [[9.0] * 8]
    courses = [[1.0]] * 9 + [[3.0]] * 5 + last_bracket
    assert given_up(courses) == set()
    assert given_up([*courses[:13], [4.0, 4.0, 4.0], *last_bracket]) == set()


def test_nobody_is_given_up_before_the_least_resource() -> None:
    late = Hyperband(min_resource=2, max_resource=9, self_ending=True)
    assert given_up([[1.0], [9.0]], late) == set()
    assert given_up([[1.0, 1.0], [9.0, 9.0]], late) == {2}


def test_a_job_at_the_largest_resource_is_stopped_unless_it_ends_itself() -> None:
    courses = [[1.0] * 9, [9.0] * 9]
    assert given_up(courses) == set()
    assert given_up(courses, Hyperband(1, 9, self_ending=False)) == {1, 2}


@given(st.lists(st.lists(st.floats(0, 9), min_size=1, max_size=8), min_size=1, max_size=40))
def test_the_best_at_the_highest_rung_always_goes_on(courses: list[list[float]]) -> None:
    for bracket, rungs in ((0, (1, 3)), (1, (3,))):
        numbers = [n for n in range(1, len(courses) + 1) if BAND.bracket(n) == bracket]
        reached = [
            [n for n in numbers if len(courses[n - 1]) >= rung]
            for rung in rungs
            if any(len(courses[n - 1]) >= rung for n in numbers)
        ]
        assert not reached or not given_up(courses).issuperset(reached[-1])


@pytest.mark.parametrize(
    ("config", "static", "expected"),
    [
        ({"MinResource": 2, "MaxResource": 8}, {}, Hyperband(2, 8, False)),
        ({}, {"epochs": "30"}, Hyperband(1, 30, True)),
        ({}, {"num_epochs": "5", "n-epochs": "7"}, Hyperband(1, 7, True)),
        ({"MaxResource": 8}, {"epochs": "30"}, Hyperband(1, 8, False)),
        ({"MaxResource": 30}, {"epochs": "8"}, Hyperband(1, 30, True)),
    ],
)
def test_the_largest_resource_is_given_or_told_by_the_epochs(
    config: dict[str, int], static: dict[str, str], expected: Hyperband
) -> None:
    request = {"StrategyConfig": {"HyperbandStrategyConfig": config}}
    assert parse_hyperband(request, {"StaticHyperParameters": static}) == expected


@pytest.mark.parametrize(
    ("config", "static", "message"),
    [
        ({}, {}, "MaxResource is required where none of .* epochs, numepochs"),
        ({}, {"epochs": "many"}, "MaxResource is required"),
        ({"MinResource": 5, "MaxResource": 4}, {}, "between MinResource, 5, and 20,000; it is 4"),
        ({"MaxResource": 20_001}, {}, "it is 20001"),
    ],
)
def test_a_resource_that_is_unknown_or_out_of_bounds_is_refused(
    config: dict[str, int], static: dict[str, Any], message: str
) -> None:
    request = {"StrategyConfig": {"HyperbandStrategyConfig": config}}
    with pytest.raises(ServiceError, match=message):
        parse_hyperband(request, {"StaticHyperParameters": static})
