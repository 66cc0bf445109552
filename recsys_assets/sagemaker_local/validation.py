"""Checks of requests: what a service model forbids, and what this endpoint does not support.

What a model forbids is found by ``recsys_assets.service_model`` and told here in AWS's words. What
a model cannot say (a name that is taken, a range that is empty) is checked where the action is
implemented, and what SageMaker can do and this endpoint cannot is refused here by tables
(``refuse_unsupported``), never ignored.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.model import OperationModel, StructureShape

from recsys_assets.sagemaker_local.errors import ServiceError, validation_error
from recsys_assets.service_model import WrongTypeError, violations

ANY: None = None
"""In a table of supported members: every value that the service model allows."""

Supported = Mapping[str, tuple[object, ...] | None]
"""Dotted member paths (lists are transparent) to the values supported there, or ``ANY``."""

# Of a request with many violations the first are told, so that the answer stays small.
_MOST_TOLD = 20


def parse_json(text: bytes) -> object:
    """Decode JSON as strictly as the standard has it.

    Raises
    ------
    ValueError
        For anything else, including what Python's decoder lets through: ``NaN``, numbers beyond
        every float (infinite to Python), text with lone surrogates (which no database or response
        can hold) and nesting beyond its depth.
    """
    try:
        value: object = json.loads(text, parse_constant=no_constant)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
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
    try:
        found = list(itertools.islice(violations(shape, cleaned), _MOST_TOLD))
    except WrongTypeError as error:
        raise ServiceError("SerializationException", str(error)) from error
    if found:
        plural = "s" if len(found) > 1 else ""
        raise validation_error(
            f"{len(found)} validation error{plural} detected: {'; '.join(found)}"
        )
    assert isinstance(cleaned, dict)  # noqa: S101 - a structure shape admits nothing else
    return cleaned


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


def no_constant(name: str) -> object:
    """Refuse ``NaN`` and ``Infinity``, as the ``parse_constant`` of a JSON decoder."""
    raise ValueError(f"{name} is not JSON")


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


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
