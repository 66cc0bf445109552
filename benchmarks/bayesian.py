"""How accurate is the Bayesian factorization machine? Test RMSE on several sets of ratings.

    python benchmarks/bayesian.py                          # all tables, some twenty minutes
    python benchmarks/bayesian.py --ratings ../shared/data # real ratings from another folder

Data are three sets that the project generates, ever sparser, and, where the folders ``ml-100k`` and
``movietweetings`` are found (in RECSYS_TEST_DATA if no folder is given), real ones. Prints, as
means over five splits with their standard errors:

- against biases: 60/20/20, read, filtered and split as the platform does. The ratio is to customer
  + video biases whose regularisation is chosen on the validate split; the sampler's priors and
  sweeps are the same for all sets and nothing is chosen for one.
- by rank: random 90/10 splits of all of ML-100K, as other samplers are measured on.
- side features: the gain over the plain model on the 90/10 splits of ML-100K, paired by split.
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from default_hyperparameters import REAL_DATA, SPLIT_SEEDS, DataSet, rmse_of_biases, row, split_of
from scipy.sparse import csr_matrix, eye_array, hstack

from recsys_assets.domain.evaluation import Biases, choose_biases, errors
from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.solvers.bayesian import train
from recsys_assets.domain.features import RatingMatrix, build_rating_matrix
from recsys_assets.domain.ratings.filtering import FilterRules, filter_ratings
from recsys_assets.domain.ratings.generating import generate_amazon_reviews
from recsys_assets.domain.ratings.reading import read_ratings
from recsys_assets.domain.side_features import (
    customer_time_bins,
    genre_shares,
    rated_videos,
    time_bins,
)

SWEEPS, BURN_IN = 120, 20
RANK = 16
RANKS = (8, 16, 32)
LONG_TAIL = {"dense": (10, 20), "medium": (5, 10), "sparse": (2, 2)}  # the filter's thresholds
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Builder = Callable[[Rows], csr_matrix]  # of a block for all ratings, given which are known


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--ratings",
        type=Path,
        metavar="FOLDER",
        default=REAL_DATA,
        help="where real ratings lie (default: %(default)s)",
    )
    folder = parser.parse_args().ratings
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    compare_with_biases(folder)
    if (folder / "ml-100k").exists():
        compare_ranks(folder / "ml-100k")
        compare_side_features(folder / "ml-100k")
    for name in ("ml-100k", "movietweetings"):
        if not (folder / name).exists():
            print(f"\n{name}: not run, for want of its folder in {folder}")


# --------------------------------------------------------------------------------- against biases


def compare_with_biases(folder: Path) -> None:
    """Print test RMSE beside that of customer + video biases."""
    print(f"60/20/20, rank {RANK}: test RMSE, mean of five splits ± its standard error\n")
    print(row("ratings", ["after the filter", "biases", "sampled", "ratio", "ratio by split"]))
    print("| --- " * 6 + "|")
    for data_set in data_sets(folder):
        matrix = data_set.splits[0][0]
        of_biases = [rmse_of_biases(*split, "test") for split in data_set.splits]
        sampled = [rmse_on_test(matrix) for matrix, _ in data_set.splits]
        ratios = np.divide(sampled, of_biases)
        cells = [f"{len(matrix.labels):,}", spread(of_biases), spread(sampled)]
        by_split = ", ".join(f"{ratio:.4f}" for ratio in ratios)
        print(row(data_set.name, [*cells, f"{ratios.mean():.4f}", by_split]), flush=True)


def data_sets(folder: Path) -> Iterator[DataSet]:
    """Yield each set of ratings, split by each seed, with the biases fitted to each split."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for real in ("ml-100k", "movietweetings"):
            if (folder / real).exists():
                read_ratings(folder / real, scratch / real)
                yield DataSet(real, list(splits(scratch / real)))
        generated = scratch / "generated.tsv.gz"
        generate_amazon_reviews(generated)
        read_ratings(generated, scratch / "generated")
        for density, (per_customer, per_video) in LONG_TAIL.items():
            rules = {
                "min_ratings_per_customer": per_customer,
                "min_ratings_per_video": per_video,
            }
            yield DataSet(f"generated, {density}", list(splits(scratch / "generated", **rules)))


def splits(folder: Path, **rules: int) -> Iterator[tuple[RatingMatrix, Biases]]:
    """Yield the ratings of a folder as each seed splits them, and the biases."""
    for seed in SPLIT_SEEDS:
        filtered = folder / "filtered.parquet"
        filter_ratings(folder / "ratings.parquet", filtered, FilterRules(seed=seed, **rules))
        matrix = build_rating_matrix(filtered)
        parts = (split_of(matrix, "train"), split_of(matrix, "validate"))
        yield matrix, choose_biases(*parts, len(matrix.customers), len(matrix.videos))


def rmse_on_test(matrix: RatingMatrix) -> float:
    """Sample from the train split; score on the test split."""
    known, test = matrix.rows("train"), matrix.rows("test")
    return rmse(
        (matrix.features[known], matrix.labels[known]),
        (matrix.features[test], matrix.labels[test]),
    )


# ------------------------------------------------------------------------- ML-100K, 90/10 at random


