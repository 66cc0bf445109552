"""The estimator: what a user of the package sees, whatever the solver."""

import doctest
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array

from recsys_assets.domain.factorization_machine import estimator as estimator_module
from recsys_assets.domain.factorization_machine.estimator import FactorizationMachineEstimator
from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.model import DataError
from recsys_assets.domain.factorization_machine.solvers.common import Progress

SOLVERS = ["adam", "sgd", "mcmc"]
X = csr_matrix(random_array((300, 12), density=0.3, rng=0, dtype=np.float32))
Y = np.asarray(1 + X @ np.linspace(-1, 1, 12, dtype=np.float32)).astype(np.float32)
NOISE = np.random.default_rng(1).normal(size=300).astype(np.float32)


def settings(solver: str, **changes: Any) -> ExtendedHyperparameters:
    usual = {
        "feature_dim": 12,
        "num_factors": 2,
        "predictor_type": "regressor",
        "solver": solver,
        "epochs": 40,
        "burn_in": 10,
        "mini_batch_size": 20,
        "linear_lr": 0.05,
        "linear_wd": 0.0,
    }
    return ExtendedHyperparameters(**(usual | changes))


def fitted(solver: str, **options: Any) -> FactorizationMachineEstimator:
    return FactorizationMachineEstimator(settings(solver), **options).fit(X, Y)


def test_the_example_in_the_documentation_does_what_it_says() -> None:
    results = doctest.testmod(estimator_module)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_learns_a_linear_law(solver: str) -> None:
    predictions = fitted(solver).predict(X)
    assert np.sqrt(np.mean((predictions - Y) ** 2)) < 0.2 * Y.std()


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_model_depends_on_the_seed_and_not_on_the_threads(solver: str) -> None:
    one, two, other = (
        fitted(solver, random_state=seed, threads=threads).model_
        for seed, threads in ((3, 1), (3, 2), (4, 2))
    )
    assert one.factors.tobytes() == two.factors.tobytes() != other.factors.tobytes()
    assert one.linear.tobytes() == two.linear.tobytes()
    assert one.bias == two.bias


@pytest.mark.parametrize("solver", SOLVERS)
def test_early_stopping_keeps_the_best_epochs_model(solver: str) -> None:
    epochs: list[Progress] = []

    def report(progress: Progress) -> None:
        if progress.batch is None:
            epochs.append(progress)

    hyperparameters = settings(
        solver, epochs=300, early_stopping_patience=4, num_factors=8, factors_lr=0.05
    )
    validation = X[200:], NOISE[200:]
    found = FactorizationMachineEstimator(hyperparameters).fit(
        X[:40], NOISE[:40], validation=validation, report=report
    )
    losses = [progress.validation[0].value for progress in epochs if progress.validation]
    assert len(epochs) < 300
    assert len(losses) == int(np.argmin(losses)) + 1 + 4
    rmse = np.sqrt(np.mean((found.predict(validation[0]) - validation[1]) ** 2))
    assert rmse == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_early_stopping_needs_validation_records(solver: str) -> None:
    estimator = FactorizationMachineEstimator(settings(solver, early_stopping_patience=4))
    with pytest.raises(DataError, match="early_stopping_patience needs validation records"):
        estimator.fit(X, Y)


def one_wrong(**changes: Any) -> csr_matrix:
    wrong = X.copy()
    for part, value in changes.items():
        getattr(wrong, part)[wrong.indptr[7]] = value
    return wrong


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("records", "labels", "message"),
    [
        (one_wrong(data=np.nan), Y, "expected finite values, got nan .* in record 7"),
        (one_wrong(data=np.inf), Y, "expected finite values, got inf .* in record 7"),
        (one_wrong(indices=12), Y, "expected features from 0 to 11, got 12 in record 7"),
        (one_wrong(indices=-1), Y, "expected features from 0 to 11, got -1 in record 7"),
        (
            X,
            np.where(np.arange(300) == 7, np.nan, Y),
            "expected finite labels, got nan in record 7",
        ),
        (X[:0], Y[:0], "expected at least one record, got none"),
        (X[:, :11], Y, r"expected records of 12 features \(feature_dim\), got 11"),
        (X, Y[:299], "expected 300 float32 labels"),
    ],
)
def test_records_that_nothing_can_be_learned_from_are_refused(
    solver: str, records: csr_matrix, labels: np.ndarray, message: str
) -> None:
    estimator = FactorizationMachineEstimator(settings(solver))
    with pytest.raises(DataError, match=message):
        estimator.fit(records, labels.astype(np.float32))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_single_record_is_learned_from(solver: str) -> None:
    estimator = FactorizationMachineEstimator(settings(solver)).fit(X[:1], Y[:1])
    assert np.isfinite(estimator.predict(X)).all()


@pytest.mark.parametrize("rows", [1, 7, 299, 1000])
def test_a_stream_is_fitted_to_the_model_of_all_records_at_once(rows: int) -> None:
    def chunks() -> Iterator[tuple[csr_matrix, np.ndarray]]:
        for first in range(0, 300, rows):
            yield X[first : first + rows], Y[first : first + rows]

    hyperparameters = settings("adam", epochs=3, mini_batch_size=7)
    streamed = FactorizationMachineEstimator(hyperparameters).fit_stream(chunks)
    at_once = FactorizationMachineEstimator(hyperparameters).fit(X, Y)
    assert streamed.model_.factors.tobytes() == at_once.model_.factors.tobytes()
    assert streamed.model_.linear.tobytes() == at_once.model_.linear.tobytes()
    assert streamed.model_.bias == at_once.model_.bias


@pytest.mark.parametrize("solver", ["sgd", "mcmc"])
def test_a_solver_that_needs_all_records_takes_no_stream(solver: str) -> None:
    estimator = FactorizationMachineEstimator(settings(solver))
    with pytest.raises(ValueError, match=f"expected solver 'adam' for a stream .* got '{solver}'"):
        estimator.fit_stream(lambda: [(X, Y)])
