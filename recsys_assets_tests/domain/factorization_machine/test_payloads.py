"""Payloads: each documented form, and what is said of the ones that are none."""

import contextlib
import json
import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_assets.domain.factorization_machine.model import FactorizationMachine
from recsys_assets.domain.factorization_machine.payloads import (
    JSON,
    JSON_LINES,
    RECORDIO,
    AcceptError,
    ContentTypeError,
    PayloadError,
    decode_request,
    encode_response,
    response_type,
)
from recsys_assets.domain.recordio import encode_recordio

DENSE = {"features": [1.5, 0, -2]}
NESTED = {"data": {"features": {"values": [1.5, 0, -2]}}}
SPARSE = {"data": {"features": {"keys": [0, 2], "shape": [3], "values": [1.5, -2]}}}
ROW = [1.5, 0.0, -2.0]


def rows_of(instances: list[object], content_type: str = JSON) -> list[list[float]]:
    if content_type == JSON:
        body = json.dumps({"instances": instances})
    else:
        body = "\n".join(json.dumps(instance) for instance in instances)
    X = decode_request(body.encode(), content_type, 3)
    assert X.dtype == np.float32
    return X.toarray().tolist()


@pytest.mark.parametrize("content_type", [JSON, JSON_LINES])
def test_every_form_of_an_instance_is_the_same_record(content_type: str) -> None:
    assert rows_of([DENSE, NESTED, SPARSE], content_type) == [ROW, ROW, ROW]


def test_sparse_keys_may_come_in_any_order() -> None:
    instance = {"data": {"features": {"keys": [2, 0], "shape": [3], "values": [-2, 1.5]}}}
    assert rows_of([instance]) == [ROW]


def test_blank_json_lines_are_no_records() -> None:
    body = json.dumps(DENSE).encode()
    assert decode_request(b"\n" + body + b"\r\n\n", JSON_LINES, 3).toarray().tolist() == [ROW]


def test_recordio_is_read() -> None:
    body = encode_recordio(csr_matrix(np.array([ROW, [0, 0, 0]], dtype=np.float32)))
    assert decode_request(body, RECORDIO, 3).toarray().tolist() == [ROW, [0, 0, 0]]


@pytest.mark.parametrize(
    ("body", "content_type"), [(b'{"instances": []}', JSON), (b"", JSON_LINES), (b"", RECORDIO)]
)
def test_no_records_are_an_empty_matrix(body: bytes, content_type: str) -> None:
    assert decode_request(body, content_type, 3).shape == (0, 3)


def test_a_content_type_may_have_parameters_and_capitals() -> None:
    body = json.dumps({"instances": [DENSE]}).encode()
    assert decode_request(body, "Application/JSON; charset=utf-8", 3).shape == (1, 3)


def test_an_unknown_content_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ContentTypeError, match=r"'text/csv' is not supported.*x-recordio-protobuf"):
        decode_request(b"1,2,3", "text/csv", 3)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[]", r'expected {"instances": \[...\]}, got \[\]'),
        (b'{"instances": {}}', r'expected {"instances": \[...\]}'),
        (b'{"instances": [1]}', 'instance 0: expected {"features"'),
        (b'{"instances": [{"data": 1}]}', "instance 0: expected"),
        (b'{"instances": [{"features": [1, "2", 3]}]}', "instance 0: expected a list of numbers"),
        (b'{"instances": [{"features": [true, 2, 3]}]}', "expected a list of numbers"),
        (b'{"instances": [{"features": [1, 2]}]}', "instance 0: expected 3 features, got 2"),
        (b'{"instances": [{"features": [1, 2, NaN]}]}', "expected finite numbers"),
        (b'{"instances": [{"features": [1, 2, 1e39]}]}', "expected finite numbers"),
        (b'{"instances": [{"features": [1, 2, 1%s]}]}' % (b"0" * 400), "too large"),
    ],
)
def test_bad_json_is_refused_with_what_was_expected_and_where(body: bytes, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        decode_request(body, JSON, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": [0]}, r"line 2: expected as many integers as values \(2\)"),
        ({"keys": [0, 1.5]}, "line 2: expected as many integers"),
        ({"keys": [0, 3]}, "line 2: key 3 lies outside 3 features"),
        ({"keys": [0, -1]}, "line 2: key -1 lies outside"),
        ({"shape": [4]}, "line 2: expected 3 features, got 4"),
        ({"shape": 3}, "line 2: expected a list of one integer as shape"),
        ({"values": None}, "line 2: expected a list of numbers as values, got null"),
    ],
)
def test_a_bad_sparse_instance_is_refused_with_its_line(
    changes: dict[str, object], message: str
) -> None:
    bad = {"data": {"features": SPARSE["data"]["features"] | changes}}
    with pytest.raises(PayloadError, match=message):
        rows_of([DENSE, bad], JSON_LINES)


def test_bad_recordio_is_refused() -> None:
    with pytest.raises(PayloadError, match="not RecordIO-protobuf: byte 0"):
        decode_request(b"garbage!", RECORDIO, 3)
    wide = encode_recordio(csr_matrix((2, 4), dtype=np.float32))
    with pytest.raises(PayloadError, match="the records: expected 3 features, got 4"):
        decode_request(wide, RECORDIO, 3)


@settings(deadline=None)
@given(st.binary(max_size=80), st.sampled_from([JSON, JSON_LINES, RECORDIO]))
def test_any_bytes_are_read_or_refused(body: bytes, content_type: str) -> None:
    with contextlib.suppress(PayloadError):
        assert decode_request(body, content_type, 3).shape[1] == 3


