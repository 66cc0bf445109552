"""The RecordIO-protobuf codec: CSR matrices and labels to bytes and back.

What belongs here: the byte layout that SageMaker's built-in algorithms read, written by vectorised
numpy code, and choosing between that and the compiled loops of ``recordio_kernels``. What does not:
where the files lie, how rows are ordered, and what the columns mean.

A file is a sequence of frames (dmlc RecordIO): the magic word, a length word, the payload, zeros up
to a multiple of four. A payload is one ``aialgs.data.Record`` protobuf message with a ``values``
tensor of features and, if there are labels, one of a single label. The bytes equal those of
``write_spmatrix_to_sparse_tensor`` of the SageMaker Python SDK, version 2, for float32 data.

Sources: "Common Data Formats for Training" in the Amazon SageMaker developer guide; the
``record.proto`` of the SageMaker Python SDK 2; dmlc-core ``recordio.h``; the protobuf wire format.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

MAGIC = 0xCED7230A
_MAGIC_BYTES = MAGIC.to_bytes(4, "little")
_LENGTH_BITS = 29
_ROWS_PER_BLOCK = 1 << 16  # bounds the encoder's scratch memory to some tens of MB
_LEAST_COMPILED_ROWS = 1 << 17  # with fewer, numpy is done before the compiled code is loaded
_LEAST_COMPILED_BYTES = 1 << 22

_MAP_KEY = b"\x0a\x06values"  # key (field 1) of a map entry
_LABEL_ENTRY = b"\x12\x12" + _MAP_KEY + b"\x12\x08\x12\x06\x0a\x04"  # then four bytes of float32

# Field numbers and wire types, as protobuf tags.
_RECORD_FEATURES, _RECORD_LABEL = 0x0A, 0x12
_ENTRY_KEY, _ENTRY_VALUE = 0x0A, 0x12
_VALUE_FLOAT32 = 0x12
_TENSOR_VALUES, _TENSOR_KEYS, _TENSOR_SHAPE = 0x0A, 0x12, 0x1A
_FIXED_WIDTH = {1: 8, 5: 4}
_VARINT, _LENGTH_DELIMITED = 0, 2

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class RecordIOError(ValueError):
    """Bytes that are not RecordIO-protobuf of float32 tensors; the message names the offset."""


def write_recordio(path: Path, matrix: csr_matrix, labels: Floats | None = None) -> None:
    """Write one record for each row of `matrix` to `path`.

    Parameters and errors are those of :func:`encode_recordio`; rows are written block by block, so
    memory stays bounded whatever the number of rows.
    """
    _check(matrix, labels)
    with path.open("wb") as file:
        _write_blocks(file, matrix, labels)


def encode_recordio(matrix: csr_matrix, labels: Floats | None = None) -> bytes:
    """Encode a sparse matrix as RecordIO-protobuf.

    Parameters
    ----------
    matrix
        CSR, float32, shape ``(rows, columns)``. Column indices are written in stored order.
    labels
        float32, shape ``(rows,)``, or None for records without a label.

    Raises
    ------
    ValueError
        If the matrix is not CSR or not float32 (SageMaker's Factorization Machines refuses
        float64 tensors), or if there is not one float32 label a row.
    """
    _check(matrix, labels)
    buffer = BytesIO()
    _write_blocks(buffer, matrix, labels)
    return buffer.getvalue()


def read_recordio(paths: Sequence[Path]) -> tuple[csr_matrix, Floats | None]:
    """Read RecordIO-protobuf files, one after another, into one matrix.

    Returns
    -------
    matrix, labels
        CSR float32 of shape ``(rows, columns)`` and float32 labels of shape ``(rows,)``, or None
        if no record has one.

    Raises
    ------
    RecordIOError
        If a file is corrupt, truncated or holds other tensors than float32; the message names the
        file and the byte offset.
    """
    parts = list(iterate_recordio(paths))
    if not parts:
        return csr_matrix((0, 0), dtype=np.float32), None
    columns = {matrix.shape[1] for matrix, _ in parts}
    if len(columns) > 1:
        raise RecordIOError(f"expected records of one width, found {sorted(columns)} columns")
    labels = [label for _, label in parts if label is not None]
    if labels and len(labels) != len(parts):
        raise RecordIOError("expected labels in every file or in none, found both")
    indices = np.concatenate([matrix.indices for matrix, _ in parts])
    data = np.concatenate([matrix.data for matrix, _ in parts])
    row_sizes = np.concatenate([np.diff(matrix.indptr) for matrix, _ in parts])
    stacked = csr_matrix(
        (data, indices, _starts(row_sizes)), shape=(len(row_sizes), columns.pop()), copy=False
    )
    return stacked, np.concatenate(labels) if labels else None


def iterate_recordio(
    paths: Sequence[Path], chunk_bytes: int = 1 << 24
) -> Iterator[tuple[csr_matrix, Floats | None]]:
    """Read RecordIO-protobuf files, one after another, in chunks.

    Parameters
    ----------
    paths
        Files, or pipes, each of which is opened once.
    chunk_bytes
        How much to read at a time. Decoding takes some ten times as much memory; a record longer
        than that is read whole.

    Yields
    ------
    matrix, labels
        The rows of each chunk, at least one, as :func:`read_recordio` returns them all.

    Raises
    ------
    RecordIOError
        As :func:`read_recordio` does, but for records whose width or having a label differs from
        one chunk to another.
    """
    for path in paths:
        with path.open("rb") as file:
            offset, data, is_whole = 0, b"", False
            while not is_whole:
                block = file.read(chunk_bytes)
                data, is_whole = data + block, not block
                try:
                    part = _decode(data, is_whole=is_whole)
                except RecordIOError as error:
                    where = f"in what follows byte {offset}, " if offset else ""
                    raise RecordIOError(f"{path.name}: {where}{error}") from None
                if part.matrix.shape[0]:
                    yield part.matrix, part.labels
                offset += part.length
                data = data[part.length :]


def decode_recordio(data: bytes) -> tuple[csr_matrix, Floats | None]:
    """Decode RecordIO-protobuf bytes; see :func:`read_recordio`.

    Records may be sparse (with keys) or dense (without); their fields may stand in any order and
    frames may be split in parts, as the RecordIO and protobuf formats allow.
    """
    part = _decode(data, is_whole=True)
    return part.matrix, part.labels


class _Part(NamedTuple):
    """The rows that some bytes hold; `length` is the number of bytes that they take up."""

    matrix: csr_matrix
    labels: Floats | None
    length: int


def _decode(data: bytes, *, is_whole: bool) -> _Part:
    """Decode rows; unless `data` is whole, a record that is cut at its end is left out."""
    part = _decode_compiled(data, is_whole) if len(data) >= _LEAST_COMPILED_BYTES else None
    return part or _decode_any(data, is_whole)


def _decode_any(data: bytes, is_whole: bool) -> _Part:
    buffer, start, end, length = _frames(data, is_whole)
    if not len(start):
        return _Part(csr_matrix((0, 0), dtype=np.float32), None, length)
    rows = len(start)
    features = _Tensors(rows)
    label = _Tensors(rows)
    for tag, row, begin, stop in _fields(buffer, np.arange(rows), start, end):
        if tag in (_RECORD_FEATURES, _RECORD_LABEL):
            _read_entry(buffer, row, begin, stop, features if tag == _RECORD_FEATURES else label)

    # Rows without a value have no values field; their features must still have a shape.
    if not features.present.all():
        first = int(np.flatnonzero(~features.present)[0])
        raise RecordIOError(f"byte {start[first]}: record {first} has no 'values' features")
    counts = (features.value_end - features.value_start) // 4
    # Dense records need no shape, and the SDK writes none for them.
    shapeless = (features.shape == 0) & (features.key_end == features.key_start)
    width = np.unique(np.where(shapeless, counts, features.shape))
    if len(width) != 1:
        raise RecordIOError(f"expected records of one width, found {width.tolist()} columns")
    columns = int(width[0])
    indptr = _starts(counts)
    values = _gather(buffer, features.value_start, counts * 4).view("<f4").astype(np.float32)
    indices = _read_keys(buffer, features, counts, columns, start)
    matrix = csr_matrix((values, indices, indptr), shape=(rows, columns), copy=False)

    if not label.present.any():
        return _Part(matrix, None, length)
    sizes = label.value_end - label.value_start
    if (sizes != 4).any():
        first = int(np.flatnonzero(sizes != 4)[0])
        raise RecordIOError(f"byte {start[first]}: record {first} has {sizes[first] // 4} labels")
    labels = _gather(buffer, label.value_start, sizes).view("<f4").astype(np.float32)
    return _Part(matrix, labels, length)


# ------------------------------------------------------------------------------------- writing


def _check(matrix: csr_matrix, labels: Floats | None) -> None:
    if getattr(matrix, "format", None) != "csr":
        raise ValueError(f"expected a CSR matrix, got {type(matrix).__name__}")
    if matrix.dtype != np.float32:
        raise ValueError(f"expected a float32 matrix, got {matrix.dtype}")
    if labels is None:
        return
    if labels.dtype != np.float32 or labels.shape != (matrix.shape[0],):
        raise ValueError(
            f"expected {matrix.shape[0]} float32 labels, got {labels.dtype} of shape {labels.shape}"
        )


def _write_blocks(file: BinaryIO, matrix: csr_matrix, labels: Floats | None) -> None:
    encode = _encode_block if matrix.shape[0] < _LEAST_COMPILED_ROWS else _encode_block_compiled
    for first in range(0, matrix.shape[0], _ROWS_PER_BLOCK):
        last = min(first + _ROWS_PER_BLOCK, matrix.shape[0])
        begin, end = matrix.indptr[first], matrix.indptr[last]
        block = encode(
            np.diff(matrix.indptr[first : last + 1]).astype(np.int64),
            matrix.indices[begin:end].astype(np.int64),
            matrix.data[begin:end],
            matrix.shape[1],
            None if labels is None else labels[first:last],
        )
        file.write(block.data)


def _encode_block(
    counts: Ints, keys: Ints, values: Floats, columns: int, labels: Floats | None
) -> Bytes:
    """Lay out every part of every record: sizes first, from the inside out, then the bytes."""
    rows = len(counts)
    owner = np.repeat(np.arange(rows), counts)
    key_sizes = _varint_sizes(keys)
    keys_length = np.bincount(owner, weights=key_sizes, minlength=rows).astype(np.int64)
    values_length = 4 * counts
    shape = _varint(columns)
    shape_field = bytes([_TENSOR_SHAPE, len(shape)]) + shape

    filled = counts > 0  # protobuf leaves out empty packed fields
    values_field = np.where(filled, 1 + _varint_sizes(values_length) + values_length, 0)
    keys_field = np.where(filled, 1 + _varint_sizes(keys_length) + keys_length, 0)
    tensor_length = values_field + keys_field + len(shape_field)
    value_length = 1 + _varint_sizes(tensor_length) + tensor_length
    entry_length = len(_MAP_KEY) + 1 + _varint_sizes(value_length) + value_length
    payload = 1 + _varint_sizes(entry_length) + entry_length
    if labels is not None:
        payload = payload + len(_LABEL_ENTRY) + 4

    frame = 8 + (payload + 3) // 4 * 4
    starts = _starts(frame)
    out = np.zeros(starts[-1], dtype=np.uint8)
    at = starts[:-1].copy()

    def put(constant: bytes, where: npt.NDArray[np.bool_] | slice = slice(None)) -> None:
        for offset, byte in enumerate(constant):
            out[at[where] + offset] = byte
        at[where] += len(constant)

    def put_length(lengths: Ints, where: npt.NDArray[np.bool_] | slice = slice(None)) -> None:
        sizes = _varint_sizes(lengths[where])
        _put_varints(out, at[where], lengths[where], sizes)
        at[where] += sizes

    put(_MAGIC_BYTES)
    _put_fixed(out, at, payload.astype("<u4"))
    at += 4
    put(bytes([_RECORD_FEATURES]))
    put_length(entry_length)
    put(_MAP_KEY + bytes([_ENTRY_VALUE]))
    put_length(value_length)
    put(bytes([_VALUE_FLOAT32]))
    put_length(tensor_length)

    put(bytes([_TENSOR_VALUES]), filled)
    put_length(values_length, filled)
    within_row = np.arange(len(keys)) - np.repeat(_starts(counts)[:-1], counts)
    _put_fixed(out, np.repeat(at, counts) + 4 * within_row, values.astype("<f4"))
    at += values_length

    put(bytes([_TENSOR_KEYS]), filled)
    put_length(keys_length, filled)
    key_starts = _starts(key_sizes)[:-1]
    bytes_before_row = (_starts(keys_length)[:-1]).repeat(counts)
    _put_varints(out, np.repeat(at, counts) + key_starts - bytes_before_row, keys, key_sizes)
    at += keys_length

    put(shape_field)
    if labels is not None:
        put(_LABEL_ENTRY)
        _put_fixed(out, at, labels.astype("<f4"))
    return out


def _encode_block_compiled(
    counts: Ints, keys: Ints, values: Floats, columns: int, labels: Floats | None
) -> Bytes:
    from recsys_assets.domain import recordio_kernels as kernels  # the compiler takes a second

    out = np.empty(
        kernels.LARGEST_FRAME_OVERHEAD * len(counts) + kernels.LARGEST_ENTRY * len(keys),
        dtype=np.uint8,
    )
    size = kernels.encode_rows(
        _starts(counts),
        keys,
        _words(values),
        _words(labels if labels is not None else values[:0]),
        columns,
        out,
    )
    return out[:size]


def _words(values: Floats) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(values).view(np.uint32)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _varint_sizes(values: Ints) -> Ints:
    sizes = np.ones(len(values), dtype=np.int64)
    limit = 1 << 7
    largest = int(values.max(initial=0))
    while limit <= largest:
        sizes += values >= limit
        limit <<= 7
    return sizes


def _put_varints(out: Bytes, at: Ints, values: Ints, sizes: Ints) -> None:
    for index in range(int(sizes.max(initial=0))):
        here = sizes > index
        more = (sizes[here] > index + 1).astype(np.int64) << 7
        out[at[here] + index] = (values[here] >> (7 * index)) & 0x7F | more


def _put_fixed(out: Bytes, at: Ints, values: npt.NDArray[Any]) -> None:
    out[at[:, None] + np.arange(4)] = values.view(np.uint8).reshape(-1, 4)


# ------------------------------------------------------------------------------------- reading


def _decode_compiled(data: bytes, is_whole: bool) -> _Part | None:
    """Decode records of the common form; return None if there are none, or others among them."""
    from recsys_assets.domain import recordio_kernels as kernels  # the compiler takes a second

    buffer = np.frombuffer(data, dtype=np.uint8)
    rows, entries, columns, is_labelled, length = kernels.count_rows(buffer, is_whole)
    if rows < 1:
        return None
    indptr = np.empty(rows + 1, dtype=np.int64)
    indices = np.empty(entries, dtype=np.int32)
    values = np.empty(entries, dtype=np.float32)
    labels = np.empty(rows if is_labelled else 0, dtype=np.float32)
    if not kernels.decode_rows(
        buffer[:length], columns, indptr, indices, values.view(np.uint32), labels.view(np.uint32)
    ):
        return None
    matrix = csr_matrix((values, indices, indptr), shape=(rows, columns), copy=False)
    return _Part(matrix, labels if is_labelled else None, length)


class _Frames(NamedTuple):
    """The payloads of records: a buffer, and where in it each of them starts and ends.

    `length` is the number of bytes that they take up.
    """

    buffer: Bytes
    start: Ints
    end: Ints
    length: int


def _frames(data: bytes, is_whole: bool) -> _Frames:
    """Find the payloads; unless `data` is whole, a record that is cut at its end is left out."""
    starts: list[int] = []
    ends: list[int] = []
    joined = bytearray()  # records that came in parts, put together behind the file's own bytes
    parts: list[bytes] | None = None
    words = np.frombuffer(data, dtype="<u4", count=len(data) // 4).tolist()
    position = length = 0
    size = len(data)
    while position < size:
        if position + 8 > size:
            if not is_whole:
                break
            raise RecordIOError(f"byte {position}: truncated frame header")
        magic, word = words[position // 4], words[position // 4 + 1]
        if magic != MAGIC:
            raise RecordIOError(
                f"byte {position}: expected the RecordIO magic 0x{MAGIC:08x}, found 0x{magic:08x}"
            )
        flag, payload = word >> _LENGTH_BITS, word & (1 << _LENGTH_BITS) - 1
        begin = position + 8
        end, after = begin + payload, begin + (payload + 3) // 4 * 4
        if after > size and not is_whole:
            break
        if end > size:
            raise RecordIOError(
                f"byte {position}: a record of {payload} bytes is cut after {size - begin}"
            )
        if (flag in (0, 1)) != (parts is None) or flag > 3:
            raise RecordIOError(f"byte {position}: continuation flag {flag} out of sequence")
        if flag == 0:
            starts.append(begin)
            ends.append(end)
        else:
            parts = [*(parts or []), data[begin:end]]
            if flag == 3:
                starts.append(size + len(joined))
                joined += _MAGIC_BYTES.join(parts)
                ends.append(size + len(joined))
                parts = None
        position = after
        if parts is None:
            length = position
    if parts is not None and is_whole:
        raise RecordIOError(f"byte {size}: the last record lacks its final part")
    buffer = np.frombuffer(data + bytes(joined) if joined else data, dtype=np.uint8)
    return _Frames(buffer, np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64), length)


class _Tensors:
    """Where the parts of one tensor a record lie in the buffer; all arrays have one entry a row."""

    def __init__(self, rows: int) -> None:
        self.present = np.zeros(rows, dtype=np.bool_)
        self.value_start = np.zeros(rows, dtype=np.int64)
        self.value_end = np.zeros(rows, dtype=np.int64)
        self.key_start = np.zeros(rows, dtype=np.int64)
        self.key_end = np.zeros(rows, dtype=np.int64)
        self.shape = np.zeros(rows, dtype=np.int64)


def _fields(
    buffer: Bytes, row: Ints, position: Ints, end: Ints
) -> Iterator[tuple[int, Ints, Ints, Ints]]:
    """Read the fields of many messages in lockstep.

    Yields, for each tag met at each turn, the rows it stands in and where its content begins and
    ends. Records of one writer are alike, so that there are few turns and few tags a turn.
    """
    while len(position):
        begin_field = position
        tag, position = _read_varints(buffer, position, end)
        wire = tag & 7
        content_end = position.copy()
        delimited = wire == _LENGTH_DELIMITED
        if delimited.any():
            length, begin = _read_varints(buffer, position[delimited], end[delimited])
            position[delimited] = begin
            content_end[delimited] = begin + length
        if (wire == _VARINT).any():
            _, content_end[wire == _VARINT] = _read_varints(
                buffer, position[wire == _VARINT], end[wire == _VARINT]
            )
        for kind, width in _FIXED_WIDTH.items():
            content_end[wire == kind] += width
        known = delimited | (wire == _VARINT) | np.isin(wire, list(_FIXED_WIDTH))
        bad = ~known | (content_end > end) | (content_end < position)
        if bad.any():
            offset = int(begin_field[bad][0])
            raise RecordIOError(f"byte {offset}: not a field of a protobuf record")
        for value in np.unique(tag):
            here = tag == value
            yield int(value), row[here], position[here], content_end[here]
        going_on = content_end < end
        row, position, end = row[going_on], content_end[going_on], end[going_on]


def _read_entry(buffer: Bytes, row: Ints, begin: Ints, end: Ints, into: _Tensors) -> None:
    """Read a map entry: its key must be ``values``, its value a float32 tensor."""
    for tag, rows, start, stop in _fields(buffer, row, begin, end):
        if tag == _ENTRY_KEY:
            wrong = stop - start != 6
            if not wrong.any():
                names = buffer[start[:, None] + np.arange(6)]
                wrong = (names != np.frombuffer(b"values", dtype=np.uint8)).any(axis=1)
            if wrong.any():
                offset = int(start[wrong][0])
                name = bytes(buffer[offset : int(stop[wrong][0])])
                raise RecordIOError(f"byte {offset}: expected the key 'values', found {name!r}")
        elif tag == _ENTRY_VALUE:
            for kind, tensor_rows, tensor_start, tensor_stop in _fields(buffer, rows, start, stop):
                if kind != _VALUE_FLOAT32:
                    raise RecordIOError(
                        f"byte {tensor_start[0]}: expected a float32 tensor, found the value "
                        f"field {kind >> 3}"
                    )
                into.present[tensor_rows] = True
                _read_tensor(buffer, tensor_rows, tensor_start, tensor_stop, into)


def _read_tensor(buffer: Bytes, row: Ints, begin: Ints, end: Ints, into: _Tensors) -> None:
    for tag, rows, start, stop in _fields(buffer, row, begin, end):
        if tag == _TENSOR_VALUES:
            ragged = (stop - start) % 4 != 0
            if ragged.any():
                raise RecordIOError(f"byte {start[ragged][0]}: float32 values cut short")
            into.value_start[rows], into.value_end[rows] = start, stop
        elif tag == _TENSOR_KEYS:
            into.key_start[rows], into.key_end[rows] = start, stop
        elif tag == _TENSOR_SHAPE:
            into.shape[rows], after = _read_varints(buffer, start, stop)
            if (after != stop).any():
                raise RecordIOError(f"byte {start[after != stop][0]}: expected a shape of one size")


def _read_varints(buffer: Bytes, position: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Read one varint at each position; return the values and the positions behind them."""
    value = np.zeros(len(position), dtype=np.int64)
    position = position.copy()
    open_ = np.arange(len(position))
    for shift in range(0, 63, 7):
        at = position[open_]
        cut = at >= end[open_]
        if cut.any():
            raise RecordIOError(f"byte {int(at[cut][0])}: a number is cut short")
        byte = buffer[at].astype(np.int64)
        value[open_] |= (byte & 0x7F) << shift
        position[open_] += 1
        open_ = open_[byte >= 0x80]
        if not len(open_):
            return value, position
    raise RecordIOError(f"byte {int(position[open_][0])}: a number of more than 63 bits")


