"""Who is compared with whom: the solvers of this project, and for each its peers.

What belongs here: the settings, and how a contestant is started. What does not: making splits
(``splits``), measuring (``measuring``) and what the Python contestants do (``programs``).

libFM is a C++ program under the GPL that whoever wants it builds from its sources; here it is only
started.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from environments import ENVIRONMENTS, FOLDER, NotMadeError
from measuring import measure
from splits import Split

_PROGRAMS = Path(__file__).with_name("programs")

# Rates and decays were chosen on a validation part of MovieLens 100K at rank 16 and 40 epochs, each
# from a few dozen: those of SGD for cornac, as the rule is the same here, those of Adam for each of
# the two, as it decays here only what a mini-batch touches, in PyTorch everything.
_SGD_RATE, _SGD_DECAY = 0.01, 0.05
_OUR_SGD = {
    "bias_lr": 0.001,  # cornac has no rate here: it takes the mean
    "linear_lr": _SGD_RATE,
    "factors_lr": _SGD_RATE,
    "bias_wd": 0.0,
    "linear_wd": _SGD_DECAY,
    "factors_wd": _SGD_DECAY,
    "linear_init_sigma": 0.0,
    "factors_init_sigma": 0.01,
}
_CORNAC_SGD = {"learning_rate": _SGD_RATE, "lambda_reg": _SGD_DECAY}
_OUR_ADAM = {
    "mini_batch_size": 1000,
    "bias_lr": 0.01,
    "linear_lr": 0.01,
    "factors_lr": 0.005,
    "bias_wd": 0.0001,
    "linear_wd": 0.0003,
    "factors_wd": 0.0003,
    "factors_init_sigma": 0.02,
}
_PYTORCH_ADAM = {
    **_OUR_ADAM,
    "factors_lr": 0.002,
    "bias_wd": 0.0,
    "linear_wd": 0.0001,
    "factors_wd": 0.00015,
    "factors_init_sigma": 0.05,
}


class NotRunError(RuntimeError):
    """A contestant is not to be had here; the message says why."""


@dataclass(frozen=True)
class Job:
    """What all contestants are given alike."""

    rank: int
    iterations: int
    threads: int


@dataclass(frozen=True)
class Outcome:
    """What came of one job on one split.

    Attributes
    ----------
    rmse
        Of the test ratings, in stars.
    wall, cpu
        Seconds of training, start-up, reading and predicting apart.
    rate
        Training ratings learned from in a second of CPU time, each once an iteration.
    process_wall, process_cpu
        Seconds of the whole process.
    peak_memory
        Bytes.
    """

    rmse: float
    wall: float
    cpu: float
    rate: float
    process_wall: float
    process_cpu: float
    peak_memory: int


class Contestant(Protocol):
    """Someone who can do a job."""

    @property
    def name(self) -> str:
        """What the table says."""

    def run(self, split: Split, job: Job) -> Outcome:
        """Do the job.

        Raises
        ------
        NotRunError
            If the contestant is not to be had here.
        measuring.ProgramError
            If it fails.
        """


@dataclass(frozen=True)
class PythonProgram:
    """A file of ``programs``, run in the environment of that name, or in this program's own.

    One with an `iterations_divisor` does so many times fewer iterations than the job says.
    """

    name: str
    file: str
    settings: dict[str, Any]
    environment: str | None = None
    environments: Path = FOLDER
    iterations_divisor: int = 1

    def run(self, split: Split, job: Job) -> Outcome:
        """Do the job (see :class:`Contestant`)."""
        iterations = job.iterations // self.iterations_divisor
        predictions, times = split.folder / "predictions.npy", split.folder / "times.json"
        task = {
            "train": str(split.folder / "train.npz"),
            "test": str(split.folder / "test.npz"),
            "predictions": str(predictions),
            "times": str(times),
            "customers": split.customers,
            "videos": split.videos,
            "rank": job.rank,
            "iterations": iterations,
            "threads": job.threads,
            "seed": split.seed,
            "settings": self.settings,
        }
        described = split.folder / "task.json"
        described.write_text(json.dumps(task))
        command = [self._python(), _PROGRAMS / self.file, described]
        usage = measure(command, split.folder / "log.txt", _only_threads(job.threads))
        training = json.loads(times.read_text())
        return Outcome(
            rmse=split.rmse(np.load(predictions)),
            wall=training["wall"],
            cpu=training["cpu"],
            rate=split.train_ratings * iterations / training["cpu"],
            process_wall=usage.wall,
            process_cpu=usage.cpu,
            peak_memory=usage.peak_memory,
        )

    def _python(self) -> Path:
        if self.environment is None:
            return Path(sys.executable)
        try:
            return ENVIRONMENTS[self.environment].python(self.environments)
        except NotMadeError as error:
            raise NotRunError(str(error)) from None


@dataclass(frozen=True)
class LibFM:
    """libFM's sampler, with hyperpriors of their own for customers and videos.

    Its whole process counts as training: what else it does, reading its text, takes a few percent.
    """

    program: Path | None
    name: str = "libFM"

    def run(self, split: Split, job: Job) -> Outcome:
        """Do the job (see :class:`Contestant`)."""
        if self.program is None:
            raise NotRunError("--libfm does not name the program")
        if shutil.which(self.program) is None:
            raise NotRunError(f"{self.program} is no program")
        predictions = split.folder / "predictions.libfm"
        options = {
            "task": "r",
            "method": "mcmc",
            "train": split.folder / "train.libfm",
            "test": split.folder / "test.libfm",
            "meta": split.folder / "groups.libfm",
            "dim": f"1,1,{job.rank}",
            "iter": job.iterations,
            "seed": split.seed,
            "out": predictions,
        }
        command: list[str | Path] = [self.program]
        for name, value in options.items():
            command += [f"-{name}", str(value)]
        usage = measure(command, split.folder / "log.txt")
        return Outcome(
            rmse=split.rmse(np.loadtxt(predictions)),
            wall=usage.wall,
            cpu=usage.cpu,
            rate=split.train_ratings * job.iterations / usage.cpu,
            process_wall=usage.wall,
            process_cpu=usage.cpu,
            peak_memory=usage.peak_memory,
        )


def contestants(environments: Path, libfm: Path | None) -> dict[str, Sequence[Contestant]]:
    """Return who is compared, by solver; the first is this project."""

    def peer(name: str, environment: str, settings: dict[str, Any]) -> PythonProgram:
        return PythonProgram(name, f"run_{environment}.py", settings, environment, environments)

    def ours(solver: str, settings: dict[str, Any]) -> PythonProgram:
        return PythonProgram(f"ours, {solver}", "run_ours.py", {"solver": solver, **settings})

    def quarter(sampler: PythonProgram) -> Contestant:
        """Do a quarter of the sweeps: what an error costs here and there."""
        name = f"{sampler.name}, a quarter of the sweeps"
        return replace(sampler, name=name, iterations_divisor=4)

    sampler, my_fm = ours("mcmc", {}), peer("myFM", "myfm", {})
    return {
        "mcmc": (sampler, LibFM(libfm), my_fm, quarter(sampler), quarter(my_fm)),
        "sgd": (ours("sgd", _OUR_SGD), peer("cornac, SGD", "cornac", _CORNAC_SGD)),
        "adam": (ours("adam", _OUR_ADAM), peer("PyTorch, Adam", "pytorch", _PYTORCH_ADAM)),
    }


def _only_threads(threads: int) -> dict[str, str]:
    """Return variables by which libraries are told how many threads to use."""
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA")
    return {f"{name}_NUM_THREADS": str(threads) for name in names}
