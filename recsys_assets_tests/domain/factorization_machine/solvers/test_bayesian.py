"""The sampler: its conditional distributions against closed forms, and what it can learn."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, hstack, random_array, vstack

from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.model import DataError, FactorizationMachine
from recsys_assets.domain.factorization_machine.solvers import bayesian
from recsys_assets.domain.factorization_machine.solvers.bayesian import train
from recsys_assets.domain.factorization_machine.solvers.blocks import as_blocks
from recsys_assets.domain.factorization_machine.solvers.common import DivergenceError, Progress


def settings_for(X: csr_matrix, **changes: Any) -> ExtendedHyperparameters:
    plain = {"num_factors": 3, "epochs": 30, "burn_in": 10}
    return ExtendedHyperparameters(
        feature_dim=X.shape[1], predictor_type="regressor", solver="mcmc", **(plain | changes)
    )


def one_hot(columns: np.ndarray, size: int) -> csr_matrix:
    rows = len(columns)
    return csr_matrix((np.ones(rows, np.float32), (np.arange(rows), columns)), shape=(rows, size))


def some_records(
    rows: int = 60, group_sizes: tuple[int, ...] = (7, 5, 6), seed: int = 0
) -> tuple[csr_matrix, np.ndarray]:
    """Return records of two one-hot fields, the second with other values than 1, and more."""
    generator = np.random.default_rng(seed)
    fields = [one_hot(generator.integers(0, size, rows), size) for size in group_sizes[:2]]
    fields[1] = fields[1].multiply(generator.choice([0.5, 2], (rows, 1)))
    shared = [
        random_array((rows, size), density=0.4, rng=seed, dtype=np.float32)
        for size in group_sizes[2:]
    ]
    X = csr_matrix(hstack([*fields, *shared], format="csr", dtype=np.float32))
    return X, (3 + generator.normal(size=rows)).astype(np.float32)


def grid(rows: int, columns: int) -> csr_matrix:
    """Return a record for each pair of a row and a column."""
    pairs = np.array(list(product(range(rows), range(columns))))
    return hstack([one_hot(pairs[:, 0], rows), one_hot(pairs[:, 1], columns)], format="csr")


def rmse(model: FactorizationMachine, X: csr_matrix, y: np.ndarray) -> float:
    return float(np.sqrt(np.mean((model.predict(X) - y) ** 2)))


# ----------------------------------------------------------------------- conditional distributions

MU, LAM = np.array([0.2, -0.3, 0.1, 0.4]), np.array([2.0, 3.0, 1.5, 5.0])
KAPPA = 0.85


def a_chain(
    X: csr_matrix,
    y: np.ndarray,
    group_sizes: tuple[int, ...],
    sweeps: int = 3,
    num_factors: int = 3,
) -> bayesian._Chain:
    blocks = as_blocks(X, group_sizes)
    chain = bayesian._Chain(blocks, y, num_factors, 5, ThreadPoolExecutor(1))
    for sweep in range(sweeps):
        chain.sweep(sweep)
    return chain


def scores(chain: bayesian._Chain, X: np.ndarray) -> np.ndarray:
    factors = chain.theta[:, :-1].astype(np.float64)
    pairs = ((X @ factors) ** 2 - X**2 @ factors**2).sum(axis=1) / 2
    scored: np.ndarray = chain.bias + X @ chain.theta[:, -1].astype(np.float64) + pairs
    return scored


def reliabilities(chain: bayesian._Chain, X: csr_matrix, group_sizes: tuple[int, ...]) -> list[Any]:
    """Return, for each block, that of each record's feature."""
    found = []
    first = 0
    for block in as_blocks(X, group_sizes):
        found.append(chain._reliability[first : first + block.cases.shape[0]][block.case])
        first += block.cases.shape[0]
    return found


