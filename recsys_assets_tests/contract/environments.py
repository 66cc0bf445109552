"""Python environments of their own for clients that the project does not install.

What belongs here: which environments there are, making them and finding an interpreter for them.
What does not: what is run in them. As a program it makes those that it is given by name and prints
their interpreters. An environment is kept below ``RECSYS_TEST_ENVIRONMENTS``
(default: the user's cache folder) and made again when its requirements change. ``constraints/``
holds what ``pip freeze`` listed in each.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FOLDER = Path(
    os.environ.get("RECSYS_TEST_ENVIRONMENTS")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "recsys-assets-tests")
).absolute()
"""Where all environments are kept."""

_CONSTRAINTS = Path(__file__).with_name("constraints")
_PYTHONS = ("3.11", "3.12")  # what every environment's packages have been run with


class NoInterpreterError(RuntimeError):
    """No Python that an environment could be made with is installed."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with pinned packages.

    Attributes
    ----------
    name
        Name of its folder and of its file of constraints.
    requirements
        What is installed, as pip takes it.
    """

    name: str
    requirements: tuple[str, ...]

    @cached_property
    def python(self) -> Path:
        """The environment's interpreter; the environment is made when there is none.

        Raises
        ------
        NoInterpreterError
            If there is no Python to make it with.
        subprocess.CalledProcessError
            If its packages cannot be installed.
        """
        base = find_python()
        folder = FOLDER / self.name
        FOLDER.mkdir(parents=True, exist_ok=True)
        constraints = _CONSTRAINTS / f"{self.name}.txt"
        wanted = "\n".join([str(base), *self.requirements, constraints.read_text()])
        made = folder / "made"  # written last, so that half an environment is made again
        python = folder / "bin" / "python"
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists() or made.read_text() != wanted:
                subprocess.run([base, "-m", "venv", "--clear", folder], check=True)
                pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
                subprocess.run([*pip, "--constraint", constraints, *self.requirements], check=True)
                made.write_text(wanted)
        return python


def find_python() -> Path:
    """Return an interpreter that environments can be made with.

    Raises
    ------
    NoInterpreterError
        If there is none.
    """
    for python in _installed_pythons():
        probe = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
        answer = subprocess.run([python, "-c", probe], capture_output=True, text=True)
        if answer.returncode == 0 and answer.stdout.strip() in _PYTHONS:
            return python
    raise NoInterpreterError(f"no Python {' or '.join(_PYTHONS)} with ensurepip was found")


def _installed_pythons() -> Iterator[Path]:
    """Yield what may be an interpreter: this one's own, those on the path, those of pyenv."""
    yield Path(sys.base_prefix, "bin", "python3")
    for version in _PYTHONS:
        if found := shutil.which(f"python{version}"):
            yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for version in _PYTHONS:
        yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python"))


SAGEMAKER_SDK_2_VERSION = "2.257.7"

AIRFLOW_2 = Environment(
    "airflow-2",
    ("apache-airflow==2.11.2", "apache-airflow-providers-amazon[aiobotocore]==9.39.0"),
)
AIRFLOW_3 = Environment(
    "airflow-3",
    ("apache-airflow==3.3.2", "apache-airflow-providers-amazon[aiobotocore]==9.39.0"),
)
AIRFLOW_2_DAGSTER = Environment(  # dagster-airflow has no place beside Airflow 3
    "airflow-2-dagster",
    (*AIRFLOW_2.requirements, "dagster-airflow==1.13.27", "dagster-airlift[core]==0.29.27"),
)
AWS_CLI = Environment("aws-cli", ("awscli==1.46.3",))
BOTO3 = Environment("boto3", ("boto3==1.44.5",))
MOTO = Environment("moto", ("moto[server]==5.2.5",))
MXNET = Environment("mxnet", ("mxnet==1.9.1", "numpy==1.23.5", "scipy==1.10.0"))
PYSPARK = Environment("pyspark", ("pyspark==3.5.8",))
SAGEMAKER_SDK_2 = Environment("sagemaker-sdk-2", (f"sagemaker[scipy]=={SAGEMAKER_SDK_2_VERSION}",))
SAGEMAKER_SDK_3 = Environment("sagemaker-sdk-3", ("sagemaker==3.27.0",))

ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        AIRFLOW_2,
        AIRFLOW_2_DAGSTER,
        AIRFLOW_3,
        AWS_CLI,
        BOTO3,
        MOTO,
        MXNET,
        PYSPARK,
        SAGEMAKER_SDK_2,
        SAGEMAKER_SDK_3,
    )
}
"""All of them, by name."""

if __name__ == "__main__":
    for name in sys.argv[1:]:
        sys.stdout.write(f"{ENVIRONMENTS[name].python}\n")
