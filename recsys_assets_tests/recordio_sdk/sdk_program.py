"""A program for the SDK's environment: matrices to RecordIO bytes, or RecordIO bytes to records.

What belongs here: calls of the SDK. What does not: anything of this project, which that environment
does not have. Usage: ``sdk_program.py write|write-dense|read INPUT.json OUTPUT.json``.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sagemaker.amazon.common import (
    read_records,
    write_numpy_to_dense_tensor,
    write_spmatrix_to_sparse_tensor,
)
from scipy.sparse import csr_matrix


def write(case: dict[str, Any], *, as_dense: bool) -> str:
    """Return a matrix and its labels as RecordIO, in hexadecimal digits."""
    data = np.array(case["data"], dtype=case["dtype"])
    indices = np.array(case["indices"], dtype=np.int32)
    matrix = csr_matrix((data, indices, case["indptr"]), shape=tuple(case["shape"]))
    labels = None if case["labels"] is None else np.array(case["labels"], dtype=case["dtype"])
    buffer = io.BytesIO()
    if as_dense:
        write_numpy_to_dense_tensor(buffer, matrix.toarray(), labels)
    else:
        write_spmatrix_to_sparse_tensor(buffer, matrix, labels)
    return buffer.getvalue().hex()


def read(recordio: str) -> list[dict[str, Any]]:
    """Return the records of RecordIO bytes."""
    records = []
    for record in read_records(io.BytesIO(bytes.fromhex(recordio))):
        features = record.features["values"].float32_tensor
        label = list(record.label["values"].float32_tensor.values) if record.label else None
        records.append(
            {
                "values": list(features.values),
                "keys": list(features.keys),
                "shape": list(features.shape),
                "label": label,
            }
        )
    return records


if __name__ == "__main__":
    command, source, target = sys.argv[1:]
    items = json.loads(Path(source).read_text())
    is_dense = command == "write-dense"
    answers = [
        read(item) if command == "read" else write(item, as_dense=is_dense) for item in items
    ]
    Path(target).write_text(json.dumps(answers))
