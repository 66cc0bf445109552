"""Which operator each task becomes, and with which arguments.

What belongs here: the one place that knows a kind of task and Airflow's operator for it. What does
not: the order of tasks (``edges.py``) and how the file reads (``dag.py.jinja``).
"""

import builtins
import hashlib
import keyword
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from recsys_assets.export.airflow.literals import Code, Lines, source
from recsys_assets.export.airflow.options import AirflowOptions, ProcessingOptions
from recsys_assets.export.airflow.references import CONSTANTS, RUN, References, escaped
from recsys_assets.export.graph import OUR_DEFINITIONS, Graph, GraphError, Kind, Task
from recsys_assets.resources.sagemaker import Run
from recsys_assets.resources.sagemaker.jobs import KIND_OF_WORK, PROCESSING

START, END, WAIT, PUT_PARAMS = "start", "end", "wait_for_data", "put_params"
_TAKEN = {
    *keyword.kwlist,
    *dir(builtins),
    *(START, END, WAIT, PUT_PARAMS, "dag"),
    *("created", "job_name", "partition_of", "run_uuid"),
    *("hashlib", "json", "pendulum", "re", "serialize", "timedelta", "uuid"),
    *("DAG", "Asset", "Param", "TaskGroup"),
    *CONSTANTS,
}  # what a file's own names are

_ONCE = {
    Kind.TRAINING: "TrainOnce",
    Kind.TUNING: "TuneOnce",
    Kind.TRANSFORM: "TransformOnce",
    Kind.MODEL: "CreateModelOnce",
    Kind.ENDPOINT_CONFIG: "CreateEndpointConfigOnce",
    Kind.ENDPOINT: "DeployOnce",
    Kind.SPARK: "RunSparkOnce",
}
_REST_OF_NAME = len("-12345678-12345678-10")  # run, inputs, number of the try


@dataclass(frozen=True)
class Operator:
    """One operator of the DAG, instantiated.

    Attributes
    ----------
    id
        Within its group.
    variable
        That it is assigned to.
    call
        Its class.
    arguments
        All but the task's id; values as ``literals.source`` takes them.
    expanded
        Arguments over whose values it is mapped; empty for most.
    is_teardown
        Whether it cleans up, and is no part of a run's success.
    """

    id: str
    variable: str
    group: str | None
    call: str
    arguments: Mapping[str, Any]
    expanded: Mapping[str, Any] = field(default_factory=dict)
    is_teardown: bool = False


