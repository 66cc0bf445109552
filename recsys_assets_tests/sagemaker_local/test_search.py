import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.jobs.search.ranges import parse_ranges
from recsys_assets.sagemaker_local.jobs.search.strategies import Search, Trial, hash_32

STRATEGIES = ["Random", "Hyperband", "Bayesian"]


def number_range(low: object, high: object, scaling: str | None = None) -> dict[str, Any]:
    found = {"Name": "x", "MinValue": str(low), "MaxValue": str(high)}
    return found if scaling is None else {**found, "ScalingType": scaling}


def continuous(*arguments: Any) -> dict[str, Any]:
    return {"ContinuousParameterRanges": [number_range(*arguments)]}


def integer(*arguments: Any) -> dict[str, Any]:
    return {"IntegerParameterRanges": [number_range(*arguments)]}


def categorical(**categories: list[str]) -> dict[str, Any]:
    return {
        "CategoricalParameterRanges": [
            {"Name": name, "Values": values} for name, values in categories.items()
        ]
    }


def search(strategy: str, ranges: dict[str, Any], **changes: Any) -> Search:
    options = {"maximize": False, "seed": 1, **changes}
    return Search(strategy, parse_ranges(ranges), **options)


def draws(ranges: dict[str, Any], count: int = 400) -> list[float]:
    drawing = search("Random", ranges)
    return [float(drawing.suggest(number, [])["x"]) for number in range(count)]


def run(
    searching: Search, objective: Callable[[dict[str, str]], float], jobs: int, parallel: int = 1
) -> list[Trial]:
    """Search with several jobs at a time, the oldest of which always ends first."""
    trials: list[Trial] = []
    for number in range(1, jobs + 1):
        pending = number - parallel
        if pending > 0:
            given = trials[pending - 1].hyperparameters
            trials[pending - 1] = Trial(given, objective(dict(given)), pending=False)
        trials.append(Trial(searching.suggest(number, trials), None, pending=True))
    return [
        Trial(trial.hyperparameters, objective(dict(trial.hyperparameters)), pending=False)
        for trial in trials
    ]


def best(trials: list[Trial]) -> Trial:
    return min(trials, key=lambda trial: trial.objective or 0.0)


def test_a_seed_and_a_number_give_the_same_draw_in_every_version() -> None:
    ranges = {
        **continuous("0.001", "1", "Logarithmic"),
        "IntegerParameterRanges": [{"Name": "n", "MinValue": "1", "MaxValue": "100"}],
        **categorical(c=["a", "b", "c"]),
    }
    first = search("Random", ranges, seed=42).suggest(1, [])
    assert first == {"x": "0.010080290101954298", "n": "24", "c": "b"}
    assert first == search("Hyperband", ranges, seed=42).suggest(1, [Trial(first, 1.0, False)])
    assert first != search("Random", ranges, seed=42).suggest(2, [])
    assert first != search("Random", ranges, seed=43).suggest(1, [])


def test_the_default_seed_is_a_hash_of_the_name() -> None:
    assert hash_32("tuning") == 0xC72DEE7F  # the first digits that sha256sum prints


@given(
    st.floats(1e-6, 1e6),
    st.floats(0, 1e6),
    st.sampled_from([None, "Auto", "Linear", "Logarithmic"]),
    st.integers(0, 1000),
)
def test_continuous_draws_lie_within_their_range(
    low: float, width: float, scaling: str | None, number: int
) -> None:
    drawn = search("Random", continuous(low, low + width, scaling)).suggest(number, [])
    assert low <= float(drawn["x"]) <= low + width


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True), st.integers(0, 1000))
def test_reverse_logarithmic_draws_lie_within_their_range(
    one: float, other: float, number: int
) -> None:
    low, high = sorted((one, other))
    drawn = search("Random", continuous(low, high, "ReverseLogarithmic")).suggest(number, [])
    assert low <= float(drawn["x"]) <= high


