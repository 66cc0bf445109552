"""Landed files as blocks of whole lines.

What belongs here: compression, line ends, line numbers, and what to do where a file is cut off or
a line does not end. What does not: fields and their meaning. Memory is bounded by the block and
the longest line, whatever the file's size.
"""

import bz2
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from isal import igzip_lib

from recsys_assets.domain.ratings.rejects import RatingsError, Reason

BLOCK_BYTES = 4 << 20
BLOCK_LINES = 1 << 15
LONGEST_LINE = 8 << 20  # bytes; a longer one is a reject, not a reason to hold a file in memory

_CHUNK_BYTES = 1 << 20  # of what a block is made of
_READ_BYTES = 1 << 20  # of a compressed file
_UNKNOWN_COMPRESSIONS = {
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "LZ4",
    b"PK\x03\x04": "zip",
}
_PARQUET_MAGIC = b"PAR1"
_LONGEST_MAGIC = 6
_UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Block:
    r"""Some lines of a file.

    Attributes
    ----------
    data : bytes
        Whole lines, each with its ``\n``; or, where there is a fault, what is there of one line.
    first_line : int
        Number of the first one, from 1.
    fault : Reason or None
        Why the line cannot be read: it is too long, or the file is cut off or damaged there.
    """

    data: bytes
    first_line: int
    fault: Reason | None = None


class _Decompressor(Protocol):
    """What decompresses one member, frame or stream, as ``bz2.BZ2Decompressor`` does."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


@dataclass(frozen=True)
class _Compression:
    """A compression that is read, and how what is wrong with such a file is called.

    Attributes
    ----------
    magic : bytes
        What files begin with.
    decompressor : function
        Makes a decompressor of one member.
    truncated, corrupt : Reason
        Of a file that ends within a member, and of one that is not what it should be.
    padding : bytes
        What may stand between members and at the end.
    """

    magic: bytes
    decompressor: Callable[[], _Decompressor]
    truncated: Reason
    corrupt: Reason
    padding: bytes = b""


def _gzip_decompressor() -> _Decompressor:
    decompressor: _Decompressor = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
    return decompressor


def _zstandard_decompressor() -> _Decompressor:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdDecompressor()


_COMPRESSIONS = (
    _Compression(
        b"\x1f\x8b", _gzip_decompressor, Reason.TRUNCATED_GZIP, Reason.CORRUPT_GZIP, padding=b"\0"
    ),
    _Compression(
        b"\x28\xb5\x2f\xfd",
        _zstandard_decompressor,
        Reason.TRUNCATED_ZSTANDARD,
        Reason.CORRUPT_ZSTANDARD,
    ),
    _Compression(b"BZh", bz2.BZ2Decompressor, Reason.TRUNCATED_BZIP2, Reason.CORRUPT_BZIP2),
)


class _CorruptError(Exception):
    """A decompressor cannot make anything of what it is given."""


class _DamagedError(Exception):
    """A compressed stream ends before its time."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason


def is_parquet(path: Path) -> bool:
    """Whether the file begins as Parquet does."""
    with path.open("rb") as file:
        return file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC


def read_blocks(path: Path) -> Iterator[Block]:
    r"""Yield the lines of a file, plain or compressed with gzip, Zstandard or bzip2.

    Only ``\n`` ends a line. A byte order mark is dropped; a last line without its end gets one.
    Everything before the place where a compressed file is cut off or damaged is there; what follows
    the last line end before it comes as a faulty block, empty if the damage is at a line's start.

    Raises
    ------
    RatingsError
        If the file is compressed in another way.
    """
    line = 1
    for data, lines, fault in _whole_lines(path):
        if line == 1:
            data = data.removeprefix(_UTF8_BOM)
        for part in [data] if lines <= BLOCK_LINES else _parts(data):
            yield Block(part, line, fault)
            line += min(lines, BLOCK_LINES)


