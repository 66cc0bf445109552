import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_assets.sagemaker_local.api.common import list_page
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.store import MODEL, TRAINING_JOB, TUNING_JOB, Query, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store.sqlite")
    yield opened
    opened.close()


def job(name: str, status: str = "InProgress", value: float | None = None) -> dict[str, object]:
    found: dict[str, object] = {"TrainingJobName": name, "TrainingJobStatus": status}
    if value is not None:
        found["FinalHyperParameterTuningJobObjectiveMetric"] = {"Value": value}
    return found


def test_a_name_is_taken_once_for_each_kind(store: Store) -> None:
    assert store.insert(TRAINING_JOB, job("a"), tags={"k": "first"})
    assert not store.insert(TRAINING_JOB, job("a", "Failed"), tags={"k": "second"})
    assert store.insert(MODEL, {"ModelName": "a"})
    found = store.get(TRAINING_JOB, "a")
    assert found is not None
    assert found["TrainingJobStatus"] == "InProgress"
    assert store.tags(TRAINING_JOB.arn("a")) == {"k": "first"}


def test_an_edit_that_fails_changes_nothing(store: Store) -> None:
    store.insert(TRAINING_JOB, job("a"))

    def failing_edit() -> None:
        with store.edit(TRAINING_JOB, "a") as found:
            found["TrainingJobStatus"] = "Completed"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing_edit()
    assert [
        item.description["TrainingJobName"]
        for item in store.find(TRAINING_JOB, Query(status="InProgress"))
    ] == ["a"]


def test_a_full_disk_is_told_and_once_there_is_room_all_goes_on(store: Store) -> None:
    stream = store.open_log_stream("group", "job/", "algo-1")
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.append_log(stream, ["x" * 100_000])
    store._connection.execute(f"PRAGMA max_page_count = {2 * pages + 100}")
    store.append_log(stream, ["y"])
    events = store.log_events("group", "job/algo-1", limit=9, most_bytes=1 << 20)
    assert [event.message for event in events or []] == ["y"]


def test_found_events_come_in_pages_of_limited_size(store: Store) -> None:
    lines = [letter * 100 for letter in "abcdefg"] + ["h" * 1000, "i"]
    store.append_log(store.open_log_stream("group", "job/", "algo-1"), lines)
    pages: list[list[str]] = []
    after, more = None, True
    while more:
        found, more = store.find_log_events("group", after=after, limit=5, most_bytes=400)
        pages.append([item.event.message for item in found])
        after = found[-1].place
    # An event counts for 26 bytes beside its message, as in CloudWatch Logs.
    assert pages == [lines[0:3], lines[3:6], lines[6:7], lines[7:8], lines[8:9]]


def test_records_survive_and_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    first = Store(path)
    first.insert(TRAINING_JOB, job("a"))
    first.close()
    second = Store(path)
    assert second.get(TRAINING_JOB, "a") is not None
    second.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(RuntimeError, match="schema version 99"):
        Store(path)


def test_deleting_a_resource_deletes_its_tags(store: Store) -> None:
    store.insert(MODEL, {"ModelName": "m"}, tags={"k": "v"})
    assert store.delete(MODEL, "m")
    assert not store.delete(MODEL, "m")
    assert store.tags(MODEL.arn("m")) == {}


jobs = st.dictionaries(
    st.text("ab-", min_size=1, max_size=4),
    st.tuples(st.sampled_from(["Failed", "Completed"]), st.sampled_from([None, 0.5, 1.5, -2.0])),
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    jobs,
    st.sampled_from(["Name", "CreationTime", "Status", "FinalObjectiveMetricValue"]),
    st.booleans(),
    st.integers(1, 5),
)
def test_pages_together_are_the_whole_list_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    found: dict[str, tuple[str, float | None]],
    sort_by: str,
    descending: bool,
    size: int,
) -> None:
    store = Store(tmp_path_factory.mktemp("pages") / "store.sqlite")
    for name, (status, value) in found.items():
        store.insert(TRAINING_JOB, job(name, status, value))
    order = "Descending" if descending else "Ascending"
    request = {"MaxResults": size, "SortBy": sort_by, "SortOrder": order}
    names: list[str] = []
    while True:
        page, more = list_page(store, TRAINING_JOB, request)
        names += [item["TrainingJobName"] for item in page]
        if not more:
            break
        assert len(page) == size
        request |= more
    store.close()

    created = {name: position for position, name in enumerate(found)}
    keys = {
        "Name": lambda name: name,
        "CreationTime": lambda name: created[name],
        "Status": lambda name: found[name][0],
        "FinalObjectiveMetricValue": lambda name: found[name][1],
    }
    expected = sorted(found)
    if sort_by == "FinalObjectiveMetricValue":
        expected = [name for name in expected if found[name][1] is not None]
    expected.sort(key=keys[sort_by], reverse=descending)  # stable: equal ones stay by name
    assert names == expected


@pytest.mark.parametrize("token", ["x", "bnVsbA==", "WzEsMl0=", "\u00e9"])
def test_a_token_that_no_list_gave_is_refused(store: Store, token: str) -> None:
    with pytest.raises(ServiceError, match="Invalid NextToken"):
        list_page(store, TRAINING_JOB, {"NextToken": token})


