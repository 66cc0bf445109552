"""The part of JSONPath that SageMaker documents for batch transform, applied to JSON values.

jsonpath-ng parses and searches; what is beyond SageMaker's part of its language is refused here,
and the shape of a selection is decided here. What is selected from, and why, is not known.

Source: "Associate Prediction Results with Input Records" in the Amazon SageMaker developer guide.
"""

import math
import re
from typing import Any

from jsonpath_ng.exceptions import JSONPathError
from jsonpath_ng.jsonpath import Child, Fields, Index, JSONPath, Root, Slice, Wildcard
from jsonpath_ng.parser import parse

_Step = Fields | Index | Slice | Wildcard

# Positions with slices among them in the last brackets.
_MIXED = re.compile(r"(.*)\[([-\d\s,]*:[-\d\s,:]*)\]")


class Selector:
    """An expression: ``$``, then names, positions and slices.

    Its steps are ``.name``, ``['name', ...]``, ``[position, ...]``, ``[start:end]`` and ``*``. The
    last brackets may mix positions and slices, as in ``$[0,5:]``. A slice ends before ``end``,
    as everywhere; the developer guide has it so in one place and otherwise in another.

    Parameters
    ----------
    expression
        The JSONPath.

    Raises
    ------
    ValueError
        When it is no such expression.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self._paths = [_parsed(part) for part in _parts(expression)]
        self._steps = [_steps(path, expression) for path in self._paths]

    @property
    def selects_all(self) -> bool:
        """Whether it is ``$``."""
        return self._steps == [[]]

    @property
    def selects_by_position(self) -> bool:
        """Whether it suits a flat array: it has no names and one step at most."""
        return all(
            len(steps) <= 1 and not any(isinstance(step, Fields) for step in steps)
            for steps in self._steps
        )

    def select(self, value: Any) -> Any:
        """Return the selected part of a JSON value.

        A chain of single names and positions gives the value that it leads to. Several names at
        the end of one give an object, and whatever else selects several values an array.

        Raises
        ------
        LookupError
            When a name or position is not there, or a slice or wildcard selects nothing.
        """
        matches = []
        for path, steps in zip(self._paths, self._steps, strict=True):
            found = path.find(value)
            if len(found) < math.prod(_least(step) for step in steps):
                raise LookupError(f"{self.expression} selects what is not there")
            matches += found
        values = [match.value for match in matches]
        steps = self._steps[0]
        if len(self._paths) > 1 or not all(_is_single(step) for step in steps[:-1]):
            return values
        match steps[-1:]:
            case [Fields(fields=names)] if len(names) > 1:
                return dict(zip(names, values, strict=True))
            case [] | [Fields()] | [Index(indices=(_,))]:
                return values[0]
            case _:
                return values


def _parts(expression: str) -> list[str]:
    """Return the expressions whose selections together are the expression's.

    ``$[0,5:]``, one of SageMaker's examples, is not in jsonpath-ng's language.
    """
    mixed = _MIXED.fullmatch(expression)
    return [f"{mixed[1]}[{item}]" for item in mixed[2].split(",")] if mixed else [expression]


def _parsed(expression: str) -> JSONPath:
    try:
        path: JSONPath = parse(expression)
    except JSONPathError as error:
        raise ValueError(f"{expression!r} is not a JSONPath: {error}") from error
    return path


def _steps(path: JSONPath, expression: str) -> list[_Step]:
    match path:
        case Root():
            return []
        case Child(left=left, right=(Fields() | Index() | Slice(step=None) | Wildcard()) as step):
            return [*_steps(left, expression), step]
        case _:
            raise ValueError(
                f"{expression!r} is beyond SageMaker's part of JSONPath: $, then .name,"
                " ['name', ...], [position, ...], [start:end] or *"
            )


def _least(step: _Step) -> int:
    """Return how many values a step must find in each that it is applied to."""
    match step:
        case Fields():
            return len(step.fields)
        case Index():
            return len(step.indices)
        case _:
            return 1


def _is_single(step: _Step) -> bool:
    """Return whether a step leads from a value to one other."""
    match step:
        case Fields(fields=(_,)) | Index(indices=(_,)):
            return True
        case _:
            return False
