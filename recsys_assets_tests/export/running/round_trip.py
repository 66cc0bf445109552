"""Back from the DAG: what Dagster's own tools for Airflow make of an exported one.

What belongs here: a program for an environment with Airflow 2, dagster-airflow and dagster-airlift,
which writes what it has found as JSON. What does not: what is expected
(``test_round_trip.py``). Usage: ``python round_trip.py FOLDER SPECS OUT``, where FOLDER has the
files that were exported and SPECS maps each asset's key to those it depends on.
"""

import json
import sys
from pathlib import Path
from typing import Any

from airflow.models.dagbag import DagBag
from dagster import AssetSpec, Definitions
from dagster_airflow import make_dagster_definitions_from_airflow_dags_path
from dagster_airlift.constants import TASK_MAPPING_METADATA_KEY
from dagster_airlift.core import assets_with_task_mappings


def tasks_of(folder: Path) -> dict[str, list[str]]:
    """Return what each task follows, as Airflow reads the file."""
    (dag,) = DagBag(str(folder), include_examples=False).dags.values()
    return {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks}


def ops_of(folder: Path) -> dict[str, list[str]]:
    """Return what each op follows in the job that dagster-airflow makes of the DAG."""
    definitions = make_dagster_definitions_from_airflow_dags_path(str(folder))
    (job,) = definitions.resolve_all_job_defs()
    upstream = job.graph.dependency_structure.all_upstream_outputs_from_node
    return {op: sorted(out.node_name for out in upstream(op)) for op in job.graph.node_dict}


def mapped(mapping: dict[str, Any], specs: dict[str, list[str]]) -> dict[str, list[Any]]:
    """Return the tasks of each asset, as dagster-airlift writes them down."""
    assets = assets_with_task_mappings(
        dag_id=mapping["dag_id"],
        task_mappings={
            task: [AssetSpec(asset, deps=specs[asset]) for asset in assets]
            for task, assets in mapping["tasks"].items()
        },
    )
    return {
        spec.key.to_user_string(): spec.metadata[TASK_MAPPING_METADATA_KEY]
        for spec in Definitions(assets).resolve_all_asset_specs()
    }


if __name__ == "__main__":
    exported, specs_file, out = map(Path, sys.argv[1:])
    (mapping_file,) = exported.glob("*.assets.json")
    content = json.loads(mapping_file.read_text())
    found = {
        "tasks": tasks_of(exported),
        "ops": ops_of(exported),
        "mapped": mapped(content, json.loads(specs_file.read_text())),
    }
    out.write_text(json.dumps(found))
