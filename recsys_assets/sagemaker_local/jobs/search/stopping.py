"""Which training jobs of a tuning job are given up early: early stopping and Hyperband.

A training job's course is its values of the objective metric in the order in which it emitted
them, one for each unit of resource (an epoch). Stopping a job is done elsewhere.
"""

import bisect
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from recsys_assets.sagemaker_local.errors import validation_error

_REDUCTION = 3
"""Hyperband's eta: one in so many goes on from rung to rung, for so many times the resource."""

_MOST_EPOCHS = 20_000
"""The largest MaxResource that AWS allows."""

_EPOCHS = ("epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs")
"""Static hyperparameters that tell MaxResource where a request does not, by precedence."""


def below_median(
    course: Sequence[float], previous: Sequence[Sequence[float]], *, maximize: bool
) -> bool:
    """Return whether early stopping (``TrainingJobEarlyStoppingType`` Auto) gives a job up.

    It does so when the job's latest value is worse than the median of the running averages that
    the previous jobs had at the same epoch. A job at an epoch that none of them went beyond is
    taken to be at its end, where nothing can be saved: an algorithm that emits its objective only
    once is never given up.

    Parameters
    ----------
    course
        The job's values; at least one.
    previous
        The courses of the jobs of the same tuning job that have ended.
    maximize
        Whether high values are good.

    References
    ----------
    SageMaker's developer guide, "How Early Stopping Works".
    """
    epoch = len(course)
    if not any(len(other) > epoch for other in previous):
        return False
    median = statistics.median(
        statistics.fmean(other[:epoch]) for other in previous if len(other) >= epoch
    )
    return course[-1] < median if maximize else course[-1] > median


@dataclass(frozen=True)
class Hyperband:
    """The brackets of Hyperband, and who is given up in them.

    Each training job belongs to a bracket. It is given up at a rung of its bracket (a number of
    epochs) when it is not among the best third of those of its bracket that have reached the rung
    so far. Brackets differ in their first rung: from ``min_resource`` for the first, which gives
    up early and holds most jobs, to none for the last, whose jobs all run on. Jobs are never
    paused, so that rungs need not wait for each other.

    Attributes
    ----------
    min_resource
        No job is given up before so many epochs.
    max_resource
        After so many epochs a job is at its end.
    self_ending
        Whether the jobs end there by themselves, so that they need not be stopped.

    References
    ----------
    Li et al. (2018), Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization.
    Li et al. (2020), A System for Massively Parallel Hyperparameter Tuning (the stopping rule).
    """

    min_resource: int
    max_resource: int
    self_ending: bool

    def gives_up(
        self, number: int, courses: Mapping[int, Sequence[float]], *, maximize: bool
    ) -> bool:
        """Return whether a job is given up.

        Parameters
        ----------
        number
            Which training job of the tuning job, from 1.
        courses
            The courses so far of all jobs of the tuning job, by their numbers.
        maximize
            Whether high values are good.
        """
        if len(courses[number]) >= self.max_resource:
            return not self.self_ending
        bracket = self.bracket(number)
        reached = [rung for rung in self._rungs[bracket:] if rung <= len(courses[number])]
        if not reached:
            return False
        rung = reached[-1]
        rivals = sorted(
            (
                course[rung - 1]
                for other, course in courses.items()
                if len(course) >= rung and self.bracket(other) == bracket
            ),
            reverse=maximize,
        )
        last_to_go_on = rivals[max(1, len(rivals) // _REDUCTION) - 1]
        value = courses[number][rung - 1]
        return value < last_to_go_on if maximize else value > last_to_go_on

    def bracket(self, number: int) -> int:
        """Return the bracket of a training job; brackets are filled one after the other."""
        brackets = len(self._rungs) + 1
        # As many that each bracket takes about the same resource in all.
        sizes = (
            -(-brackets * _REDUCTION**left // (left + 1)) for left in reversed(range(brackets))
        )
        ends = list(itertools.accumulate(sizes))
        return bisect.bisect_right(ends, (number - 1) % ends[-1])

    @cached_property
    def _rungs(self) -> tuple[int, ...]:
        rungs = []
        rung = self.min_resource
        while rung < self.max_resource:
            rungs.append(rung)
            rung *= _REDUCTION
        return tuple(rungs)


def parse_hyperband(config: Mapping[str, Any], definition: Mapping[str, Any]) -> Hyperband:
    """Return the Hyperband that a tuning job asks for.

    Parameters
    ----------
    config
        Its ``HyperParameterTuningJobConfig``.
    definition
        Its ``TrainingJobDefinition``.

    Raises
    ------
    ServiceError
        When there is no MaxResource, or it is out of bounds.
    """
    given = config.get("StrategyConfig", {}).get("HyperbandStrategyConfig", {})
    static = definition.get("StaticHyperParameters", {})
    epochs = next((static[name] for name in _EPOCHS if name in static), "")
    ends_at = int(epochs) if epochs.isdecimal() else None
    least, most = given.get("MinResource", 1), given.get("MaxResource", ends_at)
    if most is None:
        raise validation_error(
            "HyperbandStrategyConfig.MaxResource is required where none of the static"
            f" hyperparameters {', '.join(_EPOCHS)} is a whole number."
        )
    if not least <= most <= _MOST_EPOCHS:
        raise validation_error(
            f"HyperbandStrategyConfig: MaxResource must lie between MinResource, {least}, and"
            f" {_MOST_EPOCHS:,}; it is {most}."
        )
    return Hyperband(least, most, self_ending=ends_at is not None and ends_at <= most)
