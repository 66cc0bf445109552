"""The commands of docs/airflow.md, typed into a shell, in each Airflow."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from recsys_assets_tests.conftest import PROJECT
from recsys_assets_tests.contract.environments import AIRFLOW_2, AIRFLOW_3
from recsys_assets_tests.main_job.command import PROGRAM, recsys_assets, shell_environment

PAGE = (PROJECT / "docs" / "airflow.md").read_text()


def commands(heading: str) -> str:
    """Return what the page says to type below a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL))


@pytest.mark.slow
@pytest.mark.xdist_group("airflow")
def test_the_pages_commands_make_a_run_on_one_machine(python: Path, tmp_path: Path) -> None:
    programs = [python.parent, Path(PROGRAM).parent, os.environ["PATH"]]
    environment = shell_environment(PATH=os.pathsep.join(map(str, programs)), HOME=str(tmp_path))
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands("A run on one machine")],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
    finally:
        recsys_assets("services", "stop", "--state", tmp_path / ".recsys")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"DagRun Finished.*state=success", done.stdout + done.stderr)


def test_the_page_installs_what_the_tests_run_with() -> None:
    (wanted,) = re.findall(r'pip install "([\w[\]-]+)>=([\d.]+)"', commands("Install"))
    for airflow in (AIRFLOW_2, AIRFLOW_3):
        (pinned,) = (item for item in airflow.requirements if item.startswith(wanted[0]))
        assert pinned.partition("==")[2].startswith(wanted[1])


def test_the_page_has_every_option_of_the_export() -> None:
    done = recsys_assets("export", "airflow", "--help")
    exists = set(re.findall(r"--[a-z-]+", done.stdout)) - {"--help"}
    table = PAGE.partition("## Options of the export")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(--[a-z-]+)`", table)) == exists


def test_the_pages_parameters_exist() -> None:
    from recsys_assets.export.reading import read_graph

    known = {param.name for param in read_graph().params}
    named = set(
        re.findall(r'\{"(\w+)":', "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)))
    )
    assert named
    assert named <= known
