"""`recsys-assets ui`: the Dagster UI on the state folder.

What belongs here: starting `dagster dev` with its services. What does not: definitions.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from recsys_assets.cli.state import PROJECT, interruptible, running_services, settings_of
from recsys_assets.settings import Settings

_HOST = "127.0.0.1"
_GRACE_SECONDS = 10


def serve_ui(state: Path, port: int) -> None:
    """Serve the UI until interrupted."""
    settings = settings_of(state)
    dagster = Path(sys.executable).with_name("dagster")
    command = [str(dagster), "dev", "--workspace", "workspace.yaml", "--host", _HOST]
    with interruptible(), contextlib.suppress(KeyboardInterrupt), running_services(settings):
        click.echo(f"Dagster  http://{_HOST}:{port}")
        mlflow = mlflow_ui(settings)
        hint = "" if mlflow.startswith("http") else "   (in another terminal)"
        click.echo(f"MLflow   {mlflow}{hint}")
        child = subprocess.Popen(
            [*command, "--port", str(port)], cwd=PROJECT, start_new_session=True
        )
        try:
            child.wait()
        finally:
            child.terminate()
            if child.wait() != 0:
                _end_group(child.pid)


def _end_group(leader: int) -> None:
    """End what a killed `dagster dev` has left: two daemons must never be at work.

    A process that is just starting may miss the first signal.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(0.1)
            os.killpg(leader, 0)  # is anybody left?
        os.killpg(leader, signal.SIGKILL)


def mlflow_ui(settings: Settings) -> str:
    """Return where MLflow's UI is: a server's URL, or a shell command that opens a database."""
    uri = settings.shown_mlflow_uri
    if uri.startswith(("http://", "https://")):
        return uri
    mlflow = Path(sys.executable).with_name("mlflow")
    return f"{mlflow} ui --backend-store-uri {uri} --host {_HOST} --port 5000"
