"""The comparison with peers measures this project, and shows who is missing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"


def test_ours_are_measured_and_missing_peers_are_shown_as_not_run(tmp_path: Path) -> None:
    ratings = tmp_path / "planted.csv"
    customers, videos = (np.random.default_rng(0).random((80, 25)) < 0.5).nonzero()
    rows = [
        f"c{customer},v{video},{1 + video % 5}"
        for customer, video in zip(customers, videos, strict=True)
    ]
    ratings.write_text("\n".join(["customer_id,video_id,rating", *rows]))
    options = {
        "ratings": ratings,
        "ranks": 4,
        "splits": 1,
        "sweeps": 80,
        "environments": tmp_path,
    }
    command = [sys.executable, PEERS]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, cwd=PEERS.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    table = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in done.stdout.splitlines()
        if line.startswith("| planted")
    ]
    rmse = {program: shown for _, _, program, shown, *_ in table}
    for missing in (
        "libFM",
        "myFM",
        "myFM, a quarter of the sweeps",
        "cornac, SGD",
        "PyTorch, Adam",
    ):
        assert rmse[missing].startswith("not run: "), missing
    # Stars follow from the video; the mean alone is wrong by 1.4 stars. Adam has had 40 steps only.
    assert float(rmse["ours, mcmc"]) < 0.2
    assert float(rmse["ours, mcmc, a quarter of the sweeps"]) < 0.5
    assert float(rmse["ours, sgd"]) < 1.5
    assert float(rmse["ours, adam"]) < 3


def test_peak_memory_is_the_programs_own_whatever_the_one_that_measures_holds() -> None:
    ballast = np.ones(1 << 28, dtype=np.uint8)

    def peak(program: str) -> int:
        measuring = [sys.executable, PEERS / "measuring.py", sys.executable, "-c", program]
        return json.loads(subprocess.check_output(measuring))["peak_memory"]

    small = peak("pass")
    assert small < ballast.nbytes / 2
    assert peak(f"b'1' * {1 << 28}") > small + (1 << 28) * 0.9
