"""Foreign graphs as DAGs in real Airflows, whose tasks run the real program."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys_assets.export.airflow import AirflowOptions, ProcessingOptions, export_airflow
from recsys_assets.export.graph import Kind, Task
from recsys_assets.export.reading import read_graph
from recsys_assets_tests.export.airflow.airflow_process import Airflow
from recsys_assets_tests.main_job.command import PROGRAM
from recsys_assets_tests.proxy import Proxy
from recsys_assets_tests.sagemaker_local.endpoint import (
    BUCKET,
    CREDENTIALS,
    ROLE,
    STAND_IN,
    Endpoint,
)
from recsys_assets_tests.sagemaker_local.test_training_inputs import needs_private_mounts

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("airflow")]

DEFINITIONS = "recsys_assets_tests.export.airflow.definitions"
PROJECT = Path(__file__).parents[3]


@pytest.fixture
def run(airflow: Airflow, tmp_path: Path) -> Any:
    """Run the DAG of definitions of `DEFINITIONS`."""

    def call(name: str, conf: Any = None, **options: Any) -> Any:
        # Status 1 of a task is tried again at once.
        given = AirflowOptions(dag_id=name, retry_seconds=0, **options)
        dag = airflow.write(export_airflow(read_graph(f"{DEFINITIONS}:{name}"), given))
        environment = {"TEST_STORED": str(tmp_path), "PYTHONPATH": str(PROJECT)}
        return airflow.run(dag, conf=conf, **environment)

    return call


def states(answer: Any) -> dict[str, str]:
    """Return the state of each task, by its name without its group."""
    found = {}
    for task, of_instances in answer["states"].items():
        (state,) = of_instances
        found[task.rpartition(".")[2]] = state
    return found


def test_a_diamond_runs_with_its_params(run: Any, airflow: Airflow) -> None:
    answer = run("diamond", {"numbers__upto": 5})
    assert answer["state"] == "success", airflow.log()[-5000:]
    assert set(states(answer).values()) == {"success"}
    assert set(answer["results"]["numbers.numbers"]) == {"numbers"}


@pytest.mark.parametrize(
    ("upto", "made", "left_out"), [(3, "small", "large"), (11, "large", "small")]
)
def test_what_needs_an_output_that_was_left_out_is_skipped(
    run: Any, airflow: Airflow, upto: int, made: str, left_out: str
) -> None:
    answer = run("optional", {"sizes__upto": upto})
    assert answer["state"] == "success", airflow.log()[-5000:]
    assert states(answer) == {
        "start": "success",
        "sizes": "success",
        "large_made": "success",
        "small_made": "success",
        f"after_{made}": "success",
        f"after_{left_out}": "skipped",
        "after_counted": "success",
    }
    assert set(answer["results"]["sizes"]) == {made, "counted"}


def test_all_partitions_are_made_by_mapped_tasks(run: Any, airflow: Airflow) -> None:
    answer = run("regions")
    assert answer["state"] == "success", airflow.log()[-5000:]
    assert set(states(answer).values()) == {"success"}
    assert airflow.log().count("--partition") >= 6


def test_a_partition_by_time_is_that_of_the_data_interval_or_of_the_params(
    run: Any, airflow: Airflow, tmp_path: Path
) -> None:
    assert run("days", schedule="@daily")["state"] == "success", airflow.log()[-5000:]
    (default,) = [path.name for path in (tmp_path / "daily").iterdir()]
    assert default.startswith("2026-02-0")
    answer = run("days", {"partition": "2026-01-09"}, schedule="@daily")
    assert answer["state"] == "success"
    assert {path.name for path in (tmp_path / "daily").iterdir()} == {default, "2026-01-09"}


def test_checks_that_do_not_pass_skip_what_follows_and_keep_their_results(
    run: Any, airflow: Airflow
) -> None:
    answer = run("checked", {"numbers_enough__upto": 5})
    assert answer["state"] == "success", airflow.log()[-5000:]
    assert states(answer) == {
        "start": "success",
        "numbers": "success",
        "numbers_checks": "success",
        "evens": "skipped",
    }
    assert answer["results"]["numbers.numbers_checks"]["passed"] is False
    passing = run("checked", {"numbers_enough__upto": 3})
    assert states(passing)["evens"] == "success"
    assert passing["results"]["numbers.numbers_checks"]["passed"] is True


def test_params_reach_the_program_as_they_are(run: Any, airflow: Airflow, tmp_path: Path) -> None:
    assert run("risky", {"breakable__text": (text := '\'; exit 9; "$(exit 9)" {{ 1 + 1 }} <&>ä')})
    assert text.encode() in (tmp_path / "breakable").read_bytes()


def test_a_failure_that_may_pass_is_tried_again_and_one_that_will_not_is_not(
    run: Any, airflow: Airflow
) -> None:
    broken = {"breakable__broken": True}
    passing = run("risky", broken, retries=2)
    assert passing["state"] == "failed"
    assert passing["tries"]["breakable"] == 3
    lasting = run("risky", {**broken, "breakable__for_good": True}, retries=2)
    assert lasting["state"] == "failed"
    assert lasting["tries"]["breakable"] == 1


def test_what_is_to_be_asked_for_is_skipped_unless_it_is(run: Any) -> None:
    assert states(run("risky"))["published"] == "skipped"
    assert states(run("risky", {"publish": True}))["published"] == "success"


def test_neither_skipping_nor_cleaning_up_hides_a_failure_or_makes_one(
    airflow: Airflow, tmp_path: Path
) -> None:
    graph = read_graph(f"{DEFINITIONS}:risky")
    tasks = [
        # Nothing before the task that looks at the param, so that it may skip what follows at once.
        replace(task, upstream=()) if task.kind is Kind.OPT_IN else task
        for task in graph.tasks
    ]
    graph = replace(graph, tasks=(*tasks, Task("clean_up", Kind.CLEAN_UP)))
    # Cleaning up fails.
    program = 'program() { [ "$2" != clean-up ] && recsys-assets "$@"; }; program'
    options = AirflowOptions("cleaned", retries=0, command=program)
    dag = airflow.write(export_airflow(graph, options))
    environment = {"TEST_STORED": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    well = airflow.run(dag, **environment)
    assert well["state"] == "success", airflow.log()[-5000:]
    assert states(well)["clean_up"] == "failed"
    ill = airflow.run(dag, conf={"breakable__broken": True}, **environment)
    assert ill["state"] == "failed"
    assert states(ill)["published"] == "skipped"
    assert states(ill)["clean_up"] == "failed"  # it was tried


@needs_private_mounts
def test_tasks_may_be_processing_jobs(
    airflow: Airflow, endpoint: Endpoint, object_store: str, tmp_path: Path
) -> None:
    environment = {
        **CREDENTIALS,
        "RECSYS_ENV": "aws",
        "AWS_ENDPOINT_URL_S3": object_store,
        "PYTHONPATH": str(PROJECT),
        "TEST_STORED": str(tmp_path),
    }
    processing = ProcessingOptions(
        STAND_IN, ROLE, f"s3://{BUCKET}/tasks", environment=environment, volume_gb=1
    )
    options = AirflowOptions(
        "jobs",
        python_tasks="processing",
        processing=processing,
        command=PROGRAM,
        check_interval=1,
        retry_seconds=0,
    )
    graph = read_graph(f"{DEFINITIONS}:checked")
    dag = airflow.write(export_airflow(graph, options))
    with Proxy(endpoint.url, s3=object_store) as proxy:
        answer = airflow.run(dag, conf={"numbers_enough__upto": 5}, **proxy.environment())
        assert answer["state"] == "success", airflow.log()[-5000:]
        assert states(answer)["evens"] == "skipped"
        assert answer["results"]["numbers.numbers_checks"]["passed"] is False
        assert set(answer["results"]["numbers.numbers"]) == {"numbers"}
        created = [call for call in proxy.calls if call.action == "CreateProcessingJob"]
        assert len(created) == 2
