"""The ledger of a landing: every version of every landed object that has been ingested.

What belongs here: what the ledger says and how it changes. What does not: looking at the landing
(``recsys_assets.resources.landing``), reading files (``reading.py``) and committing a ledger
(``recsys_assets.resources.object_store``).

A landing is a place where files of ratings arrive, are replaced and are deleted, by other people.
The ledger has one entry for each version that arrived, so that none is ingested twice, and says for
each object whose ratings count: those of its latest version that could be read. What is in it never
leaves it.
"""

import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_MOMENT = pa.timestamp("us", tz="UTC")
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("version_id", pa.string()),
        ("sequencer", pa.string()),
        ("etag", pa.string()),
        ("last_modified", _MOMENT),
        ("size", pa.int64()),
        ("generation", pa.int32()),
        ("state", pa.string()),
        ("rows", pa.int64()),
        ("rejects", pa.int64()),
        ("part", pa.string()),
        ("run_id", pa.string()),
        ("ratings_sha256", pa.string()),
        ("rejects_sha256", pa.string()),
    ]
)


class State(StrEnum):
    """What a version of an object is by now."""

    CURRENT = "current"  # the object's latest: its ratings count
    KEPT = "kept"  # the object has been deleted; its ratings count still
    DELETED = "deleted"  # the object has been deleted, and its ratings with it
    SUPERSEDED = "superseded"  # another version has taken its place


COUNTING = frozenset({State.CURRENT, State.KEPT})


@dataclass(frozen=True)
class Entry:
    """One version of one object.

    Attributes
    ----------
    key
        The object's key within its bucket.
    version_id, sequencer
        S3's id of the version and, from an event notification, its place among the key's events;
        None where there is none.
    etag
        Without quotes.
    last_modified
        By the store's clock, UTC.
    size
        In bytes.
    generation
        The how-manieth arrival under its key, from 1.
    state
        Whether its ratings count.
    rows, rejects
        Ratings and rejects in it; None if it was replaced before it could be read.
    part, run_id
        The name of its Parquet files and the run whose version holds them; see :func:`part_name`.
    ratings_sha256, rejects_sha256
        Of these files; None where there was nothing to write.
    """

    key: str
    version_id: str | None
    sequencer: str | None
    etag: str
    last_modified: dt.datetime
    size: int
    generation: int
    state: State
    rows: int | None
    rejects: int | None
    part: str
    run_id: str
    ratings_sha256: str | None = None
    rejects_sha256: str | None = None

    def is_listed_as(self, etag: str, last_modified: dt.datetime | None) -> bool:
        """Tell whether a listing that tells no version ids is of this one.

        One that an event told of has the event's time, which is not the listing's.
        """
        is_told = self.sequencer is not None and self.version_id is None
        return self.etag == etag and (is_told or self.last_modified == last_modified)


