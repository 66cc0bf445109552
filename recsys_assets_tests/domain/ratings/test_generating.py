"""The generator: its shape, its planted signal, its roughness, its determinism."""

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from recsys_assets.domain.ratings.generating import GeneratedReviews, generate_amazon_reviews
from recsys_assets.domain.ratings.profiling import RatingsProfile, profile_ratings
from recsys_assets.domain.ratings.reading import ReadReport, read_ratings

ROWS = 200_000


class Generated:
    """One generated file, read."""

    def __init__(self, folder: Path) -> None:
        self.known: GeneratedReviews = generate_amazon_reviews(
            folder / "reviews.tsv.gz", rows=ROWS, body_words=3, malformed_share=0.001
        )
        self.report: ReadReport = read_ratings(self.known.path, folder)
        self.profile: RatingsProfile = profile_ratings(folder / "ratings.parquet")
        self.ratings: pd.DataFrame = pq.read_table(folder / "ratings.parquet").to_pandas()

    def long_tail_filtered(self) -> pd.DataFrame:
        per_customer = self.ratings.groupby("customer_id")["rating"].transform("size")
        per_video = self.ratings.groupby("video_id")["rating"].transform("size")
        return self.ratings[(per_customer >= 5) & (per_video >= 10)]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return Generated(tmp_path_factory.mktemp("generated"))


def test_rows_customers_and_videos_are_in_the_proportions_of_the_digital_video_set(
    generated: Generated,
) -> None:
    assert generated.report.rows_read == ROWS
    assert generated.known.customers == round(ROWS * 2_075_970 / 4_057_147)
    assert generated.known.videos == round(ROWS * 165_760 / 4_057_147)
    assert generated.profile.customers == pytest.approx(generated.known.customers, rel=0.002)
    assert generated.profile.videos == pytest.approx(generated.known.videos, rel=0.002)


def test_the_tails_are_as_long_as_those_of_the_digital_video_set(generated: Generated) -> None:
    assert generated.profile.per_customer.percentiles["p95"] == 5
    assert 9 <= generated.profile.per_video.percentiles["p75"] <= 11
    assert generated.profile.per_video.largest_share == pytest.approx(0.01, rel=0.05)


def test_the_long_tail_filter_leaves_the_published_shares(generated: Generated) -> None:
    left = generated.long_tail_filtered()
    assert len(left) / ROWS == pytest.approx(1_028_559 / 4_057_147, rel=0.1)
    customers, videos = left["customer_id"].nunique(), left["video_id"].nunique()
    assert customers / generated.known.customers == pytest.approx(140_344 / 2_075_970, rel=0.1)
    # In a small catalogue no video can be as far out as in the full one, so more are of use.
    assert 0.2 < videos / generated.known.videos < 0.3


def test_stars_lie_heavily_at_5(generated: Generated) -> None:
    published = {1: 0.085, 2: 0.045, 3: 0.08, 4: 0.175, 5: 0.615}
    assert generated.profile.star_shares == pytest.approx(published, abs=0.02)


def test_malformed_lines_are_as_many_as_said_and_of_every_kind(generated: Generated) -> None:
    assert generated.known.malformed_rows == generated.report.rows_rejected == 200
    # Kinds take turns, so the first two of the nine have one line more; two are not a number.
    assert generated.report.rejects_by_reason == {
        "too few fields": 23,
        "too many fields": 23,
        "empty rating": 22,
        "rating is not a number": 44,
        "rating out of range": 22,
        "missing id": 22,
        "broken UTF-8": 22,
        "NUL byte in an id": 22,
    }


def test_duplicates_are_as_many_as_said_and_differ_in_date(generated: Generated) -> None:
    pairs = generated.ratings.groupby(["customer_id", "video_id"])
    assert len(generated.ratings) - pairs.ngroups == generated.known.duplicate_rows
    assert generated.known.duplicate_rows / ROWS == pytest.approx(0.003, rel=0.05)
    repeated = pairs["reviewed_at"].agg(["size", "nunique"]).query("size > 1")
    assert (repeated["nunique"] > 1).mean() > 0.95


def test_reviews_look_like_reviews(generated: Generated) -> None:
    ratings = generated.ratings
    assert ratings["review_id"].is_unique
    assert ratings["title"].notna().all()
    assert ratings.groupby("video_id")["title"].nunique().max() == 1
    assert ratings["title"].nunique() > 1000
    assert ratings["reviewed_at"].is_monotonic_decreasing
    assert ratings["reviewed_at"].dt.year.between(2000, 2015).all()
    with gzip.open(generated.known.path, "rt", encoding="utf-8", errors="replace") as file:
        lines = [line.rstrip("\n").split("\t") for line in file]
    assert lines[0][-1] == "review_date"
    unbalanced = [fields for fields in lines if len(fields) == 15 and fields[13].count('"') % 2]
    assert len(unbalanced) / ROWS == pytest.approx(0.03, rel=0.1)
    assert Counter(map(len, lines)).keys() == {9, 15, 16}


