"""Files as columns of raw fields.

What belongs here: recognising a file's layout, splitting lines, quoted CSV and Parquet into the
fields that it asks for, and putting aside the lines that cannot be split. What does not: what the
fields mean and whether they are any good (``reading.py``). Every container gives the same thing,
batch by batch: columns of bytes, so that one set of checks serves all.
"""

import csv
import functools
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_assets.domain.ratings.formats import (
    Container,
    Layout,
    Wanted,
    recognise_lines,
    recognise_names,
)
from recsys_assets.domain.ratings.rejects import (
    NONE_REJECTED,
    Fault,
    RatingsError,
    Reason,
    RejectedLine,
    Rejects,
    rejected,
    rejected_lines,
)
from recsys_assets.domain.ratings.streams import BLOCK_BYTES, Block, is_parquet, read_blocks
from recsys_assets.domain.ratings.texts import Ints, Mask, cut_out, is_blank

_HEAD_BYTES = 1 << 16  # of a file, by which its format is recognised
_PARQUET_BATCH_ROWS = 1 << 15
_LINE_FEED, _CARRIAGE_RETURN = b"\n\r"
_WIDTH_FAULTS = (Fault(Reason.TOO_FEW_FIELDS), Fault(Reason.TOO_MANY_FIELDS))


def recognise(path: Path, wanted: Wanted) -> Layout:
    """Layout of a file.

    Raises
    ------
    RatingsError
        If it cannot be opened as what it is, or its format is not known or not the one wanted.
    """
    if is_parquet(path):
        try:
            return recognise_names(pq.read_schema(path).names, wanted)
        except (OSError, pa.ArrowInvalid) as error:
            raise RatingsError(f"it is damaged Parquet: {error}") from error
    head = b""
    for block in read_blocks(path):
        if block.fault and not head:
            raise RatingsError(f"{block.fault} within its first line")
        head += block.data
        if block.fault or len(head) >= _HEAD_BYTES:
            break
    lines = head[:_HEAD_BYTES].decode(errors="replace").split("\n")
    return recognise_lines([line.rstrip("\r") for line in lines], wanted)


@dataclass(frozen=True)
class Fields:
    """A batch of rows.

    Attributes
    ----------
    lines : int64 array
        Physical line on which each row starts, from 1; in Parquet the row's number.
    columns : dict of str to binary array
        The layout's columns, by their names in ``ratings.parquet``; nothing missing is null, it is
        empty.
    raw : function of int64 array to binary array
        The whole of rows, by their positions in the batch, ascending.
    rejects : Rejects
        What could not be split, between and beside these rows.
    """

    lines: Ints
    columns: dict[str, pa.Array]
    raw: Callable[[Ints], pa.BinaryArray]
    rejects: Rejects


@dataclass(frozen=True)
class Portion:
    """A part of a file, not split yet where that can be done apart from the others.

    Attributes
    ----------
    size : int
        About how many bytes it holds.
    split : function
        Gives its rows.
    """

    size: int
    split: Callable[[], Fields]


def read_portions(path: Path, layout: Layout) -> Iterator[Portion]:
    """Yield the rows of a file, in its order; blank lines and the header are not rows.

    Raises
    ------
    RatingsError
        If the file cannot be read at all, or a Parquet column is of a type that has no text.
    """
    match layout.container:
        case Container.PARQUET:
            return map(_whole, _parquet_fields(path, layout))
        case Container.CSV:
            return map(_whole, _csv_fields(read_blocks(path), layout))
        case Container.DELIMITED:
            return (
                Portion(len(block.data), functools.partial(_delimited_fields, block, layout))
                for block in read_blocks(path)
            )


def _whole(fields: Fields) -> Portion:
    return Portion(sum(column.nbytes for column in fields.columns.values()), lambda: fields)


def _only(reject: RejectedLine, layout: Layout) -> Fields:
    """Return a batch without rows."""
    nothing = pa.array([], pa.binary())
    columns = dict.fromkeys(layout.positions, nothing)
    return Fields(np.empty(0, np.int64), columns, nothing.take, rejected_lines([reject]))


