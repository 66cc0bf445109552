"""How batch transform cuts an input object into requests: records, then payloads.

Records keep their bytes as they are in the object, so that the payloads together are the object.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

_RECORDIO_MAGIC = 0xCED7230A
_RECORDIO_HEADER = struct.Struct("<II")
_RECORDIO_LENGTH_BITS = 29

# Upper bits of a RecordIO header: a whole record, or the first, a middle or the last part of one.
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)


class BadInput(Exception):  # noqa: N818 - what it says
    """An input object cannot be cut up; the message says where and why."""


def split(stream: BinaryIO, split_type: str, longest: int) -> Iterator[bytes]:
    """Yield an object's records.

    Parameters
    ----------
    stream
        The object's content.
    split_type
        ``None`` (the whole object is one record), ``Line`` (records keep their line ends) or
        ``RecordIO`` (records keep their framing; the parts of one stay together).
    longest
        Bytes that a record may have; no more than that is held in memory.

    Raises
    ------
    BadInput
        When a record is longer, or is no RecordIO.
    """
    match split_type:
        case "None":
            return _pieces(stream, lambda: stream.read(longest + 1), longest)
        case "Line":
            return _pieces(stream, lambda: stream.readline(longest + 1), longest)
        case "RecordIO":
            return _recordio(stream, longest)
        case _:
            raise AssertionError(f"split type {split_type!r} is refused when a job is created")


def batch(records: Iterable[bytes], strategy: str, longest: int) -> Iterator[bytes]:
    """Yield payloads made of an object's records.

    Parameters
    ----------
    records
        Each of at most ``longest`` bytes.
    strategy
        ``MultiRecord`` (as many records in a payload as fit) or ``SingleRecord``.
    longest
        Bytes that a payload may have.
    """
    if strategy == "SingleRecord":
        yield from records
        return
    batched: list[bytes] = []
    size = 0
    for record in records:
        if batched and size + len(record) > longest:
            yield b"".join(batched)
            batched, size = [], 0
        batched.append(record)
        size += len(record)
    if batched:
        yield b"".join(batched)


def _pieces(stream: BinaryIO, read: Callable[[], bytes], longest: int) -> Iterator[bytes]:
    while piece := read():
        if len(piece) > longest:
            start = stream.tell() - len(piece)
            raise BadInput(f"the record at byte {start:,} is longer than {longest:,} bytes")
        yield piece


def _recordio(stream: BinaryIO, longest: int) -> Iterator[bytes]:
    position = 0
    parts: list[bytes] = []
    size = 0
    while header := stream.read(_RECORDIO_HEADER.size):
        if len(header) < _RECORDIO_HEADER.size:
            raise BadInput(f"the RecordIO header at byte {position:,} is cut short")
        magic, lengths = _RECORDIO_HEADER.unpack(header)
        if magic != _RECORDIO_MAGIC:
            raise BadInput(
                f"expected RecordIO's {_RECORDIO_MAGIC:#010x} at byte {position:,},"
                f" found {magic:#010x}"
            )
        flag = lengths >> _RECORDIO_LENGTH_BITS
        if flag not in ((_MIDDLE, _LAST) if parts else (_WHOLE, _FIRST)):
            raise BadInput(f"unexpected RecordIO continuation flag {flag} at byte {position:,}")
        length = lengths & ((1 << _RECORDIO_LENGTH_BITS) - 1)
        padded = length + -length % 4
        size += len(header) + padded
        if size > longest:
            start = position + len(header) + padded - size
            raise BadInput(f"the record at byte {start:,} is longer than {longest:,} bytes")
        payload = stream.read(padded)
        if len(payload) < padded:
            raise BadInput(f"the RecordIO record at byte {position:,} is cut short")
        position += len(header) + padded
        parts.append(header + payload)
        if flag in (_WHOLE, _LAST):
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        raise BadInput("the last RecordIO record is cut short")
