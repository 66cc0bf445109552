"""Ratings of any format into one checked table and one of what was put aside.

What belongs here: which files are read, the checks that make a row of fields a rating, and the two
Parquet files that come of it. What does not: recognising formats (``formats.py``), splitting files
into fields (``fields.py``), and choosing among good ratings (``filtering.py``).
"""

import datetime as dt
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_assets.domain.processors import processors
from recsys_assets.domain.ratings.ahead import Sized, several_ahead
from recsys_assets.domain.ratings.fields import Fields, Portion, read_portions, recognise
from recsys_assets.domain.ratings.formats import (
    AUTO,
    MOVIELENS,
    MOVIETWEETINGS,
    SCALES,
    Layout,
    TableColumns,
    Wanted,
)
from recsys_assets.domain.ratings.rejects import (
    REJECTS_SCHEMA,
    Fault,
    RatingsError,
    Reason,
    RejectedLine,
    Rejects,
    counts_by_reason,
    in_order_of_lines,
    rejected,
    rejected_lines,
    rejects_batch,
)
from recsys_assets.domain.ratings.texts import decoded, has_nul, is_blank
from recsys_assets.domain.ratings.titles import titles_beside

__all__ = [
    "RATINGS_SCHEMA",
    "RatingsError",
    "ReadReport",
    "TableColumns",
    "read_file",
    "read_ratings",
]

_SECONDS, _MILLISECONDS = pa.timestamp("s"), pa.timestamp("ms")
RATINGS_SCHEMA = pa.schema(
    [
        pa.field("customer_id", pa.string()),
        pa.field("video_id", pa.string()),
        pa.field("title", pa.string()),
        pa.field("rating", pa.float32()),
        pa.field("reviewed_at", _MILLISECONDS),  # whole seconds; Parquet has no such unit
        pa.field("review_id", pa.string()),
        pa.field("file", pa.string()),
        pa.field("line", pa.int64()),
    ]
)

_ROW_GROUP_ROWS = 1 << 17  # what is held before it is written,
_ROW_GROUP_BYTES = 64 << 20  # whichever comes first
# Ids of reviews are all different, and so are, nearly, customers within a row group.
_RATINGS_ENCODING = {
    "use_dictionary": ["video_id", "title", "rating", "reviewed_at", "file"],
    "column_encoding": {"line": "DELTA_BINARY_PACKED"},
}
_REJECTS_ENCODING = {
    "use_dictionary": ["file", "column", "reason"],
    "column_encoding": {"line": "DELTA_BINARY_PACKED"},
}

_WORKERS = max(1, processors() - 1)  # one is busy with decompressing, and then with writing
_FILES_AT_ONCE = 4
_AHEAD_BYTES = 64 << 20  # of text that is read while what is ahead of it is not written yet
_NO_FAULT = -1
_DAYS_REMEMBERED = 1 << 14
_LAST_SECOND = int(dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC).timestamp())
_WRITTEN = ("ratings.parquet", "rejects.parquet")
_RATINGS_FILES = ("ratings.csv", "ratings.dat", "u.data")


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

    Files are read in a stream: memory depends on block sizes, not on the input. Gzip, Zstandard and
    bzip2 are recognised by content. Several blocks and files are read at once; the same files give
    the same bytes.

    ``into/ratings.parquet`` holds customer_id, video_id (string, never blank), title (string or
    null), rating (float32, 1 to 5; MovieLens from 0.5; a 0 to 10 scale is mapped by 1 + 0.4 r),
    reviewed_at (whole seconds, UTC, or null), review_id (string or null), file (relative to
    `source`) and line (int64, the physical line from 1; in Parquet the row's number).
    ``into/rejects.parquet`` holds file, line, column (null where no single one is at fault),
    reason (see `Reason`) and raw (the first 500 characters).

    A bad date does not cost the rating: it becomes null. A date is a whole number of seconds since
    1970 or an ISO 8601 date or time, taken as UTC unless it says otherwise. Broken UTF-8 in an id
    or rating does cost it; elsewhere it is replaced by U+FFFD. Where a compressed file is cut off
    or damaged, the rows before stay, and one reject holds the line at the cut.

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
        _Sink(ratings_path, RATINGS_SCHEMA, _RATINGS_ENCODING) as ratings,
        _Sink(rejects_path, REJECTS_SCHEMA, _REJECTS_ENCODING) as rejects,
        ThreadPoolExecutor(_WORKERS) as pool,
        closing(
            several_ahead(
                (partial(_submitted, file, pool) for file in files),
                at_once=min(_FILES_AT_ONCE, len(files)),
                limit=_AHEAD_BYTES,
            )
        ) as readings,
    ):
        for file, reading in zip(files, readings, strict=True):
            for kept, rejected in _results(file, reading, tolerant=tolerant):
                ratings.append(kept)
                rejects.append(rejects_batch(file.name, rejected))
                reasons.update(counts_by_reason(rejected))
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
        for portion in read_portions(file.path, file.layout)
        for value in _numbers(decoded(portion.split().columns["rating"].unique())[0]).tolist()
    )