def _fault(block: Block) -> RejectedLine:
    assert block.fault is not None  # noqa: S101
    return RejectedLine(block.first_line, block.fault, block.data.removesuffix(b"\r"))


def _delimited_fields(block: Block, layout: Layout) -> Fields:
    r"""Split the lines of a block, without a loop over them.

    A ``\r`` before a line end belongs to it, any other is a byte like others.
    """
    if block.fault:
        return _only(_fault(block), layout)
    data = block.data
    characters = np.frombuffer(data, np.uint8)
    ends, is_last = _ends_of_fields(data, layout.separator)
    last = np.flatnonzero(is_last)
    widths = np.diff(last, prepend=-1)
    line_feed = ends[last]
    line_start = np.concatenate([[0], line_feed[:-1] + 1])
    line_end = line_feed - (characters[line_feed - 1] == _CARRIAGE_RETURN)
    lines = block.first_line + np.arange(len(line_feed))

    below_header = lines > layout.header_line
    is_whole = (widths == layout.width) & below_header
    whole = np.flatnonzero(is_whole)
    if len(whole) < len(lines):
        ends = ends[np.repeat(is_whole, widths)]
    ends = ends.reshape(-1, layout.width)

    def column(position: int) -> pa.BinaryArray:
        at_start, at_end = position == 0, position == layout.width - 1
        return cut_out(
            data,
            line_start[whole] if at_start else ends[:, position - 1] + len(layout.separator),
            line_end[whole] if at_end else ends[:, position],
        )

    def raw(lines: Ints) -> pa.BinaryArray:
        # One by one: of few lines far apart, `cut_out` would make room for all between them.
        cuts = zip(line_start[lines].tolist(), line_end[lines].tolist(), strict=True)
        return pa.array([data[start:stop] for start, stop in cuts], pa.binary())

    def rejects() -> Rejects:
        others = np.flatnonzero(~is_whole & below_header)
        others = others[~is_blank(raw(others).view(pa.string()), pc.ascii_trim_whitespace)]
        is_too_wide = (widths[others] > layout.width).astype(np.int64)
        return rejected(lines[others], is_too_wide, _WIDTH_FAULTS, raw(others))

    return Fields(
        lines[whole],
        {name: column(position) for name, position in layout.positions.items()},
        lambda rows: raw(whole[rows]),
        rejects() if len(whole) < len(lines) else NONE_REJECTED,
    )


def _ends_of_fields(data: bytes, separator: bytes) -> tuple[Ints, Mask]:
    """Where a tab or ``::`` stands, or a line feed, and which of them are line feeds."""
    characters = np.frombuffer(data, np.uint8)
    if separator == b"\t":  # hardly any other character is as low as these two: one look is enough
        ends = np.flatnonzero(characters <= _LINE_FEED)
        found = characters[ends]
        others = found < ord(separator)
        if others.any():
            ends, found = ends[~others], found[~others]
        return ends, found == _LINE_FEED
    is_end = characters == _LINE_FEED
    is_colon = characters == ord(":")
    is_separator = is_colon[:-1] & is_colon[1:]
    if np.any(is_separator[:-1] & is_separator[1:]):  # three in a row: the first two are one
        starts = (match.start() for match in re.finditer(separator, data))
        is_end[np.fromiter(starts, np.int64)] = True
    else:
        is_end[:-1] |= is_separator
    ends = np.flatnonzero(is_end)
    return ends, characters[ends] == _LINE_FEED


