"""From checked ratings to the ones that a model is made from.

What belongs here: the long-tail filter, one rating a pair, the stable indices of customers and
videos, and the split in train, validate and test. What does not: reading files of other people's
formats (``reading.py``) and turning rows into features (``recsys_assets.domain.features``).

The transformation is one SQL statement for DuckDB over Parquet files, so that memory is bounded by
the engine's limit and not by the input.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import duckdb

SPLITS = ("train", "validate", "test")
_HASH_DIGITS = 15  # hexadecimal digits of the md5 that place a pair; 60 bits


class NothingLeftError(ValueError):
    """The filter would leave no rating."""


@dataclass(frozen=True)
class FilterRules:
    """What is kept, and how it is split.

    Attributes
    ----------
    min_ratings_per_customer, min_ratings_per_video
        Thresholds, both applied at once to counts taken on valid rows before pairs rated twice
        are reduced to one rating.
    train_share, validate_share
        Shares of the pairs in those splits; the rest is the test split.
    seed
        Names the split and the row order; another seed gives another of both.
    """

    min_ratings_per_customer: int = 5
    min_ratings_per_video: int = 10
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
    """What the filter met and left; all figures are counts of rows, customers or videos."""

    rows_read: int
    rows_kept: int
    duplicates: int
    customers: int
    videos: int
    split_rows: dict[str, int]


def filter_ratings(
    ratings: Path, filtered: Path, rules: FilterRules, *, memory_limit: str = "1GB"
) -> FilterReport:
    r"""Write the ratings that remain after the long-tail filter.

    A pair rated twice keeps the latest review date, then the highest review id, then the highest
    rating. A video with several titles has the most frequent one, then the smallest.

    Parameters
    ----------
    ratings
        Parquet file, or pattern of files, with the columns customer_id, video_id, title, rating,
        reviewed_at, review_id.
    filtered
        Parquet file to write: customer_id, video_id, title, rating (float32), reviewed_at,
        customer_index and video_index (int32, positions in the sorted ids), split. Rows are in the
        order of a seeded hash of the pair, then customer, then video; as the same hash decides the
        split, each split is one run of rows: train, validate, test. The hash is the first 15
        hexadecimal digits of the md5 of ``seed|customer|video``, a ``|`` within an id written
        ``\|``.
    memory_limit
        What the engine may hold in memory before it spills to disk beside `filtered`.

    Raises
    ------
    NothingLeftError
        If no rating remains; the message says what came and what the thresholds were.
    """
    with duckdb.connect() as db:
        db.execute(f"SET memory_limit = '{memory_limit}'")
        db.execute("SET preserve_insertion_order = true")
        db.execute("SET temp_directory = ?", [str(filtered.parent / "spill")])
        db.execute("CREATE TEMP VIEW ratings AS " + _scan(ratings))
        db.execute("CREATE TEMP TABLE kept AS " + _long_tail_sql(rules))
        rows_before = _scalar(db, "SELECT count(*) FROM ratings")
        kept_rows = _scalar(db, "SELECT count(*) FROM kept")
        if not kept_rows:
            raise NothingLeftError(
                f"none of {rows_before} ratings is from a customer with at least "
                f"{rules.min_ratings_per_customer} and of a video with at least "
                f"{rules.min_ratings_per_video} ratings"
            )
        db.execute("CREATE TEMP TABLE filtered AS " + _one_rating_a_pair_sql(rules))
        db.execute(
            f"COPY ({_ORDERED_SQL}) TO '{_quoted(filtered)}' (FORMAT parquet, COMPRESSION zstd)"
        )
        splits = dict(db.execute("SELECT split, count(*) FROM filtered GROUP BY split").fetchall())
        rows, customers, videos = db.execute(
            "SELECT count(*), max(customer_index) + 1, max(video_index) + 1 FROM filtered"
        ).fetchall()[0]
    return FilterReport(
        rows_read=rows_before,
        rows_kept=rows,
        duplicates=kept_rows - rows,
        customers=customers,
        videos=videos,
        split_rows={split: splits.get(split, 0) for split in SPLITS},
    )


def _long_tail_sql(rules: FilterRules) -> str:
    return f"""
        WITH customers AS (
            SELECT customer_id FROM ratings GROUP BY customer_id
            HAVING count(*) >= {rules.min_ratings_per_customer:d}
        ), videos AS (
            SELECT video_id FROM ratings GROUP BY video_id
            HAVING count(*) >= {rules.min_ratings_per_video:d}
        )
        SELECT ratings.* FROM ratings
        SEMI JOIN customers USING (customer_id)
        SEMI JOIN videos USING (video_id)
    """


def _one_rating_a_pair_sql(rules: FilterRules) -> str:
    """Rank the ratings of a pair, number the ids, hash the pair and let the hash split.

    Hashes are compared as text: hexadecimal digits of one length sort as their numbers do.
    """
    train, validate = Fraction(str(rules.train_share)), Fraction(str(rules.validate_share))
    return f"""
        WITH ranked AS (
            SELECT *, row_number() OVER (
                PARTITION BY customer_id, video_id
                ORDER BY reviewed_at DESC NULLS LAST, review_id DESC NULLS LAST, rating DESC
            ) AS place
            FROM kept
        ), pairs AS (
            SELECT *, substr(md5(concat('{rules.seed:d}', '|', replace(customer_id, '|', '\\|'),
                '|', replace(video_id, '|', '\\|'))), 1, {_HASH_DIGITS}) AS pair_hash
            FROM ranked WHERE place = 1
        ), customers AS (
            SELECT customer_id, row_number() OVER (ORDER BY customer_id) - 1 AS customer_index
            FROM (SELECT DISTINCT customer_id FROM pairs)
        ), videos AS (
            SELECT video_id, row_number() OVER (ORDER BY video_id) - 1 AS video_index
            FROM (SELECT DISTINCT video_id FROM pairs)
        ), titles AS (
            SELECT video_id, title, row_number() OVER (
                PARTITION BY video_id ORDER BY count(*) DESC, title
            ) AS place
            FROM kept WHERE title IS NOT NULL GROUP BY video_id, title
        )
        SELECT
            pairs.customer_id,
            pairs.video_id,
            titles.title,
            CAST(pairs.rating AS REAL) AS rating,
            pairs.reviewed_at,
            CAST(customers.customer_index AS INTEGER) AS customer_index,
            CAST(videos.video_index AS INTEGER) AS video_index,
            CASE
                WHEN pair_hash < '{_hash_bound(train)}' THEN 'train'
                WHEN pair_hash < '{_hash_bound(train + validate)}' THEN 'validate'
                ELSE 'test'
            END AS split,
            pair_hash
        FROM pairs
        JOIN customers USING (customer_id)
        JOIN videos USING (video_id)
        LEFT JOIN titles ON titles.video_id = pairs.video_id AND titles.place = 1
    """


_ORDERED_SQL = """
    SELECT * EXCLUDE (pair_hash) FROM filtered ORDER BY pair_hash, customer_id, video_id
"""


def _hash_bound(share: Fraction) -> str:
    """Return the smallest hash that is not below `share` of the range, as hexadecimal digits."""
    scaled = share * 16**_HASH_DIGITS
    return f"{-(-scaled.numerator // scaled.denominator):0{_HASH_DIGITS}x}"


def _scan(path: Path) -> str:
    return f"SELECT * FROM read_parquet('{_quoted(path)}')"


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _scalar(db: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(db.execute(sql).fetchall()[0][0])