def _read_keys(
    buffer: Bytes, tensors: _Tensors, counts: Ints, columns: int, start: Ints
) -> npt.NDArray[np.int32]:
    """Decode the packed keys of all rows at once; dense rows get 0, 1, 2, ..."""
    lengths = tensors.key_end - tensors.key_start
    packed = _gather(buffer, tensors.key_start, lengths)
    last = packed < 0x80
    per_row = np.add.reduceat(np.append(last, False), np.minimum(_starts(lengths)[:-1], len(last)))
    per_row = np.where(lengths > 0, per_row, 0)
    dense = (lengths == 0) & (counts == columns)
    wrong = (per_row != counts) & ~dense
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise RecordIOError(
            f"byte {start[row]}: record {row} has {counts[row]} values and {per_row[row]} keys "
            f"for {columns} columns"
        )
    ends = np.flatnonzero(last) + 1
    begins = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    keys, _ = _read_varints(packed, begins[: len(ends)], ends)
    if len(keys) and int(keys.max()) >= columns:
        key = int(np.flatnonzero(keys >= columns)[0])
        row = int(np.searchsorted(np.cumsum(per_row), key, side="right"))
        raise RecordIOError(
            f"byte {start[row]}: record {row} has key {keys[key]}, outside {columns} columns"
        )
    if dense.any():
        all_keys = np.tile(np.arange(columns), int(dense.sum()))
        merged = np.empty(int(counts.sum()), dtype=np.int64)
        is_dense = np.repeat(dense, counts)
        merged[is_dense] = all_keys
        merged[~is_dense] = keys
        keys = merged
    return keys.astype(np.int32)


def _gather(buffer: Bytes, start: Ints, length: Ints) -> Bytes:
    """Copy ``buffer[start[i]:start[i] + length[i]]`` for all i into one array."""
    offsets = _starts(length)
    gathered: Bytes = buffer[np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], length)]
    return gathered


def _starts(sizes: npt.NDArray[Any]) -> Ints:
    """Offsets of parts of the given sizes laid end to end, with the total as the last entry."""
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets
