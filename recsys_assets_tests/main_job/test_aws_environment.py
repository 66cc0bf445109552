"""With ``RECSYS_ENV=aws`` only settings change: the same job through AWS's own chain."""

import json
import os
import subprocess
import sys
from pathlib import Path

from recsys_assets.services.record import Services
from recsys_assets_tests.main_job.command import exported

RECSYS = str(Path(sys.executable).with_name("recsys-assets"))


def test_the_main_job_runs_against_endpoints_that_the_aws_settings_name(
    services: Services, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("ops: {raw_ratings: {config: {generated_rows: 8000}}}")
    environment = {name: value for name, value in os.environ.items() if "RECSYS" not in name}
    environment |= exported(services) | {"RECSYS_ENV": "aws", "RECSYS_PREFIX": "as/on/aws"}
    command = [RECSYS, "run", "--state", str(tmp_path / "state"), "--config", str(config)]
    done = subprocess.run(
        [*command, "--summary", str(tmp_path / "summary.json")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "state" / "services").exists()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["recommendations"].startswith("s3://recsys/as/on/aws/recommendations/")
    assert summary["mode"] == "train"


def test_a_bucket_that_is_not_set_is_one_plain_sentence(services: Services, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if "RECSYS" not in name}
    environment |= exported(services) | {"RECSYS_ENV": "aws", "RECSYS_BUCKET": ""}
    command = [RECSYS, "run", "--state", str(tmp_path / "state")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("No bucket: set RECSYS_BUCKET.")
    assert "Traceback" not in done.stderr
