"""The platform as three processes with PostgreSQL, started by the commands of its systemd units.

What belongs here: the environment and the processes of a deployment, killing them, and looking at
what Dagster knows. What does not: what lands and what is expected of it.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import yaml
from dagster import DagsterInstance

from recsys_assets.services.record import Services
from recsys_assets_tests.conftest import PROJECT
from recsys_assets_tests.main_job.command import (
    exported,
    recsys_assets,
    services_of,
    shell_environment,
)
from recsys_assets_tests.sagemaker_local.endpoint import eventually, free_port
from recsys_assets_tests.ui.dagster_ui import DagsterUI

FOLDER = PROJECT / "deployment"
CODE_SERVER, DAEMON, WEBSERVER = "code-server", "daemon", "webserver"
SERVERS = (CODE_SERVER, DAEMON, WEBSERVER)
RESTART_SECONDS = 2.0  # as the units have it

_INSTALLED = "/opt/recsys/.venv/bin/"
_UI_PORT = "3000"


class Deployment:
    """One deployment on a state folder.

    Parameters
    ----------
    state
        The state folder; its services are started here, and ended by `close`.
    postgres_url
        Of an empty database.
    automation
        What the platform is configured to do by itself.
    """

    def __init__(self, state: Path, postgres_url: str, automation: Mapping[str, object]) -> None:
        self.state = state
        self._logs = state.with_name(f"{state.name}-logs")
        self._logs.mkdir(parents=True)
        done = recsys_assets("services", "start", "--state", state)
        assert done.returncode == 0, done.stderr
        (self._logs / "automation.yaml").write_text(yaml.safe_dump(dict(automation)))
        self._ui_port = str(free_port())
        self.environment = {
            **_variables(FOLDER / "recsys.env"),
            **exported(self.services),
            "DAGSTER_HOME": str(FOLDER),
            "RECSYS_AUTOMATION_CONFIG": str(self._logs / "automation.yaml"),
            "RECSYS_CODE_SERVER_PORT": str(free_port()),
            "RECSYS_DAGSTER_STORAGE": str(state / "dagster"),
            "RECSYS_ENV": "local",
            "RECSYS_MLFLOW_TRACKING_URI": f"sqlite:///{state}/mlflow/mlflow.db",
            "RECSYS_POSTGRES_URL": postgres_url,
            "RECSYS_REGION": self.services.region,
            "RECSYS_STATE": str(state),
        }
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._ended: dict[str, float] = {}

    @property
    def services(self) -> Services:
        """The local services, as they are now."""
        return services_of(self.state)

    @property
    def ui(self) -> DagsterUI:
        """A client of the webserver."""
        return DagsterUI(f"http://127.0.0.1:{self._ui_port}")

    def start(self) -> None:
        """Start the three servers; return when the UI is served."""
        for name in SERVERS:
            self._start(name)
        eventually(self.ui.answers, seconds=120)

    def restart_ended(self) -> None:
        """Start servers again that ended a while ago, as systemd does."""
        for name, process in self._servers.items():
            if process.poll() is None:
                continue
            since = self._ended.setdefault(name, time.monotonic())
            if time.monotonic() - since >= RESTART_SECONDS:
                del self._ended[name]
                self._start(name)

    def kill(self, name: str) -> None:
        """Kill a server."""
        self._servers[name].kill()
        self._servers[name].wait()

    def kill_object_store(self) -> None:
        """Kill the object store; the supervisor starts it again."""
        for child in self.services.children:
            process = child.find()
            if process is not None and Path(process.name()).name == "weed":
                process.kill()

    def workers(self) -> list[psutil.Process]:
        """The processes that execute runs, those included that have lost their code server."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if "--multiprocessing-fork" in (process.info["cmdline"] or [])
            and _environment(process).get("RECSYS_STATE") == str(self.state)
        ]

    def log(self, name: str) -> str:
        """What a server has said."""
        return (self._logs / f"{name}.log").read_text(errors="replace")

    @contextmanager
    def instance(self) -> Iterator[DagsterInstance]:
        """Open Dagster's own storage; its settings have to be in this process's environment."""
        os.environ.update(self.environment)
        with DagsterInstance.from_config(str(FOLDER)) as instance:
            yield instance

    def close(self) -> None:
        """End everything that belongs to the deployment."""
        for process in self._servers.values():
            process.kill()
            process.wait()
        for worker in self.workers():
            worker.kill()
        recsys_assets("services", "stop", "--state", self.state)

    def _start(self, name: str) -> None:
        with (self._logs / f"{name}.log").open("ab") as log:
            self._servers[name] = subprocess.Popen(
                self._command(name),
                cwd=PROJECT,
                env=shell_environment(**self.environment),
                stdout=log,
                stderr=log,
                preexec_fn=_take_interrupts,
            )

    def _command(self, name: str) -> list[str]:
        """Return the command of a unit, for this checkout and its ports."""
        unit = (FOLDER / "systemd" / f"recsys-{name}.service").read_text()
        (line,) = re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", unit, flags=re.MULTILINE)
        words = [
            re.sub(r"\$\{(\w+)\}", lambda match: self.environment[match[1]], word)
            for word in shlex.split(line.replace("\\\n", " "))
        ]
        assert words[0].startswith(_INSTALLED)
        words[0] = str(Path(sys.executable).with_name(words[0].removeprefix(_INSTALLED)))
        return [self._ui_port if word == _UI_PORT else word for word in words]


def _variables(path: Path) -> dict[str, str]:
    """Read a file of NAME=value lines."""
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def _take_interrupts() -> None:
    """Undo what a shell does to programs in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
