"""No job that makes a model sees the test split, and no rating is in two splits."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recsys_assets.domain.recordio import read_recordio
from recsys_assets.resources.object_store import Version
from recsys_assets.services.clients import isolated_session
from recsys_assets.services.control import find_services
from recsys_assets.settings import Settings
from recsys_assets_tests.main_job.in_process import Platform, platform

pytestmark = pytest.mark.xdist_group("in_process")

SPLITS = ("train", "validate", "test")
PREFIX = "leaks"
TRIALS = 2
SEARCHED = {"epochs": {"min": 1, "max": 4, "integer": True}}
MODES: dict[str, dict[str, Any]] = {
    "train": {"hyperparameters": {"epochs": 2}},
    "tune": {"mode": "tune", "tuning": {"max_jobs": TRIALS, "ranges": SEARCHED}},
}


@pytest.fixture(scope="module")
def both_modes(settings: Settings) -> Iterator[Platform]:
    """The platform after a run in each mode."""
    with platform(settings, PREFIX) as made_by:
        for training in MODES.values():
            made_by.run({"raw_ratings": {"generated_rows": 8_000}, "model_training": training})
        yield made_by


@pytest.fixture(scope="module")
def sagemaker(settings: Settings) -> Any:
    """A client of the endpoint that the platform has used."""
    services = find_services(settings.state)
    assert services is not None
    session = isolated_session(services.access_key_id, services.secret_access_key, services.region)
    return session.client("sagemaker", endpoint_url=services.sagemaker_url)


def descriptions(sagemaker: Any, kind: str) -> list[dict[str, Any]]:
    """Describe all jobs of a kind that the endpoint has ever had."""
    noun = "".join(word.capitalize() for word in kind.split("_"))
    pages = sagemaker.get_paginator(f"list_{kind}s").paginate()
    names = [job[f"{noun}Name"] for page in pages for job in page[f"{noun}Summaries"]]
    describe = getattr(sagemaker, f"describe_{kind}")
    return [describe(**{f"{noun}Name": name}) for name in names]


def channels(definition: Mapping[str, Any]) -> dict[str, str]:
    """The S3 prefix of each channel of a training job, or of a tuning job's definition."""
    return {
        channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"]
        for channel in definition["InputDataConfig"]
    }


def objects(version: Version) -> list[str]:
    return [version.uri + file.name for file in version.files]


def is_ours(description: Mapping[str, Any]) -> bool:
    return f"/{PREFIX}/" in json.dumps(description, default=str)


def test_no_training_or_tuning_request_names_the_test_split(
    both_modes: Platform, sagemaker: Any
) -> None:
    training = descriptions(sagemaker, "training_job")
    tuning = descriptions(sagemaker, "hyper_parameter_tuning_job")
    assert len([job for job in training if is_ours(job)]) == 1 + TRIALS
    assert len([job for job in tuning if is_ours(job)]) == 1
    for job in (*training, *tuning):
        assert "protobuf_test" not in json.dumps(job, default=str)


def test_training_and_tuning_read_the_train_and_validate_files_and_no_others(
    both_modes: Platform, sagemaker: Any
) -> None:
    """A prefix is a text: one that is too short would name other objects too."""
    definitions = [
        *(job for job in descriptions(sagemaker, "training_job") if is_ours(job)),
        *(
            job["TrainingJobDefinition"]
            for job in descriptions(sagemaker, "hyper_parameter_tuning_job")
            if is_ours(job)
        ),
    ]
    store = both_modes.store
    for definition in definitions:
        read = channels(definition)
        assert read.keys() == {"train", "test"}
        for channel, asset in (("train", "protobuf_train"), ("test", "protobuf_validate")):
            run_id = read[channel].split("/")[-3]
            version = store.require(asset, [run_id])
            assert version.run_id == run_id
            assert list(store.list(read[channel])) == objects(version)


def test_the_batch_transform_alone_reads_the_test_files(
    both_modes: Platform, sagemaker: Any
) -> None:
    transforms = [job for job in descriptions(sagemaker, "transform_job") if is_ours(job)]
    assert len(transforms) == len(MODES)
    for job in transforms:
        uri = job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        version = both_modes.store.require("protobuf_test", [uri.split("/")[-3]])
        assert version.uri == uri
        assert list(both_modes.store.list(uri)) == objects(version)


def test_the_splits_share_no_pair_and_are_together_what_was_filtered(
    both_modes: Platform, tmp_path: Path
) -> None:
    (path,) = both_modes.files("filtered_ratings", tmp_path / "filtered")
    filtered = pq.read_table(path).to_pydict()
    customers = max(filtered["customer_index"]) + 1
    expected = {
        (customer, video): (rating, split)
        for customer, video, rating, split in zip(
            *(filtered[name] for name in ("customer_index", "video_index", "rating", "split")),
            strict=True,
        )
    }
    assert len(expected) == len(filtered["rating"])

    found: dict[tuple[int, int], tuple[float, str]] = {}
    for split in SPLITS:
        matrix, labels = read_recordio(both_modes.files(f"protobuf_{split}", tmp_path / split))
        assert labels is not None
        assert (matrix.getnnz(axis=1) == 2).all()
        columns = matrix.indices.reshape(-1, 2)
        assert (columns[:, 0] < customers).all()
        pairs = list(zip(columns[:, 0].tolist(), (columns[:, 1] - customers).tolist(), strict=True))
        assert pairs
        assert not found.keys() & set(pairs)
        found |= {pair: (star, split) for pair, star in zip(pairs, labels.tolist(), strict=True)}
    assert found == expected
