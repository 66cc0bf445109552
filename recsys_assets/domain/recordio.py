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

import os
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, get_index_dtype, vstack

MAGIC = 0xCED7230A
_MAGIC_BYTES = MAGIC.to_bytes(4, "little")
_LENGTH_BITS = 29
_ROWS_PER_BLOCK = 1 << 13
_VALUES_PER_BLOCK = 1 << 16  # together they bound the encoder's scratch memory to some MB
_LEAST_COMPILED_ROWS = 1 << 17  # with fewer, numpy is done before the compiled code is loaded
_LEAST_COMPILED_BYTES = 1 << 22

_MAP_KEY = b"\x0a\x06values"  # key (field 1) of a map entry
_LABEL_ENTRY = b"\x12\x12" + _MAP_KEY + b"\x12\x08\x12\x06\x0a\x04"  # then four bytes of float32

# Field numbers and wire types, as protobuf tags.
_RECORD_FEATURES, _RECORD_LABEL = 0x0A, 0x12
_ENTRY_KEY, _ENTRY_VALUE = 0x0A, 0x12
_TENSOR_VALUES, _TENSOR_KEYS, _TENSOR_SHAPE = 0x0A, 0x12, 0x1A
_FIXED_WIDTH = {1: 8, 5: 4}
_VARINT, _LENGTH_DELIMITED = 0, 2
_FIELD_BITS = 3  # of a tag, below the number of the field: the wire type

_VALUE_FLOAT32 = 0x12
_DTYPES: dict[int, np.dtype[Any]] = {
    _VALUE_FLOAT32: np.dtype("<f4"),
    0x1A: np.dtype("<f8"),
    0x3A: np.dtype("<i4"),
}
"""What a value may be, by its tag; of integers each one is a varint."""

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[Any]


class RecordIOError(ValueError):
    """Bytes that are not the RecordIO-protobuf that was expected; the message says where.

    Attributes
    ----------
    offset
        Of the byte in the file, or in the bytes, at which it was noticed.
    reason
        What was expected and what came.
    record
        Number of the record, from 0, where the reason is about one.
    """

    def __init__(
        self, offset: int, reason: str, *, record: int | None = None, file: str | None = None
    ) -> None:
        self.offset, self.reason, self.record = offset, reason, record
        whose = "" if record is None else f"record {record} "
        super().__init__(f"{file}: " * bool(file) + f"byte {offset}: {whose}{reason}")

    def within(self, offset: int, record: int, file: str) -> "RecordIOError":
        """Return the error of a file whose bytes were read from `offset` and `record` on."""
        number = None if self.record is None else record + self.record
        return RecordIOError(offset + self.offset, self.reason, record=number, file=file)


def write_recordio(
    path: Path, matrix: csr_matrix, labels: Floats | None = None, rows: slice = slice(None)
) -> None:
    """Write one record for each row of `matrix`, or for each of `rows`, to `path`.

    Other parameters and errors are those of :func:`encode_recordio`; records are written block by
    block, so memory stays bounded whatever their number.
    """
    _check(matrix, labels)
    with path.open("wb") as file:
        _write_blocks(file, matrix, labels, rows)


def encode_recordio(
    matrix: csr_matrix, labels: Floats | None = None, rows: slice = slice(None)
) -> bytes:
    """Encode a sparse matrix as RecordIO-protobuf.

    Parameters
    ----------
    matrix
        CSR, float32, shape ``(rows, columns)``. Column indices are written in stored order.
    labels
        float32, shape ``(rows,)``, or None for records without a label.
    rows
        Which rows to take, by default all; consecutive ones, which are not copied.

    Raises
    ------
    ValueError
        If the matrix is not CSR or not float32 (SageMaker's Factorization Machines refuses
        float64 tensors), or if there is not one float32 label a row.
    """
    _check(matrix, labels)
    buffer = BytesIO()
    _write_blocks(buffer, matrix, labels, rows)
    return buffer.getvalue()


def read_recordio(
    paths: Sequence[Path], *, float32_only: bool = True
) -> tuple[csr_matrix, Labels | None]:
    """Read RecordIO-protobuf files, one after another, into one matrix.

    Parameters
    ----------
    paths
        Files, or pipes, each of which is opened once.
    float32_only
        Whether to refuse tensors of float64 and int32, as SageMaker's Factorization Machines does.

    Returns
    -------
    matrix, labels
        CSR of shape ``(rows, columns)`` and labels of shape ``(rows,)``, or None if no record has
        one; each of the type of its tensors.

    Raises
    ------
    RecordIOError
        If a file is corrupt or truncated, if it holds tensors of a type that is refused, or if
        records differ in width, types or in having a label; the message names the file and the
        byte offset.
    """
    parts = list(iterate_recordio(paths, float32_only=float32_only))
    if not parts:
        return csr_matrix((0, 0), dtype=np.float32), None
    stacked = vstack([matrix for matrix, _ in parts], format="csr")
    labels = [label for _, label in parts if label is not None]
    return stacked, np.concatenate(labels) if labels else None


