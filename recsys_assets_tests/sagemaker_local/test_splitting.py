import io
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.sagemaker_local.jobs.splitting import BadInput, batch, split

MAGIC = 0xCED7230A
LIMIT = 64


def framed(content: bytes, flag: int = 0) -> bytes:
    header = struct.pack("<II", MAGIC, flag << 29 | len(content))
    return header + content + b"\0" * (-len(content) % 4)


def records(content: bytes, split_type: str, longest: int = LIMIT) -> list[bytes]:
    return list(split(io.BytesIO(content), split_type, longest))


lines = st.lists(st.binary(max_size=LIMIT - 1).map(lambda line: line.replace(b"\n", b"") + b"\n"))
frames = st.lists(st.binary(max_size=LIMIT - 8 - 3).map(framed))


@given(lines, st.booleans())
def test_lines_are_records_with_or_without_a_last_line_end(
    expected: list[bytes], cut: bool
) -> None:
    if cut and expected and expected[-1] != b"\n":
        expected = [*expected[:-1], expected[-1][:-1]]
    assert records(b"".join(expected), "Line") == expected


@given(frames)
def test_recordio_records_keep_their_framing(expected: list[bytes]) -> None:
    assert records(b"".join(expected), "RecordIO") == expected


def test_the_parts_of_one_recordio_record_stay_together() -> None:
    parted = framed(b"abc", 1) + framed(b"", 2) + framed(b"defg", 3)
    content = framed(b"before") + parted + framed(b"after")
    assert records(content, "RecordIO") == [framed(b"before"), parted, framed(b"after")]


def test_a_whole_object_is_one_record_and_an_empty_one_none() -> None:
    assert records(b"a\nb", "None") == [b"a\nb"]
    assert records(b"", "None") == records(b"", "Line") == records(b"", "RecordIO") == []


@given(lines)
def test_payloads_together_are_the_object_and_each_is_as_full_as_can_be(
    content: list[bytes],
) -> None:
    payloads = list(batch(iter(content), "MultiRecord", LIMIT))
    assert b"".join(payloads) == b"".join(content)
    assert all(len(payload) <= LIMIT for payload in payloads)
    for payload, following in itertools.pairwise(payloads):
        assert len(payload) + len(following.split(b"\n")[0]) + 1 > LIMIT


@given(lines)
def test_single_record_payloads_are_the_records(content: list[bytes]) -> None:
    assert list(batch(iter(content), "SingleRecord", LIMIT)) == content


@pytest.mark.parametrize(
    ("content", "split_type", "message"),
    [
        (b"x" * 65, "None", "the record at byte 0 is longer than 64 bytes"),
        (b"ab\n" + b"x" * 64 + b"\n", "Line", "the record at byte 3 is longer than 64 bytes"),
        (framed(b"ab") + framed(b"x" * 57), "RecordIO", "the record at byte 12 is longer"),
        (framed(b"x" * 32, 1) + framed(b"x" * 32, 3), "RecordIO", "the record at byte 0 is longer"),
        (framed(b"ab") + b"1,2,3,4,5", "RecordIO", "expected RecordIO's 0xced7230a at byte 12, "),
        (framed(b"abcd")[:-1], "RecordIO", "record at byte 0 is cut short"),
        (framed(b"abcd") + b"\x0a", "RecordIO", "header at byte 12 is cut short"),
        (framed(b"abcd", 1), "RecordIO", "the last RecordIO record is cut short"),
        (framed(b"abcd", 3), "RecordIO", "unexpected RecordIO continuation flag 3 at byte 0"),
        (framed(b"a", 1) + framed(b"b"), "RecordIO", "continuation flag 0 at byte 12"),
    ],
)
def test_what_cannot_be_cut_up_is_told_with_its_place(
    content: bytes, split_type: str, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        records(content, split_type)
