"""How good predictions are, beside simple predictors that any model must beat.

What belongs here: error metrics, the baselines (global mean, video mean, customer + video biases)
and errors by segment. What does not: the models themselves and how a report is shown or stored.

Throughout, `customer` and `video` are int arrays of indices and `rating` a float array of stars,
one entry a rating.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

Indices = npt.NDArray[np.int32]
Floats = npt.NDArray[np.floating]

BIAS_REGULARISATIONS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_SWEEPS = 20
_ACTIVITY = [0, 3, 10, 30, np.inf]  # training ratings: bounds of the segments


@dataclass(frozen=True)
class Ratings:
    """Ratings of one split by index."""

    customer: Indices
    video: Indices
    rating: Floats

    def __len__(self) -> int:
        return len(self.rating)


@dataclass(frozen=True)
class Biases:
    """The predictor ``mean + customer bias + video bias``, float64; unseen ones have bias 0."""

    mean: float
    customer: npt.NDArray[np.float64]
    video: npt.NDArray[np.float64]
    regularisation: float

    def predict(self, customer: Indices, video: Indices) -> npt.NDArray[np.float64]:
        """Predict the stars of pairs."""
        return self.mean + self.customer[customer] + self.video[video]


def errors(rating: Floats, predicted: Floats) -> dict[str, float]:
    """Return rmse, mse and mae, in stars (mse in stars squared).

    Raises
    ------
    ValueError
        If there is nothing to compare, if the lengths differ, or if a prediction is not finite.
    """
    if not len(rating) or len(rating) != len(predicted):
        raise ValueError(
            f"expected a prediction for each of at least one rating, got {len(predicted)} "
            f"predictions for {len(rating)} ratings"
        )
    residual = np.asarray(predicted, dtype=np.float64) - np.asarray(rating, dtype=np.float64)
    if not np.isfinite(residual).all():
        raise ValueError(f"{int((~np.isfinite(residual)).sum())} predictions are not numbers")
    mse = float(np.mean(residual**2))
    return {"rmse": mse**0.5, "mse": mse, "mae": float(np.mean(np.abs(residual)))}


def fit_biases(train: Ratings, customers: int, videos: int, regularisation: float) -> Biases:
    """Fit biases by alternating ridge regression.

    Each bias is the sum of its residuals over (their number + `regularisation`), customers and
    videos in turn (Koren 2009, "The BellKor solution to the Netflix grand prize", section III,
    fitted to convergence).

    Parameters
    ----------
    customers, videos
        Sizes of the vocabularies: the lengths of the bias arrays.
    regularisation
        The ridge penalty, in ratings.
    """
    mean = float(np.mean(train.rating, dtype=np.float64))
    residual = train.rating.astype(np.float64) - mean
    customer_count = np.bincount(train.customer, minlength=customers) + regularisation
    video_count = np.bincount(train.video, minlength=videos) + regularisation
    customer_bias, video_bias = np.zeros(customers), np.zeros(videos)
    for _ in range(_SWEEPS):
        rest = residual - customer_bias[train.customer]
        video_bias = np.bincount(train.video, weights=rest, minlength=videos) / video_count
        rest = residual - video_bias[train.video]
        customer_bias = (
            np.bincount(train.customer, weights=rest, minlength=customers) / customer_count
        )
    return Biases(mean, customer_bias, video_bias, regularisation)


def choose_biases(train: Ratings, validate: Ratings, customers: int, videos: int) -> Biases:
    """Fit biases on `train` with each of `BIAS_REGULARISATIONS`; keep the best on `validate`."""
    fitted = [fit_biases(train, customers, videos, value) for value in BIAS_REGULARISATIONS]
    return min(
        fitted,
        key=lambda biases: errors(
            validate.rating, biases.predict(validate.customer, validate.video)
        )["rmse"],
    )


def video_means(train: Ratings, videos: int) -> npt.NDArray[np.float64]:
    """Return each video's mean rating in `train`, the global mean where it has none."""
    count = np.bincount(train.video, minlength=videos)
    total = np.bincount(train.video, weights=train.rating, minlength=videos)
    mean = float(np.mean(train.rating, dtype=np.float64))
    return np.where(count > 0, total / np.maximum(count, 1), mean)


def compare(
    train: Ratings,
    validate: Ratings,
    test: Ratings,
    predicted: Floats,
    customers: int,
    videos: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare a model's predictions for `test` with the baselines.

    Returns
    -------
    predictors
        Index ``predictor`` (model, biases, video_mean, mean), columns rmse, mse, mae.
    segments
        The model's and the biases' rmse by how often the customer or the video was rated in
        `train`: columns segment, training_ratings, rows, model_rmse, bias_rmse. Empty segments
        are left out.
    """
    biases = choose_biases(train, validate, customers, videos)
    bias_predicted = biases.predict(test.customer, test.video)
    predictions = {
        "model": np.asarray(predicted),
        "biases": bias_predicted,
        "video_mean": video_means(train, videos)[test.video],
        "mean": np.full(len(test), biases.mean),
    }
    predictors = pd.DataFrame(
        {name: errors(test.rating, values) for name, values in predictions.items()}
    ).T.rename_axis("predictor")

    segments = []
    for segment, index, trained in (
        ("customer", test.customer, np.bincount(train.customer, minlength=customers)),
        ("video", test.video, np.bincount(train.video, minlength=videos)),
    ):
        activity = trained[index]
        for low, high in pairwise(_ACTIVITY):
            here = (activity >= low) & (activity < high)
            if here.any():
                segments.append(
                    {
                        "segment": segment,
                        "training_ratings": f"{low:g}+" if high == np.inf else f"{low}-{high - 1}",
                        "rows": int(here.sum()),
                        "model_rmse": errors(test.rating[here], predictions["model"][here])["rmse"],
                        "bias_rmse": errors(test.rating[here], bias_predicted[here])["rmse"],
                    }
                )
    return predictors, pd.DataFrame(segments)
