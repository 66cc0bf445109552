"""Ratings of any format into one checked table and one of what was put aside.

What belongs here: which files are read, the checks that make a row of fields a rating, and the two
Parquet files that come of it. What does not: recognising formats (``formats.py``), splitting files
into fields (``fields.py``), and choosing among good ratings (``filtering.py``).
"""

import datetime as dt
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_assets.domain.ratings.fields import Fields, read_fields, recognise
from recsys_assets.domain.ratings.formats import (
    AUTO,
    MOVIELENS,
    MOVIETWEETINGS,
    NEEDED,
    SCALES,
    Layout,
    TableColumns,
    Wanted,
)
from recsys_assets.domain.ratings.rejects import (
    REJECTS_SCHEMA,
    RatingsError,
    Reason,
    Reject,
    rejects_batch,
)
from recsys_assets.domain.ratings.titles import titles_beside

__all__ = [
    "RATINGS_SCHEMA",
    "RatingsError",
    "ReadReport",
    "TableColumns",
    "read_file",
    "read_ratings",
]

RATINGS_SCHEMA = pa.schema(
    [
        pa.field("customer_id", pa.string()),
        pa.field("video_id", pa.string()),
        pa.field("title", pa.string()),
        pa.field("rating", pa.float32()),
        pa.field("reviewed_at", pa.timestamp("ms")),  # whole seconds; Parquet has no such unit
        pa.field("review_id", pa.string()),
        pa.field("file", pa.string()),
        pa.field("line", pa.int64()),
    ]
)

_ROW_GROUP_ROWS = 1 << 17  # what is held before it is written
_LAST_SECOND = int(dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC).timestamp())
_WRITTEN = ("ratings.parquet", "rejects.parquet")
_RATINGS_FILES = ("ratings.csv", "ratings.dat", "u.data")

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ReadReport:
    """What came and what became of it.

    Attributes
    ----------
    rows_read : int
        Rows met: kept and rejected ones. Headers and blank lines are none.
    rows_kept, rows_rejected : int
        Rows of ``ratings.parquet`` and of ``rejects.parquet``.
    rejects_by_reason : dict of str to int
        Most frequent first.
    dates_missing : int
        Kept rows whose review date is absent or unreadable.
    format : str
        Of all files.
    scale : tuple of float
        Lowest and highest rating of the format, before they are mapped.
    files : tuple of str
        The files read, as in the `file` column.
    """

    rows_read: int
    rows_kept: int
    rows_rejected: int
    rejects_by_reason: dict[str, int]
    dates_missing: int
    format: str
    scale: tuple[float, float]
    files: tuple[str, ...]


def read_ratings(
    source: Path, into: Path, *, format: str = AUTO, columns: TableColumns | None = None
) -> ReadReport:
    """Read ratings of any known format; write the good ones and, apart, the others.

    Files are read in a stream: memory depends on block sizes, not on the input. Gzip is recognised
    by content. The same files give the same bytes.

    ``into/ratings.parquet`` holds customer_id, video_id (string, never blank), title (string or
    null), rating (float32, 1 to 5; MovieLens from 0.5; a 0 to 10 scale is mapped by 1 + 0.4 r),
    reviewed_at (whole seconds, UTC, or null), review_id (string or null), file (relative to
    `source`) and line (int64, the physical line from 1; in Parquet the row's number).
    ``into/rejects.parquet`` holds file, line, column (null where no single one is at fault),
    reason (see `Reason`) and raw (the first 500 characters).

    A bad date does not cost the rating: it becomes null. A date is a whole number of seconds since
    1970 or an ISO 8601 date or time, taken as UTC unless it says otherwise. Broken UTF-8 in an id
    or rating does cost it; elsewhere it is replaced by U+FFFD. Where gzip is cut off or damaged,
    the rows before stay, and one reject holds the line at the cut.

    Parameters
    ----------
    source
        A file; a MovieLens or MovieTweetings folder, of which the ratings file (``ratings.csv``
        beside ``movies.csv``, ``ratings.dat``, ``u.data``) is read; or a folder of part files of
        one format, read recursively in the order of their names, where a file that cannot be read
        is one reject. Hidden files and those that begin with ``_``, README or LICENSE are not data.
    into
        Folder for the two files, made if it is not there.
    format
        One of `FORMATS`; ``auto`` decides by header and content, as ``formats.py`` says.
    columns
        Names of a table's columns; only the format ``table`` looks at them.

    Raises
    ------
    RatingsError
        If nothing can be read: no such file, an empty one, an unknown format, a needed column
        missing, files of several formats, or not one good row. Nothing is then left in `into`.
    """
    files = _recognised(source, Wanted(format, columns or TableColumns()))
    report = _read_all(files, into)
    if not report.rows_kept:
        for name in _WRITTEN:
            (into / name).unlink()
        raise _nothing_kept(source, report.rejects_by_reason)
    return report


