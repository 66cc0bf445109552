"""A day of the platform that runs itself: ratings land, and nobody presses a button.

The platform is `recsys-assets ui` with its services, its daemon and its sensors; a person only lets
files land, looks, and at one point turns a sensor off. Each test is a moment of the day and begins
where the one before it has ended.
"""

import csv
import gzip
import hashlib
import io
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from dagster import AssetKey, DagsterInstance, DagsterRun
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionStatus,
    PartitionBackfill,
)
from dagster._core.scheduler.instigation import TickStatus

from recsys_assets.automation.new_ratings import INGEST_JOB
from recsys_assets_tests.conftest import PROJECT
from recsys_assets_tests.domain.literal_ratings import random_ratings
from recsys_assets_tests.main_job.command import Started, client
from recsys_assets_tests.sagemaker_local.endpoint import eventually, free_port
from recsys_assets_tests.ui.dagster_ui import DagsterUI, Run

pytestmark = pytest.mark.xdist_group("a_day")

SETTLED_SECONDS = 1
AUTOMATION = {
    "landing": {"interval_seconds": 5, "settle_seconds": SETTLED_SECONDS},
    "training": {"new_share": 0.3, "min_hours_between": 0},
}
RATINGS = random_ratings(customers=150, videos=100)  # some 6,000, each file a part of them
DATA = [
    "filtered_ratings",
    "sparse_matrix",
    "protobuf_train",
    "protobuf_validate",
    "protobuf_test",
]
MODEL = ["fm_model", "selected_model"]
PREDICTIONS = ["batch_predictions", "model_evaluation", "recommendations"]
BAD = {
    "epochs": 1,
    "num_factors": 2,
    "bias_init_method": "constant",
    "bias_init_value": 1.0,
}


class Day:
    """The platform, those who let files land, and somebody who looks."""

    def __init__(self, state: Path, ui: DagsterUI, instance: DagsterInstance) -> None:
        self.state = state
        self.ui = ui
        self.instance = instance
        self._runs = 0

    def land(self, name: str, content: bytes) -> None:
        client(self.state, "s3").put_object(Bucket="recsys", Key=f"landing/{name}", Body=content)

    def shown(self, name: str) -> dict[str, Any]:
        """Return the metadata of the latest materialization of an asset."""
        event = self.instance.get_latest_materialization_event(AssetKey(name))
        assert event is not None, name
        assert event.asset_materialization is not None
        return {k: v.value for k, v in event.asset_materialization.metadata.items()}

    def settled(self, *expected: Sequence[str], without: str = "") -> list[DagsterRun]:
        """Wait for quiet; return the runs since the last quiet, which must have made the expected.

        It is quiet when no run is at work and each sensor, but for the one that is turned off, has
        looked twice since and found nothing to do.
        """
        sensors = {"new_ratings_sensor", "automation", "automation_of_predictions"} - {without}
        began = time.time() + SETTLED_SECONDS

        def quiet() -> bool:
            records = self.instance.get_run_records()
            ends = [record.end_time or math.inf for record in records]
            since = max([began, *ends])
            ticks = {
                state.name: self.instance.get_ticks(
                    state.instigator_origin_id, state.selector_id, limit=2
                )
                for state in self.instance.all_instigator_state()
            }
            return all(
                [tick.status for tick in ticks.get(name, ()) if tick.timestamp > since]
                == [TickStatus.SKIPPED] * 2
                for name in sensors
            )

        eventually(quiet, seconds=300)
        runs = [*self.instance.get_runs()][::-1]
        new, self._runs = runs[self._runs :], len(runs)
        assert [run.status.value for run in new] == ["SUCCESS"] * len(new)
        assert [self._to_make(run) for run in new] == [{*assets} for assets in expected]
        return new

    def _to_make(self, run: DagsterRun) -> set[str]:
        if run.job_name == INGEST_JOB:
            return {"raw_ratings"}
        return {key.to_user_string() for key in run.asset_selection or ()}


