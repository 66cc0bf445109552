"""The long-tail filter, one rating a pair, stable indices and the split."""

import hashlib
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_assets.domain.factorization_machine.estimator import FactorizationMachineEstimator
from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.features import build_rating_matrix
from recsys_assets.domain.ratings.filtering import (
    FilterRules,
    NothingLeftError,
    filter_ratings,
)
from recsys_assets_tests.domain.literal_ratings import random_ratings, write_ratings

EVERYTHING = FilterRules(min_ratings_per_customer=1, min_ratings_per_video=1)


def kept(tmp_path: Path, rows: list, rules: FilterRules = EVERYTHING) -> list[dict]:
    out = tmp_path / "filtered.parquet"
    filter_ratings(write_ratings(tmp_path / "ratings.parquet", rows), out, rules)
    return pq.read_table(out).to_pylist()


def split_by_the_contract(seed: int, customer: str, video: str) -> str:
    escaped = [part.replace("|", "\\|") for part in (customer, video)]
    digest = hashlib.md5("|".join([str(seed), *escaped]).encode()).hexdigest()
    share = Fraction(int(digest[:15], 16), 16**15)
    if share < Fraction(6, 10):
        return "train"
    return "validate" if share < Fraction(8, 10) else "test"


def test_both_thresholds_hold_at_once_on_counts_taken_before_either(tmp_path: Path) -> None:
    rows = [("a", "x", 5.0), ("a", "y", 4.0), ("b", "x", 3.0), ("c", "y", 2.0), ("c", "z", 1.0)]
    rules = FilterRules(min_ratings_per_customer=2, min_ratings_per_video=2)
    pairs = {(row["customer_id"], row["video_id"]) for row in kept(tmp_path, rows, rules)}
    # b goes (one rating), z goes (one rating); x stays though only one of its ratings is left.
    assert pairs == {("a", "x"), ("a", "y"), ("c", "y")}


def test_counts_are_taken_before_pairs_rated_twice_are_reduced(tmp_path: Path) -> None:
    rows = [("a", "x", 5.0, 1), ("a", "x", 1.0, 2)]
    rules = FilterRules(min_ratings_per_customer=2, min_ratings_per_video=2)
    assert [row["rating"] for row in kept(tmp_path, rows, rules)] == [1.0]


@pytest.mark.parametrize(
    ("rows", "rating"),
    [
        ([("a", "x", 1.0, 9, "R1"), ("a", "x", 5.0, 3, "R2")], 1.0),
        ([("a", "x", 1.0, 3, "R2"), ("a", "x", 5.0, 3, "R1")], 1.0),
        ([("a", "x", 1.0, 3, "R1"), ("a", "x", 5.0, 3, "R1")], 5.0),
        ([("a", "x", 1.0, 3), ("a", "x", 5.0)], 1.0),
    ],
    ids=["latest date", "then highest review id", "then highest rating", "a date before none"],
)
def test_a_pair_rated_twice_keeps(tmp_path: Path, rows: list, rating: float) -> None:
    for order in (rows, rows[::-1]):
        assert [row["rating"] for row in kept(tmp_path, order)] == [rating]


def test_a_video_has_its_most_frequent_title_then_the_smallest(tmp_path: Path) -> None:
    rows = [
        ("a", "x", 5.0, 1, "1", "Absent"),
        ("b", "x", 5.0, 1, "2", "Often"),
        ("c", "x", 5.0, 1, "3", "Often"),
        ("a", "y", 5.0, 1, "4", "Beta"),
        ("b", "y", 5.0, 1, "5", "Alpha"),
        ("c", "z", 5.0, 1, "6", None),
    ]
    titles = {row["video_id"]: row["title"] for row in kept(tmp_path, rows)}
    assert titles == {"x": "Often", "y": "Alpha", "z": None}


def test_indices_are_positions_in_the_sorted_ids(tmp_path: Path) -> None:
    for row in kept(tmp_path, random_ratings()):
        customers = sorted({f"c{i}" for i in range(40)})
        videos = sorted({f"v{i}" for i in range(30)})
        assert row["customer_index"] == customers.index(row["customer_id"])
        assert row["video_index"] == videos.index(row["video_id"])


