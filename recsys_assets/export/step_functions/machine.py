"""The state machine as a whole, and the files around it.

What belongs here: how lines of states become one machine. What does not: the states of a task
(``tasks.py``) and their order (``plan.py``).

All work stands in one parallel state, as in a ``try``: whatever fails in it, the clean-up follows,
and then the execution fails with the first error. A blocking check that fails holds up what depends
on it and nothing else; the execution fails at its end. An execution that makes half of what was
asked would otherwise be as green as any other: Step Functions has no status for skipped work.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from recsys_assets.export.graph import Graph, Kind, Param, Task
from recsys_assets.export.step_functions.expressions import State, formatted, result_path
from recsys_assets.export.step_functions.options import StepFunctionsOptions
from recsys_assets.export.step_functions.plan import (
    Block,
    Condition,
    Fork,
    UnsupportedError,
    plan,
)
from recsys_assets.export.step_functions.policy import all_states, policy
from recsys_assets.export.step_functions.tasks import Line, TaskStates

_LONGEST_STATE_NAME = 80


def export_step_functions(graph: Graph, options: StepFunctionsOptions) -> dict[str, str]:
    """Return an asset graph as a Step Functions state machine.

    Parameters
    ----------
    graph
        The asset graph.
    options
        How it becomes a state machine.

    Returns
    -------
    dict
        By file name: ``<name>.asl.json``, the machine; ``<name>.input.json``, an input with the
        defaults of all parameters; ``<name>.policy.json``, the IAM policy of the machine's role.
        The same graph and options give the same bytes.

    Raises
    ------
    UnsupportedError
        If the Amazon States Language cannot express the graph.
    """
    machine = _Machine(graph, options).definition()
    defaults = {param.name: param.default for param in graph.params}
    files = {"asl": machine, "input": defaults, "policy": policy(machine, options)}
    return {
        f"{options.name}.{kind}.json": json.dumps(content, indent=2) + "\n"
        for kind, content in files.items()
    }


class _Machine:
    def __init__(self, graph: Graph, options: StepFunctionsOptions) -> None:
        self._graph = graph
        self._tasks = TaskStates(graph, options)

    def definition(self) -> dict[str, Any]:
        """Return the machine's definition."""
        clean_up = next((task for task in self._graph.tasks if task.kind is Kind.CLEAN_UP), None)
        after_work = clean_up.id if clean_up else "look at outcome"
        states: dict[str, State] = {
            "set defaults": {
                "Type": "Pass",
                "Comment": "\n".join(map(_documented, self._graph.params)),
                "Parameters": {
                    "id.$": "States.UUID()",
                    "defaults": {param.name: param.default for param in self._graph.params},
                },
            },
            "start run": {
                "Type": "Pass",
                "Parameters": {
                    "run": {
                        "id.$": "$.id",
                        "short.$": "States.ArrayGetItem(States.StringSplit($.id, '-'), 0)",
                    },
                    "params.$": "States.JsonMerge($.defaults, $$.Execution.Input, false)",
                    "tasks": self._not_chosen(),
                },
            },
        }
        expected = self._expected_params()
        if expected:
            states["look at parameters"] = {
                "Type": "Choice",
                "Choices": [{"And": list(expected.values())}],
                "Default": "wrong parameter",
            }
        states["all work"] = {
            "Type": "Parallel",
            "Branches": [self._work()],
            "ResultSelector": {"tasks.$": "$[0]"},
            "ResultPath": "$.done",
            "Catch": [_catch("$.failure", after_work)],
        }
        if clean_up:
            states[clean_up.id] = {
                **self._tasks.clean_up(clean_up),
                "Catch": [_catch("$.clean_up_failure", "look at outcome")],
            }
        states["look at outcome"] = {
            "Type": "Choice",
            "Choices": [{"Variable": "$.failure", "IsPresent": True, "Next": "execution failed"}],
            "Default": "execution succeeded",
        }
        _chain(states)
        states |= {
            "execution succeeded": {"Type": "Succeed"},
            "execution failed": {
                "Type": "Fail",
                # Names of errors that begin with States. may be caught and not raised again.
                "Error": "WorkFailed",
                "CausePath": formatted("{}: {}", "$.failure.Error", "$.failure.Cause"),
            },
        }
        if expected:
            states["wrong parameter"] = {
                "Type": "Fail",
                "Error": "WrongParameter",
                "Cause": f"Expected {'; '.join(expected)}.",
            }
        definition = {"Comment": self._comment(), "StartAt": "set defaults", "States": states}
        _require_names(definition)
        return definition

    def _work(self) -> State:
        """Return the branch that does all the work, and then fails if a blocking check has."""
        forks = plan(self._graph)
        lines = [[self._block(block) for block in fork.blocks] for fork in forks]
        outcome = self._outcome_of_checks()
        guards = _guard_names(self._graph, forks)
        starts = [
            guard or next(iter(blocks[0].states))
            for guard, blocks in zip(guards, lines, strict=True)
        ]
        starts.append(next(iter(outcome)))
        states = {"store parameters": {**self._tasks.put_params(), "Next": starts[0]}}
        for number, (fork, blocks) in enumerate(zip(forks, lines, strict=True)):
            if guards[number]:
                states[starts[number]] = {
                    "Type": "Choice",
                    "Choices": [
                        {**self._all(block.asked), "Next": next(iter(line.states))}
                        for block, line in zip(fork.blocks, blocks, strict=True)
                    ],
                    "Default": starts[fork.skips_to],
                }
            for line in blocks:
                _chain(line.states, starts[number + 1])
                states |= line.states | line.aside
        return {"StartAt": "store parameters", "States": states | outcome}

    def _block(self, block: Block) -> Line:
        line = Line({})
        for level in block.levels:
            found = self._tasks.line(level[0]) if len(level) == 1 else self._side_by_side(level)
            line.states |= found.states
            line.aside |= found.aside
        return line

    def _side_by_side(self, level: Sequence[Task]) -> Line:
        """Return a parallel state with a branch for each task, and one that puts together."""
        branches = []
        for task in level:
            line = self._tasks.line(task)
            end = f"{task.id} done"
            _chain(line.states, end)
            states = line.states | line.aside
            states[end] = {"Type": "Succeed", "OutputPath": f"$.tasks.{task.id}"}
            branches.append({"StartAt": next(iter(states)), "States": states})
        name = f"{level[0].id} and {len(level) - 1} more"
        return Line(
            {
                name: {
                    "Type": "Parallel",
                    "Comment": ", ".join(task.id for task in level),
                    "Branches": branches,
                    "ResultSelector": {
                        f"{task.id}.$": f"$[{number}]" for number, task in enumerate(level)
                    },
                    "ResultPath": "$.made",
                },
                f"{name} together": {
                    "Type": "Pass",
                    "Parameters": {
                        "run.$": "$.run",
                        "params.$": "$.params",
                        "tasks.$": "States.JsonMerge($.tasks, $.made, false)",
                    },
                },
            }
        )

    def _all(self, conditions: Sequence[Condition]) -> State:
        rules = [self._rule(condition) for condition in conditions]
        return rules[0] if len(rules) == 1 else {"And": rules}

    def _rule(self, condition: Condition) -> State:
        gate = self._graph.task(condition.gate)
        match gate.kind:
            case Kind.CHECK:
                return {"Variable": result_path(gate.id, "passed"), "BooleanEquals": True}
            case Kind.CHOICE:
                return _one_of(f"$.params.{gate.param}", condition.values)
            case Kind.OPT_IN:
                return {"Variable": f"$.params.{gate.param}", "BooleanEquals": True}
        (maker,) = gate.upstream
        assert gate.optional_asset is not None  # noqa: S101 - the only kind that is left has one
        return {"Variable": result_path(maker, gate.optional_asset), "IsPresent": True}

    def _outcome_of_checks(self) -> dict[str, State]:
        checks = [task.id for task in self._graph.tasks if task.kind is Kind.CHECK]
        done: dict[str, State] = {"all done": {"Type": "Succeed", "OutputPath": "$.tasks"}}
        if not checks:
            return done
        rules = [
            {
                "And": [
                    {"Variable": result_path(check), "IsPresent": True},
                    {"Variable": result_path(check, "passed"), "BooleanEquals": False},
                ],
                "Next": f"{check} not passed",
            }
            for check in checks
        ]
        failures = {
            f"{check} not passed": {
                "Type": "Fail",
                "Error": "BlockingCheckFailed",
                "CausePath": f"States.JsonToString({result_path(check)})",
            }
            for check in checks
        }
        return {
            "look at checks": {"Type": "Choice", "Choices": rules, "Default": "all done"},
            **failures,
            **done,
        }

    def _not_chosen(self) -> State:
        """Return what alternatives are said to have created until they have: nothing."""
        names = {item.task for task in self._graph.tasks if task.joins for item in task.created}
        return {task.id: {"name": ""} for task in self._graph.tasks if task.id in names}

    def _expected_params(self) -> dict[str, State]:
        """Return the rules for the parameters that decide what is done, by what is expected."""
        rules: dict[str, State] = {}
        for task in self._graph.tasks:
            where = f"$.params.{task.param}"
            if task.kind is Kind.CHOICE:
                values = list(task.alternatives)
                rules[f"{task.param} to be {' or '.join(values)}"] = _one_of(where, values)
            elif task.kind is Kind.OPT_IN:
                rules[f"{task.param} to be true or false"] = {"Variable": where, "IsBoolean": True}
        return rules

    def _comment(self) -> str:
        of = f" of {self._graph.version}" if self._graph.version else ""
        return (
            f"{self._graph.definitions}{of}. The input sets parameters anew; the state "
            "`set defaults` lists them all. The run's id, under which its objects lie, is the "
            "output of `start run`."
        )


