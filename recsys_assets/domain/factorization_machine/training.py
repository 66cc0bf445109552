"""Training as the built-in does it: lazy Adam in mini-batches, in file order.

What belongs here: initial values, the update rule and the loop over epochs. What does not: reading
files and writing logs (``container.train``).

Sources: the update is MXNet's ``adam_update`` for row-sparse gradients (Kingma and Ba 2015, "Adam",
applied to the rows that occur in the mini-batch). That the built-in does this was found by
reproducing its log of MovieLens 100K, which a test repeats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.special import expit

from recsys_assets.domain.factorization_machine.hyperparameters import Hyperparameters, InitMethod
from recsys_assets.domain.factorization_machine.metrics import Metric, quality
from recsys_assets.domain.factorization_machine.model import (
    DataError,
    FactorizationMachine,
    as_features,
    check_width,
)

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

BATCHES_PER_REPORT = 500  # the built-in's batch_metrics_publish_interval

_ROWS_PER_BLOCK = 1 << 16  # bounds the scratch memory of passes over all features
_WEIGHT, _FIRST_MOMENT, _SECOND_MOMENT = 0, 1, 2


class DivergenceError(ArithmeticError):
    """Training ran away: a score or a parameter is no longer a finite number."""


@dataclass(frozen=True)
class Progress:
    """How well a mini-batch, or with `batch` None a whole epoch, was predicted.

    Each record is predicted with the parameters from before its own mini-batch's update. An
    epoch's metrics count the records that fill up its last mini-batch again.
    """

    epoch: int
    batch: int | None
    metrics: tuple[Metric, ...]


def train(
    X: csr_matrix,
    y: Floats,
    hyperparameters: Hyperparameters,
    *,
    report: Callable[[Progress], None] = lambda progress: None,
    random_state: int = 0,
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
    report
        Called with the metrics of every `BATCHES_PER_REPORT`-th mini-batch and of each epoch, as
        they come.
    random_state
        Seed of the initial values, which are drawn group by group (bias, linear, factors) from one
        generator: the same records, hyperparameters and seed give the same model.

    Raises
    ------
    DataError
        As :func:`check_records` says.
    DivergenceError
        If training runs away. There is never a model with parameters that are not finite.
    """
    check_records(X, y, hyperparameters)
    X.check_format(full_check=True)  # the compiled loop trusts every index
    X = as_features(X, hyperparameters.feature_dim)
    parameters = _initial_parameters(hyperparameters, np.random.default_rng(random_state))
    bias_rates = _rates(hyperparameters, "bias")
    table_rates = _rates(hyperparameters, "linear", *["factors"] * hyperparameters.num_factors)
    scratch = _scratch(X, hyperparameters)
    predictor_type, size = hyperparameters.predictor_type, hyperparameters.mini_batch_size
    is_classifier = predictor_type == "binary_classifier"
    batches = -(-X.shape[0] // size)
    labels = y[np.arange(batches * size) % len(y)]  # as they are met: the last batch wraps around
    scores = np.empty(batches * size, dtype=np.float32)

    def metrics_of(records: slice) -> tuple[Metric, ...]:
        predictions = expit(scores[records]) if is_classifier else scores[records]
        return quality(predictor_type, predictions, labels[records])

    for epoch in range(hyperparameters.epochs):
        for first in range(0, batches, BATCHES_PER_REPORT):
            last = min(first + BATCHES_PER_REPORT, batches)
            part = scores[first * size : last * size]
            _run_batches(
                (X.indptr, X.indices, X.data, y),
                is_classifier,
                first * size,
                epoch * batches + first,
                part.reshape(-1, size),
                parameters,
                bias_rates,
                table_rates,
                scratch,
            )
            _check_finite(part, f"epoch {epoch}, batches {first} to {last - 1}", hyperparameters)
            report(Progress(epoch, first, metrics_of(slice(first * size, (first + 1) * size))))
        report(Progress(epoch, None, metrics_of(slice(None))))
    return _finished_model(parameters, hyperparameters)


def check_records(X: csr_matrix, y: Floats, hyperparameters: Hyperparameters) -> None:
    """Check that there are records of the right width, and for each a label that can be learned.

    Raises
    ------
    DataError
        If there are no records, if their width is not `feature_dim`, or if labels are missing, not
        finite or, for a binary classifier, other than 0 and 1.
    """
    if not X.shape[0]:
        raise DataError("expected at least one record, got none")
    check_width(X, hyperparameters.feature_dim)
    if y.shape != (X.shape[0],) or y.dtype != np.float32:
        raise DataError(
            f"expected {X.shape[0]} float32 labels, one a record, got {y.dtype} of shape {y.shape}"
        )
    for bad, expected in (
        (~np.isfinite(y), "finite labels"),
        (
            (y != 0) & (y != 1) & (hyperparameters.predictor_type == "binary_classifier"),
            "labels 0 or 1 for predictor_type 'binary_classifier'",
        ),
    ):
        if bad.any():
            record = int(np.argmax(bad))
            raise DataError(f"expected {expected}, got {y[record]:g} in record {record}")


# --------------------------------------------------------------------------------------- set-up


class _Parameters(NamedTuple):
    """Parameters and their moments, side by side because an update needs all three.

    Weight, first and second moment follow each other on the last axis but one. `bias` is float32
    of shape ``(3, 1)``; `table` is float32 of shape ``(feature_dim, 3, 1 + num_factors)``, where
    the last axis holds the linear weight, then the factors.
    """

    bias: Floats
    table: Floats


class _Rates(NamedTuple):
    """What Adam needs to know of a row; `lr` and `wd` are float32, one a column."""

    lr: Floats
    wd: Floats
    rescale_grad: np.float32
    clip_gradient: np.float32
    eps: np.float32


class _Scratch(NamedTuple):
    """The gradient of one mini-batch, kept only for the features that occur in it.

    `slot` maps each feature to its row of `gradient`, -1 if it has none; `touched` maps back.
    `sums` and `squares` hold Σ_j v_jf x_j and Σ_j v_jf² x_j² of one record.
    """

    slot: npt.NDArray[np.int32]
    touched: npt.NDArray[np.int32]
    gradient: Floats
    bias_gradient: Floats
    sums: Floats
    squares: Floats


def _initial_parameters(
    hyperparameters: Hyperparameters, generator: np.random.Generator
) -> _Parameters:
    features, columns = hyperparameters.feature_dim, 1 + hyperparameters.num_factors
    parameters = _Parameters(
        bias=np.zeros((3, 1), dtype=np.float32),
        table=np.zeros((features, 3, columns), dtype=np.float32),
    )
    weights = parameters.table[:, _WEIGHT]
    for group, part in (
        ("bias", parameters.bias[_WEIGHT]),
        ("linear", weights[:, 0]),
        ("factors", weights[:, 1:]),
    ):
        method: InitMethod = getattr(hyperparameters, f"{group}_init_method")
        for first in range(0, len(part), _ROWS_PER_BLOCK):
            block = part[first : first + _ROWS_PER_BLOCK]
            if method == "normal":
                sigma = np.float32(getattr(hyperparameters, f"{group}_init_sigma"))
                block[:] = sigma * generator.standard_normal(block.shape, dtype=np.float32)
            elif method == "uniform":
                scale = np.float32(getattr(hyperparameters, f"{group}_init_scale"))
                block[:] = scale * (2 * generator.random(block.shape, dtype=np.float32) - 1)
            else:
                block[:] = getattr(hyperparameters, f"{group}_init_value")
    return parameters


def _rates(hyperparameters: Hyperparameters, *groups: str) -> _Rates:
    """Return the rates of a row whose columns belong to `groups`."""

    def of_groups(rate: str) -> Floats:
        return np.array(
            [getattr(hyperparameters, f"{group}_{rate}") for group in groups], dtype=np.float32
        )

    def given(value: float | None, default: float) -> np.float32:
        return np.float32(default if value is None else value)

    return _Rates(
        lr=of_groups("lr"),
        wd=of_groups("wd"),
        rescale_grad=given(hyperparameters.rescale_grad, 1 / hyperparameters.mini_batch_size),
        clip_gradient=given(hyperparameters.clip_gradient, np.inf),
        eps=given(hyperparameters.eps, 1e-8),
    )


def _scratch(X: csr_matrix, hyperparameters: Hyperparameters) -> _Scratch:
    row_sizes = np.diff(X.indptr)
    most = min(X.shape[1], hyperparameters.mini_batch_size * int(row_sizes.max()))
    columns = 1 + hyperparameters.num_factors
    return _Scratch(
        slot=np.full(X.shape[1], -1, dtype=np.int32),
        touched=np.empty(most, dtype=np.int32),
        gradient=np.empty((most, columns), dtype=np.float32),
        bias_gradient=np.empty(1, dtype=np.float32),
        sums=np.empty(columns, dtype=np.float32),
        squares=np.empty(columns, dtype=np.float32),
    )


def _finished_model(
    parameters: _Parameters, hyperparameters: Hyperparameters
) -> FactorizationMachine:
    where = f"epoch {hyperparameters.epochs - 1}"
    _check_finite(parameters.bias, where, hyperparameters)
    for first in range(0, len(parameters.table), _ROWS_PER_BLOCK):
        block = parameters.table[first : first + _ROWS_PER_BLOCK]
        _check_finite(block, where, hyperparameters)
    weights = parameters.table[:, _WEIGHT]
    return FactorizationMachine(
        predictor_type=hyperparameters.predictor_type,
        bias=float(parameters.bias[_WEIGHT, 0]),
        linear=weights[:, 0].copy(),
        factors=weights[:, 1:].copy(),
    )


def _check_finite(values: Floats, where: str, hyperparameters: Hyperparameters) -> None:
    if not np.isfinite(values).all():
        raise DivergenceError(
            f"training diverged in {where}: scores or parameters are no longer finite; lower "
            f"bias_lr ({hyperparameters.bias_lr:g}), linear_lr ({hyperparameters.linear_lr:g}) or "
            f"factors_lr ({hyperparameters.factors_lr:g}), or set clip_gradient"
        )


# -------------------------------------------------------------------------------- compiled loop

# float32 constants: with Python's floats the arithmetic would silently be double.
_BETA_1, _BETA_2 = np.float32(0.9), np.float32(0.999)
_ONE, _HALF, _ZERO = np.float32(1), np.float32(0.5), np.float32(0)

_compile = numba.njit(cache=True, nogil=True, error_model="numpy")


@_compile
def _run_batches(
    records: tuple[Integers, Integers, Floats, Floats],
    is_classifier: bool,
    first_record: int,
    updates_before: int,
    scores: Floats,
    parameters: _Parameters,
    bias_rates: _Rates,
    table_rates: _Rates,
    scratch: _Scratch,
) -> None:
    """Run one mini-batch for each row of `scores`, which gets what its records scored before.

    `records` are the CSR arrays and the labels; `first_record` is where to begin, and records
    start over at the end. Changes `parameters` in place.
    """
    indptr, indices, data, y = records
    slot, touched, gradient, bias_gradient, sums, squares = scratch
    table = parameters.table
    columns = table.shape[2]
    record = first_record % len(y)
    for batch in range(scores.shape[0]):
        count = 0
        bias_gradient[0] = _ZERO
        for position in range(scores.shape[1]):
            begin, end = indptr[record], indptr[record + 1]
            linear = parameters.bias[_WEIGHT, 0]
            sums[:] = _ZERO
            squares[:] = _ZERO
            for entry in range(begin, end):
                weights, x = table[indices[entry], _WEIGHT], data[entry]
                linear += weights[0] * x
                for column in range(1, columns):
                    term = weights[column] * x
                    sums[column] += term
                    squares[column] += term * term
            interactions = _ZERO
            for column in range(1, columns):
                interactions += sums[column] * sums[column] - squares[column]
            score = linear + _HALF * interactions
            scores[batch, position] = score

            predicted = _ONE / (_ONE + np.exp(-score)) if is_classifier else score
            error = predicted - y[record]
            bias_gradient[0] += error
            for entry in range(begin, end):
                feature, x = indices[entry], data[entry]
                if slot[feature] < 0:
                    slot[feature], touched[count] = count, feature
                    gradient[count] = _ZERO
                    count += 1
                weights, row = table[feature, _WEIGHT], gradient[slot[feature]]
                slope = error * x
                row[0] += slope
                for column in range(1, columns):
                    row[column] += slope * (sums[column] - weights[column] * x)
            record += 1
            if record == len(y):
                record = 0

        updates = updates_before + batch + 1
        correction = np.float32(np.sqrt(1 - 0.999**updates) / (1 - 0.9**updates))
        _adam(parameters.bias, bias_gradient, bias_rates, correction)
        for row in range(count):
            _adam(table[touched[row]], gradient[row], table_rates, correction)
            slot[touched[row]] = -1


@_compile
def _adam(parameters: Floats, gradient: Floats, rates: _Rates, correction: np.float32) -> None:
    """Update one row: `parameters` is ``(3, columns)``, `gradient` the sum over the mini-batch."""
    for column in range(len(gradient)):
        weight = parameters[_WEIGHT, column]
        slope = gradient[column] * rates.rescale_grad
        slope = min(max(slope, -rates.clip_gradient), rates.clip_gradient)
        slope += rates.wd[column] * weight
        first = _BETA_1 * parameters[_FIRST_MOMENT, column] + (_ONE - _BETA_1) * slope
        second = _BETA_2 * parameters[_SECOND_MOMENT, column] + (_ONE - _BETA_2) * slope * slope
        parameters[_FIRST_MOMENT, column] = first
        parameters[_SECOND_MOMENT, column] = second
        step = rates.lr[column] * correction
        parameters[_WEIGHT, column] = weight - step * first / (np.sqrt(second) + rates.eps)
