"""Landed files as blocks of whole lines.

What belongs here: compression, line ends, line numbers, and what to do where a file is cut off or
a line does not end. What does not: fields and their meaning. Memory is bounded by the block and
the longest line, whatever the file's size.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from recsys_assets.domain.ratings.rejects import RatingsError, Reason

BLOCK_BYTES = 2 << 20
LONGEST_LINE = 16 << 20  # bytes; a longer one is a reject, not a reason to hold a file in memory

_GZIP_READ_BYTES = 1 << 19
_GZIP_MAGIC = b"\x1f\x8b"
_OTHER_MAGIC = {
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "LZ4",
    b"PK\x03\x04": "zip",
}
_PARQUET_MAGIC = b"PAR1"
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


class _DamagedError(Exception):
    """A compressed stream ends before its time."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason


def is_parquet(path: Path) -> bool:
    """Whether the file begins as Parquet does."""
    with path.open("rb") as file:
        return file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC


def read_blocks(path: Path) -> Iterator[Block]:
    r"""Yield the lines of a plain or gzip file, block by block.

    Only ``\n`` ends a line. A byte order mark is dropped; a last line without its end gets one.
    Everything before the place where a gzip stream is cut off or damaged is there; what follows
    the last line end before it comes as a faulty block, empty if the damage is at a line's start.

    Raises
    ------
    RatingsError
        If the file is compressed in another way than gzip.
    """
    line, tail, skipping = 1, b"", False
    damage: Reason | None = None
    try:
        for chunk in _chunks(path):
            if skipping:
                _, newline, chunk = chunk.partition(b"\n")
                if not newline:
                    continue
                line, skipping = line + 1, False
            head, newline, rest = chunk.rpartition(b"\n")
            if newline:
                data = tail + head + newline
                yield _block(data, line)
                line, tail = line + data.count(b"\n"), rest
            else:
                tail += rest
            if len(tail) > LONGEST_LINE:
                yield _block(tail, line, Reason.LINE_TOO_LONG)
                tail, skipping = b"", True
    except _DamagedError as error:
        damage = error.reason
    if damage:
        yield _block(tail, line, damage)
    elif tail:
        yield _block(tail + b"\n", line)


def _block(data: bytes, line: int, fault: Reason | None = None) -> Block:
    return Block(data.removeprefix(_UTF8_BOM) if line == 1 else data, line, fault)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        magic = file.read(max(map(len, _OTHER_MAGIC)))
        file.seek(0)
        for other, name in _OTHER_MAGIC.items():
            if magic.startswith(other):
                raise RatingsError(f"it is compressed with {name}; expected gzip or no compression")
        if magic.startswith(_GZIP_MAGIC):
            yield from _gunzip(file)
        else:
            while chunk := file.read(BLOCK_BYTES):
                yield chunk


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    """Yield what a gzip file of one or more members holds, up to where it is damaged."""
    gzip_bits = 16 + zlib.MAX_WBITS
    member = zlib.decompressobj(gzip_bits)
    while data := file.read(_GZIP_READ_BYTES):
        while data:
            before = member.copy()
            try:
                out = member.decompress(data, BLOCK_BYTES)
            except zlib.error:
                yield _up_to_the_damage(before, data)
                raise _DamagedError(Reason.CORRUPT_GZIP) from None
            if out:
                yield out
            if member.eof:
                data = member.unused_data.lstrip(b"\0")  # padding is allowed between members
                if data:
                    member = zlib.decompressobj(gzip_bits)
            else:
                data = member.unconsumed_tail
    if not member.eof:
        raise _DamagedError(Reason.TRUNCATED_GZIP)


def _up_to_the_damage(member: "zlib._Decompress", data: bytes) -> bytes:
    """Decompress byte by byte: a call that fails gives nothing of what it had decompressed."""
    out = bytearray()
    for index in range(len(data)):
        try:
            out += member.decompress(data[index : index + 1])
        except zlib.error:
            break
    return bytes(out)
