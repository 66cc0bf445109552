"""Everything the endpoint remembers, in one SQLite file; the one place that writes SQL.

A resource (training job, model, ...) is one row: its description as JSON, in the words of the
Describe action of its kind, and beside it the few columns that listings filter and sort by. Log
events and tags have tables of their own. What a description means is not known here.
"""

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recsys_assets.sagemaker_local.identity import arn

Description = dict[str, Any]
"""What Describe tells about a resource, and members that its own module keeps beside that."""

StoreError = sqlite3.Error
"""What the store's methods raise while its file cannot be read or written (a full disk)."""

RETRY_SECONDS = 1.0
"""When to try again what failed so."""

_EVENT_OVERHEAD = 26
"""Bytes that CloudWatch Logs counts for a log event beside its message."""

_SCHEMA_1 = """
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
"""

_SCHEMA_2 = """
CREATE TABLE metrics (
    job TEXT NOT NULL,
    metric TEXT NOT NULL,
    step INTEGER NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (job, metric, step)
) WITHOUT ROWID;
"""

_MIGRATIONS = (_SCHEMA_1, _SCHEMA_2)
"""What brings a file from each version of the schema (0 is an empty file) to the next one."""


@dataclass(frozen=True)
class Kind:
    """A kind of resource.

    Attributes
    ----------
    label
        As in the API's member names: ``TrainingJob`` gives TrainingJobName, TrainingJobArn and
        TrainingJobStatus.
    resource_type
        As in ARNs: ``training-job``.
    """

    label: str
    resource_type: str

    @property
    def name_member(self) -> str:
        """The member with a resource's name."""
        return f"{self.label}Name"

    @property
    def arn_member(self) -> str:
        """The member with a resource's ARN."""
        return f"{self.label}Arn"

    @property
    def status_member(self) -> str:
        """The member with a resource's status; some kinds have none."""
        return f"{self.label}Status"

    def arn(self, name: str) -> str:
        """Return the ARN of the resource of this kind with this name."""
        return arn(self.resource_type, name)


TRAINING_JOB = Kind("TrainingJob", "training-job")
TUNING_JOB = Kind("HyperParameterTuningJob", "hyper-parameter-tuning-job")
PROCESSING_JOB = Kind("ProcessingJob", "processing-job")
TRANSFORM_JOB = Kind("TransformJob", "transform-job")
MODEL = Kind("Model", "model")
ENDPOINT_CONFIG = Kind("EndpointConfig", "endpoint-config")
ENDPOINT = Kind("Endpoint", "endpoint")

KINDS = (TRAINING_JOB, TUNING_JOB, PROCESSING_JOB, TRANSFORM_JOB, MODEL, ENDPOINT_CONFIG, ENDPOINT)

_SORT_COLUMNS = {
    "Name": "name",
    "CreationTime": "created",
    "Status": "status",
    "FinalObjectiveMetricValue": (
        "json_extract(description, '$.FinalHyperParameterTuningJobObjectiveMetric.Value')"
    ),
}


@dataclass(frozen=True)
class Query:
    """Which resources of a kind to list, and in which order.

    Attributes
    ----------
    sort_by
        ``Name``, ``CreationTime``, ``Status`` or ``FinalObjectiveMetricValue``. Resources without
        a value there are not listed; equal ones follow each other by name.
    after
        Sort value and name of the last resource that the caller has already seen.
    limit
        At most so many; ``None`` for all.
    created_after, created_before, modified_after, modified_before
        Seconds since the epoch, exclusive.
    """

    name_contains: str = ""
    status: str | None = None
    parent: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    modified_after: float | None = None
    modified_before: float | None = None
    sort_by: str = "CreationTime"
    descending: bool = False
    after: tuple[str | float, str] | None = None
    limit: int | None = None

    def conditions(self) -> Iterator[tuple[str, Sequence[object]]]:
        """Yield SQL conditions with their parameters."""
        simple = {
            "instr(name, ?) > 0": self.name_contains or None,
            "status = ?": self.status,
            "parent = ?": self.parent,
            "created > ?": self.created_after,
            "created < ?": self.created_before,
            "modified > ?": self.modified_after,
            "modified < ?": self.modified_before,
        }
        for condition, value in simple.items():
            if value is not None:
                yield condition, [value]
        column = _SORT_COLUMNS[self.sort_by]
        yield f"{column} IS NOT NULL", []
        if self.after is not None:
            value, name = self.after
            beyond = "<" if self.descending else ">"
            yield f"({column} {beyond} ? OR ({column} = ? AND name > ?))", [value, value, name]


