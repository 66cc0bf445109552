"""Debian's PostgreSQL on loopback, for one test.

What belongs here: a cluster of its own, started and ended. What does not: what Dagster keeps in it.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from recsys_assets_tests.sagemaker_local.endpoint import eventually, free_port

_HOST, _OWNER, _PASSWORD = "127.0.0.1", "recsys", "not-secret"


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest version's; None if there is none."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(found, key=lambda path: int(path.parts[-3]), default=None)
    return newest.parent if newest else None


@contextlib.contextmanager
def running_postgres(programs: Path) -> Iterator[str]:
    """Run an empty cluster; yield the URL of its database.

    PostgreSQL refuses to run as root, so that root runs it as another user.
    """
    folder = Path(tempfile.mkdtemp(prefix="recsys-postgres-"))
    user = _unprivileged()
    (folder / "password").write_text(_PASSWORD)
    if user is not None:
        for path in (folder, folder / "password"):
            shutil.chown(path, user)
    port = free_port()
    with (folder / "log").open("wb") as log:
        subprocess.run(
            [
                programs / "initdb",
                f"--pgdata={folder / 'data'}",
                f"--username={_OWNER}",
                f"--pwfile={folder / 'password'}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
            ],
            user=user,
            cwd=folder,
            stdout=log,
            stderr=log,
            check=True,
        )
        server = subprocess.Popen(
            [
                programs / "postgres",
                *("-D", folder / "data", "-h", _HOST, "-p", str(port), "-k", folder),
                *("-c", "fsync=off", "-c", "max_connections=200"),
            ],
            user=user,
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        ready = [programs / "pg_isready", "-h", _HOST, "-p", str(port), "-q"]
        eventually(lambda: subprocess.run(ready).returncode == 0)
        yield f"postgresql+psycopg2://{_OWNER}:{_PASSWORD}@{_HOST}:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # PostgreSQL ends at once, clients or not
        server.wait()
        shutil.rmtree(folder)


def _unprivileged() -> str | None:
    """Return whom to run the server as: None for oneself."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)
