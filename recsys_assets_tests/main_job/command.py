"""The program as a person starts it: a process with an environment of its own.

What belongs here: starting `recsys-assets`, reading what it says, judging how it ended, and clients
of the services that it has left running. What does not: what is asked of it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from recsys_assets.services.clients import isolated_session
from recsys_assets.services.control import environment_lines
from recsys_assets.services.record import Services, read_services
from recsys_assets_tests.sagemaker_local.endpoint import eventually

PROGRAM = str(Path(sys.executable).with_name("recsys-assets"))
_OURS = ("RECSYS_", "AWS_", "DAGSTER_", "MLFLOW_")

Done = subprocess.CompletedProcess[str]


def shell_environment(**variables: str) -> dict[str, str]:
    """Return the environment of a shell that knows nothing of the platform, and `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return kept | variables


def exported(services: Services) -> dict[str, str]:
    """What a shell has after ``eval "$(recsys-assets services env)"``."""
    lines = [line.removeprefix("export ") for line in environment_lines(services)]
    return {
        name: value.strip("'")
        for name, equals, value in (line.partition("=") for line in lines)
        if equals
    }


def recsys_assets(*arguments: str | Path, **variables: str) -> Done:
    """Run the program to its end."""
    return subprocess.run(
        [PROGRAM, *arguments], env=shell_environment(**variables), capture_output=True, text=True
    )


class Started:
    """A program that is at work; what it says goes to files in `folder`.

    `variables` go into its environment; `program` stands for the command line's beginning.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str | Path,
        program: Sequence[str] = (PROGRAM,),
        **variables: str,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / "stdout", folder / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*program, *arguments], env=shell_environment(**variables), stdout=out, stderr=err
            )

    def wait_until_it_says(self, text: str) -> None:
        """Wait for a text on stdout; fail if the program ends without it."""

        def said() -> bool:
            if text in self._out.read_text():
                return True
            assert self.process.poll() is None, self._out.read_text() + self._err.read_text()
            return False

        eventually(said, seconds=120)

    def ended(self) -> Done:
        """Wait for the program's end."""
        try:
            status = self.process.wait(timeout=60)
        finally:
            self.process.kill()
        return Done(self.process.args, status, self._out.read_text(), self._err.read_text())


def write_config(path: Path, **assets: dict[str, Any]) -> Path:
    """Write run config: the config of each asset (or step) by its name."""
    path.write_text(yaml.safe_dump({"ops": {name: {"config": c} for name, c in assets.items()}}))
    return path


def only_sentence(done: Done) -> str:
    """Return what the program said of a mistake, which must be one sentence and nothing else."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    said = "recsys-assets: "
    assert line.startswith(said), line
    return line.removeprefix(said)


def services_of(state: Path) -> Services:
    """Return the services of a state folder, which must run."""
    found = read_services(state)
    assert found is not None
    assert found.alive
    return found


def client(state: Path, service: str) -> Any:
    """Return a boto3 client of the services of a state folder."""
    found = services_of(state)
    session = isolated_session(found.access_key_id, found.secret_access_key, found.region)
    url = found.s3_url if service == "s3" else found.sagemaker_url
    return session.client(service, endpoint_url=url)


def content_hash(state: Path, asset: str) -> str:
    """Return the content hash of the current version of an asset."""
    body = client(state, "s3").get_object(Bucket="recsys", Key=f"{asset}/current.json")["Body"]
    return str(json.loads(body.read())["content_hash"])