def iterate_recordio(
    paths: Sequence[Path], chunk_bytes: int = 1 << 20, *, float32_only: bool = True
) -> Iterator[tuple[csr_matrix, Labels | None]]:
    """Read RecordIO-protobuf files, one after another, in chunks.

    Parameters
    ----------
    paths, float32_only
        As :func:`read_recordio` takes them.
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
        As :func:`read_recordio` does.
    """
    passed, form = 0, None
    for path in paths:
        offset, rows, data, is_whole = 0, 0, b"", False
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size  # a pipe's name may be gone by now
            while not is_whole:
                block = file.read(chunk_bytes)
                data, is_whole = data + block, not block
                is_long = max(size, passed + len(data)) >= _LEAST_COMPILED_BYTES
                try:
                    part = _decode(data, is_whole, is_long, float32_only)
                    if part.matrix.shape[0]:
                        form = _same_form(form, part)
                except RecordIOError as error:
                    raise error.within(offset, rows, path.name) from None
                if part.matrix.shape[0]:
                    yield part.matrix, part.labels
                rows += part.matrix.shape[0]
                offset += part.length
                passed += part.length
                data = data[part.length :]


def decode_recordio(data: bytes, *, float32_only: bool = True) -> tuple[csr_matrix, Labels | None]:
    """Decode RecordIO-protobuf bytes; see :func:`read_recordio`.

    Records may be sparse (with keys) or dense (without); their fields may stand in any order and
    frames may be split in parts, as the RecordIO and protobuf formats allow.
    """
    is_long = len(data) >= _LEAST_COMPILED_BYTES
    part = _decode(data, is_whole=True, is_long=is_long, float32_only=float32_only)
    return part.matrix, part.labels


class _Part(NamedTuple):
    """The rows that some bytes hold; `length` is the number of bytes that they take up."""

    matrix: csr_matrix
    labels: Labels | None
    length: int


class _Form(NamedTuple):
    """What all records have in common: their width and the types of their values and labels."""

    columns: int
    values: np.dtype[Any]
    labels: np.dtype[Any] | None

    def __str__(self) -> str:
        labels = "no label" if self.labels is None else f"a {self.labels} label"
        return f"{self.columns} columns of {self.values} and {labels}"


def _same_form(known: _Form | None, part: _Part) -> _Form:
    """Return the form of some rows, which must be that of those before them."""
    labels = None if part.labels is None else part.labels.dtype
    form = _Form(part.matrix.shape[1], part.matrix.dtype, labels)
    if known not in (None, form):
        raise RecordIOError(0, f"expected records of {known}, found {form}")
    return form


def _decode(data: bytes, is_whole: bool, is_long: bool, float32_only: bool) -> _Part:
    """Decode rows; unless `data` is whole, a record that is cut at its end is left out."""
    part = _decode_compiled(data, is_whole) if is_long else None
    return part or _decode_any(data, is_whole, float32_only)


def _decode_any(data: bytes, is_whole: bool, float32_only: bool) -> _Part:
    frames = _frames(data, is_whole)
    try:
        return _decode_frames(frames, float32_only)
    except RecordIOError as error:
        raise RecordIOError(
            frames.origin(error.offset), error.reason, record=error.record
        ) from None


