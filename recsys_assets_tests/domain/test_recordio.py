"""RecordIO-protobuf: golden bytes of the SageMaker SDK, round trips and corrupt input."""

import struct
import tracemalloc
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_assets.domain import recordio, recordio_kernels
from recsys_assets.domain.recordio import (
    MAGIC,
    RecordIOError,
    decode_recordio,
    encode_recordio,
    iterate_recordio,
    read_recordio,
    write_recordio,
)
from recsys_assets_tests.domain.codecs import each_codec, matrices  # noqa: F401 - a fixture for all

# Made with write_spmatrix_to_sparse_tensor of sagemaker 2.257.7; see recordio_sdk.
TWO_HOT = csr_matrix(np.array([[1, 0, 0, 1, 0], [0, 1, 0, 0, 1]], dtype=np.float32))
TWO_HOT_LABELS = np.array([4.0, 3.5], dtype=np.float32)
TWO_HOT_BYTES = bytes.fromhex(
    "0a23d7ce330000000a1d0a0676616c756573121312110a080000803f0000803f120200031a0105"
    "12120a0676616c756573120812060a0400008040000a23d7ce330000000a1d0a0676616c756573"
    "121312110a080000803f0000803f120201041a010512120a0676616c756573120812060a040000604000"
)


def frame(payload: bytes, flag: int = 0) -> bytes:
    header = struct.pack("<II", 0xCED7230A, flag << 29 | len(payload))
    return header + payload + bytes(-len(payload) % 4)


