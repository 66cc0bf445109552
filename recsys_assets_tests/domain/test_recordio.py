"""RecordIO-protobuf: golden bytes of the SageMaker SDK, round trips and corrupt input."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_assets.domain import recordio
from recsys_assets.domain.recordio import (
    MAGIC,
    RecordIOError,
    decode_recordio,
    encode_recordio,
    iterate_recordio,
    read_recordio,
    write_recordio,
)
from recsys_assets_tests.domain.codecs import each_codec  # noqa: F401 - a fixture for all

# Made with write_spmatrix_to_sparse_tensor of sagemaker 2.257.7; see recordio_sdk.
TWO_HOT = csr_matrix(np.array([[1, 0, 0, 1, 0], [0, 1, 0, 0, 1]], dtype=np.float32))
TWO_HOT_LABELS = np.array([4.0, 3.5], dtype=np.float32)
TWO_HOT_BYTES = bytes.fromhex(
    "0a23d7ce330000000a1d0a0676616c756573121312110a080000803f0000803f120200031a0105"
    "12120a0676616c756573120812060a0400008040000a23d7ce330000000a1d0a0676616c756573"
    "121312110a080000803f0000803f120201041a010512120a0676616c756573120812060a040000604000"
)


@st.composite
def matrices(draw: st.DrawFn) -> tuple[csr_matrix, np.ndarray | None]:
    columns = draw(st.sampled_from([1, 5, 127, 128, 129, 16_383, 16_384, 2_200_000]))
    number = st.floats(width=32, allow_nan=False, allow_infinity=False)
    rows = draw(
        st.lists(
            st.dictionaries(st.integers(0, columns - 1), number, max_size=40),
            min_size=1,
            max_size=8,
        )
    )
    keys = [sorted(row) for row in rows]
    data = np.array([row[k] for row, ks in zip(rows, keys, strict=True) for k in ks], np.float32)
    indices = np.array([k for ks in keys for k in ks], dtype=np.int32)
    indptr = np.cumsum([0] + [len(ks) for ks in keys])
    matrix = csr_matrix((data, indices, indptr), shape=(len(rows), columns))
    labels = None
    if draw(st.booleans()):
        labels = np.array(
            draw(st.lists(number, min_size=len(rows), max_size=len(rows))), np.float32
        )
    return matrix, labels


def frame(payload: bytes, flag: int = 0) -> bytes:
    header = struct.pack("<II", 0xCED7230A, flag << 29 | len(payload))
    return header + payload + bytes(-len(payload) % 4)


def test_the_bytes_equal_those_of_the_sagemaker_sdk() -> None:
    assert encode_recordio(TWO_HOT, TWO_HOT_LABELS) == TWO_HOT_BYTES


def test_a_record_without_labels_ends_after_its_features() -> None:
    encoded = encode_recordio(TWO_HOT)
    assert struct.unpack_from("<II", encoded) == (0xCED7230A, 31)
    assert encoded[8:39] == TWO_HOT_BYTES[8:39]
    assert encoded[39] == 0
    assert len(encoded) == 80


@given(matrices())
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_read_back(case: tuple[csr_matrix, np.ndarray | None]) -> None:
    matrix, labels = case
    decoded, decoded_labels = decode_recordio(encode_recordio(matrix, labels))
    assert decoded.shape == matrix.shape
    np.testing.assert_array_equal(decoded.indptr, matrix.indptr)
    np.testing.assert_array_equal(decoded.indices, matrix.indices)
    np.testing.assert_array_equal(decoded.data, matrix.data)
    if labels is None:
        assert decoded_labels is None
    else:
        np.testing.assert_array_equal(decoded_labels, labels)


@given(matrices())
@settings(deadline=None, max_examples=30)
def test_the_compiled_code_reads_whatever_is_written(
    case: tuple[csr_matrix, np.ndarray | None],
) -> None:
    assert recordio._decode_compiled(encode_recordio(*case), is_whole=True) is not None


def test_no_bytes_are_no_records() -> None:
    matrix, labels = decode_recordio(b"")
    assert matrix.shape == (0, 0)
    assert labels is None


@given(matrices())
@settings(deadline=None, max_examples=30)
def test_every_record_is_what_protobuf_itself_would_write(
    case: tuple[csr_matrix, np.ndarray | None],
) -> None:
    matrix, labels = case
    record_type = _record_message()
    encoded = encode_recordio(matrix, labels)
    expected = b""
    for row in range(matrix.shape[0]):
        record = record_type()
        begin, end = matrix.indptr[row], matrix.indptr[row + 1]
        tensor = record.features["values"].float32_tensor
        tensor.values.extend(matrix.data[begin:end].tolist())
        tensor.keys.extend(matrix.indices[begin:end].tolist())
        tensor.shape.append(matrix.shape[1])
        if labels is not None:
            record.label["values"].float32_tensor.values.append(float(labels[row]))
        expected += frame(record.SerializeToString())
    assert encoded == expected


def test_blocks_do_not_show_in_the_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = encode_recordio(TWO_HOT, TWO_HOT_LABELS)
    monkeypatch.setattr("recsys_assets.domain.recordio._ROWS_PER_BLOCK", 1)
    write_recordio(tmp_path / "part", TWO_HOT, TWO_HOT_LABELS)
    assert (tmp_path / "part").read_bytes() == whole


def test_several_files_are_read_as_one_matrix(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_recordio(tmp_path / name, TWO_HOT, TWO_HOT_LABELS)
    matrix, labels = read_recordio([tmp_path / "a", tmp_path / "b"])
    np.testing.assert_array_equal(matrix.toarray(), np.vstack([TWO_HOT.toarray()] * 2))
    assert labels is not None
    assert labels.tolist() == [4.0, 3.5, 4.0, 3.5]


def test_dense_records_have_no_keys() -> None:
    dense = _record_message()()
    dense.features["values"].float32_tensor.values.extend([1.0, 2.0])
    dense.features["values"].float32_tensor.shape.append(2)
    matrix, labels = decode_recordio(frame(dense.SerializeToString()) * 2)
    assert matrix.toarray().tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert labels is None


def test_dense_records_may_leave_their_width_to_their_values() -> None:
    dense = _record_message()()
    dense.features["values"].float32_tensor.values.extend([1.0, 0.0, 3.0])
    three = frame(dense.SerializeToString())
    matrix, _ = decode_recordio(three * 2)
    assert matrix.toarray().tolist() == [[1.0, 0.0, 3.0]] * 2
    dense.features["values"].float32_tensor.values.append(4.0)
    with pytest.raises(RecordIOError, match=r"one width, found \[3, 4\]"):
        decode_recordio(three + frame(dense.SerializeToString()))


def test_records_split_in_parts_are_joined_with_the_magic_word_between() -> None:
    payload = TWO_HOT_BYTES[8 : 8 + 51]
    magic = TWO_HOT_BYTES[:4]
    # A writer splits where the payload itself holds the magic word; here the uid field does.
    with_magic = payload + b"\x1a\x04" + magic
    head, tail = with_magic.split(magic)
    matrix, _ = decode_recordio(frame(head, 1) + frame(tail, 3) + TWO_HOT_BYTES)
    assert matrix.toarray().tolist() == [[1, 0, 0, 1, 0], [1, 0, 0, 1, 0], [0, 1, 0, 0, 1]]


@pytest.mark.parametrize("cut", range(1, 60))
def test_truncated_bytes_are_an_error_that_names_the_offset(cut: int) -> None:
    with pytest.raises(RecordIOError, match=r"byte \d+"):
        decode_recordio(TWO_HOT_BYTES[: 60 + cut][:-1] if cut > 1 else TWO_HOT_BYTES[:7])


@given(st.integers(0, len(TWO_HOT_BYTES) - 1), st.integers(1, 255))
@settings(deadline=None, max_examples=300)
def test_corrupt_bytes_never_raise_anything_but_a_recordio_error(at: int, change: int) -> None:
    corrupt = bytearray(TWO_HOT_BYTES)
    corrupt[at] ^= change
    try:
        decode_recordio(bytes(corrupt))
    except RecordIOError as error:
        assert "byte" in str(error) or "columns" in str(error)


def test_float64_is_refused_because_factorization_machines_reads_float32_only() -> None:
    with pytest.raises(ValueError, match="expected a float32 matrix, got float64"):
        encode_recordio(TWO_HOT.astype(np.float64))
    record = _record_message()()
    record.features["values"].float64_tensor.values.append(1.0)
    with pytest.raises(RecordIOError, match="expected a float32 tensor, found the value field 3"):
        decode_recordio(frame(record.SerializeToString()))


def test_a_label_for_each_row_is_required() -> None:
    with pytest.raises(ValueError, match="expected 2 float32 labels"):
        encode_recordio(TWO_HOT, TWO_HOT_LABELS[:1])


def _record_message() -> type:
    """Build ``aialgs.data.Record`` with protobuf itself: an implementation that is not ours."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(
        name="record.proto", package="aialgs.data", syntax="proto2"
    )
    types = descriptor_pb2.FieldDescriptorProto
    tensor_fields = {"Float32Tensor": types.TYPE_FLOAT, "Float64Tensor": types.TYPE_DOUBLE}
    for name, kind in tensor_fields.items():
        tensor = file.message_type.add(name=name)
        for number, (field, field_type) in enumerate(
            [("values", kind), ("keys", types.TYPE_UINT64), ("shape", types.TYPE_UINT64)], start=1
        ):
            added = tensor.field.add(
                name=field, number=number, type=field_type, label=types.LABEL_REPEATED
            )
            added.options.packed = True
    value = file.message_type.add(name="Value")
    for name, number in (("float32_tensor", 2), ("float64_tensor", 3)):
        value.field.add(
            name=name,
            number=number,
            type=types.TYPE_MESSAGE,
            label=types.LABEL_OPTIONAL,
            type_name=f".aialgs.data.{'Float32Tensor' if number == 2 else 'Float64Tensor'}",
        )
    record = file.message_type.add(name="Record")
    for number, field in enumerate(("features", "label"), start=1):
        entry = record.nested_type.add(name=f"{field.capitalize()}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
        entry.field.add(
            name="value",
            number=2,
            type=types.TYPE_MESSAGE,
            label=types.LABEL_OPTIONAL,
            type_name=".aialgs.data.Value",
        )
        record.field.add(
            name=field,
            number=number,
            type=types.TYPE_MESSAGE,
            label=types.LABEL_REPEATED,
            type_name=f".aialgs.data.Record.{field.capitalize()}Entry",
        )
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("aialgs.data.Record"))


