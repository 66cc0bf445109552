"""The file of a DAG: filling in its shape.

What belongs here: what stands around the tasks (header, imports, params, groups) and formatting.
What does not: the tasks (``operators.py``) and the fixed parts of the file (``dag.py.jinja``).
"""

import ast
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from recsys_assets.export.airflow.edges import Ends, statements
from recsys_assets.export.airflow.literals import Code, arguments, source
from recsys_assets.export.airflow.operators import (
    END,
    PUT_PARAMS,
    START,
    WAIT,
    Operator,
    Operators,
    published,
    results_of_a_run,
)
from recsys_assets.export.airflow.options import AirflowOptions
from recsys_assets.export.graph import Graph, Kind, Param
from recsys_assets.export.params import SEPARATOR

_RUFF_OPTIONS = ("--isolated", "--quiet", "--line-length=100", "--target-version=py39", "-")
_MACROS = ("run_uuid", "job_name", "created", "partition_of")
_PROGRAMS = (Kind.PYTHON, Kind.CHECK)
_LONGEST_TAG = 100
_NO_CRON = ("@once", "@continuous")
_WEEK = 7 * 24 * 60 * 60

_SAGEMAKER = "airflow.providers.amazon.aws.operators.sagemaker"
_IMPORTS = {
    # Airflow 3 has moved them between its releases; the Amazon provider raises these.
    "AirflowException": "airflow.providers.common.compat.sdk",
    "AirflowFailException": "airflow.providers.common.compat.sdk",
    "AirflowSkipException": "airflow.providers.common.compat.sdk",
    "ClientError": "botocore.exceptions",
    "CronDataIntervalTimetable": "airflow.timetables.interval",
    "EmrServerlessStartJobOperator": "airflow.providers.amazon.aws.operators.emr",
    "S3CreateObjectOperator": "airflow.providers.amazon.aws.operators.s3",
    "S3Hook": "airflow.providers.amazon.aws.hooks.s3",
    "S3KeySensor": "airflow.providers.amazon.aws.sensors.s3",
    "SageMakerEndpointConfigOperator": _SAGEMAKER,
    "SageMakerEndpointOperator": _SAGEMAKER,
    "SageMakerModelOperator": _SAGEMAKER,
    "SageMakerProcessingOperator": _SAGEMAKER,
    "SageMakerTrainingOperator": _SAGEMAKER,
    "SageMakerTransformOperator": _SAGEMAKER,
    "SageMakerTrigger": "airflow.providers.amazon.aws.triggers.sagemaker",
    "SageMakerTuningOperator": _SAGEMAKER,
    "serialize": _SAGEMAKER,
    "timedelta": "datetime",
}
_IMPORTS_OF_3 = {
    "Asset": "airflow.sdk",
    "BashOperator": "airflow.providers.standard.operators.bash",
    "BranchPythonOperator": "airflow.providers.standard.operators.python",
    "DAG": "airflow.sdk",
    "EmptyOperator": "airflow.providers.standard.operators.empty",
    "Param": "airflow.sdk",
    "ShortCircuitOperator": "airflow.providers.standard.operators.python",
    "TaskGroup": "airflow.sdk",
}
_IMPORTS_OF_2 = {
    "Dataset as Asset": "airflow.datasets",
    "BashOperator": "airflow.operators.bash",
    "BranchPythonOperator": "airflow.operators.python",
    "DAG": "airflow.models.dag",
    "EmptyOperator": "airflow.operators.empty",
    "Param": "airflow.models.param",
    "ShortCircuitOperator": "airflow.operators.python",
    "TaskGroup": "airflow.utils.task_group",
}
_MODULES = ("hashlib", "json", "pendulum", "re", "uuid")


def export_airflow(graph: Graph, options: AirflowOptions) -> dict[str, str]:
    """Write a graph as an Airflow DAG.

    Parameters
    ----------
    graph
        What to do, as :func:`recsys_assets.export.reading.read_graph` reads it.
    options
        How.

    Returns
    -------
    dict[str, str]
        Texts by file name: ``<dag id>.py``, which Airflow 2.11 and 3 load as it is, and
        ``<dag id>.assets.json``, which tells dagster-airlift the assets of each of its tasks.
        They are the same, to the byte, for the same graph and options.
    """
    _require_defaults(graph, options)
    operators = Operators(graph, options)
    mapping = {
        "dag_id": options.dag_id,
        "tasks": {
            operators.ids[task.id]: published(task)
            for task in graph.tasks
            if task.kind is Kind.PYTHON
        },
    }
    return {
        f"{options.dag_id}.py": _formatted(_text(graph, options, operators)),
        f"{options.dag_id}.assets.json": json.dumps(mapping, indent=2) + "\n",
    }


