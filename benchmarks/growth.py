"""How time and memory of training and prediction grow with rows, features and rank.

    python benchmarks/growth.py                    # the table
    python benchmarks/growth.py --threads 1        # on one core

Data are generated: rows of one customer and one video, with a long tail of both. Each figure comes
of a process of its own: seconds are the median epoch's (prediction: the best of three passes), and
memory is the largest resident set of the whole process, data and libraries included; the first row
shows what those take by themselves.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from peers.measuring import measure
from scipy.sparse import csr_matrix

from recsys_assets.domain.factorization_machine.estimator import FactorizationMachineEstimator
from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters, Solver
from recsys_assets.domain.factorization_machine.model import FactorizationMachine, Floats
from recsys_assets.domain.factorization_machine.solvers.common import Progress

_SOLVERS: tuple[Solver, ...] = ("adam", "sgd", "mcmc")
_TASKS: tuple[Solver | Literal["prediction"], ...] = (*_SOLVERS, "prediction")
_EPOCHS = 5
_CHUNK_ROWS = 1 << 18  # bounds what generating needs beside the data


@dataclass(frozen=True)
class Size:
    """Of one problem."""

    rows: int = 1_000_000
    features: int = 100_000
    rank: int = 16


SIZES = (
    Size(rows=1_000, features=1_000),
    Size(),
    Size(rows=250_000),
    Size(rows=4_000_000),
    Size(features=10_000),
    Size(features=1_000_000),
    Size(rank=8),
    Size(rank=32),
    Size(rank=64),
)


@dataclass(frozen=True)
class Cell:
    """One figure: a size, what is done (a solver's name, or "prediction") and with what."""

    size: Size
    task: Solver | Literal["prediction"]
    threads: int | None


def main() -> None:
    """Print the table, or with ``--cell`` measure one figure of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, help="of training (all processors)")
    parser.add_argument("--cell", nargs=2, metavar=("CELL", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        described, answer = arguments.cell
        values = json.loads(described)
        cell = Cell(**{**values, "size": Size(**values["size"])})
        Path(answer).write_text(json.dumps(seconds_of(cell)))
        return
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{arguments.threads or 'all'} threads; load when started {os.getloadavg()[0]:.1f}\n"
    )
    headings = ["rows", "features", "rank"]
    headings += [f"{solver}: s an epoch, MB" for solver in _SOLVERS]
    headings += ["prediction: million rows a second, MB"]
    print("| " + " | ".join(headings) + " |")
    print("| --- " * len(headings) + "|", flush=True)
    for size in SIZES:
        cells = [f"{size.rows:,}", f"{size.features:,}", f"{size.rank}"]
        for task in _TASKS:
            seconds, memory = in_a_process(Cell(size, task, arguments.threads))
            shown = size.rows / seconds / 1e6 if task == "prediction" else seconds
            cells.append(f"{shown:.3g}, {memory / 1e6:.0f}")
        print("| " + " | ".join(cells) + " |", flush=True)


def in_a_process(cell: Cell) -> tuple[float, int]:
    """Return the seconds and the peak memory in bytes of a figure, measured in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "seconds.json")
        command: list[str | Path] = [
            sys.executable,
            __file__,
            "--cell",
            json.dumps(asdict(cell)),
            answer,
        ]
        usage = measure(command, Path(folder, "log.txt"))
        return float(json.loads(answer.read_text())), usage.peak_memory


def seconds_of(cell: Cell) -> float:
    """Measure one figure here."""
    generator = np.random.default_rng(0)
    X = two_hot(cell.size, generator)
    if cell.task == "prediction":
        return seconds_of_prediction(X, cell.size, generator)
    y = (3 + generator.standard_normal(cell.size.rows, dtype=np.float32)).clip(1, 5)
    hyperparameters = ExtendedHyperparameters(
        feature_dim=cell.size.features,
        num_factors=cell.size.rank,
        predictor_type="regressor",
        solver=cell.task,
        epochs=_EPOCHS,
        burn_in=1,
    )
    ends: list[float] = []  # of epochs: the time before the first one's is not only its own

    def report(progress: Progress) -> None:
        if progress.batch is None:
            ends.append(time.perf_counter())

    estimator = FactorizationMachineEstimator(hyperparameters, threads=cell.threads)
    estimator.fit(X[:100], y[:100])  # loads what is compiled
    estimator.fit(X, y, report=report)
    return float(np.median([end - begin for begin, end in pairwise(ends)]))


def seconds_of_prediction(X: csr_matrix, size: Size, generator: np.random.Generator) -> float:
    """Score all rows with a random model; return the seconds of the fastest of three passes."""

    def normal(*shape: int) -> Floats:
        return 0.1 * generator.standard_normal(shape, dtype=np.float32)

    features = size.features
    model = FactorizationMachine("regressor", 3.0, normal(features), normal(features, size.rank))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model.predict(X)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def two_hot(size: Size, generator: np.random.Generator) -> csr_matrix:
    """Return CSR float32 whose rows have a customer of 4/5 of the features and a video."""
    customers = size.features * 4 // 5
    columns = np.empty((size.rows, 2), dtype=np.int32)
    for first in range(0, size.rows, _CHUNK_ROWS):
        chunk = columns[first : first + _CHUNK_ROWS]
        tail = generator.random(chunk.shape, dtype=np.float32) ** 2  # half of it in a quarter
        chunk[:, 0] = tail[:, 0] * customers
        chunk[:, 1] = customers + tail[:, 1] * (size.features - customers)
    np.minimum(columns, size.features - 1, out=columns)  # float32 may round up
    values = np.ones(columns.size, dtype=np.float32)
    starts = np.arange(0, columns.size + 1, 2, dtype=np.int32)
    shape = (size.rows, size.features)
    return csr_matrix((values, columns.reshape(-1), starts), shape=shape, copy=False)


if __name__ == "__main__":
    main()
