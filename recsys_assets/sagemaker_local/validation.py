"""Checks of requests and responses against botocore's own service models.

The models say which members exist, which are required, their types, enumerations, patterns and
lengths; a violation is told in AWS's words. What a model cannot say (a name that is taken, a range
that is empty) is checked where the action is implemented, and what SageMaker can do and this
endpoint cannot is refused here by tables (``refuse_unsupported``), never ignored.
"""

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import botocore.loaders
from botocore.model import (
    ListShape,
    MapShape,
    OperationModel,
    ServiceModel,
    Shape,
    StringShape,
    StructureShape,
)

from recsys_assets.sagemaker_local.errors import ServiceError, validation_error

ANY: None = None
"""In a table of supported members: every value that the service model allows."""

Supported = Mapping[str, tuple[object, ...] | None]
"""Dotted member paths (lists are transparent) to the values supported there, or ``ANY``."""

_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float),
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
}

# Of a request with many violations the first are told, so that the answer stays small.
_MOST_TOLD = 20

# The models' patterns are Java's. Python lacks these classes; the nearest that it has inside
# brackets are used, which differ on a few marks that no name or tag in practice holds.
_JAVA_CLASSES = {r"\p{L}": r"\w", r"\p{N}": r"\d", r"\p{Z}": r"\s", r"\p{Alnum}": "a-zA-Z0-9"}


@functools.cache
def service_model(name: str) -> ServiceModel:
    """Load botocore's model of a service by its botocore name (``sagemaker``, ``logs``)."""
    return ServiceModel(botocore.loaders.Loader().load_service_model(name, "service-2"), name)


