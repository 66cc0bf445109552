"""Deployments with ratings, whose Spark is on AWS."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys_assets.definitions import build_resources
from recsys_assets.io_managers.ratings import RATINGS
from recsys_assets.settings import Settings
from recsys_assets_tests.domain.literal_ratings import random_ratings, write_ratings
from recsys_assets_tests.spark.cloud import Deployment

_prefixes = (f"spark-{number}" for number in itertools.count())


@pytest.fixture
def deployment(settings: Settings, tmp_path: Path) -> Callable[[str], Deployment]:
    """Return a deployment with some ratings and the given settings of Spark."""

    def made(spark: str) -> Deployment:
        prefix = next(_prefixes)
        here = build_resources(Settings(**{**vars(settings), "prefix": prefix}))
        rows, folder = random_ratings(), tmp_path / prefix
        (folder / "raw" / RATINGS).mkdir(parents=True)
        write_ratings(folder / "raw" / RATINGS / "source.parquet", rows)
        here["store"].publish("raw_ratings", "r", folder / "raw", row_count=len(rows), facts={})
        path = folder / "spark.yaml"
        path.write_text(spark)
        variables = {
            "RECSYS_ENV": "aws",
            "RECSYS_BUCKET": settings.bucket,
            "RECSYS_PREFIX": prefix,
            "RECSYS_ROLE_ARN": settings.role_arn,
            "RECSYS_SPARK_CONFIG": str(path),
        }
        return Deployment(Settings.from_environment(variables), here)

    return made
