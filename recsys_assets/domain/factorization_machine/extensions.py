"""Hyperparameters of this algorithm that SageMaker's built-in does not have.

What belongs here: their names, defaults and valid values. What does not: the built-in's own
(``hyperparameters``), and what a solver makes of them (``solvers``).
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from recsys_assets.domain.factorization_machine.hyperparameters import (
    Hyperparameters,
    PositiveInteger,
)

Solver = Literal["adam", "sgd", "mcmc"]


def _read_integers(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


class ExtendedHyperparameters(Hyperparameters):
    """The built-in's hyperparameters, and what this algorithm can do beyond them.

    With the defaults of what is new it does what the built-in does.

    Attributes
    ----------
    solver
        "adam": as the built-in. "sgd": stochastic gradient descent, record by record, in an order
        of its own; its good rates are others than Adam's, and `mini_batch_size` and `eps` mean
        nothing to it. "mcmc": the mean of a Bayesian factorization machine's posterior, sampled by
        blocks; `epochs` is the number of sweeps, and mini-batches, rates, decays and initial
        values mean nothing to it.
    early_stopping_patience
        If given, training ends once this many epochs have not improved the loss on the validation
        records (the ``test`` channel of a job), and the best epoch's model is kept.
    burn_in
        Of "mcmc": number of sweeps before the first that counts.
    feature_blocks
        Of "mcmc": how many columns each block of features has, in their order, in a text divided
        by commas. A block holds what is known of one thing: the customer, the video, the day. If
        not given, blocks are found from the records.
    """

    solver: Solver = "adam"
    early_stopping_patience: PositiveInteger | None = None
    burn_in: PositiveInteger = 10
    feature_blocks: (
        Annotated[tuple[PositiveInteger, ...], BeforeValidator(_read_integers)] | None
    ) = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.solver == "mcmc":
            if self.predictor_type != "regressor":
                raise ValueError("'solver' 'mcmc' needs 'predictor_type' 'regressor'")
            if self.epochs <= self.burn_in:
                raise ValueError(
                    f"'epochs' ({self.epochs}) must be greater than 'burn_in' ({self.burn_in}) "
                    "when 'solver' is 'mcmc'"
                )
        if self.feature_blocks and sum(self.feature_blocks) != self.feature_dim:
            raise ValueError(
                f"'feature_blocks' must add up to 'feature_dim' ({self.feature_dim}), not to "
                f"{sum(self.feature_blocks)}"
            )
        return self


def extensions(names: Iterable[str]) -> list[str]:
    """Return those of `names` that are hyperparameters here and unknown to the built-in."""
    added = ExtendedHyperparameters.model_fields.keys() - Hyperparameters.model_fields.keys()
    return sorted(added.intersection(names))
