"""Random 90/10 splits of ratings, in files that every contestant reads.

What belongs here: making the splits, and their two formats (.npz, and libFM's text). What does not:
reading formats of ratings, which the platform does.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recsys_assets.domain.features import RatingMatrix, build_rating_matrix
from recsys_assets.domain.ratings.filtering import FilterRules, filter_ratings
from recsys_assets.domain.ratings.formats import AUTO
from recsys_assets.domain.ratings.generating import generate_amazon_reviews
from recsys_assets.domain.ratings.reading import read_ratings

_EVERYTHING = {"min_ratings_per_customer": 1, "min_ratings_per_video": 1}


@dataclass(frozen=True)
class Split:
    """Where one split lies.

    Attributes
    ----------
    folder
        Holds ``train`` and ``test``, each as .npz (`customers`, `videos`: int64 indices, `stars`:
        float32) and .libfm; and ``groups.libfm``, which tells customers (0) from videos (1).
    seed
        Of the split, and of those who learn from it.
    customers, videos
        How many there are in train and test together.
    train_ratings
        How many there are to learn from.
    stars
        Those of the test ratings.
    lowest, highest
        Stars in the training ratings: the scale.
    """

    folder: Path
    seed: int
    customers: int
    videos: int
    train_ratings: int
    stars: npt.NDArray[np.float32]
    lowest: float
    highest: float

    def rmse(self, predictions: npt.NDArray[np.floating]) -> float:
        """Return the error of predictions of the test ratings, clipped to the scale.

        Raises
        ------
        ValueError
            If they are not as many as the ratings, or not all finite.
        """
        if predictions.shape != self.stars.shape or not np.isfinite(predictions).all():
            raise ValueError(f"expected {len(self.stars)} finite predictions")
        clipped = np.clip(predictions, self.lowest, self.highest)
        return float(np.sqrt(np.mean((clipped - self.stars.astype(np.float64)) ** 2)))


def generate_ratings(folder: Path) -> Path:
    """Write the ratings that the project generates; return where they lie."""
    path = folder / "generated.tsv.gz"
    generate_amazon_reviews(path)
    return path


def make_splits(source: Path, folder: Path, *, splits: int, format: str = AUTO) -> list[Split]:
    """Read ratings as the platform does, all of them but repeated pairs, and split them.

    Parameters
    ----------
    source, format
        As ``recsys_assets.domain.ratings.reading.read_ratings`` takes them.
    folder
        Where the splits go, made if it is not there.
    splits
        How many, each random and with rows in random order.
    """
    read_ratings(source, folder, format=format)
    return [_make_split(folder, seed) for seed in range(splits)]


def _make_split(folder: Path, seed: int) -> Split:
    here = folder / f"split-{seed}"
    here.mkdir()
    filtered = here / "filtered.parquet"
    rules = FilterRules(**_EVERYTHING, train_share=0.8, validate_share=0.1, seed=seed)
    filter_ratings(folder / "ratings.parquet", filtered, rules)
    matrix = build_rating_matrix(filtered)
    test = matrix.rows("test")
    train = slice(0, test.start)  # validation ratings are trained on as well
    for name, rows in (("train", train), ("test", test)):
        _write(here / name, matrix, rows)
    groups = np.repeat([0, 1], [len(matrix.customers), len(matrix.videos)])
    np.savetxt(here / "groups.libfm", groups, fmt="%d")
    return Split(
        folder=here,
        seed=seed,
        customers=len(matrix.customers),
        videos=len(matrix.videos),
        train_ratings=test.start,
        stars=matrix.labels[test],
        lowest=float(matrix.labels[train].min()),
        highest=float(matrix.labels[train].max()),
    )


def _write(path: Path, matrix: RatingMatrix, rows: slice) -> None:
    columns = matrix.features.indices.reshape(-1, 2)[rows].astype(np.int64)
    stars = matrix.labels[rows]
    np.savez(
        path.with_suffix(".npz"),
        customers=columns[:, 0],
        videos=columns[:, 1] - len(matrix.customers),
        stars=stars,
    )
    with path.with_suffix(".libfm").open("w") as file:
        file.writelines(
            f"{rating:g} {customer}:1 {video}:1\n"
            for rating, (customer, video) in zip(stars.tolist(), columns.tolist(), strict=True)
        )
