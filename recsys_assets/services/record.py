"""Where a state folder's services can be reached, as written down by their supervisor.

What belongs here: the record, its file and the identity of processes. What does not: starting or
stopping anything.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that can be told from a later one with the same number."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity":
        """Return the identity of a running process.

        Raises
        ------
        psutil.NoSuchProcess
            If it has ended.
        """
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """Return the process, or None if it has ended."""
        try:
            process = psutil.Process(self.pid)
            alive = process.create_time() == self.created and process.is_running()
            return process if alive and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True)
class Services:
    """Running services: their addresses, keys and processes."""

    s3_url: str
    sagemaker_url: str
    access_key_id: str
    secret_access_key: str
    region: str
    bucket: str
    supervisor: ProcessIdentity
    children: tuple[ProcessIdentity, ...]

    @property
    def alive(self) -> bool:
        """Whether the supervisor runs; it starts a service again that has ended."""
        return self.supervisor.find() is not None


def services_folder(state: Path) -> Path:
    """Return the folder within `state` that belongs to the services."""
    return state / "services"


def write_services(state: Path, services: Services) -> None:
    """Write the record, whole or not at all, readable by its owner alone (it holds the keys)."""
    path = _path(state)
    draft = path.with_suffix(".draft")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(services), file)
    draft.replace(path)


def read_services(state: Path) -> Services | None:
    """Read the record; None if there is none."""
    try:
        content = json.loads(_path(state).read_text())
    except FileNotFoundError:
        return None
    content["supervisor"] = ProcessIdentity(**content["supervisor"])
    content["children"] = tuple(ProcessIdentity(**child) for child in content["children"])
    return Services(**content)


def remove_services(state: Path) -> None:
    """Remove the record."""
    _path(state).unlink(missing_ok=True)


def _path(state: Path) -> Path:
    return services_folder(state) / "services.json"
