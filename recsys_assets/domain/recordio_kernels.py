"""The compiled loops of the RecordIO codec.

What belongs here: writing and reading records of the form that writers give them, two orders of
magnitude faster than numpy can. What does not: anything unusual and every error. A loop that meets
something else than it knows gives up, and ``recordio``, whose numpy code is the reference, tells
what it is.
"""

import numba
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]

LARGEST_FRAME_OVERHEAD = 96  # bytes of a record beside its values and keys, at most
LARGEST_ENTRY = 14  # bytes of a value and its key, at most

_MAGIC = np.frombuffer(b"\x0a\x23\xd7\xce", dtype=np.uint8)
_MAP_KEY = np.frombuffer(b"\x0a\x06values", dtype=np.uint8)
_LABEL_ENTRY = np.frombuffer(b"\x12\x12\x0a\x06values\x12\x08\x12\x06\x0a\x04", dtype=np.uint8)
_LENGTH_BITS = 29
_UNKNOWN = -1

_compile = numba.njit(cache=True, nogil=True)


@_compile
def encode_rows(
    indptr: Ints, indices: Ints, values: Words, labels: Words, columns: int, out: Bytes
) -> int:
    """Write a record for each row of a CSR matrix; return the number of bytes.

    Parameters
    ----------
    indptr, indices, values
        The matrix; `values` are the bits of its float32 values.
    labels
        The bits of float32 labels, one a row, or none at all.
    columns
        Number of columns.
    out
        Where to write: at least `LARGEST_FRAME_OVERHEAD` bytes a row and `LARGEST_ENTRY` a value.
    """
    at = 0
    shape_length = _varint_size(columns)
    for row in range(len(indptr) - 1):
        first, last = indptr[row], indptr[row + 1]
        keys_length = 0
        for entry in range(first, last):
            keys_length += _varint_size(indices[entry])
        values_length = 4 * (last - first)
        tensor_length = 2 + shape_length
        if last > first:  # protobuf leaves out empty packed fields
            tensor_length += 1 + _varint_size(values_length) + values_length
            tensor_length += 1 + _varint_size(keys_length) + keys_length
        value_length = 1 + _varint_size(tensor_length) + tensor_length
        entry_length = len(_MAP_KEY) + 1 + _varint_size(value_length) + value_length
        payload = 1 + _varint_size(entry_length) + entry_length
        if len(labels):
            payload += len(_LABEL_ENTRY) + 4

        at = _put_bytes(out, at, _MAGIC)
        at = _put_word(out, at, payload)
        at = _put_tagged(out, at, 0x0A, entry_length)
        at = _put_bytes(out, at, _MAP_KEY)
        at = _put_tagged(out, at, 0x12, value_length)
        at = _put_tagged(out, at, 0x12, tensor_length)
        if last > first:
            at = _put_tagged(out, at, 0x0A, values_length)
            for entry in range(first, last):
                at = _put_word(out, at, values[entry])
            at = _put_tagged(out, at, 0x12, keys_length)
            for entry in range(first, last):
                at = _put_varint(out, at, indices[entry])
        at = _put_tagged(out, at, 0x1A, shape_length)
        at = _put_varint(out, at, columns)
        if len(labels):
            at = _put_bytes(out, at, _LABEL_ENTRY)
            at = _put_word(out, at, labels[row])
        for _ in range(-payload % 4):
            out[at] = 0
            at += 1
    return at


@_compile
def count_rows(data: Bytes, is_whole: bool) -> tuple[int, int, int, bool, int]:
    """Return the numbers of rows, values and columns, whether there are labels, and of bytes.

    The number of rows is -1 if something is unusual. Unless `data` is whole, a record that is cut
    at its end does not count.
    """
    indptr = np.empty(0, np.int64)
    indices = np.empty(0, np.int32)
    words = np.empty(0, np.uint32)
    return _read(data, is_whole, _UNKNOWN, indptr, indices, words, words)


@_compile
def decode_rows(
    data: Bytes,
    columns: int,
    indptr: Ints,
    indices: npt.NDArray[np.int32],
    values: Words,
    labels: Words,
) -> bool:
    """Fill arrays of the sizes that :func:`count_rows` gave; return False if a row is unusual."""
    return _read(data, True, columns, indptr, indices, values, labels)[0] >= 0


