"""raw_ratings out of a landing: what counts, what is put aside, and that nothing counts twice."""

import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import duckdb
import pytest
from dagster import ExecuteInProcessResult, materialize

from recsys_assets.assets.ratings import raw_ratings
from recsys_assets.definitions import build_resources
from recsys_assets.domain.ratings.ledger import Ledger, State
from recsys_assets.io_managers import RawRatings, RawRatingsIOManager
from recsys_assets.io_managers.ratings import LEDGER
from recsys_assets.resources.landing import LandedObject, Landing, read_ledger
from recsys_assets.resources.object_store import ConflictError, MissingObjectError, ObjectStore
from recsys_assets.settings import Settings

HEADER = "customer_id,video_id,rating,title\n"
_prefixes = (f"landed-{number}" for number in itertools.count())


class World:
    """A landing of its own, and raw_ratings made from it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = Settings(**{**vars(settings), "prefix": next(_prefixes)})
        self.resources = build_resources(self.settings)
        self.landing: Landing = self.resources["landing"]
        self.client = self.landing.client
        self.bucket = settings.bucket

    def put(self, name: str, content: str | bytes) -> LandedObject:
        key = f"{self.settings.prefix}/landing/{name}"
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content)
        found = self.landing.latest(key)
        assert found is not None
        return found

    def delete(self, found: LandedObject) -> LandedObject:
        self.client.delete_object(Bucket=self.bucket, Key=found.key)
        return LandedObject(found.key, "", found.last_modified, 0, deleted=True)

    def ingest(
        self, *arrivals: LandedObject, landing: Landing | None = None, **config: Any
    ) -> ExecuteInProcessResult:
        told = {"source": "landing", "arrivals": [found.to_json() for found in arrivals]}
        return self.run({**told, **config}, landing=landing or self.landing)

    def run(self, config: Mapping[str, Any], **resources: Any) -> ExecuteInProcessResult:
        """Materialize raw_ratings without its checks: these ratings are too few for them."""
        return materialize(
            [raw_ratings],
            resources={**self.resources, **resources},
            run_config={"ops": {"raw_ratings": {"config": config}}},
        )

    @property
    def ledger(self) -> Ledger:
        return read_ledger(self.store, self.landing.id)[1]

    @property
    def store(self) -> ObjectStore:
        store: ObjectStore = self.resources["store"]
        return store

    def raw(self) -> RawRatings:
        manager: RawRatingsIOManager = self.resources["raw_ratings_io_manager"]
        return manager.load(self.store.require("raw_ratings"), RawRatings)

    def videos(self) -> Counter[str]:
        """Count the ratings of each video."""
        raw = self.raw()
        rows = duckdb.sql(f"SELECT video_id FROM read_parquet('{raw.main}')").fetchall()
        return Counter(video for (video,) in rows)


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    return World(settings)


def rows(*videos: str) -> str:
    return HEADER + "".join(f"c{n},{video},4,T\n" for n, video in enumerate(videos))


def shown(result: ExecuteInProcessResult) -> Mapping[str, Any]:
    (event,) = result.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    return {name: value.value for name, value in metadata.items()}


def test_what_arrives_is_added_to_what_was_there(world: World) -> None:
    world.ingest(world.put("one.csv", rows("v1", "v1", "v2")))
    result = world.ingest(world.put("two.csv", rows("v2")), world.put("sub/three.csv", rows("v3")))
    assert world.videos() == {"v1": 2, "v2": 2, "v3": 1}
    assert (shown(result)["dagster/row_count"], shown(result)["rows_read"]) == (5, 5)
    assert shown(result)["objects_read"] == 2
    (first, *_), runs = list(world.ledger), {entry.run_id for entry in world.ledger}
    assert len(runs) == 2
    names = [file.name for file in world.store.require("raw_ratings").files]
    assert f"ratings/{first.part}.parquet" in names or first.run_id != result.run_id
    assert len(names) == 3, "the ledger and two files of ratings: what was there is not copied"


def test_several_objects_are_fetched_and_read_at_once_and_noted_in_their_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(3, timeout=60)
    fetch = Landing.fetch

    def fetch_together(landing: Landing, found: LandedObject, path: Path) -> bool:
        together.wait()  # for two others
        return fetch(landing, found, path)

    monkeypatch.setattr(Landing, "fetch", fetch_together)
    names = ["a.csv", "b.csv", "c.csv"]
    found = [world.put(name, rows(*[f"v{name}"] * 3)) for name in names]
    world.ingest(*found)
    assert [(PurePosixPath(e.key).name, e.rows) for e in world.ledger] == [(n, 3) for n in names]
    assert world.videos() == {f"v{name}": 3 for name in names}


def test_versions_of_one_object_are_read_one_after_the_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way: Counter[str] = Counter()
    most = []
    fetch = Landing.fetch

    def counted(landing: Landing, found: LandedObject, path: Path) -> bool:
        under_way[found.key] += 1
        most.append(under_way[found.key])
        there = fetch(landing, found, path)
        under_way[found.key] -= 1
        return there

    monkeypatch.setattr(Landing, "fetch", counted)
    old, other = world.put("one.csv", rows("old")), world.put("two.csv", rows("v2"))
    new = world.put("one.csv", rows("new"))
    world.ingest(old, other, new)
    assert max(most) == 1
    assert world.videos() == {"new": 1, "v2": 1}
    assert [(e.generation, e.rows, e.state) for e in world.ledger] == [
        (1, None, State.SUPERSEDED),
        (2, 1, State.CURRENT),
        (1, 1, State.CURRENT),
    ]


def test_a_file_that_is_overwritten_counts_as_it_is_now(world: World) -> None:
    world.ingest(world.put("one.csv", rows("old", "old")))
    result = world.ingest(world.put("one.csv", rows("new")))
    assert world.videos() == {"new": 1}
    assert [entry.state for entry in world.ledger] == [State.SUPERSEDED, State.CURRENT]
    assert shown(result)["versions_superseded"] == 1


def test_content_that_comes_back_is_an_arrival_of_its_own(world: World) -> None:
    for generation, videos in enumerate([("a",), ("b", "b"), ("a",)], start=1):
        seen = world.put("one.csv", rows(*videos))
        world.ingest(LandedObject(**{**vars(seen), "generation": generation}))
    assert world.videos() == {"a": 1}
    assert [(entry.generation, entry.rows) for entry in world.ledger] == [(1, 1), (2, 2), (3, 1)]


def test_a_run_that_is_made_again_adds_nothing(world: World) -> None:
    one = LandedObject(**{**vars(world.put("one.csv", rows("v1"))), "generation": 1})
    world.ingest(one)
    world.ingest(world.put("one.csv", rows("v2", "v2")))
    before = list(world.ledger)
    result = world.ingest(one, one)
    assert list(world.ledger) == before
    assert shown(result)["objects_known"] == 2
    assert world.videos() == {"v2": 2}


def test_bad_lines_and_unreadable_files_are_put_aside_and_cost_no_good_row(world: World) -> None:
    good = world.put("good.csv", rows("v1") + "c9,v1,ninety,T\n")
    no_table = world.put("notes.txt", "nothing that anybody could read\n")
    all_bad = world.put("bad.csv", HEADER + "c1,v1,,T\nc2,v2,77,T\n")
    no_gzip = world.put("cut.csv.gz", b"\x1f\x8b\x08\x00rubbish")
    unclear = world.put("ratings.dat", "1::2::3::978300760\n")
    result = world.ingest(good, no_table, all_bad, no_gzip, unclear)
    assert world.videos() == {"v1": 1}
    raw = world.raw()
    rejects = duckdb.sql(
        f"SELECT parse_filename(file), reason FROM read_parquet('{raw.rejects}') ORDER BY ALL"
    ).fetchall()
    assert rejects == [
        ("bad.csv", "empty rating"),
        ("bad.csv", "rating out of range"),
        ("cut.csv.gz", "unreadable file"),
        ("good.csv", "rating is not a number"),
        ("notes.txt", "unreadable file"),
        ("ratings.dat", "unreadable file"),
    ]
    assert shown(result)["rows_rejected"] == 6
    assert "rating out of range" in shown(result)["first_rejects"]


def test_a_format_that_one_file_does_not_tell_can_be_named(world: World) -> None:
    world.ingest(world.put("ratings.dat", "1::2::3::978300760\n"), format="movielens")
    assert world.videos() == {"2": 1}


def test_a_version_that_was_replaced_before_it_could_be_read_is_noted(world: World) -> None:
    seen = world.put("one.csv", rows("v1"))
    now = world.put("one.csv", rows("v2"))
    result = world.ingest(seen, now)
    assert shown(result)["objects_gone"] == 1
    assert [(entry.state, entry.rows) for entry in world.ledger] == [
        (State.SUPERSEDED, None),
        (State.CURRENT, 1),
    ]
    assert world.videos() == {"v2": 1}


@pytest.mark.parametrize(("rule", "left"), [("keep", {"v1": 1, "v2": 1}), ("forget", {"v2": 1})])
def test_ratings_of_a_deleted_file_are_kept_or_forgotten_as_configured(
    world: World, rule: str, left: dict[str, int]
) -> None:
    landing = Landing(**{**dict(world.landing), "deleted": rule})
    one, two = world.put("one.csv", rows("v1")), world.put("two.csv", rows("v2"))
    world.ingest(one, two, landing=landing)
    result = world.ingest(world.delete(one), landing=landing)
    assert shown(result)["objects_deleted"] == 1
    assert world.videos() == left


def test_a_deletion_that_is_out_of_date_is_none(world: World) -> None:
    one = world.put("one.csv", rows("v1"))
    world.ingest(one)
    gone = world.delete(one)
    world.ingest(gone, world.put("one.csv", rows("v2")))
    assert world.videos() == {"v2": 1}
    world.ingest(gone)
    assert world.ledger.current(one.key) is not None


def test_of_two_runs_that_start_from_the_same_head_one_begins_again(world: World) -> None:
    one, two = world.put("one.csv", rows("v1")), world.put("two.csv", rows("v2"))

    fetched: list[str] = []

    class Interrupted(Landing):
        """While its first object is read, another run commits."""

        def fetch(self, found: LandedObject, path: Path) -> bool:
            fetched.append(PurePosixPath(found.key).name)
            if len(fetched) == 1:
                world.ingest(two)
            return super().fetch(found, path)

    world.ingest(one, two, landing=Interrupted(**dict(world.landing)))
    assert fetched == ["one.csv", "two.csv", "one.csv"], "the second try passes over two.csv"
    assert world.videos() == {"v1": 1, "v2": 1}
    assert len(world.ledger) == 2


def test_a_head_that_was_replaced_makes_nothing_visible(world: World, tmp_path: Path) -> None:
    world.ingest(world.put("one.csv", rows("v1")))
    current = world.store.require("raw_ratings")
    head, _ = read_ledger(world.store, world.landing.id)
    world.ingest(world.put("two.csv", rows("v2")))
    (tmp_path / LEDGER).write_bytes(b"")
    with pytest.raises(ConflictError, match="has replaced s3://"):
        world.store.publish("raw_ratings", "late", tmp_path, row_count=0, facts={}, head=head)
    assert world.store.version("raw_ratings", "late") is None
    assert world.store.require("raw_ratings") != current


def test_a_damaged_file_of_an_earlier_run_is_named(world: World) -> None:
    world.ingest(world.put("one.csv", rows("v1")))
    world.ingest(world.put("two.csv", rows("v2")))
    damaged = next(entry for entry in world.ledger if entry.key.endswith("one.csv"))
    name = f"raw_ratings/{damaged.run_id}/data/ratings/{damaged.part}.parquet"
    key = f"{world.settings.prefix}/{name}"
    world.client.put_object(Bucket=world.bucket, Key=key, Body=b"PAR1")
    with pytest.raises(MissingObjectError, match=damaged.part):
        world.raw()


def test_nothing_landed_is_an_error_that_names_the_landing(world: World) -> None:
    with pytest.raises(Exception, match=r"Nothing has landed in s3://.*/landing/ yet"):
        world.ingest()


def test_another_source_neither_mixes_with_the_landing_nor_loses_it(
    world: World, tmp_path: Path
) -> None:
    world.ingest(world.put("one.csv", rows("v1")))
    (tmp_path / "other.csv").write_text(rows("v9"))
    world.run({"source": str(tmp_path / "other.csv")})
    assert world.videos() == {"v9": 1}
    world.ingest(world.put("two.csv", rows("v2")))
    assert world.videos() == {"v1": 1, "v2": 1}