def check_exclusive_draws(
    X: csr_matrix, y: np.ndarray, group_sizes: tuple[int, ...], index: int, num_factors: int
) -> None:
    """Compare r, mean and covariance of each feature of a block with their closed forms."""
    chain = a_chain(X, y, group_sizes, num_factors=num_factors)
    dense = X.toarray().astype(np.float64)
    mu, lam = np.resize(MU, num_factors + 1), np.resize(LAM, num_factors + 1)
    block, columns = chain._blocks[index], as_blocks(X, group_sizes)[index].columns
    precision = chain._precision
    weights = np.prod(np.delete(reliabilities(chain, X, group_sizes), index, axis=0), axis=0)
    before = scores(chain, dense)
    counts = (dense[:, columns] != 0).sum(axis=0)
    few = bayesian._few_records(num_factors + 1)
    widths = num_factors + 1 + np.where(counts <= few, counts, 0)
    generator = chain._generator(9, index, 0)
    normals = np.split(generator.standard_normal(widths.sum(), np.float32), np.cumsum(widths))
    gammas = generator.standard_gamma(100 + counts / 2)
    roots = roots_of_covariances(chain, block, mu, lam, few, widths, gammas)
    old = block.theta.astype(np.float64)
    chain._draw_exclusive(block, mu, lam, (9, index))
    reliability = reliabilities(chain, X, group_sizes)[index]

    for place, feature in enumerate(range(columns.start, columns.stop)):
        has = dense[:, feature] != 0
        errors, w, x = (y - before)[has], weights[has], dense[has, feature]
        r = gammas[place] / (100 + precision * (w * errors**2).sum() / 2)
        np.testing.assert_allclose(reliability[has], r, rtol=1e-4)

        others = np.delete(dense[has], np.s_[columns], axis=1)
        of_others = np.delete(chain.theta, np.s_[columns], axis=0).astype(np.float64)
        q = np.column_stack([others @ of_others[:, :-1], np.ones(len(x))])
        pairs = ((others @ of_others) ** 2 - others**2 @ of_others**2)[:, :-1].sum(axis=1) / 2
        rest = chain.bias + others @ of_others[:, -1] + pairs
        P = np.diag(lam) + precision * r * (q * (w * x**2)[:, None]).T @ q
        mean = np.linalg.solve(P, lam * mu + precision * r * q.T @ (w * x * (y[has] - rest)))
        np.testing.assert_allclose(chain.expected[feature], mean, rtol=1e-3, atol=1e-4)
        root = roots[place][:, : widths[place]]
        covariance = (1 - KAPPA**2) * np.linalg.inv(P)
        np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-3, atol=1e-4)
        drawn = mean - KAPPA * (old[place] - mean) + root @ normals[place]
        np.testing.assert_allclose(chain.theta[feature], drawn, rtol=1e-3, atol=1e-3)


def roots_of_covariances(
    chain: bayesian._Chain,
    block: bayesian._SampledBlock,
    mu: np.ndarray,
    lam: np.ndarray,
    few: int,
    widths: np.ndarray,
    gammas: np.ndarray,
) -> np.ndarray:
    """Return, for each feature, what each of its standard normals adds to its draw."""
    draws = np.empty((*block.theta.shape, 1 + widths.max()))  # the first without any
    first = np.cumsum(widths) - widths
    for one in range(-1, widths.max()):
        normals = np.zeros(widths.sum(), np.float32)
        if one >= 0:
            normals[(first + one)[one < widths]] = 1
        theta, expected = block.theta.copy(), block.expected.copy()
        bayesian._draw_exclusive(
            block.arrays,
            0,
            len(theta),
            chain.bias,
            chain._precision,
            mu,
            lam,
            block.records,
            few,
            normals,
            gammas,
            chain._table.copy(),
            chain._reliability.copy(),
            theta,
            expected,
        )
        draws[:, :, 1 + one] = theta
    return draws[:, :, 1:] - draws[:, :, :1]


@pytest.mark.parametrize("group_sizes", [(7, 5), (7, 5, 6)], ids=["two blocks", "three blocks"])
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    ("rows", "num_factors"), [(60, 3), (60, 13), (1500, 4)], ids=["few", "high rank", "many"]
)
def test_a_feature_of_an_exclusive_block_is_drawn_from_its_conditional_distribution(
    group_sizes: tuple[int, ...], index: int, rows: int, num_factors: int
) -> None:
    X, y = some_records(rows, group_sizes)
    check_exclusive_draws(X, y, group_sizes, index, num_factors)


