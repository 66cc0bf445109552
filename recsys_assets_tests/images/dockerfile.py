"""A Dockerfile's instructions, read and carried out in a folder, without Docker.

What belongs here: the few instructions that the project's Dockerfiles have. What does not: what the
image is for. The folder stands for the image's root and a virtual environment for its Python; what
an instruction says of absolute paths holds below the folder.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction, such as ``COPY`` with ``a b``."""

    name: str
    text: str


def read_dockerfile(path: Path) -> list[Instruction]:
    """Return the instructions in order, each on one line."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        Instruction(*line.strip().split(maxsplit=1)) for line in joined.splitlines() if line.strip()
    ]


def copies(instructions: list[Instruction]) -> list[tuple[str, str, str | None]]:
    """Return each source that is copied, its destination, and its mode if one is given."""
    found = []
    for instruction in instructions:
        if instruction.name == "COPY":
            words = shlex.split(instruction.text)
            modes = [word.removeprefix("--chmod=") for word in words if word.startswith("--chmod=")]
            *sources, target = [word for word in words if not word.startswith("--")]
            found += [(source, target, modes[0] if modes else None) for source in sources]
    return found


class Image:
    """An image in the making.

    Parameters
    ----------
    root
        An empty folder.
    context
        The folder that ``docker build`` would be given.
    """

    def __init__(self, root: Path, context: Path) -> None:
        self._root = root
        self._context = context
        self._folder = root
        subprocess.run([sys.executable, "-m", "venv", root / "python"], check=True)
        path = os.pathsep.join([str(root / "python" / "bin"), "/usr/local/bin:/usr/bin:/bin"])
        self.environment = {"PATH": path, "HOME": str(root), "LANG": "C.UTF-8"}

    def build(self, instructions: list[Instruction]) -> None:
        """Carry out all instructions."""
        for instruction in instructions:
            text = instruction.text
            match instruction.name:
                case "FROM":
                    assert text.startswith("python:3.11"), text
                case "ENV":
                    self._set(text)
                case "WORKDIR":
                    self._folder = self._path(text)
                    self._folder.mkdir(parents=True)
                case "COPY":
                    self._copy(instruction)
                case "RUN":
                    command = ["sh", "-c", text]
                    subprocess.run(command, cwd=self._folder, env=self.environment, check=True)
                case "EXPOSE" | "LABEL":
                    pass  # nothing that a folder could do
                case name:
                    raise ValueError(f"{name} {text}: not known here")
        for path in self._root.rglob("*"):  # a layer keeps whole seconds of times
            seconds = int(path.lstat().st_mtime)
            os.utime(path, (seconds, seconds), follow_symlinks=False)

    def run(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a program, as ``docker run IMAGE COMMAND...`` would."""
        program = shutil.which(command[0], path=self.environment["PATH"])
        assert program is not None, f"{command[0]} is not on the image's PATH"
        return subprocess.Popen(
            [program, *command[1:]],
            cwd=self._folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _path(self, text: str) -> Path:
        return self._root / text[1:] if text.startswith("/") else self._folder / text

    def _set(self, text: str) -> None:
        for word in shlex.split(text):
            name, _, value = word.partition("=")
            value = re.sub("(^|:)/opt/", rf"\1{self._root}/opt/", value)
            self.environment[name] = re.sub(
                r"\$\{(\w+)\}", lambda found: self.environment[found[1]], value
            )

    def _copy(self, instruction: Instruction) -> None:
        for source, target, mode in copies([instruction]):
            found, folder = self._context / source, self._path(target)
            if found.is_dir():  # its content, without what .dockerignore leaves out
                shutil.copytree(
                    found,
                    folder,
                    ignore=shutil.ignore_patterns("__pycache__"),
                    copy_function=shutil.copy,  # with times of their own
                    dirs_exist_ok=True,
                )
                continue
            folder.mkdir(parents=True, exist_ok=True)
            copied = Path(shutil.copy(found, folder))
            if mode:
                copied.chmod(int(mode, 8))
