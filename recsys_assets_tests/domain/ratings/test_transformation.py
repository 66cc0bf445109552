"""The filter's semantics, as DuckDB carries them out, and what lets Spark do the same."""

import ast
from collections import Counter
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_assets.domain.ratings import filtering, transformation
from recsys_assets.domain.ratings.filtering import filter_ratings
from recsys_assets.domain.ratings.transformation import (
    ORDERED_SQL,
    FilterReport,
    FilterRules,
    NothingLeftError,
    percentiles,
    transform,
)
from recsys_assets_tests.domain.literal_ratings import SCHEMA, write_ratings

TWO_TWO = FilterRules(min_ratings_per_customer=2, min_ratings_per_video=2)
TWO_TWO_CORE = FilterRules(min_ratings_per_customer=2, min_ratings_per_video=2, k_core=True)
Pairs = set[tuple[str, str]]


def filtered(tmp_path: Path, pairs: list[tuple[str, str]], rules: FilterRules) -> Pairs:
    source = write_ratings(tmp_path / "ratings.parquet", [(*pair, 3.0) for pair in pairs])
    filter_ratings(source, tmp_path / "filtered.parquet", rules)
    kept = pq.read_table(tmp_path / "filtered.parquet").to_pylist()
    return {(row["customer_id"], row["video_id"]) for row in kept}


# One rating for each letter; e has rated w twice.
FRAME = [
    *[("a", video) for video in "vx"],
    *[("b", video) for video in "vxy"],
    *[("c", video) for video in "y"],
    *[("d", video) for video in "wz"],
    *[("e", video) for video in "ww"],
]
WITH_A_AND_B = {("a", "v"), ("a", "x"), ("b", "v"), ("b", "x")}

# With both thresholds at 2, each other order of doing things would leave something else:
OTHER_ORDERS = {
    "customers first, then videos of what is left": {*WITH_A_AND_B, ("d", "w"), ("e", "w")},
    "videos first, then customers of what is left": {*WITH_A_AND_B, ("b", "y"), ("e", "w")},
    "pairs rated twice reduced before counting": {*WITH_A_AND_B, ("b", "y"), ("d", "w")},
    "a core of ratings, not of pairs": {*WITH_A_AND_B, ("e", "w")},
}


def test_the_filter_counts_once_both_at_once_and_before_reducing_pairs(tmp_path: Path) -> None:
    kept = filtered(tmp_path, FRAME, TWO_TWO)
    assert kept == {*WITH_A_AND_B, ("b", "y"), ("d", "w"), ("e", "w")}
    assert kept not in OTHER_ORDERS.values()


def test_the_k_core_is_of_pairs_and_goes_on_until_all_that_is_left_meets_it(tmp_path: Path) -> None:
    kept = filtered(tmp_path, FRAME, TWO_TWO_CORE)
    assert kept == WITH_A_AND_B
    assert kept not in OTHER_ORDERS.values()


def core_by_hand(pairs: Pairs, customer_k: int, video_k: int) -> Pairs:
    """Leave out one customer or video after another."""
    while True:
        customers, videos = (Counter(pair[side] for pair in pairs) for side in (0, 1))
        below = [pair for pair in pairs if customers[pair[0]] < customer_k]
        below += [pair for pair in pairs if videos[pair[1]] < video_k]
        if not below:
            return pairs
        first = below[0]
        side = 0 if customers[first[0]] < customer_k else 1
        pairs = {pair for pair in pairs if pair[side] != first[side]}


@given(
    pairs=st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("stuvwxyz")), min_size=15
    ),
    customer_k=st.integers(1, 4),
    video_k=st.integers(1, 4),
)
@settings(deadline=None, max_examples=30)
def test_the_k_core_is_what_leaving_out_one_by_one_ends_with(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: list[tuple[str, str]],
    customer_k: int,
    video_k: int,
) -> None:
    rules = FilterRules(customer_k, video_k, k_core=True)
    expected = core_by_hand(set(pairs), customer_k, video_k)
    folder = tmp_path_factory.mktemp("core")
    if expected:
        assert filtered(folder, pairs, rules) == expected
    else:
        with pytest.raises(NothingLeftError):
            filtered(folder, pairs, rules)


def test_a_long_chain_is_unravelled_to_its_end(tmp_path: Path) -> None:
    # Each customer has rated two videos, each video is rated by two customers, but for the ends.
    chain = [(f"c{i:02}", f"v{j:02}") for i in range(40) for j in (i, i + 1)]
    square = [(customer, video) for customer in "yz" for video in "yz"]
    assert filtered(tmp_path, chain + square, TWO_TWO_CORE) == set(square)
    with pytest.raises(NothingLeftError, match=r"none of 80 ratings .* once those with fewer"):
        filtered(tmp_path, chain, TWO_TWO_CORE)


