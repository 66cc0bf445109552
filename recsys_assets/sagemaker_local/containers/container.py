"""A program under SageMaker's container contract: its files, its process and its output.

The ``/opt/ml`` tree lies in a folder of the job, which ``SAGEMAKER_BASE_DIR`` names; where the
machine allows it the program finds it at ``/opt/ml`` too (``private_mount``). Which files go into
it and what the program's end means is the business of each kind of job.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from recsys_assets.sagemaker_local.containers.private_mount import ROOT, command_with_opt_ml
from recsys_assets.sagemaker_local.identity import region
from recsys_assets.sagemaker_local.s3 import path_below

HOST = "algo-1"
"""The name of a job's only host."""

_SUPERVISOR = Path(__file__).with_name("supervisor.py")

_OWN_PROGRAMS = Path(sys.executable).parent

# CloudWatch Logs takes no longer events.
_LONGEST_LINE = 256 * 1024

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ContainerFolder:
    """The tree that is ``/opt/ml`` in a container.

    Attributes
    ----------
    root
        Where it lies here.
    """

    root: Path

    @property
    def config(self) -> Path:
        """Where the program finds its configuration."""
        return self.root / "input" / "config"

    @property
    def model(self) -> Path:
        """Where training leaves a model and serving finds it."""
        return self.root / "model"

    @property
    def output(self) -> Path:
        """Where the program leaves a failure's reason and further output."""
        return self.root / "output"

    @property
    def data(self) -> Path:
        """Where the program finds its input channels."""
        return self.root / "input" / "data"

    def channel(self, name: str) -> Path:
        """Return the folder of an input channel's files."""
        return self.data / name

    @property
    def checkpoints(self) -> Path:
        """Where the program keeps checkpoints and finds those of an earlier run."""
        return self.root / "checkpoints"

    def path(self, name: str) -> Path:
        """Return the path of what is called ``name``, below ``/opt/ml``, in a container.

        Raises
        ------
        ValueError
            When the name is no path below ``/opt/ml``.
        """
        return path_below(self.root, PurePosixPath(name).relative_to(ROOT).as_posix())

    def create(self) -> None:
        """Make the folders that a program may count on."""
        for folder in (self.config, self.data, self.model, self.output / "data"):
            folder.mkdir(parents=True)

    def write_config(self, name: str, content: Mapping[str, object]) -> None:
        """Write a JSON file to ``input/config``."""
        (self.config / name).write_text(json.dumps(content), encoding="utf-8")

    def write_failure(self, reason: str) -> None:
        """Write ``output/failure``, as a program does before it fails."""
        (self.output / "failure").write_text(reason, encoding="utf-8")

    def failure(self) -> str:
        """Return what the program wrote to ``output/failure`` (up to 1,024 characters), or ''."""
        try:
            with (self.output / "failure").open(encoding="utf-8", errors="replace") as file:
                return file.read(1024).strip()
        except OSError:
            return ""


class Container:
    """A running program, its descendants and its output.

    Parameters
    ----------
    command
        The program and its arguments.
    folder
        Its ``/opt/ml``; the working directory is the folder above.
    environment
        Variables beside those of the endpoint's own environment, which a program may need to
        reach S3 as its role would let it on AWS. ``python`` is the endpoint's own.
    on_output
        Called with each batch of complete lines from standard output and standard error, from a
        thread of the container's own.
    lock
        A descriptor that the process holds open as long as it lives.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: ContainerFolder,
        environment: Mapping[str, str],
        on_output: Callable[[Sequence[str]], None],
        lock: int,
    ) -> None:
        self._on_output = on_output
        self._process = subprocess.Popen(
            # -I and -S: nothing of a user's environment reaches the supervisor, and it starts fast.
            [
                *(sys.executable, "-I", "-S", str(_SUPERVISOR)),
                *command_with_opt_ml(command, folder.root),
            ],
            cwd=folder.root.parent,
            env={
                **os.environ,
                "PATH": f"{_OWN_PROGRAMS}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
                "PYTHONUNBUFFERED": "1",
                "AWS_REGION": region(),
                "AWS_DEFAULT_REGION": region(),
                **environment,
                "SAGEMAKER_BASE_DIR": str(folder.root),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock,),
            bufsize=0,
        )
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()

    def wait(self, seconds: float | None) -> int | None:
        """Wait for the program's end; return its exit status, or None if it still runs.

        ``seconds`` is how long to wait, without limit if None.

        Statuses above 128 mean a signal, as in a shell. All output has been handed on when a
        status is returned.
        """
        try:
            status = self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        # Elsewhere than on Linux a descendant that left the process group may hold the output open.
        self._reader.join(timeout=5)
        return status

    def terminate(self) -> None:
        """Ask the program to end (SIGTERM)."""
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - opened as a pipe
        # It may have ended, or is being killed.
        with contextlib.suppress(BrokenPipeError, ValueError):
            stdin.write(b"T")

    def kill(self) -> None:
        """End the program and all that it started at once (SIGKILL), and wait for that."""
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - opened as a pipe
        stdin.close()
        self._process.wait()

    def _read_output(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - opened as a pipe
        pending = b""
        while chunk := os.read(stdout.fileno(), 1 << 16):
            *lines, pending = (pending + chunk).split(b"\n")
            if len(pending) > _LONGEST_LINE:
                lines.append(pending)
                pending = b""
            self._hand_on(lines)
        self._hand_on([pending])
        stdout.close()

    def _hand_on(self, lines: Sequence[bytes]) -> None:
        messages = [line.decode("utf-8", errors="replace") for line in lines if line]
        if messages:
            try:
                self._on_output(messages)
            except Exception:
                # The pipe must be read on, or the program would block on it.
                _logger.exception("Could not keep %d lines of output", len(messages))
