"""The files of a deployment fit each other and the project."""

import re
from pathlib import Path
from typing import Any

import yaml

from recsys_assets_tests.automation.deployment import FOLDER, SERVERS
from recsys_assets_tests.conftest import PROJECT
from recsys_assets_tests.main_job.command import only_sentence, recsys_assets

STORED = {"storage", "local_artifact_storage", "compute_logs"}


def settings(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def test_a_deployment_differs_from_the_project_in_where_things_are_stored_only() -> None:
    ours, deployed = (settings(folder / "dagster.yaml") for folder in (PROJECT, FOLDER))
    assert deployed.keys() == ours.keys()
    assert {name for name in ours if ours[name] != deployed[name]} == STORED - {
        "local_artifact_storage"
    }


def test_the_code_location_has_the_same_name_everywhere() -> None:
    (ours,) = settings(PROJECT / "workspace.yaml")["load_from"]
    (deployed,) = settings(FOLDER / "workspace.yaml")["load_from"]
    name = ours["python_module"]["location_name"]
    assert deployed["grpc_server"]["location_name"] == name
    unit = (FOLDER / "systemd" / "recsys-code-server.service").read_text()
    assert f"--location-name {name}\n" in unit


def test_the_environment_file_has_every_variable_that_a_deployment_reads() -> None:
    units = [FOLDER / "systemd" / f"recsys-{name}.service" for name in SERVERS]
    texts = [p.read_text() for p in (FOLDER / "dagster.yaml", FOLDER / "workspace.yaml", *units)]
    read = set(re.findall(r"(?:env: |\$\{)(\w+)", "\n".join(texts)))
    given = re.findall(r"^(\w+)=", (FOLDER / "recsys.env").read_text(), flags=re.MULTILINE)
    assert "RECSYS_POSTGRES_URL" in read
    assert read <= set(given)


def test_a_dagster_home_of_the_users_own_is_kept(tmp_path: Path) -> None:
    state, home = tmp_path / "state", str(tmp_path / "home")
    said = only_sentence(recsys_assets("run", "--state", state, DAGSTER_HOME=home))
    assert said == f"there is no dagster.yaml in {home}: unset DAGSTER_HOME"
