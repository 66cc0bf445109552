"""The factorization machine: its parameters, and scoring with them.

What belongs here: the model equation and the shapes that go with it. What does not: how the
parameters are found (``solvers``) and how they are stored (``artefact``).

Source: Rendle 2010, "Factorization Machines", equations 1 and 3.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.special import expit

from recsys_assets.domain.factorization_machine.hyperparameters import PredictorType

Floats = npt.NDArray[np.float32]

_BYTES_PER_BLOCK = 1 << 20  # of factors or their sums: stays in a processor's own cache
_WORTH_COMPILED_CODE = 1 << 27  # records times factors: numpy takes longer than loading numba


class DataError(ValueError):
    """Records or labels that a model cannot take; the message says what was expected."""


@dataclass(frozen=True, eq=False)
class FactorizationMachine:
    """A factorization machine of second order.

    The score of a record x is w0 + w1·x + ½ Σ_f [(Σ_j v_jf x_j)² - Σ_j v_jf² x_j²], which for a
    binary classifier goes through the logistic function.

    Attributes
    ----------
    predictor_type
        "regressor" or "binary_classifier".
    bias
        w0.
    linear
        w1, float32 of shape ``(feature_dim,)``.
    factors
        v, float32 of shape ``(feature_dim, num_factors)``.

    Raises
    ------
    ValueError
        If shapes or dtypes differ from these.
    """

    predictor_type: PredictorType
    bias: float
    linear: Floats
    factors: Floats

    def __post_init__(self) -> None:
        expected = (self.feature_dim,)
        if (
            self.linear.shape != expected
            or self.factors.ndim != 2
            or self.factors.shape[:1] != expected
            or self.linear.dtype != np.float32
            or self.factors.dtype != np.float32
        ):
            raise ValueError(
                "expected float32 weights of shapes (n,) and (n, k), got "
                f"{self.linear.dtype} {self.linear.shape} and "
                f"{self.factors.dtype} {self.factors.shape}"
            )

    @property
    def feature_dim(self) -> int:
        """Number of features."""
        return len(self.linear)

    @property
    def num_factors(self) -> int:
        """Number of factors of each feature."""
        return int(self.factors.shape[1])

    @cached_property
    def _squared_norms(self) -> Floats:
        """Σ_f v_jf² of each feature j: what is to be taken off a square of sums."""
        norms: Floats = np.einsum("jf,jf->j", self.factors, self.factors)
        return norms

    def predict(self, X: csr_matrix) -> Floats:
        """Score records.

        Parameters
        ----------
        X
            CSR of shape ``(records, feature_dim)`` with any number of non-zeros a row. Values of a
            feature that a row stores twice add up.

        Returns
        -------
        numpy.ndarray
            float32 of shape ``(records,)``: the value for a regressor, the probability of label 1
            for a binary classifier.

        Raises
        ------
        DataError
            If the records have another width than the model.
        """
        X = as_features(X, self.feature_dim)
        is_pair = np.diff(X.indptr) == 2
        if is_pair.all():
            scores = self._scores_of_pairs(X)
        else:
            # by a formula on which the record alone decides, not its company
            scores = np.empty(X.shape[0], dtype=np.float32)
            scores[is_pair] = self._scores_of_pairs(X[is_pair])
            scores[~is_pair] = self._scores_of_any(X[~is_pair])
        if self.predictor_type == "binary_classifier":
            expit(scores, out=scores)
        return scores

    def _scores_of_any(self, X: csr_matrix) -> Floats:
        scores: Floats = np.empty(X.shape[0], dtype=np.float32)
        for rows in self._blocks(len(scores)):
            part = X[rows]
            sums = part @ self.factors
            squared = csr_matrix((part.data**2, part.indices, part.indptr), shape=part.shape)
            interactions = np.einsum("rf,rf->r", sums, sums) - squared @ self._squared_norms
            scores[rows] = np.float32(self.bias) + part @ self.linear + interactions / 2
        return scores

    def _scores_of_pairs(self, X: csr_matrix) -> Floats:
        """Score records of two features i and j: w0 + w_i x_i + w_j x_j + (v_i·v_j) x_i x_j."""
        features = X.indices.reshape(-1, 2).astype(np.int32, copy=False)
        values, bias = X.data.reshape(-1, 2), np.float32(self.bias)
        if len(features) * self.num_factors >= _WORTH_COMPILED_CODE:
            from recsys_assets.domain.factorization_machine.pairs import score_pairs

            return score_pairs(bias, self.linear, self.factors, features, values)
        scores: Floats = np.empty(len(features), dtype=np.float32)
        for rows in self._blocks(len(scores)):
            i, j = features[rows].T
            x_i, x_j = values[rows].T
            products = self.factors[i] * self.factors[j]
            # added up in the order of the columns, as compiled code does it
            interactions = np.add.accumulate(products, axis=1)[:, -1]
            scores[rows] = (
                bias + (self.linear[i] * x_i + self.linear[j] * x_j) + interactions * (x_i * x_j)
            )
        return scores

    def _blocks(self, records: int) -> Iterator[slice]:
        rows = max(1, _BYTES_PER_BLOCK // (4 * self.num_factors))
        for first in range(0, records, rows):
            yield slice(first, first + rows)


def as_features(X: csr_matrix, feature_dim: int) -> csr_matrix:
    """Return `X` as float32 with each feature stored once a row, in ascending order.

    Raises
    ------
    DataError
        If `X` has another width than `feature_dim`.
    """
    check_width(X, feature_dim)
    X = X.astype(np.float32, copy=False)
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X


def check_width(X: csr_matrix, feature_dim: int) -> None:
    """Raise DataError unless `X` has `feature_dim` columns."""
    if X.shape[1] != feature_dim:
        raise DataError(
            f"expected records of {feature_dim} features (feature_dim), got {X.shape[1]}"
        )
