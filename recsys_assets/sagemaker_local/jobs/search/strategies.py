"""What a tuning job tries next, by its strategy.

Optuna does the searching: its random sampler for Random and Hyperband, its tree-structured Parzen
estimator for Bayesian. Which training jobs are given up early is decided in ``stopping``; where
the results come from is not known here.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from recsys_assets.sagemaker_local.jobs.search.ranges import CategoricalRange, Range

_RANDOM_STARTS = 5
"""Results that Bayesian waits for before it models them; AWS does not tell its number."""

_SAMPLER_DRAWS = 10
"""How often the strategy's sampler is asked for something new before chance alone decides."""

_RANDOM_DRAWS = 100
"""How often chance is asked for something new before a repetition is taken for inevitable."""

# It would log every study that is created.
optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Trial:
    """What a training job was given and what came of it.

    Attributes
    ----------
    hyperparameters
        All of them, as text.
    objective
        The final value of the objective metric; None while there is none.
    pending
        Whether a value may still come.
    """

    hyperparameters: Mapping[str, str]
    objective: float | None
    pending: bool


@dataclass(frozen=True)
class Search:
    """The search of one tuning job.

    Attributes
    ----------
    strategy
        ``Random``, ``Hyperband``, ``Grid`` or ``Bayesian``.
    ranges
        Where it looks.
    maximize
        Whether high values of the objective are good.
    seed
        What random choices begin with.
    inherited
        Trials of the tuning jobs that it starts from (warm start).
    """

    strategy: str
    ranges: tuple[Range, ...]
    maximize: bool
    seed: int
    inherited: tuple[Trial, ...] = ()

    def suggest(self, number: int, known: Sequence[Trial]) -> dict[str, str]:
        """Return the hyperparameters that a training job is to try.

        What an inherited trial tried is not tried again, nor, in Grid and Bayesian, what a trial
        of this tuning job tried; unless nothing else is left. For Random and Hyperband each
        suggestion is drawn for itself, from the seed and its number alone.

        Parameters
        ----------
        number
            Which training job of the tuning job, from 1.
        known
            The trials of the tuning job so far, in the order of their creation.
        """
        if self.strategy == "Grid":
            return self.untried(known)[0]
        study = optuna.create_study(direction="maximize" if self.maximize else "minimize")
        tried = self.inherited
        if self.strategy == "Bayesian":
            tried = (*self.inherited, *known)
            self._tell(study, tried)
        avoided = [self._values(trial.hyperparameters) for trial in tried]
        seed = hash_32(f"{self.seed}/{number}")
        samplers = itertools.chain(
            itertools.repeat(self._sampler(seed), _SAMPLER_DRAWS),
            itertools.repeat(RandomSampler(seed), _RANDOM_DRAWS),
        )
        for sampler in samplers:
            study.sampler = sampler
            drawn = study.ask(self._distributions).params
            texts = {item.name: item.text(drawn[item.name]) for item in self.ranges}
            if self._values(texts) not in avoided:
                break
        return texts

    def untried(self, known: Sequence[Trial] = ()) -> list[dict[str, str]]:
        """Return the combinations of categories that neither inherited nor known trials tried.

        Parameters
        ----------
        known
            Trials of the tuning job itself.
        """
        tried = [self._values(trial.hyperparameters) for trial in (*self.inherited, *known)]
        names = [item.name for item in self.ranges]
        choices = [item.categories for item in self.ranges if isinstance(item, CategoricalRange)]
        combinations = (
            dict(zip(names, combination, strict=True))
            for combination in itertools.product(*choices)
        )
        return [combination for combination in combinations if combination not in tried]

    @property
    def _distributions(self) -> dict[str, BaseDistribution]:
        return {item.name: item.distribution for item in self.ranges}

    def _sampler(self, seed: int) -> BaseSampler:
        if self.strategy == "Bayesian":
            return TPESampler(seed=seed, n_startup_trials=_RANDOM_STARTS)
        return RandomSampler(seed)

    def _tell(self, study: optuna.Study, trials: Sequence[Trial]) -> None:
        """Add trials to a study; of those outside the ranges nothing can be learnt."""
        for trial in trials:
            params = self._values(trial.hyperparameters)
            if None in params.values():
                continue
            if trial.objective is not None:
                state = TrialState.COMPLETE
            else:
                state = TrialState.RUNNING if trial.pending else TrialState.FAIL
            study.add_trial(
                create_trial(
                    params=params,
                    distributions=self._distributions,
                    value=trial.objective,
                    state=state,
                )
            )

    def _values(self, hyperparameters: Mapping[str, str]) -> dict[str, Any]:
        """Return values in Optuna's space by name; None for those outside their range."""
        return {
            item.name: item.value(hyperparameters[item.name])
            if item.name in hyperparameters
            else None
            for item in self.ranges
        }


def hash_32(text: str) -> int:
    """Return a whole number of 32 bits that a text always has: seeds are made so."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