@pytest.mark.parametrize(
    ("rules", "duplicates", "outside_core", "after"),
    [
        (
            TWO_TWO,
            1,
            0,
            {
                "customer": {"min": 1, "p25": 1, "p50": 1, "p75": 2, "max": 3},
                "video": {"min": 1, "p25": 1, "p50": 2, "p75": 2, "max": 2},
            },
        ),
        (
            TWO_TWO_CORE,
            1,
            3,
            {
                "customer": {"min": 2, "p25": 2, "p50": 2, "p75": 2, "max": 2},
                "video": {"min": 2, "p25": 2, "p50": 2, "p75": 2, "max": 2},
            },
        ),
    ],
    ids=["once", "k-core"],
)
def test_the_report_accounts_for_every_row(
    tmp_path: Path, rules: FilterRules, duplicates: int, outside_core: int, after: dict
) -> None:
    source = write_ratings(tmp_path / "ratings.parquet", [(*pair, 3.0) for pair in FRAME])
    report = filter_ratings(source, tmp_path / "filtered.parquet", rules)
    table = pq.read_table(tmp_path / "filtered.parquet")
    assert report.rows_read == 10
    assert (report.duplicates, report.outside_core) == (duplicates, outside_core)
    assert report.rows_kept == table.num_rows == sum(report.split_rows.values())
    assert report.customers == len(set(table["customer_id"].to_pylist()))
    assert report.videos == len(set(table["video_id"].to_pylist()))
    before = {
        "customer": {"min": 1, "p25": 2, "p50": 2, "p75": 2, "max": 3},
        "video": {"min": 1, "p25": 2, "p50": 2, "p75": 2, "max": 3},
    }
    measured = {"customer": report.ratings_per_customer, "video": report.ratings_per_video}
    for kind, moments in measured.items():
        for moment, expected in (("before", before), ("after", after)):
            shown = {name: moments[moment][name] for name in expected[kind]}
            assert shown == expected[kind], (kind, moment)


def test_a_percentile_is_the_smallest_count_that_so_many_do_not_exceed() -> None:
    assert percentiles([(1, 94), (7, 1), (9, 4), (100, 1)]) == {
        "min": 1, "p5": 1, "p25": 1, "p50": 1, "p75": 1, "p90": 1, "p95": 7, "p99": 9, "max": 100,
    }  # fmt: skip
    assert set(percentiles([]).values()) == {0}


@pytest.fixture(scope="module")
def many_ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough for several row groups; one pair in ten or so is rated twice."""
    rng = np.random.default_rng(0)
    rows = 400_000
    customers, videos = rng.integers(0, 20_000, rows), rng.integers(0, 100, rows)
    columns = {
        "customer_id": np.char.add("c", customers.astype(str)),
        "video_id": np.char.add("v", videos.astype(str)),
        "title": np.char.add("Video ", (videos // 2).astype(str)),
        "rating": rng.integers(1, 6, rows).astype(np.float32),
        "reviewed_at": rng.integers(0, 10**9, rows).astype("datetime64[s]"),
        "review_id": np.char.add("R", np.arange(rows).astype(str)),
    }
    path = tmp_path_factory.mktemp("many") / "ratings.parquet"
    pq.write_table(pa.table(columns).cast(SCHEMA), path)
    return path


def test_threads_memory_and_parts_make_no_difference_to_the_bytes(
    tmp_path: Path, many_ratings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pq.read_table(many_ratings)
    for part, start in enumerate((300_000, 0, 100_000)):
        length = {300_000: 100_000, 0: 100_000, 100_000: 200_000}[start]
        pq.write_table(whole.slice(start, length), tmp_path / f"part-{part}.parquet")
    written, groups = set(), 0
    for ratings, threads, memory in (
        (many_ratings, 1, "1GB"),
        (many_ratings, 4, "1GB"),
        (many_ratings, 2, "80MB"),
        (tmp_path / "part-*.parquet", 3, "1GB"),
    ):
        connect = partial(duckdb.connect, config={"threads": threads})
        monkeypatch.setattr(filtering.duckdb, "connect", connect)
        (tmp_path / "out").mkdir(exist_ok=True)
        out = tmp_path / "out" / "filtered.parquet"
        filter_ratings(ratings, out, FilterRules(), memory_limit=memory)
        assert [path.name for path in out.parent.iterdir()] == ["filtered.parquet"]
        monkeypatch.undo()
        written.add(out.read_bytes())
        groups = pq.read_metadata(out).num_row_groups
    assert len(written) == 1
    assert groups > 2


class RecordingEngine:
    """DuckDB, and what it was told."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.db = duckdb.connect()
        self.statements: list[str] = []
        self.tables: set[str] = set()
        self.db.execute(
            "CREATE TABLE ratings (customer_id VARCHAR, video_id VARCHAR, rating REAL, "
            "title VARCHAR, review_id VARCHAR, reviewed_at TIMESTAMP)"
        )
        self.db.executemany("INSERT INTO ratings VALUES (?, ?, 3, NULL, NULL, NULL)", pairs)

    def create(self, table: str, sql: str) -> None:
        self.statements.append(sql)
        self.tables.add(table)
        self.db.execute(f"CREATE TABLE {table} AS {sql}")

    def drop(self, table: str) -> None:
        self.tables.remove(table)
        self.db.execute(f"DROP TABLE {table}")

    def fetch(self, sql: str) -> list[tuple]:
        self.statements.append(sql)
        return self.db.execute(sql).fetchall()


def test_a_turn_of_the_k_core_leaves_no_table_behind() -> None:
    def tables(length: int) -> int:
        engine = RecordingEngine(
            [(f"c{i}", f"v{j}") for i in range(length) for j in (i, i + 1)]
            + [(customer, video) for customer in "yz" for video in "yz"]
        )
        report = transform(engine, TWO_TWO_CORE)
        assert isinstance(report, FilterReport)
        return len(engine.tables)

    assert tables(2) == tables(12)


def test_no_literal_has_a_backslash_which_spark_would_take_for_an_escape() -> None:
    engine = RecordingEngine([("a|", "v|"), ("a|", "x"), ("b", "v|"), ("b", "x")])
    transform(engine, TWO_TWO_CORE)
    assert not [sql for sql in (*engine.statements, ORDERED_SQL) if "\\" in sql]


def test_what_is_shipped_to_spark_needs_the_standard_library_of_python_3_9_alone() -> None:
    source = Path(transformation.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "dataclasses", "fractions", "typing"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
