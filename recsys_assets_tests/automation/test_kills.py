"""The platform survives being killed: `kills.py`, short; RECSYS_TEST_KILLS=50 is the long form."""

import os
import subprocess
import sys

import pytest

from recsys_assets_tests.automation.postgres import postgres_programs
from recsys_assets_tests.conftest import PROJECT

KILLS = int(os.environ.get("RECSYS_TEST_KILLS", "5"))
MINUTES = KILLS * 0.6


@pytest.mark.slow
@pytest.mark.skipif(postgres_programs() is None, reason="needs PostgreSQL in /usr/lib/postgresql")
def test_what_has_landed_comes_out_as_if_nothing_had_been_killed() -> None:
    program = [sys.executable, "-m", "recsys_assets_tests.automation.kills"]
    done = subprocess.run(
        [*program, "--kills", str(KILLS), "--minutes", str(MINUTES)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    print(done.stdout)  # noqa: T201 - the counts
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