@given(st.lists(st.tuples(*[st.text("ab|\\é", min_size=1, max_size=4)] * 2), min_size=1))
@settings(deadline=None, max_examples=15)
def test_the_split_is_the_hash_of_seed_customer_and_video(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    rules = FilterRules(min_ratings_per_customer=1, min_ratings_per_video=1, seed=11)
    rows = kept(tmp_path_factory.mktemp("split"), [(*pair, 3.0) for pair in pairs], rules)
    assert {(r["customer_id"], r["video_id"]) for r in rows} == set(pairs)
    for row in rows:
        expected = split_by_the_contract(11, row["customer_id"], row["video_id"])
        assert row["split"] == expected


def test_shares_are_about_60_20_20_and_splits_are_runs_of_rows(tmp_path: Path) -> None:
    rows = kept(tmp_path, [(f"c{i}", f"v{i % 7}", 3.0) for i in range(5000)])
    splits = [row["split"] for row in rows]
    assert splits == sorted(splits, key=["train", "validate", "test"].index)
    assert abs(splits.count("train") / 5000 - 0.6) < 0.02
    assert abs(splits.count("validate") / 5000 - 0.2) < 0.02


def test_another_seed_gives_another_split_and_order_of_the_same_rows(tmp_path: Path) -> None:
    one = kept(tmp_path, random_ratings())
    two = kept(tmp_path, random_ratings(), FilterRules(1, 1, seed=1))
    assert [row["customer_id"] for row in one] != [row["customer_id"] for row in two]
    ignoring_split = [
        {(r["customer_id"], r["video_id"], r["rating"]) for r in x} for x in (one, two)
    ]
    assert ignoring_split[0] == ignoring_split[1]


def test_rows_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    rows = random_ratings()
    written = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        kept(tmp_path, rows)
        written.append((tmp_path / "filtered.parquet").read_bytes())
    assert len(set(written)) == 1


@pytest.mark.parametrize("solver", ["adam", "sgd", "mcmc"])
def test_who_is_only_in_validate_or_test_has_a_column_and_a_prediction_on_the_scale(
    tmp_path: Path, solver: str
) -> None:
    once = [(f"new c{i}", f"v{i % 30}", 3.0 + i % 3) for i in range(60)]
    once += [(f"c{i % 40}", f"new v{i}", 3.0 + i % 3) for i in range(60)]
    kept(tmp_path, random_ratings() + once)
    matrix = build_rating_matrix(tmp_path / "filtered.parquet")
    assert matrix.feature_dim == len(matrix.customers) + len(matrix.videos) == 100 + 90
    assert matrix.features.indices.max() < matrix.feature_dim

    train = matrix.rows("train")
    later = matrix.features[train.stop :]
    unknown = np.setdiff1d(later.indices, matrix.features[train].indices)
    new = later[np.isin(later.indices, unknown).reshape(-1, 2).any(axis=1)]
    hyperparameters = ExtendedHyperparameters(
        feature_dim=matrix.feature_dim,
        num_factors=4,
        predictor_type="regressor",
        solver=solver,
        epochs=20,
        burn_in=10,
        mini_batch_size=50,
    )
    estimator = FactorizationMachineEstimator(hyperparameters)
    predicted = estimator.fit(matrix.features[train], matrix.labels[train]).predict(new)
    assert len(predicted) > 30
    assert np.all((predicted > 1) & (predicted < 5))


def test_nothing_left_is_an_error_that_names_the_thresholds(tmp_path: Path) -> None:
    with pytest.raises(NothingLeftError, match=r"none of 1 ratings .* at least 5 .* at least 10"):
        kept(tmp_path, [("a", "x", 5.0)], FilterRules())


def test_shares_that_leave_no_test_split_are_refused() -> None:
    with pytest.raises(ValueError, match=r"below 1 together, got 0\.6 and 0\.4"):
        FilterRules(train_share=0.6, validate_share=0.4)
