"""What cannot be read, and why.

What belongs here: the reasons for which a row is put aside, the row of the rejects table that says
so, and the error for input of which nothing can be read. What does not: finding them out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

REJECTS_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("line", pa.int64()),
        ("column", pa.string()),
        ("reason", pa.string()),
        ("raw", pa.string()),
    ]
)
_RAW_CHARACTERS = 500


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
    DAMAGED_PARQUET = "damaged Parquet"
    UNREADABLE_FILE = "unreadable file"


@dataclass(frozen=True, slots=True)
class Reject:
    """A row put aside.

    Attributes
    ----------
    line : int
        Physical line on which the row starts, from 1; in Parquet the row's number.
    reason : Reason
        Why.
    raw : bytes
        What stood there, without its line end.
    column : str or None
        The column at fault, by its name in the file, where there is one.
    """

    line: int
    reason: Reason
    raw: bytes
    column: str | None = None


def rejects_batch(file: str, rejects: Sequence[Reject]) -> pa.RecordBatch:
    """Rows of the rejects table, with `raw` as text cut at 500 characters."""
    return pa.record_batch(
        [
            pa.array([file] * len(rejects), pa.string()),
            pa.array([reject.line for reject in rejects], pa.int64()),
            pa.array([reject.column for reject in rejects], pa.string()),
            pa.array([reject.reason.value for reject in rejects], pa.string()),
            pa.array([_cut(reject.raw) for reject in rejects], pa.string()),
        ],
        schema=REJECTS_SCHEMA,
    )


def _cut(raw: bytes) -> str:
    # No character takes more than four bytes.
    return raw[: 4 * _RAW_CHARACTERS].decode(errors="replace")[:_RAW_CHARACTERS]
