"""Model archives: ``tar.gz`` files, packed reproducibly and unpacked without trusting them."""

import gzip
import io
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

MOST_BYTES = 20 << 30
"""Bytes that the files of a model may have together; a small archive can hold far more zeros."""

_MOST_MEMBERS = 100_000
_LONGEST_HEADER = 1 << 20
_LONGEST_PADDING = 1 << 20


def pack(folder: Path, archive: Path) -> None:
    """Write a folder's content to a ``tar.gz``: the same files give the same bytes."""
    # Level 1: model parameters hardly compress, and higher levels only take longer over it.
    with (
        gzip.GzipFile(archive, "wb", compresslevel=1, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            tar.add(path, arcname=name, recursive=False, filter=_without_origin)


def unpack(archive: Path, folder: Path, most_bytes: int = MOST_BYTES) -> None:
    """Unpack a ``tar.gz`` into a folder, refusing whatever would lead out of it or fill the disk.

    Only files and folders are taken, by relative names without ``..``; ``extractall`` with its
    ``data`` filter would do, but is not in the first releases of Python 3.11.

    Parameters
    ----------
    archive, folder
        What is unpacked, and where to.
    most_bytes
        What the files may have together.

    Raises
    ------
    ValueError
        When the file is no such archive, is cut short, is larger, or holds a member that is
        refused.
    """
    try:
        with (
            gzip.open(archive) as stream,
            tarfile.open(fileobj=_HeaderLimit(stream), mode="r:") as tar,
        ):
            for number, member in enumerate(tar):
                most_bytes -= member.size
                if most_bytes < 0 or number == _MOST_MEMBERS:
                    raise ValueError("its content is larger than a model may be")
                _extract(tar, member, folder)
            _read_padding(stream)
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"cannot unpack the archive: {error}") from error


def _read_padding(stream: gzip.GzipFile) -> None:
    """Read what follows the last member, for the checksum of the whole stands behind it."""
    length = 0
    while padding := stream.read(1 << 16):
        length += len(padding)
        if length > _LONGEST_PADDING:
            raise ValueError("data after its end")


class _HeaderLimit(io.RawIOBase):
    """A stream that is read in small parts only.

    ``tarfile`` reads content so, but a header at once, whatever length it states.
    """

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(member.name)
    content = tar.extractfile(member) if member.isreg() else None
    leads_out = name.is_absolute() or ".." in name.parts or "\0" in member.name
    if leads_out or (content is None and not member.isdir()):
        raise ValueError(f"expected files and folders within it, found {member.name!r}")
    target = folder / name
    if content is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file)


def _without_origin(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = 0
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
