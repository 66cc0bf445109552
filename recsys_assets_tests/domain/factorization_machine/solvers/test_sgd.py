"""Stochastic gradient descent: the update rule, pinned by a plain reference, and its order."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.metrics import quality
from recsys_assets.domain.factorization_machine.model import DataError, FactorizationMachine
from recsys_assets.domain.factorization_machine.solvers import sgd
from recsys_assets.domain.factorization_machine.solvers.common import (
    DivergenceError,
    Progress,
    initial_values,
)
from recsys_assets.domain.factorization_machine.solvers.sgd import train

CUSTOMERS, VIDEOS = 60, 40


def settings_for(X: csr_matrix, **changes: Any) -> ExtendedHyperparameters:
    plain = {
        "num_factors": 3, "predictor_type": "regressor", "solver": "sgd", "epochs": 2,
        "bias_lr": 0.02, "linear_lr": 0.03, "factors_lr": 0.04, "factors_init_sigma": 0.3,
    }  # fmt: skip
    return ExtendedHyperparameters(feature_dim=X.shape[1], **(plain | changes))


def some_records(rows: int = 40) -> tuple[csr_matrix, np.ndarray]:
    """Return rows of zero to many non-zeros."""
    X = csr_matrix(random_array((rows, 15), density=0.2, rng=0, dtype=np.float32))
    return X, np.random.default_rng(0).integers(0, 2, rows).astype(np.float32)


def ratings(rows: int | None = None) -> tuple[csr_matrix, np.ndarray]:
    """Return ratings of a planted model, sorted by customer."""
    generator = np.random.default_rng(3)
    taste, kind = generator.normal(size=(CUSTOMERS, 2)), generator.normal(size=(VIDEOS, 2))
    pairs = np.array([(u, i) for u in range(CUSTOMERS) for i in range(VIDEOS)])[:rows]
    y = (3 + (taste[pairs[:, 0]] * kind[pairs[:, 1]]).sum(axis=1)).astype(np.float32)
    X = csr_matrix(
        (
            np.ones(2 * len(pairs), np.float32),
            (pairs + np.array([0, CUSTOMERS])).reshape(-1),
            np.arange(0, 2 * len(pairs) + 1, 2),
        ),
        shape=(len(pairs), CUSTOMERS + VIDEOS),
    )
    return X, y


def reference(X: csr_matrix, y: np.ndarray, h: ExtendedHyperparameters) -> FactorizationMachine:
    """Take the records one after another, in float64 and dense."""
    generator = np.random.default_rng(0)
    shape = h.feature_dim, h.num_factors
    bias = float(initial_values(h, "bias", (1,), generator)[0])
    w = initial_values(h, "linear", shape[:1], generator).astype(np.float64)
    v = initial_values(h, "factors", shape, generator).astype(np.float64)
    order, dense = generator.permutation(len(y)), X.toarray().astype(np.float64)
    scale, clip = (1 if h.rescale_grad is None else h.rescale_grad), h.clip_gradient or np.inf
    for record in np.tile(order, h.epochs):
        x = dense[record]
        score = bias + w @ x + 0.5 * ((x @ v) ** 2 - x**2 @ v**2).sum()
        predicted = 1 / (1 + np.exp(-score)) if h.predictor_type != "regressor" else score
        e, met = scale * (predicted - y[record]), x != 0
        of_v = e * (np.outer(x, x @ v) - (x**2)[:, None] * v)[met]
        bias -= h.bias_lr * (np.clip(e, -clip, clip) + h.bias_wd * bias)
        w[met] -= h.linear_lr * (np.clip(e * x[met], -clip, clip) + h.linear_wd * w[met])
        v[met] -= h.factors_lr * (np.clip(of_v, -clip, clip) + h.factors_wd * v[met])
    return FactorizationMachine(h.predictor_type, bias, w.astype(np.float32), v.astype(np.float32))


def assert_alike(one: FactorizationMachine, other: FactorizationMachine) -> None:
    assert one.bias == pytest.approx(other.bias, rel=1e-4)
    np.testing.assert_allclose(one.linear, other.linear, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(one.factors, other.factors, rtol=1e-3, atol=1e-5)


CHANGES = [
    {},
    {"predictor_type": "binary_classifier"},
    {"bias_wd": 0.3, "linear_wd": 0.2, "factors_wd": 0.1},
    {"rescale_grad": 0.25, "num_factors": 17},
    {"clip_gradient": 0.05, "factors_wd": 0.5},
    {"clip_gradient": 0.0},  # does not clip
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: ",".join(changes) or "plain")
def test_the_update_rule_is_that_of_the_reference(changes: dict[str, Any]) -> None:
    X, y = some_records()
    h = settings_for(X, **changes)
    model = train(X, y, h)
    assert_alike(model, reference(X, y, h))
    still = {f"{group}_lr": 0.0 for group in ("bias", "linear", "factors")}
    assert np.abs(model.factors - train(X, y, h.model_copy(update=still)).factors).max() > 0.001


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: ",".join(changes) or "plain")
def test_pairs_are_learned_from_as_all_records_are(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = ratings(200)
    y = (y > 3).astype(np.float32)
    h = settings_for(X, **changes)
    one_by_one = [[[0, len(y)], [0, 0]]]
    monkeypatch.setattr(sgd, "_in_rounds", lambda pairs, order: (order, np.array(one_by_one)))
    assert_alike(train(X, y, h), reference(X, y, h))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(10, 16)), min_size=1, max_size=200))
@settings(max_examples=100, deadline=None)
def test_strata_of_a_round_share_no_feature_and_rounds_hold_each_record_once(
    pairs: list[tuple[int, int]],
) -> None:
    features = np.array(pairs, dtype=np.int32)
    before = np.random.default_rng(0).permutation(len(pairs))
    order, rounds = sgd._in_rounds(features, before)
    taken = [order[begin:end] for strata in rounds for begin, end in strata]
    assert sorted(np.concatenate(taken).tolist()) == list(range(len(pairs)))
    for one, other in zip(taken[::2], taken[1::2], strict=True):
        assert not np.intersect1d(features[one], features[other]).size


def test_pairs_of_one_group_of_features_are_taken_one_after_another() -> None:
    X = csr_matrix(np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=np.float32))
    y = np.array([1, 2, 3], dtype=np.float32)
    h = settings_for(X, epochs=3)
    assert_alike(train(X, y, h), reference(X, y, h))


def test_the_model_does_not_depend_on_the_number_of_threads() -> None:
    X, y = ratings()
    one, two, many = (train(X, y, settings_for(X, epochs=5), threads=n) for n in (1, 2, 5))
    for model in (two, many):
        assert model.bias == one.bias
        assert model.linear.tobytes() == one.linear.tobytes()
        assert model.factors.tobytes() == one.factors.tobytes()


def test_a_planted_model_is_recovered_from_sorted_records() -> None:
    X, y = ratings()
    rows = np.random.default_rng(0).permutation(len(y))
    learned, held_out = np.sort(rows[:1800]), rows[1800:]
    h = settings_for(
        X, num_factors=4, epochs=150, bias_wd=0, linear_wd=0, factors_wd=0.001, factors_lr=0.03
    )
    model = train(X[learned], y[learned], h)
    (rmse,) = quality("regressor", model.predict(X[held_out]), y[held_out])
    assert np.std(y) > 1.2
    assert rmse.value < 0.15


def test_metrics_are_of_scores_from_before_each_records_own_step() -> None:
    X, y = ratings()
    reported: list[Progress] = []
    still = {f"{group}_lr": 0.0 for group in ("bias", "linear", "factors")}
    model = train(X, y, settings_for(X, **still), report=reported.append)
    (rmse,) = quality("regressor", model.predict(X), y)
    assert [(progress.epoch, progress.batch) for progress in reported] == [(0, None), (1, None)]
    assert reported[0].metrics[0].value == pytest.approx(rmse.value, rel=1e-6)
    train(X, y, settings_for(X), report=reported.append)
    first = reported[2].metrics[0].value
    assert first < rmse.value  # a record's score knows of the steps before it


def test_the_best_epoch_is_kept_when_training_stops_early() -> None:
    X, y = ratings()
    rows = np.random.default_rng(0).permutation(len(y))
    learned, validation = rows[:300], rows[300:600]
    h = settings_for(X, epochs=200, num_factors=16, factors_lr=0.05, early_stopping_patience=3)
    reported: list[Progress] = []
    records = X[validation], y[validation]
    model = train(X[learned], y[learned], h, validation=records, report=reported.append)
    losses = [progress.validation[0].value for progress in reported]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3 < 200
    (rmse,) = quality("regressor", model.predict(records[0]), records[1])
    assert rmse.value == losses[best]
    shorter = h.model_copy(update={"epochs": best + 1, "early_stopping_patience": None})
    assert train(X[learned], y[learned], shorter).factors.tobytes() == model.factors.tobytes()


def test_the_same_seed_gives_the_same_model_and_another_seed_another() -> None:
    X, y = some_records()
    first, again, other = (train(X, y, settings_for(X), random_state=seed) for seed in (0, 0, 1))
    assert first.factors.tobytes() == again.factors.tobytes()
    assert (first.factors != other.factors).all()


@pytest.mark.parametrize("rate", ["bias_lr", "linear_lr", "factors_lr"])
def test_training_that_diverges_is_an_error_that_names_the_rates(rate: str) -> None:
    for X, y in (some_records(), ratings()):
        with pytest.raises(DivergenceError, match=rf"diverged in epoch \d.*{rate} \(1e\+20\)"):
            train(X, y, settings_for(X, epochs=5, **{rate: 1e20}))


def test_records_that_cannot_be_learned_from_are_refused() -> None:
    X, y = some_records()
    broken = X.copy()
    broken.data[0] = np.inf
    patient = settings_for(X, early_stopping_patience=1)
    for records, labels, h, message in (
        (X[:0], y[:0], settings_for(X), "at least one record"),
        (X, y[:-1], settings_for(X), "expected 40 float32 labels"),
        (broken, y, settings_for(X), "expected finite values, got inf of feature"),
        (X, y, patient, "early_stopping_patience needs validation records"),
    ):
        with pytest.raises(DataError, match=message):
            train(records, labels, h)


def test_a_single_record_and_empty_records_can_be_learned_from() -> None:
    X = csr_matrix((3, 4), dtype=np.float32)
    y = np.full(3, 2.0, dtype=np.float32)
    h = settings_for(X, epochs=200, bias_lr=0.1, bias_wd=0.0)
    assert train(X, y, h).bias == pytest.approx(2, abs=1e-3)
    X, y = ratings(1)
    h = settings_for(X, epochs=200, bias_lr=0.1, bias_wd=0.0)
    assert train(X, y, h).predict(X)[0] == pytest.approx(float(y[0]), abs=1e-2)
