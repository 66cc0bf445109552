"""Training: the update rule, pinned by a plain reference, and what it can learn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array

from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.metrics import quality
from recsys_assets.domain.factorization_machine.model import DataError
from recsys_assets.domain.factorization_machine.solvers import adam
from recsys_assets.domain.factorization_machine.solvers.adam import train
from recsys_assets.domain.factorization_machine.solvers.common import DivergenceError, Progress


def settings_for(X: csr_matrix, **changes: Any) -> ExtendedHyperparameters:
    plain = {"num_factors": 3, "predictor_type": "regressor", "mini_batch_size": 7, "epochs": 2}
    return ExtendedHyperparameters(feature_dim=X.shape[1], **(plain | changes))


def some_records(rows: int, features: int, seed: int = 0) -> tuple[csr_matrix, np.ndarray]:
    """Return rows of zero to many non-zeros, and features that few mini-batches meet."""
    generator = np.random.default_rng(seed)
    X = csr_matrix(random_array((rows, features), density=0.15, rng=seed, dtype=np.float32))
    return X, generator.integers(0, 2, rows).astype(np.float32)


def reference(
    X: csr_matrix,
    y: np.ndarray,
    h: ExtendedHyperparameters,
    start: tuple[float, np.ndarray, np.ndarray],
) -> tuple[float, np.ndarray, np.ndarray, list[float]]:
    """Train as the built-in does, in float64 and dense; return also each epoch's scores."""
    X, size = X.toarray().astype(np.float64), h.mini_batch_size
    groups = {"bias": [start[0]], "linear": start[1][:, None], "factors": start[2]}
    theta = {name: np.array(value, dtype=np.float64) for name, value in groups.items()}
    m = {name: np.zeros_like(value) for name, value in theta.items()}
    s = {name: np.zeros_like(value) for name, value in theta.items()}
    batches, t, epochs = -(-len(y) // size), 0, []
    for _ in range(h.epochs):
        scored = []
        for batch in range(batches):
            rows = np.arange(batch * size, (batch + 1) * size) % len(y)
            x, v = X[rows], theta["factors"]
            sums = x @ v
            score = theta["bias"] + x @ theta["linear"][:, 0]
            score = score + 0.5 * (sums**2 - (x**2) @ (v**2)).sum(axis=1)
            scored.append(score)
            predicted = 1 / (1 + np.exp(-score)) if h.predictor_type != "regressor" else score
            error = predicted - y[rows]
            gradients = {
                "bias": error.sum(keepdims=True),
                "linear": (error @ x)[:, None],
                "factors": x.T @ (error[:, None] * sums) - (error @ x**2)[:, None] * v,
            }
            touched = (x != 0).any(axis=0)
            t += 1
            rate = np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            for name, gradient in gradients.items():
                at = [0] if name == "bias" else touched
                g = gradient[at] * (h.rescale_grad or 1 / size)
                # decay before clipping: so does adam_update of MXNet 1.9.1, dense and lazy
                g += getattr(h, f"{name}_wd") * theta[name][at]
                g = np.clip(g, -(h.clip_gradient or np.inf), h.clip_gradient or np.inf)
                m[name][at] = 0.9 * m[name][at] + 0.1 * g
                s[name][at] = 0.999 * s[name][at] + 0.001 * g**2
                step = getattr(h, f"{name}_lr") * rate
                theta[name][at] -= step * m[name][at] / (np.sqrt(s[name][at]) + (h.eps or 1e-8))
        epochs.append(np.concatenate(scored))
    return theta["bias"][0], theta["linear"][:, 0], theta["factors"], epochs


def initial(X: csr_matrix, h: ExtendedHyperparameters) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the initial parameters: those of a run that changes nothing."""
    still = {f"{group}_lr": 0.0 for group in ("bias", "linear", "factors")}
    model = train(X, np.zeros(X.shape[0], np.float32), h.model_copy(update=still))
    return model.bias, model.linear, model.factors


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"predictor_type": "binary_classifier"},
        {"mini_batch_size": 20},  # the last mini-batch is full
        {"mini_batch_size": 50},  # one mini-batch that wraps around more than once
        {"factors_init_sigma": 0.5, "factors_lr": 0.05, "factors_wd": 0.3, "linear_wd": 0.2},
        {"bias_lr": 0.01, "linear_lr": 0.03, "bias_wd": 0.5, "factors_init_sigma": 0.2},
        {"rescale_grad": 2.0, "eps": 0.5, "factors_init_sigma": 0.2, "factors_lr": 0.1},
        {"clip_gradient": 0.05, "linear_wd": 1.0, "linear_lr": 0.1},
        {"clip_gradient": 0.0},  # does not clip, as in MXNet
        {"num_factors": 1},
        {"factors_init_method": "uniform", "factors_init_scale": 0.4, "num_factors": 17},
    ],
    ids=lambda changes: ",".join(changes) or "defaults",
)
def test_the_update_rule_is_that_of_the_reference(changes: dict[str, Any]) -> None:
    X, y = some_records(20, 30)
    h = settings_for(X, **({"factors_lr": 0.01, "linear_lr": 0.01} | changes), epochs=3)
    bias, linear, factors, _ = reference(X, y, h, initial(X, h))
    model = train(X, y, h)
    assert model.bias == pytest.approx(bias, rel=1e-4)
    np.testing.assert_allclose(model.linear, linear, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(model.factors, factors, rtol=1e-3, atol=1e-5)
    assert np.abs(factors - initial(X, h)[2]).max() > 0.01


def test_metrics_are_of_scores_from_before_each_update_and_count_wrapped_records_again() -> None:
    X, y = some_records(20, 30)
    h = settings_for(X, epochs=2)
    reported: list[Progress] = []
    train(X, y, h, report=reported.append)
    *_, scores = reference(X, y, h, initial(X, h))
    wrapped = np.concatenate([y, y[:1]])  # 3 mini-batches of 7
    for epoch in range(2):
        error = scores[epoch] - wrapped
        first, whole = reported[2 * epoch : 2 * epoch + 2]
        assert (first.epoch, first.batch, whole.epoch, whole.batch) == (epoch, 0, epoch, None)
        assert first.metrics[0].value == pytest.approx(np.sqrt((error[:7] ** 2).mean()), rel=1e-5)
        assert whole.metrics[0].value == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)


def test_every_so_many_mini_batches_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = some_records(20, 30)
    h = settings_for(X, mini_batch_size=3)  # 7 mini-batches an epoch
    whole = train(X, y, h)
    monkeypatch.setattr(adam, "BATCHES_PER_REPORT", 3)
    reported: list[Progress] = []
    in_parts = train(X, y, h, report=reported.append)
    assert [progress.batch for progress in reported] == [0, 3, 6, None, 0, 3, 6, None]
    np.testing.assert_array_equal(in_parts.factors, whole.factors)


@pytest.mark.parametrize("predictor_type", ["regressor", "binary_classifier"])
def test_the_gradient_is_that_of_the_loss(predictor_type: str) -> None:
    """Take it from Adam's first step with a huge eps: there the step is lr / eps * gradient."""
    X, y = some_records(20, 6)
    h = settings_for(X, predictor_type=predictor_type, mini_batch_size=20, epochs=1, num_factors=2)
    eps = 1e4
    h = h.model_copy(
        update={"factors_init_sigma": 0.5, "eps": eps}
        | {f"{group}_wd": 0.0 for group in ("bias", "linear", "factors")}
        | {f"{group}_lr": eps for group in ("bias", "linear", "factors")}
    )
    start = initial(X, h)
    stepped = train(X, y, h)
    # the first correction is sqrt(0.001) / 0.1, the first moment 0.1 * gradient
    scale = np.sqrt(0.001)
    dense = X.toarray().astype(np.float64)

    def loss(bias: float, linear: np.ndarray, factors: np.ndarray) -> float:
        pairs = 0.5 * ((dense @ factors) ** 2 - dense**2 @ factors**2).sum(axis=1)
        score = bias + dense @ linear + pairs
        if predictor_type == "regressor":
            return float(np.mean((score - y) ** 2) / 2)
        return float(np.mean(np.log1p(np.exp(score)) - y * score))

    def slope(change: Callable[[float], tuple[float, np.ndarray, np.ndarray]]) -> float:
        return (loss(*change(1e-4)) - loss(*change(-1e-4))) / 2e-4

    bias, linear, factors = start[0], start[1].astype(np.float64), start[2].astype(np.float64)
    expected_bias = slope(lambda d: (bias + d, linear, factors))
    assert (bias - stepped.bias) / scale == pytest.approx(expected_bias, rel=1e-3, abs=1e-5)
    for j in range(6):
        one = np.eye(6)[j]
        expected = slope(lambda d, one=one: (bias, linear + d * one, factors))
        assert (linear - stepped.linear)[j] / scale == pytest.approx(expected, rel=1e-3, abs=1e-5)
        for f in range(2):
            one = np.outer(np.eye(6)[j], np.eye(2)[f])
            expected = slope(lambda d, one=one: (bias, linear, factors + d * one))
            found = (factors - stepped.factors)[j, f] / scale
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_a_feature_that_no_record_has_keeps_its_initial_values() -> None:
    X = csr_matrix(np.array([[1, 0, 1], [1, 0, 0]], dtype=np.float32))
    h = settings_for(X, linear_wd=1.0, factors_wd=1.0, epochs=20, factors_lr=0.1)
    _, linear, factors = initial(X, h)
    model = train(X, np.ones(2, np.float32), h)
    assert model.linear[1] == linear[1]
    np.testing.assert_array_equal(model.factors[1], factors[1])
    assert (model.linear[[0, 2]] != linear[[0, 2]]).all()


def test_a_planted_model_is_recovered() -> None:
    generator = np.random.default_rng(3)
    customers, videos = 60, 40
    taste, kind = generator.normal(size=(customers, 2)), generator.normal(size=(videos, 2))
    pairs = np.array([(u, i) for u in range(customers) for i in range(videos)])
    generator.shuffle(pairs)
    y = (3 + (taste[pairs[:, 0]] * kind[pairs[:, 1]]).sum(axis=1)).astype(np.float32)
    X = csr_matrix(
        (
            np.ones(2 * len(pairs), np.float32),
            (pairs + np.array([0, customers])).reshape(-1),
            np.arange(0, 2 * len(pairs) + 1, 2),
        ),
        shape=(len(pairs), customers + videos),
    )
    h = settings_for(
        X, num_factors=4, epochs=60, mini_batch_size=50, factors_lr=0.02, factors_init_sigma=0.1,
        linear_lr=0.01, bias_lr=0.01, bias_wd=0, linear_wd=0, factors_wd=0,
    )  # fmt: skip
    train_rows, test_rows = slice(0, 1800), slice(1800, None)
    model = train(X[train_rows], y[train_rows], h)
    (rmse,) = quality("regressor", model.predict(X[test_rows]), y[test_rows])
    assert np.std(y) > 1.2
    assert rmse.value < 0.15


def test_initial_values_follow_their_methods() -> None:
    X = csr_matrix((1, 50_000), dtype=np.float32)
    h = settings_for(
        X,
        bias_init_method="constant",
        bias_init_value=3.5,
        linear_init_method="uniform",
        linear_init_scale=0.2,
        factors_init_sigma=0.03,
    )
    bias, linear, factors = initial(X, h)
    assert bias == 3.5
    assert np.abs(linear).max() <= 0.2
    assert linear.std() == pytest.approx(0.2 / np.sqrt(3), rel=0.02)
    assert abs(linear.mean()) < 0.002
    assert factors.std() == pytest.approx(0.03, rel=0.02)
    assert abs(factors.mean()) < 0.001


def test_the_same_seed_gives_the_same_model_and_another_seed_another() -> None:
    X, y = some_records(20, 30)
    h = settings_for(X)
    first, again, other = (train(X, y, h, random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.factors, again.factors)
    np.testing.assert_array_equal(first.linear, again.linear)
    assert (first.factors != other.factors).all()


@pytest.mark.parametrize("factors", [1, 2, 7, 64])
def test_the_model_does_not_depend_on_the_number_of_threads(
    factors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adam, "_SMALLEST_SHARED_BATCH", 1)
    monkeypatch.setattr(adam, "BATCHES_PER_REPORT", 10)
    X, y = some_records(500, 80)
    h = settings_for(X, num_factors=factors, factors_lr=0.05, epochs=5)
    one, two, many = (train(X, y, h, threads=threads) for threads in (1, 2, 5))
    for model in (two, many):
        assert model.bias == one.bias
        assert model.linear.tobytes() == one.linear.tobytes()
        assert model.factors.tobytes() == one.factors.tobytes()


def test_the_best_epoch_is_kept_when_training_stops_early() -> None:
    X, _ = some_records(60, 30)
    y = (X @ np.random.default_rng(0).normal(size=30)).astype(np.float32)
    validation = X[40:], y[40:]
    h = settings_for(X, epochs=300, factors_lr=0.02, linear_lr=0.02, early_stopping_patience=3)
    reported: list[Progress] = []
    model = train(X[:40], y[:40], h, validation=validation, report=reported.append)
    losses = [progress.validation[0].value for progress in reported if progress.batch is None]
    best = int(np.argmin(losses))
    assert best > 0
    assert len(losses) == best + 1 + 3 < 300
    (rmse,) = quality("regressor", model.predict(validation[0]), validation[1])
    assert rmse.value == losses[best]
    shorter = h.model_copy(update={"epochs": best + 1, "early_stopping_patience": None})
    assert train(X[:40], y[:40], shorter).factors.tobytes() == model.factors.tobytes()


def test_entries_stored_out_of_order_train_the_same_model() -> None:
    X, y = some_records(20, 30)
    backwards = X.copy()
    for row in range(X.shape[0]):
        part = slice(X.indptr[row], X.indptr[row + 1])
        backwards.indices[part] = X.indices[part][::-1]
        backwards.data[part] = X.data[part][::-1]
    backwards.has_sorted_indices = False
    backwards.has_canonical_format = False
    h = settings_for(X)
    np.testing.assert_array_equal(train(backwards, y, h).factors, train(X, y, h).factors)


@pytest.mark.parametrize("rate", ["linear_lr", "factors_lr"])
def test_training_that_diverges_is_an_error_that_names_the_rates(rate: str) -> None:
    X, y = some_records(20, 30)
    with pytest.raises(DivergenceError, match=rf"diverged in epoch \d.*{rate} \(1e\+30\)"):
        train(X, y, settings_for(X, epochs=3, **{rate: 1e30}))


def test_records_that_cannot_be_learned_from_are_refused() -> None:
    X, y = some_records(20, 30)
    h = settings_for(X)
    classifier = settings_for(X, predictor_type="binary_classifier")
    three, infinite = y.copy(), y.copy()
    three[4], infinite[5] = 3, np.inf
    not_a_number, outside, negative = X.copy(), X.copy(), X.copy()
    not_a_number.data[X.indptr[6]] = np.nan
    outside.indices[X.indptr[7]] = 30
    negative.indices[X.indptr[8]] = -1
    patient = settings_for(X, early_stopping_patience=1)
    for records, labels, settings, message in (
        (X[:0], y[:0], h, "at least one record"),
        (X[:, :29], y, h, r"expected records of 30 features \(feature_dim\), got 29"),
        (X, y[:19], h, r"expected 20 float32 labels, .* got float32 of shape \(19,\)"),
        (X, y.astype(np.float64), h, "float64"),
        (X, infinite, h, "expected finite labels, got inf in record 5"),
        (X, None, h, "expected records with labels, got none"),
        (not_a_number, y, h, r"expected finite values, got nan of feature \d+ in record 6"),
        (outside, y, h, "expected features from 0 to 29, got 30 in record 7"),
        (negative, y, h, "expected features from 0 to 29, got -1 in record 8"),
        (X, y, patient, "early_stopping_patience needs validation records"),
        (X, three, classifier, "labels 0 or 1 .* got 3 in record 4"),
    ):
        with pytest.raises(DataError, match=message):
            train(records, labels, settings)


# AWS's log of ml.c4.xlarge: MovieLens 100K ua.base and ua.test, rating >= 4, rows in file order.
AWS_TRAIN_CROSS_ENTROPY = {
    0: 0.6858020927311306, 1: 0.6732, 2: 0.6633, 4: 0.6491, 9: 0.6274, 14: 0.6129, 19: 0.6013,
    24: 0.5914, 29: 0.5827834277963533,
}  # fmt: skip
AWS_TEST = {"accuracy": 0.6934662706830717, "cross_entropy": 0.6039596941190905, "f1": 0.76241368}


def test_awss_own_run_on_movielens_is_reproduced(real_data: Callable[[str], Path]) -> None:
    folder = real_data("ml-100k")
    base, test = (np.loadtxt(folder / name, dtype=np.int64) for name in ("ua.base", "ua.test"))
    customers, videos = np.unique(base[:, 0]), np.unique(base[:, 1])
    test = test[np.isin(test[:, 1], videos)]

    def one_hot(rows: np.ndarray) -> tuple[csr_matrix, np.ndarray]:
        columns = np.stack(
            [
                np.searchsorted(customers, rows[:, 0]),
                len(customers) + np.searchsorted(videos, rows[:, 1]),
            ],
            axis=1,
        )
        X = csr_matrix(
            (
                np.ones(columns.size, np.float32),
                columns.reshape(-1),
                np.arange(0, columns.size + 1, 2),
            ),
            shape=(len(rows), len(customers) + len(videos)),
        )
        return X, (rows[:, 2] >= 4).astype(np.float32)

    X, y = one_hot(base)
    assert X.shape == (90_570, 2623)
    assert len(test) == 9428
    h = ExtendedHyperparameters(
        feature_dim=2623,
        num_factors=64,
        predictor_type="binary_classifier",
        epochs=30,
        mini_batch_size=200,
    )
    entropy = {}

    def report(progress: Progress) -> None:
        if progress.batch is None:
            entropy[progress.epoch] = progress.metrics[1].value

    model = train(X, y, h, report=report)
    for epoch, published in AWS_TRAIN_CROSS_ENTROPY.items():
        assert entropy[epoch] == pytest.approx(published, rel=0.0015), epoch
    X_test, y_test = one_hot(test)
    accuracy, cross_entropy, f1 = quality("binary_classifier", model.predict(X_test), y_test)
    assert cross_entropy.value == pytest.approx(AWS_TEST["cross_entropy"], rel=0.003)
    assert accuracy.value == pytest.approx(AWS_TEST["accuracy"], abs=0.005)
    assert f1.value == pytest.approx(AWS_TEST["f1"], abs=0.005)