@given(
    st.integers(1, 2**52),
    st.integers(0, 2**52),
    st.sampled_from([None, "Auto", "Linear", "Logarithmic"]),
    st.integers(0, 1000),
)
def test_integer_draws_are_whole_and_within_their_range(
    low: int, width: int, scaling: str | None, number: int
) -> None:
    drawn = search("Random", integer(low, low + width, scaling)).suggest(number, [])
    assert low <= int(drawn["x"]) <= low + width


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
    drawn = draws(integer(1, 4, "Linear"), 1000)
    counts = [drawn.count(value) for value in (1, 2, 3, 4)]
    assert sum(counts) == 1000
    assert all(200 < count < 300 for count in counts)


def test_every_category_is_drawn_about_equally_often() -> None:
    assert 0.42 < statistics.mean(value == 1 for value in draws(categorical(x=["1", "2"]))) < 0.58


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({}, "at least one range"),
        (continuous(1, 0), "'x' is 1 to 0: MinValue must not exceed MaxValue"),
        (continuous("low", 1), "MinValue must be a number"),
        (continuous(0, math.inf), "MaxValue must be a number"),
        (continuous(-1e308, 1e308), "it is too wide"),
        (continuous(0, 1, "Logarithmic"), "for Logarithmic, MinValue must be above 0"),
        (continuous(0, 1, "ReverseLogarithmic"), "must lie in 0 <= x < 1"),
        (continuous(-0.5, 0.5, "ReverseLogarithmic"), "must lie in 0 <= x < 1"),
        (integer(0, "2.5"), "MaxValue must be a whole number"),
        (integer(0, 10**400), "MaxValue must lie within"),
        (integer(0, 9, "Logarithmic"), "for Logarithmic, MinValue must be above 0"),
        (integer(1, 9, "ReverseLogarithmic"), "for continuous ranges only"),
        ({**continuous(0, 1), **integer(0, 1)}, "'x' more than once"),
        (categorical(x=["a", "b", "a"]), "'x' holds a value more than once"),
    ],
)
def test_ranges_that_cannot_be_searched_are_refused(ranges: dict[str, Any], message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        parse_ranges(ranges)


@given(
    st.sets(st.sampled_from("abcdef"), min_size=1),
    st.sets(st.sampled_from("uvwxyz"), min_size=1),
    st.data(),
)
def test_a_grid_visits_every_combination_once_whatever_ends_first(
    first: set[str], second: set[str], data: st.DataObject
) -> None:
    searching = search("Grid", categorical(a=sorted(first), b=sorted(second)))
    trials: list[Trial] = []
    while len(trials) < len(first) * len(second):
        suggestion = searching.suggest(len(trials) + 1, data.draw(st.permutations(trials)))
        trials.append(Trial(suggestion, None, pending=data.draw(st.booleans())))
    visited = [(trial.hyperparameters["a"], trial.hyperparameters["b"]) for trial in trials]
    assert sorted(visited) == [(a, b) for a in sorted(first) for b in sorted(second)]
    assert searching.untried(trials) == []


WIDE = {
    "ContinuousParameterRanges": [
        {"Name": "x", "MinValue": "0", "MaxValue": "1"},
        {"Name": "rate", "MinValue": "0.0001", "MaxValue": "1"},
        {
            "Name": "momentum",
            "MinValue": "0",
            "MaxValue": "0.9999",
            "ScalingType": "ReverseLogarithmic",
        },
    ],
    **categorical(method=["good", "bad"]),
}


def error(given: dict[str, str]) -> float:
    """Score hyperparameters; 0 for x 0.3, rate 0.01, momentum 0.99 and the good method."""
    return (
        (float(given["x"]) - 0.3) ** 2
        + (math.log10(float(given["rate"])) + 2) ** 2 / 4
        + (math.log10(1 - float(given["momentum"])) + 2) ** 2 / 4
        + (given["method"] == "bad")
    )


@pytest.mark.parametrize("parallel", [1, 4])
def test_bayesian_gets_nearer_to_the_best_than_random(parallel: int) -> None:
    reached = {
        strategy: [
            best(run(search(strategy, WIDE, seed=seed), error, 30, parallel)).objective
            for seed in range(12)
        ]
        for strategy in ("Bayesian", "Random")
    }
    pairs = zip(reached["Bayesian"], reached["Random"], strict=True)
    assert sum((ours or 0.0) < (random or 0.0) for ours, random in pairs) >= 9
    ours, random = (statistics.median(v or 0.0 for v in values) for values in reached.values())
    assert ours < random / 2


def test_bayesian_climbs_where_high_values_are_good() -> None:
    climbing = search("Bayesian", continuous(0, 1), maximize=True)
    values = [
        float(trial.hyperparameters["x"])
        for trial in run(climbing, lambda given: float(given["x"]), 25)
    ]
    assert statistics.mean(values[15:]) > 0.8


def test_bayesian_repeats_neither_what_has_ended_nor_what_is_running() -> None:
    trials = [Trial({"x": str(value)}, abs(value - 3.0), pending=False) for value in (1, 3, 6)]
    trials += [Trial({"x": "2"}, None, pending=True), Trial({"x": "4"}, None, pending=False)]
    assert search("Bayesian", integer(1, 6)).suggest(6, trials) == {"x": "5"}


@pytest.mark.parametrize("strategy", [*STRATEGIES, "Grid"])
def test_a_suggestion_depends_on_the_seed_the_number_and_what_is_known_alone(strategy: str) -> None:
    ranges = categorical(method=["a", "b", "c"]) if strategy == "Grid" else WIDE
    known = [
        Trial({"x": "0.5", "rate": "0.1", "momentum": "0.5", "method": "bad"}, 1.5, False),
        Trial({"x": "0.4", "rate": "0.01", "momentum": "0.9", "method": "good"}, None, True),
        Trial({"x": "0.2", "rate": "0.02", "momentum": "0.9", "method": "good"}, None, False),
    ]
    suggestions = [search(strategy, ranges).suggest(4, known[:2]) for _ in range(3)]
    assert suggestions[0] == suggestions[1] == suggestions[2]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_was_inherited_is_not_tried_again(strategy: str) -> None:
    ranges = {**integer(1, 4), **categorical(c=["a", "b"])}
    inherited = tuple(
        Trial({"x": str(x), "c": c, "other": "1"}, 1.0, pending=False)
        for x in (1, 2, 3, 4)
        for c in ("a", "b")
        if (x, c) != (3, "b")
    )
    for seed in range(10):
        searching = search(strategy, ranges, seed=seed, inherited=inherited)
        assert searching.suggest(1, []) == {"x": "3", "c": "b"}


def test_a_search_that_has_tried_everything_goes_on() -> None:
    inherited = (Trial({"x": "1"}, 1.0, pending=False),)
    for strategy in STRATEGIES:
        assert search(strategy, integer(1, 1), inherited=inherited).suggest(1, []) == {"x": "1"}


def test_a_warm_start_begins_near_the_best_that_was_inherited() -> None:
    ranges = continuous(0, 1)
    parent = run(search("Random", ranges), lambda given: abs(float(given["x"]) - 0.3), 40)
    nearest = float(best(parent).hyperparameters["x"])

    def distances(inherited: list[Trial]) -> list[float]:
        found = [
            search("Bayesian", ranges, seed=seed, inherited=tuple(inherited)).suggest(1, [])
            for seed in range(20)
        ]
        return [abs(float(given["x"]) - nearest) for given in found]

    assert statistics.median(distances(parent)) < statistics.median(distances([])) / 3


def test_inherited_trials_outside_the_ranges_are_no_hindrance() -> None:
    inherited = (
        Trial({"x": "7"}, 0.0, pending=False),
        Trial({"x": "high"}, 0.0, pending=False),
        Trial({"y": "0.5"}, 0.0, pending=False),
    )
    suggestion = search("Bayesian", continuous(0, 1), inherited=inherited).suggest(1, [])
    assert 0 <= float(suggestion["x"]) <= 1
