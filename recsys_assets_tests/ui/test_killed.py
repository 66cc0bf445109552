"""`dagster dev` is killed below `recsys-assets ui`."""

from pathlib import Path

import psutil
import pytest

from recsys_assets.services.control import find_services
from recsys_assets_tests.main_job.command import Started
from recsys_assets_tests.sagemaker_local.endpoint import eventually, free_port
from recsys_assets_tests.ui.dagster_ui import DagsterUI

pytestmark = pytest.mark.xdist_group("ui_killed")


def is_alive(process: psutil.Process) -> bool:
    """Say whether a process runs: an orphan may be a zombie for as long as nobody asks for it."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_nothing_is_left_of_a_killed_dagster_dev(tmp_path: Path) -> None:
    port, state = free_port(), tmp_path / "state"
    started = Started(tmp_path, "ui", "--state", state, "--port", str(port))
    ui = DagsterUI(f"http://127.0.0.1:{port}")
    eventually(ui.answers, seconds=120)
    ui.close()
    command = psutil.Process(started.process.pid)
    (dev,) = (child for child in command.children() if "dev" in child.cmdline())
    family = dev.children(recursive=True)
    assert any("dagster._daemon" in member.cmdline() for member in family)

    dev.kill()
    psutil.wait_procs(family, timeout=60)
    alive = [member for member in family if is_alive(member)]
    for member in alive:
        member.kill()
    assert alive == []
    assert started.ended().returncode == 0
    assert find_services(state) is None
