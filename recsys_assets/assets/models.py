"""Models: trained or tuned on SageMaker, and which of the two counts.

What belongs here: fm_model, tuned_model, selected_model and their config. What does not: following
jobs and tracking them (``recsys_assets.resources``).
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

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
from recsys_assets.domain.factorization_machine.artefact import read_model_archive
from recsys_assets.domain.factorization_machine.extensions import Solver
from recsys_assets.domain.features import RatingMatrix
from recsys_assets.domain.plots import plot_losses
from recsys_assets.domain.selecting import Comparison, TrainedModel, compare_models
from recsys_assets.export.metadata import (
    TRAINING,
    TUNING,
    alternative,
    pool_of_dagster,
    remote_work,
)
from recsys_assets.export.requests import RequestContext
from recsys_assets.io_managers import Document, RatingMatrixIOManager, StoredRecordIO
from recsys_assets.io_managers.lineage import run_lineage, versions_read
from recsys_assets.resources import tracked_jobs
from recsys_assets.resources.object_store import MissingObjectError, ObjectStore, Version
from recsys_assets.resources.retries import retried
from recsys_assets.resources.sagemaker import Range, Run, SageMaker, Training, Tuning
from recsys_assets.resources.tracking import MlflowTracking

ASSET_OF_MODE = {"train": "fm_model", "tune": "tuned_model"}

SAGEMAKER_POOL = "sagemaker"
"""Of the runs that have SageMaker do jobs; how many do so at once, the instance's settings say."""


_InitMethod = Literal["normal", "uniform", "constant"]

_LEARNING_RATE = "Learning rate of the optimizer, which is Adam."
_WEIGHT_DECAY = "L2 regularization, added to the gradient."
_INIT_METHOD = "How values begin: normal (sigma), uniform (scale) or constant (value)."
_INIT_SIGMA = "Standard deviation of a normal start."
_INIT_SCALE = "A uniform start is between minus this and this."
_INIT_VALUE = "The constant start."


class Hyperparameters(Config):
    """Hyperparameters of SageMaker's built-in Factorization Machines, and of this project's own.

    See "Factorization Machines Hyperparameters" in the Amazon SageMaker developer guide. Those
    left empty are not sent, so that the built-in's own defaults hold. The defaults here are the
    ones that `benchmarks/default_hyperparameters.py` compares with others. The last three are for
    the local services and images of your own: a job that would send one to AWS's built-in is
    refused.
    """

    num_factors: int = Field(default=64, ge=2, le=1000, description="Size of a factor vector.")
    epochs: int = Field(default=25, ge=1, description="Passes over the training split.")
    mini_batch_size: int = Field(default=100, ge=1, description="Rows of one update.")
    bias_lr: float | None = Field(default=None, ge=0, description=_LEARNING_RATE)
    linear_lr: float | None = Field(default=0.0025, ge=0, description=_LEARNING_RATE)
    factors_lr: float | None = Field(default=7e-4, ge=0, description=_LEARNING_RATE)
    bias_wd: float | None = Field(default=1e-4, ge=0, description=_WEIGHT_DECAY)
    linear_wd: float | None = Field(default=3e-4, ge=0, description=_WEIGHT_DECAY)
    factors_wd: float | None = Field(default=1.4e-3, ge=0, description=_WEIGHT_DECAY)
    bias_init_method: _InitMethod = Field(default="normal", description=_INIT_METHOD)
    bias_init_sigma: float | None = Field(default=None, ge=0, description=_INIT_SIGMA)
    bias_init_scale: float | None = Field(default=None, ge=0, description=_INIT_SCALE)
    bias_init_value: float | None = Field(default=None, description=_INIT_VALUE)
    linear_init_method: _InitMethod = Field(default="normal", description=_INIT_METHOD)
    linear_init_sigma: float | None = Field(default=None, ge=0, description=_INIT_SIGMA)
    linear_init_scale: float | None = Field(default=None, ge=0, description=_INIT_SCALE)
    linear_init_value: float | None = Field(default=None, description=_INIT_VALUE)
    factors_init_method: _InitMethod = Field(default="normal", description=_INIT_METHOD)
    factors_init_sigma: float | None = Field(default=0.002, ge=0, description=_INIT_SIGMA)
    factors_init_scale: float | None = Field(default=None, ge=0, description=_INIT_SCALE)
    factors_init_value: float | None = Field(default=None, description=_INIT_VALUE)
    clip_gradient: float | None = Field(
        default=None, gt=0, description="Gradients are cut to between minus this and this."
    )
    eps: float | None = Field(
        default=None, gt=0, description="Keeps Adam's divisor away from zero."
    )
    rescale_grad: float | None = Field(
        default=None, description="Gradients are multiplied by this before they are cut."
    )
    solver: str | None = Field(
        default=None,
        pattern=f"^({'|'.join(get_args(Solver))})$",  # Dagster has no choice of literals or nothing
        description="adam, as the built-in, sgd or mcmc (Bayesian: the most accurate). Beyond AWS.",
    )
    early_stopping_patience: int | None = Field(
        default=None,
        ge=1,
        description="Epochs without a gain on the validate split that end a training. Beyond AWS.",
    )
    burn_in: int | None = Field(
        default=None, ge=1, description="Of mcmc: epochs before the first that counts. Beyond AWS."
    )

    def as_strings(self, feature_dim: int | str) -> dict[str, str]:
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
    strategy: Literal["Random", "Bayesian"] = Field(
        default="Random", description="How the search goes on from what it has seen."
    )
    max_jobs: int = Field(default=8, ge=1, description="Training jobs of the search.")
    max_parallel_jobs: int = Field(default=2, ge=1, description="Those that train at once.")
    seed: int = Field(default=0, ge=0, description="Another seed searches elsewhere.")
    ranges: dict[str, RangeConfig] = Field(
        default=_RANGES,
        description="By hyperparameter; the others keep their values from `hyperparameters`.",
    )


