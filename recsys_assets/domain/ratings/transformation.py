"""The transformation from checked to filtered ratings, written once for every engine.

What belongs here: the rules, the SQL, and the loop that gives it to an engine statement by
statement. What does not: any one engine, and where ratings come from and go to (``filtering.py``
does both for DuckDB). The file is also shipped to Spark clusters, so that it imports the standard
library alone and runs on Python 3.9.

The SQL is what DuckDB and Spark 3.5 both take and mean the same by: types are cast, the place of
nulls is said, and no backslash stands in a literal, as Spark takes it for an escape. Ids sort by
their UTF-8 bytes in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

SPLITS = ("train", "validate", "test")
PERCENTILES = (5, 25, 50, 75, 90, 95, 99)
Histogram = list[tuple[int, int]]
"""Numbers of ratings, ascending, each with the number of ids that have so many."""

_KINDS = ("customer", "video")
_HASH_DIGITS = 15  # hexadecimal digits of the md5 that place a pair; 60 bits


class NothingLeftError(ValueError):
    """The filter would leave no rating."""


@dataclass(frozen=True)
class FilterRules:
    """What is kept, and how it is split.

    Attributes
    ----------
    min_ratings_per_customer, min_ratings_per_video : int
        Thresholds, both applied at once to counts taken on valid rows before pairs rated twice
        are reduced to one rating.
    k_core : bool
        Go on until every customer and every video that is left has its threshold of pairs: the
        largest set of which that is true (a bipartite k-core, whose two k are the thresholds).
    train_share, validate_share : float
        Shares of the pairs in those splits; the rest is the test split.
    seed : int
        Names the split and the row order; another seed gives another of both.
    """

    min_ratings_per_customer: int = 5
    min_ratings_per_video: int = 10
    k_core: bool = False
    train_share: float = 0.6
    validate_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.train_share, self.validate_share) <= 0 or (
            self.train_share + self.validate_share >= 1
        ):
            raise ValueError(
                "expected train_share and validate_share above 0 and below 1 together, got "
                f"{self.train_share} and {self.validate_share}"
            )


@dataclass(frozen=True)
class FilterReport:
    """What the filter met and left; all figures are counts of rows, customers or videos.

    Attributes
    ----------
    rows_read : int
        Valid ratings before the filter.
    rows_kept, customers, videos : int
        What is left.
    duplicates : int
        Ratings dropped for a later one of their pair, of those that met the thresholds.
    outside_core : int
        Pairs that met the thresholds, but are not in the k-core; 0 unless it was asked for.
    split_rows : dict of str to int
        Rows in each of `SPLITS`.
    ratings_per_customer, ratings_per_video : dict of str to dict of str to int
        Percentiles (see `percentiles`) ``before`` and ``after`` the filter.
    """

    rows_read: int
    rows_kept: int
    duplicates: int
    outside_core: int
    customers: int
    videos: int
    split_rows: dict[str, int]
    ratings_per_customer: dict[str, dict[str, int]]
    ratings_per_video: dict[str, dict[str, int]]


class Engine(Protocol):
    """What runs the SQL: it has a table ``ratings`` and makes others from it."""

    def create(self, table: str, sql: str) -> None:
        """Run a query now and keep its rows, not its plan, as a new table.

        Turns of the k-core read each other's tables: plans would grow with their number.
        """

    def drop(self, table: str) -> None:
        """Let go of a table that is not read again."""

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query and return its rows, which are few."""


