"""Side features: what they say of each rating, and that they help."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, hstack

from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.solvers.bayesian import train
from recsys_assets.domain.side_features import (
    customer_time_bins,
    genre_shares,
    rated_videos,
    time_bins,
)


def integers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def times(*values: str) -> np.ndarray:
    return np.array(values, dtype="datetime64[us]")


def test_a_rating_is_in_the_bin_of_its_day() -> None:
    edges = np.arange("2013-03-02", "2013-03-04", dtype="datetime64[D]")
    given_at = times(
        "2012-01-01", "2013-03-01T23:59:59", "2013-03-02", "2013-03-03T12:00", "2020-01-01", "NaT"
    )
    np.testing.assert_array_equal(
        time_bins(given_at, edges).toarray(),
        [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]],
    )


@given(
    st.lists(st.datetimes(datetime(2000, 1, 1), datetime(2001, 1, 1)), min_size=1),
    st.lists(st.datetimes(datetime(2000, 1, 1), datetime(2001, 1, 1)), unique=True),
)
def test_each_time_is_between_the_edges_of_its_bin(
    given_at: list[datetime], edges: list[datetime]
) -> None:
    edges = sorted(edges)
    block = time_bins(np.array(given_at, "datetime64[us]"), np.array(edges, "datetime64[us]"))
    assert block.shape == (len(given_at), len(edges) + 1)
    assert (block.sum(axis=1) == 1).all()
    bounds = [datetime.min, *edges, datetime.max]
    for moment, column in zip(given_at, block.indices, strict=True):
        assert bounds[column] <= moment < bounds[column + 1]


def test_a_customers_time_counts_from_the_earliest_rating_that_is_known() -> None:
    edges = np.array([1, 24], dtype="timedelta64[h]")
    block = customer_time_bins(
        integers(0, 0, 0, 2, 2, 1, 0),
        times(
            "2013-01-01T00:59", "2013-01-01T01:00", "2013-01-02",
            "2012-01-01", "2013-06-03T23:59",
            "2013-01-01", "NaT",
        ),
        integers(0, 2, 0, 1, 2),
        times("2013-01-05", "2013-06-03", "2013-01-01", "NaT", "2014-01-01"),
        customers=3,
        edges=edges,
    ).toarray()  # fmt: skip
    assert block.shape == (7, 9)
    expected = np.zeros((7, 9))
    # customer 1 has no known time, the last rating none of its own
    for row, column in enumerate((0, 1, 2, 6, 7)):
        expected[row, column] = 1
    np.testing.assert_array_equal(block, expected)


def test_genres_are_shared_by_those_of_a_video() -> None:
    block = genre_shares(integers(2, 0, 1, 0), [("Drama", "Action"), (), ("Short",)])
    half = 0.5**0.5
    np.testing.assert_allclose(
        block.toarray(), [[0, 0, 1], [half, half, 0], [0, 0, 0], [half, half, 0]]
    )
    assert genre_shares(integers(0), [()]).shape == (1, 0)


def test_a_customers_ratings_all_have_the_videos_that_are_known_of_it_and_no_others() -> None:
    block = rated_videos(
        integers(1, 0, 1, 2), integers(1, 0, 1, 1, 1), integers(3, 2, 0, 1, 3), 3, 4
    )
    third = (1 / 3) ** 0.5
    np.testing.assert_allclose(
        block.toarray(), [[third, third, 0, third], [0, 0, 1, 0], [third, third, 0, third], [0] * 4]
    )


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=40))
def test_each_row_of_shares_has_length_one_or_nothing(pairs: list[tuple[int, int]]) -> None:
    known = np.array(pairs, dtype=np.int32).reshape(-1, 2)
    block = rated_videos(integers(*range(5)), known[:, 0], known[:, 1], 5, 7)
    lengths = np.linalg.norm(block.toarray(), axis=1)
    np.testing.assert_allclose(lengths, [c in known[:, 0] for c in range(5)], atol=1e-6)
    assert {(r, c) for r, c in zip(*block.nonzero(), strict=True)} == set(pairs)


@pytest.mark.slow
def test_on_real_ratings_time_and_genres_help(real_data: Callable[[str], Path]) -> None:
    folder = real_data("ml-100k")
    ratings = np.loadtxt(folder / "u.data", dtype=np.int64)
    np.random.default_rng(0).shuffle(ratings)
    customer, video, stars, seconds = ratings.T
    lines = (folder / "u.item").read_text("latin-1").splitlines()
    flags = [line.split("|")[5:] for line in lines]
    genres = [[str(g) for g, flag in enumerate(row) if flag == "1"] for row in flags]
    test, known = slice(0, 10_000), slice(10_000, None)
    given_at = seconds.astype("datetime64[s]")
    plain = [one_hot(customer - 1, 943), one_hot(video - 1, 1682)]
    side = [
        genre_shares(video - 1, genres),
        customer_time_bins(customer - 1, given_at, customer[known] - 1, given_at[known], 943),
    ]
    y, squared_errors = stars.astype(np.float32), []
    for blocks in (plain, plain + side):
        X = hstack(blocks, format="csr", dtype=np.float32)
        hyperparameters = ExtendedHyperparameters(
            feature_dim=X.shape[1], num_factors=8, predictor_type="regressor", solver="mcmc",
            epochs=60, feature_blocks=tuple(block.shape[1] for block in blocks),
        )  # fmt: skip
        model = train(X[known], y[known], hyperparameters)
        squared_errors.append((model.predict(X[test]) - y[test]) ** 2)
    gain = squared_errors[0] - squared_errors[1]
    assert gain.mean() > 2 * gain.std() / len(gain) ** 0.5


def one_hot(columns: np.ndarray, size: int) -> csr_matrix:
    rows = len(columns)
    return csr_matrix((np.ones(rows, np.float32), (np.arange(rows), columns)), shape=(rows, size))
