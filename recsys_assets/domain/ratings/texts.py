"""Arrow columns of bytes as columns of text.

What belongs here: decoding, cutting out and telling what is blank, column by column and without a
loop over values that are plain. What does not: what a column means.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def cut_out(data: bytes, starts: Ints, stops: Ints) -> pa.BinaryArray:
    """Parts of `data`, by where each of them starts and stops; they follow each other."""
    # What lies between the parts and the parts are one array, of which each second one is taken.
    offsets = np.empty(2 * len(starts) + 1, np.int32)
    offsets[0], offsets[1::2], offsets[2::2] = 0, starts, stops
    pieces = pa.BinaryArray.from_buffers(
        pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
    return pieces.take(pa.array(np.arange(1, len(offsets) - 1, 2)))


def decoded(values: pa.BinaryArray) -> tuple[pa.StringArray, Mask]:
    """Bytes as text, and which of them are not UTF-8; there, U+FFFD stands for what is broken.

    Parameters
    ----------
    values
        Bytes, none of them null.
    """
    broken = np.zeros(len(values), dtype=bool)
    try:
        return values.cast(pa.string()), broken
    except pa.ArrowInvalid:
        pass
    offsets, data = _buffers(values)
    high = offsets[0] + np.flatnonzero(data[offsets[0] : offsets[-1]] >= 0x80)
    rows = np.unique(np.searchsorted(offsets, high, side="right") - 1)  # all others are ASCII
    raw = values.take(pa.array(rows)).to_pylist()
    text = [value.decode(errors="replace") for value in raw]
    broken[rows] = [changed.encode() != value for changed, value in zip(text, raw, strict=True)]
    doubtful = np.zeros(len(values), dtype=bool)
    doubtful[rows] = True
    replaced = pc.replace_with_mask(values.view(pa.string()), doubtful, pa.array(text, pa.string()))
    return replaced, broken


def is_blank(
    text: pa.StringArray, trim: Callable[[pa.StringArray], pa.StringArray] = pc.utf8_trim_whitespace
) -> Mask:
    """Whether each value is empty or holds only what `trim` takes off its ends."""
    offsets, data = _buffers(text)
    blank: Mask = offsets[1:] == offsets[:-1]
    if blank.all():
        return blank
    first = data.take(offsets[:-1], mode="clip")  # of an empty one, a byte of another
    doubtful = np.flatnonzero(~blank & ((first <= ord(" ")) | (first >= 0x80)))
    if len(doubtful):  # others begin with what is no space
        blank[doubtful] = as_mask(pc.equal(trim(text.take(pa.array(doubtful))), ""))
    return blank


def has_nul(text: pa.StringArray) -> Mask:
    """Whether there is a NUL byte in each value."""
    offsets, data = _buffers(text)
    if np.all(data[offsets[0] : offsets[-1]]):
        return np.zeros(len(text), dtype=bool)
    return as_mask(pc.match_substring(text, "\0"))


def as_mask(values: pa.Array) -> Mask:
    """Booleans without nulls as a numpy array."""
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=bool)


def _buffers(values: pa.Array) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Where each value starts, with the end of the last one, and the bytes of all."""
    _, offsets, data = values.buffers()
    if not len(values):
        return np.zeros(1, np.int32), np.empty(0, np.uint8)
    where = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    return where, np.frombuffer(data if data is not None else b"", np.uint8)
