"""One-hot features: the matrix of a literal frame, and its maps back to ids."""

from pathlib import Path

import numpy as np
import pytest

from recsys_assets.domain.features import RatingMatrix, build_rating_matrix
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
