"""Model archives that are not to be trusted."""

import gzip
import io
import struct
import tarfile
from pathlib import Path

import pytest

from recsys_assets.sagemaker_local.containers.archives import pack, unpack


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def archive_of(folder: Path, *members: tarfile.TarInfo) -> Path:
    path = folder / "model.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    return path


@pytest.mark.parametrize(
    "hostile",
    [
        member("../escaped", size=1),
        member("a/../../escaped", size=1),
        member("/tmp/escaped-by-absolute-name", size=1),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.LNKTYPE, "/etc/passwd"),
        member("link", tarfile.LNKTYPE, "model"),
        member("device", tarfile.CHRTYPE),
        member("device", tarfile.BLKTYPE),
        member("fifo", tarfile.FIFOTYPE),
        member("n" * 300, size=1),
    ],
    ids=lambda info: f"{info.name[:20]}-{info.type.decode()}-{info.linkname}",
)
def test_only_files_and_folders_within_are_unpacked(
    tmp_path: Path, hostile: tarfile.TarInfo
) -> None:
    archive = archive_of(tmp_path, member("model", size=1), hostile)
    with pytest.raises(ValueError, match="cannot unpack the archive"):
        unpack(archive, tmp_path / "in" / "folder")
    assert [path.name for path in (tmp_path / "in").rglob("*")] == ["folder", "model"]
    assert not list(tmp_path.glob("**/escaped*"))
    assert not Path("/tmp/escaped-by-absolute-name").exists()


def test_a_link_of_an_earlier_member_cannot_be_written_through(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    archive = archive_of(
        tmp_path,
        member("way", tarfile.SYMTYPE, str(tmp_path / "outside")),
        member("way/escaped", size=1),
    )
    with pytest.raises(ValueError, match="found 'way'"):
        unpack(archive, tmp_path / "in")
    assert not list((tmp_path / "outside").iterdir())


def test_an_archive_that_is_small_and_holds_much_is_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, member("a", size=600), member("b", size=600))
    with pytest.raises(ValueError, match="larger than a model may be"):
        unpack(archive, tmp_path / "in", most_bytes=1000)
    assert not (tmp_path / "in" / "b").exists()
    unpack(archive, tmp_path / "again", most_bytes=1200)
    assert (tmp_path / "again" / "b").stat().st_size == 600


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    header = member("x", tarfile.XHDTYPE, size=4 << 30).tobuf()
    path = tmp_path / "model.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(header)
        stream.write(bytes(1 << 20))
    with pytest.raises(ValueError, match="a header of 4,294,967,296 bytes"):
        unpack(path, tmp_path / "in")


def test_damage_is_told_wherever_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "model").write_bytes(b"".join(struct.pack("<Q", n * n) for n in range(50_000)))
    pack(folder, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for position in range(30, len(whole), len(whole) // 40):  # beyond the file name
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot unpack the archive"):
            unpack(tmp_path / "damaged", tmp_path / "in")
