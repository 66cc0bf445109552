"""The codec against the SDK itself, on random matrices, both ways."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys_assets.domain.recordio import decode_recordio, encode_recordio
from recsys_assets_tests.domain.codecs import each_codec, matrices  # noqa: F401 - a fixture for all
from recsys_assets_tests.recordio_sdk.make_golden import GOLDEN, golden_text
from recsys_assets_tests.recordio_sdk.sdk import Case, Sdk

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("recordio_sdk")]

_WIDTHS = [1, 2, 127, 128, 129, 16_383, 16_384, 16_385, 2_097_151, 2_097_152, 2_200_000]
_LONG_ROWS = [4_095, 4_096, 4_097]  # where 16,384 bytes of values make a length of three bytes


@pytest.fixture(scope="module")
def sdk() -> Sdk:
    """The SDK, in an environment that is kept for the next time."""
    return Sdk()


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    rng = np.random.default_rng(20)
    cases = [_random_case(rng) for _ in range(400)]
    return cases + [_case(rng, np.array([length, 0]), 2_200_000) for length in _LONG_ROWS]


def _random_case(rng: np.random.Generator) -> Case:
    lengths = rng.choice([0, 0, 1, 2, 2, 3, 20, 32, 130], rng.integers(0, 12))
    return _case(rng, lengths, int(rng.choice(_WIDTHS)))


def _case(rng: np.random.Generator, lengths: np.ndarray, columns: int) -> Case:
    """Rows of any float32 at keys in any order: neither side sorts or adds up."""
    count = int(lengths.sum())
    small = rng.integers(columns, size=count)
    large = columns - 1 - (rng.integers(columns, size=count) >> rng.integers(22, size=count))
    indices = np.where(rng.random(count) < 0.5, small, large)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    matrix = csr_matrix((_any_floats(rng, count), indices, indptr), shape=(len(lengths), columns))
    return matrix, _any_floats(rng, len(lengths)) if rng.random() < 0.6 else None


def _any_floats(rng: np.random.Generator, count: int) -> np.ndarray:
    """Float32 of any bits, with many whole numbers among them."""
    anything = rng.integers(2**32, size=count, dtype=np.uint32).view(np.float32)
    anything[np.isnan(anything)] = np.nan  # JSON knows one of them
    whole = rng.integers(-2, 6, count).astype(np.float32)
    return np.where(rng.random(count) < 0.5, whole, anything)


def assert_agreement(sdk: Sdk, cases: list[Case]) -> None:
    """Write what the SDK writes, and have each read what the other has written."""
    encoded = [encode_recordio(*case) for case in cases]
    assert encoded == sdk.write(cases)
    for (matrix, labels), content, records in zip(cases, encoded, sdk.read(encoded), strict=True):
        decoded, decoded_labels = decode_recordio(content)
        assert decoded.indices.tolist() == matrix.indices.tolist()
        assert decoded.data.tobytes() == matrix.data.tobytes()
        if labels is not None and len(labels):
            assert decoded_labels is not None
            assert decoded_labels.tobytes() == labels.tobytes()
        assert len(records) == matrix.shape[0]
        for row, record in enumerate(records):
            begin, end = matrix.indptr[row], matrix.indptr[row + 1]
            values = np.array(record["values"], dtype=np.float32)
            assert values.tobytes() == matrix.data[begin:end].tobytes()
            assert record["keys"] == matrix.indices[begin:end].tolist()
            assert record["shape"] == [matrix.shape[1]]
            if labels is None:
                assert record["label"] is None
            else:
                label = np.array(record["label"], dtype=np.float32)
                assert label.tobytes() == labels[row : row + 1].tobytes()


def test_the_sdk_and_this_codec_agree_on_random_matrices(sdk: Sdk, cases: list[Case]) -> None:
    assert_agreement(sdk, cases)


@given(cases=st.lists(matrices(), min_size=10, max_size=100))
@settings(deadline=None, max_examples=3, suppress_health_check=[*HealthCheck])
def test_the_sdk_and_this_codec_agree_on_whatever_hypothesis_finds(
    sdk: Sdk, cases: list[Case]
) -> None:
    assert_agreement(sdk, cases)


def test_the_golden_file_is_what_the_sdk_writes(sdk: Sdk) -> None:
    assert golden_text(sdk) == GOLDEN.read_text()