def _decode_frames(frames: "_Frames", float32_only: bool) -> _Part:
    buffer, start = frames.buffer, frames.start
    rows = len(start)
    if not rows:
        return _Part(csr_matrix((0, 0), dtype=np.float32), None, frames.length)
    features, label = _Tensors(rows), _Tensors(rows)
    for tag, row, begin, stop in _fields(buffer, np.arange(rows), start, frames.end):
        if tag in (_RECORD_FEATURES, _RECORD_LABEL):
            tensors = features if tag == _RECORD_FEATURES else label
            _read_entry(buffer, row, begin, stop, tensors, float32_only)

    # Rows without a value have no values field; their features must still have a shape.
    _require(features.tag > 0, start, lambda row: "has no 'values' features")
    values, counts = _read_values(buffer, features, start)
    # Dense records need no shape, and the SDK writes none for them.
    shapeless = (features.shape == 0) & (features.key_end == features.key_start)
    width = np.where(shapeless, counts, features.shape)
    _require(width == width[0], start, lambda row: f"has {width[row]} columns, expected {width[0]}")
    columns = int(width[0])
    indices = _read_keys(buffer, features, counts, columns, start)
    matrix = csr_matrix((values, indices, _starts(counts)), shape=(rows, columns), copy=False)

    if not label.tag.any():
        return _Part(matrix, None, frames.length)
    _require(label.tag > 0, start, lambda row: "has 0 labels, expected 1")
    labels, counts = _read_values(buffer, label, start)
    _require(counts == 1, start, lambda row: f"has {counts[row]} labels, expected 1")
    return _Part(matrix, labels, frames.length)


def _require(holds: npt.NDArray[np.bool_], start: Ints, reason: Callable[[int], str]) -> None:
    """Raise an error about the first record that something does not hold for."""
    if not holds.all():
        row = int(np.flatnonzero(~holds)[0])
        raise RecordIOError(int(start[row]), reason(row), record=row)


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


def _write_blocks(file: BinaryIO, matrix: csr_matrix, labels: Floats | None, rows: slice) -> None:
    encode = _encode_rows if matrix.shape[0] < _LEAST_COMPILED_ROWS else _encode_rows_compiled
    for block in _blocks(matrix.indptr, range(matrix.shape[0])[rows]):
        file.write(encode(matrix, labels, block).data)


def _blocks(indptr: npt.NDArray[Any], rows: range) -> Iterator[slice]:
    """Cut rows into blocks that are bounded in rows and, but for single rows, in values."""
    first = rows.start
    while first < rows.stop:
        starts = indptr[first : min(first + _ROWS_PER_BLOCK, rows.stop) + 1]
        full = np.searchsorted(starts, int(starts[0]) + _VALUES_PER_BLOCK, side="right") - 1
        last = first + max(int(full), 1)
        yield slice(first, last)
        first = last


def _encode_rows(matrix: csr_matrix, labels: Floats | None, rows: slice) -> Bytes:
    """Lay out every part of every record: sizes first, from the inside out, then the bytes."""
    begin, end = matrix.indptr[rows.start], matrix.indptr[rows.stop]
    counts = np.diff(matrix.indptr[rows.start : rows.stop + 1]).astype(np.int64)
    keys = matrix.indices[begin:end].astype(np.int64)
    values = matrix.data[begin:end]
    owner = np.repeat(np.arange(len(counts)), counts)
    key_sizes = _varint_sizes(keys)
    keys_length = np.bincount(owner, weights=key_sizes, minlength=len(counts)).astype(np.int64)
    values_length = 4 * counts
    shape = _varint(matrix.shape[1])
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
        _put_fixed(out, at, labels[rows].astype("<f4"))
    return out


