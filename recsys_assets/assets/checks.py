"""Checks of the data: what is odd is a warning, what would make a worthless model is an error.

What belongs here: thresholds and verdicts. What does not: measuring
(``recsys_assets.domain.ratings.profiling``).

An error stops what depends on the checked asset.
"""

from collections.abc import Iterator

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    Config,
    MetadataValue,
    multi_asset_check,
)
from pydantic import Field

from recsys_assets.domain.ratings.profiling import profile_ratings
from recsys_assets.io_managers import ParquetFolder, RawRatings
from recsys_assets.io_managers.ratings import REJECTS


class Limits(Config):
    """Above `warn` a check warns, above `error` it fails and stops what depends on it.

    None never warns, or never fails.
    """

    warn: float | None = Field(default=None, description="The limit of a warning.")
    error: float | None = Field(default=None, description="The limit of a failure.")


class RawRatingsChecksConfig(Config):
    """Thresholds of the checks on raw_ratings; shares are between 0 and 1."""

    rejected_share: Limits = Field(
        default=Limits(warn=0.01, error=0.2), description="Lines put aside."
    )
    missing_share: Limits = Field(
        default=Limits(warn=0.05), description="Ratings without title or date, whichever is more."
    )
    most_frequent_rating_share: Limits = Field(
        default=Limits(warn=0.8, error=0.99), description="Ratings of one and the same value."
    )
    duplicate_share: Limits = Field(
        default=Limits(warn=0.05, error=0.5), description="Ratings of a pair rated before."
    )


class FilteredRatingsChecksConfig(Config):
    """Thresholds of the checks on filtered_ratings."""

    largest_customer_share: Limits = Field(
        default=Limits(warn=0.02, error=0.5), description="Ratings of the most active customer."
    )
    largest_video_share: Limits = Field(
        default=Limits(warn=0.05, error=0.5), description="Ratings of the most rated video."
    )
    min_rows: Limits = Field(
        default=Limits(warn=5_000, error=100),
        description="Ratings left; here, below `warn` warns and below `error` fails.",
    )


def _result(name: str, asset: str, value: float, limits: Limits, text: str) -> AssetCheckResult:
    """Judge a value: the lower the better."""
    failed = limits.error is not None and value > limits.error
    warned = limits.warn is not None and value > limits.warn
    return AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=not (failed or warned),
        severity=AssetCheckSeverity.ERROR if failed else AssetCheckSeverity.WARN,
        description=text,
        metadata={"value": value, "limits": MetadataValue.json(limits.model_dump())},
    )


def _specs(asset: str, config: type[Config]) -> list[AssetCheckSpec]:
    return [
        AssetCheckSpec(name, asset=asset, blocking=True, description=field.description)
        for name, field in config.model_fields.items()
    ]


@multi_asset_check(name="raw_ratings_checks", specs=_specs("raw_ratings", RawRatingsChecksConfig))
def raw_ratings_checks(
    config: RawRatingsChecksConfig, raw_ratings: RawRatings
) -> Iterator[AssetCheckResult]:
    """Check what has landed."""
    profile = profile_ratings(raw_ratings.main)
    rejected = raw_ratings.rows(REJECTS)
    read = max(profile.rows + rejected, 1)
    commonest = max(profile.star_shares, key=lambda star: profile.star_shares[star])
    share = profile.star_shares[commonest]
    of_one_value = f"{share:.1%} of the ratings are of {commonest} stars"
    missing = max((profile.missing_shares[name], name) for name in ("title", "reviewed_at"))
    judged = {
        "rejected_share": (rejected / read, f"{rejected:,} of {read:,} lines put aside"),
        "missing_share": (missing[0], f"{missing[0]:.1%} of the ratings have no {missing[1]}"),
        "most_frequent_rating_share": (share, of_one_value),
        "duplicate_share": (
            profile.duplicate_share,
            f"{profile.duplicate_share:.2%} of the ratings are of a pair rated before",
        ),
    }
    for name, (value, text) in judged.items():
        yield _result(name, "raw_ratings", value, getattr(config, name), text)


@multi_asset_check(
    name="filtered_ratings_checks", specs=_specs("filtered_ratings", FilteredRatingsChecksConfig)
)
def filtered_ratings_checks(
    config: FilteredRatingsChecksConfig, filtered_ratings: ParquetFolder
) -> Iterator[AssetCheckResult]:
    """Check what a model is to be made from."""
    profile = profile_ratings(filtered_ratings.main)
    for kind, per_id in (("customer", profile.per_customer), ("video", profile.per_video)):
        share = per_id.largest_share
        name = f"largest_{kind}_share"
        text = f"one {kind} has {share:.2%} of the ratings"
        yield _result(name, "filtered_ratings", share, getattr(config, name), text)
    limits = config.min_rows
    fewer = Limits(
        warn=None if limits.warn is None else -limits.warn,
        error=None if limits.error is None else -limits.error,
    )
    text = f"{profile.rows:,} ratings are left"
    yield _result("min_rows", "filtered_ratings", -profile.rows, fewer, text)
