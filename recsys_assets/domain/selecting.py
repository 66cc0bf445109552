"""Which of two models predicts the same ratings better, each with its own customers and videos.

What belongs here: scoring pairs of ids with a model of any vocabulary, and comparing two models.
What does not: where models come from, and what follows from the comparison.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix

from recsys_assets.domain.evaluation import errors
from recsys_assets.domain.factorization_machine.model import FactorizationMachine
from recsys_assets.domain.features import RatingMatrix, Vocabulary

Indices = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

_UNKNOWN = -1


@dataclass(frozen=True)
class TrainedModel:
    """A model, and the matrix whose train split it was trained on."""

    model: FactorizationMachine
    matrix: RatingMatrix

    def __post_init__(self) -> None:
        if self.model.feature_dim != self.matrix.feature_dim:
            raise ValueError(
                f"expected a model of {self.matrix.feature_dim} features, as its matrix has, got "
                f"{self.model.feature_dim}"
            )


@dataclass(frozen=True)
class Comparison:
    """How two models predict the same ratings.

    Attributes
    ----------
    rows
        Number of ratings.
    new_rmse, current_rmse
        In stars.
    """

    rows: int
    new_rmse: float
    current_rmse: float


def compare_models(new: TrainedModel, current: TrainedModel) -> Comparison | None:
    """Compare two models on the validate split of the new one's matrix.

    Ratings of pairs that the current model was trained on are left out, for it would be favoured.
    To a customer or a video that it does not know the current model gives no weight: what remains
    of the prediction is what it knows.

    Returns
    -------
    Comparison or None
        None if there is no rating to compare them on.

    Raises
    ------
    ValueError
        If a model predicts something that is no number.
    """
    pairs = new.matrix.pairs("validate")
    rating = new.matrix.labels[new.matrix.rows("validate")]
    known = (
        _indices(current.matrix.customers, new.matrix.customers)[pairs[0]],
        _indices(current.matrix.videos, new.matrix.videos)[pairs[1]],
    )
    fair = ~_among(known, current.matrix.pairs("train"), len(current.matrix.videos))
    if not fair.any():
        return None
    rmse = [
        errors(rating[fair], predict_pairs(trained, customer[fair], video[fair]))["rmse"]
        for trained, (customer, video) in ((new, pairs), (current, known))
    ]
    return Comparison(int(fair.sum()), *rmse)


def predict_pairs(trained: TrainedModel, customer: Indices, video: Indices) -> Floats:
    """Score pairs of a customer and a video.

    Parameters
    ----------
    customer, video
        Indices in the vocabularies of the model's matrix, int32, one entry a pair; below 0 for one
        that it does not know, which has no features.

    Returns
    -------
    numpy.ndarray
        float32, one score a pair.
    """
    columns = np.column_stack((customer, video + np.int32(len(trained.matrix.customers))))
    known = np.column_stack((customer >= 0, video >= 0))
    row_ends = np.cumsum(known.sum(axis=1))
    features = csr_matrix(
        (np.ones(int(known.sum()), np.float32), columns[known], np.concatenate(([0], row_ends))),
        shape=(len(customer), trained.matrix.feature_dim),
    )
    return trained.model.predict(features)


def _indices(vocabulary: Vocabulary, of: Vocabulary) -> Indices:
    """Return the index in one vocabulary of each id of another."""
    found: pa.Array = pc.index_in(of.ids, value_set=vocabulary.ids).fill_null(_UNKNOWN)
    return np.asarray(found, dtype=np.int32)


def _among(
    pairs: tuple[Indices, Indices], others: tuple[Indices, Indices], videos: int
) -> npt.NDArray[np.bool_]:
    """Tell which pairs, of known customers and videos, are among others."""
    code, other = (
        customer.astype(np.int64) * videos + video for customer, video in (pairs, others)
    )
    return np.isin(code, other) & (pairs[0] >= 0) & (pairs[1] >= 0)