def test_a_log_stream_is_continued_and_read_from_both_ends(store: Store) -> None:
    stream = store.open_log_stream("group", "job/", "algo-1-1")
    store.append_log(stream, ["a", "b"])
    assert store.open_log_stream("group", "job/", "algo-1-2") == stream
    assert store.open_log_stream("group", "job-2/", "algo-1-1") != stream
    store.append_log(stream, ["c"])

    def messages(limit: int, most_bytes: int = 1000, **options: Any) -> list[str]:
        events = store.log_events(
            "group", "job/algo-1-1", limit=limit, most_bytes=most_bytes, **options
        )
        assert events is not None
        return [event.message for event in events]

    assert messages(limit=2) == ["a", "b"]
    assert messages(limit=2, newest=True) == ["b", "c"]
    assert messages(limit=9, start=1) == ["b", "c"]
    assert messages(limit=1, stop=2, newest=True) == ["b"]
    # Each event counts as 26 bytes and its message; one is returned in any case.
    assert messages(limit=9, most_bytes=54) == ["a", "b"]
    assert messages(limit=9, most_bytes=53, newest=True) == ["c"]
    assert messages(limit=9, most_bytes=1) == ["a"]
    assert store.log_events("group", "job/algo-1-2", limit=1, most_bytes=1) is None


VERSION_1 = """
CREATE TABLE resources (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    parent TEXT,
    status TEXT,
    created REAL NOT NULL,
    modified REAL NOT NULL,
    description TEXT NOT NULL,
    PRIMARY KEY (kind, name)
);
CREATE INDEX resources_by_status ON resources (kind, status, created);
CREATE INDEX resources_by_parent ON resources (kind, parent) WHERE parent IS NOT NULL;
CREATE TABLE tags (
    arn TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (arn, key)
);
CREATE TABLE log_streams (
    stream INTEGER PRIMARY KEY,
    log_group TEXT NOT NULL,
    name TEXT NOT NULL,
    created INTEGER NOT NULL,
    UNIQUE (log_group, name)
);
CREATE TABLE log_events (
    stream INTEGER NOT NULL REFERENCES log_streams,
    position INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (stream, position)
) WITHOUT ROWID;
INSERT INTO resources VALUES (
    'training-job', 'old', 'search', 'Completed', 1.5, 2.5,
    '{"TrainingJobName": "old", "TrainingJobStatus": "Completed", "ObjectiveStatus": "Succeeded"}'
);
INSERT INTO log_streams VALUES (1, 'group', 'old/algo-1-1', 1);
INSERT INTO log_events VALUES (1, 0, 5, 'hello');
PRAGMA user_version = 1;
"""
"""The schema as the first version of the endpoint wrote it, and a few rows."""


def test_a_file_of_the_first_version_is_brought_forward(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(VERSION_1)
    connection.close()
    for _ in range(2):  # what was brought forward is opened as it is
        store = Store(path)
        found = store.get(TRAINING_JOB, "old")
        assert found is not None
        assert found["TrainingJobStatus"] == "Completed"
        assert store.count_children(TRAINING_JOB, "search") == {("Completed", "Succeeded"): 1}
        events = store.log_events("group", "old/algo-1-1", limit=1, most_bytes=100)
        assert events is not None
        assert [event.message for event in events] == ["hello"]
        store.append_metrics("old", [("loss", 0.5)])
        store.close()
    store = Store(path)
    assert store.metric_courses("loss", "search") == {"old": [0.5, 0.5]}
    store.close()


def test_metrics_are_kept_in_their_order_by_job_and_name(store: Store) -> None:
    for name, parent in (("a", "search"), ("b", "search"), ("c", "other")):
        store.insert(TRAINING_JOB, job(name), parent=parent)
        store.append_metrics(name, [("loss", 3.0), ("rate", 9.0), ("loss", 1.0)])
    store.append_metrics("a", [("loss", 2.0)])
    assert store.metric_courses("loss", "search") == {"a": [3.0, 1.0, 2.0], "b": [3.0, 1.0]}
    store.forget_metrics("a")
    assert store.metric_courses("loss", "search") == {"b": [3.0, 1.0]}
    store.append_metrics("a", [("loss", 7.0)])
    assert store.metric_courses("loss", "search")["a"] == [7.0]


def test_a_deleted_resource_leaves_its_children_without_a_parent(store: Store) -> None:
    store.insert(TUNING_JOB, {"HyperParameterTuningJobName": "search"})
    store.insert(TRAINING_JOB, job("a"), parent="search")
    store.insert(TRAINING_JOB, job("b"), parent="other")
    assert store.delete(TUNING_JOB, "search", children=TRAINING_JOB)
    assert store.get(TRAINING_JOB, "a") is not None
    assert store.find(TRAINING_JOB, Query(parent="search")) == []
    assert len(store.find(TRAINING_JOB, Query(parent="other"))) == 1


def test_while_reads_belong_together_nothing_is_written(store: Store) -> None:
    writer = threading.Thread(target=lambda: store.insert(TRAINING_JOB, job("a")))
    with store.unchanging():
        writer.start()
        assert store.get(TRAINING_JOB, "a") is None
        assert writer.is_alive()
    writer.join()
    assert store.get(TRAINING_JOB, "a") is not None
