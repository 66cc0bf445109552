"""The benchmark of the ratings' path runs whole, and its rows say what they seem to say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from recsys_assets_tests.contract.environments import SAGEMAKER_SDK_2

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def tables(*options: str | Path) -> tuple[str, dict[str, list[str]]]:
    """Run the benchmark; return what it prints, and the rows of its tables by their first cell."""
    command = [sys.executable, BENCHMARKS / "ratings_path.py", *options]
    done = subprocess.run(command, cwd=BENCHMARKS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in done.stdout.splitlines()
        if line.startswith("|")
    ]
    return done.stdout, {cells[0]: cells[1:] for cells in rows}


def test_all_stages_are_measured_and_pandas_is_shown_as_not_run_without_its_sdk() -> None:
    _, rows = tables("--rows", "3000", "--repeats", "1")
    stages = ("reading", "filtering", "matrix", "encoding", "uploading")
    wall = {name: float(rows[name][0]) for name in (*stages, "whole process")}
    assert 0 < sum(wall[stage] for stage in stages) < 2 * wall["whole process"]
    for name in (*stages, "whole process", "whole process, by Dagster"):
        assert rows[name][3] == "not run", name
    for reference in ("ISA-L's gunzip", "zcat", "plain DuckDB: reading"):
        assert float(rows[reference][0]) > 0, reference
    assert rows["3,000"][:3] == rows["whole process"][:3]


def test_malformed_lines_are_compared_with_none_and_with_nothing_else() -> None:
    printed, rows = tables("--malformed", "0.1", "--rows", "3000", "--repeats", "1")
    assert rows["2,700"][0] == "0"
    assert rows["3,000"][0] == "300"
    assert "the good rows are the same 2,700\n" in printed
    assert "all malformed: none of the 300 rows of " in printed


@pytest.mark.slow
def test_pandas_keeps_what_we_keep_and_is_compared_stage_by_stage() -> None:
    printed, rows = tables("--rows", "20000", "--repeats", "1", "--sdk", SAGEMAKER_SDK_2.python)
    assert re.search(r"we keep \d,\d+ ratings, pandas [\d.]+, .* keep \d,\d+", printed)
    for stage in ("reading", "filtering", "matrix", "encoding", "uploading", "whole process"):
        ours, pandas, ratio = (float(rows[stage][column]) for column in (0, 3, 6))
        assert ratio == pytest.approx(pandas / ours, rel=0.02), stage
