import io
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.sagemaker_local.jobs.transform.splitting import BadInput, Record, batch, split

MAGIC = 0xCED7230A
LIMIT = 64


def recordio(content: bytes, flag: int = 0) -> bytes:
    header = struct.pack("<II", MAGIC, flag << 29 | len(content))
    return header + content + b"\0" * (-len(content) % 4)


def crc32c(content: bytes) -> int:
    """Return the CRC-32C by the polynomial's definition."""
    bits = int.from_bytes(content, "little") ^ 0xFFFFFFFF
    for _ in range(8 * len(content)):
        bits = bits >> 1 ^ (0x82F63B78 if bits & 1 else 0)
    return bits ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def tfrecord(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    checksums = [struct.pack("<I", masked(crc32c(part))) for part in (length, content)]
    return length + checksums[0] + content + checksums[1]


def records(
    content: bytes, split_type: str, strategy: str = "MultiRecord", longest: int = LIMIT
) -> list[Record]:
    return list(split(io.BytesIO(content), split_type, strategy, longest))


def sent(
    content: bytes, split_type: str, strategy: str = "MultiRecord", longest: int = LIMIT
) -> list[bytes]:
    return [record.sent for record in records(content, split_type, strategy, longest)]


lines = st.lists(st.binary(max_size=LIMIT - 1).map(lambda line: line.replace(b"\n", b"") + b"\n"))
contents = st.lists(st.binary(max_size=LIMIT - 8 - 3 - 8))


@given(lines, st.booleans())
def test_lines_are_records_with_or_without_a_last_line_end(
    expected: list[bytes], cut: bool
) -> None:
    if cut and expected and expected[-1] != b"\n":
        expected = [*expected[:-1], expected[-1][:-1]]
    assert sent(b"".join(expected), "Line") == expected


@pytest.mark.parametrize(("split_type", "framed"), [("RecordIO", recordio), ("TFRecord", tfrecord)])
@given(expected=contents)
def test_binary_records_keep_their_framing_but_where_each_is_sent_alone(
    split_type: str, framed: type[bytes], expected: list[bytes]
) -> None:
    frames = [framed(content) for content in expected]
    file = b"".join(frames)
    assert records(file, split_type) == [Record(frame, frame) for frame in frames]
    assert records(file, split_type, "SingleRecord") == list(map(Record, frames, expected))


def test_a_known_tfrecord_is_read() -> None:
    assert crc32c(b"123456789") == 0xE3069283, "the check value of CRC-32C"
    empty = bytes.fromhex("000000000000000029039807d8ea82a2")  # as TensorFlow writes it
    assert records(empty, "TFRecord", "SingleRecord") == [Record(empty, b"")]
    assert tfrecord(b"") == empty


def test_the_parts_of_one_recordio_record_stay_together() -> None:
    parted = recordio(b"abc", 1) + recordio(b"", 2) + recordio(b"defg", 3)
    content = recordio(b"before") + parted + recordio(b"after")
    assert sent(content, "RecordIO") == [recordio(b"before"), parted, recordio(b"after")]
    magic = struct.pack("<I", MAGIC)
    whole = b"abc" + magic + b"" + magic + b"defg"
    assert sent(content, "RecordIO", "SingleRecord") == [b"before", whole, b"after"]


def test_a_whole_object_is_one_record_and_an_empty_one_none() -> None:
    assert sent(b"a\nb", "None") == [b"a\nb"]
    assert all(sent(b"", kind) == [] for kind in ("None", "Line", "RecordIO", "TFRecord"))


@given(lines)
def test_payloads_together_are_the_object_and_each_is_as_full_as_can_be(
    content: list[bytes],
) -> None:
    batches = batch(records(b"".join(content), "Line"), "MultiRecord", LIMIT)
    payloads = [b"".join(record.sent for record in payload) for payload in batches]
    assert b"".join(payloads) == b"".join(content)
    assert all(len(payload) <= LIMIT for payload in payloads)
    for payload, following in itertools.pairwise(payloads):
        assert len(payload) + len(following.split(b"\n")[0]) + 1 > LIMIT


def test_the_size_of_a_payload_is_that_of_what_is_sent() -> None:
    shortened = [Record(b"x" * LIMIT, b"x" * 20)] * 7
    assert [len(payload) for payload in batch(shortened, "MultiRecord", LIMIT)] == [3, 3, 1]


@given(lines)
def test_single_record_payloads_are_the_records(content: list[bytes]) -> None:
    each = records(b"".join(content), "Line", "SingleRecord")
    assert list(batch(iter(each), "SingleRecord", LIMIT)) == [[record] for record in each]


@pytest.mark.parametrize(
    ("content", "split_type", "message"),
    [
        (b"x" * 65, "None", "the record at byte 0 is longer than 64 bytes"),
        (b"ab\n" + b"x" * 64 + b"\n", "Line", "the record at byte 3 is longer than 64 bytes"),
        (recordio(b"ab") + recordio(b"x" * 57), "RecordIO", "the record at byte 12 is longer"),
        (
            recordio(b"x" * 32, 1) + recordio(b"x" * 32, 3),
            "RecordIO",
            "the record at byte 0 is longer",
        ),
        (recordio(b"ab") + b"1,2,3,4,5", "RecordIO", "expected RecordIO's 0xced7230a at byte 12, "),
        (recordio(b"abcd")[:-1], "RecordIO", "record at byte 0 is cut short"),
        (recordio(b"abcd") + b"\x0a", "RecordIO", "header at byte 12 is cut short"),
        (recordio(b"abcd", 1), "RecordIO", "the last RecordIO record is cut short"),
        (recordio(b"abcd", 3), "RecordIO", "unexpected RecordIO continuation flag 3 at byte 0"),
        (recordio(b"a", 1) + recordio(b"b"), "RecordIO", "continuation flag 0 at byte 12"),
        (tfrecord(b"ab") + tfrecord(b"x" * 49), "TFRecord", "the record at byte 18 is longer"),
        (tfrecord(b"ab") + b"1,2,3,4,5,6,7", "TFRecord", "expected a TFRecord at byte 18: its"),
        (tfrecord(b"abcd")[:-1], "TFRecord", "TFRecord at byte 0 is cut short"),
        (tfrecord(b"abcd") + b"\x0a", "TFRecord", "header at byte 20 is cut short"),
    ],
)
def test_what_cannot_be_cut_up_is_told_with_its_place(
    content: bytes, split_type: str, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        records(content, split_type)
