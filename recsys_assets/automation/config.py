"""How the platform runs itself: one YAML file, named by ``RECSYS_AUTOMATION_CONFIG``.

What belongs here: what may stand in the file, its defaults and its errors. What does not: what the
options do (the other modules of this folder) and secrets, which come from the environment.
"""

import re
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dagster._utils.schedules import is_valid_cron_schedule
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from recsys_assets.settings_files import read_settings_file, settings_of


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"expected a time zone such as Europe/Berlin, got {name!r}") from error
    return name


def _cron(expression: str) -> str:
    if not is_valid_cron_schedule(expression):
        raise ValueError(f"expected a cron expression such as 0 2 * * *, got {expression!r}")
    return expression


def _uri(uri: str) -> str:
    if not uri.startswith("s3://") or not uri.removeprefix("s3://").partition("/")[0]:
        raise ValueError(f"expected s3://bucket/prefix/, got {uri!r}")
    return uri


def _topic(arn: str) -> str:
    if not re.fullmatch(r"arn:aws[\w-]*:sns:[\w-]+:\d{12}:[\w-]+", arn):
        raise ValueError(
            "expected the ARN of a standard topic such as "
            f"arn:aws:sns:eu-west-1:123456789012:alarms, got {arn!r}"
        )
    return arn


def _address(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"expected an address such as https://dagster.example.com, got {url!r}")
    return url.rstrip("/")


TimeZone = Annotated[str, AfterValidator(_time_zone)]
Cron = Annotated[str, AfterValidator(_cron)]
S3Uri = Annotated[str, AfterValidator(_uri)]
TopicArn = Annotated[str, AfterValidator(_topic)]
Address = Annotated[str, AfterValidator(_address)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LandingConfig(_Section):
    """Where ratings land, and when a landed object is taken."""

    uri: S3Uri | None = Field(
        default=None,
        description="Bucket and prefix that are watched; by default `landing/` below the "
        "platform's own prefix.",
    )
    pattern: str = Field(
        default="*", description="Of the names below the prefix, as fnmatch reads it."
    )
    format: Literal["auto", "amazon", "movielens", "movietweetings", "table"] = Field(
        default="auto", description="How landed objects are read."
    )
    settle_seconds: float = Field(
        default=10,
        ge=0,
        description="How long an object must have been left unchanged, by the store's clock.",
    )
    success_marker: bool = Field(
        default=False,
        description="Take the objects of a folder only when it holds a `_SUCCESS` no older.",
    )
    deleted: Literal["keep", "forget"] = Field(
        default="keep",
        description="Whether ratings stay when the object that they came in is deleted.",
    )
    queue_url: str | None = Field(
        default=None, description="An SQS queue that receives the bucket's event notifications."
    )
    interval_seconds: int = Field(default=30, ge=5, description="Between two looks.")
    objects_per_run: int = Field(
        default=500, ge=1, le=5_000, description="At most so many objects are read by one run."
    )


class TrainingConfig(_Section):
    """When new ratings lead to a new model."""

    new_share: float = Field(
        default=0.05,
        ge=0,
        description="Train when the training rows have grown by this share since the last model.",
    )
    max_age_hours: float = Field(
        default=7 * 24,
        gt=0,
        description="Train on whatever is new when the last model is older than this.",
    )
    min_hours_between: float = Field(
        default=24, ge=0, description="However much is new, training starts no sooner than this."
    )


class SchedulesConfig(_Section):
    """Schedules; they are off until somebody turns them on."""

    timezone: TimeZone = Field(default="UTC", description="Of the cron expressions.")
    nightly_retraining: Cron = Field(default="0 2 * * *", description="Train from scratch.")
    weekly_tuning: Cron = Field(default="0 3 * * 0", description="Search hyperparameters.")
    daily_retention: Cron = Field(default="30 4 * * *", description="Delete old versions.")


class FreshnessConfig(_Section):
    """How old an asset may become."""

    data_warn_hours: float = Field(
        default=36, ge=0.1, description="Ratings and features: a warning."
    )
    data_fail_hours: float = Field(
        default=72, ge=0.1, description="Ratings and features: a failure."
    )
    model_warn_hours: float = Field(
        default=8 * 24, ge=0.1, description="Models and what is made with them: a warning."
    )
    model_fail_hours: float = Field(
        default=15 * 24, ge=0.1, description="Models and what is made with them: a failure."
    )

    @model_validator(mode="after")
    def _check_order(self) -> "FreshnessConfig":
        for kind, warn, fail in (
            ("data", self.data_warn_hours, self.data_fail_hours),
            ("model", self.model_warn_hours, self.model_fail_hours),
        ):
            if warn >= fail:
                raise ValueError(
                    f"expected {kind}_warn_hours to be below {kind}_fail_hours, got {warn:g} and "
                    f"{fail:g}"
                )
        return self


class NotificationsConfig(_Section):
    """Who is told when something is wrong.

    A webhook's address is a secret: it stands in ``RECSYS_NOTIFY_WEBHOOK_URL``.
    """

    format: Literal["json", "slack"] = Field(
        default="json", description="What the webhook receives."
    )
    sns_topic_arn: TopicArn | None = Field(
        default=None, description="An SNS topic that is told too."
    )
    # A warning is about what is odd; it would come with every run, and soon nobody would look.
    check_severity: Literal["warn", "error"] = Field(
        default="error", description="The least severe failure of a check that is told."
    )
    ui_url: Address = Field(
        default="http://127.0.0.1:3000", description="Of the Dagster UI, for links in messages."
    )


class RetentionConfig(_Section):
    """Which old versions of assets are kept.

    A version is deleted when it is neither among the latest `versions` of its asset nor younger
    than `days`, and nothing that counts was made from it: no current version, no version of the
    registered model.
    """

    versions: int = Field(default=5, ge=1, description="The latest of each asset are kept.")
    days: float = Field(default=30, ge=0, description="Younger ones are kept.")


class AutomationConfig(_Section):
    """All of it; every section and every option has a default."""

    landing: LandingConfig = LandingConfig()
    training: TrainingConfig = TrainingConfig()
    schedules: SchedulesConfig = SchedulesConfig()
    freshness: FreshnessConfig = FreshnessConfig()
    notifications: NotificationsConfig = NotificationsConfig()
    retention: RetentionConfig = RetentionConfig()

    @classmethod
    def from_file(cls, path: Path | None) -> "AutomationConfig":
        """Read a file; None gives the defaults.

        Raises
        ------
        SettingsError
            If the file cannot be read, is not YAML or holds what is not expected; the message
            names the file and the option.
        """
        content = {} if path is None else read_settings_file(path, "RECSYS_AUTOMATION_CONFIG")
        with settings_of(path):
            return cls.model_validate(content)
