"""The quality metrics that the built-in reports while it trains.

What belongs here: what SageMaker's Factorization Machines logs as ``quality_metric``, by the names
it uses. What does not: evaluating recommendations, which the platform does itself, by split and
against baselines.
"""

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
    predictions, labels = predictions.astype(np.float64), labels.astype(np.float64)
    if predictor_type == "regressor":
        return (Metric("rmse", "loss", float(np.sqrt(np.mean((predictions - labels) ** 2)))),)

    positive = predictions >= THRESHOLD
    relevant = labels >= THRESHOLD
    true_positives = int(np.count_nonzero(positive & relevant))
    counted = int(np.count_nonzero(positive) + np.count_nonzero(relevant))
    of_label = np.where(relevant, predictions, 1.0 - predictions)
    cross_entropy = -np.mean(np.log(np.maximum(of_label, _SMALLEST_PROBABILITY)))
    return (
        Metric("binary_classification_accuracy", "score", float(np.mean(positive == relevant))),
        Metric("binary_classification_cross_entropy", "loss", float(cross_entropy)),
        Metric("binary_f_1.000", "score", 2 * true_positives / counted if counted else 0.0),
    )