def _require_defaults(graph: Graph, options: AirflowOptions) -> None:
    """Refuse a DAG that starts by itself and has to be told something."""
    by_itself = options.schedule is not None or options.after_asset is not None
    wanting = [p.name for p in graph.params if p.schema.get("minLength") and not p.default]
    if by_itself and wanting:
        raise ValueError(
            f"a run has to be told {', '.join(wanting)}, so the DAG cannot have a schedule"
        )


@dataclass(frozen=True)
class _Field:
    """A parameter as a form shows it."""

    name: str
    default: Any
    arguments: Mapping[str, Any]


@dataclass
class _Block:
    """A group of tasks, or one task outside of all groups."""

    group: str | None
    operators: list[Operator]
    edges: list[str]


def _text(graph: Graph, options: AirflowOptions, operators: Operators) -> str:
    processing = options.processing
    in_jobs = _PROGRAMS if processing is not None else ()
    ends = Ends(graph, lambda task: task.kind.remote or task.kind in in_jobs)
    start = options.start_date
    instances = {task.id: operators.of(task) for task in graph.tasks}
    shown = "".join(arguments(operator.arguments) for operator in instances.values())
    shown += "".join(operators.references.constants.values())
    macros = [name for name in _MACROS if f"{name}(" in shown or name == "run_uuid"]
    calls = {operator.call for operator in instances.values()}
    kinds = {task.kind for task in graph.tasks}
    jobs = bool(processing or kinds & {Kind.TRAINING, Kind.TUNING, Kind.TRANSFORM})
    waits = jobs or Kind.ENDPOINT in kinds
    body = _template().render(
        options=options,
        constants=list(operators.references.constants.items()),
        params=[_field(param) for param in graph.params],
        macros=macros,
        macros_by_name={name: Code(name) for name in macros},
        max_attempts=_WEEK // options.check_interval,
        calls=calls,
        processing=processing,
        program="CommandOperator" if processing is None else "ProcessOnce",
        params_uri=f"{results_of_a_run(processing)}/params.json" if processing else None,
        jobs=jobs,
        created_once=kinds & {Kind.MODEL, Kind.ENDPOINT_CONFIG, Kind.ENDPOINT},
        description=f"The assets of {graph.definitions}",
        schedule=_schedule(graph, options),
        start_date=Code(f'pendulum.datetime({start.year}, {start.month}, {start.day}, tz="UTC")'),
        tags=_tags(graph),
        waits=waits,
        default_args=_default_args(options, kinds, waits),
        wait_for=options.wait_for,
        blocks=_blocks(graph, instances),
        hidden=ends.hidden,
        edges=_edges_between(graph, options, ends, instances),
    )
    return f'"""{_header(graph, options)}"""\n\n{_imports(body)}\n{body}'


def _template() -> Any:
    environment = Environment(  # noqa: S701 - what is made is Python, not HTML
        loader=PackageLoader("recsys_assets.export.airflow", "."),
        variable_start_string="[[",
        variable_end_string="]]",
        comment_start_string="[#",
        comment_end_string="#]",
        block_start_string="[%",
        block_end_string="%]",
        line_statement_prefix="#%",
        undefined=StrictUndefined,
    )
    environment.filters |= {"source": source, "arguments": arguments, "instance": _instance}
    return environment.get_template("dag.py.jinja")


def _instance(operator: Operator) -> str:
    """Return the statement that instantiates an operator."""
    given = arguments({"task_id": operator.id, **operator.arguments})
    call = f"{operator.call}({given})"
    if operator.expanded:
        call = f"{operator.call}.partial({given}).expand({arguments(operator.expanded)})"
    return f"{operator.variable} = {call}{'.as_teardown()' if operator.is_teardown else ''}"


def _blocks(graph: Graph, instances: Mapping[str, Operator]) -> list[_Block]:
    """Return the tasks in the order of the graph, those of a group together."""
    blocks: list[_Block] = []
    for task in graph.tasks:
        block = next((b for b in blocks if task.group and b.group == task.group), None)
        if block is None:
            block = _Block(task.group, [], [])
            blocks.append(block)
        block.operators.append(instances[task.id])
    for block in blocks:
        block.edges = statements(
            (instances[name].variable, instances[task.id].variable)
            for task in graph.tasks
            if block.group and task.group == block.group
            for name in task.upstream
            if graph.task(name).group == block.group
        )
    return blocks


