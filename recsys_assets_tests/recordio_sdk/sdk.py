"""The SageMaker Python SDK 2 in an environment of its own, called as a program.

What belongs here: passing matrices to and from it. What does not: which matrices, what is expected
of them, and making the environment.
"""

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from recsys_assets_tests.contract.environments import SAGEMAKER_SDK_2

_PROGRAM = Path(__file__).with_name("sdk_program.py")

Floats = npt.NDArray[np.float32]
Case = tuple[csr_matrix, Floats | None]


def as_json(matrix: csr_matrix, labels: Floats | None) -> dict[str, Any]:
    """Return a float32 CSR matrix and its labels as lists; JSON keeps every bit of a number."""
    return {
        "shape": list(matrix.shape),
        "indptr": matrix.indptr.tolist(),
        "indices": matrix.indices.tolist(),
        "data": matrix.data.tolist(),
        "labels": None if labels is None else labels.tolist(),
    }


def from_json(case: dict[str, Any]) -> Case:
    """Return what :func:`as_json` was given."""
    data = np.array(case["data"], dtype=np.float32)
    indices = np.array(case["indices"], dtype=np.int32)
    matrix = csr_matrix((data, indices, case["indptr"]), shape=tuple(case["shape"]))
    return matrix, None if case["labels"] is None else np.array(case["labels"], dtype=np.float32)


class Sdk:
    """The SDK, whose environment is made when there is none."""

    def __init__(self) -> None:
        self._python = SAGEMAKER_SDK_2.python

    def write(self, cases: list[Case]) -> list[bytes]:
        """Return what ``write_spmatrix_to_sparse_tensor`` makes of each matrix."""
        answers = self._call("write", [as_json(*case) for case in cases])
        return [bytes.fromhex(answer) for answer in answers]

    def read(self, files: list[bytes]) -> list[list[dict[str, Any]]]:
        """Return what ``read_records`` finds in each file: values, keys, shape and label."""
        answers: list[list[dict[str, Any]]] = self._call("read", [file.hex() for file in files])
        return answers

    def _call(self, command: str, items: list[Any]) -> Any:
        with TemporaryDirectory() as name:
            source, target = Path(name, "in.json"), Path(name, "out.json")
            source.write_text(json.dumps(items))
            subprocess.run(
                [self._python, _PROGRAM, command, source, target],
                check=True,
                stdout=subprocess.DEVNULL,
                env={"HOME": name, "SAGEMAKER_SUPPRESS_V2_WARNING": "1"},
            )
            return json.loads(target.read_text())
