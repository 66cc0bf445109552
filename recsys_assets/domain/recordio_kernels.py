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
Indices = npt.NDArray[np.int32] | npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]

LARGEST_FRAME_OVERHEAD = 96  # bytes of a record beside its values and keys, at most
LARGEST_ENTRY = 14  # bytes of a value and its key, at most

LEAST_RECORD = 25  # bytes of a record without a value, and without padding if it is the last
LEAST_ENTRY = 4  # bytes of a value, whose key may be missing

# What every record has, as the words that it can be written and compared by.
_MAGIC = tuple(np.frombuffer(b"\x0a\x23\xd7\xce", dtype="<u4"))
_MAP_KEY = tuple(np.frombuffer(b"\x0a\x06values", dtype="<u4"))
_LABEL_ENTRY = tuple(np.frombuffer(b"\x12\x12\x0a\x06values\x12\x08\x12\x06\x0a\x04", dtype="<u4"))
_LENGTH_BITS = 29
_UNKNOWN = -1
_MOST_COLUMNS = 2**31 - 1  # whose numbers fit the indices

_ONE, _TWO, _THREE = np.uint64(1), np.uint64(2), np.uint64(3)

_compile = numba.njit(cache=True, nogil=True)


@_compile
def encode_rows(
    indptr: Indices,
    indices: Indices,
    values: Words,
    labels: Words,
    columns: int,
    start: int,
    stop: int,
    out: Bytes,
) -> int:
    """Write a record for each of some rows of a CSR matrix; return the number of bytes.

    Parameters
    ----------
    indptr, indices, values
        The matrix; `values` are the bits of its float32 values.
    labels
        The bits of float32 labels, one a row, or none at all.
    columns
        Number of columns.
    start, stop
        The rows: from `start` up to, but without, `stop`.
    out
        Where to write: at least `LARGEST_FRAME_OVERHEAD` bytes a row and `LARGEST_ENTRY` a value.
    """
    at = 0
    shape_length = _varint_size(columns)
    for row in range(start, stop):
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
        entry_length = 4 * len(_MAP_KEY) + 1 + _varint_size(value_length) + value_length
        payload = 1 + _varint_size(entry_length) + entry_length
        if len(labels):
            payload += 4 * len(_LABEL_ENTRY) + 4

        at = _put_words(out, at, _MAGIC)
        at = _put_word(out, at, payload)
        at = _put_tagged(out, at, 0x0A, entry_length)
        at = _put_words(out, at, _MAP_KEY)
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
            at = _put_words(out, at, _LABEL_ENTRY)
            at = _put_word(out, at, labels[row])
        _put_word(out, at, 0)  # more than the padding, which the next record overwrites
        at += -payload % 4
    return at


@_compile
def decode_rows(
    data: Bytes,
    is_whole: bool,
    indptr: npt.NDArray[np.int32],
    indices: npt.NDArray[np.int32],
    values: Words,
    labels: Words,
) -> tuple[int, int, bool, int]:
    """Read records; return the numbers of rows and columns, whether there are labels, and of bytes.

    The number of rows is -1 if something is unusual. Unless `data` is whole, a record that is cut
    at its end does not count.

    Parameters
    ----------
    data
        The bytes.
    is_whole
        Whether the last record ends where they do.
    indptr, indices, values, labels
        What to fill: room for a row in `LEAST_RECORD` bytes and a value in `LEAST_ENTRY`; `values`
        and `labels` take the bits of float32.
    """
    unusual = (-1, 0, False, 0)
    row = entries = at = 0
    columns, labelled = _UNKNOWN, False
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
        if at < 0 or stop - at < 4 * len(_MAP_KEY) or not _is_at(data, at, _MAP_KEY):
            return unusual
        features_end = stop
        at, stop = _tagged(data, at + 4 * len(_MAP_KEY), features_end, 0x12)
        if at < 0 or stop != features_end:
            return unusual
        at, stop = _tagged(data, at, features_end, 0x12)
        if at < 0 or stop != features_end:
            return unusual

        largest = -1
        if at < features_end and data[at] == 0x0A:
            at, stop = _tagged(data, at, features_end, 0x0A)
            if at < 0 or (stop - at) % 4:
                return unusual
            count = (stop - at) // 4
            for entry in range(entries, entries + count):
                values[entry] = _word(data, at)
                at += 4
            at, stop = _tagged(data, stop, features_end, 0x12)
            if at < 0:
                return unusual
            for entry in range(entries, entries + count):
                key, at = _varint(data, at, stop)
                if at < 0:
                    return unusual
                indices[entry] = key
                largest = max(largest, key)
            if at != stop:
                return unusual
            entries += count
        at, stop = _tagged(data, at, features_end, 0x1A)
        if at < 0 or stop != features_end:
            return unusual
        width, at = _varint(data, at, stop)
        if at != stop or width > _MOST_COLUMNS or largest >= width:
            return unusual
        if row and width != columns:
            return unusual
        columns = width

        has_label = at < end
        if has_label:
            if end - at != 4 * len(_LABEL_ENTRY) + 4 or not _is_at(data, at, _LABEL_ENTRY):
                return unusual
            labels[row] = _word(data, end - 4)
        if row and has_label != labelled:
            return unusual
        labelled = has_label
        row += 1
        indptr[row] = entries
        at = after
    return row, columns, labelled, at


# --------------------------------------------------------------------------------- bytes at a time
#
# Places are taken as unsigned numbers: of a signed one numba has to ask at every byte whether it
# counts from the end.


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
        out[np.uint64(at)] = value & 0x7F | 0x80
        value >>= 7
        at += 1
    out[np.uint64(at)] = value
    return at + 1


@_compile
def _put_tagged(out: Bytes, at: int, tag: int, length: int) -> int:
    out[np.uint64(at)] = tag
    return _put_varint(out, at + 1, length)


@_compile
def _put_word(out: Bytes, at: int, word: int | np.uint32) -> int:
    place = np.uint64(at)
    out[place] = word & 0xFF
    out[place + _ONE] = word >> 8 & 0xFF
    out[place + _TWO] = word >> 16 & 0xFF
    out[place + _THREE] = word >> 24 & 0xFF
    return at + 4


@_compile
def _put_words(out: Bytes, at: int, words: tuple[np.uint32, ...]) -> int:
    for word in words:
        at = _put_word(out, at, word)
    return at


@_compile
def _word(data: Bytes, at: int) -> np.uint32:
    place = np.uint64(at)
    return (
        np.uint32(data[place])
        | np.uint32(data[place + _ONE]) << np.uint32(8)
        | np.uint32(data[place + _TWO]) << np.uint32(16)
        | np.uint32(data[place + _THREE]) << np.uint32(24)
    )


@_compile
def _is_at(data: Bytes, at: int, words: tuple[np.uint32, ...]) -> bool:
    same = True
    for word in words:
        same &= _word(data, at) == word
        at += 4
    return same


@_compile
def _varint(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return the number at a place and where it ends; -1 for its end if there is none."""
    # A loop over a range would be unrolled, become too large to inline, and take twice as long.
    value = shift = 0
    while at < end and shift < 63:
        byte = int(data[np.uint64(at)])
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return 0, -1


@_compile
def _tagged(data: Bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """Return where the content of a field begins and ends; -1 if it is another or too long."""
    if at >= end or data[np.uint64(at)] != tag:
        return -1, -1
    length, at = _varint(data, at + 1, end)
    if at < 0 or length > end - at:
        return -1, -1
    return at, at + length