def _edges_between(
    graph: Graph, options: AirflowOptions, ends: Ends, instances: Mapping[str, Operator]
) -> list[str]:
    """Return the statements of edges that do not stay within one group."""
    firsts = [START]
    if options.processing is not None:
        firsts.append(PUT_PARAMS)
    if options.wait_for is not None:
        firsts.append(WAIT)
    edges = list(pairwise(firsts))
    for task in graph.tasks:
        upstream = task.upstream
        if task.kind is Kind.CLEAN_UP:
            upstream = tuple(other.id for other in ends.unfinished)
        elif not upstream:
            edges.append((firsts[-1], instances[task.id].variable))
        edges += [
            (instances[name].variable, instances[task.id].variable)
            for name in upstream
            if not task.group or graph.task(name).group != task.group
        ]
    edges += [(instances[task.id].variable, END) for task in ends.hidden]
    return statements(edges)


def _imports(body: str) -> str:
    """Return the statements that import what a body names."""
    names = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    plain = [f"import {module}" for module in _MODULES if module in names]
    others = _from_imports(_IMPORTS, names)
    of_3, of_2 = _from_imports(_IMPORTS_OF_3, names), _from_imports(_IMPORTS_OF_2, names)
    return "\n".join(
        [
            *plain,
            *(line for line in others if line.startswith("from datetime")),
            "",
            *(line for line in others if not line.startswith("from datetime")),
            "",
            "try:",
            *(f"    {line}" for line in of_3),
            "except ImportError:  # Airflow 2",
            *(f"    {line}" for line in of_2),
            "",
        ]
    )


def _from_imports(modules: Mapping[str, str], names: set[str]) -> list[str]:
    found: dict[str, list[str]] = {}
    for name, module in modules.items():
        if name.rpartition(" ")[2] in names:
            found.setdefault(module, []).append(name)
    return [f"from {module} import {', '.join(found[module])}" for module in sorted(found)]


def _field(param: Param) -> _Field:
    step, *path = param.name.split(SEPARATOR)
    title = ": ".join(map(_words, path or [step]))
    shown = {**param.schema, "title": title, "section": _words(param.section)}
    if param.description:
        shown["description"] = param.description
    return _Field(param.name, param.default, shown)


def _words(name: str) -> str:
    """Return a name as a heading."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _schedule(graph: Graph, options: AirflowOptions) -> Any:
    if options.after_asset is not None:
        return [Code(f"Asset({options.after_asset!r})")]
    by_time = any(task.partitions and task.partitions.time_format for task in graph.tasks)
    if options.schedule is None or options.schedule in _NO_CRON or not by_time:
        return options.schedule
    # A run is for the time that has passed, as in Airflow 2; in 3, a cron expression alone has a
    # run at the end of a partition be for the one that begins.
    return Code(f'CronDataIntervalTimetable({options.schedule!r}, timezone="UTC")')


def _tags(graph: Graph) -> list[str]:
    tags = {
        f"{name}={value}" if value else name
        for task in graph.tasks
        for name, value in task.tags.items()
    }
    return sorted(tag for tag in tags if len(tag) <= _LONGEST_TAG)


def _default_args(options: AirflowOptions, kinds: set[Kind], waits: bool) -> dict[str, Any]:
    given: dict[str, Any] = {
        "retries": options.retries,
        "retry_delay": Code(f"timedelta(seconds={options.retry_seconds:g})"),
    }
    if options.wait_for or options.processing or any(kind.remote for kind in kinds):
        given["aws_conn_id"] = options.aws_conn_id
        if options.region_name is not None:
            given["region_name"] = options.region_name
        given["deferrable"] = options.deferrable
    if waits:
        given |= {
            "check_interval": options.check_interval,
            "max_attempts": Code("MAX_ATTEMPTS"),
            "print_log": options.print_log,
            "action_if_job_exists": "fail",
        }
    return given


def _header(graph: Graph, options: AirflowOptions) -> str:
    of = f" ({graph.version})" if graph.version else ""
    text = f"""The assets of {graph.definitions}{of}, as a DAG for Airflow 2.11 and 3.

Made by the following command; make it again rather than edit it.

    {options.command_line}
"""
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')


def _formatted(text: str) -> str:
    """Return source with imports sorted and lines broken."""
    for command in (["check", "--select=I", "--fix"], ["format"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *_RUFF_OPTIONS],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        text = done.stdout
    return text
