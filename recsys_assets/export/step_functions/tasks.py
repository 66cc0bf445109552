"""Which states a task becomes, and what its requests say.

What belongs here: one line of states for each task. What does not: which tasks come when
(``plan.py``), and following what is created (``remote.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recsys_assets.export.graph import Graph, Kind, Task
from recsys_assets.export.step_functions import expressions
from recsys_assets.export.step_functions.expressions import State, result_path
from recsys_assets.export.step_functions.options import StepFunctionsOptions
from recsys_assets.export.step_functions.plan import UnsupportedError
from recsys_assets.export.step_functions.remote import (
    Retries,
    ensure_endpoint,
    ensure_thing,
    follow_job,
    passing,
    thing_name,
)
from recsys_assets.resources.sagemaker import jobs
from recsys_assets.resources.sagemaker.names import Run
from recsys_assets.service_model import service_model

_PARAMS_FOLDER = "/opt/ml/processing/input/params"
# A variable of a processing job has at most 256 characters, so the parameters come as a file.
_COMMAND = (
    f'RECSYS_TASK_PARAMS="$(cat {_PARAMS_FOLDER}/params.json)" exec recsys-assets task "$0" "$@"'
)
_MOST_AT_ONCE = 5  # processing jobs of one task's partitions


@dataclass
class Line:
    """States that follow each other, and others that they lead to and that lead nowhere.

    Attributes
    ----------
    states
        By name, without ``Next``; of a choice the rules without one go on in the line.
    aside
        By name.
    """

    states: dict[str, State]
    aside: dict[str, State] = field(default_factory=dict)


class TaskStates:
    """Makes the states of the tasks of a graph.

    Parameters
    ----------
    graph, options
        What is exported, and how.
    """

    def __init__(self, graph: Graph, options: StepFunctionsOptions) -> None:
        self._graph = graph
        self._options = options
        self._referred = {
            reference for task in graph.tasks for reference in expressions.references(task.request)
        }

    def line(self, task: Task) -> Line:
        """Return the states of a task; the last ones put what is known of it at its place.

        Raises
        ------
        UnsupportedError
            If the Amazon States Language cannot express the task.
        """
        if task.pool is not None:
            raise UnsupportedError(
                f"{task.id} is in the pool {task.pool}, and Step Functions has no limit that "
                "executions share."
            )
        if task.kind in (Kind.PYTHON, Kind.CHECK):
            return self._mapped(task) if self._is_mapped(task) else self._python(task)
        if task.kind.value not in jobs.KIND_OF_WORK:
            raise UnsupportedError(
                f"{task.id} is work of the kind {task.kind.value}, which only other orchestrators "
                "are told of."
            )
        if task.partitions is not None and task.partitions.param is None:
            raise UnsupportedError(
                f"{task.id} asks another service for every partition at once, and its request "
                "cannot tell them apart."
            )
        return self._remote(task)

    def put_params(self) -> State:
        """Return the state that stores the parameters where processing jobs find them."""
        return {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:s3:putObject",
            "Parameters": {
                "Bucket": self._options.bucket,
                "Key.$": expressions.text(self._key("params.json")),
                "Body.$": "$.params",
            },
            "Retry": [passing("s3")],
            "ResultPath": None,
        }

    def clean_up(self, task: Task) -> State:
        """Return the state of the task that stops what a run has left running."""
        return {**self._process(task, ["clean-up", *self._run()]), "ResultPath": None}

    def _python(self, task: Task) -> Line:
        where = f"{task.id}.json"
        result = {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:s3:getObject",
            "Parameters": {
                "Bucket": self._options.bucket,
                "Key.$": expressions.text(self._key(where)),
            },
            "Retry": [passing("s3")],
            "ResultSelector": {"result.$": "States.StringToJson($.Body)"},
            "ResultPath": f"$.tasks.{task.id}",
        }
        job = self._process(task, self._arguments(task, where))
        line = Line({task.id: {**job, "ResultPath": None}, f"{task.id} result": result})
        if needed := self._needed(task):
            # A path that leads nowhere ends an execution at once, past every Catch.
            line.states[f"{task.id} complete"] = {
                "Type": "Choice",
                "Choices": [{"And": [{"Variable": path, "IsPresent": True} for path in needed]}],
                "Default": f"{task.id} incomplete",
            }
            line.aside[f"{task.id} incomplete"] = {
                "Type": "Fail",
                "Error": "ResultIncomplete",
                "Cause": f"The result of {task.id} lacks one of {', '.join(needed)}.",
            }
        return line

    def _mapped(self, task: Task) -> Line:
        """Return a map over all partitions, whose results nobody can refer to."""
        assert task.partitions is not None  # noqa: S101
        if task.partitions.keys is None:
            raise UnsupportedError(
                f"{task.id} makes all partitions of a run, and which these are is known only when "
                "it runs."
            )
        if self._needed(task):
            raise UnsupportedError(
                f"{task.id} makes several partitions, and other tasks need the result of one."
            )
        keys = f"{task.id} partitions"
        job = self._process(task, self._arguments(task, None), index="$.index")
        each = f"{task.id} partition"
        return Line(
            {
                keys: {
                    "Type": "Pass",
                    "Result": {"partitions": list(task.partitions.keys)},
                    "ResultPath": f"$.tasks.{task.id}",
                },
                task.id: {
                    "Type": "Map",
                    "ItemsPath": f"$.tasks.{task.id}.partitions",
                    "ItemSelector": {
                        "run.$": "$.run",
                        "tasks.$": "$.tasks",
                        "partition.$": "$$.Map.Item.Value",
                        "index.$": "$$.Map.Item.Index",
                    },
                    "MaxConcurrency": _MOST_AT_ONCE,
                    "ItemProcessor": {
                        "ProcessorConfig": {"Mode": "INLINE"},
                        "StartAt": each,
                        "States": {each: {**job, "ResultPath": None, "End": True}},
                    },
                    "ResultPath": None,
                },
            }
        )

    def _remote(self, task: Task) -> Line:
        assert task.request is not None  # noqa: S101
        kind, place = jobs.KIND_OF_WORK[task.kind.value], {"ResultPath": f"$.tasks.{task.id}"}
        if kind is jobs.TRANSFORM:
            # Of the same name as the job, by which the clean-up knows it.
            model, name = f"{task.id} model", thing_name(task.id, jobs.MODEL)
            request = {
                "ModelName.$": name,
                **self._request(task, kind, task.request["Transform"]),
            }
            made = self._request(task, jobs.MODEL, task.request["Model"])
            return Line(
                {
                    model: {**ensure_thing(model, jobs.MODEL, made, name), "ResultPath": None},
                    task.id: {**self._job(task, kind, request), **place},
                }
            )
        request = self._request(task, kind, task.request)
        if kind is jobs.ENDPOINT:
            if "EndpointName" not in request and "EndpointName.$" not in request:
                request = {"EndpointName.$": thing_name(task.id, kind), **request}
            state = ensure_endpoint(task.id, request, self._options.poll_seconds)
        elif kind in (jobs.MODEL, jobs.ENDPOINT_CONFIG):
            state = ensure_thing(task.id, kind, request, thing_name(task.id, kind))
        else:
            state = self._job(task, kind, request)
        return Line({task.id: {**state, **place}})

    def _job(
        self, task: Task, kind: jobs.Kind, request: Mapping[str, Any], index: str | None = None
    ) -> State:
        poll_seconds = self._options.poll_seconds if self._options.polling else None
        retries = Retries(task.retries or 0, max(1, round(task.retry_seconds or 30)))
        state = follow_job(task.id, kind, request, retries, poll_seconds, index)
        return {**({"Comment": task.description} if task.description else {}), **state}

    def _process(self, task: Task, arguments: list[str], index: str | None = None) -> State:
        """Return the state that runs the project's program in a processing job."""
        options = self._options
        request = {
            "AppSpecification": {
                "ImageUri": options.image,
                "ContainerEntrypoint": ["sh", "-c", _COMMAND],
                "ContainerArguments": arguments,
            },
            "Environment": options.variables,
            "ProcessingInputs": [
                {
                    "InputName": "params",
                    "S3Input": {
                        "S3Uri": self._uri("params.json"),
                        "LocalPath": _PARAMS_FOLDER,
                        "S3DataType": "S3Prefix",
                        "S3InputMode": "File",
                    },
                }
            ],
            "ProcessingResources": {
                "ClusterConfig": {
                    "InstanceCount": 1,
                    "InstanceType": options.instance_type,
                    "VolumeSizeInGB": options.volume_gb,
                }
            },
            "RoleArn": options.role_arn,
            "StoppingCondition": {"MaxRuntimeInSeconds": options.max_runtime_seconds},
        }
        parameters = self._request(task, jobs.PROCESSING, request)
        return self._job(task, jobs.PROCESSING, parameters, index)

    def _request(self, task: Task, kind: jobs.Kind, request: Mapping[str, Any]) -> State:
        """Return a request as ``Parameters``, with its own tags and those of the run."""
        asset = task.assets[0] if task.assets else task.id
        tags = Run("${run.id}", "${run.id}", asset).tags({})
        shape = service_model("sagemaker").operation_model(f"Create{kind.noun}").input_shape
        assert shape is not None  # noqa: S101 - every action that creates something has one
        own = {tag["Key"] for tag in request.get("Tags", [])}
        more = [tag for tag in tags if tag["Key"] not in own]
        return expressions.parameters({**request, "Tags": [*request.get("Tags", []), *more]}, shape)

    def _arguments(self, task: Task, result: str | None) -> list[str]:
        arguments = ["check" if task.kind is Kind.CHECK else "run", *task.assets, *self._run()]
        arguments += ["--definitions", self._graph.definitions]
        if task.partitions is not None:
            param = task.partitions.param
            arguments += [
                "--partition",
                "${partition}" if param is None else f"${{params.{param}}}",
            ]
        for item in task.created:
            name = f"${{created.{item.task}}}"
            arguments += ["--created", item.asset, item.kind.value, name]
        if result is not None:
            arguments += ["--result-uri", self._uri(result)]
        return arguments

    def _run(self) -> list[str]:
        return ["--run", "${run.id}"]

    def _needed(self, task: Task) -> list[str]:
        """Return the paths in the result of a task that other tasks cannot do without."""
        optional = {
            other.optional_asset for other in self._graph.tasks if other.upstream == (task.id,)
        }
        parts = [reference.split(".", 3) for reference in sorted(self._referred)]
        needed = [
            result_path(*found[1:])
            for found in parts
            if found[:2] == ["results", task.id] and found[2] not in optional
        ]
        return [*([result_path(task.id, "passed")] if task.kind is Kind.CHECK else []), *needed]

    def _is_mapped(self, task: Task) -> bool:
        return task.partitions is not None and task.partitions.param is None

    def _key(self, name: str) -> str:
        return f"{self._options.tasks_key}/${{run.id}}/{name}"

    def _uri(self, name: str) -> str:
        return f"s3://{self._options.bucket}/{self._key(name)}"
