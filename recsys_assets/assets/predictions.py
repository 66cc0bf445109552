"""What the selected model says: scores, how good they are, and recommendations.

What belongs here: batch_predictions, model_evaluation and recommendations. What does not: metrics
and ranking (``recsys_assets.domain``).
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from dagster import AssetExecutionContext, Config, Failure, MetadataValue, Output, asset
from pydantic import Field

from recsys_assets.assets.models import SAGEMAKER_POOL, run_of, run_to_come
from recsys_assets.assets.shown import as_image, as_png, frame_as_markdown
from recsys_assets.domain.evaluation import Ratings, compare
from recsys_assets.domain.factorization_machine.artefact import read_model_archive
from recsys_assets.domain.features import RatingMatrix
from recsys_assets.domain.plots import plot_evaluation
from recsys_assets.domain.recommending import recommend
from recsys_assets.export.metadata import TRANSFORM, pool_of_dagster, remote_work
from recsys_assets.export.requests import RequestContext
from recsys_assets.io_managers import Document, ParquetFolder, StoredRecordIO
from recsys_assets.resources.object_store import ObjectStore
from recsys_assets.resources.retries import retried, retried_asset
from recsys_assets.resources.sagemaker import SageMaker
from recsys_assets.resources.tracked_jobs import announce, log_look
from recsys_assets.resources.tracking import MlflowTracking


def transform_request(context: RequestContext) -> dict[str, Any]:
    """Return what batch_predictions asks of SageMaker, for an orchestrator that asks itself."""
    sagemaker: SageMaker = context.resources["sagemaker"]
    store: ObjectStore = context.resources["store"]
    requests, run = sagemaker.requests(), run_to_come(context)
    test = context.result("selected_model", "test_data")
    output = store.uri(context.asset, context.run_id, "transform")
    transform = requests.transform(sagemaker.transform, "its own", test, output)
    del transform["ModelName"]  # the model is created with the job
    model = requests.model(context.result("selected_model", "artefact"))
    return {
        TRANSFORM: {
            "Model": sagemaker.tagged(model, run),
            "Transform": sagemaker.tagged(transform, run),
        }
    }


@asset(
    group_name="predictions",
    kinds={"sagemaker"},
    io_manager_key="parquet_io_manager",
    pool=SAGEMAKER_POOL,
    metadata={
        **remote_work(TRANSFORM, requests=f"{__name__}:transform_request"),
        **pool_of_dagster(),
    },
)
@retried_asset
def batch_predictions(
    context: AssetExecutionContext,
    selected_model: Document,
    protobuf_test: StoredRecordIO,
    sparse_matrix: RatingMatrix,
    store: ObjectStore,
    sagemaker: SageMaker,
) -> Output[pd.DataFrame]:
    """The batch transform's scores of the test split, beside the true ratings and the ids."""
    matrix = sparse_matrix.fingerprint()
    _require_same("protobuf_test", protobuf_test.fingerprint, matrix)
    _require_same("selected_model", selected_model.content["fingerprint"], matrix)
    if not protobuf_test.rows:
        raise Failure("Expected ratings to test on, got none.", allow_retries=False)
    run = run_of(context, "batch_predictions")
    output = store.uri("batch_predictions", run.root_run_id, "transform") + "/"
    artefact = selected_model.content["artefact"]
    with (
        retried(context.get_step_execution_context(), sagemaker.max_retries),
        sagemaker.transform_job(artefact, protobuf_test.uri, output, run) as job,
    ):
        announce(job, sagemaker, context)
        description = job.follow(
            lambda look: log_look(look, context), sagemaker.transform.max_runtime_seconds
        )
    source = description["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    if source != protobuf_test.uri:  # another orchestrator has created the job
        raise Failure(
            f"{job.name} has scored {source}, and not {protobuf_test.uri}, which is what "
            "selected_model is to be tested on.",
            allow_retries=False,
        )
    began, ended = description["TransformStartTime"], description["TransformEndTime"]
    scores = _scores(store, output, protobuf_test)
    customer, video = sparse_matrix.pairs("test")
    frame = pd.DataFrame(
        {
            "customer_id": sparse_matrix.customers.ids.take(pa.array(customer)).to_pandas(),
            "video_id": sparse_matrix.videos.ids.take(pa.array(video)).to_pandas(),
            "rating": sparse_matrix.labels[sparse_matrix.rows("test")],
            "score": scores,
        }
    )
    return Output(
        frame,
        metadata={
            **job.metadata(sagemaker.links(), (ended - began).total_seconds()),
            "model": selected_model.content["job_name"],
            "head": MetadataValue.md(frame_as_markdown(frame.head(10))),
        },
    )


def _scores(store: ObjectStore, output: str, test: StoredRecordIO) -> npt.NDArray[np.float32]:
    """Read the transform's output files in the order of the rows."""
    scores = [
        json.loads(line)["score"]
        for name in test.files
        for line in store.read_text(f"{output}{name}.out").splitlines()
    ]
    if len(scores) != test.rows:
        raise Failure(
            f"The batch transform gave {len(scores)} scores for {test.rows} rows; see {output}.",
            allow_retries=False,
        )
    return np.array(scores, dtype=np.float32)


@asset(group_name="predictions", kinds={"mlflow"}, io_manager_key="document_io_manager")
@retried_asset
def model_evaluation(
    context: AssetExecutionContext,
    batch_predictions: pd.DataFrame,
    selected_model: Document,
    sparse_matrix: RatingMatrix,
    tracking: MlflowTracking,
) -> Output[Document]:
    """RMSE, MAE and MSE on the test split, beside the mean and bias baselines, and by segment."""
    matrix = sparse_matrix
    _require_same("selected_model", selected_model.content["fingerprint"], matrix.fingerprint())
    test = _ratings(matrix, "test")
    if not np.array_equal(test.rating, batch_predictions["rating"].to_numpy()):
        _require_same("batch_predictions", "another one", matrix.fingerprint())
    predictors, segments = compare(
        _ratings(matrix, "train"),
        _ratings(matrix, "validate"),
        test,
        batch_predictions["score"].to_numpy(),
        len(matrix.customers),
        len(matrix.videos),
    )
    rmse = predictors["rmse"]
    figure = plot_evaluation(predictors, segments)
    metrics = {
        "test_rmse": float(rmse["model"]),
        "test_mae": float(predictors["mae"]["model"]),
        "test_mse": float(predictors["mse"]["model"]),
        "bias_rmse": float(rmse["biases"]),
        "video_mean_rmse": float(rmse["video_mean"]),
        "mean_rmse": float(rmse["mean"]),
    }
    with tracking.attached(selected_model.content["mlflow_run_id"], context) as mlflow:
        mlflow.log_metrics(metrics)
        mlflow.log_figure(figure, "evaluation.png")
    context.log.info(
        f"test RMSE {rmse['model']:.4f}; customer + video biases {rmse['biases']:.4f}; "
        f"mean {rmse['mean']:.4f}"
    )
    png = as_png(figure)
    return Output(
        Document(
            {
                "model": selected_model.content["job_name"],
                **metrics,
                "predictors": predictors.reset_index().to_dict("records"),
                "segments": segments.to_dict("records"),
            },
            files={"evaluation.png": png},
        ),
        metadata={
            "model": selected_model.content["job_name"],
            **metrics,
            "predictors": MetadataValue.md(frame_as_markdown(predictors.reset_index())),
            "segments": MetadataValue.md(frame_as_markdown(segments)),
            "plot": as_image(png),
        },
    )


class RecommendationsConfig(Config):
    """How many videos to recommend."""

    count: int = Field(default=10, ge=1, description="Videos for each customer.")


@asset(group_name="predictions", kinds={"parquet"}, io_manager_key="parquet_io_manager")
@retried_asset
def recommendations(
    config: RecommendationsConfig,
    selected_model: Document,
    sparse_matrix: RatingMatrix,
    store: ObjectStore,
) -> Output[ParquetFolder]:
    """The best videos that a customer has not rated, for each customer, with titles."""
    matrix = sparse_matrix
    _require_same("selected_model", selected_model.content["fingerprint"], matrix.fingerprint())
    with TemporaryDirectory(prefix="recsys-") as name:
        path = Path(name) / "model.tar.gz"
        store.download(selected_model.content["artefact"], path)
        model = read_model_archive(path)
    customers, videos = len(matrix.customers), len(matrix.videos)
    columns = matrix.features.indices.reshape(-1, 2)
    seen = columns[:, 0], columns[:, 1] - np.int32(customers)
    found = ParquetFolder()
    schema = pa.schema(
        {
            "customer_id": pa.string(),
            "rank": pa.int32(),
            "video_id": pa.string(),
            "title": pa.string(),
            "score": pa.float32(),
        }
    )
    with pq.ParquetWriter(found.main, schema, compression="zstd") as writer:
        for customer, video, score in recommend(model, customers, videos, seen, count=config.count):
            rank = np.arange(len(customer)) - np.searchsorted(customer, customer) + 1
            writer.write_table(
                pa.table(
                    {
                        "customer_id": matrix.customers.ids.take(pa.array(customer)),
                        "rank": pa.array(rank, pa.int32()),
                        "video_id": matrix.videos.ids.take(pa.array(video)),
                        "title": matrix.videos.titles.take(pa.array(video)),
                        "score": pa.array(score),
                    },
                    schema=schema,
                )
            )
    return Output(
        found, metadata={"customers": customers, "model": selected_model.content["job_name"]}
    )


def _ratings(matrix: RatingMatrix, split: str) -> Ratings:
    customer, video = matrix.pairs(split)
    return Ratings(customer, video, matrix.labels[matrix.rows(split)])


def _require_same(asset: str, fingerprint: str, matrix: str) -> None:
    """Refuse to put rows and ids together that do not belong together."""
    if fingerprint != matrix:
        raise Failure(
            f"{asset} was not made from the current sparse_matrix; materialize {asset} and what "
            "depends on it first.",
            metadata={"fingerprint": fingerprint, "sparse_matrix": matrix},
            allow_retries=False,
        )
