"""AWS's wire protocols: an action's input out of an HTTP request, and an answer out of its output.

Names, places and types are those of botocore's service models; what they mean is not known here,
nor whether the input is a good one (``validation``).
"""

import contextlib
import datetime
import re
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from botocore.model import ListShape, OperationModel, Shape, StructureShape
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response

from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.validation import parse_json
from recsys_assets.service_model import service_model

_JSON_TARGETS = {"SageMaker": "sagemaker", "Logs_20140328": "logs"}

_QUERY_SERVICES = ("sts", "iam")

REST_SERVICE = "sagemaker-runtime"
"""The one service of the REST-JSON protocol."""

_POSITION = re.compile("[0-9]{1,6}")

# XML 1.0 has no way to write these.
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Call:
    """What a request asks for.

    Attributes
    ----------
    service, action
        Botocore's name of the service and AWS's name of the action.
    content
        The action's input, as yet unchecked.
    """

    service: str
    action: str
    content: object


class Wire(Protocol):
    """How one protocol reads requests and writes answers."""

    def call(self, headers: Headers, body: bytes) -> Call:
        """Return what a request asks for.

        Raises
        ------
        ServiceError
            When it cannot be read.
        """

    def success(self, call: Call, output: dict[str, Any], request_id: str) -> Response:
        """Return the answer that has an action's output."""

    def failure(self, error: ServiceError, request_id: str) -> Response:
        """Return the answer that tells of an error."""


class Json:
    """JSON 1.1: SageMaker and CloudWatch Logs."""

    def call(self, headers: Headers, body: bytes) -> Call:
        """Read the action from ``X-Amz-Target``, its input from the body."""
        prefix, _, action = headers["x-amz-target"].partition(".")
        try:
            content = parse_json(body or b"{}")
        except ValueError as error:
            raise ServiceError(
                "SerializationException", f"The body is not JSON: {error}"
            ) from error
        return Call(_JSON_TARGETS.get(prefix, prefix), action, content)

    def success(self, call: Call, output: dict[str, Any], request_id: str) -> Response:
        """Write the output as it is."""
        return JSONResponse(output, media_type="application/x-amz-json-1.1")

    def failure(self, error: ServiceError, request_id: str) -> Response:
        """Write the code as ``__type``."""
        return JSONResponse(
            {"__type": error.code, "message": error.message, **error.details},
            status_code=error.status,
            media_type="application/x-amz-json-1.1",
        )


class RestJson:
    """REST-JSON: SageMaker Runtime, whose members stand in the path, in headers and in the body.

    Parameters
    ----------
    operation
        The operation whose path and method a request has.
    path
        The members in the path.
    """

    def __init__(self, operation: OperationModel, path: Mapping[str, str]) -> None:
        # Every operation of the service has both shapes, with a payload in them.
        assert operation.input_shape is not None  # noqa: S101
        assert operation.output_shape is not None  # noqa: S101
        self._action = operation.name
        self._input, self._output = operation.input_shape, operation.output_shape
        self._path = path

    @property
    def largest(self) -> int:
        """Bytes that a body may have."""
        payload = self._input.members[self._input.serialization["payload"]]
        largest: int = payload.metadata["max"]
        return largest

    def call(self, headers: Headers, body: bytes) -> Call:
        """Gather the members from their places."""
        content: dict[str, object] = dict(self._path)
        for member, member_shape in self._input.members.items():
            header = member_shape.serialization.get("name", "")
            if member_shape.serialization.get("location") == "header" and header in headers:
                content[member] = headers[header]
        content[self._input.serialization["payload"]] = body
        return Call(REST_SERVICE, self._action, content)

    def success(self, call: Call, output: dict[str, Any], request_id: str) -> Response:
        """Put the members in their places."""
        response = Response(output[self._output.serialization["payload"]])
        for member, member_shape in self._output.members.items():
            if member_shape.serialization.get("location") == "header" and member in output:
                response.headers[member_shape.serialization["name"]] = output[member]
        return response

    def failure(self, error: ServiceError, request_id: str) -> Response:
        """Write the code to the header ``x-amzn-ErrorType``."""
        return JSONResponse(
            {"Message": error.message, **error.details},
            status_code=error.status,
            headers={"x-amzn-ErrorType": _code(error)},
        )


