"""The Dagster definitions, assembled in one explicit place.

What belongs here: which assets, checks, jobs and resources there are. What does not: any of them.
Loading needs no credentials, no network and no running service.
"""

from collections.abc import Mapping
from typing import Any

from dagster import (
    AssetSelection,
    Definitions,
    ExecutorDefinition,
    define_asset_job,
    multi_or_in_process_executor,
)

from recsys_assets.assets import checks, features, models, predictions, ratings, serving
from recsys_assets.automation.conditions import automation_sensors, with_conditions
from recsys_assets.automation.config import AutomationConfig
from recsys_assets.automation.freshness import with_freshness
from recsys_assets.automation.new_ratings import INGEST_JOB, new_ratings_sensor
from recsys_assets.automation.notifications import notification_sensors
from recsys_assets.automation.retention import retention_job, retention_schedule
from recsys_assets.automation.schedules import training_schedules
from recsys_assets.io_managers import (
    DocumentIOManager,
    ParquetIOManager,
    RatingMatrixIOManager,
    RawRatingsIOManager,
    RecordIOManager,
)
from recsys_assets.progress import console_logger, progress_logger
from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.landing import Landing
from recsys_assets.resources.notifications import Notifications
from recsys_assets.resources.object_store import ObjectStore
from recsys_assets.resources.sagemaker import configured_sagemaker
from recsys_assets.resources.spark import configured_spark
from recsys_assets.resources.tracking import MlflowTracking
from recsys_assets.settings import Settings

MAIN_JOB = "recommender"
SERVING_JOB = "serving"
RETRAINING_JOB = "retraining"
_SERVING = AssetSelection.groups(serving.SERVING_GROUP)


def build_defs(
    settings: Settings | None = None, resource_overrides: Mapping[str, Any] | None = None
) -> Definitions:
    """Assemble the platform.

    Parameters
    ----------
    settings
        By default those of the environment.
    resource_overrides
        Resources to use in place of the platform's own, by their keys.
    """
    settings = settings or Settings.from_environment()
    automation = AutomationConfig.from_file(settings.automation_config)
    retraining = define_asset_job(
        RETRAINING_JOB,
        selection=AssetSelection.all() - _SERVING - AssetSelection.assets("raw_ratings"),
        description="From the ratings that have been ingested to recommendations.",
    )
    assets = [
        ratings.raw_ratings,
        ratings.filtered_ratings,
        features.sparse_matrix,
        features.protobuf_train,
        features.protobuf_validate,
        features.protobuf_test,
        models.model_training,
        predictions.batch_predictions,
        predictions.model_evaluation,
        predictions.recommendations,
        serving.registered_model,
        serving.endpoint,
    ]
    names = [key.to_user_string() for definition in assets for key in definition.keys]
    retention = retention_job(names, automation.retention)
    return Definitions(
        assets=with_conditions(with_freshness(assets, automation.freshness), automation.training),
        asset_checks=[
            checks.raw_ratings_checks,
            checks.filtered_ratings_checks,
            serving.good_enough,
        ],
        jobs=[
            define_asset_job(
                MAIN_JOB,
                selection=AssetSelection.all() - _SERVING,
                description="From landed ratings to recommendations.",
            ),
            define_asset_job(
                SERVING_JOB,
                selection=_SERVING,
                description="Register the selected model and put it behind the endpoint.",
            ),
            define_asset_job(
                INGEST_JOB,
                selection=AssetSelection.assets(ratings.raw_ratings),
                description="Ingest what has arrived in the landing.",
            ),
            retraining,
            retention,
            serving.stop_serving,
        ],
        schedules=[
            *training_schedules(automation.schedules, retraining),
            retention_schedule(automation.schedules, retention),
        ],
        sensors=[
            new_ratings_sensor(automation),
            *automation_sensors(automation.landing.interval_seconds),
            *notification_sensors(automation.notifications),
        ],
        resources={**build_resources(settings), **(resource_overrides or {})},
        executor=_executor(),
        loggers={"console": console_logger, "progress": progress_logger},
    )


def build_resources(settings: Settings) -> dict[str, Any]:
    """Build the resources of a deployment; clients are made when they are first used."""
    aws = AwsClients(
        local=settings.environment == "local",
        region_name=settings.region,
        patience_seconds=settings.patience_seconds,
    )
    store = ObjectStore(aws=aws, bucket=settings.bucket, prefix=settings.prefix)
    return {
        "store": store,
        "sagemaker": configured_sagemaker(
            settings.sagemaker_config,
            aws=aws,
            role_arn=settings.role_arn,
        ),
        "spark": configured_spark(settings.spark_config, store=store),
        "tracking": MlflowTracking(
            tracking_uri=settings.mlflow_tracking_uri,
            # MLflow keeps artifacts of a database in the current folder unless told otherwise.
            artifact_location=str(settings.state / "mlflow" / "artifacts")
            if settings.mlflow_tracking_uri.startswith("sqlite:")
            else None,
        ),
        "landing": _landing(settings, aws),
        "notifications": _notifications(settings, aws),
        "raw_ratings_io_manager": RawRatingsIOManager(store=store),
        "parquet_io_manager": ParquetIOManager(store=store),
        "matrix_io_manager": RatingMatrixIOManager(store=store),
        "recordio_io_manager": RecordIOManager(store=store),
        "document_io_manager": DocumentIOManager(store=store),
    }


def _landing(settings: Settings, aws: AwsClients) -> Landing:
    landing = AutomationConfig.from_file(settings.automation_config).landing
    default = "/".join(filter(None, ["s3:/", settings.bucket, settings.prefix, "landing/"]))
    return Landing(
        aws=aws,
        uri=landing.uri or default,
        pattern=landing.pattern,
        format=landing.format,
        settle_seconds=landing.settle_seconds,
        success_marker=landing.success_marker,
        deleted=landing.deleted,
        queue_url=landing.queue_url,
    )


def _notifications(settings: Settings, aws: AwsClients) -> Notifications:
    notifications = AutomationConfig.from_file(settings.automation_config).notifications
    return Notifications(
        aws=aws, format=notifications.format, sns_topic_arn=notifications.sns_topic_arn
    )


def _executor() -> ExecutorDefinition:
    """Run steps in one process: a process a step costs seconds each for nothing here."""
    return multi_or_in_process_executor.configured({"in_process": {}}, name="in_process_by_default")


defs = build_defs()