def _whole_lines(path: Path) -> Iterator[tuple[bytes, int, Reason | None]]:
    """Yield lines that are whole and their number, and apart from them what is at fault."""
    held: list[bytes] = []
    size = lines = unended = 0  # of what is held: bytes, line ends, bytes behind the last of these
    skipping = False
    damage: Reason | None = None
    try:
        for chunk in _chunks(path):
            if skipping:
                _, line_end, chunk = chunk.partition(b"\n")
                skipping = not line_end
            # Several times as fast as bytes.count.
            lines += int(np.count_nonzero(np.frombuffer(chunk, np.uint8) == ord("\n")))
            end = chunk.rfind(b"\n") + 1
            unended = len(chunk) - end + (0 if end else unended)
            if end and size + end >= BLOCK_BYTES:
                yield b"".join((*held, memoryview(chunk)[:end])), lines, None
                held, size, lines = [chunk[end:]], unended, 0
            else:
                held.append(chunk)
                size += len(chunk)
            if unended > LONGEST_LINE:
                data = b"".join(held)
                if lines:
                    yield data[: size - unended], lines, None
                yield data[size - unended :], 1, Reason.LINE_TOO_LONG
                held, size, lines, unended, skipping = [], 0, 0, 0, True
    except _DamagedError as error:
        damage = error.reason
    data = b"".join(held)
    if unended and not damage:
        data, size, lines, unended = data + b"\n", size + 1, lines + 1, 0
    if lines:
        yield data[: size - unended], lines, None
    if damage:
        yield data[size - unended :], 1, damage


def _parts(data: bytes) -> Iterator[bytes]:
    """Yield lines, not too many at once."""
    stops = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
    start = 0
    for stop in [*stops[BLOCK_LINES - 1 : -1 : BLOCK_LINES].tolist(), len(data)]:
        yield data[start:stop]
        start = stop


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        magic = file.read(_LONGEST_MAGIC)
        file.seek(0)
        for unknown, name in _UNKNOWN_COMPRESSIONS.items():
            if magic.startswith(unknown):
                raise RatingsError(
                    f"it is compressed with {name}; expected gzip, Zstandard, bzip2 or no "
                    "compression"
                )
        for compression in _COMPRESSIONS:
            if magic.startswith(compression.magic):
                yield from _decompressed(file, compression)
                return
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _decompressed(file: BinaryIO, compression: _Compression) -> Iterator[bytes]:
    """Yield what a file of one or more members holds, up to where it is damaged."""
    member: _Decompressor | None = None
    member_start = given = 0  # where the member begins in the file; how much has come of it
    while data := file.read(_READ_BYTES):
        read_to = file.tell()
        while data:
            if member is None:
                data = data.lstrip(compression.padding) if compression.padding else data
                if not data:
                    break
                member, member_start, given = compression.decompressor(), read_to - len(data), 0
            try:
                for out in _fed(member, data):
                    given += len(out)
                    yield out
            except _CorruptError as error:
                sound_to = read_to - len(data)
                yield _up_to_the_damage(file, compression, member_start, sound_to, given)
                raise _DamagedError(compression.corrupt) from error
            data = b""
            if member.eof:
                data, member = member.unused_data, None
    if member is not None:
        raise _DamagedError(compression.truncated)


def _fed(member: _Decompressor, data: bytes) -> Iterator[bytes]:
    """Yield what comes of some more of a member, block by block."""
    while data or not (member.needs_input or member.eof):
        try:
            out = member.decompress(data, _CHUNK_BYTES)
        except Exception as error:  # each library has one of its own
            raise _CorruptError from error
        if out:
            yield out
        data = b""


def _up_to_the_damage(
    file: BinaryIO, compression: _Compression, member_start: int, sound_to: int, given: int
) -> bytes:
    """Return what a damaged member holds beyond what has been given of it.

    A call that fails gives nothing of what it had decompressed, which is less than it may give. So
    the member is decompressed again, byte by byte from the place on behind which the damage is.
    """
    member = compression.decompressor()
    file.seek(member_start)
    known, rest = given, bytearray()
    try:
        while data := file.read(max(1, min(_READ_BYTES, sound_to - file.tell()))):
            for out in _fed(member, data):
                rest += out[known:]
                known = max(0, known - len(out))
    except _CorruptError:
        return bytes(rest)
    raise AssertionError("a damaged file is sound when it is read again")
