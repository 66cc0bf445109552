"""Early stopping: the epoch whose model predicts the validation records best is the one kept.

What belongs here: the rule when to stop, and the check that it can be applied. What does not: what
an epoch is and how its model is made, which each solver knows.
"""

import math

from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.metrics import Metric, quality
from recsys_assets.domain.factorization_machine.model import DataError, FactorizationMachine
from recsys_assets.domain.factorization_machine.solvers.common import (
    DivergenceError,
    Records,
    check_records,
)


class EarlyStopping:
    """Keeps the best model, and says when to look for no better one.

    Parameters
    ----------
    patience
        How many epochs in a row may pass without an improvement before training ends. None: all
        of them, and the last model is the one kept.

    Attributes
    ----------
    best
        The model to keep; None before the first :meth:`update`.
    """

    best: FactorizationMachine | None = None

    def __init__(self, patience: int | None) -> None:
        self._patience = patience
        self._loss = math.inf
        self._epochs_since_best = 0

    def update(self, model: FactorizationMachine, metrics: tuple[Metric, ...]) -> bool:
        """Take note of an epoch.

        Parameters
        ----------
        model
            What the epoch has come to. It is kept as it is, so it must not change any more.
        metrics
            Its quality on the validation records. The one of kind "loss" decides: rmse for a
            regressor, cross-entropy for a binary classifier.

        Returns
        -------
        bool
            Whether training is to end.

        Raises
        ------
        DivergenceError
            If the loss is not a finite number.
        """
        (loss,) = (metric for metric in metrics if metric.kind == "loss")
        if not math.isfinite(loss.value):
            raise DivergenceError(f"training diverged: {loss.name} on validation is {loss.value}")
        if self._patience is None or loss.value < self._loss:
            self.best, self._loss, self._epochs_since_best = model, loss.value, 0
            return False
        self._epochs_since_best += 1
        return self._epochs_since_best >= self._patience


def check_validation(validation: Records | None, hyperparameters: ExtendedHyperparameters) -> None:
    """Check that validation records can be used, and that there are some if they are needed.

    Raises
    ------
    DataError
        If `early_stopping_patience` is given and `validation` is not, or as
        :func:`check_records` says.
    """
    if validation is not None:
        check_records(*validation, hyperparameters)
    elif hyperparameters.early_stopping_patience is not None:
        raise DataError("early_stopping_patience needs validation records, got none")


def validate(model: FactorizationMachine, validation: Records) -> tuple[Metric, ...]:
    """Measure the quality of `model` on records that it was not trained on."""
    X, y = validation
    return quality(model.predictor_type, model.predict(X), y)
