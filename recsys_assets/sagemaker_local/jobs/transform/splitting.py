"""How batch transform cuts an input object into requests: records, then payloads.

What a record means, and what is done to it on its way to the model, is not known here
(``data_processing``).
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

_RECORDIO_MAGIC = 0xCED7230A
_RECORDIO_HEADER = struct.Struct("<II")
_RECORDIO_LENGTH_BITS = 29

# Upper bits of a RecordIO header: a whole record, or the first, a middle or the last part of one.
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)

_TFRECORD_HEADER = struct.Struct("<QI")
_TFRECORD_FOOTER_BYTES = 4


class BadInput(Exception):  # noqa: N818 - what it says
    """An input object cannot be cut up or read; the message says where and why."""


class Record(NamedTuple):
    """A record as it stands in the object, and the part of it that the model is sent."""

    original: bytes
    sent: bytes


def split(stream: BinaryIO, split_type: str, strategy: str, longest: int) -> Iterator[Record]:
    """Yield an object's records.

    Parameters
    ----------
    stream
        The object's content.
    split_type
        ``None`` (the whole object is one record), ``Line`` (records keep their line ends),
        ``RecordIO`` or ``TFRecord``.
    strategy
        The BatchStrategy. As on AWS, records of the binary formats keep their framing with
        ``MultiRecord``, so that payloads are files of the format, and are sent without it with
        ``SingleRecord``.
    longest
        Bytes that a record may have, with its framing; no more than that is held in memory.

    Raises
    ------
    BadInput
        When a record is longer, or is not of the format.
    """
    match split_type:
        case "None":
            pieces = _pieces(stream, lambda: stream.read(longest + 1), longest)
        case "Line":
            pieces = _pieces(stream, lambda: stream.readline(longest + 1), longest)
        case "RecordIO":
            pieces = _recordio(stream, longest)
        case "TFRecord":
            pieces = _tfrecord(stream, longest)
        case _:
            raise AssertionError(f"no such split type: {split_type!r}")
    if strategy == "SingleRecord":
        return pieces
    return (Record(record.original, record.original) for record in pieces)


def batch(records: Iterable[Record], strategy: str, longest: int) -> Iterator[list[Record]]:
    """Yield the records of each payload.

    Parameters
    ----------
    records
        What is sent of each has at most ``longest`` bytes.
    strategy
        ``MultiRecord`` (as many records in a payload as fit) or ``SingleRecord``.
    longest
        Bytes that a payload may have.
    """
    batched: list[Record] = []
    size = 0
    for record in records:
        if batched and (strategy == "SingleRecord" or size + len(record.sent) > longest):
            yield batched
            batched, size = [], 0
        batched.append(record)
        size += len(record.sent)
    if batched:
        yield batched


def _pieces(stream: BinaryIO, read: Callable[[], bytes], longest: int) -> Iterator[Record]:
    while piece := read():
        if len(piece) > longest:
            raise _too_long(stream.tell() - len(piece), longest)
        yield Record(piece, piece)


def _recordio(stream: BinaryIO, longest: int) -> Iterator[Record]:
    position = 0
    framed: list[bytes] = []
    contents: list[bytes] = []
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
        if flag not in ((_MIDDLE, _LAST) if framed else (_WHOLE, _FIRST)):
            raise BadInput(f"unexpected RecordIO continuation flag {flag} at byte {position:,}")
        length = lengths & ((1 << _RECORDIO_LENGTH_BITS) - 1)
        padded = length + -length % 4
        size += len(header) + padded
        if size > longest:
            raise _too_long(position + len(header) + padded - size, longest)
        payload = stream.read(padded)
        if len(payload) < padded:
            raise BadInput(f"the RecordIO record at byte {position:,} is cut short")
        position += len(header) + padded
        framed.append(header + payload)
        contents.append(payload[:length])
        if flag in (_WHOLE, _LAST):
            # A record is cut where the magic number stands in it, which is left out.
            yield Record(b"".join(framed), _RECORDIO_MAGIC.to_bytes(4, "little").join(contents))
            framed, contents, size = [], [], 0
    if framed:
        raise BadInput("the last RecordIO record is cut short")


def _tfrecord(stream: BinaryIO, longest: int) -> Iterator[Record]:
    position = 0
    while header := stream.read(_TFRECORD_HEADER.size):
        if len(header) < _TFRECORD_HEADER.size:
            raise BadInput(f"the TFRecord header at byte {position:,} is cut short")
        length, checksum = _TFRECORD_HEADER.unpack(header)
        # Tells another format apart; the content is the model's to check.
        if checksum != _masked_crc32c(header[:8]):
            raise BadInput(f"expected a TFRecord at byte {position:,}: its checksum does not fit")
        size = len(header) + length + _TFRECORD_FOOTER_BYTES
        if size > longest:
            raise _too_long(position, longest)
        rest = stream.read(length + _TFRECORD_FOOTER_BYTES)
        if len(rest) < length + _TFRECORD_FOOTER_BYTES:
            raise BadInput(f"the TFRecord at byte {position:,} is cut short")
        position += size
        yield Record(header + rest, rest[:length])


def _masked_crc32c(content: bytes) -> int:
    """Return the checksum of the TFRecord format: CRC-32C, rotated and shifted."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _too_long(position: int, longest: int) -> BadInput:
    return BadInput(f"the record at byte {position:,} is longer than {longest:,} bytes")
