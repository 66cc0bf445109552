"""What the tests of the command share: a state folder for the runs of each module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys_assets_tests.main_job.command import recsys_assets


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder that the runs of a module share; its services run before and after each."""
    folder = tmp_path_factory.mktemp("main_job") / "state"
    assert recsys_assets("services", "start", "--state", folder).returncode == 0
    yield folder
    recsys_assets("services", "stop", "--state", folder)