def transform(engine: Engine, rules: FilterRules) -> FilterReport:
    """Make the filtered ratings; `ORDERED_SQL` then selects them.

    Parameters
    ----------
    engine
        Its table ``ratings`` has the columns customer_id, video_id, title, review_id (strings),
        rating (a 32-bit float) and reviewed_at (a timestamp), of which the ids and the rating are
        never null.
    rules
        What is kept, and how it is split.

    Raises
    ------
    NothingLeftError
        If no rating remains; the message says what came and what the thresholds were.
    """
    before = {}
    for kind in _KINDS:
        engine.create(f"{kind}_counts", _counts_sql(kind))
        before[kind] = _histogram(engine, f"{kind}_counts")
        engine.create(f"{kind}s", _frequent_sql(kind, _threshold(kind, rules)))
        engine.drop(f"{kind}_counts")
    engine.create("rated", _RATED_SQL)
    engine.create("titles", _TITLES_SQL)
    engine.create("pairs", _PAIRS_SQL)
    rows_rated, rows_paired = _rows(engine, "rated"), _rows(engine, "pairs")
    engine.drop("rated")
    kept = _make_core(engine, rules, rows_paired) if rules.k_core else "pairs"
    for kind in _KINDS:
        engine.create(f"kept_{kind}s", _numbered_sql(kind, kept))
    engine.create("filtered", _filtered_sql(kept, rules))
    engine.drop(kept)
    rows_read = sum(ratings * ids for ratings, ids in before["video"])
    splits = dict(engine.fetch("SELECT split, count(*) FROM filtered GROUP BY split"))
    rows_kept = sum(splits.values())
    if not rows_kept:
        raise NothingLeftError(
            f"none of {rows_read} ratings is from a customer with at least "
            f"{rules.min_ratings_per_customer} and of a video with at least "
            f"{rules.min_ratings_per_video} ratings"
            + (" once those with fewer are left out again and again" if rules.k_core else "")
        )
    after = {
        kind: _histogram(
            engine, f"(SELECT count(*) AS ratings FROM filtered GROUP BY {kind}_index)"
        )
        for kind in _KINDS
    }
    return FilterReport(
        rows_read=rows_read,
        rows_kept=rows_kept,
        duplicates=rows_rated - rows_paired,
        outside_core=rows_paired - rows_kept,
        customers=sum(ids for _, ids in after["customer"]),
        videos=sum(ids for _, ids in after["video"]),
        split_rows={split: splits.get(split, 0) for split in SPLITS},
        ratings_per_customer=_before_and_after(before["customer"], after["customer"]),
        ratings_per_video=_before_and_after(before["video"], after["video"]),
    )


def percentiles(histogram: Histogram) -> dict[str, int]:
    """Return how many ratings the customers, or the videos, have.

    Parameters
    ----------
    histogram
        Of the customers, or of the videos.

    Returns
    -------
    dict of str to int
        By ``min``, ``p5``, ... (see `PERCENTILES`) and ``max``: the smallest number of ratings
        that at least so many per cent of the ids do not exceed; 0 if there are none.
    """
    ids = sum(count for _, count in histogram)
    return {
        "min": _percentile(histogram, 0),
        **{f"p{share}": _percentile(histogram, share * ids) for share in PERCENTILES},
        "max": _percentile(histogram, 100 * ids),
    }


def _percentile(histogram: Histogram, ids_times_100: int) -> int:
    """Return the smallest value of an ascending histogram that reaches a hundredth of the count."""
    below = 0
    for value, count in histogram:
        below += count
        if 100 * below >= ids_times_100:
            return value
    return 0


def _before_and_after(before: Histogram, after: Histogram) -> dict[str, dict[str, int]]:
    return {"before": percentiles(before), "after": percentiles(after)}


def _histogram(engine: Engine, counts: str) -> Histogram:
    """Count the ids that have so many ratings; `counts` is a table or a query in brackets."""
    return sorted(
        engine.fetch(f"SELECT ratings, count(*) FROM {counts} AS counts GROUP BY ratings")
    )


def _rows(engine: Engine, table: str) -> int:
    return int(engine.fetch(f"SELECT count(*) FROM {table}")[0][0])


def _counts_sql(kind: str) -> str:
    return f"SELECT {kind}_id, count(*) AS ratings FROM ratings GROUP BY {kind}_id"


def _threshold(kind: str, rules: FilterRules) -> int:
    if kind == "customer":
        return rules.min_ratings_per_customer
    return rules.min_ratings_per_video


def _frequent_sql(kind: str, threshold: int) -> str:
    """Give a small number to each id that meets its threshold.

    What follows carries numbers, not strings; they sort as the ids do. A window without partitions
    is one task in Spark, which is bearable over distinct ids.
    """
    return f"""
        SELECT {kind}_id, CAST(row_number() OVER (ORDER BY {kind}_id) AS INTEGER) AS {kind}
        FROM {kind}_counts WHERE ratings >= {threshold:d}
    """


_RATED_SQL = """
    SELECT customer, video, rating, reviewed_at, review_id, title
    FROM ratings
    JOIN customers ON customers.customer_id = ratings.customer_id
    JOIN videos ON videos.video_id = ratings.video_id
"""

