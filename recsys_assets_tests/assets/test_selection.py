"""Choosing between the new model and the one selected before, and what follows reads of it.

The runs of a story, on the real services: each test looks at one moment of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance

from recsys_assets.definitions import MAIN_JOB, build_defs, build_resources
from recsys_assets.resources.object_store import ObjectStore, Version, split_uri
from recsys_assets.settings import Settings

pytestmark = pytest.mark.xdist_group("selection")

SMALL = {"generated_rows": 3_000, "generated_seed": 3}
LARGER = {"generated_rows": 4_000, "generated_seed": 3}
FILTER = {"min_ratings_per_customer": 2, "min_ratings_per_video": 2}
GOOD = {"epochs": 8, "num_factors": 2}
BAD = {"epochs": 1, "num_factors": 2, "bias_init_method": "constant", "bias_init_value": 1.0}

DATA = ["raw_ratings", "filtered_ratings", "sparse_matrix", "protobuf_train", "protobuf_validate"]
MODEL = ["fm_model", "selected_model"]
PREDICTIONS = ["protobuf_test", "batch_predictions", "model_evaluation", "recommendations"]


@dataclass(frozen=True)
class Ran:
    """A run, and the metadata of what it has made, by asset."""

    run_id: str
    made: Mapping[str, Mapping[str, Any]]


class Story:
    """Runs the platform, some of its assets at a time."""

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        self.store = store
        self._defs = build_defs(settings)

    def run(
        self, assets: list[str], ratings: Mapping[str, Any] = SMALL, seed: int = 0, **training: Any
    ) -> Ran:
        config = {
            "raw_ratings": ratings,
            "filtered_ratings": {**FILTER, "seed": seed},
            "model_training": training,
        }
        selection = {AssetKey(name) for name in assets}
        job = self._defs.resolve_job_def(MAIN_JOB)
        steps = {node.name for node in job.get_subset(asset_selection=selection).nodes}
        with DagsterInstance.ephemeral() as instance:
            result = job.execute_in_process(
                run_config={"ops": {k: {"config": v} for k, v in config.items() if k in steps}},
                asset_selection=[*selection],
                instance=instance,
            )
        assert result.success
        events = (event for step in steps for event in result.asset_materializations_for_node(step))
        made = {
            event.asset_key.to_user_string(): {k: v.value for k, v in event.metadata.items()}
            for event in events
        }
        return Ran(result.run_id, made)

    def version(self, asset: str, run: Ran) -> Version:
        found = self.store.version(asset, run.run_id)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def story(settings: Settings) -> Iterator[Story]:
    own = Settings(**{**vars(settings), "prefix": "selection"})
    with build_resources(own)["store"].process_config_and_initialize_cm() as store:
        yield Story(own, store)


@pytest.fixture(scope="module")
def first(story: Story) -> Ran:
    """A good model of the small data."""
    return story.run([*DATA, *MODEL, *PREDICTIONS], hyperparameters=GOOD)


@pytest.fixture(scope="module")
def worse(story: Story, first: Ran) -> Ran:
    """A bad model of the larger data, in a run that goes on to predictions."""
    return story.run([*DATA, *MODEL, *PREDICTIONS], LARGER, hyperparameters=BAD)


@pytest.fixture(scope="module")
def better(story: Story, worse: Ran) -> Ran:
    """A good model of the larger data, which the run before has left."""
    return story.run(MODEL, hyperparameters=GOOD)


@pytest.fixture(scope="module")
def forced(story: Story, better: Ran) -> Ran:
    """The bad model again, which is to be taken whatever it is like."""
    return story.run(MODEL, hyperparameters=BAD, select="new")


def test_the_first_model_is_selected_for_there_is_no_other(story: Story, first: Ran) -> None:
    assert first.made["selected_model"]["choice"] == (
        "The new model is selected: there is no other."
    )
    selected = story.version("selected_model", first)
    assert selected.inputs == dict.fromkeys([*DATA, "fm_model"], first.run_id)


def test_a_worse_model_is_held_back_and_the_one_before_stays_selected(
    story: Story, first: Ran, worse: Ran
) -> None:
    shown = worse.made["selected_model"]
    assert shown["new_rmse"] > shown["current_rmse"] + 0.5
    assert shown["choice"] == (
        f"The new model is held back, for it is worse: RMSE {shown['new_rmse']:.4f}, that of the "
        f"model selected before {shown['current_rmse']:.4f}, on {shown['compared_rows']:,} ratings "
        "of the validate split."
    )
    assert worse.made["fm_model"]["training_job"] != shown["training_job"]
    before, after = (story.version("selected_model", run) for run in (first, worse))
    assert after.facts["content"] == before.facts["content"]
    assert after.inputs == before.inputs
    assert story.store.require("selected_model").run_id == worse.run_id


def test_the_comparison_is_the_validation_that_sagemaker_has_measured(
    worse: Ran, better: Ran
) -> None:
    # Of the same rows, by the same model: nothing is left out of a split that has only grown.
    shown = worse.made["selected_model"]
    assert shown["compared_rows"] == worse.made["protobuf_validate"]["dagster/row_count"]
    assert shown["new_rmse"] == pytest.approx(worse.made["fm_model"]["validate_rmse"], abs=1e-4)
    again = better.made["selected_model"]
    assert again["current_rmse"] == pytest.approx(shown["current_rmse"], abs=1e-9)


def test_what_follows_reads_the_matrix_of_the_model_that_stays_and_not_the_newer_one(
    story: Story, first: Ran, worse: Ran
) -> None:
    assert worse.made["sparse_matrix"]["fingerprint"] != first.made["sparse_matrix"]["fingerprint"]
    for asset in ("batch_predictions", "recommendations"):
        old, new = (story.version(asset, run) for run in (first, worse))
        assert new.content_hash == old.content_hash, asset
        assert new.inputs["sparse_matrix"] == first.run_id
        assert new.inputs["selected_model"] == worse.run_id
    one, two = (first.made["model_evaluation"], worse.made["model_evaluation"])
    assert (two["test_rmse"], two["model"]) == (one["test_rmse"], one["model"])


def test_another_orchestrator_is_told_the_test_rows_that_belong_to_the_model(
    story: Story, first: Ran, worse: Ran
) -> None:
    assert worse.made["selected_model"]["test_data"] == story.version("protobuf_test", first).uri
    assert story.version("protobuf_test", worse).uri != story.version("protobuf_test", first).uri


def test_a_better_model_is_selected_and_tells_what_it_was_made_from(
    story: Story, worse: Ran, better: Ran
) -> None:
    shown = better.made["selected_model"]
    assert shown["new_rmse"] < shown["current_rmse"]
    assert shown["choice"].startswith(f"The new model is selected: RMSE {shown['new_rmse']:.4f}")
    assert shown["training_job"] == better.made["fm_model"]["training_job"]
    assert story.version("selected_model", better).inputs == {
        **dict.fromkeys(DATA, worse.run_id),
        "fm_model": better.run_id,
    }


def test_a_run_may_take_the_new_model_whatever_it_is_like(better: Ran, forced: Ran) -> None:
    shown = forced.made["selected_model"]
    assert shown["choice"] == "The new model is selected, as the config says."
    assert shown["training_job"] == forced.made["fm_model"]["training_job"]
    assert shown["validate_rmse"] > better.made["selected_model"]["validate_rmse"] + 0.5


def test_a_margin_lets_a_worse_model_pass(story: Story, forced: Ran) -> None:
    story.run(MODEL, hyperparameters=GOOD)
    shown = story.run(MODEL, hyperparameters=BAD, margin=5).made["selected_model"]
    assert shown["new_rmse"] > shown["current_rmse"]
    assert shown["choice"].startswith("The new model is selected: RMSE")


def test_rows_that_the_selected_model_was_trained_on_are_left_out(
    story: Story, forced: Ran
) -> None:
    # By another seed of the split most of the new validate rows are old train rows.
    found = story.run([*DATA, *MODEL], LARGER, seed=1, hyperparameters=GOOD)
    rows = found.made["protobuf_validate"]["dagster/row_count"]
    assert 0 < found.made["selected_model"]["compared_rows"] < 0.6 * rows


def test_what_cannot_be_compared_with_is_replaced_and_that_is_said(
    story: Story, forced: Ran
) -> None:
    artefact = story.store.require("selected_model").facts["content"]["artefact"]
    bucket, key = split_uri(artefact)
    story.store.client.put_object(Bucket=bucket, Key=key, Body=b"no model")
    shown = story.run(MODEL, hyperparameters=BAD).made["selected_model"]
    assert shown["choice"].startswith(
        "The new model is selected: the one selected before cannot be read. model.tar.gz: not a "
    )
    story.store.client.delete_object(Bucket=bucket, Key=shown["artefact"].split("/", 3)[3])
    shown = story.run(MODEL, hyperparameters=BAD).made["selected_model"]
    assert "cannot be read. Cannot read s3://" in shown["choice"]
