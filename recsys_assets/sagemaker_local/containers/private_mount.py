"""A job's folder at ``/opt/ml``, seen by its program alone.

SageMaker's contract names ``/opt/ml``, and many programs have that name written in them. Where the
kernel lets a user have a private view of the file system (Linux with user namespaces), a program
is started in one; nothing outside changes. Elsewhere there is no such view, and a program has to
follow SAGEMAKER_BASE_DIR.
"""

import functools
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = "/opt/ml"
"""Where a container has the files of its job."""

# Run in the folder above the job's: puts an empty "ml" into the view of /opt, then the job's folder
# over it. Its own user namespace makes the program root; another one gives it back its user.
_ENTER = (
    'mount -t overlay overlay -o lowerdir=opt:/opt /opt && mount --bind "$1" /opt/ml && user=$2'
    ' group=$3 && shift 3 && exec unshare --user --map-user="$user" --map-group="$group" -- "$@"'
)


def command_with_opt_ml(command: Sequence[str], root: Path) -> list[str]:
    """Return a command that runs another one with a folder at ``/opt/ml``, where that can be done.

    Parameters
    ----------
    command
        A program and its arguments; it keeps its process id and its user.
    root
        The folder. The command must be run in the folder above it, which gets a folder ``opt``.

    Returns
    -------
    list of str
        The same command where there are no private views.
    """
    return _entering(command, root) if private_mounts_work() else list(command)


@functools.cache
def private_mounts_work() -> bool:
    """Return whether this machine gives programs a private view of ``/opt/ml``."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "ml")
        root.mkdir()
        try:
            status = subprocess.run(
                _entering(["touch", f"{ROOT}/seen"], root), cwd=folder, capture_output=True
            ).returncode
        except OSError:
            return False
        return status == 0 and (root / "seen").exists()


def _entering(command: Sequence[str], root: Path) -> list[str]:
    (root.parent / "opt" / "ml").mkdir(parents=True, exist_ok=True)
    enter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _ENTER, "sh"]
    return [*enter, root.name, str(os.getuid()), str(os.getgid()), *command]
