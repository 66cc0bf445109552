"""The script that is submitted to Spark: makes filtered ratings of checked ones.

What belongs here: the transformation's engine on Spark, reading the ratings and writing what is
left. What does not: the transformation, and how Dagster talks to the script (``pipes_session.py``).

Dagster passes as extras ``ratings`` (URIs of Parquet files), ``scratch`` (URI of a folder that is
the script's own) and ``rules`` (fields of FilterRules). The script leaves the filtered ratings in
the folder ``filtered`` below ``scratch``, Parquet files whose names sort in the order of the rows,
and reports either ``report``, the fields of a FilterReport, or ``nothing_left``, the message of a
NothingLeftError.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pyspark.sql import SparkSession

from recsys_assets.domain.ratings.transformation import (
    ORDERED_SQL,
    FilterReport,
    FilterRules,
    NothingLeftError,
    transform,
)
from recsys_assets.spark.pipes_session import PipesSession

if TYPE_CHECKING:
    from collections.abc import Sequence

FILTERED = "filtered"
"""Name of the folder of what is left."""

_COLUMNS = {
    "customer_id": "STRING",
    "video_id": "STRING",
    "title": "STRING",
    "rating": "FLOAT",
    "reviewed_at": "TIMESTAMP_NTZ",
    "review_id": "STRING",
}


class SparkEngine:
    """Runs the transformation on Spark.

    Tables are written as Parquet files and read back: unlike what is cached, they survive the loss
    of an executor, take no memory, and keep plans short however many follow from one another.

    Parameters
    ----------
    spark
        The session; views are made in it.
    folder
        URI of the folder of the tables.
    """

    def __init__(self, spark: SparkSession, folder: str) -> None:
        self._spark = spark
        self._folder = folder

    def create(self, table: str, sql: str) -> None:
        """Run a query now and keep its result as a new table."""
        path = f"{self._folder}/{table}"
        self._spark.sql(sql).write.parquet(path)
        self._spark.read.parquet(path).createOrReplaceTempView(table)

    def drop(self, table: str) -> None:
        """Let go of a table; its files go with the folder."""
        self._spark.catalog.dropTempView(table)

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query and return its rows, which are few."""
        return [tuple(row) for row in self._spark.sql(sql).collect()]


def filter_ratings(
    spark: SparkSession, ratings: Sequence[str], scratch: str, rules: FilterRules
) -> FilterReport:
    """Write the ratings that remain after the long-tail filter.

    Parameters
    ----------
    spark
        The session.
    ratings
        URIs of Parquet files of checked ratings.
    scratch
        URI of a folder to write to, which has neither ``tables`` nor ``filtered`` in it yet.
    rules
        What is kept, and how it is split.

    Raises
    ------
    NothingLeftError
        If no rating remains.
    """
    if ratings:
        schema = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
        read = spark.read.schema(schema).parquet(*ratings)
    else:
        nulls = [f"CAST(NULL AS {kind}) AS {name}" for name, kind in _COLUMNS.items()]
        read = spark.range(0).selectExpr(*nulls)
    read.createOrReplaceTempView("ratings")
    report = transform(SparkEngine(spark, f"{scratch}/tables"), rules)
    spark.sql(ORDERED_SQL).write.parquet(f"{scratch}/{FILTERED}")
    return report


def main() -> None:
    """Do what Dagster asks for."""
    spark = SparkSession.builder.getOrCreate()
    with PipesSession(spark) as dagster:
        rules = FilterRules(**dagster.extras["rules"])
        ratings, scratch = dagster.extras["ratings"], dagster.extras["scratch"]
        try:
            report = filter_ratings(spark, ratings, scratch, rules)
        except NothingLeftError as error:
            dagster.report({"nothing_left": str(error)})
        else:
            dagster.report({"report": asdict(report)})


if __name__ == "__main__":
    main()
