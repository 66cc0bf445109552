"""The process that owns the local services of one state folder.

What belongs here: choosing ports, starting the object store and the SageMaker endpoint, watching
them, ending them. What does not: how they are called (``object_store``,
``recsys_assets.sagemaker_local``) and finding them (``control``).

A service that ends by itself is started again, with the same ports and data. The supervisor ends,
with both services, when it is told to (SIGTERM), when one of them does not stay up, or when the
state folder is deleted. The services end with it even if it is killed, where the system allows
(Linux).
"""

import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import click

from recsys_assets.services import object_store
from recsys_assets.services.clients import isolated_session
from recsys_assets.services.record import (
    ProcessIdentity,
    Services,
    remove_services,
    services_folder,
    write_services,
)

_HOST = "127.0.0.1"
_READY_SECONDS = 60
# Pauses before a service is started again are 0.5, 1, 2, ... seconds. One that has ended once more
# than it may in a row, without having stayed up for a minute in between, is given up.
_FIRST_PAUSE_SECONDS = 0.5
_MOST_RESTARTS = 4
_STAYED_UP_SECONDS = 60.0
_GRACE_SECONDS = {"sagemaker": 8.0, "object_store": 1.0}
_PR_SET_PDEATHSIG = 1

_SAGEMAKER_PORT = "sagemaker"


class StartError(RuntimeError):
    """A service did not start; the message says which and why, in one sentence."""


@click.command()
@click.option("--state", type=click.Path(path_type=Path), required=True)
@click.option("--bucket", required=True)
@click.option("--region", required=True)
@click.option("--role", required=True, help="Name of the role that jobs take.")
@click.option("--s3-port", type=int)
@click.option("--sagemaker-port", type=int)
@click.option("--s3-endpoint-url", help="Use this store rather than start one.")
@click.option("--image", "images", multiple=True, help="As the endpoint has it.")
def main(
    state: Path,
    bucket: str,
    region: str,
    role: str,
    s3_port: int | None,
    sagemaker_port: int | None,
    s3_endpoint_url: str | None,
    images: tuple[str, ...],
) -> None:
    """Start the services of a state folder and stay with them."""
    supervisor = Supervisor(state, bucket, region, role, images)
    try:
        supervisor.start(s3_port, sagemaker_port, s3_endpoint_url)
        supervisor.watch()
    except StartError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    finally:
        supervisor.stop()


