"""Write ``golden.json`` anew: matrices and the bytes that the SDK itself makes of them.

What belongs here: the golden matrices. What does not: comparing (``test_golden.py``). Usage::

    python -m recsys_assets_tests.recordio_sdk.make_golden
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from recsys_assets_tests.contract.environments import SAGEMAKER_SDK_2_VERSION
from recsys_assets_tests.recordio_sdk.sdk import Case, Sdk, as_json

GOLDEN = Path(__file__).with_name("golden.json")


def golden_cases() -> dict[str, Case]:
    """Return the matrices by what they are about."""
    two_hot = _matrix(5, [{0: 1, 3: 1}, {1: 1, 4: 1}, {2: 1, 3: 1}])
    ragged = _matrix(300, [{}, {7: 1}, {0: 1.5, 127: -2, 128: 0.1, 299: 3}, {}, {128: 7}, {}])
    # The first and last keys that take one, two, three and four bytes.
    edges = [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 2_199_999]
    wide = _matrix(
        2_200_000, [{key: 1} for key in edges] + [{0: 1, 2_199_999: 1}, dict.fromkeys(edges, 1)]
    )
    numbers = [0.0, -0.0, 0.1, -1.25, 1e-45, 3.4028234663852886e38, 16_777_217, 1 / 3]
    # Sizes of a row's fields at which a length takes one more byte.
    lengths = [1, 7, 8, 20, 21, 22, 23, 24, 25, 31, 32, 33, 127, 128]
    cases = {
        "two ones a row, with labels": (two_hot, _floats([4, 3.5, 1])),
        "two ones a row, without labels": (two_hot, None),
        "ragged and empty rows, with labels": (ragged, _floats([1, 2, 3, 4, 5, 0])),
        "ragged and empty rows, without labels": (ragged, None),
        "empty rows alone": (_matrix(3, [{}, {}]), _floats([1, 2])),
        "no rows": (_matrix(3, []), None),
        "keys of one to four bytes, with labels": (wide, _floats(range(10))),
        "keys of one to four bytes, without labels": (wide, None),
        "float32 at its limits": (
            _matrix(8, [dict(enumerate(numbers))] * 8),
            _floats(numbers),
        ),
        "rows of many lengths": (
            _matrix(200, [dict.fromkeys(range(length), 1) for length in lengths]),
            _floats(lengths),
        ),
    }
    for columns in (1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152):
        last = _matrix(columns, [{columns - 1: 1}, {0: 1}])
        cases[f"{columns:,} columns"] = (last, _floats([1, 5]))
    return cases


def other_cases() -> dict[str, Case]:
    """Return matrices of types that are read and not written."""
    numbers = [0.1, -1e300, 5e-324, 1 / 3]
    whole = [2**31 - 1, -(2**31), -1, 127, 128]
    doubles = _matrix(300, [dict(enumerate(numbers)), {}, {299: 7.5}], np.float64)
    # The SDK takes whole numbers of 64 bits and writes them as 32.
    integers = _matrix(300, [dict(enumerate(whole)), {}, {299: 5}], np.int64)
    return {
        "float64": (doubles, np.array([1.1, 2, 3])),
        "int32": (integers, np.array([1, -2, 3], dtype=np.int64)),
    }


def dense_cases() -> dict[str, Case]:
    """Return matrices that are written dense, one of each type."""
    dense = [[1, 2, 3], [-4, 5, 0]]
    types = {"float32": np.float32, "float64": np.float64, "int32": np.int64}
    return {
        name: (csr_matrix(np.array(dense, dtype)), np.array([1, 2], dtype))
        for name, dtype in types.items()
    }


def _matrix(
    columns: int, rows: Sequence[Mapping[int, float]], dtype: type = np.float32
) -> csr_matrix:
    data = [value for row in rows for value in row.values()]
    indices = [key for row in rows for key in row]
    indptr = np.cumsum([0, *map(len, rows)])
    return csr_matrix((np.array(data, dtype), indices, indptr), shape=(len(rows), columns))


def _floats(values: Any) -> np.ndarray:
    return np.array(list(values), dtype=np.float32)


def golden_text(sdk: Sdk) -> str:
    """Return what belongs in the file."""
    parts = {
        "cases": _lines(golden_cases(), sdk.write([*golden_cases().values()])),
        "others": _lines(other_cases(), sdk.write([*other_cases().values()])),
        "dense": _lines(dense_cases(), sdk.write([*dense_cases().values()], as_dense=True)),
    }
    listed = ",\n".join(f'"{name}": [\n{lines}\n]' for name, lines in parts.items())
    return f'{{"sagemaker": "{SAGEMAKER_SDK_2_VERSION}",\n{listed}}}\n'


def _lines(cases: Mapping[str, Case], files: Sequence[bytes]) -> str:
    return ",\n".join(
        json.dumps({"name": name, **as_json(*case), "recordio": file.hex()}, separators=(",", ":"))
        for (name, case), file in zip(cases.items(), files, strict=True)
    )


def main() -> None:
    """Make the environment if there is none, and write the file."""
    GOLDEN.write_text(golden_text(Sdk()))


if __name__ == "__main__":
    main()
