"""Records in chunks: where they are cut makes no difference."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.model import DataError
from recsys_assets.domain.factorization_machine.solvers import adam
from recsys_assets.domain.factorization_machine.solvers.common import Progress, Records
from recsys_assets.domain.factorization_machine.solvers.stream import mini_batches
from recsys_assets.domain.recordio import iterate_recordio, write_recordio

ROWS = 50
X = csr_matrix(random_array((ROWS, 12), density=0.3, rng=0, dtype=np.float32))
Y = np.arange(ROWS, dtype=np.float32)


def settings_for(size: int) -> ExtendedHyperparameters:
    return ExtendedHyperparameters(
        feature_dim=12, num_factors=5, predictor_type="regressor", epochs=2, mini_batch_size=size,
        factors_lr=0.01,
    )  # fmt: skip


def cut(rows: int, at: Sequence[int]) -> list[Records]:
    ends = [0, *sorted(at), rows]
    return [(X[begin:end], Y[begin:end]) for begin, end in pairwise(ends)]


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, ROWS),
    at=st.lists(st.integers(0, ROWS), max_size=8),
    size=st.integers(1, 60),
    batches=st.integers(1, 5),
)
def test_parts_hold_whole_mini_batches_in_order_and_wrap_around_to_the_first_records(
    rows: int, at: list[int], size: int, batches: int
) -> None:
    chunks = cut(rows, [min(position, rows) for position in at])
    parts = list(mini_batches(lambda: chunks, settings_for(size), batches))
    expected = np.arange(-(-rows // size) * size) % rows
    np.testing.assert_array_equal(np.concatenate([y for _, y in parts]), Y[expected])
    features = np.concatenate([x.toarray() for x, _ in parts])
    np.testing.assert_array_equal(features, X[expected].toarray())
    sizes = [len(y) for _, y in parts]
    assert all(length == batches * size for length in sizes[:-1])
    assert 0 < sizes[-1] <= batches * size


@pytest.mark.parametrize("chunk_bytes", [1, 100, 997, 1 << 20])
def test_a_model_does_not_depend_on_how_files_and_chunks_are_cut(
    tmp_path: Path, chunk_bytes: int
) -> None:
    paths = []
    for number, (x, y) in enumerate(cut(ROWS, [3, 3, 31])):
        paths.append(tmp_path / f"part-{number}")
        write_recordio(paths[-1], x, y)
    whole: list[Progress] = []
    expected = adam.train(X, Y, settings_for(7), report=whole.append)
    reported: list[Progress] = []
    model = adam.train_stream(
        lambda: iterate_recordio(paths, chunk_bytes), settings_for(7), report=reported.append
    )
    assert model.factors.tobytes() == expected.factors.tobytes()
    assert model.linear.tobytes() == expected.linear.tobytes()
    assert model.bias == expected.bias
    assert reported == whole


def test_faults_are_reported_by_the_number_of_the_record_among_all() -> None:
    labels = Y.copy()
    labels[40] = np.nan
    chunks = [(X[:30], labels[:30]), (X[30:], labels[30:])]
    with pytest.raises(DataError, match="expected finite labels, got nan in record 40"):
        adam.train_stream(lambda: chunks, settings_for(7))


def test_a_stream_without_records_or_labels_is_refused() -> None:
    for chunks, message in (
        ([], "at least one record, got none"),
        ([(X[:0], Y[:0])], "at least one record, got none"),
        ([(X, None)], "expected records with labels, got none"),
    ):
        with pytest.raises(DataError, match=message):
            adam.train_stream(lambda given=chunks: given, settings_for(7))
