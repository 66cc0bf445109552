"""The task that every Python program of this folder does: fit to one file, predict another.

What belongs here: reading the task, and timing. What does not: any one library. It runs in each
library's own environment, so it needs numpy alone.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Ratings(NamedTuple):
    """Customers and videos by index (int64) and stars (float32), one entry a rating."""

    customers: npt.NDArray[np.int64]
    videos: npt.NDArray[np.int64]
    stars: npt.NDArray[np.float32]

    def first(self, count: int) -> "Ratings":
        """Return the first of them."""
        return Ratings(self.customers[:count], self.videos[:count], self.stars[:count])


_WARM_UP_RATINGS, _WARM_UP_ITERATIONS = 1000, 25  # more iterations than a sampler's burn-in

Predict = Callable[[Ratings], npt.NDArray[Any]]


@dataclass(frozen=True)
class Task:
    """What to fit: `settings` are those of the solver, for instance its learning rate."""

    train: str
    test: str
    predictions: str
    times: str
    customers: int
    videos: int
    rank: int
    iterations: int
    threads: int
    seed: int
    settings: dict[str, Any]


def run(fit: Callable[[Ratings, Task], Predict]) -> None:
    """Do the task in the file that the command line names.

    Written are predictions (.npy) and the wall and CPU seconds of `fit` (JSON). A fit to some of
    the ratings goes before, untimed, so that what is loaded or compiled once a process is not
    counted as training; the whole process's times, which others take, contain it.
    """
    task = Task(**json.loads(Path(sys.argv[1]).read_text()))
    train, test = _read(task.train), _read(task.test)
    fit(
        train.first(_WARM_UP_RATINGS),
        replace(task, iterations=min(_WARM_UP_ITERATIONS, task.iterations)),
    )
    wall, cpu = time.perf_counter(), time.process_time()
    predict = fit(train, task)
    times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    Path(task.times).write_text(json.dumps(times))
    np.save(task.predictions, predict(test))


def _read(path: str) -> Ratings:
    with np.load(path) as columns:
        return Ratings(**columns)