def read_file(
    path: Path,
    into: Path,
    *,
    name: str,
    format: str = AUTO,
    columns: TableColumns | None = None,
) -> ReadReport:
    """Read one of the files that make up a source, as they arrive.

    As :func:`read_ratings`, but whatever is wrong with the file is a reject: one that cannot be
    read at all, or from somewhere on, is one reject that says so, and a file without a good row is
    no error. One file with ``::`` does not tell its scale: it is read if `format` says it.

    Parameters
    ----------
    path
        The file.
    into
        Folder for ``ratings.parquet`` and ``rejects.parquet``, made if it is not there.
    name
        What the column `file` says.
    format, columns
        As in :func:`read_ratings`.
    """
    try:
        layout = recognise(path, Wanted(format, columns or TableColumns()))
        file = _File(path, name, layout)
        if format == AUTO and layout.separator == b"::":
            file = _File(path, name, None, "expected a format to be named: :: does not tell it")
    except RatingsError as error:
        file = _File(path, name, None, str(error))
    return _read_all([file], into, tolerant=True)


def _read_all(files: Sequence["_File"], into: Path, *, tolerant: bool = False) -> ReadReport:
    """Write the ratings and rejects of files; a tolerant reading keeps what was read before."""
    into.mkdir(parents=True, exist_ok=True)
    reasons: Counter[str] = Counter()
    dates_missing = 0
    ratings_path, rejects_path = (into / name for name in _WRITTEN)
    with (
        _Sink(ratings_path, RATINGS_SCHEMA) as ratings,
        _Sink(rejects_path, REJECTS_SCHEMA) as rejects,
    ):
        for file in files:
            for kept, rejected in _read(file, tolerant=tolerant):
                ratings.append(kept)
                rejects.append(rejects_batch(file.name, rejected))
                reasons.update(reject.reason.value for reject in rejected)
                dates_missing += kept.column("reviewed_at").null_count
    layout = next((file.layout for file in files if file.layout), None)
    return ReadReport(
        rows_read=ratings.rows + rejects.rows,
        rows_kept=ratings.rows,
        rows_rejected=rejects.rows,
        rejects_by_reason=dict(reasons.most_common()),
        dates_missing=dates_missing,
        format=layout.format if layout else "unknown",
        scale=(layout.scale.low, layout.scale.high) if layout else (math.nan, math.nan),
        files=tuple(file.name for file in files),
    )


@dataclass(frozen=True)
class _File:
    """A file of the source: how it is laid out, or else the trouble with it."""

    path: Path
    name: str
    layout: Layout | None
    trouble: str = ""


def _recognised(source: Path, wanted: Wanted) -> list[_File]:
    """Return the source's files, at least one of them with a layout, all of one format."""
    files = []
    for path in _ratings_files(source, wanted):
        name = path.name if path == source else path.relative_to(source).as_posix()
        try:
            files.append(_File(path, name, recognise(path, wanted)))
        except RatingsError as error:
            files.append(_File(path, name, None, str(error)))
    if not any(file.layout for file in files):
        troubles = "; ".join(
            file.trouble if file.path == source else f"{file.name}: {file.trouble}"
            for file in files[:3]
        )
        raise RatingsError(f"cannot read {source}: {troubles}")
    if wanted.format == AUTO and _has_ten_point_scale(files):
        files = [
            replace(file, layout=replace(file.layout, format=MOVIETWEETINGS))
            if file.layout and file.layout.separator == b"::"
            else file
            for file in files
        ]
    formats = {file.layout.format: file.name for file in files if file.layout}
    if len(formats) > 1:
        examples = ", ".join(f"{name} is {known}" for known, name in formats.items())
        raise RatingsError(f"expected files of one format in {source}, got several: {examples}")
    return files