def rmse(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(error**2)))


def biases(data: pd.DataFrame, train: np.ndarray, target: pd.Series) -> np.ndarray:
    """Regularised customer and video means of a target, fitted alternately on the train rows."""
    effects = {"customer_id": np.zeros(len(data)), "video_id": np.zeros(len(data))}
    for _ in range(10):
        for key, other in (("video_id", "customer_id"), ("customer_id", "video_id")):
            rest = (target - effects[other]).where(train, 0.0)
            sums = rest.groupby(data[key]).transform("sum")
            counts = pd.Series(train, index=data.index).groupby(data[key]).transform("sum")
            effects[key] = (sums / (counts + 4)).to_numpy()
    return effects["customer_id"] + effects["video_id"]


def with_one_factor(data: pd.DataFrame, train: np.ndarray) -> np.ndarray:
    """Biases and one latent factor, by alternating ridge regressions on the train rows."""
    customer, video = (
        data[key].astype("category").cat.codes for key in ("customer_id", "video_id")
    )
    mean = data["rating"][train].mean()
    target = (data["rating"] - mean).to_numpy(dtype=float)
    rng = np.random.default_rng(0)
    theta = {"customer": np.zeros((customer.max() + 1, 2)), "video": np.zeros((video.max() + 1, 2))}
    theta["video"][:, 1] = rng.normal(0, 0.5, video.max() + 1)
    sides = {"customer": customer.to_numpy(), "video": video.to_numpy()}
    for _ in range(40):
        for side, other in (("customer", "video"), ("video", "customer")):
            index = sides[side][train]
            known = theta[other][sides[other][train]]
            x = np.stack([np.ones(len(known)), known[:, 1]], axis=1)
            precision = np.zeros((len(theta[side]), 2, 2))
            np.add.at(precision, index, x[:, :, None] * x[:, None, :])
            moment = np.zeros((len(theta[side]), 2))
            np.add.at(moment, index, x * (target[train] - known[:, 0])[:, None])
            precision += np.diag([4.0, 6.0])
            theta[side] = np.linalg.solve(precision, moment[..., None])[..., 0]
    left, right = theta["customer"][sides["customer"]], theta["video"][sides["video"]]
    return mean + left[:, 0] + right[:, 0] + left[:, 1] * right[:, 1]


def test_biases_beat_the_mean_and_a_factor_beats_biases(generated: Generated) -> None:
    data = generated.long_tail_filtered().reset_index(drop=True)
    train = np.random.default_rng(0).random(len(data)) < 0.7
    rating = data["rating"].astype(float)
    mean = rating[train].mean()
    by_mean = rmse((rating - mean)[~train])
    by_biases = rmse((rating - mean - biases(data, train, rating - mean))[~train])
    by_factor = rmse((rating - with_one_factor(data, train))[~train])
    assert by_biases < 0.9 * by_mean
    assert by_factor < 0.98 * by_biases
    assert generated.known.oracle_rmse < 0.8 * by_factor
    assert 0 < generated.known.noise_sigma < 1


def test_the_same_arguments_give_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    def write(name: str, seed: int) -> bytes:
        return generate_amazon_reviews(tmp_path / name, rows=2000, seed=seed).path.read_bytes()

    assert write("a.gz", 7) == write("b.gz", 7)
    assert write("a.gz", 7) != write("c.gz", 8)


def test_bodies_have_about_the_words_asked_for(tmp_path: Path) -> None:
    known = generate_amazon_reviews(tmp_path / "a.gz", rows=5000, body_words=30, malformed_share=0)
    with gzip.open(known.path, "rt", encoding="utf-8") as file:
        words = [len(line.split("\t")[13].split()) for line in file][1:]
    assert np.mean(words) == pytest.approx(30, rel=0.1)
    assert known.malformed_rows == 0


@pytest.mark.parametrize("rows", [100, 101, 1234])
def test_small_files_are_whole(tmp_path: Path, rows: int) -> None:
    known = generate_amazon_reviews(tmp_path / "a.gz", rows=rows, malformed_share=0.1)
    report = read_ratings(known.path, tmp_path)
    assert report.rows_read == rows
    assert report.rows_rejected == known.malformed_rows == round(rows * 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 99}, "rows must be between 100 and 100,000,000, got 99"),
        ({"body_words": 0}, "body_words must be between 1 and 1000, got 0"),
        ({"body_words": 1001}, "body_words must be between 1 and 1000, got 1001"),
        ({"malformed_share": 0.6}, "malformed_share must be between 0 and 0.5, got 0.6"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate_amazon_reviews(tmp_path / "a.gz", **arguments)
