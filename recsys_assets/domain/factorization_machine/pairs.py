"""Scores of very many records of two features, by compiled code.

What belongs here: the loop that :class:`FactorizationMachine` uses for them, if there are so many
that loading numba is worth its second. What does not: the model equation, with which this must
agree to the last bit.
"""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import numpy.typing as npt

from recsys_assets.domain.processors import processors

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

_ROWS = 64  # whose products are at hand at the same time


def score_pairs(
    bias: np.float32, linear: Floats, factors: Floats, features: Integers, values: Floats
) -> Floats:
    """Score records of two features with all processors of this process.

    Parameters
    ----------
    bias, linear, factors
        A model's parameters.
    features, values
        int32 and float32 of shape ``(records, 2)``. Features must be rows of `factors`.

    Returns
    -------
    numpy.ndarray
        float32 of shape ``(records,)``.
    """
    scores: Floats = np.empty(len(features), dtype=np.float32)
    workers = processors()
    ends = np.linspace(0, len(features), workers + 1).astype(np.int64)

    def run(worker: int) -> None:
        part = slice(ends[worker], ends[worker + 1])
        _score(bias, linear, factors, features[part], values[part], scores[part])

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, range(workers)))
    return scores


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _score(
    bias: np.float32,
    linear: Floats,
    factors: Floats,
    features: Integers,
    values: Floats,
    scores: Floats,
) -> None:
    """Fill `scores`.

    Sums over columns are taken in their order, which is slow for one record alone; so those of
    many are taken one after another, and the processor works on several at the same time.
    """
    columns = factors.shape[1]
    products = np.empty((_ROWS, columns), dtype=np.float32)
    for first in range(0, len(features), _ROWS):
        rows = min(_ROWS, len(features) - first)
        for row in range(rows):
            v_i = factors[features[first + row, 0]]
            v_j = factors[features[first + row, 1]]
            for column in range(columns):
                products[row, column] = v_i[column] * v_j[column]
        for row in range(rows):
            record = first + row
            interaction = products[row, 0]
            for column in range(1, columns):
                interaction += products[row, column]
            x_i, x_j = values[record, 0], values[record, 1]
            w_i, w_j = linear[features[record, 0]], linear[features[record, 1]]
            scores[record] = bias + (w_i * x_i + w_j * x_j) + interaction * (x_i * x_j)
