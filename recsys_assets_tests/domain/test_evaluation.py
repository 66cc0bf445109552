"""Error metrics and baselines against answers worked out by hand."""

import numpy as np
import pytest

from recsys_assets.domain.evaluation import (
    Ratings,
    choose_biases,
    compare,
    errors,
    fit_biases,
    video_means,
)


def ratings(*rows: tuple[int, int, float]) -> Ratings:
    customer, video, rating = zip(*rows, strict=True)
    return Ratings(np.array(customer, np.int32), np.array(video, np.int32), np.array(rating))


def planted(rows: int, seed: int) -> Ratings:
    """Ratings of fixed customer and video biases with a little noise, 20 by 10."""
    truth = np.random.default_rng(0)
    customer_bias, video_bias = truth.normal(0, 0.5, 20), truth.normal(0, 0.8, 10)
    rng = np.random.default_rng(seed)
    customer, video = rng.integers(0, 20, rows), rng.integers(0, 10, rows)
    rating = 3 + customer_bias[customer] + video_bias[video] + rng.normal(0, 0.05, rows)
    return Ratings(customer.astype(np.int32), video.astype(np.int32), rating)


def test_errors_of_a_known_answer() -> None:
    assert errors(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 2.0])) == pytest.approx(
        {"mse": 5 / 3, "rmse": (5 / 3) ** 0.5, "mae": 1.0}
    )


@pytest.mark.parametrize("predicted", [[], [1.0], [1.0, np.nan]])
def test_missing_or_undefined_predictions_are_an_error(predicted: list[float]) -> None:
    with pytest.raises(ValueError, match="predictions"):
        errors(np.array([1.0, 2.0]), np.array(predicted))


def test_biases_are_the_solution_of_their_ridge_regression() -> None:
    train, penalty = planted(200, seed=1), 4.0
    biases = fit_biases(train, 20, 10, penalty)
    design = np.zeros((200, 30))
    design[np.arange(200), train.customer] = 1
    design[np.arange(200), 20 + train.video] = 1
    expected = np.linalg.solve(
        design.T @ design + penalty * np.eye(30), design.T @ (train.rating - biases.mean)
    )
    np.testing.assert_allclose(np.r_[biases.customer, biases.video], expected, atol=1e-6)


def test_a_customer_or_video_that_was_never_seen_has_no_bias() -> None:
    biases = fit_biases(ratings((0, 0, 5.0), (0, 1, 1.0)), 2, 3, 1.0)
    assert biases.predict(np.array([1], np.int32), np.array([2], np.int32)) == [3.0]


def test_the_regularisation_is_the_one_that_is_best_on_validate() -> None:
    noisy = Ratings(*(planted(300, 2).customer, planted(300, 2).video, planted(300, 9).rating))
    assert choose_biases(planted(300, 2), planted(99, 3), 20, 10).regularisation == 0.5
    assert choose_biases(noisy, planted(99, 3), 20, 10).regularisation > 4


def test_video_means_fall_back_on_the_global_mean() -> None:
    train = ratings((0, 0, 5.0), (1, 0, 4.0), (0, 1, 3.0))
    assert video_means(train, 3).tolist() == [4.5, 3.0, 4.0]


def test_a_perfect_model_beats_every_baseline_and_segments_add_up() -> None:
    train, validate, test = planted(300, 1), planted(100, 2), planted(100, 3)
    predictors, segments = compare(train, validate, test, test.rating, 20, 10)
    assert predictors.index.tolist() == ["model", "biases", "video_mean", "mean"]
    assert predictors.loc["model", "rmse"] == 0
    assert predictors["rmse"].is_monotonic_increasing
    for segment in ("customer", "video"):
        assert segments.loc[segments["segment"] == segment, "rows"].sum() == 100