def _encode_rows_compiled(matrix: csr_matrix, labels: Floats | None, rows: slice) -> Bytes:
    from recsys_assets.domain import recordio_kernels as kernels  # the compiler takes a second

    values = int(matrix.indptr[rows.stop] - matrix.indptr[rows.start])
    room = kernels.LARGEST_FRAME_OVERHEAD * (rows.stop - rows.start)
    out = np.empty(room + kernels.LARGEST_ENTRY * values, dtype=np.uint8)
    size = kernels.encode_rows(
        matrix.indptr,
        matrix.indices,
        _words(matrix.data),
        _words(matrix.data[:0] if labels is None else labels),
        matrix.shape[1],
        rows.start,
        rows.stop,
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
    indptr = np.empty(len(data) // kernels.LEAST_RECORD + 1, dtype=np.int32)
    indices = np.empty(len(data) // kernels.LEAST_ENTRY, dtype=np.int32)
    values = np.empty(len(indices), dtype=np.float32)
    labels = np.empty(len(indptr), dtype=np.float32)
    rows, columns, is_labelled, length = kernels.decode_rows(
        buffer, is_whole, indptr, indices, _words(values), _words(labels)
    )
    if rows < 1:
        return None
    entries = int(indptr[rows])
    for array, size in ((indptr, rows + 1), (indices, entries), (values, entries), (labels, rows)):
        array.resize(size, refcheck=False)  # gives back what was not filled, without a copy
    matrix = csr_matrix((values, indices, indptr), shape=(rows, columns), copy=False)
    return _Part(matrix, labels if is_labelled else None, length)


class _Frames(NamedTuple):
    """The payloads of records: a buffer, and where in it each of them starts and ends.

    Payloads that came in parts are put together behind the `size` bytes that were read; `first` is
    where among these each record's first frame lies. `length` is the number of bytes that the
    records take up.
    """

    buffer: Bytes
    start: Ints
    end: Ints
    first: Ints
    size: int
    length: int

    def origin(self, offset: int) -> int:
        """Return where among what was read a byte of the buffer comes from."""
        if offset < self.size:
            return offset
        return int(self.first[self.start <= offset][np.argmax(self.start[self.start <= offset])])


def _frames(data: bytes, is_whole: bool) -> _Frames:
    """Find the payloads; unless `data` is whole, a record that is cut at its end is left out."""
    starts: list[int] = []
    ends: list[int] = []
    firsts: list[int] = []
    joined = bytearray()  # records that came in parts, put together behind the file's own bytes
    parts: list[bytes] | None = None
    words = np.frombuffer(data, dtype="<u4", count=len(data) // 4).tolist()
    position = length = 0
    size = len(data)
    while position < size:
        if position + 8 > size:
            if not is_whole:
                break
            raise RecordIOError(position, "truncated frame header")
        magic, word = words[position // 4], words[position // 4 + 1]
        if magic != MAGIC:
            raise RecordIOError(
                position, f"expected the RecordIO magic 0x{MAGIC:08x}, found 0x{magic:08x}"
            )
        flag, payload = word >> _LENGTH_BITS, word & (1 << _LENGTH_BITS) - 1
        begin = position + 8
        end, after = begin + payload, begin + (payload + 3) // 4 * 4
        if after > size and not is_whole:
            break
        if end > size:
            raise RecordIOError(
                position, f"a record of {payload} bytes is cut after {size - begin}"
            )
        if (flag in (0, 1)) != (parts is None) or flag > 3:
            raise RecordIOError(position, f"continuation flag {flag} out of sequence")
        if flag in (0, 1):
            firsts.append(position)
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
        raise RecordIOError(size, "the last record lacks its final part")
    buffer = np.frombuffer(data + bytes(joined) if joined else data, dtype=np.uint8)
    start, end, first = (np.array(places, dtype=np.int64) for places in (starts, ends, firsts))
    return _Frames(buffer, start, end, first[: len(start)], size, length)


class _Tensors:
    """Where the parts of one tensor a record lie in the buffer; all arrays have one entry a row.

    `tag` is that of the kind of tensor, 0 where there is none.
    """

    def __init__(self, rows: int) -> None:
        self.tag = np.zeros(rows, dtype=np.int64)
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
            raise RecordIOError(int(begin_field[bad][0]), "not a field of a protobuf record")
        for value in np.unique(tag):
            here = tag == value
            yield int(value), row[here], position[here], content_end[here]
        going_on = content_end < end
        row, position, end = row[going_on], content_end[going_on], end[going_on]


def _read_entry(
    buffer: Bytes, row: Ints, begin: Ints, end: Ints, into: _Tensors, float32_only: bool
) -> None:
    """Read a map entry: its key must be ``values``, its value a tensor."""
    for tag, rows, start, stop in _fields(buffer, row, begin, end):
        if tag == _ENTRY_KEY:
            wrong = stop - start != 6
            if not wrong.any():
                names = buffer[start[:, None] + np.arange(6)]
                wrong = (names != np.frombuffer(b"values", dtype=np.uint8)).any(axis=1)
            if wrong.any():
                offset = int(start[wrong][0])
                name = bytes(buffer[offset : int(stop[wrong][0])])
                raise RecordIOError(offset, f"expected the key 'values', found {name!r}")
        elif tag == _ENTRY_VALUE:
            for kind, tensor_rows, tensor_start, tensor_stop in _fields(buffer, rows, start, stop):
                if kind not in _DTYPES or (float32_only and kind != _VALUE_FLOAT32):
                    expected = "float32" if float32_only else "float32, float64 or int32"
                    found = _DTYPES.get(kind, f"the value field {kind >> _FIELD_BITS}")
                    raise RecordIOError(
                        int(tensor_start[0]), f"expected a tensor of {expected}, found {found}"
                    )
                into.tag[tensor_rows] = kind
                _read_tensor(buffer, tensor_rows, tensor_start, tensor_stop, into)


def _read_tensor(buffer: Bytes, row: Ints, begin: Ints, end: Ints, into: _Tensors) -> None:
    for tag, rows, start, stop in _fields(buffer, row, begin, end):
        if tag == _TENSOR_VALUES:
            into.value_start[rows], into.value_end[rows] = start, stop
        elif tag == _TENSOR_KEYS:
            into.key_start[rows], into.key_end[rows] = start, stop
        elif tag == _TENSOR_SHAPE:
            into.shape[rows], after = _read_varints(buffer, start, stop)
            if (after != stop).any():
                raise RecordIOError(int(start[after != stop][0]), "expected a shape of one size")
        else:
            raise RecordIOError(int(start[0]), "expected packed values, keys and a shape")


def _read_values(buffer: Bytes, tensors: _Tensors, start: Ints) -> tuple[npt.NDArray[Any], Ints]:
    """Read the values of all rows at once; return them and how many each row has."""
    tag = int(tensors.tag[0])
    dtype = _DTYPES[tag]
    _require(
        tensors.tag == tag,
        start,
        lambda row: f"has a tensor of {_DTYPES[int(tensors.tag[row])]}, expected {dtype}",
    )
    if dtype.kind == "i":
        numbers, counts = _read_packed(buffer, tensors.value_start, tensors.value_end)
        return numbers.astype(dtype), counts
    lengths = tensors.value_end - tensors.value_start
    _require(
        lengths % dtype.itemsize == 0, tensors.value_start, lambda _: f"{dtype} values cut short"
    )
    values = _gather(buffer, tensors.value_start, lengths).view(dtype)
    return values.astype(dtype.newbyteorder("=")), lengths // dtype.itemsize


def _read_varints(buffer: Bytes, position: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Read one varint at each position; return the values and the positions behind them.

    Values of 64 bits come as the negative numbers that they stand for.
    """
    value = np.zeros(len(position), dtype=np.int64)
    position = position.copy()
    open_ = np.arange(len(position))
    for shift in range(0, 64, 7):
        at = position[open_]
        cut = at >= end[open_]
        if cut.any():
            raise RecordIOError(int(at[cut][0]), "a number is cut short")
        byte = buffer[at].astype(np.int64)
        value[open_] |= (byte & 0x7F) << shift
        position[open_] += 1
        open_ = open_[byte >= 0x80]
        if not len(open_):
            return value, position
    raise RecordIOError(int(position[open_][0]), "a number of more than 64 bits")


def _read_packed(buffer: Bytes, start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Read the packed varints of all rows at once; return them and how many each row has."""
    lengths = end - start
    filled = lengths > 0
    ends_a_number = buffer[end[filled] - 1] < 0x80
    if not ends_a_number.all():
        raise RecordIOError(int(end[filled][~ends_a_number][0]), "a number is cut short")
    bounds = _starts(lengths)
    packed = _gather(buffer, start, lengths)
    stops = np.flatnonzero(packed < 0x80) + 1
    begins = np.append(0, stops[:-1])[: len(stops)]
    counts = np.diff(np.searchsorted(stops, bounds, side="right"))
    try:
        numbers, _ = _read_varints(packed, begins, stops)
    except RecordIOError as error:
        row = int(np.searchsorted(bounds, error.offset, side="right")) - 1
        offset = int(start[row] + error.offset - bounds[row])
        raise RecordIOError(offset, error.reason) from None
    return numbers, counts


def _read_keys(
    buffer: Bytes, tensors: _Tensors, counts: Ints, columns: int, start: Ints
) -> npt.NDArray[Any]:
    """Read the keys of all rows at once; dense rows get 0, 1, 2, ..."""
    keys, key_counts = _read_packed(buffer, tensors.key_start, tensors.key_end)
    dense = (tensors.key_end == tensors.key_start) & (counts == columns)
    _require(
        (key_counts == counts) | dense,
        start,
        lambda row: f"has {counts[row]} values and {key_counts[row]} keys for {columns} columns",
    )
    outside = (keys < 0) | (keys >= columns)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        row = int(np.searchsorted(np.cumsum(key_counts), first, side="right"))
        raise RecordIOError(
            int(start[row]), f"has key {keys[first]}, outside {columns} columns", record=row
        )
    if dense.any():
        merged = np.empty(int(counts.sum()), dtype=np.int64)
        is_dense = np.repeat(dense, counts)
        merged[is_dense] = np.tile(np.arange(columns), int(dense.sum()))
        merged[~is_dense] = keys
        keys = merged
    return keys.astype(get_index_dtype(maxval=columns))


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