@pytest.mark.parametrize("group_sizes", [(5,), (5, 6)], ids=["two blocks", "three blocks"])
@pytest.mark.parametrize("num_factors", [1, 2, 9, 14])
@pytest.mark.parametrize("way", ["by records", "by parameters", "as it pays"])
def test_it_is_drawn_from_that_distribution_with_any_number_of_records_and_either_way(
    monkeypatch: pytest.MonkeyPatch, group_sizes: tuple[int, ...], num_factors: int, way: str
) -> None:
    threshold = bayesian._few_records(num_factors + 1)
    counts = np.arange(threshold + 3)
    if way != "as it pays":
        few = counts[-1] if way == "by records" else 0
        monkeypatch.setattr(bayesian, "_few_records", lambda columns: few)
    others, y = some_records(counts.sum(), group_sizes[:1] * 2 + group_sizes[1:])
    X = hstack(
        [one_hot(np.repeat(counts, counts), len(counts)), others[:, group_sizes[0] :]], format="csr"
    )
    check_exclusive_draws(X, y, (len(counts), *group_sizes), 0, num_factors)


def test_a_feature_of_high_rank_may_have_as_many_records_as_are_packed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bayesian, "_OPERATIONS_PER_PART", 1 << 40)  # one part, one generator
    counts = [bayesian._PANEL + more for more in (-2, -1, 0, 1)]
    videos = np.concatenate([np.arange(count) for count in counts])
    X = hstack(
        [one_hot(np.repeat(range(4), counts), 4), one_hot(videos, max(counts))], format="csr"
    )
    y = np.random.default_rng(0).normal(size=len(videos)).astype(np.float32)
    check_exclusive_draws(X, y, (4, max(counts)), 0, num_factors=300)


def test_features_of_a_block_that_shares_them_are_drawn_one_component_at_a_time() -> None:
    group_sizes = (7, 5, 6)
    X, y = some_records(group_sizes=group_sizes)
    chain, dense = a_chain(X, y, group_sizes), X.toarray().astype(np.float64)
    reference = a_chain(X, y, group_sizes)
    block, columns = chain._blocks[2], slice(12, 18)
    weights = np.prod(reliabilities(chain, X, group_sizes), axis=0)
    normals = chain._generator(9).standard_normal((4, 6), np.float32)
    chain._draw_shared(block, MU, LAM, chain._generator(9))

    for f in (3, 0, 1, 2):
        for feature in range(columns.start, columns.stop):
            theta, old = reference.theta, float(reference.theta[feature, f])
            error = y - scores(reference, dense)
            theta[feature, f] = old + 1  # scores are linear in each component
            slope = scores(reference, dense) - (y - error)
            posterior = LAM[f] + chain._precision * (weights * slope**2).sum()
            gain = LAM[f] * (MU[f] - old) + chain._precision * (weights * slope * error).sum()
            mean = old + gain / posterior
            noise = normals[f, feature - columns.start] * ((1 - KAPPA**2) / posterior) ** 0.5
            theta[feature, f] = mean - KAPPA * (old - mean) + noise
            assert chain.expected[feature, f] == pytest.approx(mean, rel=1e-3, abs=1e-4)
            assert chain.theta[feature, f] == pytest.approx(theta[feature, f], rel=1e-3, abs=1e-4)


def test_a_sweep_tells_the_rmse_of_its_own_sample() -> None:
    X, y = some_records()
    chain = a_chain(X, y, (7, 5, 6))
    told = chain.sweep(3)
    assert told == pytest.approx(np.sqrt(np.mean((scores(chain, X.toarray()) - y) ** 2)), rel=1e-5)


def test_bias_and_noise_are_drawn_from_their_conditional_distributions() -> None:
    X, y = some_records(rows=400)
    chain = a_chain(X, y, (7, 5, 6))
    weights = np.prod(reliabilities(chain, X, (7, 5, 6)), axis=0)
    at_zero = y - (scores(chain, X.toarray()) - chain.bias)
    draws = []
    for place in range(2000):
        precision = chain._precision
        chain._draw_bias_and_precision(chain._generator(9, place))
        standard = (chain.bias - np.average(at_zero, weights=weights)) * np.sqrt(
            precision * weights.sum()
        )
        rate = (1 + (weights * (at_zero - chain.bias) ** 2).sum()) / 2
        draws.append((standard, chain._precision * rate))
    standard, gammas = np.array(draws).T
    shape = (1 + len(y)) / 2
    assert abs(standard.mean()) < 4 / 2000**0.5
    assert standard.std() == pytest.approx(1, abs=0.07)
    assert gammas.mean() == pytest.approx(shape, abs=4 * (shape / 2000) ** 0.5)
    assert gammas.std() == pytest.approx(shape**0.5, rel=0.07)


