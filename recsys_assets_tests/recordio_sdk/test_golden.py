"""The codec against bytes that the SDK itself has written; see ``make_golden.py``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_assets.domain.recordio import (
    RecordIOError,
    decode_recordio,
    encode_recordio,
    read_recordio,
)
from recsys_assets_tests.contract.environments import SAGEMAKER_SDK_2_VERSION
from recsys_assets_tests.domain.codecs import each_codec  # noqa: F401 - a fixture for all
from recsys_assets_tests.recordio_sdk.make_golden import (
    GOLDEN,
    dense_cases,
    golden_cases,
    other_cases,
)
from recsys_assets_tests.recordio_sdk.sdk import as_json, from_json

CONTENT: dict[str, Any] = json.loads(GOLDEN.read_text())
CASES: list[dict[str, Any]] = CONTENT["cases"]
each_case = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])


def test_the_file_is_of_the_matrices_and_the_version_that_make_it() -> None:
    assert CONTENT["sagemaker"] == SAGEMAKER_SDK_2_VERSION
    made = {"cases": golden_cases(), "others": other_cases(), "dense": dense_cases()}
    for part, cases in made.items():
        expected = {name: as_json(*case) for name, case in cases.items()}
        stored = {
            case["name"]: {key: case[key] for key in as_json(*from_json(case))}
            for case in CONTENT[part]
        }
        assert stored == expected


@each_case
def test_a_matrix_is_encoded_to_the_bytes_of_the_sdk(case: dict[str, Any]) -> None:
    assert encode_recordio(*from_json(case)).hex() == case["recordio"]


@each_case
def test_the_bytes_of_the_sdk_are_read_back_as_the_matrix(case: dict[str, Any]) -> None:
    matrix, labels = from_json(case)
    decoded, decoded_labels = decode_recordio(bytes.fromhex(case["recordio"]))
    # Bytes of no rows do not tell how many columns there would be.
    assert decoded.shape == (matrix.shape if matrix.shape[0] else (0, 0))
    np.testing.assert_array_equal(decoded.indptr, matrix.indptr)
    np.testing.assert_array_equal(decoded.indices, matrix.indices)
    assert decoded.data.tobytes() == matrix.data.tobytes()  # -0.0 is not 0.0 here
    if labels is None:
        assert decoded_labels is None
    else:
        assert decoded_labels is not None
        assert decoded_labels.tobytes() == labels.tobytes()


def test_files_of_the_sdk_are_read_as_one_matrix(tmp_path: Path) -> None:
    wanted = [case for case in CASES if case["shape"][1] == 2_200_000 and case["labels"]]
    (case,) = wanted
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes.fromhex(case["recordio"]))
    matrix, labels = read_recordio([tmp_path / "a", tmp_path / "b"])
    assert matrix.shape == (20, 2_200_000)
    assert matrix.indices.tolist() == case["indices"] * 2
    assert labels is not None
    assert labels.tolist() == case["labels"] * 2


@pytest.mark.parametrize(
    "case", CONTENT["others"] + CONTENT["dense"], ids=lambda case: f"{case['name']}"
)
def test_other_tensors_of_the_sdk_are_read_when_they_are_asked_for(case: dict[str, Any]) -> None:
    matrix, labels = from_json(case)
    content = bytes.fromhex(case["recordio"])
    decoded, decoded_labels = decode_recordio(content, float32_only=False)
    assert decoded.dtype.name == decoded_labels.dtype.name == case["name"]
    np.testing.assert_array_equal(decoded.toarray(), matrix.toarray())
    np.testing.assert_array_equal(decoded_labels, labels)
    if case["name"] == "float32":
        assert decode_recordio(content)[0].dtype == np.float32
    else:
        with pytest.raises(
            RecordIOError, match=f"byte 22: expected .* float32, found {case['name']}"
        ):
            decode_recordio(content)
