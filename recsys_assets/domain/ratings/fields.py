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
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_assets.domain.ratings.formats import (
    Container,
    Layout,
    Wanted,
    recognise_lines,
    recognise_names,
)
from recsys_assets.domain.ratings.rejects import RatingsError, Reason, Reject
from recsys_assets.domain.ratings.streams import BLOCK_BYTES, Block, is_parquet, read_blocks

Ints = npt.NDArray[np.int64]

_HEAD_BYTES = 1 << 16  # of a file, by which its format is recognised
_PARQUET_BATCH_ROWS = 1 << 15


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
    raw : function of int to bytes
        The whole of a row, by its position in the batch.
    rejects : list of Reject
        What could not be split, between and beside these rows.
    """

    lines: Ints
    columns: dict[str, pa.Array]
    raw: Callable[[int], bytes]
    rejects: list[Reject]


def read_fields(path: Path, layout: Layout) -> Iterator[Fields]:
    """Yield the rows of a file, in its order; blank lines and the header are not rows.

    Raises
    ------
    RatingsError
        If the file cannot be read at all, or a Parquet column is of a type that has no text.
    """
    match layout.container:
        case Container.PARQUET:
            return _parquet_fields(path, layout)
        case Container.CSV:
            return _csv_fields(read_blocks(path), layout)
        case Container.DELIMITED:
            return (
                _only(_fault(block), layout) if block.fault else _delimited_fields(block, layout)
                for block in read_blocks(path)
            )


def _wrong_width(found: int, layout: Layout) -> Reason:
    return Reason.TOO_FEW_FIELDS if found < layout.width else Reason.TOO_MANY_FIELDS


def _only(reject: Reject, layout: Layout) -> Fields:
    """Return a batch without rows."""
    columns = {column: pa.array([], pa.binary()) for column in layout.positions}
    return Fields(np.empty(0, np.int64), columns, lambda _: b"", [reject])


def _fault(block: Block) -> Reject:
    assert block.fault is not None  # noqa: S101
    return Reject(block.first_line, block.fault, block.data.removesuffix(b"\r"))


def _delimited_fields(block: Block, layout: Layout) -> Fields:
    r"""Split the lines of a block, without a loop over them.

    The bytes between and within the separators of the whole block become one Arrow array (field,
    separator, field, ...), of which each column is every so manieth value. A line end counts as a
    separator; a ``\r`` before it belongs to it, any other is a byte like others.
    """
    data = block.data
    characters = np.frombuffer(data, np.uint8)
    between = _positions(data, layout.separator)
    line_feed = _positions(data, b"\n")
    line_end = line_feed - (characters[line_feed - 1] == ord("\r"))

    # Separators do not overlap, so their starts and their stops sort alike.
    starts = np.sort(np.concatenate([between, line_end]), kind="stable")
    stops = np.sort(np.concatenate([between + len(layout.separator), line_feed + 1]), kind="stable")
    offsets = np.empty(2 * len(starts) + 1, np.int32)
    offsets[0], offsets[1::2], offsets[2::2] = 0, starts, stops
    pieces = pa.BinaryArray.from_buffers(
        pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )

    last = np.searchsorted(stops, line_feed + 1)  # separator that ends each line
    widths = np.diff(last, prepend=-1)
    first = last - widths + 1  # separator that ends its first field
    line_start = np.concatenate([[0], line_feed[:-1] + 1])
    lines = block.first_line + np.arange(len(line_feed))
    below_header = lines > layout.header_line
    whole = np.flatnonzero((widths == layout.width) & below_header)

    def raw(line: int) -> bytes:
        return data[line_start[line] : line_end[line]]

    return Fields(
        lines=lines[whole],
        columns={
            column: pieces.take(pa.array(2 * (first[whole] + position)))
            for column, position in layout.positions.items()
        },
        raw=lambda row: raw(whole[row]),
        rejects=[
            Reject(int(lines[line]), _wrong_width(int(widths[line]), layout), raw(line))
            for line in np.flatnonzero((widths != layout.width) & below_header).tolist()
            if raw(line).strip()
        ],
    )


def _positions(data: bytes, separator: bytes) -> Ints:
    """Where `separator` stands in `data`, found from the left and without overlap."""
    if len(separator) == 1:
        return np.flatnonzero(np.frombuffer(data, np.uint8) == ord(separator))
    found = (match.start() for match in re.finditer(re.escape(separator), data))
    return np.fromiter(found, np.int64)


def _csv_fields(blocks: Iterable[Block], layout: Layout) -> Iterator[Fields]:
    """Yield a batch for about each block of quoted CSV.

    Bytes go through the csv module as Latin-1, in which each byte is one character, and come out
    as they were.
    """
    rejects: list[Reject] = []
    lines: list[int] = []
    raws: list[bytes] = []
    rows: list[list[str]] = []
    size = 0

    def batch() -> Fields:
        columns = {
            column: pa.array([row[position].encode("latin-1") for row in rows], pa.binary())
            for column, position in layout.positions.items()
        }
        return Fields(np.array(lines, np.int64), columns, raws.__getitem__, rejects.copy())

    for line, raw, row in _csv_records(_lines(blocks, layout.header_line, rejects), layout.width):
        if row is None:
            rejects.append(Reject(line, Reason.BROKEN_QUOTING, raw))
        elif len(row) == layout.width:
            lines.append(line)
            raws.append(raw)
            rows.append(row)
        elif raw.strip():
            rejects.append(Reject(line, _wrong_width(len(row), layout), raw))
        size += len(raw)
        if size >= BLOCK_BYTES:
            yield batch()
            rejects.clear()
            lines, raws, rows, size = [], [], [], 0
    yield batch()


def _lines(
    blocks: Iterable[Block], header_line: int, rejects: list[Reject]
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
                    yield Fields(lines, columns, functools.partial(_parquet_raw, batch), [])
                    row += len(batch)
            except (OSError, pa.ArrowInvalid) as error:
                yield _only(Reject(row, Reason.DAMAGED_PARQUET, str(error).encode()), layout)
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


def _parquet_raw(batch: pa.RecordBatch, row: int) -> bytes:
    return json.dumps(batch.slice(row, 1).to_pylist()[0], default=str, ensure_ascii=False).encode(
        errors="replace"
    )