@_compile
def _read(
    data: Bytes,
    is_whole: bool,
    known_columns: int,
    indptr: Ints,
    indices: npt.NDArray[np.int32],
    values: Words,
    labels: Words,
) -> tuple[int, int, int, bool, int]:
    unusual = (-1, 0, 0, False, 0)
    row = entries = at = 0
    columns, labelled = known_columns, False
    store = known_columns != _UNKNOWN
    if store:
        indptr[0] = 0
    while at < len(data):
        if at + 8 > len(data) and not is_whole:
            break
        if at + 8 > len(data) or not _is_at(data, at, _MAGIC):
            return unusual
        length = int(_word(data, at + 4))
        end = at + 8 + length
        after = end + -length % 4
        if after > len(data) and not is_whole:
            break
        if length >> _LENGTH_BITS or end > len(data):
            return unusual

        at, stop = _tagged(data, at + 8, end, 0x0A)
        if at < 0 or stop - at < len(_MAP_KEY) or not _is_at(data, at, _MAP_KEY):
            return unusual
        features_end = stop
        at, stop = _tagged(data, at + len(_MAP_KEY), features_end, 0x12)
        if at < 0 or stop != features_end:
            return unusual
        at, stop = _tagged(data, at, features_end, 0x12)
        if at < 0 or stop != features_end:
            return unusual

        count = 0
        if at < features_end and data[at] == 0x0A:
            at, stop = _tagged(data, at, features_end, 0x0A)
            if at < 0 or (stop - at) % 4:
                return unusual
            count = (stop - at) // 4
            if store:
                for entry in range(count):
                    values[entries + entry] = _word(data, at + 4 * entry)
            at, stop = _tagged(data, stop, features_end, 0x12)
            if at < 0:
                return unusual
            if store:
                for entry in range(count):
                    key, at = _varint(data, at, stop)
                    if at < 0 or key >= known_columns:
                        return unusual
                    indices[entries + entry] = key
                if at != stop:
                    return unusual
            at = stop
        at, stop = _tagged(data, at, features_end, 0x1A)
        if at < 0 or stop != features_end:
            return unusual
        width, at = _varint(data, at, stop)
        if at != stop or (columns != _UNKNOWN and width != columns):
            return unusual
        columns = width

        has_label = at < end
        if has_label:
            if end - at != len(_LABEL_ENTRY) + 4 or not _is_at(data, at, _LABEL_ENTRY):
                return unusual
            if store:
                labels[row] = _word(data, end - 4)
        if row and has_label != labelled:
            return unusual
        labelled = has_label
        row += 1
        entries += count
        if store:
            indptr[row] = entries
        at = after
    return row, entries, columns, labelled, at


# --------------------------------------------------------------------------------- bytes at a time


@_compile
def _varint_size(value: int) -> int:
    size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


@_compile
def _put_varint(out: Bytes, at: int, value: int) -> int:
    while value >= 0x80:
        out[at] = value & 0x7F | 0x80
        value >>= 7
        at += 1
    out[at] = value
    return at + 1


@_compile
def _put_tagged(out: Bytes, at: int, tag: int, length: int) -> int:
    out[at] = tag
    return _put_varint(out, at + 1, length)


@_compile
def _put_word(out: Bytes, at: int, word: int) -> int:
    for index in range(4):
        out[at + index] = word >> 8 * index & 0xFF
    return at + 4


@_compile
def _put_bytes(out: Bytes, at: int, constant: Bytes) -> int:
    for index in range(len(constant)):
        out[at + index] = constant[index]
    return at + len(constant)


@_compile
def _word(data: Bytes, at: int) -> np.uint32:
    return (
        np.uint32(data[at])
        | np.uint32(data[at + 1]) << np.uint32(8)
        | np.uint32(data[at + 2]) << np.uint32(16)
        | np.uint32(data[at + 3]) << np.uint32(24)
    )


@_compile
def _is_at(data: Bytes, at: int, constant: Bytes) -> bool:
    same = True
    for index in range(len(constant)):
        same &= bool(data[at + index] == constant[index])
    return same


@_compile
def _varint(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return the number at a place and where it ends; -1 for its end if there is none."""
    value = 0
    for shift in range(0, 63, 7):
        if at >= end:
            return 0, -1
        byte = int(data[at])
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    return 0, -1


@_compile
def _tagged(data: Bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """Return where the content of a field begins and ends; -1 if it is another or too long."""
    if at >= end or data[at] != tag:
        return -1, -1
    length, at = _varint(data, at + 1, end)
    if at < 0 or length > end - at:
        return -1, -1
    return at, at + length
