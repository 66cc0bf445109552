"""Models: trained or tuned on SageMaker, and which of the two counts.

What belongs here: fm_model, tuned_model, selected_model and their config. What does not: following
jobs and tracking them (``recsys_assets.resources``).
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Literal

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetOut,
    Config,
    Failure,
    MetadataValue,
    Output,
    multi_asset,
)
from pydantic import Field

from recsys_assets.assets.shown import as_image, as_png
from recsys_assets.domain.plots import plot_losses
from recsys_assets.io_managers import Document, StoredRecordIO
from recsys_assets.io_managers.base import run_lineage
from recsys_assets.resources import tracked_jobs
from recsys_assets.resources.object_store import ObjectStore
from recsys_assets.resources.sagemaker import Range, Run, SageMaker, Training, Tuning
from recsys_assets.resources.tracking import MlflowTracking

ASSET_OF_MODE = {"train": "fm_model", "tune": "tuned_model"}


class Hyperparameters(Config):
    """Hyperparameters of SageMaker's built-in Factorization Machines.

    See "Factorization Machines Hyperparameters" in the Amazon SageMaker developer guide. Those
    left empty are not sent, so that the built-in's own defaults hold. The defaults here are the
    ones that `benchmarks/default_hyperparameters.py` compares with others.
    """

    num_factors: int = Field(default=64, ge=2, le=1000)
    epochs: int = Field(default=25, ge=1)
    mini_batch_size: int = Field(default=100, ge=1)
    bias_lr: float | None = Field(default=None, ge=0)
    linear_lr: float | None = Field(default=0.0025, ge=0)
    factors_lr: float | None = Field(default=7e-4, ge=0)
    bias_wd: float | None = Field(default=1e-4, ge=0)
    linear_wd: float | None = Field(default=3e-4, ge=0)
    factors_wd: float | None = Field(default=1.4e-3, ge=0)
    bias_init_method: Literal["normal", "uniform", "constant"] = "normal"
    bias_init_sigma: float | None = Field(default=None, ge=0)
    bias_init_scale: float | None = Field(default=None, ge=0)
    bias_init_value: float | None = None
    linear_init_method: Literal["normal", "uniform", "constant"] = "normal"
    linear_init_sigma: float | None = Field(default=None, ge=0)
    linear_init_scale: float | None = Field(default=None, ge=0)
    linear_init_value: float | None = None
    factors_init_method: Literal["normal", "uniform", "constant"] = "normal"
    factors_init_sigma: float | None = Field(default=0.002, ge=0)
    factors_init_scale: float | None = Field(default=None, ge=0)
    factors_init_value: float | None = None
    clip_gradient: float | None = Field(default=None, gt=0)
    eps: float | None = Field(default=None, gt=0)
    rescale_grad: float | None = None

    def as_strings(self, feature_dim: int) -> dict[str, str]:
        """Return them as the API takes them, with what the platform itself decides."""
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        fixed = {"feature_dim": feature_dim, "predictor_type": "regressor"}
        return {name: str(value) for name, value in {**given, **fixed}.items()}


class RangeConfig(Config):
    """The range in which a tuning job searches one hyperparameter."""

    min: float
    max: float
    scaling: Literal["Auto", "Linear", "Logarithmic", "ReverseLogarithmic"] = "Auto"
    integer: bool = False


# Plain values rather than RangeConfig, because Dagster takes defaults of a mapping as config.
_RANGES: Any = {
    "linear_lr": {"min": 5e-4, "max": 1e-2, "scaling": "Logarithmic"},
    "factors_lr": {"min": 2e-4, "max": 5e-3, "scaling": "Logarithmic"},
    "factors_wd": {"min": 2e-4, "max": 1e-2, "scaling": "Logarithmic"},
    "epochs": {"min": 10, "max": 40, "integer": True},
}


class TuningConfig(Config):
    """A search for the hyperparameters with the lowest RMSE on the validate split."""

    # SageMaker has Grid for categories only, and Hyperband not for this algorithm, which tells its
    # objective once.
    strategy: Literal["Random", "Bayesian"] = "Random"
    max_jobs: int = Field(default=8, ge=1)
    max_parallel_jobs: int = Field(default=2, ge=1)
    seed: int = Field(default=0, ge=0)
    ranges: dict[str, RangeConfig] = Field(
        default=_RANGES,
        description="By hyperparameter; the others keep their values from `hyperparameters`.",
    )


class ModelTrainingConfig(Config):
    """Whether to train or to tune, and with what."""

    mode: Literal["train", "tune"] = Field(
        default="train",
        description="train makes fm_model, tune makes tuned_model. A selection that names one of "
        "the two alone makes that one, whatever the mode.",
    )
    hyperparameters: Hyperparameters = Hyperparameters()
    tuning: TuningConfig = TuningConfig()


@multi_asset(
    name="model_training",
    group_name="models",
    can_subset=True,
    outs={
        "fm_model": AssetOut(
            is_required=False,
            io_manager_key="document_io_manager",
            kinds={"sagemaker"},
            description="The model of one SageMaker training job: its record and its artefact.",
        ),
        "tuned_model": AssetOut(
            is_required=False,
            io_manager_key="document_io_manager",
            kinds={"sagemaker"},
            description="The best model of a SageMaker hyperparameter tuning job.",
        ),
        "selected_model": AssetOut(
            is_required=False,
            io_manager_key="document_io_manager",
            description="Which of the two counts from here on.",
        ),
    },
    internal_asset_deps={
        "fm_model": {AssetKey("protobuf_train"), AssetKey("protobuf_validate")},
        "tuned_model": {AssetKey("protobuf_train"), AssetKey("protobuf_validate")},
        "selected_model": {AssetKey("fm_model"), AssetKey("tuned_model")},
    },
)
def model_training(
    context: AssetExecutionContext,
    config: ModelTrainingConfig,
    protobuf_train: StoredRecordIO,
    protobuf_validate: StoredRecordIO,
    store: ObjectStore,
    sagemaker: SageMaker,
    tracking: MlflowTracking,
) -> Iterator[Output[Document]]:
    """Train or tune a factorization machine on SageMaker, and select the model that came out.

    The model that was not asked for is not made in this run. What follows depends on
    selected_model alone, which is made in either case: a step that depended on both models would
    be skipped, silently, for want of the one that was not made.
    """
    selected = {key.to_user_string() for key in context.selected_asset_keys}
    lineage = run_lineage(context.get_step_execution_context())
    asset = _asset_to_make(selected, config.mode, store, forerunners=lineage[1:])
    if asset in selected:
        trained = _make(
            context, config, asset, protobuf_train, protobuf_validate, store, sagemaker, tracking
        )
        record = trained.record
        yield Output(
            Document(record),
            output_name=asset,
            metadata={**_shown(record), **trained.metadata, **_course(trained.losses)},
        )
    else:
        record = store.require(asset, lineage).facts["content"]
    if "selected_model" in selected:
        yield Output(
            Document({**record, "asset": asset}),
            output_name="selected_model",
            metadata={"selected": asset, **_shown(record)},
        )


def _asset_to_make(
    selected: Set[str], mode: str, store: ObjectStore, forerunners: Sequence[str]
) -> str:
    """Return which of the two models a run is about.

    A retry "from asset failure" selects what has not been made: the other mode's model too, though
    a run that it retries has made the one that was asked for.
    """
    models = set(ASSET_OF_MODE.values())
    for asset in models - selected:
        version = store.find(asset, forerunners)
        if version is not None and version.run_id in forerunners:
            return asset
    named = models & selected
    return named.pop() if len(named) == 1 else ASSET_OF_MODE[mode]


def _make(
    context: AssetExecutionContext,
    config: ModelTrainingConfig,
    asset: str,
    train: StoredRecordIO,
    validate: StoredRecordIO,
    store: ObjectStore,
    sagemaker: SageMaker,
    tracking: MlflowTracking,
) -> tracked_jobs.Trained:
    """Make fm_model or tuned_model."""
    if train.fingerprint != validate.fingerprint:
        raise Failure(
            "protobuf_train and protobuf_validate come from different sparse_matrix versions; "
            "materialize both again.",
            allow_retries=False,
        )
    if not train.rows or not validate.rows:
        raise Failure(
            f"Expected ratings to train and to validate on, got {train.rows} and {validate.rows}.",
            allow_retries=False,
        )
    run = run_of(context, asset)
    training = Training(
        hyperparameters=config.hyperparameters.as_strings(train.feature_dim),
        train_uri=train.uri,
        validate_uri=validate.uri,
        output_uri=store.uri(asset, run.root_run_id, "jobs"),
    )
    with tracked_jobs.retried(context, sagemaker):
        if asset == "fm_model":
            trained = tracked_jobs.train(sagemaker, tracking, training, run, context)
        else:
            tuning = _tuning(config.tuning, training)
            trained = tracked_jobs.tune(sagemaker, tracking, tuning, run, context)
    trained.record["fingerprint"] = train.fingerprint
    return trained


def _tuning(config: TuningConfig, training: Training) -> Tuning:
    return Tuning(
        training=training,
        ranges=tuple(
            Range(
                name,
                "Integer" if item.integer else "Continuous",
                item.min,
                item.max,
                item.scaling,
            )
            for name, item in sorted(config.ranges.items())
        ),
        strategy=config.strategy,
        max_jobs=config.max_jobs,
        max_parallel_jobs=config.max_parallel_jobs,
        seed=config.seed,
    )


def run_of(context: AssetExecutionContext, asset: str) -> Run:
    """Return on whose behalf a step asks for a job."""
    run = context.run
    partition = context.partition_key if context.has_partition_key else None
    return Run(run.run_id, run.root_run_id or run.run_id, asset, partition)


def _course(losses: Mapping[int, float]) -> dict[str, Any]:
    return {"losses": as_image(as_png(plot_losses(losses)))} if losses else {}


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "training_job": record["job_name"],
        "artefact": MetadataValue.text(record["artefact"]),
        "hyperparameters": MetadataValue.json(record["hyperparameters"]),
        **record["metrics"],
        "billable_seconds": record["billable_seconds"],
        "mlflow_run_id": record["mlflow_run_id"],
        **({"tuning_job": record["tuning_job"]} if "tuning_job" in record else {}),
    }