def _record_message(*, packed: bool = True) -> type:
    """Build ``aialgs.data.Record`` with protobuf itself: an implementation that is not ours."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(
        name="record.proto", package="aialgs.data", syntax="proto2"
    )
    types = descriptor_pb2.FieldDescriptorProto
    tensors = {"Float32": (types.TYPE_FLOAT, 2), "Float64": (types.TYPE_DOUBLE, 3)}
    tensors["Int32"] = types.TYPE_INT32, 7
    value = file.message_type.add(name="Value")
    for kind, (values_type, value_number) in tensors.items():
        tensor = file.message_type.add(name=f"{kind}Tensor")
        for number, (field, field_type) in enumerate(
            [("values", values_type), ("keys", types.TYPE_UINT64), ("shape", types.TYPE_UINT64)],
            start=1,
        ):
            added = tensor.field.add(
                name=field, number=number, type=field_type, label=types.LABEL_REPEATED
            )
            added.options.packed = packed
        value.field.add(
            name=f"{kind.lower()}_tensor",
            number=value_number,
            type=types.TYPE_MESSAGE,
            label=types.LABEL_OPTIONAL,
            type_name=f".aialgs.data.{kind}Tensor",
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
    rows = [[1] * count + [0] * (9 - count) for count in (0, 2, 9, 0, 0, 3, 1)]
    matrix = csr_matrix(np.array(rows, dtype=np.float32))
    labels = np.arange(7, dtype=np.float32)
    whole = encode_recordio(matrix, labels)
    for name in ("_ROWS_PER_BLOCK", "_VALUES_PER_BLOCK"):
        for most in (1, 2, 3, 5):
            with monkeypatch.context() as patch:
                patch.setattr(f"recsys_assets.domain.recordio.{name}", most)
                write_recordio(tmp_path / "part", matrix, labels)
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
    with pytest.raises(RecordIOError, match=r"byte 44: record 1 has 4 columns, expected 3"):
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
        assert "byte" in str(error)
        assert 0 <= error.offset <= len(corrupt)


@given(
    st.integers(0, len(TWO_HOT_BYTES) - 1), st.integers(1, 255), st.integers(0, len(TWO_HOT_BYTES))
)
@settings(deadline=None, max_examples=300)
def test_what_the_compiled_code_reads_is_what_the_reference_reads(
    at: int, change: int, length: int
) -> None:
    corrupt = bytearray(TWO_HOT_BYTES)
    corrupt[at] ^= change
    for data, is_whole in ((bytes(corrupt), True), (bytes(corrupt[:length]), False)):
        part = recordio._decode_compiled(data, is_whole)
        if part is not None:
            expected = recordio._decode_any(data, is_whole, float32_only=True)
            assert part.length == expected.length
            assert part.matrix.shape == expected.matrix.shape
            for name in ("indptr", "indices", "data"):
                found, wanted = getattr(part.matrix, name), getattr(expected.matrix, name)
                assert found.tobytes() == wanted.astype(found.dtype).tobytes()
            assert (part.labels is None) == (expected.labels is None)
            if part.labels is not None and expected.labels is not None:
                assert part.labels.tobytes() == expected.labels.tobytes()


def _dense_record() -> bytes:
    record = _record_message()()
    record.features["values"].float32_tensor.values.extend(range(1_000))
    return frame(record.SerializeToString())


@pytest.mark.parametrize(
    "data",
    [_dense_record(), encode_recordio(csr_matrix((3, 1), dtype=np.float32))[:-3]],
    ids=["values without keys", "the least records"],
)
def test_the_compiled_code_stays_within_what_it_may_fill(data: bytes) -> None:
    room = len(data) // recordio_kernels.LEAST_RECORD, len(data) // recordio_kernels.LEAST_ENTRY
    sizes = {"indptr": room[0] + 1, "indices": room[1], "values": room[1], "labels": room[0] + 1}
    arrays = {name: np.full(4 * size + 4_000, 77, np.int32) for name, size in sizes.items()}
    recordio_kernels.decode_rows(
        np.frombuffer(data, dtype=np.uint8),
        True,
        arrays["indptr"][: sizes["indptr"]],
        arrays["indices"][: sizes["indices"]],
        arrays["values"][: sizes["values"]].view(np.uint32),
        arrays["labels"][: sizes["labels"]].view(np.uint32),
    )
    for name, size in sizes.items():
        assert (arrays[name][size:] == 77).all(), name


def test_float64_is_refused_because_factorization_machines_reads_float32_only() -> None:
    with pytest.raises(ValueError, match="expected a float32 matrix, got float64"):
        encode_recordio(TWO_HOT.astype(np.float64))
    record = _record_message()()
    record.features["values"].float64_tensor.values.append(1.0)
    with pytest.raises(RecordIOError, match="byte 22: expected a tensor of float32, found float64"):
        decode_recordio(frame(record.SerializeToString()))


@pytest.mark.parametrize(
    ("kind", "dtype", "numbers"),
    [
        ("float32", np.float32, [1.5, -0.0, 3e38]),
        ("float64", np.float64, [0.1, -1e300, 5e-324]),
        ("int32", np.int32, [0, -1, 2**31 - 1, -(2**31), 128]),
    ],
)
@pytest.mark.parametrize("is_sparse", [True, False])
def test_tensors_of_other_types_are_read_when_they_are_asked_for(
    kind: str, dtype: type, numbers: list[float], is_sparse: bool
) -> None:
    data = b""
    rows = [numbers, numbers[::-1]]
    for row in rows:
        record = _record_message()()
        tensor = getattr(record.features["values"], f"{kind}_tensor")
        tensor.values.extend(row)
        if is_sparse:
            tensor.keys.extend(range(0, 2 * len(row), 2))
            tensor.shape.append(2 * len(row))
        getattr(record.label["values"], f"{kind}_tensor").values.append(row[0])
        data += frame(record.SerializeToString())
    matrix, labels = decode_recordio(data, float32_only=False)
    assert matrix.dtype == dtype
    assert matrix.data.tolist() == np.array(rows, dtype=dtype).ravel().tolist()
    step = 2 if is_sparse else 1
    assert matrix.indices.tolist() == [*range(0, step * len(numbers), step)] * 2
    assert labels is not None
    assert labels.dtype == dtype
    assert labels.tolist() == [dtype(row[0]) for row in rows]


def test_one_matrix_has_values_of_one_type(tmp_path: Path) -> None:
    double = _record_message()()
    double.features["values"].float64_tensor.values.append(1.0)
    double.features["values"].float64_tensor.keys.append(0)
    double.features["values"].float64_tensor.shape.append(5)
    record = frame(double.SerializeToString())
    whole = encode_recordio(TWO_HOT)
    with pytest.raises(
        RecordIOError, match="byte 88: record 2 has a tensor of float64, expected float32"
    ):
        decode_recordio(whole + record, float32_only=False)
    (tmp_path / "a").write_bytes(whole)
    (tmp_path / "b").write_bytes(record)
    with pytest.raises(
        RecordIOError, match=r"b: byte 0: expected records of 5 columns of float32 .* found .*64"
    ):
        read_recordio([tmp_path / "a", tmp_path / "b"], float32_only=False)


def test_labels_in_some_files_alone_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    write_recordio(tmp_path / "a", TWO_HOT, TWO_HOT_LABELS)
    write_recordio(tmp_path / "b", TWO_HOT)
    message = r"b: byte 0: expected records of .* a float32 label, found .* no label"
    with pytest.raises(RecordIOError, match=message):
        read_recordio([tmp_path / "a", tmp_path / "b"])


def test_unpacked_numbers_are_refused_and_not_passed_over() -> None:
    record = _record_message(packed=False)()
    record.features["values"].float32_tensor.values.extend([1.0, 2.0])
    record.features["values"].float32_tensor.shape.append(2)
    with pytest.raises(RecordIOError, match=r"byte \d+: expected packed values, keys and a shape"):
        decode_recordio(frame(record.SerializeToString()))


def test_a_key_that_is_cut_does_not_run_into_the_next_record() -> None:
    data = bytearray(TWO_HOT_BYTES)
    at = data.index(b"\x12\x02\x00\x03")
    data[at + 3] = 0x83  # more is to come of the first record's last key
    with pytest.raises(RecordIOError, match=f"byte {at + 4}: a number is cut short"):
        decode_recordio(bytes(data))


def test_what_is_wrong_in_a_record_in_parts_is_told_by_where_it_begins() -> None:
    payload = TWO_HOT_BYTES[8 : 8 + 51].replace(b"values", b"valuez")
    with pytest.raises(RecordIOError, match="byte 120: expected the key 'values'"):
        decode_recordio(TWO_HOT_BYTES + frame(payload[:30], 1) + frame(payload[30:], 3))


@pytest.mark.parametrize("chunk_bytes", [1, 59, 60, 61, 1_000, 1 << 20])
def test_an_error_names_the_same_byte_and_record_wherever_chunks_end(
    tmp_path: Path, chunk_bytes: int
) -> None:
    data = bytearray(TWO_HOT_BYTES * 3)
    at = data.index(b"\x12\x02\x01\x04", 200)  # the keys of the fourth record
    data[at + 3] = 5
    (tmp_path / "a").write_bytes(TWO_HOT_BYTES)
    (tmp_path / "b").write_bytes(data)
    with pytest.raises(RecordIOError, match="b: byte 188: record 3 has key 5, outside 5") as caught:
        list(iterate_recordio([tmp_path / "a", tmp_path / "b"], chunk_bytes))
    assert (caught.value.offset, caught.value.record) == (188, 3)


@given(matrices(), st.data())
@settings(deadline=None, max_examples=40)
def test_some_rows_are_written_as_they_are_among_all(
    case: tuple[csr_matrix, np.ndarray | None], data: st.DataObject
) -> None:
    matrix, labels = case
    first = data.draw(st.integers(0, matrix.shape[0]))
    last = data.draw(st.integers(first, matrix.shape[0]))
    rows = slice(first, last)
    cut = None if labels is None else labels[rows]
    assert encode_recordio(matrix, labels, rows) == encode_recordio(matrix[rows], cut)


@pytest.mark.parametrize("rows", [slice(None), slice(200_000, 500_000)])
def test_writing_copies_neither_the_matrix_nor_the_rows_that_are_written(
    tmp_path: Path, rows: slice
) -> None:
    count = 500_000
    columns = np.tile(np.array([3, 70_000], dtype=np.int32), count)
    starts = np.arange(0, 2 * count + 1, 2, dtype=np.int32)
    ones = np.ones(2 * count, dtype=np.float32)
    matrix = csr_matrix((ones, columns, starts), shape=(count, 100_000), copy=False)
    labels = np.ones(count, dtype=np.float32)
    write_recordio(tmp_path / "warm", matrix, labels, slice(10))  # what is compiled is loaded
    tracemalloc.start()
    try:
        write_recordio(tmp_path / "file", matrix, labels, rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < ones.nbytes


def test_a_label_for_each_row_is_required() -> None:
    with pytest.raises(ValueError, match="expected 2 float32 labels"):
        encode_recordio(TWO_HOT, TWO_HOT_LABELS[:1])


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


def test_a_file_is_read_to_its_end_though_its_name_is_gone(tmp_path: Path) -> None:
    """Whoever feeds a pipe removes it once it has been opened and all is written."""

    class Vanishing(PosixPath):
        def open(self, *arguments: Any, **options: Any) -> Any:
            file = super().open(*arguments, **options)
            self.unlink()
            return file

    path = tmp_path / "pipe"
    path.write_bytes(encode_recordio(csr_matrix(np.eye(3, dtype=np.float32))))
    read, _ = read_recordio([Vanishing(path)])
    assert read.shape == (3, 3)


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
