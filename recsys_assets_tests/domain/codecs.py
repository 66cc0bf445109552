"""What tests of RecordIO share: any matrices, and the two codecs.

Importing the fixture runs a module's tests with each codec.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import strategies as st
from scipy.sparse import csr_matrix


@pytest.fixture(autouse=True, scope="module", params=["numpy", "compiled"])
def each_codec(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test with each of the two codecs, which choose themselves by size."""
    least = 0 if request.param == "compiled" else 1 << 62
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ROWS", "BYTES"):
            patch.setattr(f"recsys_assets.domain.recordio._LEAST_COMPILED_{name}", least)
        yield


@st.composite
def matrices(draw: st.DrawFn) -> tuple[csr_matrix, np.ndarray | None]:
    """Return a float32 CSR matrix of rows of any lengths, with or without labels."""
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
