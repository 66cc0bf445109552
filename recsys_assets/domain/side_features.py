"""What is known of a rating beside its customer and its video, as features.

What belongs here: builders of blocks of columns from arrays of ratings: when a rating was given,
what kind of video it is of, and what else its customer has rated. What does not: the indicators of
customers and videos themselves (``features``), and learning from any of it
(``factorization_machine``).

Each function returns CSR float32 with one row a rating, to stand beside other blocks::

    X = scipy.sparse.hstack([matrix.features, genre_shares(...), time_bins(...)], format="csr")

with the number of columns of each block as the hyperparameter `feature_blocks`. None of them sees a
label. Which pairs of customer and video may be known is the caller's to say: for an honest test
those of the train split, the same for the rows to train on and the rows to predict.

Source: Rendle, Zhang and Koren 2019, "On the difficulty of evaluating baselines"
(arXiv:1905.01395): with `rated_videos` a Bayesian factorization machine is Bayesian
SVD++, with time bins the time-aware one.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

Indices = npt.NDArray[np.int32]
Times = npt.NDArray[np.datetime64]
Durations = npt.NDArray[np.timedelta64]

SINCE_FIRST_RATING = np.array([15, 24 * 60, 14 * 24 * 60], dtype="timedelta64[m]")


def time_bins(reviewed_at: Times, edges: Times) -> csr_matrix:
    """Mark the bin of time, such as the day, in which each rating was given.

    Parameters
    ----------
    reviewed_at
        datetime64 of shape ``(ratings,)``. A rating without a time (NaT) has no feature.
    edges
        Ascending datetime64 of shape ``(bins - 1,)``: bin 0 ends before ``edges[0]``, the last one
        does not end. ``numpy.arange(first_day + 1, last_day + 1)`` makes bins of a day.

    Returns
    -------
    scipy.sparse.csr_matrix
        Shape ``(ratings, bins)``, a single 1 a row.
    """
    return _one_hot(
        np.searchsorted(edges, reviewed_at, side="right"), len(edges) + 1, ~np.isnat(reviewed_at)
    )


def customer_time_bins(
    customer: Indices,
    reviewed_at: Times,
    known_customer: Indices,
    known_reviewed_at: Times,
    customers: int,
    edges: Durations = SINCE_FIRST_RATING,
) -> csr_matrix:
    """Mark how long each customer had been rating by then, for each customer apart.

    Parameters
    ----------
    customer, reviewed_at
        int and datetime64 of shape ``(ratings,)``. A rating without a time, or of a customer of
        whom no time is known, has no feature.
    known_customer, known_reviewed_at
        int and datetime64 of shape ``(known,)``: when ratings are known to have been given. The
        earliest of each customer counts; what is earlier still is in the first bin.
    customers
        How many there are.
    edges
        Ascending timedelta64 of shape ``(bins - 1,)`` since the earliest: 15 minutes, a day and
        two weeks by default, which part the first session from returns.

    Returns
    -------
    scipy.sparse.csr_matrix
        Shape ``(ratings, customers * bins)``, a customer's bins side by side, a single 1 a row.
    """
    has_time = ~np.isnat(known_reviewed_at)
    never = np.datetime64(np.iinfo(np.int64).max, "us")
    first = np.full(customers, never)
    np.minimum.at(first, known_customer[has_time], known_reviewed_at[has_time])
    since = reviewed_at.astype(first.dtype) - first[customer]
    bins = np.searchsorted(edges, since, side="right")
    return _one_hot(
        customer.astype(np.int64) * (len(edges) + 1) + bins,
        customers * (len(edges) + 1),
        ~np.isnat(reviewed_at) & (first[customer] != never),
    )


def genre_shares(video: Indices, genres: Sequence[Sequence[str]]) -> csr_matrix:
    """Give each rating the genres of its video.

    Parameters
    ----------
    video
        int of shape ``(ratings,)``: indices of videos.
    genres
        The names of each video's genres, by index; may be empty.

    Returns
    -------
    scipy.sparse.csr_matrix
        Shape ``(ratings, distinct genres)``, columns in the order of the sorted names. A video of n
        genres has 1/√n in each.
    """
    names = sorted({name for of_video in genres for name in of_video})
    column = {name: position for position, name in enumerate(names)}
    pairs = np.array(
        [(index, column[name]) for index, of_video in enumerate(genres) for name in of_video],
        dtype=np.int32,
    ).reshape(-1, 2)
    return _shared(video, pairs[:, 0], pairs[:, 1], (len(genres), len(names)))


def rated_videos(
    customer: Indices, known_customer: Indices, known_video: Indices, customers: int, videos: int
) -> csr_matrix:
    """Give each rating the videos that its customer is known to have rated, however well.

    Parameters
    ----------
    customer
        int of shape ``(ratings,)``: indices of customers.
    known_customer, known_video
        int of shape ``(pairs,)``: who is known to have rated what. A pair given twice counts once.
    customers, videos
        How many there are.

    Returns
    -------
    scipy.sparse.csr_matrix
        Shape ``(ratings, videos)``; n videos have 1/√n each.
    """
    return _shared(customer, known_customer, known_video, (customers, videos))


def _one_hot(
    column: npt.NDArray[np.integer], columns: int, has_one: npt.NDArray[np.bool_]
) -> csr_matrix:
    return csr_matrix(
        (
            np.ones(int(has_one.sum()), np.float32),
            column[has_one].astype(np.int32),
            np.concatenate([[0], np.cumsum(has_one)]),
        ),
        shape=(len(column), columns),
    )


def _shared(
    row: Indices, known_row: Indices, known_column: Indices, shape: tuple[int, int]
) -> csr_matrix:
    """Return row `row` of the matrix that has 1/√n in each of the n known columns of a row."""
    known = csr_matrix(
        (np.ones(len(known_row), np.float32), (known_row, known_column)), shape=shape
    )
    counts = np.diff(known.indptr)
    known.data = (1 / np.sqrt(np.repeat(counts, counts))).astype(np.float32)
    return known[row]