def test_a_file_read_in_chunks_is_the_file_wherever_they_end(tmp_path: Path) -> None:
    magic = np.frombuffer(MAGIC.to_bytes(4, "little"), dtype="<f4")[0]
    holding_magic = csr_matrix(np.array([[0, magic, 1, magic, 0]], dtype=np.float32))
    payload = encode_recordio(holding_magic, TWO_HOT_LABELS[:1])[8:]
    first, second, third = payload.split(magic.tobytes())
    in_parts = frame(first, 1) + frame(second, 2) + frame(third, 3)
    path = tmp_path / "a"
    path.write_bytes(TWO_HOT_BYTES + in_parts + TWO_HOT_BYTES)
    whole, labels = decode_recordio(path.read_bytes())
    for chunk_bytes in range(1, path.stat().st_size + 2):
        chunks = list(iterate_recordio([path, path], chunk_bytes))
        assert all(matrix.shape[0] for matrix, _ in chunks)
        rows = np.concatenate([matrix.toarray() for matrix, _ in chunks])
        np.testing.assert_array_equal(rows, np.tile(whole.toarray(), (2, 1)))
        found = [label for _, label in chunks if label is not None]
        np.testing.assert_array_equal(np.concatenate(found), np.tile(labels, 2))
        if chunk_bytes < 60:
            assert len(chunks) == 10


@pytest.mark.parametrize("chunk_bytes", [1, 30, 200])
def test_what_is_wrong_in_a_later_chunk_is_an_error_that_says_where(
    tmp_path: Path, chunk_bytes: int
) -> None:
    for broken, message in (
        (TWO_HOT_BYTES[:-9], r"cut: .*byte \d+: a record of 51 bytes is cut after 43"),
        (TWO_HOT_BYTES[:67], r"cut: .*byte \d+: truncated frame header"),
        (TWO_HOT_BYTES + b"no frame", r"cut: .*byte \d+: expected the RecordIO magic"),
        (TWO_HOT_BYTES + frame(b"abcd", 1), r"cut: .*byte \d+: the last record lacks its final"),
    ):
        path = tmp_path / "cut"
        path.write_bytes(broken)
        with pytest.raises(RecordIOError, match=message):
            list(iterate_recordio([path], chunk_bytes))
