"""The project's own codec as a contestant of ``recordio.py``.

    python ours.py numpy|compiled ROWS.npz REPEATS ANSWER.json

What belongs here: choosing one of the two codecs, which otherwise choose themselves by size. What
does not: the codec.
"""

import sys
from typing import cast

from contestant import Floats, contend
from scipy.sparse import csr_matrix

from recsys_assets.domain import recordio


def read(content: bytes) -> tuple[csr_matrix, Floats]:
    """Return the rows and their labels, of which there are some."""
    matrix, labels = recordio.decode_recordio(content)
    return matrix, cast("Floats", labels)


if __name__ == "__main__":
    codec, *arguments = sys.argv[1:]
    least = {"numpy": sys.maxsize, "compiled": 0}[codec]
    recordio._LEAST_COMPILED_ROWS = recordio._LEAST_COMPILED_BYTES = least
    contend(recordio.encode_recordio, read, arguments)
