"""What both Airflows make of the platform's own DAG."""

from typing import Any

import pytest

from recsys_assets.export.airflow import AirflowOptions, ProcessingOptions, export_airflow
from recsys_assets.export.graph import Graph
from recsys_assets.export.reading import read_graph
from recsys_assets_tests.export.airflow.airflow_process import Airflow

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("airflow")]

ROLE = "arn:aws:iam::123456789012:role/jobs"
PROCESSING = {
    "python_tasks": "processing",
    "processing": ProcessingOptions("image:1", ROLE, "s3://bucket/tasks"),
    "wait_for": "s3://bucket/new/*",
    "region_name": "eu-west-1",
    "deferrable": True,
}


@pytest.fixture(scope="module")
def ours() -> Graph:
    return read_graph()


@pytest.mark.parametrize("options", [{}, PROCESSING], ids=["command", "processing"])
def test_the_dag_is_parsed_as_the_graph_says(
    airflow: Airflow, ours: Graph, options: dict[str, Any]
) -> None:
    dag = airflow.write(export_airflow(ours, AirflowOptions("parsed", **options)))
    parsed = airflow.parse(dag)
    tasks = parsed["tasks"]
    ids = {task.id: f"{task.group}.{task.id}" if task.group else task.id for task in ours.tasks}
    for task in ours.tasks:
        if task.upstream and task.id != "clean_up":
            upstream = sorted(ids[name] for name in task.upstream)
            assert tasks[ids[task.id]]["upstream"] == upstream
    assert tasks["clean_up"]["teardown"]
    assert tasks["models.fm_model"]["operator"] == "SageMakerTrainingOperator"
    assert tasks["models.selected_model"]["rule"] == "none_failed_min_one_success"
    assert parsed["params"] == {param.name: param.default for param in ours.params}
    assert all(parsed["section"].values())