def _ratings_files(source: Path, wanted: Wanted) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise RatingsError(f"no such file or folder: {source}")
    if wanted.allows(MOVIELENS, MOVIETWEETINGS):
        known = [source / name for name in _RATINGS_FILES if (source / name).is_file()]
        if len(known) > 1:
            names = ", ".join(path.name for path in known)
            raise RatingsError(f"expected one ratings file in {source}, got {names}: name one")
        # Anything may be called ratings.csv; beside movies.csv it is the MovieLens one.
        if known and (known[0].name != "ratings.csv" or (source / "movies.csv").is_file()):
            return known
    files = sorted(
        path
        for path in source.rglob("*")
        if path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(source).parts)
        and not path.name.startswith(("README", "LICENSE"))
    )
    if not files:
        raise RatingsError(f"cannot read {source}: there is no data file in this folder")
    return files


def _has_ten_point_scale(files: Iterable[_File]) -> bool:
    """Whether a rating in a file with ``::`` fits 0 to 10 and not the scale of MovieLens."""
    return any(
        value == 0 or SCALES[MOVIELENS].high < value <= SCALES[MOVIETWEETINGS].high
        for file in files
        if file.layout and file.layout.separator == b"::"
        for fields in read_fields(file.path, file.layout)
        for value in set(_numbers(_text(fields.columns["rating"])[0]).tolist())
    )


def _nothing_kept(source: Path, reasons: Mapping[str, int]) -> RatingsError:
    rows = sum(reasons.values())
    if not rows:
        return RatingsError(f"cannot read {source}: expected ratings, got a header and no rows")
    reason, count = next(iter(reasons.items()))
    return RatingsError(
        f"none of the {rows} rows of {source} could be read; most often: {reason} ({count})"
    )


def _read(file: _File, *, tolerant: bool) -> Iterator[tuple[pa.RecordBatch, list[Reject]]]:
    """Yield good ratings and rejects of a file, batch by batch."""
    if file.layout is None:
        yield _trouble(1, file.trouble)
        return
    line = 1
    has_title_file = file.layout.format in (MOVIELENS, MOVIETWEETINGS)
    titles = titles_beside(file.path, file.layout) if has_title_file else {}
    try:
        for fields in read_fields(file.path, file.layout):
            yield _checked(fields, file.name, file.layout, titles)
            line = int(fields.lines[-1]) + 1 if len(fields.lines) else line
    except RatingsError as error:
        if not tolerant:
            raise RatingsError(f"cannot read {file.path}: {error}") from error
        yield _trouble(line, str(error))


def _trouble(line: int, said: str) -> tuple[pa.RecordBatch, list[Reject]]:
    """Return no ratings, and the reject that says why the file cannot be read (on)."""
    nothing = pa.RecordBatch.from_pylist([], schema=RATINGS_SCHEMA)
    return nothing, [Reject(line, Reason.UNREADABLE_FILE, said.encode())]


