"""What cannot be read, and why.

What belongs here: the reasons for which a row is put aside, the row of the rejects table that says
so, and the error for input of which nothing can be read. What does not: finding them out.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_assets.domain.ratings.texts import Ints, decoded

REJECTS_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("line", pa.int64()),
        ("column", pa.string()),
        ("reason", pa.string()),
        ("raw", pa.string()),
    ]
)
Rejects: TypeAlias = pa.RecordBatch
"""Rejects of one file: line, column, reason and raw, this cut at 500 characters."""

_OF_A_FILE = pa.schema([field for field in REJECTS_SCHEMA if field.name != "file"])
NONE_REJECTED: Rejects = pa.record_batch(
    [pa.nulls(0, field.type) for field in _OF_A_FILE], schema=_OF_A_FILE
)

_RAW_CHARACTERS = 500
_LARGEST_CHARACTER = 4  # bytes


class RatingsError(ValueError):
    """Input of which nothing can be read; the message says what was expected and what came."""


class Reason(StrEnum):
    """Why a row, or the rest of a file, is no rating."""

    TOO_FEW_FIELDS = "too few fields"
    TOO_MANY_FIELDS = "too many fields"
    BROKEN_QUOTING = "broken quoting"
    LINE_TOO_LONG = "line too long"
    MISSING_ID = "missing id"
    BROKEN_UTF8 = "broken UTF-8"
    NUL_BYTE = "NUL byte in an id"
    EMPTY_RATING = "empty rating"
    RATING_NOT_A_NUMBER = "rating is not a number"
    RATING_OUT_OF_RANGE = "rating out of range"
    TRUNCATED_GZIP = "truncated gzip"
    CORRUPT_GZIP = "corrupt gzip"
    TRUNCATED_ZSTANDARD = "truncated Zstandard"
    CORRUPT_ZSTANDARD = "corrupt Zstandard"
    TRUNCATED_BZIP2 = "truncated bzip2"
    CORRUPT_BZIP2 = "corrupt bzip2"
    DAMAGED_PARQUET = "damaged Parquet"
    UNREADABLE_FILE = "unreadable file"


_REASONS = list(Reason)


class Fault(NamedTuple):
    """A reason, and the column at fault, by its name in the file, where there is one."""

    reason: Reason
    column: str | None = None


def rejected(lines: Ints, kinds: Ints, faults: Sequence[Fault], raw: pa.BinaryArray) -> Rejects:
    """Rows put aside.

    Parameters
    ----------
    lines
        Physical line on which each row starts, from 1; in Parquet the row's number.
    kinds
        Which of `faults` each has.
    faults
        What may be wrong.
    raw
        What stood there, without line ends.
    """
    cut, _ = decoded(pc.binary_slice(raw, 0, _LARGEST_CHARACTER * _RAW_CHARACTERS))
    kind = pa.array(kinds)
    return pa.record_batch(
        [
            pa.array(lines, pa.int64()),
            pa.array([fault.column for fault in faults], pa.string()).take(kind),
            pa.array([fault.reason.value for fault in faults], pa.string()).take(kind),
            pc.utf8_slice_codeunits(cut, 0, _RAW_CHARACTERS),
        ],
        schema=_OF_A_FILE,
    )


class RejectedLine(NamedTuple):
    """A row put aside, where rows come one by one; the column of its fault is not known."""

    line: int
    reason: Reason
    raw: bytes


def rejected_lines(rows: Sequence[RejectedLine]) -> Rejects:
    """Rows put aside, by line."""
    rows = sorted(rows, key=lambda row: row.line)
    return rejected(
        np.array([row.line for row in rows], np.int64),
        np.array([_REASONS.index(row.reason) for row in rows], np.int64),
        [Fault(reason) for reason in _REASONS],
        pa.array([row.raw for row in rows], pa.binary()),
    )


def in_order_of_lines(*rejects: Rejects) -> Rejects:
    """All of them, by line."""
    some = [part for part in rejects if len(part)]
    if len(some) < 2:
        return some[0] if some else NONE_REJECTED
    return pa.concat_batches(some).sort_by("line")


def rejects_batch(file: str, rejects: Rejects) -> pa.RecordBatch:
    """Rows of the rejects table."""
    names = pa.repeat(pa.scalar(file, pa.string()), len(rejects))
    return pa.record_batch([names, *rejects.columns], schema=REJECTS_SCHEMA)


def counts_by_reason(rejects: Rejects) -> dict[str, int]:
    """How many have each reason."""
    counts = rejects.column("reason").value_counts().to_pylist()
    return {count["values"]: count["counts"] for count in counts}
