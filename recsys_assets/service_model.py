"""What botocore's service models say of requests and responses.

What belongs here: loading a service's model, and telling where a value breaks it (members, types,
enumerations, patterns, lengths, all of which boto3 itself checks only in part). What does not: any
service in particular, what is done about a violation, and whatever a model cannot say.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import botocore.loaders
from botocore.model import (
    ListShape,
    MapShape,
    ServiceModel,
    Shape,
    StringShape,
    StructureShape,
)

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
    "blob": (bytes,),
}

# The models' patterns are Java's. Python lacks these classes; the nearest that it has in the same
# place (inside brackets but for the last two) are used, which differ on a few marks that no name
# or tag in practice holds.
_JAVA_CLASSES = {
    r"\p{L}": r"\w",
    r"\p{N}": r"\d",
    r"\p{Z}": r"\s",
    r"\p{Alnum}": "a-zA-Z0-9",
    r"\uD800\uDC00-\uDBFF\uDFFF": r"\U00010000-\U0010FFFF",
    r"\p{Print}": r"\x20-\x7E",
    r"\p{ASCII}": r"[\x00-\x7F]",
    r"\z": r"\Z",
}


class WrongTypeError(TypeError):
    """A value of another type than its shape; nothing inside it can be judged."""


@functools.cache
def service_model(name: str) -> ServiceModel:
    """Load botocore's model of a service by its botocore name (``sagemaker``, ``logs``)."""
    return ServiceModel(botocore.loaders.Loader().load_service_model(name, "service-2"), name)


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
    WrongTypeError
        Where the JSON type is wrong: nothing inside can be judged then.
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


def _check_json_type(shape: Shape, value: Any, path: str) -> None:
    expected = _PYTHON_TYPES[shape.type_name]
    # bool is an int to Python and not to JSON.
    if isinstance(value, expected) and (shape.type_name == "boolean") == isinstance(value, bool):
        bits = 32 if shape.type_name == "integer" else 64
        if not isinstance(value, int) or -(1 << bits - 1) <= value < 1 << bits - 1:
            return
    raise WrongTypeError(
        f"{_json_type(value)} can not be converted to {shape.type_name} at '{path or 'request'}'"
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
    sized = shape.type_name in ("string", "list", "map", "blob")
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