def parse_json(text: bytes) -> object:
    """Decode JSON as strictly as the standard has it.

    Raises
    ------
    ValueError
        For anything else, including what Python's decoder lets through: ``NaN``, text with lone
        surrogates (which no database or response can hold) and nesting beyond its depth.
    """
    try:
        value: object = json.loads(text, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def check_request(operation: OperationModel, request: object) -> dict[str, Any]:
    """Check a request's JSON against an operation's input and return it without nulls.

    Raises
    ------
    ServiceError
        ``SerializationException`` where a value has the wrong JSON type, ``ValidationException``
        with every other violation, in AWS's words.
    """
    shape = operation.input_shape or StructureShape("Empty", {"type": "structure"})
    cleaned = _without_nulls(request)
    found = list(itertools.islice(violations(shape, cleaned), _MOST_TOLD))
    if found:
        plural = "s" if len(found) > 1 else ""
        raise validation_error(
            f"{len(found)} validation error{plural} detected: {'; '.join(found)}"
        )
    assert isinstance(cleaned, dict)  # noqa: S101 - a structure shape admits nothing else
    return cleaned


def violations(shape: Shape, value: Any, path: str = "") -> Iterator[str]:
    """Yield what is wrong with a value, one AWS-worded sentence each.

    Parameters
    ----------
    shape
        The model's shape for this value.
    value
        Decoded JSON.
    path
        Where the value stands, as AWS writes it (``inputDataConfig.1.member.channelName``).

    Raises
    ------
    ServiceError
        ``SerializationException`` where the JSON type is wrong: nothing inside can be judged then.
    """
    _check_json_type(shape, value, path)
    if isinstance(shape, StructureShape):
        yield from _structure_violations(shape, value, path)
    elif isinstance(shape, ListShape):
        yield from _constraint_violations(shape, value, path)
        for position, item in enumerate(value, start=1):
            yield from violations(shape.member, item, f"{path}.{position}.member")
    elif isinstance(shape, MapShape):
        yield from _constraint_violations(shape, value, path)
        for key, item in value.items():
            for violation in _constraint_violations(shape.key, key, path):
                yield f"{violation} (a key of the map)"
            yield from violations(shape.value, item, f"{path}.{key}.member")
    else:
        yield from _constraint_violations(shape, value, path)


def refuse_unsupported(request: Mapping[str, Any], supported: Supported) -> None:
    """Refuse whatever a request asks for beyond a table of supported members.

    Empty structures, lists and maps ask for nothing and pass.

    Raises
    ------
    ServiceError
        ``ValidationException`` that names the member and what is supported there.
    """
    for path, value in _asked_for(request, supported):
        if path not in supported:
            raise validation_error(f"The local SageMaker endpoint does not support {path}.")
        values = supported[path]
        if values is not None and value not in values:
            raise validation_error(
                f"The local SageMaker endpoint supports only {' or '.join(map(repr, values))} "
                f"for {path}, not {value!r}."
            )


def project(shape: Shape, value: Any) -> Any:
    """Return a value without the structure members that the model does not know, at any depth."""
    if isinstance(shape, StructureShape):
        return {
            member: project(shape.members[member], item)
            for member, item in value.items()
            if member in shape.members
        }
    if isinstance(shape, ListShape):
        return [project(shape.member, item) for item in value]
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _check_json_type(shape: Shape, value: Any, path: str) -> None:
    expected = _PYTHON_TYPES[shape.type_name]
    # bool is an int to Python and not to JSON.
    if isinstance(value, expected) and (shape.type_name == "boolean") == isinstance(value, bool):
        bits = 32 if shape.type_name == "integer" else 64
        if not isinstance(value, int) or -(1 << bits - 1) <= value < 1 << bits - 1:
            return
    raise ServiceError(
        "SerializationException",
        f"{_json_type(value)} can not be converted to {shape.type_name} at '{path or 'request'}'",
    )


def _json_type(value: object) -> str:
    match value:
        case bool():
            return "BOOLEAN_VALUE"
        case int() | float():
            return "NUMBER_VALUE"
        case str():
            return "STRING_VALUE"
        case dict():
            return "OBJECT_VALUE"
        case list():
            return "ARRAY_VALUE"
        case _:
            return "NULL_VALUE"


def _structure_violations(
    shape: StructureShape, value: Mapping[str, object], path: str
) -> Iterator[str]:
    for member in shape.required_members:
        if member not in value:
            yield _violation(None, _member_path(path, member), "Member must not be null")
    for member, item in value.items():
        if member not in shape.members:
            known = ", ".join(shape.members)
            yield _violation(item, _member_path(path, member), f"Member must be one of: [{known}]")
        else:
            yield from violations(shape.members[member], item, _member_path(path, member))


def _constraint_violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    limits = shape.metadata
    sized = shape.type_name in ("string", "list", "map")
    measure = "length" if sized else "value"
    amount = len(value) if sized else value
    fits = True
    if "min" in limits and amount < limits["min"]:
        fits = False
        bound = f"{measure} greater than or equal to {limits['min']}"
        yield _violation(value, path, f"Member must have {bound}")
    if "max" in limits and amount > limits["max"]:
        fits = False
        bound = f"{measure} less than or equal to {limits['max']}"
        yield _violation(value, path, f"Member must have {bound}")
    if isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        choices = ", ".join(shape.enum)
        yield _violation(value, path, f"Member must satisfy enum value set: [{choices}]")
    # Some patterns take quadratic time, so that text of unlimited length must not reach them.
    if fits and "pattern" in limits and not _pattern(limits["pattern"]).fullmatch(value):
        constraint = f"Member must satisfy regular expression pattern: {limits['pattern']}"
        yield _violation(value, path, constraint)


@functools.cache
def _pattern(java: str) -> re.Pattern[str]:
    for java_class, python_class in _JAVA_CLASSES.items():
        java = java.replace(java_class, python_class)
    return re.compile(java)


def _member_path(path: str, member: str) -> str:
    name = member[:1].lower() + member[1:]
    return f"{path}.{name}" if path else name


def _violation(value: object, path: str, constraint: str) -> str:
    came = "null" if value is None else f"'{_shortened(str(value))}'"
    return f"Value {came} at '{path}' failed to satisfy constraint: {constraint}"


def _shortened(text: str, length: int = 200) -> str:
    return text if len(text) <= length else text[:length] + "..."


def _asked_for(value: object, supported: Supported, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield the members of a request, each at the depth where the table speaks of it."""
    if path in supported:
        yield path, value
    elif isinstance(value, Mapping):
        for member, item in value.items():
            yield from _asked_for(item, supported, f"{path}.{member}" if path else member)
    elif isinstance(value, list):
        for item in value:
            yield from _asked_for(item, supported, path)
    else:
        yield path, value
