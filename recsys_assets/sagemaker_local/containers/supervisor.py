"""The process between the endpoint and a job's program: it sees that the program never outlives it.

The endpoint holds the other end of standard input. A byte there asks the program to end (SIGTERM);
its close, which the kernel sees to even when the endpoint is killed, ends the program and all that
it started (SIGKILL to its process group and, on Linux, to whatever has left that). Exits with the
program's status.

Run as a script by its path, so that it starts in milliseconds; only the standard library's small
modules belong here.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    """Run a program to its end and return its exit status, as a shell would report it."""
    if sys.platform == "linux":
        # What loses its parent becomes this process's child, even outside the program's group.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        sys.stderr.write(f"Cannot run {command[0]}: {error}\n")
        return 127
    # Told to end by anyone else, it takes its program along.
    signal.signal(signal.SIGTERM, lambda *_: _kill_group(program))
    threading.Thread(target=_obey, args=(program,), daemon=True).start()
    status = program.wait()
    _kill_group(program)
    _kill_children()
    return status if status >= 0 else 128 - status


def _obey(program: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 1):
        program.terminate()
    _kill_group(program)


def _kill_group(program: "subprocess.Popen[bytes]") -> None:
    # Nobody may be left; macOS denies permission to signal a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, signal.SIGKILL)


def _kill_children() -> None:
    """Kill the processes that have become this one's children, and their children in turn."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    with contextlib.suppress(OSError):  # no such list on this system
        while pids := children.read_text().split():
            for pid in map(int, pids):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
