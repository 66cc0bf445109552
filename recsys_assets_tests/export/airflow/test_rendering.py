"""The text of an exported DAG."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.export.airflow import AirflowOptions, ProcessingOptions, export_airflow
from recsys_assets.export.airflow.edges import Ends, statements
from recsys_assets.export.airflow.literals import source
from recsys_assets.export.graph import (
    Created,
    Graph,
    GraphError,
    Kind,
    Param,
    Partitions,
    Task,
)
from recsys_assets.export.reading import read_graph
from recsys_assets_tests.export.airflow import graphs

ARN = "arn:aws:iam::123456789012:role/jobs"
PROCESSING = ProcessingOptions("image:1", ARN, "s3://bucket/tasks")


def dag_of(graph: Graph, **options: Any) -> str:
    return export_airflow(graph, AirflowOptions("exported", **options))["exported.py"]


@pytest.fixture(scope="module")
def ours() -> Graph:
    return read_graph()


@given(
    st.text()
    | st.dictionaries(
        st.text(), st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
    )
)
def test_the_source_of_a_value_is_that_value(value: Any) -> None:
    assert ast.literal_eval(source(value)) == value


@pytest.mark.parametrize("processing", [None, PROCESSING], ids=["command", "processing"])
def test_the_dag_is_formatted_and_lint_clean(
    ours: Graph, tmp_path: Path, processing: ProcessingOptions | None
) -> None:
    kind = "command" if processing is None else "processing"
    file = tmp_path / "dag.py"
    file.write_text(dag_of(ours, python_tasks=kind, processing=processing, wait_for="s3://b/new/*"))
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--isolated", "--line-length=100", "--no-cache", str(file)]
    subprocess.run([*ruff, "check", "--select=E4,E7,E9,F,I,B,UP", *options], check=True)
    subprocess.run([*ruff, "format", "--check", *options], check=True)


def test_a_graph_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    program = (
        "import sys; from recsys_assets.export.airflow import AirflowOptions, export_airflow;"
        "from recsys_assets.export.reading import read_graph;"
        "sys.stdout.write(''.join(export_airflow(read_graph(), AirflowOptions()).values()))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_the_exporter_names_no_asset(ours: Graph) -> None:
    folder = Path(__file__).parents[3] / "recsys_assets" / "export" / "airflow"
    names = {asset for task in ours.tasks for asset in task.assets} - {"endpoint"}
    for file in [*folder.glob("*.py"), *folder.glob("*.jinja")]:
        assert not names & set(re.findall(r"\w+", file.read_text())), file


def test_the_dag_imports_nothing_but_airflow_and_what_comes_with_it(ours: Graph) -> None:
    modules = set()
    for node in ast.walk(ast.parse(dag_of(ours))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(str(node.module).partition(".")[0])
    assert modules - sys.stdlib_module_names == {"airflow", "botocore", "pendulum"}


def test_the_header_tells_where_the_dag_comes_from(ours: Graph) -> None:
    text = dag_of(ours, command_line="recsys-assets export airflow --out . --command 'a \\ b'")
    header = ast.get_docstring(ast.parse(text))
    assert header is not None
    assert "recsys_assets.definitions:defs" in header
    assert "recsys-assets export airflow --out . --command 'a \\ b'" in header


def test_tasks_that_publish_are_mapped_to_their_assets(ours: Graph) -> None:
    mapping = json.loads(export_airflow(ours, AirflowOptions("x"))["x.assets.json"])
    assert mapping["dag_id"] == "x"
    assert mapping["tasks"]["ratings.raw_ratings"] == ["raw_ratings"]
    assert mapping["tasks"]["models.selected_model"] == [
        "fm_model",
        "tuned_model",
        "selected_model",
    ]
    assert "models.fm_model" not in mapping["tasks"]


def test_references_become_templates() -> None:
    request = {
        "HyperParameters": {
            "upto": "${params.step__upto}",
            "rows": "${results.made.one/made.rows}",
            "short": "at ${run.short}, of ${run.id}",
            "jinja": "{{ literally }}",
        }
    }
    made = Task("made", Kind.PYTHON, group="first", assets=("one/made",))
    job = Task("job", Kind.TRAINING, ("made",), assets=("job",), request=request)
    text = dag_of(graphs.graph(made, job))
    tree = ast.parse(text)
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert "{{ params.step__upto }}" in strings
    assert "{{ ti.xcom_pull(task_ids='first.made')['one/made']['rows'] }}" in strings
    assert "at {{ run_uuid(ti)[:8] }}, of {{ run_uuid(ti) }}" in strings
    assert "{{ '{{' }} literally }}" in strings
    assert "{{ job_name(ti, 'job', 'first.made') }}" in strings


def test_commands_are_quoted_and_hold_no_params() -> None:
    task = Task(
        "odd",
        Kind.PYTHON,
        assets=("it's/odd",),
        partitions=Partitions("day", None, "%Y-%m-%d"),
    )
    text = dag_of(graphs.graph(task, params=(Param("day", {"type": "string"}, "", "", "Run"),)))
    assert "task run 'it'\\\"'\\\"'s/odd'" in text or "'it'\"'\"'s/odd'" in text
    assert '--partition "$PARTITION"' in text
    assert "partition_of(dag_run, '%Y-%m-%d')" in text
    assert "params.day" not in text.partition("bash_command")[2].partition("partition=")[0]


def test_long_names_of_jobs_fit_and_stay_apart() -> None:
    names = [f"{'very_' * 20}long_name_{letter}" for letter in "ab"]
    tasks = [Task(name, Kind.TUNING, assets=(name,), request={}) for name in names]
    found = re.findall(r"job_name\(ti, '([^']+)'", dag_of(graphs.graph(*tasks)))
    assert len(set(found)) == 2
    assert all(re.fullmatch("[a-zA-Z0-9](-*[a-zA-Z0-9])*", name) for name in found)
    assert all(len(f"{name}-12345678-12345678-10") <= 32 for name in found)


def test_edges_are_chained_where_it_reads_well() -> None:
    edges = [("a", "b"), ("b", "c"), ("b", "d"), ("c", "e"), ("d", "e"), ("x", "y")]
    assert statements(edges) == ["a >> b >> [c, d] >> e", "x >> y"]


def test_a_failure_that_a_skipped_task_would_hide_is_looked_for() -> None:
    tasks = (
        Task("before", Kind.PYTHON, assets=("before",)),
        Task("asked", Kind.OPT_IN, ("before",), param="asked"),
        Task("beside", Kind.PYTHON, ("before",), assets=("beside",)),
        Task("after", Kind.PYTHON, ("asked", "beside"), assets=("after",)),
    )
    ends = Ends(graphs.graph(*tasks), lambda task: task.kind.remote)
    assert [task.id for task in ends.hidden] == ["beside"]
    assert "beside >> end" in dag_of(graphs.graph(*tasks))


def test_cleaning_up_waits_for_remote_work_that_nothing_else_is_sure_to_wait_for() -> None:
    request: dict[str, Any] = {}
    tasks = (
        Task("one", Kind.TRAINING, assets=("one",), request=request),
        Task("two", Kind.TRAINING, assets=("two",), request=request),
        Task("both", Kind.PYTHON, ("one", "two"), assets=("both",)),
        Task("clean_up", Kind.CLEAN_UP),
    )
    text = dag_of(graphs.graph(*tasks))
    assert "[one, two, both] >> clean_up" in text
    assert ".as_teardown()" in text


def test_only_the_classes_that_are_used_are_there() -> None:
    made = Task("made", Kind.PYTHON, assets=("made",))
    text = dag_of(graphs.graph(made))
    assert "SageMaker" not in text
    assert "CheckOperator" not in text
    text = dag_of(graphs.training())
    assert "TrainOnce" in text
    assert "BashOperator" not in text
    assert "TuneOnce" not in text


def test_what_a_run_may_leave_out_is_no_outlet(ours: Graph) -> None:
    text = dag_of(ours)
    assert f"outlets=[Asset('{ours.asset_uris['selected_model']}')]".replace("'", '"') in text
    assert ours.asset_uris["fm_model"] not in text


def test_a_task_may_have_the_name_of_a_variable_of_the_file() -> None:
    tasks = [Task(name, Kind.PYTHON, assets=(name,)) for name in ("dag", "class", "json")]
    text = dag_of(graphs.graph(*tasks))
    ast.parse(text)
    assert 'task_id="class"' in text
    assert "\n    json = " not in text


@pytest.mark.parametrize(
    "wrong",
    [
        {"dag_id": "has space"},
        {"schedule": "@daily", "after_asset": "s3://b/k"},
        {"wait_for": "b/new/*"},
        {"python_tasks": "lambda"},
        {"python_tasks": "processing"},
        {"processing": PROCESSING},
        {"max_active_runs": 0},
    ],
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|need each other"):
        AirflowOptions(**wrong)


def test_a_python_task_takes_in_what_was_created_for_it() -> None:
    job = Task("job", Kind.TRAINING, group="g", assets=("a",), request={})
    taker = Task(
        "a",
        Kind.PYTHON,
        ("job",),
        "g",
        assets=("a",),
        created=(Created("a", Kind.TRAINING, "job"),),
    )
    text = dag_of(graphs.graph(job, taker))
    assert "--created a sagemaker_training '{{ created(ti, 'g.job') }}'" in text


def _python_tasks(*names: str, group: str | None = None) -> Graph:
    tasks = tuple(Task(name, Kind.PYTHON, group=group, assets=(name,)) for name in names)
    return Graph("some:defs", "", tasks, ())


def test_a_dag_without_jobs_waits_for_data_without_their_constants() -> None:
    text = dag_of(_python_tasks("one"), wait_for="s3://b/new/*")
    assert "wait_for_data = S3KeySensor(" in text
    assert "MAX_ATTEMPTS" not in text


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (_python_tasks("start"), "the task start has the name of a group, or of a task"),
        (_python_tasks("one", group="start"), "the group start has the name of a task"),
        (_python_tasks("dag", "task_dag"), "dag and task_dag would share a variable"),
    ],
)
def test_names_that_airflow_would_not_tell_apart_are_refused(graph: Graph, said: str) -> None:
    with pytest.raises(GraphError, match=said):
        dag_of(graph)


def test_an_asset_may_be_named_as_something_in_the_file_is() -> None:
    text = dag_of(_python_tasks("Asset", "PARAMS", "2nd"))
    for name in ("Asset", "PARAMS", "2nd"):
        assert f"task_{name} = CommandOperator(" in text


def test_constants_of_assets_are_valid_names_of_their_own() -> None:
    makers = [Task(name, Kind.PYTHON, assets=(name,)) for name in ("2nd", "params")]
    request = {"A": "${results.2nd.2nd.uri}", "B": "${results.params.params.uri}"}
    job = Task("job", Kind.TRAINING, ("2nd", "params"), assets=("job",), request=request)
    text = dag_of(Graph("some:defs", "", (*makers, job), ()))
    assert "ASSET_2ND_URI = " in text
    assert "ASSET_PARAMS_URI = " in text


def test_a_scheduled_run_is_for_the_partition_that_has_passed() -> None:
    partitions = Partitions("partition", None, "%Y-%m-%d")
    task = Task("daily", Kind.PYTHON, assets=("daily",), partitions=partitions)
    param = Param("partition", {"type": ["null", "string"]}, None, "", "Run")
    daily = Graph("some:defs", "", (task,), (param,))
    assert 'schedule=CronDataIntervalTimetable("@daily", timezone="UTC")' in dag_of(
        daily, schedule="@daily"
    )
    assert 'schedule="@once"' in dag_of(daily, schedule="@once")


def test_a_run_that_must_be_told_something_cannot_be_scheduled() -> None:
    told = Param("partition", {"type": "string", "minLength": 1}, "", "", "Run")
    with pytest.raises(ValueError, match="a run has to be told partition"):
        dag_of(Graph("some:defs", "", (), (told,)), schedule="@daily")


def test_the_command_of_jobs_may_hold_quotes_and_braces() -> None:
    command = """env X='{y}' "recsys assets\""""
    text = dag_of(
        _python_tasks("one"), python_tasks="processing", processing=PROCESSING, command=command
    )
    assignments = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    (found,) = [n.value for n in assignments if ast.unparse(n.targets[0]) == "COMMAND"]
    built = eval(ast.unparse(found), {"PARAMS_FOLDER": "/params"})  # noqa: S307
    assert built.endswith(f' exec {command} task "$0" "$@"')
