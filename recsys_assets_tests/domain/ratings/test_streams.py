"""Files as blocks of whole lines: compression, damage, and what is held in memory."""

import bz2
import gzip
import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_assets.domain.ratings import streams
from recsys_assets.domain.ratings.streams import read_blocks

Compress = Callable[[bytes], bytes]
COMPRESSIONS: dict[str, Compress] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "Zstandard": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
    "bzip2": lambda data: bz2.compress(data, 1),
}
every_compression = pytest.mark.parametrize("name", COMPRESSIONS)
PROPERTY = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def some_lines(count: int = 8_000) -> list[bytes]:
    generator = random.Random(5)
    return [b"%d\t%x\n" % (number, generator.getrandbits(160)) for number in range(count)]


LINES = some_lines()


def read(folder: Path, data: bytes) -> tuple[bytes, list[tuple[int, str, bytes]]]:
    """Return the whole lines of a file and its faults; lines are numbered without a gap."""
    (folder / "file").write_bytes(data)
    lines, faults, next_line = [], [], 1
    for block in read_blocks(folder / "file"):
        assert block.first_line == next_line
        if block.fault:
            faults.append((block.first_line, str(block.fault), block.data))
            next_line += 1
        else:
            assert block.data.endswith(b"\n")
            lines.append(block.data)
            next_line += block.data.count(b"\n")
    return b"".join(lines), faults


@every_compression
def test_a_file_may_have_several_members_that_end_anywhere(tmp_path: Path, name: str) -> None:
    text = b"".join(LINES)
    cuts = [0, 1, 70, 71, 200_000, 200_001, len(text)]
    members = [COMPRESSIONS[name](text[a:b]) for a, b in itertools.pairwise(cuts)]
    assert read(tmp_path, b"".join(members)) == (text, [])


def test_zeros_may_stand_between_members_of_a_gzip_and_behind_them(tmp_path: Path) -> None:
    member = gzip.compress(b"a line\n")
    longer_than_what_is_read_at_once = bytes(streams._READ_BYTES + 7)
    data = member + bytes(3) + member + longer_than_what_is_read_at_once + member + bytes(512)
    assert read(tmp_path, data) == (b"a line\n" * 3, [])


@every_compression
def test_what_follows_the_last_member_and_is_none_is_reported(tmp_path: Path, name: str) -> None:
    data = COMPRESSIONS[name](b"a line\n") + b"rubbish that follows"
    assert read(tmp_path, data) == (b"a line\n", [(2, f"corrupt {name}", b"")])


# Bytes of text that a decompressor may hold back until it has more of the file.
HELD_BACK = {"gzip": 2, "Zstandard": 128 << 10, "bzip2": 100_000}


@every_compression
@PROPERTY
@given(share=st.floats(0.2, 0.999))
def test_a_file_that_is_cut_off_keeps_every_line_before_the_cut(
    tmp_path: Path, name: str, share: float
) -> None:
    text = b"".join(LINES)
    data = COMPRESSIONS[name](text[:150_000]) + COMPRESSIONS[name](text[150_000:])
    kept, [(line, fault, rest)] = read(tmp_path, data[: int(len(data) * share)])
    assert fault == f"truncated {name}"
    assert line == kept.count(b"\n") + 1
    assert text.startswith(kept + rest)
    assert b"\n" not in rest
    # The compressed text is random: what is there of it is about the share.
    assert len(kept + rest) > share * len(text) * 0.97 - HELD_BACK[name]


@every_compression
@PROPERTY
@given(share=st.floats(0.1, 0.9), flip=st.integers(1, 255))
def test_a_file_that_is_damaged_keeps_every_line_before_the_damage(
    tmp_path: Path, name: str, share: float, flip: int
) -> None:
    text = b"".join(LINES)
    first, second = text[:150_000], text[150_000:]
    member = bytearray(COMPRESSIONS[name](second))
    at = int(len(member) * share)
    member[at : at + 8] = bytes(byte ^ flip for byte in member[at : at + 8])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "_CHUNK_BYTES", 30_000)
        kept, faults = read(tmp_path, COMPRESSIONS[name](first) + bytes(member))
    # The compressed text is random: what is there of it is about the share.
    sound = len(first) + max(0, int(share * len(second) * 0.97) - HELD_BACK[name])
    assert (kept + b"".join(rest for *_, rest in faults))[:sound] == text[:sound]
    for line, fault, _ in faults:  # Zstandard without a checksum may not notice
        assert line == kept.count(b"\n") + 1
        assert fault.endswith(name)
    assert faults or name == "Zstandard"


@every_compression
def test_what_expands_without_measure_comes_in_pieces(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LONGEST_LINE", 3 << 20)
    (tmp_path / "file").write_bytes(COMPRESSIONS[name](bytes(50 << 20) + b"\nlast\n"))
    assert max(map(len, streams._chunks(tmp_path / "file"))) <= streams._CHUNK_BYTES
    too_long, last = read_blocks(tmp_path / "file")
    assert (too_long.first_line, too_long.fault) == (1, "line too long")
    assert len(too_long.data) <= streams.LONGEST_LINE + streams._CHUNK_BYTES
    assert (last.first_line, last.data) == (2, b"last\n")


def test_a_block_has_not_too_many_lines(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\n" * (5 * streams.BLOCK_LINES + 3))
    blocks = list(read_blocks(tmp_path / "file"))
    assert [len(block.data) for block in blocks] == [streams.BLOCK_LINES] * 5 + [3]
    assert [block.first_line - 1 for block in blocks] == [
        number * streams.BLOCK_LINES for number in range(6)
    ]


@PROPERTY
@given(
    pieces=st.lists(st.sampled_from([b"\n", b"a", b"bc\r", b"d" * 40]), max_size=200),
    sizes=st.tuples(st.integers(1, 50), st.integers(1, 120), st.integers(1, 9)),
)
def test_lines_come_whole_and_in_order_however_they_are_cut_into_blocks(
    tmp_path: Path, pieces: list[bytes], sizes: tuple[int, int, int]
) -> None:
    data = b"".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        for name, size in zip(("_CHUNK_BYTES", "BLOCK_BYTES", "BLOCK_LINES"), sizes, strict=True):
            patch.setattr(streams, name, size)
        text, faults = read(tmp_path, data)
    assert not faults
    assert text == (data + b"\n" if data and not data.endswith(b"\n") else data)