class MovieLens:
    """All of ML-100K: `base`, the indicators of customers and videos, and what else is known."""

    def __init__(self, folder: Path) -> None:
        customer, video, stars, seconds = np.loadtxt(folder / "u.data", dtype=np.int64).T
        self.customer, self.video = customer - 1, video - 1
        self.stars = stars.astype(np.float32)
        self.given_at = seconds.astype("datetime64[s]")
        lines = (folder / "u.item").read_text("latin-1").splitlines()
        flags = [line.split("|")[5:] for line in lines]
        self.genres = [[str(g) for g, flag in enumerate(row) if flag == "1"] for row in flags]
        self.customers, self.videos = int(customer.max()), len(lines)
        self.base = [
            csr_matrix(eye_array(size, dtype=np.float32, format="csr"))[index]
            for size, index in ((self.customers, self.customer), (self.videos, self.video))
        ]

    def rmse_of(
        self,
        builders: Sequence[Builder],
        seed: int,
        rank: int = RANK,
    ) -> float:
        """Train on a random nine tenths, with side features if any; score the rest."""
        test, known = np.split(np.random.default_rng(seed).permutation(len(self.stars)), [10_000])
        used = [*self.base, *(build(known) for build in builders)]
        X = hstack(used, format="csr")
        sizes = tuple(block.shape[1] for block in used)
        return rmse((X[known], self.stars[known]), (X[test], self.stars[test]), rank, sizes)

    def genre_block(self, known: Rows) -> csr_matrix:
        """Genres are known of every video."""
        return genre_shares(self.video, self.genres)

    def time_block(self, known: Rows) -> csr_matrix:
        """When a customer's first rating was given is known of the ratings to train on."""
        return customer_time_bins(
            self.customer,
            self.given_at,
            self.customer[known],
            self.given_at[known],
            self.customers,
        )

    def day_block(self, known: Rows) -> csr_matrix:
        """Days from the first to the last of the ratings to train on."""
        days = self.given_at[known].astype("datetime64[D]")
        return time_bins(self.given_at, np.arange(days.min() + 1, days.max() + 1))

    def implicit_block(self, known: Rows) -> csr_matrix:
        """Who rated what is known of the ratings to train on."""
        return rated_videos(
            self.customer, self.customer[known], self.video[known], self.customers, self.videos
        )


def compare_ranks(folder: Path) -> None:
    """Print test RMSE of the plain model by rank."""
    ratings = MovieLens(folder)
    print(f"\nML-100K, 90/10 at random, {SWEEPS} sweeps: test RMSE ± its standard error\n")
    print(row("rank", ["RMSE", "by split"]))
    print("| --- " * 3 + "|")
    for rank in RANKS:
        figures = [ratings.rmse_of([], seed, rank) for seed in SPLIT_SEEDS]
        by_split = ", ".join(f"{figure:.4f}" for figure in figures)
        print(row(str(rank), [spread(figures), by_split]), flush=True)


def compare_side_features(folder: Path) -> None:
    """Print what side features gain over the plain model."""
    ratings = MovieLens(folder)
    chosen: dict[str, list[Builder]] = {
        "none": [],
        "genres": [ratings.genre_block],
        "customer's time": [ratings.time_block],
        "day": [ratings.day_block],
        "implicit feedback": [ratings.implicit_block],
        "genres, customer's time": [ratings.genre_block, ratings.time_block],
        "these and implicit feedback": [
            ratings.genre_block,
            ratings.time_block,
            ratings.implicit_block,
        ],
    }
    print(f"\nML-100K, 90/10 at random, rank {RANK}: side features\n")
    print(row("side features", ["RMSE", "gain, paired", "gain / its standard error"]))
    print("| --- " * 4 + "|")
    plain: list[float] = []
    for name, builders in chosen.items():
        figures = [ratings.rmse_of(builders, seed) for seed in SPLIT_SEEDS]
        plain = plain or figures
        gains = np.subtract(plain, figures)
        cells = [spread(figures)]
        if builders:
            cells += [spread(gains), f"{gains.mean() / standard_error(gains):.1f}"]
        else:
            cells += ["", ""]
        print(row(name, cells), flush=True)


def rmse(
    known: tuple[csr_matrix, Floats],
    test: tuple[csr_matrix, Floats],
    rank: int = RANK,
    feature_blocks: tuple[int, ...] | None = None,
) -> float:
    """Return the test RMSE of the sampled model."""
    hyperparameters = ExtendedHyperparameters(
        feature_dim=known[0].shape[1],
        num_factors=rank,
        predictor_type="regressor",
        solver="mcmc",
        epochs=SWEEPS,
        burn_in=BURN_IN,
        feature_blocks=feature_blocks,
    )
    model = train(*known, hyperparameters)
    return errors(test[1], model.predict(test[0]))["rmse"]


def spread(figures: Sequence[float] | npt.NDArray[np.float64]) -> str:
    """Return the mean and its standard error."""
    return f"{np.mean(figures):.4f} ± {standard_error(figures):.4f}"


def standard_error(figures: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """Return the standard error of the mean."""
    return float(np.std(figures, ddof=1) / np.sqrt(len(figures)))


if __name__ == "__main__":
    main()