class Ledger:
    """All entries of a landing. Methods that change it are told so by their names."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._by_key: dict[str, list[Entry]] = {}
        for entry in entries:
            self._by_key.setdefault(entry.key, []).append(entry)

    @classmethod
    def read(cls, path: Path) -> "Ledger":
        """Read a Parquet file written by :meth:`write`."""
        rows = pq.read_table(path, schema=_SCHEMA).to_pylist()
        return cls(Entry(**{**row, "state": State(row["state"])}) for row in rows)

    def write(self, path: Path) -> None:
        """Write a Parquet file, ordered by key and generation."""
        table = pa.Table.from_pylist([asdict(entry) for entry in self], schema=_SCHEMA)
        pq.write_table(table, path, compression="zstd")

    def __iter__(self) -> Iterator[Entry]:
        for key in sorted(self._by_key):
            yield from self._by_key[key]

    def __len__(self) -> int:
        return sum(map(len, self._by_key.values()))

    def copy(self) -> "Ledger":
        """Return one that can be changed without changing this one."""
        return Ledger(self)

    def entries(self, key: str) -> Sequence[Entry]:
        """Return what arrived under a key, oldest first."""
        return self._by_key.get(key, ())

    def latest(self, key: str) -> Entry | None:
        """Return the last arrival under a key."""
        entries = self.entries(key)
        return entries[-1] if entries else None

    def current(self, key: str) -> Entry | None:
        """Return the version of an object that is there now, None if it is not there."""
        return next((e for e in self.entries(key) if e.state is State.CURRENT), None)

    def counting(self) -> list[Entry]:
        """Return the entries whose ratings count, ordered by key."""
        return [entry for entry in self if entry.state in COUNTING]

    def current_keys(self, after: str | None, until: str | None) -> list[str]:
        """Return the keys of objects that are there, in ``(after, until]``; None is no bound."""
        return sorted(
            key
            for key in self._by_key
            if (after is None or key > after)
            and (until is None or key <= until)
            and self.current(key) is not None
        )

    def knows(
        self,
        key: str,
        *,
        version_id: str | None = None,
        sequencer: str | None = None,
        etag: str = "",
        last_modified: dt.datetime | None = None,
        generation: int | None = None,
    ) -> bool:
        """Tell whether a version of an object has been ingested.

        A version id tells versions apart, or else a sequencer. Without either, the same content may
        have come twice within the same second: such an arrival is known if it is the latest, or,
        where its `generation` is given, if it has been ingested as that one or a later one.
        """
        entries = self.entries(key)
        if version_id:
            return any(entry.version_id == version_id for entry in entries)
        if sequencer:
            return any(entry.sequencer == sequencer for entry in entries)
        same = [entry for entry in entries if entry.is_listed_as(etag, last_modified)]
        if generation is None:
            return bool(same) and same[-1] is entries[-1] and same[-1].state is State.CURRENT
        return any(entry.generation >= generation for entry in same)

    def add(self, entry: Entry, *, latest: bool = False) -> None:
        """Add an arrival; the version whose ratings counted is superseded if this one is later.

        One that could not be read has been replaced already: its ratings never count.

        Parameters
        ----------
        latest
            It is known to be what is there, whatever it tells of its age: a version comes back
            when those after it are deleted for good.
        """
        entries = self._by_key.setdefault(entry.key, [])
        counting = next((i for i, e in enumerate(entries) if e.state in COUNTING), None)
        if entry.rows is None or (
            counting is not None and not latest and _is_later(entries[counting], entry)
        ):
            entry = replace(entry, state=State.SUPERSEDED)
        elif counting is not None:
            entries[counting] = replace(entries[counting], state=State.SUPERSEDED)
        entries.append(entry)

    def tell(self, key: str, etag: str, sequencer: str) -> bool:
        """Give a version its sequencer that was found by looking, before its event came.

        Returns
        -------
        bool
            Whether there was one with this ETag and without a sequencer.
        """
        entries = self._by_key.get(key, [])
        for index, entry in enumerate(entries):
            if entry.etag == etag and entry.sequencer is None and entry.version_id is None:
                entries[index] = replace(entry, sequencer=sequencer)
                return True
        return False

    def delete(self, key: str, *, keep: bool) -> None:
        """Note that an object has been deleted; its ratings count on if they are to be kept."""
        entries = self._by_key.get(key, [])
        for index, entry in enumerate(entries):
            if entry.state is State.CURRENT:
                entries[index] = replace(entry, state=State.KEPT if keep else State.DELETED)


def part_name(key: str, identity: str, generation: int) -> str:
    """Return the name of an arrival's Parquet files, without suffix.

    Parameters
    ----------
    key
        The object's key.
    identity
        What tells its versions apart: the version id, else the ETag.
    generation
        The how-manieth arrival under the key: the same content may come back.
    """
    return hashlib.sha256(f"{key}\0{identity}\0{generation}".encode()).hexdigest()[:32]


def _is_later(one: Entry, other: Entry) -> bool:
    """Tell whether `one` came to its key after `other`, though it was ingested first.

    Without anything that tells, what was ingested later came later.
    """
    if one.sequencer and other.sequencer:
        # S3 sequencers are hexadecimal, of differing lengths, to be filled up on the right.
        width = max(len(one.sequencer), len(other.sequencer))
        return one.sequencer.ljust(width, "0") > other.sequencer.ljust(width, "0")
    # A version can be read long after it was replaced. Without versions, what can be read is there.
    return bool(one.version_id and other.version_id) and one.last_modified > other.last_modified
