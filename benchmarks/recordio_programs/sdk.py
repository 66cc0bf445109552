"""The SageMaker Python SDK 2 as a contestant of ``recordio.py``, run in an environment with it.

    python sdk.py ROWS.npz REPEATS ANSWER.json

What belongs here: calling the SDK. What does not: anything of this project.
"""

import io
import sys

import numpy as np
from contestant import Floats, contend
from sagemaker.amazon.common import read_records, write_spmatrix_to_sparse_tensor
from scipy.sparse import csr_matrix


def write(matrix: csr_matrix, labels: Floats) -> bytes:
    """Return what the SDK writes."""
    buffer = io.BytesIO()
    write_spmatrix_to_sparse_tensor(buffer, matrix, labels)
    return buffer.getvalue()


def read(content: bytes) -> tuple[csr_matrix, Floats]:
    """Put the records that the SDK reads into arrays."""
    values: list[float] = []
    keys: list[int] = []
    starts, labels, columns = [0], [], 0
    for record in read_records(io.BytesIO(content)):
        features = record.features["values"].float32_tensor
        values.extend(features.values)
        keys.extend(features.keys)
        starts.append(len(keys))
        columns = features.shape[0]
        labels.append(record.label["values"].float32_tensor.values[0])
    matrix = csr_matrix(
        (np.array(values, dtype=np.float32), np.array(keys, dtype=np.int32), np.array(starts)),
        shape=(len(labels), columns),
        copy=False,
    )
    return matrix, np.array(labels, dtype=np.float32)


if __name__ == "__main__":
    contend(write, read, sys.argv[1:])