def _checked(
    fields: Fields, file: str, layout: Layout, titles: Mapping[str, str]
) -> tuple[pa.RecordBatch, list[Reject]]:
    """Part a batch of rows into ratings and rejects. The first fault of a row is its reason."""
    text, faults = {}, []
    for column in NEEDED:
        text[column], broken = _text(fields.columns[column])
        faults.append((column, Reason.BROKEN_UTF8, broken))
    for column in ("customer_id", "video_id"):
        faults.append((column, Reason.MISSING_ID, _is_blank(text[column])))
        faults.append((column, Reason.NUL_BYTE, _mask(pc.match_substring(text[column], "\0"))))
    rating = _numbers(text["rating"])
    scale = layout.scale
    faults += [
        ("rating", Reason.EMPTY_RATING, _is_blank(text["rating"])),
        ("rating", Reason.RATING_NOT_A_NUMBER, np.isnan(rating)),
        ("rating", Reason.RATING_OUT_OF_RANGE, (rating < scale.low) | (rating > scale.high)),
    ]
    rejects = list(fields.rejects)
    bad = np.zeros(len(rating), dtype=bool)
    for column, reason, mask in faults:
        for row in np.flatnonzero(mask & ~bad).tolist():
            name = layout.names[column]
            rejects.append(Reject(int(fields.lines[row]), reason, fields.raw(row), name))
        bad |= mask
    rejects.sort(key=lambda reject: reject.line)

    title = (
        _optional(fields, "title")
        if "title" in fields.columns
        else _by_value(text["video_id"], titles.get, pa.string())
    )
    reviewed_at = _by_value(_optional(fields, "reviewed_at"), _seconds, pa.int64())
    batch = pa.record_batch(
        [
            text["customer_id"],
            text["video_id"],
            title,
            pa.array(scale.to_stars(np.where(bad, np.nan, rating)).astype(np.float32)),
            reviewed_at.cast(pa.timestamp("s")).cast(pa.timestamp("ms")),
            _optional(fields, "review_id"),
            pa.repeat(file, len(rating)),
            pa.array(fields.lines),
        ],
        schema=RATINGS_SCHEMA,
    )
    return batch.filter(pa.array(~bad)), rejects


def _text(column: pa.Array) -> tuple[pa.Array, Mask]:
    """Bytes as text, and which of them are not UTF-8; there, U+FFFD stands for what is broken."""
    try:
        return column.cast(pa.string()), np.zeros(len(column), dtype=bool)
    except pa.ArrowInvalid:
        values = column.to_pylist()
        decoded = [value.decode(errors="replace") for value in values]
        broken = [text.encode() != value for text, value in zip(decoded, values, strict=True)]
        return pa.array(decoded, pa.string()), np.array(broken, dtype=bool)


def _optional(fields: Fields, column: str) -> pa.Array:
    """Text of a column that may be absent; blank values are null, NUL bytes U+FFFD."""
    if column not in fields.columns:
        return pa.nulls(len(fields.lines), pa.string())
    text, _ = _text(fields.columns[column])
    text = pc.replace_substring(text, "\0", "\ufffd")
    return pc.if_else(pa.array(_is_blank(text)), None, text)


def _is_blank(text: pa.Array) -> Mask:
    return _mask(pc.equal(pc.utf8_trim_whitespace(text), ""))


def _mask(values: pa.Array) -> Mask:
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=bool)


def _numbers(text: pa.Array) -> npt.NDArray[np.float64]:
    """Finite numbers; NaN for all other text."""
    values = _by_value(text, _number, pa.float64())
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def _by_value(text: pa.Array, function: Callable[[str], object], to: pa.DataType) -> pa.Array:
    """Apply `function` once to each distinct value; null stays null."""
    encoded = text.dictionary_encode()
    return pa.array(map(function, encoded.dictionary.to_pylist()), to).take(encoded.indices)


def _number(text: str) -> float | None:
    # float() takes more than digits of ours: 1_000, digits of other scripts.
    if "_" in text or not text.isascii():
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _seconds(text: str) -> int | None:
    """Seconds since 1970 of a date; None if it is none between the years 1 and 9999."""
    number = _number(text)
    if number is not None:
        return int(number) if number.is_integer() and 0 <= number <= _LAST_SECOND else None
    try:
        moment = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return math.floor(moment.timestamp())


class _Sink:
    """A Parquet file written in large row groups, removed again if an error ends its block."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._path = path
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def append(self, batch: pa.RecordBatch) -> None:
        self.rows += len(batch)
        if len(batch):
            self._waiting.append(batch)
        if sum(map(len, self._waiting)) >= _ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting.clear()

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()
        if error is not None:
            self._path.unlink()
