"""The built-in's metrics on examples worked out by hand."""

import math

import numpy as np
import pytest

from recsys_assets.domain.factorization_machine.metrics import quality


def f32(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_a_regressors_metric_is_the_root_of_the_mean_squared_error() -> None:
    (rmse,) = quality("regressor", f32(1, 2, 3), f32(1, 4, 2))
    assert (rmse.name, rmse.kind) == ("rmse", "loss")
    assert rmse.value == pytest.approx(math.sqrt(5 / 3))


def test_a_classifiers_metrics_are_accuracy_cross_entropy_and_f1() -> None:
    # predicted 1 1 0 0, labels 1 0 1 0: one of each kind
    metrics = quality("binary_classifier", f32(0.8, 0.5, 0.4, 0.1), f32(1, 0, 1, 0))
    assert [(metric.name, metric.kind) for metric in metrics] == [
        ("binary_classification_accuracy", "score"),
        ("binary_classification_cross_entropy", "loss"),
        ("binary_f_1.000", "score"),
    ]
    entropy = -(math.log(0.8) + math.log(0.5) + math.log(0.4) + math.log(0.9)) / 4
    assert [metric.value for metric in metrics] == pytest.approx([0.5, entropy, 0.5])


def test_a_certain_and_wrong_prediction_costs_a_finite_loss() -> None:
    _, entropy, _ = quality("binary_classifier", f32(1, 0), f32(0, 1))
    assert entropy.value == pytest.approx(-math.log(1e-12))


def test_f1_is_zero_when_nothing_is_positive() -> None:
    _, _, f1 = quality("binary_classifier", f32(0.1, 0.2), f32(0, 0))
    assert f1.value == 0.0
