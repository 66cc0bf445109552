"""The RecordIO assets: which rows they hand on, and into how many files the test split is cut."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from recsys_assets.assets.features import (
    ProtobufTestConfig,
    protobuf_test,
    protobuf_train,
    protobuf_validate,
)
from recsys_assets.domain.features import RatingMatrix, build_rating_matrix
from recsys_assets.domain.ratings.filtering import FilterRules, filter_ratings
from recsys_assets_tests.domain.literal_ratings import random_ratings, write_ratings


@pytest.fixture
def matrix(tmp_path: Path) -> RatingMatrix:
    write_ratings(tmp_path / "ratings.parquet", random_ratings())
    rules = FilterRules(min_ratings_per_customer=1, min_ratings_per_video=1)
    filter_ratings(tmp_path / "ratings.parquet", tmp_path / "filtered.parquet", rules)
    return build_rating_matrix(tmp_path / "filtered.parquet")


def test_each_split_is_written_from_where_it_lies_in_the_matrix(matrix: RatingMatrix) -> None:
    outputs = {
        "train": protobuf_train(matrix),
        "validate": protobuf_validate(matrix),
        "test": protobuf_test(ProtobufTestConfig(), matrix),
    }
    end = 0
    for split, output in outputs.items():
        value = output.value
        assert value.features is matrix.features
        assert value.labels is matrix.labels
        assert (value.rows.start, value.rows.stop) == (end, end + matrix.split_rows[split])
        assert value.fingerprint == matrix.fingerprint()
        mean = float(np.mean(matrix.labels[value.rows], dtype=np.float64))
        assert output.metadata["mean_rating"].value == pytest.approx(mean, rel=1e-6)
        end = value.rows.stop
    assert end == len(matrix.labels)


def test_only_the_test_split_is_cut_in_files_of_as_many_rows_as_configured(
    matrix: RatingMatrix,
) -> None:
    assert protobuf_train(matrix).value.rows_per_file is None
    assert protobuf_validate(matrix).value.rows_per_file is None
    assert protobuf_test(ProtobufTestConfig(), matrix).value.rows_per_file == 10_000
    seven = ProtobufTestConfig(rows_per_file=7)
    assert protobuf_test(seven, matrix).value.rows_per_file == 7


@pytest.mark.parametrize("rows", [0, -1, 2.5])
def test_a_file_has_at_least_one_row(rows: float) -> None:
    with pytest.raises(ValidationError, match="rows_per_file"):
        ProtobufTestConfig(rows_per_file=rows)
