"""One-hot features: the matrix of a literal frame, and its maps back to ids."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_assets.domain.features import RatingMatrix, Vocabulary, build_rating_matrix
from recsys_assets.domain.ratings.filtering import FilterRules, filter_ratings
from recsys_assets_tests.domain.literal_ratings import random_ratings, write_ratings


def matrix_of(tmp_path: Path, rows: list, seed: int = 0) -> RatingMatrix:
    out = tmp_path / "filtered.parquet"
    rules = FilterRules(min_ratings_per_customer=1, min_ratings_per_video=1, seed=seed)
    filter_ratings(write_ratings(tmp_path / "ratings.parquet", rows), out, rules)
    return build_rating_matrix(out)


def test_each_row_holds_a_one_for_its_customer_and_one_for_its_video(tmp_path: Path) -> None:
    rows = [("bo", "up", 5.0, 1, "1", "Up"), ("al", "up", 3.0), ("bo", "wall-e", 4.0)]
    matrix = matrix_of(tmp_path, rows)
    assert matrix.customers.ids.to_pylist() == ["al", "bo"]
    assert matrix.videos.ids.to_pylist() == ["up", "wall-e"]
    assert matrix.videos.titles.to_pylist() == ["Up", None]
    dense = matrix.features.toarray()
    by_label = {label: row.tolist() for label, row in zip(matrix.labels, dense, strict=True)}
    assert by_label == {5.0: [0, 1, 1, 0], 3.0: [1, 0, 1, 0], 4.0: [0, 1, 0, 1]}
    assert matrix.features.dtype == np.float32
    assert matrix.feature_dim == 4


def test_splits_are_consecutive_rows_and_pairs_lead_back_to_ids(tmp_path: Path) -> None:
    rows = random_ratings()
    matrix = matrix_of(tmp_path, rows)
    stars = {(c, v): rating for c, v, rating, *_ in rows}
    seen = 0
    for split in ("train", "validate", "test"):
        assert matrix.rows(split).start == seen
        seen = matrix.rows(split).stop
        customer, video = matrix.pairs(split)
        for c, v, label in zip(customer, video, matrix.labels[matrix.rows(split)], strict=True):
            pair = matrix.customers.ids[int(c)].as_py(), matrix.videos.ids[int(v)].as_py()
            assert stars[pair] == label
    assert seen == len(rows)


def test_ids_that_occur_only_in_validate_or_test_are_within_the_matrix(tmp_path: Path) -> None:
    matrix = matrix_of(tmp_path, [(f"c{i}", f"v{i}", 3.0) for i in range(30)])
    assert matrix.split_rows["test"] > 0
    assert matrix.features.indices.max() == 59
    assert matrix.feature_dim == 60


def test_the_fingerprint_tells_matrices_apart_by_content_alone(tmp_path: Path) -> None:
    rows = random_ratings()
    assert matrix_of(tmp_path, rows).fingerprint() == matrix_of(tmp_path, rows[::-1]).fingerprint()
    assert matrix_of(tmp_path, rows).fingerprint() != matrix_of(tmp_path, rows, 1).fingerprint()
    renamed = [("new", *row[1:]) if row[0] == "c0" else row for row in rows]
    assert matrix_of(tmp_path, rows).fingerprint() != matrix_of(tmp_path, renamed).fingerprint()


def test_an_id_is_found_by_name_and_an_unknown_one_is_an_error(tmp_path: Path) -> None:
    matrix = matrix_of(tmp_path, [("bo", "up", 5.0), ("al", "up", 3.0)])
    assert matrix.customers.index_of("bo") == 1
    with pytest.raises(KeyError, match="no such id: 'cy'"):
        matrix.customers.index_of("cy")


def filtered_file(path: Path, rows: int, customers: int, videos: int, row_group: int) -> pa.Table:
    """Write ratings as `filter_ratings` does, of ids that are all there, and return them."""
    rng = np.random.default_rng(rows)
    customer, video = (
        np.concatenate([rng.permutation(count), rng.integers(count, size=rows - count)])
        for count in (customers, videos)
    )
    titles = [f"Video {v}" if v % 3 else None for v in video]
    cut = rows * np.arange(1, 3) // 3
    table = pa.table(
        {
            "customer_id": [f"{c:012d}" for c in customer],
            "video_id": [f"V{v:09d}" for v in video],
            "title": pa.array(titles, pa.string()),
            "rating": rng.integers(1, 6, rows).astype(np.float32),
            "customer_index": customer.astype(np.int32),
            "video_index": video.astype(np.int32),
            "split": np.repeat(["train", "validate", "test"], np.diff([0, *cut, rows])),
        }
    )
    pq.write_table(table, path, row_group_size=row_group)
    return table


@given(
    rows=st.integers(20, 200), batch_rows=st.integers(1, 250), row_group=st.sampled_from([7, 64])
)
@settings(deadline=None, max_examples=30)
def test_a_matrix_is_the_same_however_many_rows_are_read_at_a_time(
    tmp_path_factory: pytest.TempPathFactory, rows: int, batch_rows: int, row_group: int
) -> None:
    path = tmp_path_factory.mktemp("filtered") / "filtered.parquet"
    table = filtered_file(path, rows, customers=20, videos=11, row_group=row_group)
    matrix = build_rating_matrix(path, batch_rows=batch_rows)
    columns = np.column_stack([table["customer_index"], table["video_index"].to_numpy() + 20])
    np.testing.assert_array_equal(matrix.features.indices.reshape(-1, 2), columns)
    assert (matrix.features.data == 1).all()
    np.testing.assert_array_equal(matrix.labels, table["rating"])
    splits = [name for name, count in matrix.split_rows.items() for _ in range(count)]
    assert splits == table["split"].to_pylist()
    assert matrix.customers.ids.to_pylist() == [f"{c:012d}" for c in range(20)]
    assert matrix.videos.ids.to_pylist() == [f"V{v:09d}" for v in range(11)]
    titles = [f"Video {v}" if v % 3 else None for v in range(11)]
    assert matrix.videos.titles.to_pylist() == titles
    assert matrix.fingerprint() == build_rating_matrix(path).fingerprint()


def test_building_holds_no_more_than_the_matrix_and_some_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = filtered_file(tmp_path / "f", 300_000, customers=5_000, videos=500, row_group=10_000)
    arrow: list[int] = []
    iterate = pq.ParquetFile.iter_batches

    def watched(*args: Any, **kwargs: Any) -> Iterator[pa.RecordBatch]:
        for batch in iterate(*args, **kwargs):
            arrow.append(pa.total_allocated_bytes())
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        matrix = build_rating_matrix(tmp_path / "f", batch_rows=10_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    features = matrix.features
    arrays = (features.indices, features.data, features.indptr, matrix.labels)
    assert peak < 1.2 * sum(array.nbytes for array in arrays)
    assert len(arrow) >= 30
    assert max(arrow) - before < table.nbytes / 5


def test_the_fingerprint_does_not_depend_on_how_arrow_holds_the_ids(tmp_path: Path) -> None:
    matrix = matrix_of(tmp_path, random_ratings())

    def with_ids(ids: pa.Array) -> str:
        return replace(matrix, customers=Vocabulary(ids, pa.nulls(len(ids)))).fingerprint()

    ids = matrix.customers.ids.to_pylist()
    cut_out = pa.array(["before", *ids, "after"])[1:-1]
    assert cut_out.offset == 1
    assert with_ids(cut_out) == with_ids(pa.array(ids)) == matrix.fingerprint()
    joined = pa.chunked_array([cut_out[:3], pa.array(ids[3:])]).combine_chunks()
    assert with_ids(joined) == matrix.fingerprint()
    moved = [ids[0] + ids[1][0], ids[1][1:], *ids[2:]]
    assert "".join(moved) == "".join(ids)
    assert with_ids(pa.array(moved)) != matrix.fingerprint()


def test_an_index_without_an_id_is_an_error_that_says_which(tmp_path: Path) -> None:
    table = filtered_file(tmp_path / "f", 40, customers=10, videos=5, row_group=40)
    video = table["video_index"].to_numpy()
    pq.write_table(table.filter(pa.array(video != 3)), tmp_path / "f")
    with pytest.raises(ValueError, match=r"expected video indices .* up to 4, found none .* is 3"):
        build_rating_matrix(tmp_path / "f")
