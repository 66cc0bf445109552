"""What a program costs: wall time, CPU time and peak memory, from the kernel's own accounts.

What belongs here: running one program and measuring it from outside. What does not: what a program
does, and what it can only measure itself, such as the time of training apart from start-up.

On Linux a process's peak memory begins with what its parent held when it was started. So a program
is started by an interpreter of its own that has loaded next to nothing: this file, run as a
program, some 10 MB.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_BYTES_PER_UNIT = 1 if platform.system() == "Darwin" else 1024  # of ru_maxrss


class ProgramError(RuntimeError):
    """A program failed; the message ends with the last line that it printed."""


@dataclass(frozen=True)
class Usage:
    """Wall and CPU time in seconds, and the largest resident set in bytes, of a process."""

    wall: float
    cpu: float
    peak_memory: int


def measure(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> Usage:
    """Run a program to its end.

    Parameters
    ----------
    command
        The program and its arguments.
    log
        File for what it prints, overwritten.
    environment
        Variables that are set beside this process's own.

    Raises
    ------
    ProgramError
        If the program cannot be started or does not end with 0.
    """
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-S", "-E", Path(__file__), *command],
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    if done.returncode:
        lines = log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        raise ProgramError(f"exit code {done.returncode}: {last}")
    return Usage(**json.loads(done.stdout))


def _measure_here(command: Sequence[str]) -> int:
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
    cpu = usage.ru_utime + usage.ru_stime
    json.dump(asdict(Usage(wall, cpu, usage.ru_maxrss * _BYTES_PER_UNIT)), sys.stdout)
    return process.returncode


if __name__ == "__main__":
    code = _measure_here(sys.argv[1:])
    sys.exit(code if code >= 0 else 128 - code)  # as shells tell a signal