def _nothing_kept(source: Path, reasons: Mapping[str, int]) -> RatingsError:
    rows = sum(reasons.values())
    if not rows:
        return RatingsError(f"cannot read {source}: expected ratings, got a header and no rows")
    reason, count = next(iter(reasons.items()))
    return RatingsError(
        f"none of the {rows} rows of {source} could be read; most often: {reason} ({count})"
    )


Checked = tuple[pa.RecordBatch, Rejects]
"""Good ratings and rejects of a portion of a file."""


def _submitted(file: _File, pool: Executor) -> Iterator[Sized[Future[Checked]]]:
    """Yield what will come of a file, portion by portion."""
    if file.layout is None:
        raise RatingsError(file.trouble)
    has_title_file = file.layout.format in (MOVIELENS, MOVIETWEETINGS)
    titles = titles_beside(file.path, file.layout) if has_title_file else {}
    for portion in read_portions(file.path, file.layout):
        checked = pool.submit(_checked, portion, file.name, file.layout, titles)
        yield Sized(portion.size, checked)


def _results(
    file: _File, portions: Iterable[Future[Checked]], *, tolerant: bool
) -> Iterator[Checked]:
    """Yield what came of a file, portion by portion, and last the trouble that ended it."""
    line = 1
    try:
        for portion in portions:
            ratings, rejects = portion.result()
            yield ratings, rejects
            lines = [batch["line"][-1].as_py() for batch in (ratings, rejects) if len(batch)]
            line = max([line - 1, *lines]) + 1
    except RatingsError as error:
        if file.layout and not tolerant:
            raise RatingsError(f"cannot read {file.path}: {error}") from error
        yield _trouble(line, str(error))


def _trouble(line: int, said: str) -> Checked:
    """Return no ratings, and the reject that says why the file cannot be read (on)."""
    nothing = pa.RecordBatch.from_pylist([], schema=RATINGS_SCHEMA)
    return nothing, rejected_lines([RejectedLine(line, Reason.UNREADABLE_FILE, said.encode())])


def _checked(portion: Portion, file: str, layout: Layout, titles: Mapping[str, str]) -> Checked:
    """Part the rows of a portion into ratings and rejects. A row's first fault is its reason."""
    fields = portion.split()
    customer, broken_customer = decoded(fields.columns["customer_id"])
    video, broken_video = decoded(fields.columns["video_id"])
    # There are few different ratings, so that each of them is looked at once.
    ratings = fields.columns["rating"].dictionary_encode()
    of_row = ratings.indices.to_numpy()
    rating_text, broken_rating = decoded(ratings.dictionary)
    rating, scale = _numbers(rating_text), layout.scale
    is_in_range = (scale.low <= rating) & (rating <= scale.high)

    faults: list[Fault] = []
    fault_of = np.full(len(fields.lines), _NO_FAULT)
    for column, reason, mask in (
        ("customer_id", Reason.BROKEN_UTF8, broken_customer),
        ("video_id", Reason.BROKEN_UTF8, broken_video),
        ("rating", Reason.BROKEN_UTF8, broken_rating),
        ("customer_id", Reason.MISSING_ID, is_blank(customer)),
        ("customer_id", Reason.NUL_BYTE, has_nul(customer)),
        ("video_id", Reason.MISSING_ID, is_blank(video)),
        ("video_id", Reason.NUL_BYTE, has_nul(video)),
        ("rating", Reason.EMPTY_RATING, is_blank(rating_text)),
        ("rating", Reason.RATING_NOT_A_NUMBER, np.isnan(rating)),
        ("rating", Reason.RATING_OUT_OF_RANGE, ~is_in_range),
    ):
        if mask.any():
            rows = mask[of_row] if column == "rating" else mask
            fault_of[rows & (fault_of == _NO_FAULT)] = len(faults)
            faults.append(Fault(reason, layout.names[column]))

    good = fault_of == _NO_FAULT
    stars = scale.to_stars(np.where(is_in_range, rating, np.nan))
    batch = pa.record_batch(
        [
            customer,
            video,
            _optional(fields, "title")
            if "title" in fields.columns
            else _by_value(video, titles.get, pa.string()),
            pa.array(stars.astype(np.float32)[of_row]),
            _dates(fields),
            _optional(fields, "review_id"),
            pa.repeat(file, len(good)),
            pa.array(fields.lines),
        ],
        schema=RATINGS_SCHEMA,
    )
    if not faults:
        return batch, fields.rejects
    bad = np.flatnonzero(~good)
    rejects = rejected(fields.lines[bad], fault_of[bad], faults, fields.raw(bad))
    return batch.filter(pa.array(good)), in_order_of_lines(fields.rejects, rejects)


