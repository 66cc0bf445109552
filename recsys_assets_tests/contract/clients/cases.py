"""What the client programs share: their cases, and reporting how each went.

What belongs here: nothing of any client, and nothing that the standard library does not have. A
program names its cases with :func:`case` and ends with :func:`report`, which writes one JSON line
a case to the file that the command line names.
"""

import functools
import importlib.metadata
import json
import os
import platform
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

Result = TypeVar("Result")

BUCKET = os.environ["RECSYS_BUCKET"]
ROLE = os.environ["RECSYS_ROLE_ARN"]
REGION = os.environ["AWS_DEFAULT_REGION"]
DATA = f"s3://{BUCKET}/contract"
"""Where the data lie: ``train/``, ``test/``, ``unlabelled/``, ``many/`` and ``lines/``."""
IMAGE = f"382416733822.dkr.ecr.{REGION}.amazonaws.com/factorization-machines:1"
RECORDIO = "application/x-recordio-protobuf"
JSON_LINES = "application/jsonlines"

HYPERPARAMETERS = {
    "feature_dim": os.environ["CONTRACT_FEATURE_DIM"],
    "num_factors": "4",
    "predictor_type": "regressor",
    "epochs": "3",
    "mini_batch_size": "50",
}
ENDLESS = {**HYPERPARAMETERS, "epochs": "100000000"}
"""Hyperparameters of a training job that ends when it is stopped."""

COPYING_SCRIPT = """
import shutil
shutil.copytree("/opt/ml/processing/input", "/opt/ml/processing/output", dirs_exist_ok=True)
"""
"""A processing job's script that leaves its input as its output."""

Evidence = dict[str, Any] | None
"""What a case has seen that the tests check further, such as ``model`` and ``scores``."""


class NotRun(Exception):  # noqa: N818 - an outcome, not an error
    """A case that cannot be run here; the message says why."""


def needs_opt_ml() -> None:
    """Leave a case out where the endpoint cannot give programs their /opt/ml (see its docs)."""
    if not os.environ["CONTRACT_HAS_OPT_ML"]:
        raise NotRun("runs a program of its own, which finds no /opt/ml on this machine")


_CASES: dict[str, Callable[[], Evidence]] = {}


def case(title: str) -> Callable[[Callable[[], Evidence]], Callable[[], Evidence]]:
    """Make a function a case of the program."""

    def register(function: Callable[[], Evidence]) -> Callable[[], Evidence]:
        if title in _CASES:
            raise ValueError(f"two cases are called {title!r}")
        _CASES[title] = function
        return function

    return register


def report(*packages: str) -> None:
    """Run every case and write what came of it, after the versions of ``packages``."""
    with Path(sys.argv[1]).open("w", buffering=1) as file:
        versions = {package: importlib.metadata.version(package) for package in packages}
        python = platform.python_version()
        file.write(json.dumps({"versions": {"Python": python, **versions}}) + "\n")
        for title, function in _CASES.items():
            if len(sys.argv) > 2 and sys.argv[2] not in title:
                continue
            file.write(json.dumps({"case": title, **_outcome(function)}) + "\n")


def _outcome(function: Callable[[], Evidence]) -> dict[str, Any]:
    try:
        evidence = function()
    except NotRun as reason:
        return {"result": "not run", "detail": str(reason)}
    except Exception as error:
        lines = traceback.format_exception(error, limit=-3, chain=False)
        return {"result": "failed", "detail": "".join(lines).strip()}
    return {"result": "passed", **({"evidence": evidence} if evidence else {})}


def once(function: Callable[[], Result]) -> Callable[[], Result]:
    """Call a function once for all cases that need it; if it fails, each of them does."""

    @functools.cache
    def outcome() -> tuple[Result | None, Exception | None]:
        try:
            return function(), None
        except Exception as error:
            return None, error

    def repeated() -> Result:
        result, error = outcome()
        if error is not None:
            raise error
        return cast("Result", result)

    return repeated


def unique(prefix: str) -> str:
    """Return a name that no other resource has, of at most 32 characters."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def eventually(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Return the first true value of a condition."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still {value!r} after {seconds} seconds")
        time.sleep(0.1)
    return value


def raises(expected: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Call a function that must fail with ``expected`` in its message; return the message."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        assert expected in message, f"{message!r} does not have {expected!r}"
        return message
    raise AssertionError(f"no error with {expected!r}")


def s3_key(uri: str) -> str:
    """Return the key of an S3 URI of the bucket."""
    return uri.removeprefix(f"s3://{BUCKET}/")


def scores_in(json_lines: str | bytes) -> list[float]:
    """Return the scores of JSON lines as the algorithm writes them."""
    return [json.loads(line)["score"] for line in json_lines.splitlines()]