@dataclass(frozen=True)
class LogStream:
    """A log stream and the times of its events, in milliseconds since the epoch."""

    name: str
    created: int
    first_event: int | None
    last_event: int | None


@dataclass(frozen=True)
class LogEvent:
    """One line of a log; ``position`` counts from 0 within its stream."""

    position: int
    timestamp: int
    message: str

    @property
    def size(self) -> int:
        """Bytes that it counts for towards limits."""
        return len(self.message.encode()) + _EVENT_OVERHEAD


@dataclass(frozen=True)
class FoundEvent:
    """An event among those of several streams; ``stream`` and its position identify it."""

    stream: int
    stream_name: str
    event: LogEvent

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it stands in the order of events."""
        return self.event.timestamp, self.stream, self.event.position


@dataclass(frozen=True)
class Listed:
    """A listed resource and the value that it was sorted by."""

    sort_value: str | float
    description: Description = field(repr=False)


class Store:
    """The endpoint's memory. Every method is one transaction and safe to call from any thread.

    Parameters
    ----------
    path
        The SQLite file; created if there is none, brought forward if an older version wrote it.

    Raises
    ------
    RuntimeError
        When the file cannot be read or was written by a newer version of the schema.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        # One connection behind a lock: every statement here takes well under a millisecond.
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._open(path)
        except sqlite3.DatabaseError as error:
            raise RuntimeError(f"{path} cannot be read: {error}") from error

    def _open(self, path: Path) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        # Enough for a killed process; only a power cut can take the last commits (and no more).
        self._connection.execute("PRAGMA synchronous = NORMAL")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        newest = len(_MIGRATIONS)
        if version > newest:
            raise RuntimeError(
                f"{path} has schema version {version}; this endpoint reads up to version {newest}."
            )
        for reached, migration in enumerate(_MIGRATIONS[version:], start=version + 1):
            self._connection.executescript(
                f"BEGIN; {migration} PRAGMA user_version = {reached}; COMMIT;"
            )

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def unchanging(self) -> Iterator[None]:
        """Hold off all changes, so that several reads tell of the same moment."""
        with self._lock:
            yield

    # Resources

    def insert(
        self,
        kind: Kind,
        description: Description,
        *,
        tags: Mapping[str, str] | None = None,
        parent: str | None = None,
    ) -> bool:
        """Add a resource with its tags.

        Parameters
        ----------
        kind, description
            What is added; its CreationTime (and LastModifiedTime) is set to now.
        tags
            Tags of the resource.
        parent
            Name of the resource that this one belongs to (a child's tuning job).

        Returns
        -------
        bool
            False when the name is taken; nothing is changed then.
        """
        name = description[kind.name_member]
        with self._transaction() as connection:
            # Taken in here, so that resources appear in the order of their times.
            now = time.time()
            description["CreationTime"] = description["LastModifiedTime"] = now
            added = connection.execute(
                "INSERT OR IGNORE INTO resources VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    kind.resource_type,
                    name,
                    parent,
                    description.get(kind.status_member),
                    now,
                    now,
                    json.dumps(description),
                ],
            ).rowcount
            if added and tags:
                self._put_tags(connection, kind.arn(name), tags)
        return bool(added)

    def get(self, kind: Kind, name: str) -> Description | None:
        """Return a resource's description, or None."""
        with self._lock:
            row = self._connection.execute(
                "SELECT description FROM resources WHERE kind = ? AND name = ?",
                [kind.resource_type, name],
            ).fetchone()
        return None if row is None else _decoded(row[0])

    @contextlib.contextmanager
    def edit(self, kind: Kind, name: str) -> Iterator[Description]:
        """Change a resource's description in place, in one transaction.

        Raises
        ------
        KeyError
            When there is no such resource.
        """
        with self._transaction() as connection:
            description = self.get(kind, name)
            if description is None:
                raise KeyError(f"no {kind.resource_type} named {name!r}")
            yield description
            description["LastModifiedTime"] = time.time()
            connection.execute(
                "UPDATE resources SET status = ?, modified = ?, description = ?"
                " WHERE kind = ? AND name = ?",
                [
                    description.get(kind.status_member),
                    description["LastModifiedTime"],
                    json.dumps(description),
                    kind.resource_type,
                    name,
                ],
            )

    def delete(self, kind: Kind, name: str, *, children: Kind | None = None) -> bool:
        """Remove a resource and its tags; return whether there was one.

        Parameters
        ----------
        kind, name
            The resource.
        children
            The kind of resources that belong to it. They stay, and belong to nothing from then on.
        """
        with self._transaction() as connection:
            if children is not None:
                connection.execute(
                    "UPDATE resources SET parent = NULL WHERE kind = ? AND parent = ?",
                    [children.resource_type, name],
                )
            connection.execute("DELETE FROM tags WHERE arn = ?", [kind.arn(name)])
            removed = connection.execute(
                "DELETE FROM resources WHERE kind = ? AND name = ?", [kind.resource_type, name]
            ).rowcount
        return bool(removed)

    def find(self, kind: Kind, query: Query) -> list[Listed]:
        """Return the resources of a kind that a query asks for, in its order."""
        column = _SORT_COLUMNS[query.sort_by]
        conditions = ["kind = ?"]
        parameters: list[object] = [kind.resource_type]
        for condition, values in query.conditions():
            conditions.append(condition)
            parameters.extend(values)
        direction = "DESC" if query.descending else "ASC"
        statement = (
            f"SELECT {column}, description FROM resources WHERE {' AND '.join(conditions)}"
            f" ORDER BY {column} {direction}, name LIMIT ?"
        )
        parameters.append(-1 if query.limit is None else query.limit)
        with self._lock:
            rows = self._connection.execute(statement, parameters).fetchall()
        return [Listed(value, _decoded(text)) for value, text in rows]

    def count_children(self, kind: Kind, parent: str) -> dict[tuple[str, str], int]:
        """Count a parent's resources by status and by ObjectiveStatus."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT status, json_extract(description, '$.ObjectiveStatus'), count(*)"
                " FROM resources WHERE kind = ? AND parent = ? GROUP BY 1, 2",
                [kind.resource_type, parent],
            ).fetchall()
        return {(status, objective): count for status, objective, count in rows}

    # Metrics

    def append_metrics(self, job: str, values: Sequence[tuple[str, float]]) -> None:
        """Add values of metrics, by name and in their order, to the course of a training job."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO metrics SELECT ?1, ?2, ifnull(max(step), 0) + 1, ?3 FROM metrics"
                " WHERE job = ?1 AND metric = ?2",
                [(job, metric, value) for metric, value in values],
            )

    def forget_metrics(self, job: str) -> None:
        """Remove the course of a training job, which begins anew."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM metrics WHERE job = ?", [job])

    def metric_courses(self, metric: str, parent: str) -> dict[str, list[float]]:
        """Return a metric's values so far, in their order, by the name of a parent's job."""
        courses: dict[str, list[float]] = {}
        with self._lock:
            rows = self._connection.execute(
                "SELECT job, value FROM metrics JOIN resources ON name = job"
                " WHERE kind = ? AND parent = ? AND metric = ? ORDER BY job, step",
                [TRAINING_JOB.resource_type, parent, metric],
            ).fetchall()
        for job, value in rows:
            courses.setdefault(job, []).append(value)
        return courses

    # Tags

    def tags(self, resource_arn: str) -> dict[str, str]:
        """Return a resource's tags, by key."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT key, value FROM tags WHERE arn = ? ORDER BY key", [resource_arn]
            ).fetchall()
        return dict(rows)

    def put_tags(self, resource_arn: str, tags: Mapping[str, str]) -> None:
        """Add tags to a resource; those with a known key get the new value."""
        with self._transaction() as connection:
            self._put_tags(connection, resource_arn, tags)

    def delete_tags(self, resource_arn: str, keys: Sequence[str]) -> None:
        """Remove tags from a resource, by key."""
        with self._transaction() as connection:
            connection.executemany(
                "DELETE FROM tags WHERE arn = ? AND key = ?", [(resource_arn, key) for key in keys]
            )

    # Logs

    def open_log_stream(self, log_group: str, prefix: str, suffix: str) -> int:
        """Return the number of a group's stream whose name starts with a prefix.

        One named prefix + suffix is created if there is none, so that a job that is started again
        continues its log.
        """
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT stream FROM log_streams WHERE log_group = ? AND substr(name, 1, ?) = ?",
                [log_group, len(prefix), prefix],
            ).fetchone()
            if row is not None:
                return int(row[0])
            cursor = connection.execute(
                "INSERT INTO log_streams (log_group, name, created) VALUES (?, ?, ?)",
                [log_group, prefix + suffix, _milliseconds()],
            )
            assert cursor.lastrowid is not None  # noqa: S101 - an INSERT sets it
            return cursor.lastrowid

    def append_log(self, stream: int, messages: Sequence[str]) -> None:
        """Add messages to a stream, stamped with the present time."""
        now = _milliseconds()
        with self._transaction() as connection:
            (position,) = connection.execute(
                "SELECT ifnull(max(position) + 1, 0) FROM log_events WHERE stream = ?", [stream]
            ).fetchone()
            connection.executemany(
                "INSERT INTO log_events VALUES (?, ?, ?, ?)",
                [
                    (stream, position + offset, now, message)
                    for offset, message in enumerate(messages)
                ],
            )

    def log_streams(self, log_group: str, prefix: str = "") -> list[LogStream]:
        """Return a group's streams whose names start with a prefix, by name."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT name, created,"
                " (SELECT timestamp FROM log_events WHERE stream = log_streams.stream"
                " ORDER BY position LIMIT 1),"
                " (SELECT timestamp FROM log_events WHERE stream = log_streams.stream"
                " ORDER BY position DESC LIMIT 1)"
                " FROM log_streams WHERE log_group = ? AND substr(name, 1, ?) = ? ORDER BY name",
                [log_group, len(prefix), prefix],
            ).fetchall()
        return [LogStream(*row) for row in rows]

    def log_events(
        self,
        log_group: str,
        name: str,
        *,
        start: int = 0,
        stop: int | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int,
        most_bytes: int,
        newest: bool = False,
    ) -> list[LogEvent] | None:
        """Return events of a stream in their order, or None when there is no such stream.

        Parameters
        ----------
        log_group, name
            The stream.
        start, stop
            Positions: from ``start`` on, up to and without ``stop``.
        since, until
            Times in milliseconds since the epoch: from ``since`` on, up to and without ``until``.
        limit, most_bytes
            At most so many, of so many bytes together; but one at least, if there is one.
        newest
            Which are left out beyond these limits: the older ones, instead of the newer ones.
        """
        conditions = ["stream = ?", "position >= ?"]
        parameters: list[object] = [start]
        bounds = {"position < ?": stop, "timestamp >= ?": since, "timestamp < ?": until}
        for condition, bound in bounds.items():
            if bound is not None:
                conditions.append(condition)
                parameters.append(bound)
        statement = (
            "SELECT position, timestamp, message FROM log_events"
            f" WHERE {' AND '.join(conditions)}"
            f" ORDER BY position {'DESC' if newest else 'ASC'} LIMIT ?"
        )
        with self._lock:
            row = self._connection.execute(
                "SELECT stream FROM log_streams WHERE log_group = ? AND name = ?",
                [log_group, name],
            ).fetchone()
            if row is None:
                return None
            events: list[LogEvent] = []
            for found in self._connection.execute(statement, [row[0], *parameters, limit]):
                event = LogEvent(*found)
                most_bytes -= event.size
                if most_bytes < 0 and events:
                    break
                events.append(event)
        return events[::-1] if newest else events

    def log_groups(self, prefix: str = "") -> dict[str, int]:
        """Return the groups whose names start with a prefix, each with its creation time."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT log_group, min(created) FROM log_streams WHERE substr(log_group, 1, ?) = ?"
                " GROUP BY log_group ORDER BY log_group",
                [len(prefix), prefix],
            ).fetchall()
        return dict(rows)

    def find_log_events(
        self,
        log_group: str,
        *,
        streams: Sequence[str] = (),
        prefix: str = "",
        terms: Sequence[str] = (),
        since: int | None = None,
        until: int | None = None,
        after: tuple[int, int, int] | None = None,
        limit: int,
        most_bytes: int,
    ) -> tuple[list[FoundEvent], bool]:
        """Return events of a group, by time, and whether there are more of them.

        Parameters
        ----------
        log_group
            The group.
        streams, prefix
            Only of the streams of these names, if any, or whose names start so.
        terms
            Only with all of these in the message.
        since, until
            Times in milliseconds since the epoch: from ``since`` on, up to and without ``until``.
        after
            Place of the last event that the caller has already seen.
        limit, most_bytes
            At most so many, of so many bytes together; but one at least, if there is one.
        """
        conditions = ["log_group = ?", "substr(name, 1, ?) = ?"]
        parameters: list[object] = [log_group, len(prefix), prefix]
        if streams:
            conditions.append(f"name IN ({', '.join('?' * len(streams))})")
            parameters.extend(streams)
        for term in terms:
            conditions.append("instr(message, ?) > 0")
            parameters.append(term)
        for condition, bound in {"timestamp >= ?": since, "timestamp < ?": until}.items():
            if bound is not None:
                conditions.append(condition)
                parameters.append(bound)
        if after is not None:
            conditions.append("(timestamp, stream, position) > (?, ?, ?)")
            parameters.extend(after)
        found: list[FoundEvent] = []
        with self._lock:
            rows = self._connection.execute(
                "SELECT stream, name, position, timestamp, message"
                " FROM log_events JOIN log_streams USING (stream)"
                f" WHERE {' AND '.join(conditions)}"
                " ORDER BY timestamp, stream, position LIMIT ?",
                [*parameters, limit + 1],  # one more tells whether there are more
            )
            for stream, name, *columns in rows:
                event = LogEvent(*columns)
                most_bytes -= event.size
                if found and (len(found) == limit or most_bytes < 0):
                    return found, True
                found.append(FoundEvent(stream, name, event))
        return found, False

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                if self._connection.in_transaction:  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @staticmethod
    def _put_tags(
        connection: sqlite3.Connection, resource_arn: str, tags: Mapping[str, str]
    ) -> None:
        connection.executemany(
            "INSERT OR REPLACE INTO tags VALUES (?, ?, ?)",
            [(resource_arn, key, value) for key, value in tags.items()],
        )


def _decoded(text: str) -> Description:
    description: Description = json.loads(text)
    return description


def _milliseconds() -> int:
    return int(time.time() * 1000)