def test_the_priors_of_a_block_are_drawn_from_their_conditional_distributions() -> None:
    X, y = some_records()
    block = a_chain(X, y, (7, 5, 6))._blocks[0]
    theta, draws = block.theta.astype(np.float64), []
    generator = np.random.default_rng(1)
    n, sigma = len(theta), 0.5
    counts_as, variance = np.array([1 + n / 2] * 3 + [1]), np.array([sigma**2] * 3 + [1])
    for _ in range(3000):
        before = block._mu
        mu, lam = block.draw_prior(generator, sigma)
        squares = ((theta - before) ** 2).sum(axis=0)
        rate = (counts_as * variance + squares + before**2) / 2
        standard = (mu - theta.sum(axis=0) / (n + 1)) * np.sqrt(lam * (n + 1))
        draws.append((lam * rate, standard))
    gammas, standard = np.array(draws).swapaxes(0, 1)
    shape = (counts_as + n + 1) / 2
    np.testing.assert_allclose(gammas.mean(axis=0), shape, rtol=0.05)
    np.testing.assert_allclose(gammas.std(axis=0), shape**0.5, rtol=0.1)
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=0.08)
    np.testing.assert_allclose(standard.std(axis=0), 1, rtol=0.07)


def test_no_two_draws_share_their_random_numbers() -> None:
    X, y = some_records()
    chain = a_chain(X, y, (7, 5, 6))
    places = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    assert len({chain._generator(*place).random() for place in places}) == len(places)


# --------------------------------------------------------------------------------- what is learned


def test_a_planted_model_is_recovered() -> None:
    generator = np.random.default_rng(3)
    X = grid(60, 40)
    taste, kind = generator.normal(size=(60, 2)), generator.normal(size=(40, 2))
    signal = 3 + (generator.normal(size=(60, 1)) + taste @ kind.T).reshape(-1)
    y = (signal + 0.1 * generator.normal(size=len(signal))).astype(np.float32)
    known = generator.random(len(y)) < 0.5
    model = train(X[known], y[known], settings_for(X, epochs=60, burn_in=20, num_factors=4))
    assert rmse(model, X[~known], signal[~known]) < 0.06


def test_a_planted_model_of_features_that_records_share_is_recovered() -> None:
    """Customers like genres: videos that nobody has seen are rated by theirs."""
    generator = np.random.default_rng(4)
    customers, videos, genres = 40, 60, 4
    of_video = (generator.random((videos, genres)) < 0.4).astype(np.float32)
    likes = generator.normal(size=(customers, genres))
    customer, video = np.divmod(np.arange(customers * videos), videos)
    X = hstack([one_hot(customer, customers), csr_matrix(of_video[video])], format="csr")
    signal = (likes @ of_video.T).reshape(-1)
    y = (signal + 0.1 * generator.normal(size=len(signal))).astype(np.float32)
    known = video < 40
    h = settings_for(X, epochs=150, burn_in=50, num_factors=5, feature_blocks=(customers, genres))
    assert rmse(train(X[known], y[known], h), X[~known], signal[~known]) < 0.1


def test_a_checkerboard_is_completed() -> None:
    X = grid(12, 12)
    squares = np.add.outer(np.arange(12), np.arange(12)).reshape(-1) % 2
    y = (1 + 4 * squares).astype(np.float32)
    known = np.random.default_rng(0).random(len(y)) < 0.6
    model = train(X[known], y[known], settings_for(X, epochs=200, burn_in=100, num_factors=2))
    np.testing.assert_allclose(model.predict(X[~known]), y[~known], atol=1.9)  # the right colour


def test_labels_that_are_all_the_same_are_what_is_predicted() -> None:
    X = grid(5, 4)
    model = train(X, np.full(20, 3.5, np.float32), settings_for(X))
    np.testing.assert_allclose(model.predict(X), 3.5, atol=0.3)


def test_predictions_follow_the_scale_of_the_labels() -> None:
    X, y = some_records()
    model, scaled = train(X, y, settings_for(X)), train(X, 100 * y - 7, settings_for(X))
    np.testing.assert_allclose(scaled.predict(X), 100 * model.predict(X) - 7, rtol=1e-3, atol=0.5)


