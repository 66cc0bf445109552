"""The two RecordIO codecs: importing the fixture runs a module's tests with each of them."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module", params=["numpy", "compiled"])
def each_codec(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test with each of the two codecs, which choose themselves by size."""
    least = 0 if request.param == "compiled" else 1 << 62
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ROWS", "BYTES"):
            patch.setattr(f"recsys_assets.domain.recordio._LEAST_COMPILED_{name}", least)
        yield
