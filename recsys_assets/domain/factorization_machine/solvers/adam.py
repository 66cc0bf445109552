"""Training as the built-in does it: lazy Adam in mini-batches, in file order.

What belongs here: initial values, the update rule and the loop over epochs. What does not: reading
files and writing logs (``container.train``).

Sources: the update is MXNet's ``adam_update`` for row-sparse gradients (Kingma and Ba 2015, "Adam",
applied to the rows that occur in the mini-batch). That the built-in does this was found by
reproducing its log of MovieLens 100K, which a test repeats; where its documentation is silent or
says otherwise, as of clipping, MXNet 1.9.1 was run.

The columns of the factors are kept in two halves, and each of two threads works on one of them. A
half's scores need only be added to the other's, once a mini-batch. The halves are there, and are
added in the same order, also if there is but one thread, so the model is the same.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.special import expit

from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.hyperparameters import Hyperparameters
from recsys_assets.domain.factorization_machine.metrics import Metric, QualityTotals, quality
from recsys_assets.domain.factorization_machine.model import FactorizationMachine, as_features
from recsys_assets.domain.factorization_machine.solvers import barrier
from recsys_assets.domain.factorization_machine.solvers.common import (
    Floats,
    Progress,
    Records,
    check_finite,
    check_records,
    initial_values,
)
from recsys_assets.domain.factorization_machine.solvers.compiling import (
    compiled,
    compiled_into_callers,
)
from recsys_assets.domain.factorization_machine.solvers.stopping import (
    EarlyStopping,
    check_validation,
    validate,
)
from recsys_assets.domain.factorization_machine.solvers.stream import Chunks, mini_batches
from recsys_assets.domain.processors import processors

Integers = npt.NDArray[np.int32]

BATCHES_PER_REPORT = 500  # the built-in's batch_metrics_publish_interval

_ROWS_PER_BLOCK = 1 << 16  # bounds the scratch memory of initial values
_RECORDS_PER_CALL = 1 << 17  # bounds what is copied of the records at once
_SMALLEST_SHARED_BATCH = 1 << 12  # records times factors: less is not worth meeting for
_WEIGHT, _FIRST_MOMENT, _SECOND_MOMENT = 0, 1, 2


def train(
    X: csr_matrix,
    y: Floats,
    hyperparameters: ExtendedHyperparameters,
    *,
    validation: Records | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    random_state: int = 0,
    threads: int | None = None,
) -> FactorizationMachine:
    """Fit a factorization machine.

    Records are taken in the order given, without shuffling; the last mini-batch of an epoch is
    filled up with the first records.

    Parameters
    ----------
    X
        CSR of shape ``(records, feature_dim)`` with any number of non-zeros a row.
    y
        float32 of shape ``(records,)``; 0 or 1 for a binary classifier.
    hyperparameters
        Their `feature_dim` must be the width of `X`.
    validation
        Features and labels that are not trained on; needed for `early_stopping_patience`.
    report
        Called with the metrics of every `BATCHES_PER_REPORT`-th mini-batch and of each epoch, as
        they come.
    random_state
        Seed of the initial values, which are drawn group by group (bias, linear, factors) from one
        generator: the same records, hyperparameters and seed give the same model.
    threads
        How many to use; all processors of this process by default, two at most. The model does not
        depend on it.

    Raises
    ------
    DataError
        As :func:`check_records` says, or if validation records are needed and not there.
    DivergenceError
        If training runs away. There is never a model with parameters that are not finite.
    """
    check_records(X, y, hyperparameters)
    chunk = as_features(X, hyperparameters.feature_dim), y
    return train_stream(
        lambda: [chunk],
        hyperparameters,
        validation=validation,
        report=report,
        random_state=random_state,
        threads=threads,
    )


def train_stream(
    chunks: Chunks,
    hyperparameters: ExtendedHyperparameters,
    *,
    validation: Records | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    random_state: int = 0,
    threads: int | None = None,
) -> FactorizationMachine:
    """Fit a factorization machine to records that need not fit in memory.

    Parameters
    ----------
    chunks
        Called once an epoch. Returns the records in their order, some rows of features and labels
        at a time; how they are cut makes no difference.
    hyperparameters, validation, report, random_state, threads
        As for :func:`train`, which is the case of one chunk.

    Raises
    ------
    DataError, DivergenceError
        As :func:`train` does.
    """
    check_validation(validation, hyperparameters)
    predictor_type, size = hyperparameters.predictor_type, hyperparameters.mini_batch_size
    is_classifier = predictor_type == "binary_classifier"
    parameters = _initial_parameters(hyperparameters, np.random.default_rng(random_state))
    rates = _rates(hyperparameters)
    no_slots = np.full(hyperparameters.feature_dim, -1, dtype=np.int32)
    slots = no_slots, no_slots.copy()
    if threads is None:
        threads = processors()
    is_shared = size * hyperparameters.num_factors >= _SMALLEST_SHARED_BATCH
    workers = barrier.workers(threads if is_shared else 1)
    signals = barrier.signals()
    stopping = EarlyStopping(hyperparameters.early_stopping_patience)
    updates, ended = 0, False
    with ThreadPoolExecutor(len(workers)) as pool:
        for epoch in range(hyperparameters.epochs):
            totals, batch = QualityTotals(predictor_type), 0
            for X, y in mini_batches(chunks, hyperparameters, _batches_per_call(size)):
                scores = np.empty((len(y) // size, size), dtype=np.float32)
                run = partial(
                    _run_batches,
                    (X.indptr.astype(np.int64), X.indices.astype(np.int32), X.data, y),
                    is_classifier,
                    updates,
                    scores,
                    parameters,
                    rates,
                    _scratch(X, hyperparameters, slots),
                    signals,
                )
                list(pool.map(run, workers))
                where = f"epoch {epoch}, batches {batch} to {batch + len(scores) - 1}"
                check_finite(scores, where, hyperparameters)
                predictions = (expit(scores) if is_classifier else scores).reshape(-1)
                totals.add(predictions, y)
                if batch % BATCHES_PER_REPORT == 0:
                    metrics = quality(predictor_type, predictions[:size], y[:size])
                    report(Progress(epoch, batch, metrics))
                batch += len(scores)
                updates += len(scores)
            validated: tuple[Metric, ...] = ()
            if validation is not None:
                model = _model(parameters, f"epoch {epoch}", hyperparameters)
                validated = validate(model, validation)
                ended = stopping.update(model, validated)
            report(Progress(epoch, None, totals.metrics(), validated))
            if ended:
                break
    return stopping.best or _model(parameters, f"epoch {epoch}", hyperparameters)


# --------------------------------------------------------------------------------------- set-up


class _Parameters(NamedTuple):
    """Parameters and their moments, side by side because an update needs all three.

    Weight, first and second moment follow each other on an axis of length 3. `bias` is float32 of
    shape ``(3,)``, `linear` ``(feature_dim, 3)``, each half of `factors`
    ``(feature_dim, 3, columns)``.
    """

    bias: Floats
    linear: Floats
    factors: tuple[Floats, Floats]


class _Group(NamedTuple):
    lr: np.float32
    wd: np.float32


class _Rates(NamedTuple):
    """What Adam needs to know besides the gradient."""

    bias: _Group
    linear: _Group
    factors: _Group
    rescale_grad: np.float32
    clip_gradient: np.float32
    eps: np.float32


class _Scratch(NamedTuple):
    """What one half of the factors needs during a mini-batch.

    Gradients are kept only for the features that occur: `slot` maps each feature to its row of
    `gradient` and `slopes`, -1 if it has none; `touched` maps back. With e the slope of a record's
    loss and s_f = Σ_i v_if x_i, the gradient of v_jf is Σ e x_j (s_f - v_jf x_j), summed over the
    records. `gradient` holds Σ e x_j s_f; `slopes` holds Σ e x_j, which is the gradient of the
    linear weight, and Σ e x_j².

    `sums` holds s_f of each record. `partial_scores` holds what the half adds to each record's
    score; of two, because the other half may still read them when the next mini-batch begins.
    """

    slot: Integers
    touched: Integers
    gradient: Floats
    slopes: Floats
    sums: Floats
    partial_scores: Floats


def _initial_parameters(
    hyperparameters: Hyperparameters, generator: np.random.Generator
) -> _Parameters:
    features, factors = hyperparameters.feature_dim, hyperparameters.num_factors
    first, second = (factors + 1) // 2, factors // 2
    parameters = _Parameters(
        bias=np.zeros(3, dtype=np.float32),
        linear=np.zeros((features, 3), dtype=np.float32),
        factors=(
            np.zeros((features, 3, first), dtype=np.float32),
            np.zeros((features, 3, second), dtype=np.float32),
        ),
    )

    draw = partial(initial_values, hyperparameters, generator=generator)
    parameters.bias[_WEIGHT] = draw("bias", (1,))[0]
    for begin in range(0, features, _ROWS_PER_BLOCK):
        block = parameters.linear[begin : begin + _ROWS_PER_BLOCK, _WEIGHT]
        block[:] = draw("linear", block.shape)
    for begin in range(0, features, _ROWS_PER_BLOCK):
        halves = [half[begin : begin + _ROWS_PER_BLOCK, _WEIGHT] for half in parameters.factors]
        values = draw("factors", (len(halves[0]), factors))
        halves[0][:], halves[1][:] = values[:, :first], values[:, first:]
    return parameters


def _rates(hyperparameters: Hyperparameters) -> _Rates:
    def group(name: str) -> _Group:
        return _Group(
            np.float32(getattr(hyperparameters, f"{name}_lr")),
            np.float32(getattr(hyperparameters, f"{name}_wd")),
        )

    def given(value: float | None, default: float) -> np.float32:
        return np.float32(default if value is None else value)

    return _Rates(
        bias=group("bias"),
        linear=group("linear"),
        factors=group("factors"),
        rescale_grad=given(hyperparameters.rescale_grad, 1 / hyperparameters.mini_batch_size),
        # as in MXNet's Optimizer, 0 does not clip
        clip_gradient=np.float32(hyperparameters.clip_gradient or np.inf),
        eps=given(hyperparameters.eps, 1e-8),
    )


def _scratch(
    X: csr_matrix, hyperparameters: Hyperparameters, slots: tuple[Integers, Integers]
) -> tuple[_Scratch, _Scratch]:
    size, factors = hyperparameters.mini_batch_size, hyperparameters.num_factors
    most = min(X.shape[1], int(np.diff(X.indptr[::size]).max()))
    first, second = (
        _Scratch(
            slot=slot,
            touched=np.empty(most, dtype=np.int32),
            gradient=np.empty((most, columns), dtype=np.float32),
            slopes=np.empty((most, 2), dtype=np.float32),
            sums=np.empty((size, columns), dtype=np.float32),
            partial_scores=np.empty((2, size), dtype=np.float32),
        )
        for slot, columns in zip(slots, ((factors + 1) // 2, factors // 2), strict=True)
    )
    return first, second


def _batches_per_call(size: int) -> int:
    """Return how many mini-batches go into one call; calls begin where reports are due."""
    fitting = _RECORDS_PER_CALL // size
    divisors = (d for d in range(1, BATCHES_PER_REPORT + 1) if BATCHES_PER_REPORT % d == 0)
    return max((d for d in divisors if d <= fitting), default=1)


def _model(
    parameters: _Parameters, where: str, hyperparameters: Hyperparameters
) -> FactorizationMachine:
    for table in (parameters.bias, parameters.linear, *parameters.factors):
        check_finite(table, where, hyperparameters)
    return FactorizationMachine(
        predictor_type=hyperparameters.predictor_type,
        bias=float(parameters.bias[_WEIGHT]),
        linear=parameters.linear[:, _WEIGHT].copy(),
        factors=np.concatenate([half[:, _WEIGHT] for half in parameters.factors], axis=1),
    )


# -------------------------------------------------------------------------------- compiled loop

# float32 constants: with Python's floats the arithmetic would silently be double.
_BETA_1, _BETA_2 = np.float32(0.9), np.float32(0.999)
_ONE, _HALF, _ZERO = np.float32(1), np.float32(0.5), np.float32(0)


_Arrays = tuple[npt.NDArray[np.int64], Integers, Floats, Floats]  # of CSR, and labels


@compiled
def _run_batches(
    records: _Arrays,
    is_classifier: bool,
    updates_before: int,
    scores: Floats,
    parameters: _Parameters,
    rates: _Rates,
    scratch: tuple[_Scratch, _Scratch],
    signals: barrier.Signals,
    halves: tuple[int, int],
) -> None:
    """Run one mini-batch for each row of `scores`, which gets what its records scored before.

    `records` are the CSR arrays and the labels. Changes `parameters` in place. `halves` is the
    range of halves that this worker has; the other worker runs the other half at the same time.
    """
    size = scores.shape[1]
    for batch in range(scores.shape[0]):
        first_record, buffer = batch * size, batch % 2
        for half in range(halves[0], halves[1]):
            _score(records, first_record, parameters, half, scratch[half], buffer)
        if halves[1] - halves[0] == 1:
            barrier.meet(signals, halves[0])
        updates = updates_before + batch + 1
        correction = np.float32(np.sqrt(1 - 0.999**updates) / (1 - 0.9**updates))
        partial_scores = scratch[0].partial_scores[buffer], scratch[1].partial_scores[buffer]
        for half in range(halves[0], halves[1]):
            bias_gradient, count = _add_gradients(
                records, is_classifier, first_record, partial_scores, scores[batch], scratch[half]
            )
            if half == 0:
                _adam(parameters.bias, bias_gradient, rates.bias, rates, correction)
            _update_touched(parameters, rates, correction, half, scratch[half], count)


@compiled_into_callers
def _score(
    records: _Arrays,
    first_record: int,
    parameters: _Parameters,
    half: int,
    own: _Scratch,
    buffer: int,
) -> None:
    """Find what a half adds to the score of each record; the first has bias and linear weights."""
    indptr, indices, data, _ = records
    table, scores = parameters.factors[half], own.partial_scores[buffer]
    for position in range(len(scores)):
        record = first_record + position
        sums = own.sums[position]
        sums[:] = _ZERO
        squares = _ZERO
        linear = parameters.bias[_WEIGHT] if half == 0 else _ZERO
        for entry in range(indptr[record], indptr[record + 1]):
            feature, x = indices[entry], data[entry]
            if half == 0:
                linear += parameters.linear[feature, _WEIGHT] * x
            weights = table[feature, _WEIGHT]
            for column in range(len(sums)):
                term = weights[column] * x
                sums[column] += term
                squares += term * term
        interactions = -squares
        for column in range(len(sums)):
            interactions += sums[column] * sums[column]
        scores[position] = linear + _HALF * interactions


@compiled_into_callers
def _add_gradients(
    records: _Arrays,
    is_classifier: bool,
    first_record: int,
    partial_scores: tuple[Floats, Floats],
    scores: Floats,
    own: _Scratch,
) -> tuple[np.float32, int]:
    """Fill a half's scratch; return the gradient of the bias and how many features occur.

    Both workers write the same to `scores`.
    """
    indptr, indices, data, y = records
    slot, touched, gradient, slopes = own.slot, own.touched, own.gradient, own.slopes
    bias_gradient, count = _ZERO, 0
    for position in range(len(scores)):
        record = first_record + position
        score = partial_scores[0][position] + partial_scores[1][position]
        scores[position] = score
        predicted = _ONE / (_ONE + np.exp(-score)) if is_classifier else score
        error = predicted - y[record]
        bias_gradient += error
        sums = own.sums[position]
        for entry in range(indptr[record], indptr[record + 1]):
            feature, x = indices[entry], data[entry]
            if slot[feature] < 0:
                slot[feature], touched[count] = count, feature
                gradient[count] = _ZERO
                slopes[count] = _ZERO
                count += 1
            at = slot[feature]
            row, slope = gradient[at], error * x
            slopes[at, 0] += slope
            slopes[at, 1] += slope * x
            for column in range(len(sums)):
                row[column] += slope * sums[column]
    return bias_gradient, count


@compiled_into_callers
def _update_touched(
    parameters: _Parameters,
    rates: _Rates,
    correction: np.float32,
    half: int,
    own: _Scratch,
    count: int,
) -> None:
    """Update the factors, and with the first half the linear weights, of features that occur."""
    table = parameters.factors[half]
    for row in range(count):
        feature = own.touched[row]
        own.slot[feature] = -1
        if half == 0:
            _adam(parameters.linear[feature], own.slopes[row, 0], rates.linear, rates, correction)
        weights, gradient, square = table[feature], own.gradient[row], own.slopes[row, 1]
        for column in range(len(gradient)):
            slope = gradient[column] - square * weights[_WEIGHT, column]
            _adam(weights[:, column], slope, rates.factors, rates, correction)


@compiled_into_callers
def _adam(
    parameter: Floats, gradient: np.float32, group: _Group, rates: _Rates, correction: np.float32
) -> None:
    """Update a parameter and its moments, float32 of shape ``(3,)``.

    `gradient` is the sum over the mini-batch. Decay is added before clipping, as MXNet 1.9.1 does
    whatever its documentation says.
    """
    weight = parameter[_WEIGHT]
    slope = gradient * rates.rescale_grad + group.wd * weight
    slope = min(max(slope, -rates.clip_gradient), rates.clip_gradient)
    first = _BETA_1 * parameter[_FIRST_MOMENT] + (_ONE - _BETA_1) * slope
    second = _BETA_2 * parameter[_SECOND_MOMENT] + (_ONE - _BETA_2) * slope * slope
    parameter[_FIRST_MOMENT], parameter[_SECOND_MOMENT] = first, second
    step = group.lr * correction
    parameter[_WEIGHT] = weight - step * first / (np.sqrt(second) + rates.eps)
