"""Makes the Python environments that the peers run in.

    python benchmarks/peers/environments.py                # all of them
    python benchmarks/peers/environments.py myfm cornac    # these

What belongs here: which environments there are, and making and finding them. What does not: what is
run in them (``programs``). ``constraints`` holds what ``pip freeze`` listed in each; one whose pins
have changed is made again. PyTorch's wheels for Linux come with the libraries of its GPU code and
cannot be imported without them: 5 GB.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "recsys-assets-peers")
"""Where environments lie if no other folder is named."""

_CONSTRAINTS = Path(__file__).with_name("constraints")
_MADE = "made"  # file in an environment, written last: what it was made of


class NotMadeError(RuntimeError):
    """An environment is not there; the message says what is to be done."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with one pinned peer.

    Attributes
    ----------
    name
        Name of its folder and of its file of constraints.
    requirement
        What is installed, as pip takes it.
    version
        The Python that it needs; this program's own will do if None.
    """

    name: str
    requirement: str
    version: str | None = None

    def python(self, folder: Path) -> Path:
        """Return the interpreter of the environment below `folder`.

        Raises
        ------
        NotMadeError
            If there is no such environment, or one with other pins.
        """
        made = folder / self.name / _MADE
        if not made.exists() or made.read_text() != self._contents():
            self._base()
            program = "python benchmarks/peers/environments.py"
            raise NotMadeError(f"no environment in {folder / self.name}: {program} {self.name}")
        return folder / self.name / "bin" / "python"

    def make(self, folder: Path) -> None:
        """Make the environment below `folder`, unless it is there.

        Raises
        ------
        NotMadeError
            If there is no Python to make it with.
        subprocess.CalledProcessError
            If its packages cannot be installed.
        """
        here = folder / self.name
        made = here / _MADE
        if made.exists() and made.read_text() == self._contents():
            return
        subprocess.run([self._base(), "-m", "venv", "--clear", here], check=True)
        constraints = _CONSTRAINTS / f"{self.name}.txt"
        pip: list[str | Path] = [here / "bin" / "pip", "install", "--quiet"]
        subprocess.run([*pip, "--constraint", constraints, self.requirement], check=True)
        made.write_text(self._contents())

    def _contents(self) -> str:
        return f"{self.requirement}\n" + (_CONSTRAINTS / f"{self.name}.txt").read_text()

    def _base(self) -> Path:
        if self.version is None:
            return Path(sys.executable)
        for python in _installed_pythons(self.version):
            probe = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
            answer = subprocess.run([python, "-c", probe], capture_output=True, text=True)
            if answer.returncode == 0 and answer.stdout.strip() == self.version:
                return python
        raise NotMadeError(f"needs Python {self.version}")


def _installed_pythons(version: str) -> Iterator[Path]:
    """Yield what may be an interpreter: the one on the path, those of pyenv."""
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python"))


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment("cornac", "cornac==3.0.1"),
        Environment("myfm", "myfm==0.5.0", version="3.12"),
        Environment("pytorch", "torch==2.15.0"),
    )
}
"""All of them, by name."""


def main() -> int:
    """Make the environments that the command line names; return how many could not be made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ENVIRONMENTS))
    parser.add_argument("--environments", type=Path, default=FOLDER, help=f"default {FOLDER}")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - ENVIRONMENTS.keys():
        parser.error(f"expected names of {', '.join(ENVIRONMENTS)}, got {', '.join(unknown)}")
    failed = 0
    for name in arguments.names or ENVIRONMENTS:
        try:
            ENVIRONMENTS[name].make(arguments.environments)
            print(f"{name}: {ENVIRONMENTS[name].python(arguments.environments)}")
        except (NotMadeError, subprocess.CalledProcessError) as error:
            print(f"{name}: not made: {error}")
            failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
