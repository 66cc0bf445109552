"""Plain measures of a set of ratings, for people and for data checks.

What belongs here: counting. What does not: thresholds and verdicts, which are the checks' own.
DuckDB counts over the Parquet file, so that memory is bounded by the engine's limit.
"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from recsys_assets.domain.ratings.embedded import connected
from recsys_assets.domain.ratings.transformation import percentiles

_NULLABLE = ("title", "reviewed_at", "review_id")


@dataclass(frozen=True)
class RatingsPerId:
    """How many ratings the customers, or the videos, have.

    Attributes
    ----------
    percentiles : dict of str to int
        See `transformation.percentiles`.
    largest_share : float
        Share of all ratings that belongs to the one with the most.
    """

    percentiles: dict[str, int]
    largest_share: float


@dataclass(frozen=True)
class RatingsProfile:
    """Measures of a set of ratings; shares lie between 0 and 1, and are 0 where there are no rows.

    Attributes
    ----------
    rows, customers, videos : int
        Ratings, distinct customers, distinct videos.
    mean : float
        Mean rating, NaN without rows.
    star_shares : dict of int to float
        Share of the ratings nearest to 1, 2, 3, 4 and 5 stars; halves count upwards.
    missing_shares : dict of str to float
        Share of nulls in each of title, reviewed_at and review_id that the file has.
    duplicate_share : float
        Share of the rows beyond the first of their (customer, video) pair.
    per_customer, per_video : RatingsPerId
        Ratings per customer and per video.
    """

    rows: int
    customers: int
    videos: int
    mean: float
    star_shares: dict[int, float]
    missing_shares: dict[str, float]
    duplicate_share: float
    per_customer: RatingsPerId
    per_video: RatingsPerId


def profile_ratings(path: Path, *, memory_limit: str = "1GB") -> RatingsProfile:
    """Measure one or more Parquet files of ratings.

    Parameters
    ----------
    path
        File, or pattern of files, with the columns customer_id, video_id and rating, and any of
        title, reviewed_at and review_id: ``ratings.parquet`` and filtered ratings both have them.
    memory_limit
        What the engine may hold before it spills to a temporary folder.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    if not any(path.parent.glob(path.name)):
        raise FileNotFoundError(f"no ratings at {path}")
    with tempfile.TemporaryDirectory() as spill, connected(memory_limit, Path(spill)) as db:
        ratings = db.read_parquet(str(path))
        ratings.create_view("ratings")
        nullable = [column for column in _NULLABLE if column in ratings.columns]
        # A sum of decimals, unlike one of floats, is the same in any order of rows.
        (total, rows, *present) = _one_row(
            db,
            "SELECT coalesce(sum(CAST(rating AS DECIMAL(9, 6))), 0), count(*)"
            + "".join(f", count({column})" for column in nullable)
            + " FROM ratings",
        )
        stars = dict(
            db.execute(
                """
                SELECT greatest(1, least(5, CAST(floor(rating + 0.5) AS INTEGER))) AS star,
                    count(*)
                FROM ratings GROUP BY star
                """
            ).fetchall()
        )
        (pairs,) = _one_row(
            db, "SELECT count(*) FROM (SELECT DISTINCT customer_id, video_id FROM ratings)"
        )
        customers, per_customer = _ratings_per_id(db, "customer_id", rows)
        videos, per_video = _ratings_per_id(db, "video_id", rows)
    return RatingsProfile(
        rows=rows,
        customers=customers,
        videos=videos,
        mean=float(total) / rows if rows else math.nan,
        star_shares={star: _share(stars.get(star, 0), rows) for star in range(1, 6)},
        missing_shares={
            column: _share(rows - count, rows)
            for column, count in zip(nullable, present, strict=True)
        },
        duplicate_share=_share(rows - pairs, rows),
        per_customer=per_customer,
        per_video=per_video,
    )


def _ratings_per_id(
    db: duckdb.DuckDBPyConnection, column: str, rows: int
) -> tuple[int, RatingsPerId]:
    """Count the ids of a column, and how many of them have how many ratings."""
    histogram = db.execute(
        f"""
        SELECT ratings_of_id, count(*)
        FROM (SELECT count(*) AS ratings_of_id FROM ratings GROUP BY {column})
        GROUP BY ratings_of_id ORDER BY ratings_of_id
        """
    ).fetchall()
    largest = histogram[-1][0] if histogram else 0
    return sum(count for _, count in histogram), RatingsPerId(
        percentiles(histogram), _share(largest, rows)
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _one_row(db: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    return tuple(db.execute(sql).fetchall()[0])
