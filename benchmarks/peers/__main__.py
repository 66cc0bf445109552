"""Compares this project's factorization machine with others: error, time and memory.

    python benchmarks/peers                                      # on generated ratings
    python benchmarks/peers --ratings ml-100k movietweetings     # on these, one after the other

Everyone gets the same random 90/10 splits, rank, number of iterations and number of threads, one
process after the other. Peers run in environments that ``environments.py`` makes, libFM where
``--libfm`` names its program; one that is missing is in the table, with the reason. The table is
Markdown: RMSE (mean and its standard error over splits), its difference to this project's solver of
the same kind (mean and standard error of the paired differences), and medians over splits of
seconds and memory, with ratios to this project's.
"""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from arguments import positive
from contestants import Contestant, Job, NotRunError, contestants
from environments import FOLDER
from measuring import ProgramError
from splits import Split, generate_ratings, make_splits

from recsys_assets.domain.ratings.formats import AUTO, FORMATS
from recsys_assets.domain.ratings.rejects import RatingsError

_HEADINGS = (
    "ratings",
    "rank",
    "program",
    "test RMSE",
    "RMSE against ours",
    "training wall, s",
    "training CPU, s (÷ ours)",
    "million ratings a CPU second",
    "process wall / CPU, s",
    "peak memory, MB (÷ ours)",
)


def main() -> None:
    """Run all contestants; print a row of the table as soon as it is known."""
    arguments = _arguments()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"{arguments.splits} splits, {arguments.threads} thread(s) each; iterations: mcmc "
        f"{arguments.sweeps}, sgd and adam {arguments.epochs}; load when started "
        f"{os.getloadavg()[0]:.1f}\n"
    )
    solvers = contestants(arguments.environments, arguments.libfm)
    print(_row(_HEADINGS))
    print("| --- " * len(_HEADINGS) + "|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = arguments.ratings or [generate_ratings(folder)]
        for number, source in enumerate(sources):
            try:
                splits = make_splits(
                    source, folder / str(number), splits=arguments.splits, format=arguments.format
                )
            except RatingsError as error:
                sys.exit(f"error: {error}")
            title = source.resolve().name.partition(".")[0]
            for rank in arguments.ranks:
                for solver in arguments.solvers:
                    iterations = arguments.sweeps if solver == "mcmc" else arguments.epochs
                    job = Job(rank, iterations, arguments.threads)
                    _compare(title, solvers[solver], splits, job)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/peers", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--ratings", type=Path, nargs="+", metavar="PATH", help="files or folders (generated ones)"
    )
    parser.add_argument("--format", choices=FORMATS, default=AUTO, help="of the ratings (auto)")
    parser.add_argument("--ranks", type=positive, nargs="+", default=[8, 16, 32], help="8 16 32")
    parser.add_argument("--splits", type=positive, default=5, help="how many (5)")
    parser.add_argument("--sweeps", type=positive, default=120, help="iterations of samplers (120)")
    parser.add_argument("--epochs", type=positive, default=40, help="iterations of the others (40)")
    parser.add_argument("--threads", type=positive, default=1, help="of each contestant (1)")
    parser.add_argument(
        "--solvers", nargs="+", choices=("mcmc", "sgd", "adam"), default=("mcmc", "sgd", "adam")
    )
    parser.add_argument("--libfm", type=Path, metavar="PROGRAM", help="libFM's program")
    parser.add_argument(
        "--environments", type=Path, default=FOLDER, metavar="FOLDER", help=f"{FOLDER}"
    )
    return parser.parse_args()


def _compare(title: str, entered: Sequence[Contestant], splits: list[Split], job: Job) -> None:
    """Print the rows of one solver: ours, then its peers."""
    ours = None
    for contestant in entered:
        start = (title, str(job.rank), contestant.name)
        try:
            # One row a split, one column a field of Outcome.
            outcomes = pd.DataFrame([contestant.run(split, job) for split in splits])
        except NotRunError as reason:
            print(_row([*start, f"not run: {reason}"]), flush=True)
            continue
        except (ProgramError, ValueError) as reason:
            print(_row([*start, f"failed: {reason}"]), flush=True)
            continue
        if contestant is entered[0]:
            ours = outcomes
        print(_row([*start, *_figures(outcomes, ours)]), flush=True)


def _figures(outcomes: pd.DataFrame, ours: pd.DataFrame | None) -> list[str]:
    """Return what a row says."""
    median = outcomes.median()

    def ratio(column: str) -> str:
        if ours is None:
            return "(-)"
        return f"({median[column] / ours[column].median():.2g})"

    against = "-" if ours is None else _mean(outcomes["rmse"] - ours["rmse"], sign="+")
    return [
        _mean(outcomes["rmse"]),
        "" if outcomes is ours else against,
        f"{median['wall']:.3g}",
        f"{median['cpu']:.3g} {ratio('cpu')}",
        f"{median['rate'] / 1e6:.2g}",
        f"{median['process_wall']:.1f} / {median['process_cpu']:.1f}",
        f"{median['peak_memory'] / 1e6:.0f} {ratio('peak_memory')}",
    ]


def _mean(values: "pd.Series[float]", sign: str = "") -> str:
    """Return the mean and, of more than one value, its standard error."""
    mean = f"{values.mean():{sign}.4f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.4f}"


def _row(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table, with empty cells at its end if there are too few."""
    return "| " + " | ".join([*cells, *[""] * (len(_HEADINGS) - len(cells))]) + " |"


if __name__ == "__main__":
    main()
