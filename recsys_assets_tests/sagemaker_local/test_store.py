import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_assets.sagemaker_local.api.common import list_page
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.store import MODEL, TRAINING_JOB, Query, Store


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