def test_the_model_predicts_what_samples_predict_on_average(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = some_records(rows=200, group_sizes=(12, 9))
    predicted = []
    add = bayesian._Average.add

    def adding(average: bayesian._Average, chain: bayesian._Chain) -> None:
        add(average, chain)
        predicted.append(scores(chain, X.toarray().astype(np.float64)))

    monkeypatch.setattr(bayesian._Average, "add", adding)
    model = train(X, y, settings_for(X, epochs=120, burn_in=20, num_factors=8))
    assert len(predicted) == 100  # the sweeps after burn-in
    mean = y.mean() + y.std() * np.mean(predicted, axis=0)
    spread = y.std() * np.std(predicted, axis=0)
    assert np.abs(model.predict(X) - mean).mean() < 0.2 * spread.mean()


def test_a_feature_that_no_record_has_is_taken_for_a_mean_one() -> None:
    X, y = some_records(group_sizes=(7, 5))
    wider = hstack([X, csr_matrix((len(y), 2), dtype=np.float32)], format="csr")
    model = train(wider, y, settings_for(wider, feature_blocks=(7, 7)))
    assert model.linear[12] == model.linear[13]
    assert abs(model.linear[12] - model.linear[7:12].mean()) < np.abs(model.linear).max()


# ------------------------------------------------------------------------------------ same results


def same(one: FactorizationMachine, other: FactorizationMachine) -> bool:
    return (
        one.bias == other.bias
        and one.linear.tobytes() == other.linear.tobytes()
        and one.factors.tobytes() == other.factors.tobytes()
    )


@pytest.mark.parametrize("num_factors", [3, 15])  # the first draws most by parameters
def test_the_model_does_not_depend_on_threads_but_on_the_seed(
    monkeypatch: pytest.MonkeyPatch, num_factors: int
) -> None:
    X, y = some_records(rows=300, group_sizes=(40, 30, 6))
    h = settings_for(X, num_factors=num_factors)
    monkeypatch.setattr(bayesian, "_OPERATIONS_PER_PART", 1 << 9)
    cuts = bayesian._Chain(as_blocks(X, None), y, 3, 0, ThreadPoolExecutor(1))._blocks[0].cuts
    assert len(cuts) > 4
    one, two, three = (train(X, y, h, threads=threads) for threads in (1, 2, 3))
    assert same(one, two)
    assert same(one, three)
    assert not same(one, train(X, y, h, random_state=1))


def test_blocks_that_are_given_are_blocks_that_are_found() -> None:
    X, y = some_records(group_sizes=(7, 5))
    given_blocks = train(X, y, settings_for(X, feature_blocks=(7, 5)))
    assert same(given_blocks, train(X, y, settings_for(X)))


def test_two_blocks_are_sampled_as_more_would_be() -> None:
    """A third block that no record has makes the same chain go the general way."""
    X, y = some_records(group_sizes=(7, 5))
    wider = hstack([X, csr_matrix((len(y), 1), dtype=np.float32)], format="csr")
    two = a_chain(X, y, (7, 5), sweeps=0)
    three = a_chain(wider, y, (7, 5, 1), sweeps=0)
    three.theta[:12] = two.theta
    for block in three._blocks:
        block.sum_cases()
    for number in range(5):
        two.sweep(number)
        three.sweep(number)
    np.testing.assert_allclose(three.theta[:12], two.theta, rtol=1e-3, atol=1e-4)
    assert three.bias == pytest.approx(two.bias, abs=1e-4)


@pytest.mark.parametrize(("rows", "num_factors"), [(200, 3), (40, 20)])
def test_the_order_of_records_does_not_matter(rows: int, num_factors: int) -> None:
    X, y = some_records(rows, group_sizes=(12, 9, 6))
    order = np.random.default_rng(1).permutation(len(y))
    h = settings_for(X, num_factors=num_factors)
    model, shuffled = train(X, y, h), train(X[order], y[order], h)
    np.testing.assert_allclose(shuffled.predict(X), model.predict(X), atol=0.02)


def test_a_record_given_twice_counts_twice_and_a_feature_given_twice_adds_up() -> None:
    X, y = some_records(group_sizes=(7, 5))
    once = X[:1].multiply(0.5).tocsr()
    indices = np.repeat(once.indices, 2)
    doubled = csr_matrix((np.repeat(once.data, 2), indices, [0, len(indices)]), shape=X[:1].shape)
    stored = [vstack([first, X[1:]], format="csr") for first in (X[:1], doubled)]
    assert same(*(train(of_first, y, settings_for(X)) for of_first in stored))
    X, y = grid(2, 2), np.array([1, 2, 3, 4], np.float32)
    often = vstack([X, *[X[:1]] * 50], format="csr")
    model = train(often, np.concatenate([y, [1.0] * 50]).astype(np.float32), settings_for(X))
    assert abs(model.predict(X[:1])[0] - 1) < abs(
        train(X, y, settings_for(X)).predict(X[:1])[0] - 1
    )


# ------------------------------------------------------------------------------ reports and an end


def test_each_sweep_is_reported_and_after_burn_in_how_the_mean_predicts_validation() -> None:
    X, y = some_records()
    reported: list[Progress] = []
    h = settings_for(X, epochs=6, burn_in=2)
    model = train(X, y, h, validation=(X[:20], y[:20]), report=reported.append)
    assert [(progress.epoch, progress.batch) for progress in reported] == [
        (sweep, None) for sweep in range(6)
    ]
    assert [len(progress.validation) for progress in reported] == [0, 0, 1, 1, 1, 1]
    assert all(0 < progress.metrics[0].value < 2 for progress in reported)
    assert reported[-1].validation[0].value == pytest.approx(rmse(model, X[:20], y[:20]))
    assert same(model, train(X, y, h))  # without early stopping validation changes nothing


def test_early_stopping_keeps_the_best_mean() -> None:
    X, y = some_records(rows=40)
    validation = some_records(rows=40, seed=1)  # noise alone: it gets no better for long
    reported: list[Progress] = []
    h = settings_for(X, epochs=300, burn_in=1, early_stopping_patience=5)
    model = train(X, y, h, validation=validation, report=reported.append)
    losses = [progress.validation[0].value for progress in reported[1:]]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 5 < 299
    assert rmse(model, *validation) == pytest.approx(losses[best])
    assert losses[best] < losses[-1]


def test_early_stopping_needs_validation_records() -> None:
    X, y = some_records()
    with pytest.raises(DataError, match="early_stopping_patience needs validation records"):
        train(X, y, settings_for(X, early_stopping_patience=3))


# ------------------------------------------------------------------------------------------- input


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_divergence_is_an_error_and_never_a_model() -> None:
    X, y = some_records(group_sizes=(7, 5))
    with pytest.raises(DivergenceError, match="training diverged in sweep 0"):
        train(csr_matrix(X * np.float32(1e30)), y, settings_for(X))


def test_records_that_cannot_be_learned_from_are_refused() -> None:
    X, y = some_records()
    infinite, nan = X.copy(), y.copy()
    infinite.data[0], nan[3] = np.inf, np.nan
    with pytest.raises(DataError, match="at least one record"):
        train(X[:0], y[:0], settings_for(X))
    with pytest.raises(DataError, match="finite labels, got nan in record 3"):
        train(X, nan, settings_for(X))
    with pytest.raises(DataError, match="finite values, got inf of feature"):
        train(infinite, y, settings_for(X))
    wider = settings_for(X).model_copy(update={"feature_dim": 19})
    with pytest.raises(DataError, match="expected records of 19 features"):
        train(X, y, wider)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 15),
    group_sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    density=st.floats(0, 1),
    found=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_records_give_a_finite_model(
    rows: int, group_sizes: tuple[int, ...], density: float, found: bool, seed: int
) -> None:
    shape = (rows, sum(group_sizes))
    X = csr_matrix(random_array(shape, density=density, rng=seed, dtype=np.float32))
    y = np.random.default_rng(seed).normal(size=rows).astype(np.float32)
    h = settings_for(X, epochs=4, burn_in=2, feature_blocks=None if found else group_sizes)
    model = train(X, y, h)
    assert np.isfinite(model.predict(X)).all()
    assert np.isfinite(model.factors).all()


# ---------------------------------------------------------------------------------- real ratings


@pytest.mark.slow
def test_on_real_ratings_it_is_as_good_as_other_samplers(
    real_data: Callable[[str], Path],
) -> None:
    """libFM's MCMC comes to 0.891 on random tenths of these ratings, biases alone to 0.94."""
    ratings = np.loadtxt(real_data("ml-100k") / "u.data", dtype=np.int64)
    np.random.default_rng(0).shuffle(ratings)
    X = hstack([one_hot(ratings[:, 0] - 1, 943), one_hot(ratings[:, 1] - 1, 1682)], format="csr")
    y = ratings[:, 2].astype(np.float32)
    model = train(X[10_000:], y[10_000:], settings_for(X, num_factors=8, epochs=30, burn_in=10))
    assert rmse(model, X[:10_000], y[:10_000]) < 0.891
