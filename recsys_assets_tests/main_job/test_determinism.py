"""The same ratings in another order give the same bytes, from the filter to the recommendations."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from recsys_assets.domain.ratings.generating import generate_amazon_reviews
from recsys_assets.settings import Settings
from recsys_assets_tests.main_job.in_process import Config, Platform, platform

pytestmark = pytest.mark.xdist_group("in_process")

FEATURES = (
    "filtered_ratings",
    "sparse_matrix",
    "protobuf_train",
    "protobuf_validate",
    "protobuf_test",
)
PREDICTED = ("batch_predictions", "recommendations")


def amazon_reviews(path: Path) -> tuple[bytes, list[bytes]]:
    """Reviews with malformed lines and with pairs reviewed twice."""
    written = generate_amazon_reviews(path, rows=6_000, body_words=1, malformed_share=0.005)
    assert written.malformed_rows > 0
    assert written.duplicate_rows > 0
    header, *lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    return header, lines


def table_of_ties() -> tuple[bytes, list[bytes]]:
    """A table without review ids, in which nothing but the rules on ties decides.

    Pairs are rated up to three times on one day, and videos have several titles.
    """
    rng = np.random.default_rng(3)
    lines = [
        f"c{customer},v{video},{rng.integers(1, 6)},Title {rng.integers(3)},2020-01-01\n".encode()
        for customer in range(60)
        for video in range(40)
        for _ in range(rng.choice(4, p=[0.3, 0.5, 0.15, 0.05]))
    ]
    return b"customer_id,video_id,rating,title,reviewed_at\n", lines


def hashes(made_by: Platform, assets: tuple[str, ...]) -> dict[str, str]:
    return {asset: made_by.store.require(asset).content_hash for asset in assets}


def contents(made_by: Platform, asset: str, folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in made_by.files(asset, folder / asset)}


@pytest.mark.parametrize("source", ["amazon reviews", "a table of ties"])
def test_shuffled_rows_give_the_same_bytes(settings: Settings, tmp_path: Path, source: str) -> None:
    amazon = source == "amazon reviews"
    name = "reviews.tsv" if amazon else "ratings.csv"
    header, lines = amazon_reviews(tmp_path / "generated.gz") if amazon else table_of_ties()
    shuffled = [lines[row] for row in np.random.default_rng(1).permutation(len(lines))]
    assert shuffled != lines

    seen = []
    for order, rows in {"given": lines, "shuffled": shuffled}.items():
        folder = tmp_path / order
        folder.mkdir()
        (folder / name).write_bytes(header + b"".join(rows))
        config: Config = {
            "raw_ratings": {"source": str(folder / name)},
            "filtered_ratings": {"min_ratings_per_customer": 2, "min_ratings_per_video": 2},
        }
        with platform(settings, f"determinism/{order}/{name}") as made_by:
            made_by.run(config, ["raw_ratings", *FEATURES])
            seen.append(
                (
                    made_by.store.require("raw_ratings").content_hash,
                    hashes(made_by, FEATURES),
                    {asset: contents(made_by, asset, folder) for asset in FEATURES},
                )
            )
    (raw, content_hashes, files), (other_raw, other_hashes, other_files) = seen
    assert raw != other_raw  # what has landed is kept in the order in which it came
    assert content_hashes == other_hashes
    assert files == other_files
    assert all(files[asset] for asset in FEATURES)


def test_two_runs_predict_and_recommend_the_same(settings: Settings) -> None:
    config: Config = {
        "raw_ratings": {"generated_rows": 6_000},
        "model_training": {"hyperparameters": {"epochs": 3, "num_factors": 8}},
    }
    seen = []
    for number in (1, 2):
        with platform(settings, f"determinism/twice/{number}") as made_by:
            made_by.run(config)
            seen.append(hashes(made_by, (*FEATURES, *PREDICTED)))
    assert seen[0] == seen[1]


def test_another_seed_gives_another_split_of_the_same_pairs(
    settings: Settings, tmp_path: Path
) -> None:
    seen = []
    for seed in (0, 1):
        config: Config = {
            "raw_ratings": {"generated_rows": 6_000},
            "filtered_ratings": {"seed": seed},
        }
        with platform(settings, f"determinism/seed/{seed}") as made_by:
            made_by.run(config, ["raw_ratings", "filtered_ratings"])
            seen.append(made_by.store.require("filtered_ratings"))
    assert seen[0].row_count == seen[1].row_count
    assert seen[0].content_hash != seen[1].content_hash
