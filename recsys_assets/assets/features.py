"""Features: the one-hot matrix and the RecordIO files that SageMaker reads.

What belongs here: sparse_matrix, protobuf_train, protobuf_validate and protobuf_test. What does
not: what reads them (``models.py``, ``predictions.py``).
"""

from dagster import Config, MetadataValue, Output, asset
from pydantic import Field

from recsys_assets.domain.features import RatingMatrix, build_rating_matrix
from recsys_assets.io_managers import LabelledRows, ParquetFolder


@asset(group_name="features", kinds={"scipy"}, io_manager_key="matrix_io_manager")
def sparse_matrix(filtered_ratings: ParquetFolder) -> Output[RatingMatrix]:
    """One-hot customer and video features and star labels, with their id maps."""
    matrix = build_rating_matrix(filtered_ratings.main)
    return Output(
        matrix,
        metadata={
            "customers": len(matrix.customers),
            "videos": len(matrix.videos),
            "feature_dim": matrix.feature_dim,
            "density": 2 / matrix.feature_dim,
            "fingerprint": matrix.fingerprint(),
        },
    )


def _protobuf(
    matrix: RatingMatrix, split: str, rows_per_file: int | None = None
) -> Output[LabelledRows]:
    """Return the rows of a split, which are written from where they lie in the matrix."""
    rows = matrix.rows(split)
    labels = matrix.labels[rows]
    mean = float(labels.mean()) if len(labels) else float("nan")
    return Output(
        LabelledRows(matrix.features, matrix.labels, matrix.fingerprint(), rows, rows_per_file),
        metadata={
            "mean_rating": MetadataValue.float(mean),
            "feature_dim": matrix.feature_dim,
        },
    )


@asset(group_name="features", kinds={"recordio"}, io_manager_key="recordio_io_manager")
def protobuf_train(sparse_matrix: RatingMatrix) -> Output[LabelledRows]:
    """What models are trained on, in a seeded hash order."""
    return _protobuf(sparse_matrix, "train")


@asset(group_name="features", kinds={"recordio"}, io_manager_key="recordio_io_manager")
def protobuf_validate(sparse_matrix: RatingMatrix) -> Output[LabelledRows]:
    """What training and tuning measure themselves on."""
    return _protobuf(sparse_matrix, "validate")


class ProtobufTestConfig(Config):
    """How the test split is cut into files."""

    rows_per_file: int = Field(
        default=10_000,
        ge=1,
        description="Rows in each file. A batch transform gives a file to one instance, and to its "
        "model 6 MB at a time, whatever the size of the file.",
    )


@asset(group_name="features", kinds={"recordio"}, io_manager_key="recordio_io_manager")
def protobuf_test(config: ProtobufTestConfig, sparse_matrix: RatingMatrix) -> Output[LabelledRows]:
    """What batch_predictions alone sees, in chunks."""
    return _protobuf(sparse_matrix, "test", config.rows_per_file)
