"""From checked ratings to the ones that a model is made from, in one process.

What belongs here: running the transformation (``transformation.py``) on DuckDB over Parquet files.
What does not: the transformation itself, reading files of other people's formats (``reading.py``)
and turning rows into features (``recsys_assets.domain.features``).

Memory is bounded by the engine's limit and not by the input.
"""

from pathlib import Path
from typing import Any

import duckdb

from recsys_assets.domain.ratings.embedded import connected
from recsys_assets.domain.ratings.transformation import (
    ORDERED_SQL,
    SPLITS,
    FilterReport,
    FilterRules,
    NothingLeftError,
    transform,
)

__all__ = ["SPLITS", "FilterReport", "FilterRules", "NothingLeftError", "filter_ratings"]


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
    with connected(memory_limit, filtered.parent / "spill") as db:
        db.execute(f"CREATE TEMP VIEW ratings AS SELECT * FROM read_parquet('{_quoted(ratings)}')")
        report = transform(_DuckDB(db), rules)
        db.execute(
            f"COPY ({ORDERED_SQL}) TO '{_quoted(filtered)}' (FORMAT parquet, COMPRESSION zstd)"
        )
    return report


class _DuckDB:
    """The engine of the transformation in this process."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self._db = db

    def create(self, table: str, sql: str) -> None:
        self._db.execute(f"CREATE TEMP TABLE {table} AS {sql}")

    def drop(self, table: str) -> None:
        self._db.execute(f"DROP TABLE {table}")

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        return self._db.execute(sql).fetchall()


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
