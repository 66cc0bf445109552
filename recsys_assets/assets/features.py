"""Features: the one-hot matrix and the RecordIO files that SageMaker reads.

What belongs here: sparse_matrix, protobuf_train, protobuf_validate and protobuf_test. What does
not: what reads them (``models.py``, ``predictions.py``).
"""

from dagster import AssetsDefinition, MetadataValue, Output, asset

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


def _protobuf(split: str, io_manager_key: str, description: str) -> AssetsDefinition:
    @asset(
        name=f"protobuf_{split}",
        group_name="features",
        kinds={"recordio"},
        io_manager_key=io_manager_key,
        description=description,
    )
    def protobuf(sparse_matrix: RatingMatrix) -> Output[LabelledRows]:
        rows = sparse_matrix.rows(split)
        labels = sparse_matrix.labels[rows]
        mean = float(labels.mean()) if len(labels) else float("nan")
        return Output(
            LabelledRows(sparse_matrix.features[rows], labels, sparse_matrix.fingerprint()),
            metadata={
                "mean_rating": MetadataValue.float(mean),
                "feature_dim": sparse_matrix.feature_dim,
            },
        )

    return protobuf


protobuf_train = _protobuf(
    "train", "recordio_io_manager", "What models are trained on, in a seeded hash order."
)
protobuf_validate = _protobuf(
    "validate", "recordio_io_manager", "What training and tuning measure themselves on."
)
protobuf_test = _protobuf(
    "test", "recordio_chunks_io_manager", "What batch_predictions alone sees, in chunks."
)
