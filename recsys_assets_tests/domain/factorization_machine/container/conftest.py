"""The folder tree that SageMaker gives a container, in a temporary place."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys_assets.domain.recordio import write_recordio

PROGRAMS = "recsys_assets.domain.factorization_machine.container"


class Container:
    """One container: its folders, and starting a program in it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        for folder in ("input/config", "input/data", "model", "output"):
            (base / folder).mkdir(parents=True)
        self.configure("resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1"]})
        self.configure("inputdataconfig", {})

    def configure(self, name: str, content: object) -> None:
        (self.base / "input" / "config" / f"{name}.json").write_text(json.dumps(content))

    def add_file(
        self, channel: str, name: str, X: csr_matrix, y: np.ndarray | None, **config: str
    ) -> None:
        path = self.base / "input" / "data" / channel / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_recordio(path, X, y)
        file = self.base / "input" / "config" / "inputdataconfig.json"
        usual = {"ContentType": "application/x-recordio-protobuf", "TrainingInputMode": "File"}
        self.configure("inputdataconfig", json.loads(file.read_text()) | {channel: usual | config})

    def start(
        self, program: str, before: Sequence[str] = (), **environment: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*before, sys.executable, "-m", f"{PROGRAMS}.{program}"],
            env=os.environ | {"SAGEMAKER_BASE_DIR": str(self.base)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(self, hyperparameters: dict[str, Any], **environment: str) -> tuple[int, str]:
        """Run the training program to its end; return its exit code and standard output."""
        self.configure("hyperparameters", hyperparameters)
        process = self.start("train", **environment)
        output, errors = process.communicate(timeout=120)
        return process.returncode, output + errors

    @property
    def failure(self) -> str:
        return (self.base / "output" / "failure").read_text()


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path / "ml")