_TITLES_SQL = """
    SELECT video, title
    FROM (
        SELECT video, title, row_number() OVER (
            PARTITION BY video ORDER BY ratings DESC, title
        ) AS place
        FROM (
            SELECT video, title, count(*) AS ratings
            FROM rated WHERE title IS NOT NULL GROUP BY video, title
        ) AS counted
    ) AS ranked
    WHERE place = 1
"""

_PAIRS_SQL = """
    SELECT customer, video, rating, reviewed_at
    FROM (
        SELECT customer, video, rating, reviewed_at, row_number() OVER (
            PARTITION BY customer, video
            ORDER BY reviewed_at DESC NULLS LAST, review_id DESC NULLS LAST, rating DESC
        ) AS place
        FROM rated
    ) AS ranked
    WHERE place = 1
"""


def _make_core(engine: Engine, rules: FilterRules, pairs: int) -> str:
    """Leave out who is below a threshold until nobody is, and return the table that remains.

    A turn leaves out customers and videos at once. Who goes first makes no difference to the core.
    """
    core, turn, before, left = "pairs", 0, 0, pairs
    while left != before:
        turn += 1
        engine.create(f"core_{turn}", _smaller_core_sql(core, rules))
        engine.drop(core)
        core = f"core_{turn}"
        before, left = left, _rows(engine, core)
    return core


def _smaller_core_sql(core: str, rules: FilterRules) -> str:
    frequent = (
        f"{kind} IN (SELECT {kind} FROM {core} GROUP BY {kind} "
        f"HAVING count(*) >= {_threshold(kind, rules):d})"
        for kind in _KINDS
    )
    return f"SELECT * FROM {core} WHERE {' AND '.join(frequent)}"


def _numbered_sql(kind: str, kept: str) -> str:
    """Give each id that is left its index: from 0, without gaps, in the order of the ids."""
    return f"""
        SELECT {kind}, {kind}_id,
            CAST(row_number() OVER (ORDER BY {kind}) - 1 AS INTEGER) AS {kind}_index
        FROM {kind}s WHERE {kind} IN (SELECT {kind} FROM {kept})
    """


def _filtered_sql(kept: str, rules: FilterRules) -> str:
    """Hash each pair, and let the hash split.

    Hashes are compared as text: hexadecimal digits of one length sort as their numbers do.
    """
    train, validate = Fraction(str(rules.train_share)), Fraction(str(rules.validate_share))
    return f"""
        SELECT customer_index, video_index, rating, reviewed_at, pair_hash,
            CASE
                WHEN pair_hash < '{_hash_bound(train)}' THEN 'train'
                WHEN pair_hash < '{_hash_bound(train + validate)}' THEN 'validate'
                ELSE 'test'
            END AS split
        FROM (
            SELECT customer_index, video_index, rating, reviewed_at, substr(
                md5(concat('{rules.seed:d}|', {_escaped("customer_id")},
                    '|', {_escaped("video_id")})), 1, {_HASH_DIGITS}
            ) AS pair_hash
            FROM {kept}
            JOIN kept_customers ON kept_customers.customer = {kept}.customer
            JOIN kept_videos ON kept_videos.video = {kept}.video
        ) AS hashed
    """


def _escaped(column: str) -> str:
    """Write a ``|`` within an id with a backslash, which is character 92."""
    return f"replace({column}, '|', concat(chr(92), '|'))"


def _hash_bound(share: Fraction) -> str:
    """Return the smallest hash that is not below `share` of the range, as hexadecimal digits."""
    scaled = share * 16**_HASH_DIGITS
    return f"{-(-scaled.numerator // scaled.denominator):0{_HASH_DIGITS}x}"


ORDERED_SQL = """
    SELECT
        kept_customers.customer_id,
        kept_videos.video_id,
        titles.title,
        CAST(filtered.rating AS REAL) AS rating,
        filtered.reviewed_at,
        filtered.customer_index,
        filtered.video_index,
        filtered.split
    FROM filtered
    JOIN kept_customers ON kept_customers.customer_index = filtered.customer_index
    JOIN kept_videos ON kept_videos.video_index = filtered.video_index
    LEFT JOIN titles ON titles.video = kept_videos.video
    ORDER BY filtered.pair_hash, filtered.customer_index, filtered.video_index
"""
"""The filtered ratings in their order, to be run after `transform`.

Rows are in the order of the pair's hash, then of customer and video; as the same hash decides the
split, each split is one run of rows: train, validate, test.
"""