SCORES = np.array([0.5, 0.25], dtype=np.float32)


@pytest.mark.parametrize(
    ("predictor_type", "content_type", "expected"),
    [
        ("regressor", JSON, '{"predictions": [{"score": 0.5}, {"score": 0.25}]}'),
        ("regressor", JSON_LINES, '{"score": 0.5}\n{"score": 0.25}\n'),
        (
            "binary_classifier",
            JSON,
            '{"predictions": [{"score": 0.5, "predicted_label": 1.0}, '
            '{"score": 0.25, "predicted_label": 0.0}]}',
        ),
        (
            "binary_classifier",
            JSON_LINES,
            '{"score": 0.5, "predicted_label": 1.0}\n{"score": 0.25, "predicted_label": 0.0}\n',
        ),
    ],
)
def test_responses_are_those_of_the_documentation(
    predictor_type: str, content_type: str, expected: str
) -> None:
    assert encode_response(SCORES, predictor_type, content_type).decode() == expected


def test_a_score_in_json_is_the_float32_exactly() -> None:
    scores = np.array([0.1, 3.7], dtype=np.float32)
    (first, second) = json.loads(encode_response(scores, "regressor", JSON))["predictions"]
    assert [first["score"], second["score"]] == scores.tolist()


def test_a_recordio_response_has_labels_and_no_features() -> None:
    score = bytes.fromhex("12110a0573636f7265120812060a04") + struct.pack("<f", 0.5)
    assert encode_response(SCORES[:1], "regressor", RECORDIO) == (
        struct.pack("<II", 0xCED7230A, 19) + score + b"\0"
    )
    label = bytes.fromhex("121b0a0f7072656469637465645f6c6162656c120812060a04") + struct.pack(
        "<f", 1.0
    )
    both = encode_response(SCORES, "binary_classifier", RECORDIO)
    assert both[: len(both) // 2] == struct.pack("<II", 0xCED7230A, 48) + score + label
    assert len(both) == 2 * (8 + 48)


@pytest.mark.parametrize(
    ("accept", "content_type", "expected"),
    [
        (None, JSON, JSON),
        (None, RECORDIO, JSON_LINES),
        ("", JSON_LINES, JSON_LINES),
        ("*/*", RECORDIO, JSON_LINES),
        (JSON, RECORDIO, JSON),
        ("text/html, application/jsonlines;q=0.9, */*;q=0.1", JSON, JSON_LINES),
        (RECORDIO, JSON, RECORDIO),
    ],
)
def test_the_answer_is_in_the_type_that_is_accepted(
    accept: str | None, content_type: str, expected: str
) -> None:
    assert response_type(accept, content_type) == expected


def forms(records: list[dict[int, float]]) -> dict[str, tuple[bytes, str]]:
    """Return the same records as a request of each form, with its content type."""
    dense = [[record.get(key, 0.0) for key in range(WIDTH)] for record in records]
    sparse = [
        {"keys": list(record), "shape": [WIDTH], "values": list(record.values())}
        for record in records
    ]
    instances = {
        "dense": [{"features": values} for values in dense],
        "nested": [{"data": {"features": {"values": values}}} for values in dense],
        "sparse": [{"data": {"features": features}} for features in sparse],
    }
    X = csr_matrix(np.array(dense, dtype=np.float32).reshape(len(records), WIDTH))
    found = {"recordio": (encode_recordio(X), RECORDIO)}
    for name, items in instances.items():
        found[f"{name} json"] = (json.dumps({"instances": items}).encode(), JSON)
        found[f"{name} lines"] = ("\n".join(map(json.dumps, items)).encode(), JSON_LINES)
    return found


WIDTH = 6
NUMBERS = st.floats(-100, 100, width=32).filter(bool)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.dictionaries(st.integers(0, WIDTH - 1), NUMBERS), min_size=1, max_size=12),
    st.sets(st.integers(1, 11)),
    st.sampled_from(["regressor", "binary_classifier"]),
)
def test_answers_are_the_same_in_every_form_in_batch_in_chunks_and_one_by_one(
    records: list[dict[int, float]], cuts: set[int], predictor_type: str
) -> None:
    generator = np.random.default_rng(0)
    model = FactorizationMachine(
        predictor_type,
        0.25,
        generator.normal(0, 0.1, WIDTH).astype(np.float32),
        generator.normal(0, 0.1, (WIDTH, 3)).astype(np.float32),
    )

    def answers(part: list[dict[int, float]], answer_type: str) -> set[bytes]:
        return {
            encode_response(
                model.predict(decode_request(body, content_type, WIDTH)),
                predictor_type,
                answer_type,
            )
            for body, content_type in forms(part).values()
        }

    ends = sorted({0, len(records)} | {cut for cut in cuts if cut < len(records)})
    chunks = [records[first:last] for first, last in pairwise(ends)]
    for answer_type in (JSON_LINES, RECORDIO):
        (batch,) = answers(records, answer_type)
        for cut in (chunks, [[record] for record in records]):
            parts = [answers(part, answer_type) for part in cut]
            assert b"".join(answer for (answer,) in parts) == batch
    (lines,), (document,) = answers(records, JSON_LINES), answers(records, JSON)
    assert json.loads(document)["predictions"] == [json.loads(x) for x in lines.splitlines()]


def test_an_answer_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(AcceptError, match="cannot answer in 'text/csv'"):
        response_type("text/csv", JSON)
