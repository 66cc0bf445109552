"""Records that come in chunks, brought into mini-batches.

What belongs here: where mini-batches begin and end. What does not: reading files (``recordio``) and
training.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import cast

import numpy as np
from scipy.sparse import csr_matrix, vstack

from recsys_assets.domain.factorization_machine.hyperparameters import Hyperparameters
from recsys_assets.domain.factorization_machine.model import DataError, as_features
from recsys_assets.domain.factorization_machine.solvers.common import (
    Floats,
    Records,
    check_records,
)

Chunks = Callable[[], Iterable[tuple[csr_matrix, Floats | None]]]
"""Records in their order, again with each call: features and labels of some rows at a time."""


def mini_batches(
    chunks: Chunks, hyperparameters: Hyperparameters, batches: int
) -> Iterator[Records]:
    """Go once through records, in parts that hold whole mini-batches.

    Where a chunk ends makes no difference. The last mini-batch is filled up with the first
    records, over again if there are not enough of them.

    Parameters
    ----------
    chunks
        Where records come from. Chunks may be of any size, also empty.
    hyperparameters
        What the records must fit; `mini_batch_size` is theirs.
    batches
        How many mini-batches a part has; the last part may have fewer.

    Yields
    ------
    Records
        Float32 features, each stored once a row, and labels.

    Raises
    ------
    DataError
        If there are no records, or as :func:`check_records` says.
    """
    size = hyperparameters.mini_batch_size
    head: list[Records] = []  # the first records, for the last mini-batch
    part: list[Records] = []
    seen = in_part = 0
    for X, y in chunks():
        if not X.shape[0]:
            continue
        check_records(X, y, hyperparameters, first_record=seen)
        records = as_features(X, hyperparameters.feature_dim), cast("Floats", y)
        if seen < size:
            head.append(_rows(records, 0, size - seen))
        seen += X.shape[0]
        begin = 0
        while begin < X.shape[0]:
            piece = _rows(records, begin, begin + batches * size - in_part)
            part.append(piece)
            begin += len(piece[1])
            in_part += len(piece[1])
            if in_part == batches * size:
                yield _joined(part)
                part, in_part = [], 0
    if not seen:
        raise DataError("expected at least one record, got none")
    if part:
        first, labels = _joined(head)
        again = np.arange(-seen % size) % len(labels)
        yield _joined([*part, (first[again], labels[again])])


def _rows(records: Records, begin: int, end: int) -> Records:
    X, y = records
    return X[begin:end], y[begin:end]


def _joined(parts: list[Records]) -> Records:
    if len(parts) == 1:
        return parts[0]
    return vstack([X for X, _ in parts], format="csr"), np.concatenate([y for _, y in parts])
