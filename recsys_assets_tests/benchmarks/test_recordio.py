"""The benchmark of RecordIO runs whole: everyone writes the same bytes and reads the same rows."""

import subprocess
import sys
from pathlib import Path

import pytest

from recsys_assets_tests.contract.environments import SAGEMAKER_SDK_2

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def table(*options: str | Path) -> dict[tuple[str, str], list[str]]:
    """Run the benchmark; return the cells of its lines by kind of rows and program."""
    command = [sys.executable, BENCHMARKS / "recordio.py", "--rows", "400", "--repeats", "1"]
    done = subprocess.run(
        [*command, *options], cwd=BENCHMARKS.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return {(rows.split(",")[0], program): rest for rows, program, *rest in cells}


def test_both_codecs_are_measured_and_the_sdk_is_shown_as_not_run_without_it() -> None:
    found = table()
    assert len(found) == 8
    for rows in ("400 two-hot", "200 ragged"):
        for codec in ("compiled", "numpy"):
            assert float(found[rows, codec][0].replace(",", "")) > 0
            assert float(found[rows, codec][2].replace(",", "")) > 0
            assert float(found[rows, codec][4]) > 0
        assert found[rows, "SageMaker SDK 2"][0] == "not run: no --sdk"


@pytest.mark.slow
def test_the_sdk_writes_the_same_bytes_and_is_compared() -> None:
    found = table("--sdk", SAGEMAKER_SDK_2.python)
    for rows in ("400 two-hot", "200 ragged"):
        assert found[rows, "SageMaker SDK 2"][1:4:2] == ["1", "1"]
        assert float(found[rows, "compiled"][1]) > 1
