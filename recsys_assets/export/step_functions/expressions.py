"""References of the graph in the Amazon States Language's JSONPath and intrinsic functions.

What belongs here: where a running machine keeps what the references stand for, and writing values
that hold references. What does not: which values. The machine's state is

- ``$.run``: ``id`` and ``short``,
- ``$.params``: the parameters by name,
- ``$.partition``: in a map over partitions, the one that it is at; ``${partition}`` refers to it,
- ``$.tasks``: of each Python task that is done its ``result``, of each remote one the ``name`` of
  what it has created.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

from recsys_assets.export.graph import REFERENCE

_PLAIN = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_RESERVED = re.compile(r"(['{}\\])")

State = dict[str, Any]


def path(reference: str) -> str:
    """Return where a running machine keeps what a reference (without braces) stands for.

    Raises
    ------
    ValueError
        If there is no such reference.
    """
    kind, _, rest = reference.partition(".")
    match kind, rest.split(".", 2):
        case "run", ["id" | "short" as name]:
            return f"$.run.{name}"
        case "params", [name]:
            return f"$.params{_member(name)}"
        case "results", [task, asset, key]:
            return result_path(task, asset, key)
        case "created", [task]:
            return name_path(task)
        case "partition", [""]:
            return "$.partition"
    raise ValueError(f"expected a reference as of recsys_assets.export.graph, got {reference!r}")


def result_path(task: str, *members: str) -> str:
    """Return where the result of a Python task is kept, or what is in it."""
    return f"$.tasks.{task}.result" + "".join(map(_member, members))


def name_path(task: str) -> str:
    """Return where the name of what a remote task has created is kept."""
    return f"$.tasks.{task}.name"


def formatted(template: str, *expressions: str) -> str:
    """Return ``States.Format`` of a template, in which ``{}`` stands for each expression."""
    literals = template.split("{}")
    return _format(literals, expressions)


def text(value: str) -> str:
    """Return the expression of a text that may hold references."""
    # Every other part is what stands between the braces of a reference.
    parts = REFERENCE.split(value)
    literals, references = parts[::2], parts[1::2]
    if not references:
        return _quoted(value)
    return _format(literals, [path(reference) for reference in references])


def array(values: Iterable[str]) -> str:
    """Return the expression of a list of texts that may hold references."""
    return f"States.Array({', '.join(map(text, values))})"


def parameters(value: Mapping[str, Any], shape: Shape) -> State:
    """Return a request as a state's ``Parameters``.

    Parameters
    ----------
    value
        The request, with references.
    shape
        Its shape in botocore's model: a reference that is all of a value becomes a text where the
        API takes a text, and else keeps its type.
    """
    return dict(_member_of(name, item, _shape_of(shape, name)) for name, item in value.items())


def references(value: Any) -> set[str]:
    """Return all references in a request, without their braces."""
    match value:
        case str():
            return set(REFERENCE.findall(value))
        case Mapping():
            return {found for item in value.values() for found in references(item)}
        case list():
            return {found for item in value for found in references(item)}
    return set()


def _member_of(name: str, value: Any, shape: Shape | None) -> tuple[str, Any]:
    """Return a member of ``Parameters``: an expression has a name that ends in ``.$``."""
    if not references(value):
        return name, value
    if isinstance(value, Mapping):
        assert shape is not None  # noqa: S101 - only leaves have no shape
        return name, parameters(value, shape)
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return f"{name}.$", array(value)
        assert isinstance(shape, ListShape)  # noqa: S101
        return name, [parameters(item, shape.member) for item in value]
    whole = REFERENCE.fullmatch(value)
    if whole and not isinstance(shape, StringShape):
        return f"{name}.$", path(whole[1])
    return f"{name}.$", text(value)


def _shape_of(shape: Shape, name: str) -> Shape | None:
    if isinstance(shape, StructureShape):
        return shape.members.get(name)
    if isinstance(shape, MapShape):
        return shape.value
    return None


def _format(literals: Iterable[str], expressions: Iterable[str]) -> str:
    template = "{}".join(map(_escaped, literals))
    arguments = ", ".join([f"'{template}'", *expressions])
    return f"States.Format({arguments})"


def _quoted(literal: str) -> str:
    return f"'{_escaped(literal)}'"


def _escaped(literal: str) -> str:
    return _RESERVED.sub(r"\\\1", literal)


def _member(name: str) -> str:
    return f".{name}" if _PLAIN.fullmatch(name) else f"['{_escaped(name)}']"
