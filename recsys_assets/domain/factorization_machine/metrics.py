"""The quality metrics that the built-in reports while it trains.

What belongs here: what SageMaker's Factorization Machines logs as ``quality_metric``, by the names
it uses. What does not: evaluating recommendations, which the platform does itself, by split and
against baselines.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from recsys_assets.domain.factorization_machine.hyperparameters import PredictorType

Floats = npt.NDArray[np.float32]

THRESHOLD = 0.5  # a probability from here on means label 1
_SMALLEST_PROBABILITY = 1e-12  # keeps the logarithm of a certain and wrong prediction finite


@dataclass(frozen=True)
class Metric:
    """One metric: a "score" is the better the higher, a "loss" the lower."""

    name: str
    kind: Literal["score", "loss"]
    value: float


def quality(
    predictor_type: PredictorType, predictions: Floats, labels: Floats
) -> tuple[Metric, ...]:
    """Measure predictions.

    Parameters
    ----------
    predictor_type
        Which metrics: a regressor's is rmse; a binary classifier's are accuracy, cross-entropy and
        F1.
    predictions, labels
        float32 of shape ``(records,)``, at least one; a classifier's predictions are
        probabilities.

    Returns
    -------
    tuple of Metric
        In the order in which the built-in logs them.
    """
    totals = QualityTotals(predictor_type)
    totals.add(predictions, labels)
    return totals.metrics()


class QualityTotals:
    """What :func:`quality` measures, of predictions that come in parts."""

    def __init__(self, predictor_type: PredictorType) -> None:
        self._is_regressor = predictor_type == "regressor"
        self._records = 0
        self._loss = 0.0  # a regressor's squared errors, a classifier's cross-entropies
        self._right = self._true_positives = self._positives = 0

    def add(self, predictions: Floats, labels: Floats) -> None:
        """Count some more predictions; arguments are those of :func:`quality`."""
        self._records += len(labels)
        if self._is_regressor:
            errors = np.subtract(predictions, labels, dtype=np.float64)
            self._loss += float(np.einsum("r,r->", errors, errors))
            return
        positive = predictions >= THRESHOLD
        relevant = labels >= THRESHOLD
        self._right += int(np.count_nonzero(positive == relevant))
        self._true_positives += int(np.count_nonzero(positive & relevant))
        self._positives += int(np.count_nonzero(positive) + np.count_nonzero(relevant))
        predictions = predictions.astype(np.float64)
        of_label = np.where(relevant, predictions, 1.0 - predictions)
        self._loss -= float(np.sum(np.log(np.maximum(of_label, _SMALLEST_PROBABILITY))))

    def metrics(self) -> tuple[Metric, ...]:
        """Return the metrics of all predictions so far, of which there must be one."""
        loss = self._loss / self._records
        if self._is_regressor:
            return (Metric("rmse", "loss", math.sqrt(loss)),)
        f_1 = 2 * self._true_positives / self._positives if self._positives else 0.0
        return (
            Metric("binary_classification_accuracy", "score", self._right / self._records),
            Metric("binary_classification_cross_entropy", "loss", loss),
            Metric("binary_f_1.000", "score", f_1),
        )
