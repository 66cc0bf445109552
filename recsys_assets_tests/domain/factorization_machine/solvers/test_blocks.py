"""Blocks: which are found, and that they hold what the records hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, hstack, random_array

from recsys_assets.domain.factorization_machine.model import DataError
from recsys_assets.domain.factorization_machine.solvers import blocks as blocks_module
from recsys_assets.domain.factorization_machine.solvers.blocks import Block, as_blocks


def rows(*dense: list[float]) -> csr_matrix:
    return csr_matrix(np.array(dense, dtype=np.float32))


def put_together(blocks: list[Block]) -> np.ndarray:
    dense: np.ndarray = hstack([block.cases[block.case] for block in blocks]).toarray()
    return dense


@settings(max_examples=50, deadline=None)
@given(
    records=st.integers(1, 12),
    group_sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    density=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_cases_put_together_are_the_records_and_each_is_there_once(
    records: int, group_sizes: list[int], density: float, seed: int
) -> None:
    shape = (records, sum(group_sizes))
    X = csr_matrix(random_array(shape, density=density, rng=seed, dtype=np.float32))
    X.data = np.ceil(X.data * 2).astype(np.float32)  # few values, so that cases recur
    blocks = as_blocks(X, group_sizes)
    np.testing.assert_array_equal(put_together(blocks), X.toarray())
    for block, size in zip(blocks, group_sizes, strict=True):
        cases = block.cases.toarray()
        assert cases.shape[1] == size == block.columns.stop - block.columns.start
        assert len(np.unique(cases, axis=0)) == len(cases)
        assert block.is_exclusive == ((cases != 0).sum(axis=1).max() <= 1)


def test_one_hot_fields_are_found() -> None:
    X = rows([1, 0, 0, 1, 0, 0.5, 0.5], [0, 1, 0, 0, 1, 0, 0], [0, 0, 1, 1, 0, 1, 0])
    found = as_blocks(X, None)
    assert [block.columns for block in found] == [slice(0, 3), slice(3, 5), slice(5, 7)]
    assert [block.is_exclusive for block in found] == [True, True, False]
    two_hot = as_blocks(X[:, :5], None)
    assert [block.columns for block in two_hot] == [slice(0, 3), slice(3, 5)]
    assert all(block.is_exclusive for block in two_hot)


def test_found_blocks_are_those_that_would_be_given() -> None:
    X = rows([1, 0, 0, 1, 0], [0, 1, 0, 0, 1], [0, 0, 1, 1, 0], [1, 0, 0, 0, 1])
    for found, given_ in zip(as_blocks(X, None), as_blocks(X, (3, 2)), strict=True):
        assert found.columns == given_.columns
        np.testing.assert_array_equal(found.case, given_.case)
        np.testing.assert_array_equal(found.cases.toarray(), given_.cases.toarray())


@pytest.mark.parametrize(
    "X",
    [
        rows([1, 1, 0], [0, 1, 1]),  # the second's first feature is the first's second
        rows([1, 0, 0], [0, 0, 0]),  # a record without features
        rows([0, 0, 0]),
    ],
)
def test_where_no_fields_are_to_be_found_there_is_one_block(X: csr_matrix) -> None:
    (block,) = as_blocks(X, None)
    np.testing.assert_array_equal(put_together([block]), X.toarray())


def test_records_whose_hashes_collide_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "_mixed", np.zeros_like)
    X = rows([1, 2, 0], [1, 2, 0], [3, 0, 4])
    (block,) = as_blocks(X, (3,))
    np.testing.assert_array_equal(put_together([block]), X.toarray())


@pytest.mark.parametrize("group_sizes", [(), (0, 3), (-1, 4), (2, 2), (2,)])
def test_group_sizes_that_do_not_fit_are_refused(group_sizes: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="expected positive group_sizes that add up to 3 features"):
        as_blocks(rows([1, 0, 1]), group_sizes)
