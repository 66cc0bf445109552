"""The stages of a program, measured from within.

What belongs here: wall time, CPU time and peak memory of the parts of this process. What does not:
the parts. Every program of this folder writes the same file, in environments that have nothing
else in common, so nothing here needs more than Python itself.
"""

import json
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BYTES_PER_UNIT = 1 if platform.system() == "Darwin" else 1024  # of ru_maxrss


class Stages:
    """Measures stages of this process."""

    def __init__(self) -> None:
        self._measured: dict[str, dict[str, float]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what is done within, children that have ended included."""
        wall, cpu = time.perf_counter(), _cpu_seconds()
        yield
        self._measured[name] = {
            "wall": time.perf_counter() - wall,
            "cpu": _cpu_seconds() - cpu,
            "peak_memory": _peak_bytes(),
        }

    def write(self, path: Path, *, ratings: int = 0, versions: str = "") -> None:
        """Write what was measured, as JSON.

        Parameters
        ----------
        path
            The file. Beside the other arguments it holds `stages`: for each one `wall` and `cpu` in
            seconds, and `peak_memory`, the process's largest resident set until the stage's end, in
            bytes.
        ratings
            How many have passed the filter, 0 where the program does not know.
        versions
            Of what was measured, where that is not this project.
        """
        content = {"ratings": ratings, "versions": versions, "stages": self._measured}
        path.write_text(json.dumps(content))


def _cpu_seconds() -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in _usages())


def _peak_bytes() -> int:
    return max(usage.ru_maxrss for usage in _usages()) * _BYTES_PER_UNIT


def _usages() -> Iterator[resource.struct_rusage]:
    return map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
