"""A code location with a job that waits until a file is there, for tests of who executes a run."""

import os
import time
from pathlib import Path

from dagster import Config, Definitions, OpExecutionContext, in_process_executor, job, op


class Waiting(Config):
    """Where the op says that it is at work, and what it waits for."""

    folder: str


@op
def wait(context: OpExecutionContext, config: Waiting) -> None:
    """Write a file named by run and process, then wait for the file `go`."""
    folder = Path(config.folder)
    (folder / f"{context.run_id}.{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.05)


@job(executor_def=in_process_executor)
def waiting() -> None:
    """Wait."""
    wait()


defs = Definitions(jobs=[waiting])