class Query:
    """The query protocol: IAM and STS, asked with form fields and answering with XML."""

    def call(self, headers: Headers, body: bytes) -> Call:
        """Read the fields of the body; their ``Version`` tells the service."""
        try:
            fields = urllib.parse.parse_qsl(
                body.decode(), keep_blank_values=True, errors="strict", max_num_fields=10_000
            )
        except ValueError as error:
            raise ServiceError(
                "SerializationException", f"The body is not a form: {error}"
            ) from error
        tree = _tree(fields)
        action = str(tree.pop("Action", ""))
        version = str(tree.pop("Version", ""))
        for name in _QUERY_SERVICES:
            model = service_model(name)
            if version == model.api_version and action in model.operation_names:
                shape = model.operation_model(action).input_shape
                return Call(name, action, _input(shape, tree) if shape else tree)
        raise ServiceError(
            "UnknownOperationException",
            f"The local SageMaker endpoint does not support action {action!r} of version"
            f" {version!r}.",
        )

    def success(self, call: Call, output: dict[str, Any], request_id: str) -> Response:
        """Write the output as the model wraps it."""
        model = service_model(call.service)
        root = ET.Element(f"{call.action}Response", xmlns=model.metadata["xmlNamespace"])
        shape = model.operation_model(call.action).output_shape
        if shape is not None:
            _append(root, shape.serialization["resultWrapper"], shape, output)
        _append_request_id(ET.SubElement(root, "ResponseMetadata"), request_id)
        return self._xml(root, 200)

    def failure(self, error: ServiceError, request_id: str) -> Response:
        """Write the code, and whose fault it is."""
        root = ET.Element("ErrorResponse")
        element = ET.SubElement(root, "Error")
        told = {
            "Type": "Sender" if error.status < 500 else "Receiver",
            "Code": _code(error),
            "Message": error.message,
        }
        for name, text in told.items():
            ET.SubElement(element, name).text = _NOT_XML.sub("?", text)
        _append_request_id(root, request_id)
        return self._xml(root, error.status)

    @staticmethod
    def _xml(root: ET.Element, status: int) -> Response:
        return Response(ET.tostring(root), status_code=status, media_type="text/xml")


def _code(error: ServiceError) -> str:
    """Return an error's code; these services have a name of their own for one of them."""
    return "ValidationError" if error.code == "ValidationException" else error.code


def _tree(fields: list[tuple[str, str]]) -> dict[str, Any]:
    """Return form fields as a tree: ``a.b.1=x`` gives ``{"a": {"b": {"1": "x"}}}``."""
    tree: dict[str, Any] = {}
    for name, text in fields:
        *path, last = name.split(".")
        node = tree
        for part in path:
            below = node.setdefault(part, {})
            if not isinstance(below, dict):
                raise ServiceError("MalformedInput", f"{name} comes both with and without parts.")
            node = below
        node[last] = text
    return tree


def _input(shape: Shape, tree: Any) -> Any:
    """Return the value of a shape; what does not fit is left as it is, for validation to refuse."""
    if isinstance(shape, StructureShape) and isinstance(tree, dict):
        return {
            name: _input(shape.members[name], below) if name in shape.members else below
            for name, below in tree.items()
        }
    if isinstance(shape, ListShape):
        if tree == "":
            return []
        items = tree.get("member") if isinstance(tree, dict) else None
        if isinstance(items, dict) and all(map(_POSITION.fullmatch, items)):
            return [_input(shape.member, items[number]) for number in sorted(items, key=int)]
        return tree
    if shape.type_name == "boolean":
        return {"true": True, "false": False}.get(tree, tree) if isinstance(tree, str) else tree
    if shape.type_name in ("integer", "long"):
        with contextlib.suppress(TypeError, ValueError):
            return int(tree)
    return tree


def _append(parent: ET.Element, name: str, shape: Shape, value: Any) -> None:
    element = ET.SubElement(parent, name)
    if isinstance(shape, StructureShape):
        for member, item in value.items():
            _append(element, member, shape.members[member], item)
    elif isinstance(shape, ListShape):
        for item in value:
            _append(element, "member", shape.member, item)
    else:
        element.text = _NOT_XML.sub("?", _text(shape, value))


def _append_request_id(parent: ET.Element, request_id: str) -> None:
    ET.SubElement(parent, "RequestId").text = request_id


def _text(shape: Shape, value: Any) -> str:
    match shape.type_name:
        case "boolean":
            return "true" if value else "false"
        case "timestamp":
            moment = datetime.datetime.fromtimestamp(value, datetime.UTC)
            return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
        case _:
            return str(value)