def ratings_file(first: int, last: int) -> bytes:
    """Return a share of the ratings, in thousandths, as a compressed CSV file."""
    low, high = (len(RATINGS) * bound // 1000 for bound in (first, last))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["customer_id", "video_id", "rating", "title"])
    for customer, video, rating, _, _, title in sorted(RATINGS, key=_by_chance)[low:high]:
        writer.writerow([customer, video, rating, title])
    return gzip.compress(text.getvalue().encode())


def _by_chance(row: Sequence[Any]) -> bytes:
    return hashlib.sha256(f"{row[0]} {row[1]}".encode()).digest()


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """The platform on an empty bucket, and what its Dagster knows."""
    folder = tmp_path_factory.mktemp("a-day")
    state, options = folder / "state", folder / "automation.yaml"
    options.write_text(yaml.safe_dump(AUTOMATION))
    port = free_port()
    started = Started(
        folder,
        *("ui", "--state", state, "--port", str(port)),
        RECSYS_AUTOMATION_CONFIG=str(options),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_DAGSTER_STORAGE", str(state / "dagster"))
        patch.setenv("RECSYS_DAGSTER_LOGS", str(state / "dagster" / "logs"))
        patch.setenv("DAGSTER_HOME", str(PROJECT))
        try:
            ui = DagsterUI(f"http://127.0.0.1:{port}")
            eventually(ui.answers, seconds=120)
            with DagsterInstance.get() as instance:
                yield Day(state, ui, instance)
            ui.close()
        finally:
            family = psutil.Process(started.process.pid).children(recursive=True)
            started.process.terminate()
            _, alive = psutil.wait_procs(family, timeout=60)
            for member in alive:
                member.kill()
            started.ended()
            assert alive == []


def test_on_an_empty_bucket_nothing_happens(day: Day) -> None:
    assert day.settled() == []


@pytest.fixture(scope="module")
def morning(day: Day) -> list[DagsterRun]:
    """A file lands, and everything follows."""
    day.land("monday.csv.gz", ratings_file(0, 300))
    return day.settled(["raw_ratings"], DATA, MODEL, PREDICTIONS)


@pytest.fixture(scope="module")
def rejects(day: Day, morning: list[DagsterRun]) -> dict[str, Any]:
    """A file lands that is broken in places; return what raw_ratings shows."""
    lines = gzip.decompress(ratings_file(300, 350)).splitlines()
    broken = [b"c1,v1,six,Video 1", b",v1,3.0,nobody's", b"c1,v1,77,Video 1"] * 10
    day.land("tuesday.csv", b"\n".join([*lines, *broken]))
    day.settled(["raw_ratings"], DATA)
    return day.shown("raw_ratings")


@pytest.fixture(scope="module")
def noon(day: Day, rejects: dict[str, Any]) -> list[DagsterRun]:
    """Much more lands."""
    day.land("wednesday.csv.gz", ratings_file(350, 900))
    return day.settled(["raw_ratings"], DATA, MODEL, PREDICTIONS)


@pytest.fixture(scope="module")
def by_hand(day: Day, noon: list[DagsterRun]) -> Run:
    """Somebody trains with hyperparameters that are no good."""
    config = {"ops": {"model_training": {"config": {"hyperparameters": BAD}}}}
    return day.ui.ended(day.ui.launch(config, job="__ASSET_JOB", assets=MODEL))


def test_a_file_lands_and_all_assets_appear(day: Day, morning: list[DagsterRun]) -> None:
    ratings = len(RATINGS) * 300 // 1000
    assert day.shown("raw_ratings")["rows_read"] == ratings
    assert day.shown("raw_ratings")["rows_rejected"] == 0
    assert day.shown("filtered_ratings")["rows_kept"] > ratings / 2
    model = day.shown("selected_model")["training_job"]
    assert [day.shown(name)["model"] for name in PREDICTIONS] == [model] * 3
    assert day.shown("recommendations")["dagster/row_count"] > 0


@pytest.mark.slow
def test_the_rejects_of_a_bad_file_are_seen_and_its_good_rows_are_used(
    day: Day, rejects: dict[str, Any]
) -> None:
    good = len(RATINGS) * 350 // 1000
    assert (rejects["rows_read"], rejects["rows_rejected"]) == (good + 30, 30)
    assert sum(rejects["rejects_by_reason"].values()) == 30
    assert "tuesday.csv" in rejects["first_rejects"]
    assert day.shown("filtered_ratings")["rows_read"] == good


@pytest.mark.slow
def test_a_better_model_of_more_ratings_is_selected(day: Day, noon: list[DagsterRun]) -> None:
    selected = day.shown("selected_model")
    assert selected["new_rmse"] < selected["current_rmse"]
    assert selected["choice"].startswith("The new model is selected: RMSE")
    assert noon[2].run_id[:8] in selected["training_job"]


@pytest.mark.slow
def test_a_worse_model_is_held_back_and_nothing_follows_it(day: Day, by_hand: Run) -> None:
    assert by_hand.status == "SUCCESS"
    chosen = by_hand.made["selected_model"]
    assert chosen["choice"].startswith("The new model is held back, for it is worse: RMSE")
    assert chosen["training_job"] != by_hand.made["fm_model"]["training_job"]
    day.settled(MODEL)
    assert day.shown("recommendations")["model"] == chosen["training_job"]


@pytest.mark.slow
def test_a_sensor_that_was_off_for_a_while_catches_up(day: Day, by_hand: Run) -> None:
    before = day.shown("raw_ratings")["rows_read"]
    day.ui.turn_sensor("new_ratings_sensor", on=False)
    day.land("thursday.csv.gz", ratings_file(900, 950))
    day.land("friday.csv.gz", ratings_file(950, 1000))
    assert day.settled(without="new_ratings_sensor") == []
    assert day.shown("raw_ratings")["rows_read"] == before
    day.ui.turn_sensor("new_ratings_sensor", on=True)
    day.settled(["raw_ratings"], DATA)
    assert day.shown("raw_ratings")["objects_read"] == 2
    assert day.shown("raw_ratings")["rows_read"] == before + len(RATINGS) - len(RATINGS) * 9 // 10


@pytest.mark.slow
def test_a_backfill_makes_what_it_names_and_automation_nothing_more(day: Day, by_hand: Run) -> None:
    backfill_id = day.ui.backfill(DATA)

    def ended() -> PartitionBackfill | None:
        backfill = day.instance.get_backfill(backfill_id)
        return backfill if backfill and backfill.status in BULK_ACTION_TERMINAL_STATUSES else None

    backfill = eventually(ended, seconds=300)
    assert backfill.status is BulkActionStatus.COMPLETED_SUCCESS, backfill.error
    day.settled(DATA)
