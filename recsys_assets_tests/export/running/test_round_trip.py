"""The exported DAG read back by dagster-airflow and dagster-airlift: the same tasks and assets."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from recsys_assets.definitions import defs
from recsys_assets_tests.contract.environments import AIRFLOW_2_DAGSTER, NoInterpreterError
from recsys_assets_tests.main_job.command import recsys_assets

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("airflow")]

PROGRAM = Path(__file__).with_name("round_trip.py")
DAG_ID = "round.trip-1"  # has what Dagster's names may not have


@pytest.fixture(scope="module")
def specs() -> dict[str, list[str]]:
    """Each asset, and what it depends on."""
    return {
        spec.key.to_user_string(): [dep.asset_key.to_user_string() for dep in spec.deps]
        for spec in defs.resolve_all_asset_specs()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported files."""
    out = tmp_path_factory.mktemp("round_trip") / "dags"
    done = recsys_assets("export", "airflow", "--out", out, "--dag-id", DAG_ID)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def found(folder: Path, specs: dict[str, list[str]]) -> Any:
    """What Airflow, dagster-airflow and dagster-airlift found in them."""
    try:
        python = AIRFLOW_2_DAGSTER.python
    except NoInterpreterError as error:
        pytest.skip(str(error))
    home = folder.parent
    (home / "specs.json").write_text(json.dumps(specs))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "AIRFLOW_HOME": str(home / "airflow"),
        "TMPDIR": str(home),  # where dagster-airflow keeps an Airflow home of its own
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }
    out = home / "found.json"
    done = subprocess.run(
        [python, PROGRAM, folder, home / "specs.json", out],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


def op_name(task: str) -> str:
    """Return the name that dagster-airflow gives a task: what Dagster does not take is `_`."""
    return "__".join(re.sub(r"\W", "_", part) for part in (DAG_ID, task))


def test_dagster_airflow_makes_an_op_of_every_task_with_the_same_edges(found: Any) -> None:
    renamed = {
        op_name(task): sorted(map(op_name, upstream)) for task, upstream in found["tasks"].items()
    }
    assert len(renamed) == len(found["tasks"]) > 20
    assert found["ops"] == renamed


def test_dagster_airlift_maps_one_task_to_every_asset(
    found: Any, specs: dict[str, list[str]]
) -> None:
    assert sorted(found["mapped"]) == sorted(specs)
    for asset, tasks in found["mapped"].items():
        (task,) = tasks
        assert task["dag_id"] == DAG_ID
        assert task["task_id"] in found["tasks"], asset


def test_an_asset_that_depends_on_another_is_mapped_to_a_task_that_follows(
    found: Any, specs: dict[str, list[str]]
) -> None:
    def before(task: str) -> set[str]:
        upstream = set(found["tasks"][task])
        return upstream.union(*map(before, upstream))

    for asset, depends_on in specs.items():
        (task,) = found["mapped"][asset]
        for other in depends_on:
            (earlier,) = found["mapped"][other]
            together = earlier["task_id"] == task["task_id"]
            assert together or earlier["task_id"] in before(task["task_id"]), (asset, other)
