"""The ledger of a landing: what counts, what is known, and that nothing gets lost in a file."""

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.domain.ratings.ledger import Entry, Ledger, State, part_name

NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


def arrived(ledger: Ledger, etag: str = "a", rows: int | None = 10, **more: object) -> Entry:
    """Add an arrival under one key; return its entry as it was offered."""
    entry = Entry(
        key="landing/k.tsv",
        version_id=None,
        sequencer=None,
        etag=etag,
        last_modified=NOON,
        size=100,
        generation=len(ledger.entries("landing/k.tsv")) + 1,
        state=State.CURRENT,
        rows=rows,
        rejects=0,
        part="p",
        run_id="r",
    )
    entry = replace(entry, **more)
    ledger.add(entry)
    return entry


def states(ledger: Ledger) -> list[str]:
    return [f"{entry.etag} {entry.state}" for entry in ledger]


def test_a_later_version_takes_the_place_of_the_one_before() -> None:
    ledger = Ledger()
    for etag in "aba":
        arrived(ledger, etag)
    assert states(ledger) == ["a superseded", "b superseded", "a current"]
    assert [entry.generation for entry in ledger.counting()] == [3]


def test_one_that_was_replaced_before_it_could_be_read_never_counts() -> None:
    ledger = Ledger()
    arrived(ledger, "a")
    arrived(ledger, "b", rows=None)
    assert states(ledger) == ["a current", "b superseded"]


@pytest.mark.parametrize(
    ("first", "second", "current"),
    [
        ({"sequencer": "0055AED6DCD9"}, {"sequencer": "0055AED6DCD90281E5"}, "b"),
        ({"sequencer": "0055AED6DCD90281E5"}, {"sequencer": "0055AED6DCD9"}, "a"),
        ({"sequencer": "0A"}, {"sequencer": "09FF"}, "a"),
        (
            {"version_id": "v2", "last_modified": NOON + dt.timedelta(seconds=1)},
            {"version_id": "v1"},
            "a",
        ),
        # Without versions what can be read is what is there, whatever its date says.
        ({"last_modified": NOON + dt.timedelta(hours=3)}, {}, "b"),
    ],
)
def test_an_arrival_that_is_told_late_takes_its_place_in_order(
    first: dict[str, object], second: dict[str, object], current: str
) -> None:
    ledger = Ledger()
    arrived(ledger, "a", **first)
    arrived(ledger, "b", **second)
    assert [entry.etag for entry in ledger.counting()] == [current]


def test_a_version_that_comes_back_counts_whatever_its_age() -> None:
    ledger = Ledger()
    arrived(ledger, "a", version_id="v1")
    newer = {"version_id": "v2", "last_modified": NOON + dt.timedelta(days=1)}
    arrived(ledger, "b", **newer)
    again = replace(ledger.entries("landing/k.tsv")[0], state=State.CURRENT, generation=3)
    ledger.add(again, latest=True)
    assert states(ledger) == ["a superseded", "b superseded", "a current"]


@pytest.mark.parametrize(("keep", "counting"), [(True, 1), (False, 0)])
def test_ratings_of_a_deleted_object_are_kept_or_forgotten(keep: bool, counting: int) -> None:
    ledger = Ledger()
    arrived(ledger, "a")
    ledger.delete("landing/k.tsv", keep=keep)
    ledger.delete("landing/k.tsv", keep=keep)
    ledger.delete("landing/never-seen.tsv", keep=keep)
    assert len(ledger.counting()) == counting
    assert ledger.current("landing/k.tsv") is None
    assert ledger.current_keys(None, None) == []
    arrived(ledger, "b")
    assert [entry.etag for entry in ledger.counting()] == ["b"]


def test_the_same_content_within_a_second_is_known_only_while_it_is_the_latest() -> None:
    ledger = Ledger()
    seen = {"etag": "a", "last_modified": NOON}
    arrived(ledger, "a")
    assert ledger.knows("landing/k.tsv", **seen)
    arrived(ledger, "b")
    assert not ledger.knows("landing/k.tsv", **seen)
    assert ledger.knows("landing/k.tsv", **seen, generation=1), "a run that is made again"
    assert not ledger.knows("landing/k.tsv", **seen, generation=3)
    arrived(ledger, "a")
    assert ledger.knows("landing/k.tsv", **seen, generation=3)


def test_versions_and_events_are_known_by_their_own_names() -> None:
    ledger = Ledger()
    arrived(ledger, "a", version_id="v1", sequencer="01")
    assert ledger.knows("landing/k.tsv", version_id="v1")
    assert not ledger.knows("landing/k.tsv", version_id="v2")
    assert ledger.knows("landing/k.tsv", sequencer="01")
    assert not ledger.knows("landing/k.tsv", sequencer="02")


def test_an_event_is_told_of_the_version_that_was_found_before_it_came() -> None:
    ledger = Ledger()
    arrived(ledger, "a")
    assert not ledger.tell("landing/k.tsv", "b", "01")
    assert ledger.tell("landing/k.tsv", "a", "01")
    assert not ledger.tell("landing/k.tsv", "a", "02"), "one version has one event"
    assert ledger.knows("landing/k.tsv", sequencer="01")


def test_keys_are_bounded_as_a_listing_is() -> None:
    ledger = Ledger()
    for key in ("a", "b", "c", "d"):
        arrived(ledger, key=key)
    assert ledger.current_keys("a", "c") == ["b", "c"]
    assert ledger.current_keys(None, "a") == ["a"]
    assert ledger.current_keys("c", None) == ["d"]


def test_a_copy_is_changed_alone() -> None:
    ledger = Ledger()
    arrived(ledger, "a")
    copy = ledger.copy()
    arrived(copy, "b")
    copy.tell("landing/k.tsv", "b", "01")
    assert states(ledger) == ["a current"]


_TEXT = st.none() | st.text(min_size=1, max_size=5)
_ENTRIES = st.builds(
    Entry,
    key=st.sampled_from(["a", "b/ü", "z"]),
    version_id=_TEXT,
    sequencer=_TEXT,
    etag=st.text(max_size=5),
    last_modified=st.datetimes(
        dt.datetime(1990, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC)
    ),
    size=st.integers(0, 2**60),
    generation=st.integers(1, 9),
    state=st.sampled_from(State),
    rows=st.none() | st.integers(0, 2**40),
    rejects=st.none() | st.integers(0, 2**40),
    part=st.text(max_size=3),
    run_id=st.text(max_size=3),
    ratings_sha256=_TEXT,
    rejects_sha256=_TEXT,
)


@given(entries=st.lists(_ENTRIES, max_size=6))
def test_a_ledger_comes_back_from_its_file(
    entries: list[Entry], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path: Path = tmp_path_factory.mktemp("ledger") / "sources.parquet"
    ledger = Ledger(entries)
    ledger.write(path)
    assert list(Ledger.read(path)) == list(ledger)
    assert len(Ledger.read(path)) == len(entries)


def test_parts_are_named_by_key_version_and_generation() -> None:
    names = {part_name(*of) for of in (("k", "a", 1), ("k", "a", 2), ("k", "b", 1), ("l", "a", 1))}
    assert len(names) == 4
    assert all(len(name) == 32 for name in names)