def _optional(fields: Fields, column: str) -> pa.StringArray:
    """Text of a column that may be absent; blank values are null, NUL bytes U+FFFD."""
    if column not in fields.columns:
        return pa.nulls(len(fields.lines), pa.string())
    return _clean(fields.columns[column])


def _clean(values: pa.BinaryArray) -> pa.StringArray:
    text, _ = decoded(values)
    if has_nul(text).any():
        text = pc.replace_substring(text, "\0", "\ufffd")
    blank = is_blank(text)
    return pc.if_else(pa.array(blank), None, text) if blank.any() else text


def _dates(fields: Fields) -> pa.TimestampArray:
    """Review dates; null where there is none that can be read."""
    if "reviewed_at" not in fields.columns:
        return pa.nulls(len(fields.lines), _MILLISECONDS)
    encoded = fields.columns["reviewed_at"].dictionary_encode()
    values = _clean(encoded.dictionary).to_pylist()
    seconds = pa.array([None if value is None else _seconds(value) for value in values], _SECONDS)
    return seconds.take(encoded.indices).cast(_MILLISECONDS)


def _by_value(text: pa.Array, function: Callable[[str], object], to: pa.DataType) -> pa.Array:
    """Apply `function` once to each distinct value."""
    encoded = text.dictionary_encode()
    return pa.array(map(function, encoded.dictionary.to_pylist()), to).take(encoded.indices)


def _numbers(text: pa.StringArray) -> npt.NDArray[np.float64]:
    """Finite numbers; NaN for all other text."""
    return np.array([_number(value) for value in text.to_pylist()], dtype=np.float64)


def _number(text: str) -> float:
    # float() takes more than digits of ours: 1_000, digits of other scripts.
    if "_" in text or not text.isascii():
        return math.nan
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _seconds(text: str) -> int | None:
    """Seconds since 1970 of a date; None if it is none between the years 1 and 9999."""
    return _seconds_of_day(text) if len(text) == len("2015-08-31") else _seconds_of_any(text)


def _seconds_of_any(text: str) -> int | None:
    number = _number(text)
    if not math.isnan(number):
        return int(number) if number.is_integer() and 0 <= number <= _LAST_SECOND else None
    try:
        moment = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return math.floor(moment.timestamp())


# There are few days, and each comes again in block after block.
_seconds_of_day = lru_cache(_DAYS_REMEMBERED)(_seconds_of_any)


class _Sink:
    """A Parquet file written in large row groups, removed again if an error ends its block."""

    def __init__(self, path: Path, schema: pa.Schema, encoding: Mapping[str, Any]) -> None:
        self.rows = 0
        self._path = path
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", **encoding)

    def __enter__(self) -> Self:
        return self

    def append(self, batch: pa.RecordBatch) -> None:
        if not len(batch):
            return
        self.rows += len(batch)
        self._waiting.append(batch)
        self._waiting_rows += len(batch)
        self._waiting_bytes += batch.nbytes
        if self._waiting_rows >= _ROW_GROUP_ROWS or self._waiting_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting.clear()
        self._waiting_rows = self._waiting_bytes = 0

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