def _csv_fields(blocks: Iterable[Block], layout: Layout) -> Iterator[Fields]:
    """Yield a batch for about each block of quoted CSV.

    Bytes go through the csv module as Latin-1, in which each byte is one character, and come out
    as they were.
    """
    rejects: list[RejectedLine] = []
    lines: list[int] = []
    raws: list[bytes] = []
    rows: list[list[str]] = []
    size = 0

    def batch() -> Fields:
        columns = {
            column: pa.array([row[position].encode("latin-1") for row in rows], pa.binary())
            for column, position in layout.positions.items()
        }
        raw = pa.array(raws, pa.binary())
        return Fields(np.array(lines, np.int64), columns, raw.take, rejected_lines(rejects))

    for line, raw, row in _csv_records(_lines(blocks, layout.header_line, rejects), layout.width):
        if row is None:
            rejects.append(RejectedLine(line, Reason.BROKEN_QUOTING, raw))
        elif len(row) == layout.width:
            lines.append(line)
            raws.append(raw)
            rows.append(row)
        elif raw.strip():
            few = len(row) < layout.width
            reason = Reason.TOO_FEW_FIELDS if few else Reason.TOO_MANY_FIELDS
            rejects.append(RejectedLine(line, reason, raw))
        size += len(raw)
        if size >= BLOCK_BYTES:
            yield batch()
            rejects.clear()
            lines, raws, rows, size = [], [], [], 0
    yield batch()


def _lines(
    blocks: Iterable[Block], header_line: int, rejects: list[RejectedLine]
) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of each line below the header; faults go to `rejects`."""
    for block in blocks:
        if block.fault:
            rejects.append(_fault(block))
            continue
        for line, data in enumerate(block.data.split(b"\n")[:-1], block.first_line):
            if line > header_line:
                yield line, data + b"\n"


def _csv_records(
    lines: Iterator[tuple[int, bytes]], width: int
) -> Iterator[tuple[int, bytes, list[str] | None]]:
    """Yield first line, bytes and fields (None if they cannot be told apart) of each record.

    A quote that is not closed would take the rows below it along. So where a record of several
    lines comes out wrong, only its first line is given up; the others are read again.
    """
    again: deque[tuple[int, bytes]] = deque()
    taken: list[tuple[int, bytes]] = []

    def feed() -> Iterator[str]:
        while True:
            line = again.popleft() if again else next(lines, None)
            if line is None:
                return
            taken.append(line)
            yield line[1].decode("latin-1")

    reader = csv.reader(feed(), strict=True)
    while True:
        taken.clear()
        row: list[str] | None
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            row = None
            reader = csv.reader(feed(), strict=True)  # the one that failed may be at its end
        if len(taken) > 1 and (row is None or len(row) != width):
            again.extendleft(reversed(taken[1:]))
            del taken[1:]
        yield taken[0][0], b"".join(data for _, data in taken).rstrip(b"\r\n"), row


def _parquet_fields(path: Path, layout: Layout) -> Iterator[Fields]:
    """Yield batches row group by row group; what is left of a damaged one is a single reject."""
    names = sorted(set(layout.names.values()))
    with pq.ParquetFile(path) as file:
        group_start = 1
        for group in range(file.num_row_groups):
            row = group_start
            batches = file.iter_batches(_PARQUET_BATCH_ROWS, row_groups=[group], columns=names)
            try:
                for batch in batches:
                    columns = {
                        column: _as_bytes(batch.column(name), name)
                        for column, name in layout.names.items()
                    }
                    lines = np.arange(row, row + len(batch))
                    raw = functools.partial(_parquet_raw, batch)
                    yield Fields(lines, columns, raw, NONE_REJECTED)
                    row += len(batch)
            except (OSError, pa.ArrowInvalid) as error:
                yield _only(RejectedLine(row, Reason.DAMAGED_PARQUET, str(error).encode()), layout)
            group_start += file.metadata.row_group(group).num_rows


def _as_bytes(values: pa.Array, name: str) -> pa.Array:
    """Values of any type as the bytes of their text, nulls as empty ones."""
    try:
        if not pa.types.is_binary(values.type):
            values = values.cast(pa.string())
        return values.cast(pa.binary()).fill_null(b"")
    except pa.ArrowNotImplementedError as error:
        raise RatingsError(
            f"its column {name} is of type {values.type}; expected text, numbers or dates"
        ) from error


def _parquet_raw(batch: pa.RecordBatch, rows: Ints) -> pa.BinaryArray:
    return pa.array(
        [
            json.dumps(row, default=str, ensure_ascii=False).encode(errors="replace")
            for row in batch.take(pa.array(rows)).to_pylist()
        ],
        pa.binary(),
    )
