"""How fast RecordIO-protobuf is written and read: this project beside the SageMaker SDK 2.

    python benchmarks/recordio.py --sdk PYTHON         # the table, in two minutes
    python benchmarks/recordio.py --rows 1000000       # of more rows

Everyone writes the same rows to bytes in memory, which must be the same bytes, and reads them into
the arrays of a CSR matrix and labels, which must be those that were written. Rows are two-hot, a
customer and a video each, or ragged: of 0 to 20 values. PYTHON is an interpreter that has the SDK:
``python -m recsys_assets_tests.contract.environments sagemaker-sdk-2`` makes one and prints where
it is; without it the SDK is shown as not run.

Each contestant is a process of its own on one core. Figures are of the median CPU time. "memcpy" is
numpy's copy of the same bytes into memory that is in use already.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from peers.measuring import ProgramError, measure
from recordio_programs.contestant import seconds_of
from scipy.sparse import csr_matrix

_PROGRAMS = Path(__file__).with_name("recordio_programs")
_CUSTOMERS, _VIDEOS = 140_000, 38_000  # of Digital Video, after the filter
_COLUMNS = _CUSTOMERS + _VIDEOS
_LENGTHS = (0, 1, 2, 3, 5, 8, 13, 20)  # of ragged rows
_SDK = "SageMaker SDK 2"


@dataclass(frozen=True)
class Figures:
    """Median CPU seconds of a contestant, and what it wrote."""

    writing: float
    reading: float
    bytes: int
    sha256: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000, help="two-hot; half as many ragged")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement")
    parser.add_argument("--sdk", type=Path, metavar="PYTHON", help="one with the SageMaker SDK 2")
    options = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the contestants inherit it
    print(
        f"{platform.machine()}, one core, Python {platform.python_version()}; "
        f"load when started {os.getloadavg()[0]:.1f}\n"
    )
    print("| rows | program | written, rows/s | ÷ SDK | read, rows/s | ÷ SDK | memcpy ÷ writing |")
    print("| --- " * 7 + "|")
    generator = np.random.default_rng(0)
    for name, matrix in (
        ("two-hot", two_hot(options.rows, generator)),
        ("ragged", ragged(options.rows // 2, generator)),
    ):
        labels = generator.integers(1, 6, matrix.shape[0]).astype(np.float32)
        for line in lines(name, matrix, labels, options.sdk, options.repeats):
            print(line, flush=True)


def lines(
    name: str, matrix: csr_matrix, labels: npt.NDArray[np.float32], sdk: Path | None, repeats: int
) -> list[str]:
    """Measure everyone on some rows; return the lines of the table."""
    rows = matrix.shape[0]
    ours = str(_PROGRAMS / "ours.py")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "rows.npz")
        np.savez(
            source,
            data=matrix.data,
            indices=matrix.indices,
            indptr=matrix.indptr,
            shape=matrix.shape,
            labels=labels,
        )
        figures = {
            "compiled": figures_of([sys.executable, ours, "compiled"], source, repeats),
            "numpy": figures_of([sys.executable, ours, "numpy"], source, repeats),
        }
        if sdk is not None:
            figures[_SDK] = figures_of([str(sdk), str(_PROGRAMS / "sdk.py")], source, repeats)
    if len({found.sha256 for found in figures.values()}) > 1:
        raise SystemExit(f"expected the same bytes of {name} rows, got others")
    described = f"{rows:,} {name}, {figures['compiled'].bytes / rows:.0f} bytes each"
    copying = memcpy(figures["compiled"].bytes, repeats)
    table = [f"| {described} | memcpy | {rows / copying:,.0f} | | | | 1 |"]
    for program in ("compiled", "numpy", _SDK):
        if program not in figures:
            table.append(f"| {described} | {program} | not run: no --sdk | | | | |")
            continue
        found, peer = figures[program], figures.get(_SDK)
        ratios = ["", ""]
        if peer is not None:
            ratios = [f"{peer.writing / found.writing:.0f}", f"{peer.reading / found.reading:.0f}"]
        table.append(
            f"| {described} | {program} | {rows / found.writing:,.0f} | {ratios[0]} "
            f"| {rows / found.reading:,.0f} | {ratios[1]} | {found.writing / copying:.1f} |"
        )
    return table


def figures_of(program: list[str], rows: Path, repeats: int) -> Figures:
    """Run a contestant on stored rows."""
    answer, log = rows.with_name("answer.json"), rows.with_name("log.txt")
    environment = {"SAGEMAKER_SUPPRESS_V2_WARNING": "1"}
    try:
        measure([*program, str(rows), str(repeats), str(answer)], log, environment)
    except ProgramError as error:
        raise SystemExit(f"{' '.join(program)}: {error}") from None
    told = json.loads(answer.read_text())
    medians = {name: statistics.median(told[name]) for name in ("writing", "reading")}
    return Figures(**medians, bytes=told["bytes"], sha256=told["sha256"])


def memcpy(size: int, repeats: int) -> float:
    """Return the median CPU seconds of copying so many bytes."""
    source, target = np.ones(size, dtype=np.uint8), np.zeros(size, dtype=np.uint8)
    return statistics.median(seconds_of(lambda: np.copyto(target, source)) for _ in range(repeats))


def two_hot(rows: int, generator: np.random.Generator) -> csr_matrix:
    """Return rows of a customer and a video."""
    columns = generator.integers([0, _CUSTOMERS], [_CUSTOMERS, _COLUMNS], size=(rows, 2))
    return _matrix(columns.reshape(-1), np.full(rows, 2), np.ones(2 * rows))


def ragged(rows: int, generator: np.random.Generator) -> csr_matrix:
    """Return rows of several lengths, empty ones among them, of any values."""
    lengths = generator.choice(_LENGTHS, rows)
    total = int(lengths.sum())
    return _matrix(generator.integers(_COLUMNS, size=total), lengths, generator.random(total))


def _matrix(
    columns: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> csr_matrix:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    parts = (values.astype(np.float32), columns.astype(np.int32), starts.astype(np.int32))
    return csr_matrix(parts, shape=(len(lengths), _COLUMNS), copy=False)


if __name__ == "__main__":
    main()
