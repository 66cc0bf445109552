"""Columns of bytes as text: the same as Python does value by value."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_assets.domain.ratings.texts import cut_out, decoded, has_nul, is_blank

PIECE = st.sampled_from(
    [b"", b"a", b" ", b"\t", b"\xc2\xa0", b"\xc3\xa9", b"\xff", b"\xe2\x82", b"\0"]
)
VALUES = st.lists(st.lists(PIECE, max_size=4).map(b"".join), max_size=12)
PROPERTY = settings(max_examples=200, deadline=None)


@PROPERTY
@given(values=VALUES, skipped=st.integers(0, 3))
def test_values_are_decoded_told_blank_and_searched_as_python_would(
    values: list[bytes], skipped: int
) -> None:
    column = pa.array(values, pa.binary())[skipped:]  # a slice shares the buffers of the whole
    values = values[skipped:]
    text, broken = decoded(column)
    expected = [value.decode(errors="replace") for value in values]
    assert text.to_pylist() == expected
    assert broken.tolist() == [
        value != said.encode() for value, said in zip(values, expected, strict=True)
    ]
    assert is_blank(text).tolist() == [not said.strip() for said in expected]
    assert has_nul(text).tolist() == ["\0" in said for said in expected]


@PROPERTY
@given(data=st.binary(max_size=40), bounds=st.lists(st.integers(0, 40), max_size=12).map(sorted))
def test_parts_are_cut_out(data: bytes, bounds: list[int]) -> None:
    bounds = [min(bound, len(data)) for bound in bounds[: len(bounds) // 2 * 2]]
    starts, stops = bounds[::2], bounds[1::2]
    expected = [data[start:stop] for start, stop in zip(starts, stops, strict=True)]
    assert cut_out(data, starts, stops).to_pylist() == expected
