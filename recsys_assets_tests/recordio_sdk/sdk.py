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

Numbers = npt.NDArray[Any]
Case = tuple[csr_matrix, Numbers | None]
"""A matrix and its labels, of one type."""


def as_json(matrix: csr_matrix, labels: Numbers | None) -> dict[str, Any]:
    """Return a CSR matrix and its labels as lists; JSON keeps every bit of a number."""
    return {
        "dtype": matrix.dtype.name,
        "shape": list(matrix.shape),
        "indptr": matrix.indptr.tolist(),
        "indices": matrix.indices.tolist(),
        "data": matrix.data.tolist(),
        "labels": None if labels is None else labels.tolist(),
    }


def from_json(case: dict[str, Any]) -> Case:
    """Return what :func:`as_json` was given."""
    data = np.array(case["data"], dtype=case["dtype"])
    indices = np.array(case["indices"], dtype=np.int32)
    matrix = csr_matrix((data, indices, case["indptr"]), shape=tuple(case["shape"]))
    return matrix, None if case["labels"] is None else np.array(case["labels"], case["dtype"])


class Sdk:
    """The SDK, whose environment is made when there is none."""

    def __init__(self) -> None:
        self._python = SAGEMAKER_SDK_2.python

    def write(self, cases: list[Case], *, as_dense: bool = False) -> list[bytes]:
        """Return what ``write_spmatrix_to_sparse_tensor`` makes of each matrix.

        As dense, what ``write_numpy_to_dense_tensor`` makes of it.
        """
        command = "write-dense" if as_dense else "write"
        answers = self._call(command, [as_json(*case) for case in cases])
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
