"""Ratings: everything that has landed, and what of it a model is made from.

What belongs here: raw_ratings and filtered_ratings. What does not: checks on them (``checks.py``).
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from dagster import AssetExecutionContext, Config, Failure, MetadataValue, Output, asset
from pydantic import Field

from recsys_assets.assets.shown import as_markdown
from recsys_assets.domain.ratings.filtering import FilterRules, NothingLeftError, filter_ratings
from recsys_assets.domain.ratings.generating import generate_amazon_reviews
from recsys_assets.domain.ratings.reading import RatingsError, TableColumns, read_ratings
from recsys_assets.io_managers import ParquetFolder
from recsys_assets.resources.object_store import ObjectStore

_REJECTS_SHOWN = 10


class ColumnsConfig(Config):
    """Names of the columns of a generic CSV or Parquet table."""

    customer_id: str = Field(default="customer_id", description="Who rated.")
    video_id: str = Field(default="video_id", description="What was rated.")
    rating: str = Field(default="rating", description="The rating itself.")
    title: str | None = Field(default="title", description="The video's title.")
    reviewed_at: str | None = Field(default="reviewed_at", description="When it was rated.")
    review_id: str | None = Field(default="review_id", description="The rating's id.")


class RawRatingsConfig(Config):
    """Where ratings come from."""

    source: str | None = Field(
        default=None,
        description="A file or folder, by path or s3:// URL; it is the whole input of the run. "
        "Without it, ratings are generated.",
    )
    format: Literal["auto", "amazon", "movielens", "movietweetings", "table"] = Field(
        default="auto", description="How to read it; auto looks at names, header and content."
    )
    columns: ColumnsConfig = Field(
        default=ColumnsConfig(),
        description="Column names of a table; others have their own.",
    )
    generated_rows: int = Field(
        default=120_000, ge=1_000, description="How many ratings to generate without a source."
    )
    generated_seed: int = Field(default=7, description="Another seed generates other ratings.")


@asset(
    group_name="ratings",
    kinds={"s3", "parquet"},
    io_manager_key="parquet_io_manager",
)
def raw_ratings(
    context: AssetExecutionContext, config: RawRatingsConfig, store: ObjectStore
) -> Output[ParquetFolder]:
    """Every landed rating, typed and checked; malformed lines are kept aside with the reason."""
    ratings = ParquetFolder()
    with TemporaryDirectory(prefix="recsys-") as scratch:
        source = _fetched_source(context, config, store, Path(scratch))
        try:
            report = read_ratings(
                source,
                ratings.path,
                format=config.format,
                columns=TableColumns(**config.columns.model_dump()),
            )
        except RatingsError as error:
            raise Failure(str(error), allow_retries=False) from error
    (ratings.path / "ratings.parquet").rename(ratings.main)
    context.log.info(
        f"{report.rows_read:,} rows read, {report.rows_kept:,} kept, "
        f"{report.rows_rejected:,} put aside"
    )
    return Output(
        ratings,
        metadata={
            "source": config.source or "generated",
            "format": report.format,
            "rows_read": report.rows_read,
            "rows_rejected": report.rows_rejected,
            "rejects_by_reason": MetadataValue.json(dict(report.rejects_by_reason)),
            "first_rejects": MetadataValue.md(
                as_markdown(ratings.path / "rejects.parquet", _REJECTS_SHOWN)
            ),
        },
    )


def _fetched_source(
    context: AssetExecutionContext, config: RawRatingsConfig, store: ObjectStore, scratch: Path
) -> Path:
    """Return a local path of the source, fetching or generating it where there is none."""
    if config.source is None:
        path = scratch / "generated_reviews.tsv.gz"
        context.log.info(f"generating {config.generated_rows:,} ratings")
        generate_amazon_reviews(path, rows=config.generated_rows, seed=config.generated_seed)
        return path
    if not config.source.startswith("s3://"):
        return Path(config.source)
    context.log.info(f"fetching {config.source}")
    return store.download_tree(config.source, scratch)


class FilteredRatingsConfig(Config):
    """What is kept of the ratings, and how it is split."""

    min_ratings_per_customer: int = Field(
        default=5, ge=1, description="Customers with fewer are left out."
    )
    min_ratings_per_video: int = Field(
        default=10, ge=1, description="Videos with fewer are left out."
    )
    train_share: float = Field(default=0.6, gt=0, lt=1, description="Of the ratings, to train on.")
    validate_share: float = Field(
        default=0.2, gt=0, lt=1, description="Of the ratings, to choose by; the rest is the test."
    )
    seed: int = Field(default=0, description="Another seed gives another split and row order.")


@asset(
    group_name="ratings",
    kinds={"duckdb", "parquet"},
    io_manager_key="parquet_io_manager",
)
def filtered_ratings(
    context: AssetExecutionContext, config: FilteredRatingsConfig, raw_ratings: ParquetFolder
) -> Output[ParquetFolder]:
    """Ratings without the long tail, one a pair, with stable indices and the split."""
    filtered = ParquetFolder()
    try:
        rules = FilterRules(**config.model_dump())
        report = filter_ratings(raw_ratings.main, filtered.main, rules)
    except (NothingLeftError, ValueError) as error:
        raise Failure(str(error), allow_retries=False) from error
    context.log.info(
        f"{report.rows_kept:,} ratings of {report.customers:,} customers "
        f"and {report.videos:,} videos kept"
    )
    return Output(
        filtered,
        metadata={
            "rows_read": report.rows_read,
            "rows_kept": report.rows_kept,
            "duplicates": report.duplicates,
            "customers": report.customers,
            "videos": report.videos,
            **{f"{split}_rows": rows for split, rows in report.split_rows.items()},
        },
    )
