"""The commands of docs/step-functions.md, typed into a shell, against moto."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recsys_assets_tests.conftest import PROJECT
from recsys_assets_tests.contract.environments import AWS_CLI, NoInterpreterError
from recsys_assets_tests.export.step_functions.interpreter import Interpreter
from recsys_assets_tests.main_job.command import shell_environment
from recsys_assets_tests.sagemaker_local.endpoint import CREDENTIALS, aws_client

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("step_functions")]

PAGE = (PROJECT / "docs" / "step-functions.md").read_text()


def test_the_pages_commands_create_a_machine_and_start_it(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    with contextlib.closing(Interpreter(tmp_path / "moto.log")) as moto:
        try:
            programs = [str(Path(sys.executable).parent), str(AWS_CLI.python.parent)]
            moto.start(moto.url, execute=False)
        except NoInterpreterError as error:
            pytest.skip(str(error))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
            cwd=tmp_path,
            env=shell_environment(
                **{**CREDENTIALS, "AWS_DEFAULT_REGION": "eu-west-1"},
                AWS_ENDPOINT_URL=moto.url,
                PATH=os.pathsep.join([*programs, os.environ["PATH"]]),
            ),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert ":execution:recsys_assets:" in done.stdout
        iam = aws_client("iam", moto.url)
        role = iam.get_role_policy(RoleName="recsys-state-machine", PolicyName="recsys")
        written = json.loads((tmp_path / "state-machine/recsys_assets.policy.json").read_text())
        assert role["PolicyDocument"] == written
        files = {path.name for path in (tmp_path / "state-machine").iterdir()}
        assert files == set(re.findall(r"^\| `(\S+)` \|", PAGE, flags=re.MULTILINE))