def _chain(states: Mapping[str, State], last: str | None = None) -> None:
    """Have each state lead to the next one, and the last one to `last`, if it is named."""
    names = [*states, *([last] if last else [])]
    for name, following in pairwise(names):
        state = states[name]
        if state["Type"] == "Choice":
            for rule in state["Choices"]:
                rule.setdefault("Next", following)
        else:
            state["Next"] = following


def _guard_names(graph: Graph, forks: Sequence[Fork]) -> list[str | None]:
    """Return the name of the choice before each fork, None where it depends on nothing."""
    names: list[str | None] = []
    for fork in forks:
        conditions = fork.blocks[0].asked
        if not conditions:
            names.append(None)
            continue
        gate = graph.task(conditions[-1].gate)
        name = f"{gate.id} passed" if gate.kind is Kind.CHECK else gate.id
        numbered = (f"{name} {number}" for number in itertools.count(2))
        names.append(name if name not in names else next(n for n in numbered if n not in names))
    return names


def _one_of(where: str, values: Sequence[str]) -> State:
    rules = [{"Variable": where, "StringEquals": value} for value in values]
    return rules[0] if len(rules) == 1 else {"Or": rules}


def _catch(where: str, following: str) -> State:
    return {"ErrorEquals": ["States.ALL"], "ResultPath": where, "Next": following}


def _documented(param: Param) -> str:
    kinds = param.schema.get("type", "any")
    shown = kinds if isinstance(kinds, str) else " or ".join(kinds)
    told = f": {param.description}" if param.description else ""
    return f"{param.name} ({shown}){told}"


def _require_names(machine: Mapping[str, Any]) -> None:
    """Refuse names of states that are too long."""
    for name, _ in all_states(machine):
        if len(name) > _LONGEST_STATE_NAME:
            raise UnsupportedError(
                f"{name} is longer than the {_LONGEST_STATE_NAME} characters that a state's name "
                "may have."
            )