class _Service:
    """One service: its command and the process that runs it now."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command, self._environment, self._folder = command, environment, folder
        self._restarts = 0  # in a row
        self.start()

    def start(self) -> None:
        self._started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )

    def pause_before_restart(self) -> float:
        """Count a restart; return the seconds to wait before it.

        Raises
        ------
        StartError
            If there have been too many.
        """
        if time.monotonic() - self._started > _STAYED_UP_SECONDS:
            self._restarts = 0
        if self._restarts == _MOST_RESTARTS:
            raise StartError(
                f"the {self.name} service does not stay up, it ended with status "
                f"{self.process.returncode}; see {self.log}"
            )
        pause = _FIRST_PAUSE_SECONDS * 2.0**self._restarts
        self._restarts += 1
        return pause

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(_GRACE_SECONDS[self.name])
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Supervisor:
    """Starts, watches and ends the services of one state folder."""

    def __init__(
        self, state: Path, bucket: str, region: str, role: str, images: Sequence[str]
    ) -> None:
        self._state = state
        self._folder = services_folder(state)
        self._bucket = bucket
        self._region = region
        self._role = role
        self._images = images
        self._services: list[_Service] = []
        self._ports: dict[str, int] = {}
        self._asked_to_end = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def start(
        self, s3_port: int | None, sagemaker_port: int | None, s3_endpoint_url: str | None
    ) -> None:
        """Start both services, wait until they answer and write down where they are.

        Raises
        ------
        StartError
            If a port that was asked for is taken, or a service ends or does not answer.
        """
        ports = self._ports = self._choose_ports(
            {"s3.port": s3_port, _SAGEMAKER_PORT: sagemaker_port}
        )
        key, secret = self._credentials()
        environment = _clean_environment() | {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": self._region,
        }
        s3_url = s3_endpoint_url or f"http://{_HOST}:{ports['s3.port']}"
        if not s3_endpoint_url:
            data = self._state / "objects"
            data.mkdir(parents=True, exist_ok=True)
            command = object_store.command(data, self._bucket, ports)
            self._start("object_store", command, environment | object_store.environment())
        session = isolated_session(key, secret, self._region)
        self._wait_until(
            "object_store", lambda: object_store.has_bucket(session, s3_url, self._bucket)
        )

        sagemaker_url = f"http://{_HOST}:{ports[_SAGEMAKER_PORT]}"
        self._start(
            "sagemaker",
            [
                sys.executable,
                "-m",
                "recsys_assets.sagemaker_local",
                f"--port={ports[_SAGEMAKER_PORT]}",
                f"--state={self._state / 'sagemaker'}",
                "--exit-with-parent",
                f"--role={self._role}",
                *(f"--image={image}" for image in self._chosen_images()),
            ],
            environment | {"AWS_ENDPOINT_URL_S3": s3_url},
        )
        self._wait_until("sagemaker", lambda: _accepts(ports[_SAGEMAKER_PORT]))
        self._record = Services(
            s3_url=s3_url,
            sagemaker_url=sagemaker_url,
            access_key_id=key,
            secret_access_key=secret,
            region=self._region,
            bucket=self._bucket,
            supervisor=ProcessIdentity.of(os.getpid()),
            children=(),
        )
        self._write_record()

    def watch(self) -> None:
        """Start services that have ended again, until told to end or until the folder is gone.

        Raises
        ------
        StartError
            If a service does not stay up.
        """
        while not self._asked_to_end.wait(0.5):
            for service in self._services:
                if not self._folder.is_dir():
                    return
                if service.process.poll() is not None:
                    self._restart(service)

    def stop(self) -> None:
        """End the services, the endpoint first: it may still be writing to the store.

        The object store keeps connections open for half a minute when asked to end; its data are
        safe when it is killed, so that it gets a few seconds only.
        """
        for service in reversed(self._services):
            service.stop()
        object_store.remove_sockets(self._ports.values())
        remove_services(self._state)

    def _start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._services.append(_Service(name, command, environment, self._folder))

    def _restart(self, service: _Service) -> None:
        pause = service.pause_before_restart()
        click.echo(
            f"the {service.name} service ended with status {service.process.returncode}; "
            f"it is started again in {pause:g} s",
            err=True,
        )
        if not self._asked_to_end.wait(pause) and self._folder.is_dir():
            service.start()
            self._write_record()

    def _write_record(self) -> None:
        children = tuple(ProcessIdentity.of(service.process.pid) for service in self._services)
        write_services(self._state, replace(self._record, children=children))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_end.set()

    def _wait_until(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not ready():
            log = self._folder / f"{name}.log"
            for service in self._services:
                status = service.process.poll()
                if status is not None:
                    said = service.log.read_text(errors="replace").strip().rpartition("\n")[2]
                    raise StartError(
                        f"the {service.name} service ended with status {status}; "
                        f"see {service.log}: {said}"
                    )
            if time.monotonic() > deadline:
                raise StartError(f"the {name} service did not answer within a minute; see {log}")
            if self._asked_to_end.is_set():
                raise StartError("stopped while starting")
            time.sleep(0.1)

    def _choose_ports(self, asked: dict[str, int | None]) -> dict[str, int]:
        """Take the ports asked for, else those of last time, else free ones; write them down."""
        path = self._folder / "ports.json"
        last = json.loads(path.read_text()) if path.exists() else {}
        chosen: dict[str, int] = {}
        for name in (*object_store.PORTS, _SAGEMAKER_PORT):
            port = asked.get(name)
            if port is not None:
                if not _is_free(port):
                    raise StartError(
                        f"port {port}, asked for {name}, is taken by another program; "
                        "free it or ask for another"
                    )
            elif name in last and _is_free(last[name]) and last[name] not in chosen.values():
                port = last[name]
            else:
                port = _free_port(taken=set(chosen.values()))
                if name in last:
                    click.echo(
                        f"port {last[name]}, used last time for {name}, is taken by another "
                        f"program; using {port}",
                        err=True,
                    )
            chosen[name] = port
        path.write_text(json.dumps(chosen))
        return chosen

    def _chosen_images(self) -> list[str]:
        """Take the images asked for, else those of last time; write them down."""
        path = self._folder / "images.json"
        if self._images:
            path.write_text(json.dumps(list(self._images)))
        chosen: list[str] = json.loads(path.read_text()) if path.exists() else []
        return chosen

    def _credentials(self) -> tuple[str, str]:
        """Return this folder's keys: those of the environment for a foreign store, else our own."""
        given = os.environ.get("RECSYS_S3_ACCESS_KEY_ID")
        if given:
            return given, os.environ.get("RECSYS_S3_SECRET_ACCESS_KEY", "")
        path = self._folder / "credentials.json"
        if not path.exists():
            content = {"key": "local" + secrets.token_hex(8), "secret": secrets.token_hex(20)}
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                json.dump(content, file)
        stored = json.loads(path.read_text())
        return stored["key"], stored["secret"]


def _clean_environment() -> dict[str, str]:
    """Return this process's environment without AWS settings and proxies of the surroundings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AWS_") and not name.lower().endswith("_proxy")
    }
    return kept | {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


def _end_with_parent() -> None:
    """Ask Linux to end this (child) process when its parent dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((_HOST, port)) == 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


def _free_port(taken: set[int]) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


if __name__ == "__main__":
    main()
