"""Are the default hyperparameters good ones? Compares them with baselines, or searches for better.

    python benchmarks/default_hyperparameters.py              # the comparison, under a minute
    python benchmarks/default_hyperparameters.py --vary       # one of them changed at a time
    python benchmarks/default_hyperparameters.py --search 500 # a random search, a second a setting

Data are the ratings that the project generates and, where they are found, MovieTweetings and
MovieLens 100K (folders ``movietweetings`` and ``ml-100k`` of RECSYS_TEST_DATA), read, filtered and
split as the platform does. The comparison prints RMSE on the test split, the mean of five split
seeds; the other two look at the validate split alone. Models are trained by the code behind the
local SageMaker endpoint, on rows in the order in which SageMaker would read them.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recsys_assets.assets.models import Hyperparameters as Settings
from recsys_assets.domain.evaluation import Biases, Ratings, choose_biases, errors
from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.solvers.adam import train
from recsys_assets.domain.factorization_machine.solvers.common import DivergenceError
from recsys_assets.domain.features import RatingMatrix, build_rating_matrix
from recsys_assets.domain.ratings.filtering import FilterRules, filter_ratings
from recsys_assets.domain.ratings.generating import generate_amazon_reviews
from recsys_assets.domain.ratings.reading import read_ratings

PROJECT = Path(__file__).resolve().parent.parent
REAL_DATA = Path(os.environ.get("RECSYS_TEST_DATA", PROJECT.parent / "shared" / "data"))
SPLIT_SEEDS = range(5)
VARIATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"factors_wd": 0.00001},
    {"factors_wd": 0.0007},
    {"factors_wd": 0.0028},
    {"factors_lr": 0.0001},
    {"factors_lr": 0.0014},
    {"linear_lr": 0.001},
    {"linear_lr": 0.005},
    {"num_factors": 16},
    {"num_factors": 32},
)


@dataclass(frozen=True)
class DataSet:
    """One set of ratings, split by each of some seeds, with the biases fitted to each split."""

    name: str
    splits: list[tuple[RatingMatrix, Biases]]


def main() -> None:
    """Run the comparison, or with ``--search`` the search."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vary", action="store_true", help="change one setting at a time instead")
    parser.add_argument("--search", type=int, metavar="N", help="try N random settings instead")
    parser.add_argument("--seed", type=int, default=0, help="of the search (default 0)")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory() as folder:
        sources = find_sources(Path(folder))
        missing = [name for name, source in sources.items() if source is None]
        seeds = range(1) if arguments.search else SPLIT_SEEDS
        data_sets = [
            prepare(name, source, Path(folder), seeds)
            for name, source in sources.items()
            if source is not None
        ]
    if arguments.search:
        search(data_sets, arguments.search, arguments.seed)
    elif arguments.vary:
        vary(data_sets)
    else:
        compare(data_sets)
    for name in missing:
        print(f"\n{name}: not run, for want of its folder in {REAL_DATA}")


def find_sources(folder: Path) -> dict[str, Path | None]:
    """Return where the ratings of each data set lie, None where they are not to be had."""
    generated = folder / "generated.tsv.gz"
    generate_amazon_reviews(generated)
    real = {"MovieTweetings": REAL_DATA / "movietweetings", "ML-100K": REAL_DATA / "ml-100k"}
    return {"generated": generated} | {
        name: path if path.exists() else None for name, path in real.items()
    }


def prepare(name: str, source: Path, folder: Path, seeds: range) -> DataSet:
    """Read, filter and split ratings as the platform does, and fit the biases."""
    folder = folder / name
    read_ratings(source, folder)
    splits = []
    for seed in seeds:
        filter_ratings(
            folder / "ratings.parquet", folder / "filtered.parquet", FilterRules(seed=seed)
        )
        matrix = build_rating_matrix(folder / "filtered.parquet")
        parts = (split_of(matrix, "train"), split_of(matrix, "validate"))
        biases = choose_biases(*parts, len(matrix.customers), len(matrix.videos))
        splits.append((matrix, biases))
    return DataSet(name, splits)


def split_of(matrix: RatingMatrix, split: str) -> Ratings:
    """Return the ratings of a split by index."""
    return Ratings(*matrix.pairs(split), matrix.labels[matrix.rows(split)])


# ----------------------------------------------------------------------------------- comparison


