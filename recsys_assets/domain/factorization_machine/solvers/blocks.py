"""Records as blocks: groups of columns in which many records hold the same.

What belongs here: finding the groups of a matrix and the distinct sub-records of each, without
which a solver would do the same work for every record of a customer. What does not: what is
learned from them (``bayesian``).

Source: Rendle 2013, "Scaling factorization machines to relational data".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, eye_array

from recsys_assets.domain.factorization_machine.model import DataError

Integers = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Block:
    """What the records hold in a group of consecutive columns.

    Attributes
    ----------
    first_column
        Where in the records the group begins.
    cases
        CSR float32 of shape ``(cases, columns of the group)``: the sub-records that occur, each
        once.
    case
        int32 of shape ``(records,)``: the row of `cases` that each record holds.
    """

    first_column: int
    cases: csr_matrix
    case: Integers

    @property
    def columns(self) -> slice:
        """The group's columns."""
        return slice(self.first_column, self.first_column + self.cases.shape[1])

    @cached_property
    def is_exclusive(self) -> bool:
        """Whether no record has two of these features, as with one-hot columns."""
        return int(np.diff(self.cases.indptr).max(initial=0)) <= 1


def as_blocks(X: csr_matrix, group_sizes: Sequence[int] | None) -> list[Block]:
    """Cut records into blocks.

    Parameters
    ----------
    X
        CSR float32 in canonical format, at least one row.
    group_sizes
        Number of columns of each group, in order. If None, groups are found: a group of its own
        for each leading field of which every record has exactly one feature, and one for all other
        columns.

    Raises
    ------
    DataError
        If `group_sizes` are not positive or do not add up to the width of `X`.
    """
    if group_sizes is None:
        group_sizes = _find_groups(X)
    elif min(group_sizes, default=0) < 1 or sum(group_sizes) != X.shape[1]:
        raise DataError(
            f"expected positive group_sizes that add up to {X.shape[1]} features, got "
            f"{', '.join(map(str, group_sizes)) or 'none'}"
        )
    bounds = accumulate(group_sizes, initial=0)
    return [_block(X, first, last) for first, last in pairwise(bounds)]


def _find_groups(X: csr_matrix) -> list[int]:
    counts = np.diff(X.indptr)
    bounds = [0]
    for position in range(int(counts.min())):
        here = X.indices[X.indptr[:-1] + position]
        later = X.indices[X.indptr[:-1][counts > position + 1] + position + 1]
        if not len(later) or here.max() >= later.min():
            break
        bounds.append(int(later.min()))
    return [last - first for first, last in pairwise([*bounds, X.shape[1]])]


def _block(X: csr_matrix, first: int, last: int) -> Block:
    held = X if (first, last) == (0, X.shape[1]) else X[:, first:last]
    if held.nnz == held.shape[0] and (np.diff(held.indptr) == 1).all() and (held.data == 1).all():
        one_hot = csr_matrix(eye_array(last - first, dtype=np.float32, format="csr"))
        return Block(first, one_hot, held.indices.astype(np.int32))

    representative, case = _distinct(held)
    return Block(first, held[representative], case)


def _distinct(held: csr_matrix) -> tuple[npt.NDArray[np.int64], Integers]:
    """Return one row of each kind, and each row's kind.

    Rows are told apart by a hash. Should two different ones share theirs, which is checked, every
    row is a kind of its own: slower, and as right.
    """
    key = held.indices.astype(np.uint64) << np.uint64(32) | held.data.view(np.uint32)
    ends = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mixed(key), dtype=np.uint64)])
    hashes = ends[held.indptr[1:]] - ends[held.indptr[:-1]]  # modulo 2^64, as all of this
    _, representative, case = np.unique(hashes, return_index=True, return_inverse=True)
    copies = held[representative[case]]
    if not all(
        np.array_equal(getattr(copies, part), getattr(held, part))
        for part in ("indptr", "indices", "data")
    ):
        representative = case = np.arange(held.shape[0])
    return representative, case.astype(np.int32)


def _mixed(key: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scatter keys over all 64 bits: splitmix64 (Steele, Lea, Flood 2014)."""
    key = key + np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ key >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ key >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return key ^ key >> np.uint64(31)
