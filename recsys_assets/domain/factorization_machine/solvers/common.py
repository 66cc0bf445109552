"""What every solver is given, and what it tells.

What belongs here: the checks of records before training, reports on its way, and the error that
ends it. What does not: anything that only one solver does.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from recsys_assets.domain.factorization_machine.hyperparameters import (
    Hyperparameters,
    InitMethod,
)
from recsys_assets.domain.factorization_machine.metrics import Metric
from recsys_assets.domain.factorization_machine.model import DataError, check_width

Floats = npt.NDArray[np.float32]
Records = tuple[csr_matrix, Floats]  # features and labels

_ROWS_PER_BLOCK = 1 << 16  # bounds the scratch memory of a check


class DivergenceError(ArithmeticError):
    """Training ran away: a score or a parameter is no longer a finite number."""


@dataclass(frozen=True)
class Progress:
    """How well a mini-batch, or with `batch` None a whole epoch, was predicted.

    Each record is predicted with the parameters from before its own mini-batch's update. An
    epoch's metrics count the records that fill up its last mini-batch again. `validation` holds
    the metrics of validation records, if there are any, at the end of an epoch.
    """

    epoch: int
    batch: int | None
    metrics: tuple[Metric, ...]
    validation: tuple[Metric, ...] = ()


def check_records(
    X: csr_matrix, y: Floats | None, hyperparameters: Hyperparameters, *, first_record: int = 0
) -> None:
    """Check that there are records of the right width, and for each a label that can be learned.

    Parameters
    ----------
    X, y
        What is going to be trained on, or tested with.
    first_record
        The number of the first of these records, if there are others before them; messages count
        from there.

    Raises
    ------
    DataError
        If there are no records, if their width is not `feature_dim`, if a feature's index lies
        outside of it or its value is not finite, or if labels are missing, not finite or, for a
        binary classifier, other than 0 and 1.
    """
    if not X.shape[0]:
        raise DataError("expected at least one record, got none")
    check_width(X, hyperparameters.feature_dim)

    def record_of(bad_entries: npt.NDArray[np.bool_]) -> tuple[int, int]:
        entry = int(np.argmax(bad_entries))
        row = int(np.searchsorted(X.indptr, entry, side="right")) - 1
        return entry, first_record + row

    outside = (X.indices < 0) | (X.indices >= X.shape[1])
    if outside.any():
        entry, record = record_of(outside)
        raise DataError(
            f"expected features from 0 to {X.shape[1] - 1}, got {X.indices[entry]} in record "
            f"{record}"
        )
    infinite = ~np.isfinite(X.data)
    if infinite.any():
        entry, record = record_of(infinite)
        raise DataError(
            f"expected finite values, got {X.data[entry]:g} of feature {X.indices[entry]} in "
            f"record {record}"
        )
    if y is None:
        raise DataError("expected records with labels, got none")
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
            row = int(np.argmax(bad))
            raise DataError(f"expected {expected}, got {y[row]:g} in record {first_record + row}")


def initial_values(
    hyperparameters: Hyperparameters,
    group: str,
    shape: tuple[int, ...],
    generator: np.random.Generator,
) -> Floats:
    """Return initial values, float32, as a group's hyperparameters have it.

    `group` is "bias", "linear" or "factors".
    """
    method: InitMethod = getattr(hyperparameters, f"{group}_init_method")
    if method == "normal":
        values = generator.standard_normal(shape, dtype=np.float32)
        values *= np.float32(getattr(hyperparameters, f"{group}_init_sigma"))
    elif method == "uniform":
        values = 2 * generator.random(shape, dtype=np.float32) - 1
        values *= np.float32(getattr(hyperparameters, f"{group}_init_scale"))
    else:
        value = getattr(hyperparameters, f"{group}_init_value")
        values = np.full(shape, value, dtype=np.float32)
    return values


def check_finite(values: Floats, where: str, hyperparameters: Hyperparameters) -> None:
    """Raise DivergenceError unless all are finite; `where` is the part of training it is about."""
    for begin in range(0, len(values), _ROWS_PER_BLOCK):
        if not np.isfinite(values[begin : begin + _ROWS_PER_BLOCK]).all():
            raise DivergenceError(
                f"training diverged in {where}: scores or parameters are no longer finite; lower "
                f"bias_lr ({hyperparameters.bias_lr:g}), linear_lr "
                f"({hyperparameters.linear_lr:g}) or factors_lr "
                f"({hyperparameters.factors_lr:g}), or set clip_gradient"
            )
