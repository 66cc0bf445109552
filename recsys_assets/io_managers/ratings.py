"""Raw ratings: Parquet files of ratings and of rejects, and the ledger of those that landed.

What belongs here: which files make up a version. What does not: reading the files of others
(``recsys_assets.domain.ratings``).

A version that grows does not copy what was there before: its ledger names the run whose version
holds the files of each landed object.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
from dagster import TableColumn, TableSchema

from recsys_assets.domain.ratings.ledger import Entry, Ledger
from recsys_assets.domain.ratings.reading import RATINGS_SCHEMA
from recsys_assets.io_managers.base import VersionedIOManager, Written
from recsys_assets.resources.landing.ledgers import LEDGER, ledger_of
from recsys_assets.resources.object_store import Head, Version, sha256_of

RATINGS, REJECTS = "ratings", "rejects"
_KINDS = (RATINGS, REJECTS)
_FETCHED_AT_ONCE = 8


class RawRatings:
    """A temporary folder of ratings and rejects; it is deleted with the last reference.

    Attributes
    ----------
    ledger
        Of the landing that the ratings came from; None where they are of one source.
    head
        The commit that the ledger grew out of.
    """

    def __init__(self, ledger: Ledger | None = None, head: Head | None = None) -> None:
        self.ledger = ledger
        self.head = head
        self._folder = TemporaryDirectory(prefix="recsys-")
        for name in _KINDS:
            (self.path / name).mkdir()

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self._folder.name)

    @property
    def main(self) -> Path:
        """A pattern of the files of ratings; of those that are stored there is at least one."""
        return self.file(RATINGS, "*")

    @property
    def rejects(self) -> Path:
        """A pattern of the files of rejects."""
        return self.file(REJECTS, "*")

    def add(self, read: Path, part: str) -> dict[str, str]:
        """Move in what was read of one source: ``ratings.parquet`` and ``rejects.parquet``.

        Returns
        -------
        dict
            By kind, the SHA-256 of each file that has a row.
        """
        added = {}
        for kind in _KINDS:
            path = read / f"{kind}.parquet"
            if pq.read_metadata(path).num_rows:
                added[kind] = sha256_of(path)
                path.rename(self.file(kind, part))
        return added

    def file(self, kind: str, part: str) -> Path:
        """Return the path of a file of ratings or rejects, which is absent if it had no row."""
        return self.path / kind / f"{part}.parquet"

    def rows(self, kind: str = RATINGS) -> int:
        """Return how many ratings or rejects are in the folder."""
        files = (self.path / kind).glob("*.parquet")
        return sum(int(pq.read_metadata(path).num_rows) for path in files)


@dataclass(frozen=True)
class StoredRatings:
    """Where the ratings of a version lie, for an engine that reads them from S3.

    Attributes
    ----------
    uris
        Of the Parquet files that count; none if there is no rating.
    fetch
        Downloads them, and the rejects, for an engine that reads files.
    """

    uris: tuple[str, ...]
    fetch: Callable[[], RawRatings]


class RawRatingsIOManager(VersionedIOManager):
    """Stores RawRatings: ``ratings/*.parquet``, ``rejects/*.parquet`` and ``sources.parquet``.

    Loads them, or StoredRatings without fetching any, by the parameter's annotation.
    """

    def write(self, value: RawRatings, folder: Path) -> Written:
        """Write the files that the version adds, and its ledger."""
        shutil.copytree(value.path, folder, copy_function=os.link, dirs_exist_ok=True)
        if value.ledger is None:
            rows = value.rows()
        else:
            value.ledger.write(folder / LEDGER)
            rows = sum(entry.rows or 0 for entry in value.ledger.counting())
        columns = [TableColumn(column.name, str(column.type)) for column in RATINGS_SCHEMA]
        return Written(
            row_count=rows,
            schema=TableSchema(columns),
            facts={"schema": {column.name: column.type for column in columns}},
            head=value.head,
        )

    def load(self, version: Version, wanted: type) -> RawRatings | StoredRatings:
        """Return the files that count, whichever runs wrote them, or where they are."""
        if wanted is StoredRatings:
            return StoredRatings(tuple(self._uris(version)), partial(self.fetch, version))
        return self.fetch(version)

    def fetch(self, version: Version) -> RawRatings:
        """Fetch the files that count."""
        if LEDGER not in (file.name for file in version.files):
            ratings = RawRatings()
            self.store.fetch(version, ratings.path)
        else:
            ratings = self._load_landed(version)
        if not ratings.rows():
            # Readers of a pattern want a file that shows the columns.
            pq.write_table(RATINGS_SCHEMA.empty_table(), ratings.file(RATINGS, "none"))
        return ratings

    def _uris(self, version: Version) -> Iterator[str]:
        names = [file.name for file in version.files]
        if LEDGER not in names:
            yield from (version.uri + name for name in names if name.startswith(f"{RATINGS}/"))
            return
        for entry in ledger_of(self.store, version).counting():
            if entry.ratings_sha256 is not None:
                yield self._uri(version, entry, RATINGS)

    def _uri(self, version: Version, entry: Entry, kind: str) -> str:
        name = f"{entry.part}.parquet"
        return self.store.uri(version.asset, entry.run_id, "data", kind, name)

    def _load_landed(self, version: Version) -> RawRatings:
        ledger = ledger_of(self.store, version)
        ratings = RawRatings(ledger)

        def fetch(wanted: tuple[Entry, str, str]) -> None:
            entry, kind, sha256 = wanted
            uri = self._uri(version, entry, kind)
            self.store.fetch_file(version.asset, uri, sha256, ratings.file(kind, entry.part))

        files = [
            (entry, kind, sha256)
            for entry in ledger.counting()
            for kind, sha256 in ((RATINGS, entry.ratings_sha256), (REJECTS, entry.rejects_sha256))
            if sha256 is not None
        ]
        with ThreadPoolExecutor(_FETCHED_AT_ONCE) as pool:
            for _ in pool.map(fetch, files):
                pass
        return ratings