class Operators:
    """The operators of a graph.

    Attributes
    ----------
    ids
        Ids of Airflow's tasks, with their groups, by ids of the graph's tasks.
    references
        Which has collected the constants that the operators refer to.
    """

    def __init__(self, graph: Graph, options: AirflowOptions) -> None:
        self._graph = graph
        self._options = options
        self.ids = {
            task.id: f"{task.group}.{task.id}" if task.group else task.id for task in graph.tasks
        }
        self._require_free()
        self.references = References(self.ids)

    def _require_free(self) -> None:
        """Refuse ids that Airflow, or the rest of the file, would not tell apart."""
        groups = {task.group for task in self._graph.tasks if task.group}
        taken = {START, END, WAIT, PUT_PARAMS} | groups
        if twice := sorted(taken & set(self.ids.values())):
            raise GraphError(
                f"the task {twice[0]} has the name of a group, or of a task that every DAG has; "
                "put its asset into a group of another name"
            )
        if twice := sorted({START, END, WAIT, PUT_PARAMS} & groups):
            raise GraphError(f"the group {twice[0]} has the name of a task that every DAG has")
        variables: dict[str, str] = {}
        for task in self._graph.tasks:
            other = variables.setdefault(variable(task.id), task.id)
            if other != task.id:
                raise GraphError(f"the tasks {other} and {task.id} would share a variable")

    def of(self, task: Task) -> Operator:
        """Return the operator of a task."""
        call, arguments = self._call(task)
        if task.joins:
            arguments["trigger_rule"] = "none_failed_min_one_success"
        arguments |= self._common(task)
        expanded = {}
        if task.partitions is not None and task.partitions.param is None:
            expanded = {"partition": list(task.partitions.keys or ())}
        return Operator(
            id=task.id,
            variable=variable(task.id),
            group=task.group,
            call=call,
            arguments=arguments,
            expanded=expanded,
            is_teardown=task.kind is Kind.CLEAN_UP,
        )

    def _call(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Return an operator's class and the arguments that are its own."""
        match task.kind:
            case Kind.PYTHON | Kind.CHECK | Kind.CLEAN_UP:
                return self._program(task)
            case Kind.CHOICE:
                chosen = {value: self.ids[to] for value, to in task.alternatives.items()}
                choose = Code(f"lambda params: {source(chosen)}[params[{task.param!r}]]")
                return "BranchPythonOperator", {"python_callable": choose}
            case Kind.OPT_IN:
                asked = Code(f"lambda params: params[{task.param!r}]")
                return _gate(asked)
            case Kind.MADE:
                (maker,) = task.upstream
                pulled = f"ti.xcom_pull(task_ids={self.ids[maker]!r})"
                return _gate(Code(f"lambda ti: {task.optional_asset!r} in {pulled}"))
            case Kind.SPARK:
                request = self.references.rendered(task.request)
                name = self._name(task)
                return _ONCE[task.kind], {"name": name, "client_request_token": name, **request}
            case _:
                return _ONCE[task.kind], {"config": self._config(task)}

    def _common(self, task: Task) -> dict[str, Any]:
        """Return the arguments that any operator takes, of those that a task asks for."""
        found: dict[str, Any] = {}
        if task.retries is not None:
            found["retries"] = task.retries
        if task.retry_seconds is not None:
            found["retry_delay"] = Code(f"timedelta(seconds={task.retry_seconds:g})")
        if task.pool is not None:
            found["pool"] = task.pool
        if task.owners:
            found["owner"] = ", ".join(task.owners)
        outlets = [Code(f"Asset({uri!r})") for uri in self._updated(task)]
        if outlets:
            found["outlets"] = outlets
        if task.description:
            found["doc_md"] = task.description
        return found

    # The project's program

    def _program(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Return the operator of a task that the project's program does."""
        what = {Kind.CHECK: "check", Kind.CLEAN_UP: "clean-up"}.get(task.kind, "run")
        arguments: dict[str, Any] = {}
        if task.partitions is not None and task.partitions.param is not None:
            arguments["partition"] = _partition(task)
        if self._options.processing is not None:
            call, own = "ProcessOnce", self._job(task, what, self._options.processing)
        else:
            call, own = "CommandOperator", self._command(task, what)
        return "CheckOperator" if task.kind is Kind.CHECK else call, {**own, **arguments}

    def _command(self, task: Task, what: str) -> dict[str, Any]:
        assets = [escaped(shlex.quote(asset)) for asset in task.assets]
        words = [self._options.command, "task", what, *assets]
        lines = [" ".join([*words, f"--run {RUN}"])]
        if task.partitions is not None:
            lines.append(' --partition "$PARTITION"')
        for asset, kind, name in self._taken(task):
            lines.append(f" --created {escaped(shlex.quote(asset))} {kind} '{name}'")
        if self._elsewhere(task):
            lines.append(f" --definitions {shlex.quote(self._graph.definitions)}")
        return {"bash_command": Lines(lines)}

    def _job(self, task: Task, what: str, processing: ProcessingOptions) -> dict[str, Any]:
        mapped = task.partitions is not None and task.partitions.param is None
        file = f"{task.id}{'-{{ ti.map_index }}' if mapped else ''}.json"
        words = [what, *map(escaped, task.assets), "--run", RUN]
        for asset, kind, name in self._taken(task):
            words += ["--created", escaped(asset), kind, name]
        if self._elsewhere(task):
            words += ["--definitions", self._graph.definitions]
        words += ["--result-uri", f"{results_of_a_run(processing)}/{file}"]
        tags = self.references.rendered(Run("${run.id}", "${run.id}", task.id).tags({}))
        return {"name": self._name(task, task.id), "arguments": words, "tags": tags}

    def _taken(self, task: Task) -> Iterator[tuple[str, str, str]]:
        """Yield asset, kind and name of what a Python task takes in."""
        for created in task.created:
            name = self.references.rendered(f"${{created.{created.task}}}")
            yield created.asset, created.kind.value, name

    def _elsewhere(self, task: Task) -> bool:
        """Whether the program has to be told of the definitions."""
        return task.kind is not Kind.CLEAN_UP and self._graph.definitions != OUR_DEFINITIONS

    def _updated(self, task: Task) -> Iterator[str]:
        """Yield the URIs of what a Python task has made whenever it has succeeded.

        Airflow takes all that a task may update for updated, so what a run may leave out is left
        out here.
        """
        if task.kind is Kind.PYTHON:
            for asset in published(task):
                optional = asset in self._optional or (task.joins and asset not in task.assets)
                if not optional and asset in self._graph.asset_uris:
                    yield self._graph.asset_uris[asset]

    @cached_property
    def _optional(self) -> set[str | None]:
        return {task.optional_asset for task in self._graph.tasks}

    # Remote work

    def _config(self, task: Task) -> dict[str, Any]:
        """Return the request of a remote task, with names."""
        request: dict[str, Any] = self.references.rendered(task.request)
        if task.kind is Kind.TRANSFORM:
            name = self.references.constant(f"{task.assets[0]}_name", self._name(task))
            transform = {"TransformJobName": name, "ModelName": name, **request["Transform"]}
            return {"Model": {"ModelName": name, **request["Model"]}, "Transform": transform}
        member = KIND_OF_WORK[task.kind.value].name_field
        return {member: request.get(member, self._name(task)), **request}

    def _name(self, task: Task, of: str | None = None) -> str:
        """Return the template of the name of what a task creates, by default named by its asset."""
        length = KIND_OF_WORK.get(task.kind.value, PROCESSING).name_length - _REST_OF_NAME
        inputs = "".join(f", '{self.ids[name]}'" for name in self._makers(task))
        return f"{{{{ job_name(ti, '{_shortened(of or task.assets[0], length)}'{inputs}) }}}}"

    def _makers(self, task: Task) -> list[str]:
        """Return the nearest Python tasks before a task, sorted."""
        found: set[str] = set()
        for name in task.upstream:
            before = self._graph.task(name)
            found |= {name} if before.kind is Kind.PYTHON else {*self._makers(before)}
        return sorted(found)


def results_of_a_run(processing: ProcessingOptions) -> str:
    """Return where the processing jobs of a run put their results."""
    return f"{processing.results_uri.rstrip('/')}/{RUN}"


def variable(task_id: str) -> str:
    """Return the variable of a task."""
    taken = task_id in _TAKEN or task_id[0].isdigit()
    return f"task_{task_id}" if taken else task_id


def published(task: Task) -> list[str]:
    """Return the assets that a Python task may publish: its own, and those of remote work."""
    return list(dict.fromkeys([*(item.asset for item in task.created), *task.assets]))


def _gate(condition: Code) -> tuple[str, dict[str, Any]]:
    # What follows decides by its own trigger rule: a join behind a gate may have other ways in.
    return "ShortCircuitOperator", {
        "python_callable": condition,
        "ignore_downstream_trigger_rules": False,
    }


def _partition(task: Task) -> str:
    partitions = task.partitions
    assert partitions is not None  # noqa: S101
    if partitions.time_format is None:
        return f"{{{{ params.{partitions.param} }}}}"
    default = f"partition_of(dag_run, {partitions.time_format!r})"
    return f"{{{{ params.{partitions.param} or {default} }}}}"


def _shortened(asset: str, length: int) -> str:
    """Return an asset's name as names on SageMaker have it; if too long, still one of its own."""
    name = "-".join(re.findall("[A-Za-z0-9]+", asset))
    if len(name) <= length:
        return name
    mark = hashlib.sha256(asset.encode()).hexdigest()[:4]
    return f"{name[: length - len(mark) - 1].rstrip('-')}-{mark}"
