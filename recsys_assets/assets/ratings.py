"""Ratings: everything that has landed, and what of it a model is made from.

What belongs here: raw_ratings and filtered_ratings. What does not: checks on them (``checks.py``).
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import pandas as pd
from dagster import AssetExecutionContext, Config, Failure, MetadataValue, Output, asset
from pydantic import Field

from recsys_assets.assets.shown import as_image, as_markdown, as_png, frame_as_markdown
from recsys_assets.domain.plots import plot_long_tail
from recsys_assets.domain.ratings.filtering import filter_ratings
from recsys_assets.domain.ratings.generating import generate_amazon_reviews
from recsys_assets.domain.ratings.ledger import Entry, Ledger, State, part_name
from recsys_assets.domain.ratings.reading import (
    RatingsError,
    ReadReport,
    TableColumns,
    read_file,
    read_ratings,
)
from recsys_assets.domain.ratings.transformation import (
    FilterReport,
    FilterRules,
    NothingLeftError,
)
from recsys_assets.io_managers import ParquetFolder, RawRatings, StoredRatings
from recsys_assets.io_managers.ratings import RATINGS, REJECTS
from recsys_assets.resources.landing import LandedObject, Landing, read_ledger
from recsys_assets.resources.object_store import Head, ObjectStore
from recsys_assets.resources.retries import retried_asset
from recsys_assets.resources.spark import Spark

GENERATED, LANDING = "generated", "landing"
_REJECTS_SHOWN = 10
_LOOK_SECONDS = 60.0
_READ_AT_ONCE = 4  # landed objects: some are fetched while others are read


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
        "`landing` is the watched prefix, to which it adds what has arrived; `generated` makes "
        "ratings up. Without it: the landing, once anything has been ingested from it, else "
        "generated ratings.",
    )
    format: Literal["auto", "amazon", "movielens", "movietweetings", "table"] = Field(
        default="auto",
        description="How to read it; auto looks at names, header and content. For the landing, "
        "auto is what the platform's own configuration says.",
    )
    columns: ColumnsConfig = Field(
        default=ColumnsConfig(),
        description="Column names of a table; others have their own.",
    )
    arrivals: list[dict[str, Any]] | None = Field(
        default=None,
        description="Of the landing: the objects to ingest, as the sensor saw them. Without it: "
        "whatever has arrived.",
    )
    generated_rows: int = Field(
        default=120_000, ge=1_000, description="How many ratings to generate without a source."
    )
    generated_seed: int = Field(default=7, description="Another seed generates other ratings.")


@asset(
    group_name="ratings",
    kinds={"s3", "parquet"},
    io_manager_key="raw_ratings_io_manager",
)
@retried_asset
def raw_ratings(
    context: AssetExecutionContext,
    config: RawRatingsConfig,
    store: ObjectStore,
    landing: Landing,
) -> Output[RawRatings]:
    """Every landed rating, typed and checked; malformed lines are kept aside with the reason."""
    head, ledger = read_ledger(store, landing.id)
    if config.source == LANDING or (config.source is None and head.version is not None):
        ratings, metadata = _ingested(context, config, landing, head, ledger)
    else:
        ratings, metadata = _read(context, config, store)
    return Output(
        ratings,
        metadata={
            **metadata,
            "first_rejects": MetadataValue.md(as_markdown(ratings.rejects, _REJECTS_SHOWN)),
        },
    )


def _read(
    context: AssetExecutionContext, config: RawRatingsConfig, store: ObjectStore
) -> tuple[RawRatings, dict[str, Any]]:
    """Read one source as a whole."""
    ratings = RawRatings()
    with TemporaryDirectory(prefix="recsys-") as scratch:
        source = _fetched_source(context, config, store, Path(scratch))
        try:
            report = read_ratings(
                source,
                Path(scratch) / "read",
                format=config.format,
                columns=TableColumns(**config.columns.model_dump()),
            )
        except RatingsError as error:
            raise Failure(str(error), allow_retries=False) from error
        ratings.add(Path(scratch) / "read", "source")
    context.log.info(
        f"{report.rows_read:,} rows read, {report.rows_kept:,} kept, "
        f"{report.rows_rejected:,} put aside"
    )
    return ratings, {
        "source": config.source or GENERATED,
        "format": report.format,
        "rows_read": report.rows_read,
        "rows_rejected": report.rows_rejected,
        "rejects_by_reason": MetadataValue.json(dict(report.rejects_by_reason)),
    }


def _ingested(
    context: AssetExecutionContext,
    config: RawRatingsConfig,
    landing: Landing,
    head: Head,
    before: Ledger,
) -> tuple[RawRatings, dict[str, Any]]:
    """Add what has arrived in the landing to what has been ingested from it.

    What the ledger has already is passed over, so that a run may be made twice, and two runs may be
    told to ingest the same.
    """
    ledger = before.copy()
    ratings = RawRatings(ledger, head)
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    format = landing.format if config.format == "auto" else config.format
    columns = TableColumns(**config.columns.model_dump())
    started: deque[_Reading] = deque()

    def finish() -> None:
        """Enter into the ledger what came of the reading that was started first."""
        reading = started.popleft()
        arrival, (report, sha256) = reading.arrival, reading.result.result()
        if report is None:
            context.log.warning(f"{arrival.key} has been replaced or deleted before it was read")
            counts["gone"] += 1
        else:
            context.log.info(
                f"{arrival.key}: {report.rows_kept:,} ratings, {report.rows_rejected:,} put aside"
            )
            counts["read"] += 1
            reasons.update(report.rejects_by_reason)
        entry = Entry(
            key=arrival.key,
            version_id=arrival.version_id,
            sequencer=arrival.sequencer,
            etag=arrival.etag,
            last_modified=arrival.last_modified,
            size=arrival.size,
            generation=reading.generation,
            state=State.CURRENT,
            rows=report.rows_kept if report else None,
            rejects=report.rows_rejected if report else None,
            part=reading.part,
            run_id=context.run.run_id,
            ratings_sha256=sha256.get(RATINGS),
            rejects_sha256=sha256.get(REJECTS),
        )
        ledger.add(entry, latest=reading.comes_back)

    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        for arrival in _arrivals(config, landing, before):
            # What becomes of an arrival depends on those before it under the same key.
            while any(reading.arrival.key == arrival.key for reading in started):
                finish()
            if arrival.deleted:
                if landing.latest(arrival.key) is None:
                    ledger.delete(arrival.key, keep=landing.deleted == "keep")
                    counts["deleted"] += 1
                continue
            comes_back = _comes_back(ledger, arrival, landing)
            if not comes_back and _is_known(ledger, arrival):
                counts["known"] += 1
                continue
            if len(started) == _READ_AT_ONCE:
                finish()
            generation = len(ledger.entries(arrival.key)) + 1
            part = part_name(arrival.key, arrival.version_id or arrival.etag, generation)
            result = pool.submit(_read_landed, landing, arrival, ratings, part, format, columns)
            started.append(_Reading(arrival, generation, part, comes_back, result))
        while started:
            finish()
    if not len(ledger):
        raise Failure(f"Nothing has landed in {landing.uri} yet.", allow_retries=False)
    counting = ledger.counting()
    rejected = sum(entry.rejects or 0 for entry in counting)
    return ratings, {
        "source": landing.uri,
        "objects": len(counting),
        "objects_read": counts["read"],
        "objects_gone": counts["gone"],
        "objects_deleted": counts["deleted"],
        "objects_known": counts["known"],
        "versions_superseded": sum(entry.state is State.SUPERSEDED for entry in ledger),
        "rows_read": sum(entry.rows or 0 for entry in counting) + rejected,
        "rows_rejected": rejected,
        "rejects_by_reason": MetadataValue.json(dict(reasons.most_common())),
    }


class _Reading(NamedTuple):
    """A landed object that is being fetched and read, and what was decided before."""

    arrival: LandedObject
    generation: int
    part: str
    comes_back: bool
    result: "Future[tuple[ReadReport | None, dict[str, str]]]"


def _read_landed(
    landing: Landing,
    arrival: LandedObject,
    ratings: RawRatings,
    part: str,
    format: str,
    columns: TableColumns,
) -> tuple[ReadReport | None, dict[str, str]]:
    """Add what is in a landed object to the ratings; there is no report if it has gone."""
    with TemporaryDirectory(prefix="recsys-") as scratch:
        path, read = Path(scratch) / PurePosixPath(arrival.key).name, Path(scratch) / "read"
        if not landing.fetch(arrival, path):
            return None, {}
        report = read_file(path, read, name=arrival.key, format=format, columns=columns)
        return report, ratings.add(read, part)


def _arrivals(config: RawRatingsConfig, landing: Landing, ledger: Ledger) -> Iterator[LandedObject]:
    """Yield what a run is told to ingest, else whatever a look finds."""
    if config.arrivals is not None:
        yield from map(LandedObject.from_json, config.arrivals)
        return
    after: str | None = None
    finished = False
    while not finished:
        look = landing.look(ledger, after, budget_seconds=_LOOK_SECONDS)
        yield from look.arrivals
        after, finished = look.after, look.finished


def _is_known(ledger: Ledger, arrival: LandedObject) -> bool:
    """Tell whether an arrival has been ingested, by this way of noticing it or by another."""
    if ledger.knows(
        arrival.key,
        version_id=arrival.version_id,
        sequencer=arrival.sequencer,
        etag=arrival.etag,
        last_modified=arrival.last_modified,
        generation=arrival.generation,
    ):
        return True
    event = arrival.sequencer if arrival.version_id is None else None
    return event is not None and ledger.tell(arrival.key, arrival.etag, event)


def _comes_back(ledger: Ledger, arrival: LandedObject, landing: Landing) -> bool:
    """Tell whether a version is there again that others had taken the place of.

    So it is when those after it, or a delete marker, have been deleted for good.
    """
    if arrival.version_id is None:
        return False
    entries = [e for e in ledger.entries(arrival.key) if e.version_id == arrival.version_id]
    if not entries or entries[-1].state is State.CURRENT:
        return False
    there = landing.latest(arrival.key)
    return there is not None and there.version_id == arrival.version_id


def _fetched_source(
    context: AssetExecutionContext, config: RawRatingsConfig, store: ObjectStore, scratch: Path
) -> Path:
    """Return a local path of the source, fetching or generating it where there is none."""
    if config.source in (None, GENERATED):
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
    k_core: bool = Field(
        default=False,
        description="Leave out again and again, until every customer and every video that is left "
        "has its minimum of ratings, each pair counted once.",
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
@retried_asset
def filtered_ratings(
    context: AssetExecutionContext,
    config: FilteredRatingsConfig,
    raw_ratings: StoredRatings,
    spark: Spark,
) -> Output[ParquetFolder]:
    """Ratings without the long tail, one a pair, with stable indices and the split."""
    filtered = ParquetFolder()
    job: Mapping[str, Any] = {}
    try:
        rules = FilterRules(**config.model_dump())
        if spark.is_configured:
            report, job = spark.filter_ratings(context, raw_ratings.uris, filtered.main, rules)
        else:
            fetched = raw_ratings.fetch()
            report = filter_ratings(fetched.main, filtered.main, rules)
    except (NothingLeftError, ValueError) as error:
        raise Failure(str(error), allow_retries=False) from error
    context.log.info(
        f"{report.rows_kept:,} ratings of {report.customers:,} customers "
        f"and {report.videos:,} videos kept"
    )
    percentiles = _percentiles(report)
    return Output(
        filtered,
        metadata={
            "rows_read": report.rows_read,
            "rows_kept": report.rows_kept,
            "duplicates": report.duplicates,
            "outside_core": report.outside_core,
            "customers": report.customers,
            "videos": report.videos,
            **{f"{split}_rows": rows for split, rows in report.split_rows.items()},
            "percentiles": MetadataValue.md(frame_as_markdown(percentiles)),
            "long_tail": as_image(as_png(plot_long_tail(percentiles))),
            **job,
        },
    )


def _percentiles(report: FilterReport) -> pd.DataFrame:
    """Return how many ratings customers and videos have, before and after the filter."""
    measured = {"customer": report.ratings_per_customer, "video": report.ratings_per_video}
    return pd.DataFrame(
        {"ratings per": kind, "filter": moment, **counts}
        for kind, moments in measured.items()
        for moment, counts in moments.items()
    )