class ModelTrainingConfig(Config):
    """Whether to train or to tune, and with what.

    A selection that names one of the two models alone makes that one, whatever the mode.
    """

    mode: Literal["train", "tune"] = Field(
        default="train", description="train makes fm_model, tune makes tuned_model."
    )
    hyperparameters: Hyperparameters = Hyperparameters()
    tuning: TuningConfig = TuningConfig()
    select: Literal["better", "new"] = Field(
        default="better",
        description="better keeps the model selected before where it predicts the new validate "
        "split better; new takes the new model whatever it is like.",
    )
    margin: float = Field(
        default=0.0, ge=0, description="Stars by which the new model's RMSE may be the worse one."
    )


@multi_asset(
    name="model_training",
    group_name="models",
    pool=SAGEMAKER_POOL,
    can_subset=True,
    outs={
        "fm_model": AssetOut(
            is_required=False,
            io_manager_key="document_io_manager",
            kinds={"sagemaker"},
            description="The model of one SageMaker training job: its record and its artefact.",
            metadata={
                **alternative("mode", "train"),
                **pool_of_dagster(),
                **remote_work(TRAINING, requests=f"{__name__}:training_request"),
            },
        ),
        "tuned_model": AssetOut(
            is_required=False,
            io_manager_key="document_io_manager",
            kinds={"sagemaker"},
            description="The best model of a SageMaker hyperparameter tuning job.",
            metadata={
                **alternative("mode", "tune"),
                **pool_of_dagster(),
                **remote_work(TUNING, requests=f"{__name__}:tuning_request"),
            },
        ),
        "selected_model": AssetOut(
            is_required=False,
            io_manager_key="document_io_manager",
            description="The model that counts from here on: the new one, unless it is worse.",
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
    """Train or tune a factorization machine on SageMaker, and select the better model.

    The model that was not asked for is not made in this run. What follows depends on
    selected_model alone, which is made in either case: a step that depended on both models would
    be skipped, silently, for want of the one that was not made.

    selected_model is the new model, or the one selected before where that one is better; it then
    says what that one was made from, so that what follows reads the same.
    """
    selected = {key.to_user_string() for key in context.selected_asset_keys}
    step = context.get_step_execution_context()
    lineage = run_lineage(step)
    asset = _asset_to_make(selected, config.mode, store, forerunners=lineage[1:])
    if asset in selected:
        trained = _make(
            context, config, asset, protobuf_train, protobuf_validate, store, sagemaker, tracking
        )
        record = trained.record
        yield Output(
            Document(record),
            output_name=asset,
            metadata={
                **_shown(record),
                **trained.metadata,
                **_course(trained.losses),
                # By which automation tells later whether there is more, or other, to train on.
                "training_rows": protobuf_train.rows,
                "training_data": versions_read(store, step)["protobuf_train"].content_hash,
            },
        )
    if "selected_model" in selected:
        with retried(step):
            choice = _choose(context, config, store.require(asset, lineage), store)
        context.log.info(choice.reason)
        record = choice.model.content
        # Of the run that made the matrix: for an orchestrator that asks for the transform itself.
        matrix_run = (choice.model.inputs or {})["sparse_matrix"]
        yield Output(
            choice.model,
            output_name="selected_model",
            metadata={
                "selected": record["asset"],
                **choice.shown(),
                "test_data": MetadataValue.text(
                    store.uri("protobuf_test", matrix_run, "data") + "/"
                ),
                **_shown(record),
            },
        )


@dataclass(frozen=True)
class _Choice:
    """Which model counts from here on.

    Attributes
    ----------
    model
        Its record.
    reason
        A sentence that says which and why.
    comparison
        None where there was nothing to compare.
    """

    model: Document
    reason: str
    comparison: Comparison | None = None

    def shown(self) -> dict[str, Any]:
        """Return metadata."""
        compared = self.comparison
        return {
            "choice": self.reason,
            **(
                {
                    "compared_rows": compared.rows,
                    "new_rmse": compared.new_rmse,
                    "current_rmse": compared.current_rmse,
                }
                if compared
                else {}
            ),
        }


def _choose(
    context: AssetExecutionContext, config: ModelTrainingConfig, made: Version, store: ObjectStore
) -> _Choice:
    """Choose between a version of fm_model or tuned_model and the model selected before."""
    new = Document(
        {**made.facts["content"], "asset": made.asset},
        inputs={**made.inputs, made.asset: made.run_id},
    )
    if config.select == "new":
        return _Choice(new, "The new model is selected, as the config says.")
    selected = store.find("selected_model")
    if selected is None:
        return _Choice(new, "The new model is selected: there is no other.")
    candidate = _trained_model(store, made)
    try:
        current = _trained_model(store, selected)
    except (MissingObjectError, ValueError) as error:
        return _Choice(
            new, f"The new model is selected: the one selected before cannot be read. {error}"
        )
    comparison = compare_models(candidate, current)
    if comparison is None:
        return _Choice(
            new,
            "The new model is selected: the one selected before was trained on all ratings that "
            "the two could be compared on.",
        )
    kept = comparison.new_rmse > comparison.current_rmse + config.margin
    figures = (
        f"RMSE {comparison.new_rmse:.4f}, that of the model selected before "
        f"{comparison.current_rmse:.4f}, on {comparison.rows:,} ratings of the validate split"
    )
    if kept:
        before = Document(selected.facts["content"], inputs=selected.inputs)
        reason = f"The new model is held back, for it is worse: {figures}."
        return _Choice(before, reason, comparison)
    return _Choice(new, f"The new model is selected: {figures}.", comparison)


def _trained_model(store: ObjectStore, version: Version) -> TrainedModel:
    """Read the model that a version tells of, and the matrix that it was trained on."""
    run_id = version.inputs.get("sparse_matrix", "")
    matrix = store.version("sparse_matrix", run_id) if run_id else None
    if matrix is None:
        raise MissingObjectError(
            f"{version.uri} was made from a sparse_matrix that is not there.", version.uri
        )
    with TemporaryDirectory(prefix="recsys-") as name:
        path = Path(name) / "model.tar.gz"
        store.download(version.facts["content"]["artefact"], path)
        model = read_model_archive(path)
    return TrainedModel(model, RatingMatrixIOManager(store=store).load(matrix, RatingMatrix))


def training_request(context: RequestContext) -> dict[str, Any]:
    """Return what fm_model asks of SageMaker, for an orchestrator that asks itself."""
    sagemaker: SageMaker = context.resources["sagemaker"]
    run = run_to_come(context)
    training = _training_of_a_run(context)
    request = sagemaker.training_request(training, run)
    return {TRAINING: sagemaker.tagged(request, run)}


def tuning_request(context: RequestContext) -> dict[str, Any]:
    """Return what tuned_model asks of SageMaker, for an orchestrator that asks itself."""
    sagemaker: SageMaker = context.resources["sagemaker"]
    run = run_to_come(context)
    tuning = _tuning(context.config.tuning, _training_of_a_run(context))
    request = sagemaker.tuning_request(tuning, run)
    request["HyperParameterTuningJobConfig"]["ResourceLimits"] = {
        "MaxNumberOfTrainingJobs": context.param("tuning", "max_jobs"),
        "MaxParallelTrainingJobs": context.param("tuning", "max_parallel_jobs"),
    }
    return {TUNING: sagemaker.tagged(request, run)}


def _training_of_a_run(context: RequestContext) -> Training:
    """Return a training whose data, and whose hyperparameters that are sent, a run will know."""
    feature_dim = context.result("protobuf_train", "feature_dim")
    hyperparameters: Hyperparameters = context.config.hyperparameters
    store: ObjectStore = context.resources["store"]
    return Training(
        hyperparameters={
            name: context.param("hyperparameters", name)
            if hasattr(hyperparameters, name)
            else str(value)
            for name, value in hyperparameters.as_strings(feature_dim).items()
        },
        train_uri=context.result("protobuf_train", "uri"),
        validate_uri=context.result("protobuf_validate", "uri"),
        output_uri=store.uri(context.asset, context.run_id, "jobs"),
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
    with retried(context.get_step_execution_context(), sagemaker.max_retries):
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


def run_to_come(context: RequestContext) -> Run:
    """Return on whose behalf a run of another orchestrator will ask for a job."""
    return Run(context.run_id, context.run_id, context.asset)


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
