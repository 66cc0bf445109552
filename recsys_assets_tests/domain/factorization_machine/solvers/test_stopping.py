"""Early stopping: when training ends, and which model is kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.metrics import Metric, quality
from recsys_assets.domain.factorization_machine.model import DataError, FactorizationMachine
from recsys_assets.domain.factorization_machine.solvers.common import DivergenceError
from recsys_assets.domain.factorization_machine.solvers.stopping import (
    EarlyStopping,
    check_validation,
    validate,
)

X = csr_matrix(np.eye(3, dtype=np.float32))


def a_model(bias: float = 0.0) -> FactorizationMachine:
    return FactorizationMachine(
        "regressor", bias, np.zeros(3, np.float32), np.zeros((3, 1), np.float32)
    )


def run(losses: list[float], patience: int | None) -> tuple[int, float]:
    """Return how many epochs ran and the number of the one whose model is kept."""
    stopping = EarlyStopping(patience)
    for epoch, loss in enumerate(losses):
        if stopping.update(a_model(epoch), (Metric("rmse", "loss", loss),)):
            break
    assert stopping.best is not None
    return epoch + 1, stopping.best.bias


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([3, 2, 1], 1, (3, 2)),
        ([3, 2, 2.5, 1], 1, (3, 1)),
        ([3, 2, 2.5, 1], 2, (4, 3)),
        ([3, 2, 2, 1], 1, (3, 1)),  # as good as the best is no improvement
        ([3, 2, 4, 1, 4, 4], 2, (6, 3)),  # an improvement starts the count anew
        ([1, 2, 3], None, (3, 2)),  # without patience the last is kept
    ],
)
def test_training_ends_after_epochs_without_improvement_and_the_best_is_kept(
    losses: list[float], patience: int | None, expected: tuple[int, float]
) -> None:
    assert run(losses, patience) == expected


@given(st.lists(st.integers(0, 5), min_size=1), st.integers(1, 4))
def test_the_model_kept_is_the_first_with_the_least_loss_of_the_epochs_that_ran(
    losses: list[int], patience: int
) -> None:
    epochs, best = run([float(loss) for loss in losses], patience)
    assert best == int(np.argmin(losses[:epochs]))
    assert epochs == len(losses) or epochs - 1 - best == patience


def test_a_classifier_is_judged_by_its_cross_entropy_not_by_its_scores() -> None:
    labels = np.array([1, 0], np.float32)
    confident, right = (np.array(p, np.float32) for p in ([0.51, 0.99], [0.49, 0.5]))
    stopping = EarlyStopping(1)
    stopping.update(a_model(0), quality("binary_classifier", confident, labels))
    assert not stopping.update(a_model(1), quality("binary_classifier", right, labels))
    assert stopping.best is not None
    assert stopping.best.bias == 1


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_divergence(loss: float) -> None:
    with pytest.raises(DivergenceError, match=r"diverged: rmse on validation is (nan|inf)"):
        EarlyStopping(1).update(a_model(), (Metric("rmse", "loss", loss),))


def test_validation_records_are_needed_for_patience_and_checked() -> None:
    plain = ExtendedHyperparameters(feature_dim=3, num_factors=1, predictor_type="regressor")
    patient = plain.model_copy(update={"early_stopping_patience": 2})
    check_validation(None, plain)
    check_validation((X, np.ones(3, np.float32)), patient)
    with pytest.raises(DataError, match="early_stopping_patience needs validation records"):
        check_validation(None, patient)
    with pytest.raises(DataError, match="expected 3 float32 labels"):
        check_validation((X, np.ones(2, np.float32)), plain)


def test_validation_measures_the_models_predictions() -> None:
    (rmse,) = validate(a_model(2.0), (X, np.array([2, 2, 5], np.float32)))
    assert (rmse.name, rmse.value) == ("rmse", pytest.approx(np.sqrt(3)))
