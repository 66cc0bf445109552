"""References to stored ratings name the files that count, and fetch what they name."""

from collections import Counter
from pathlib import Path

import duckdb

from recsys_assets.io_managers import RawRatingsIOManager, StoredRatings
from recsys_assets.settings import Settings
from recsys_assets_tests.assets.test_landed_ratings import World, rows


def stored(world: World) -> StoredRatings:
    manager: RawRatingsIOManager = world.resources["raw_ratings_io_manager"]
    found = manager.load(world.store.require("raw_ratings"), StoredRatings)
    assert isinstance(found, StoredRatings)
    return found


def videos_in(world: World, uris: tuple[str, ...], folder: Path) -> Counter[str]:
    """Count the ratings of each video in what lies at some URIs."""
    for number, uri in enumerate(uris):
        world.store.download(uri, folder / f"{number}.parquet")
    found = duckdb.sql(f"SELECT video_id FROM read_parquet('{folder}/*.parquet')").fetchall()
    return Counter(video for (video,) in found)


def test_of_a_landing_they_are_the_files_of_all_the_runs_that_count(
    settings: Settings, tmp_path: Path
) -> None:
    world = World(settings)
    world.ingest(world.put("one.csv", rows("old")), world.put("two.csv", rows("v2", "v2")))
    world.ingest(world.put("one.csv", rows("new")), world.put("bad.csv", rows() + "c,v,77,T\n"))
    found = stored(world)
    assert len(found.uris) == 2
    assert len({uri.partition("/data/")[0] for uri in found.uris}) == 2, "of two runs"
    assert videos_in(world, found.uris, tmp_path) == {"v2": 2, "new": 1} == world.videos()


def test_of_one_source_they_are_its_files_and_its_rejects_are_not_among_them(
    settings: Settings, tmp_path: Path
) -> None:
    world = World(settings)
    source = tmp_path / "source.csv"
    source.write_text(rows("v1", "v1") + "c9,v1,ninety,T\n")
    world.run({"source": str(source), "format": "table"})
    found = stored(world)
    version = world.store.require("raw_ratings")
    assert list(found.uris) == [f"{version.uri}ratings/source.parquet"]
    fetched = found.fetch()
    assert (fetched.rows("ratings"), fetched.rows("rejects")) == (2, 1)
