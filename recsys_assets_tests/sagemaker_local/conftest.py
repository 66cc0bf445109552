"""Endpoints of their own, for the tests of the endpoint."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys_assets_tests.sagemaker_local.endpoint import Endpoint, free_port


@pytest.fixture
def own_endpoint(object_store: str, tmp_path: Path) -> Iterator[Endpoint]:
    """Return an endpoint that is not started and that one test may do anything to."""
    state = tmp_path / "state"
    with contextlib.closing(Endpoint(state, object_store, free_port(), "--max-jobs=2")) as own:
        yield own
