"""The command line: ``python -m recsys_assets.sagemaker_local.script_mode``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from recsys_assets.sagemaker_local.containers.container import ContainerFolder
from recsys_assets.sagemaker_local.containers.private_mount import ROOT
from recsys_assets.sagemaker_local.script_mode import training
from recsys_assets.sagemaker_local.script_mode.source import SourceError, fetch_source

_SERVING = Path(__file__).with_name("serving.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train or serve as the environment describes it; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys_assets.sagemaker_local.script_mode",
        description="Runs a user's scripts as SageMaker's framework images do.",
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="PYTHON",
        help="the Python that the scripts run in (default: this one)",
    )
    parser.add_argument("task", choices=("train", "serve"))
    options = parser.parse_args(arguments)
    folder = ContainerFolder(Path(os.environ.get("SAGEMAKER_BASE_DIR", ROOT)))
    try:
        if options.task == "train":
            return training.run(folder, options.python)
        _serve(folder, options.python)
    except SourceError as error:
        folder.write_failure(f"ClientError: {error}")
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _serve(folder: ContainerFolder, python: str) -> None:
    """Become the server of the model, whose archive or SAGEMAKER_SUBMIT_DIRECTORY has the code."""
    submitted = os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY", "/opt/ml/model/code")
    program = os.environ.get("SAGEMAKER_PROGRAM", "inference.py")
    code = fetch_source(submitted, program, folder, python)
    os.execv(  # noqa: S606 - no shell is wanted
        python, [python, str(_SERVING), str(code / program), str(folder.model)]
    )


if __name__ == "__main__":
    sys.exit(main())
