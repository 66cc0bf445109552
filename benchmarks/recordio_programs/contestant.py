"""What every contestant of ``recordio.py`` does: take rows, write and read them, tell the times.

What belongs here: what the programs share. What does not: any codec, and anything of this project,
which the SageMaker SDK's environment does not have.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

Floats = npt.NDArray[np.float32]
Write = Callable[[csr_matrix, Floats], bytes]
Read = Callable[[bytes], tuple[csr_matrix, Floats]]


def contend(write: Write, read: Read, arguments: list[str]) -> None:
    """Write rows to bytes and read these back, several times, and write down the CPU seconds.

    Parameters
    ----------
    write, read
        The codec, from arrays to bytes in memory and back.
    arguments
        ``ROWS.npz`` with the arrays of a CSR matrix and labels, how often, and ``ANSWER.json`` for
        the seconds of each time and the SHA-256 of the bytes.
    """
    source, repeats, answer = Path(arguments[0]), int(arguments[1]), Path(arguments[2])
    with np.load(source) as arrays:
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        matrix = csr_matrix(parts, shape=tuple(arrays["shape"]), copy=False)
        labels = arrays["labels"]
    content = write(matrix, labels)
    found, found_labels = read(content)
    for name in ("data", "indices", "indptr"):
        if not np.array_equal(getattr(found, name), getattr(matrix, name)):
            sys.exit(f"expected the {name} that were written, read others")
    if not np.array_equal(found_labels, labels):
        sys.exit("expected the labels that were written, read others")
    del found, found_labels
    told = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "writing": [seconds_of(lambda: write(matrix, labels)) for _ in range(repeats)],
        "reading": [seconds_of(lambda: read(content)) for _ in range(repeats)],
    }
    answer.write_text(json.dumps(told))


def seconds_of(action: Callable[[], object]) -> float:
    """Return the CPU seconds that an action takes."""
    start = time.process_time()
    action()
    return time.process_time() - start