def compare(data_sets: list[DataSet]) -> None:
    """Print the table of test RMSE."""
    workflow = yaml.safe_load((PROJECT / "recsys_assets/configs/source_workflow.yaml").read_text())
    of_workflow = workflow["ops"]["model_training"]["config"]["hyperparameters"]
    predictors: dict[str, Callable[[RatingMatrix, Biases], float]] = {
        "global mean": lambda matrix, biases: errors(
            split_of(matrix, "test").rating,
            np.full(matrix.split_rows["test"], biases.mean),
        )["rmse"],
        "customer + video biases": lambda matrix, biases: rmse_of_biases(matrix, biases, "test"),
        "the source workflow's settings": lambda matrix, _: rmse_of_settings(
            matrix, Settings(**of_workflow), "test"
        ),
        "the default settings": lambda matrix, _: rmse_of_settings(matrix, Settings(), "test"),
    }
    print("Test RMSE, mean of five split seeds, and its ratio to that of the biases\n")
    print(row("", [data_set.name for data_set in data_sets]))
    print("| --- " * (1 + len(data_sets)) + "|")
    sizes = []
    for matrix, _ in (data_set.splits[0] for data_set in data_sets):
        ids = f"{len(matrix.customers):,} customers, {len(matrix.videos):,} videos"
        sizes.append(f"{len(matrix.labels):,} of {ids}")
    print(row("ratings after the filter", sizes))
    of_biases = mean_rmse(data_sets, predictors["customer + video biases"])
    for name, predictor in predictors.items():
        figures = mean_rmse(data_sets, predictor)
        print(
            row(
                name,
                [
                    f"{figure:.4f} ({figure / bias:.3f})"
                    for figure, bias in zip(figures, of_biases, strict=True)
                ],
            ),
            flush=True,
        )
    print(f"\nThe default settings: {described(Settings())}")


def vary(data_sets: list[DataSet]) -> None:
    """Print the ratios to the biases, on the validate splits, of settings near the default ones."""
    print("Validate RMSE as a ratio to that of the biases, mean of five split seeds\n")
    print(row("change of the default settings", [data_set.name for data_set in data_sets]))
    print("| --- " * (1 + len(data_sets)) + "|")
    for change in VARIATIONS:
        ratios = [validate_ratio(Settings(**change), data_set) for data_set in data_sets]
        name = ", ".join(f"`{name}` {value:g}" for name, value in change.items()) or "none"
        print(row(name, [f"{ratio:.3f}" for ratio in ratios]), flush=True)


def mean_rmse(
    data_sets: list[DataSet], predictor: Callable[[RatingMatrix, Biases], float]
) -> list[float]:
    """Return each data set's mean over its splits."""
    return [
        float(np.mean([predictor(matrix, biases) for matrix, biases in data_set.splits]))
        for data_set in data_sets
    ]


def rmse_of_biases(matrix: RatingMatrix, biases: Biases, split: str) -> float:
    """Score the biases on a split."""
    ratings = split_of(matrix, split)
    return errors(ratings.rating, biases.predict(ratings.customer, ratings.video))["rmse"]


def rmse_of_settings(matrix: RatingMatrix, settings: Settings, split: str) -> float:
    """Train on the train split as the built-in would; score on another."""
    rows = matrix.rows("train")
    model = train(
        matrix.features[rows],
        matrix.labels[rows],
        ExtendedHyperparameters.from_strings(settings.as_strings(matrix.feature_dim)),
    )
    scored = matrix.rows(split)
    return errors(matrix.labels[scored], model.predict(matrix.features[scored]))["rmse"]


def row(name: str, cells: list[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join([name, *cells]) + " |"


def described(settings: Settings) -> str:
    """Return the settings that are sent to SageMaker."""
    strings = settings.as_strings(feature_dim=0)
    unsaid = {"feature_dim", "predictor_type"}
    return ", ".join(
        f"{name} {value}"
        for name, value in strings.items()
        if name not in unsaid and not name.endswith("_init_method")
    )


# --------------------------------------------------------------------------------------- search


def search(data_sets: list[DataSet], trials: int, seed: int) -> None:
    """Print each random setting that is the best so far, by the mean ratio on validate splits."""
    generator = np.random.default_rng(seed)
    best = float("inf")
    start = time.monotonic()
    for trial in range(trials):
        settings = Settings(**draw(generator))
        ratios = [validate_ratio(settings, data_set) for data_set in data_sets]
        mean = float(np.mean(ratios))
        if mean < best:
            best = mean
            shown = ", ".join(
                f"{data_set.name} {ratio:.4f}"
                for data_set, ratio in zip(data_sets, ratios, strict=True)
            )
            seconds = time.monotonic() - start
            print(f"trial {trial} ({seconds:.0f} s): mean ratio {best:.4f} ({shown})")
            print(f"  {described(settings)}", flush=True)


def validate_ratio(settings: Settings, data_set: DataSet) -> float:
    """Return the mean ratio to the biases on the validate split; infinite if training diverges."""
    try:
        return float(
            np.mean(
                [
                    rmse_of_settings(matrix, settings, "validate")
                    / rmse_of_biases(matrix, biases, "validate")
                    for matrix, biases in data_set.splits
                ]
            )
        )
    except DivergenceError:
        return float(np.inf)


def draw(generator: np.random.Generator) -> dict[str, Any]:
    """Draw settings: rates and decays from ranges on a logarithmic scale."""

    def between(low: float, high: float) -> float:
        return float(f"{np.exp(generator.uniform(np.log(low), np.log(high))):.2g}")

    return {
        "num_factors": int(generator.choice([8, 16, 32, 64])),
        "epochs": int(generator.integers(10, 41)),
        "mini_batch_size": int(generator.choice([100, 200, 500])),
        "linear_lr": between(1e-3, 1e-2),
        "factors_lr": between(3e-4, 2e-2),
        "bias_wd": between(1e-5, 1e-3),
        "linear_wd": between(3e-5, 1e-3),
        "factors_wd": between(3e-4, 5e-3),
        "factors_init_sigma": between(1e-3, 1e-2),
    }


if __name__ == "__main__":
    main()
