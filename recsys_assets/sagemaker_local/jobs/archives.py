"""Model archives: ``tar.gz`` files, packed reproducibly and unpacked without trusting them."""

import gzip
import shutil
import tarfile
from pathlib import Path, PurePosixPath


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


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a ``tar.gz`` into a folder, refusing whatever would lead out of it.

    Only files and folders are taken, by relative names without ``..``; ``extractall`` with its
    ``data`` filter would do, but is not in the first releases of Python 3.11.

    Raises
    ------
    ValueError
        When the file is no such archive, is cut short, or holds a member that is refused.
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                _extract(tar, member, folder)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"cannot unpack the model archive: {error}") from error


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(member.name)
    content = tar.extractfile(member) if member.isreg() else None
    if name.is_absolute() or ".." in name.parts or (content is None and not member.isdir()):
        raise ValueError(
            f"cannot unpack the model archive: expected files and folders within it, found "
            f"{member.name!r}"
        )
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
