"""Request and response bodies of the built-in's inference.

What belongs here: the documented content types, read into matrices and written from predictions.
What does not: HTTP (``container.serve``).

Requests are ``application/json``, ``application/jsonlines`` or ``application/x-recordio-protobuf``.
An instance in JSON is dense, ``{"features": [1.5, 0.0]}`` or
``{"data": {"features": {"values": [1.5, 0.0]}}}``, or sparse,
``{"data": {"features": {"keys": [0], "shape": [2], "values": [1.5]}}}``.

Sources: "Common Data Formats for Inference" and "Factorization Machines Response Formats" in the
Amazon SageMaker developer guide.
"""

import json
import struct
import textwrap
from collections.abc import Iterable
from itertools import chain
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from recsys_assets.domain.factorization_machine.hyperparameters import PredictorType
from recsys_assets.domain.factorization_machine.metrics import THRESHOLD
from recsys_assets.domain.recordio import MAGIC, RecordIOError, decode_recordio

JSON = "application/json"
JSON_LINES = "application/jsonlines"
RECORDIO = "application/x-recordio-protobuf"
CONTENT_TYPES = (JSON, JSON_LINES, RECORDIO)

Floats = npt.NDArray[np.float32]


class PayloadError(ValueError):
    """A request body that cannot be read; the message says what was expected and where."""


class ContentTypeError(ValueError):
    """A request in a content type that the built-in does not read."""


class AcceptError(ValueError):
    """A request for an answer in content types that the built-in does not write."""


def decode_request(body: bytes, content_type: str, feature_dim: int) -> csr_matrix:
    """Read the records of a request.

    Parameters
    ----------
    body
        The request body.
    content_type
        One of `CONTENT_TYPES`; parameters behind a semicolon are ignored.
    feature_dim
        The model's number of features, which every record must have.

    Returns
    -------
    scipy.sparse.csr_matrix
        float32 of shape ``(records, feature_dim)``.

    Raises
    ------
    ContentTypeError
        If the content type is not among `CONTENT_TYPES`.
    PayloadError
        If the body is not of that type, a record has another width, or a value is not a finite
        number.
    """
    readers = {JSON: _read_json, JSON_LINES: _read_json_lines, RECORDIO: _read_recordio}
    reader = readers.get(media_type(content_type))
    if reader is None:
        raise ContentTypeError(
            f"content type {content_type!r} is not supported; expected one of "
            + ", ".join(CONTENT_TYPES)
        )
    X = reader(body, feature_dim)
    if not np.isfinite(X.data).all():
        raise PayloadError("expected finite numbers, got an infinite one or not a number")
    X.eliminate_zeros()  # so that a record is the same to the model, dense or sparse
    return X


def response_type(accept: str | None, content_type: str) -> str:
    """Choose the content type of a response.

    Parameters
    ----------
    accept
        The request's Accept header: a list of media types, of which the first that is known wins.
        Absent, empty or ``*/*`` leaves the choice to the built-in, which answers JSON with JSON
        and the other two with JSON lines.
    content_type
        The request's own content type.

    Raises
    ------
    AcceptError
        If nothing in `accept` can be written.
    """
    wanted = [media_type(part) for part in (accept or "*/*").split(",")]
    for kind in wanted:
        if kind in CONTENT_TYPES:
            return kind
        if kind in ("*/*", "application/*", ""):
            return JSON if media_type(content_type) == JSON else JSON_LINES
    raise AcceptError(f"cannot answer in {accept!r}; expected one of {', '.join(CONTENT_TYPES)}")


def encode_response(predictions: Floats, predictor_type: PredictorType, content_type: str) -> bytes:
    """Write predictions: ``score``, and for a binary classifier ``predicted_label`` 0.0 or 1.0.

    Parameters
    ----------
    predictions
        float32 of shape ``(records,)``, as from ``FactorizationMachine.predict``.
    predictor_type
        The model's.
    content_type
        One of `CONTENT_TYPES`, as from :func:`response_type`.
    """
    columns = {"score": predictions.astype(np.float32)}
    if predictor_type == "binary_classifier":
        columns["predicted_label"] = (predictions >= THRESHOLD).astype(np.float32)
    if content_type == RECORDIO:
        return _write_recordio(columns)
    records = [
        dict(zip(columns, values, strict=True))
        for values in zip(*(column.tolist() for column in columns.values()), strict=True)
    ]
    if content_type == JSON:
        return json.dumps({"predictions": records}).encode()
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def media_type(header: str) -> str:
    """Return a Content-Type or one entry of Accept without its parameters, in lower case."""
    return header.partition(";")[0].strip().lower()


# ------------------------------------------------------------------------------------- requests


def _read_recordio(body: bytes, feature_dim: int) -> csr_matrix:
    try:
        X, _ = decode_recordio(body)
    except RecordIOError as error:
        raise PayloadError(f"not RecordIO-protobuf: {error}") from None
    if not X.shape[0]:
        return csr_matrix((0, feature_dim), dtype=np.float32)
    _check_width(X.shape[1], feature_dim, "the records")
    return X


def _read_json(body: bytes, feature_dim: int) -> csr_matrix:
    document = _parse(body, "the body")
    instances = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(instances, list):
        raise PayloadError('expected {"instances": [...]}, got ' + _short(document))
    return _stack(
        ((f"instance {number}", instance) for number, instance in enumerate(instances)),
        feature_dim,
    )


def _read_json_lines(body: bytes, feature_dim: int) -> csr_matrix:
    return _stack(
        (
            (f"line {number}", _parse(line, f"line {number}"))
            for number, line in enumerate(body.splitlines(), start=1)
            if line.strip()
        ),
        feature_dim,
    )


def _parse(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"{where} is not JSON: {error}") from None


def _stack(instances: Iterable[tuple[str, Any]], feature_dim: int) -> csr_matrix:
    keys: list[list[int]] = []
    values: list[list[float]] = []
    for where, instance in instances:
        instance_keys, instance_values = _read_instance(instance, feature_dim, where)
        keys.append(instance_keys)
        values.append(instance_values)
    try:
        data = np.array(list(chain.from_iterable(values)), dtype=np.float64)
    except OverflowError as error:  # an integer of hundreds of digits
        raise PayloadError(str(error)) from None
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is refused
        data = data.astype(np.float32)
    return csr_matrix(
        (
            data,
            np.array(list(chain.from_iterable(keys)), dtype=np.int32),
            np.cumsum([0, *map(len, keys)]),
        ),
        shape=(len(keys), feature_dim),
    )


def _read_instance(instance: Any, feature_dim: int, where: str) -> tuple[list[int], list[float]]:
    """Return the keys and values of an instance in any of its three forms."""
    features = instance.get("features") if isinstance(instance, dict) else None
    if features is None:
        try:
            features = instance["data"]["features"]
        except (TypeError, KeyError, IndexError):
            raise PayloadError(
                f'{where}: expected {{"features": [...]}} or {{"data": {{"features": ...}}}}, got '
                + _short(instance)
            ) from None
    tensor = {"values": features} if isinstance(features, list) else features
    values = tensor.get("values") if isinstance(tensor, dict) else None
    if not _are_numbers(values, (int, float)):
        raise PayloadError(f"{where}: expected a list of numbers as values, got {_short(values)}")

    keys, shape = tensor.get("keys"), tensor.get("shape")
    if keys is None:
        _check_width(len(values), feature_dim, where)
        return list(range(feature_dim)), values
    if not _are_numbers(keys, int) or len(keys) != len(values):
        raise PayloadError(
            f"{where}: expected as many integers as values ({len(values)}) as keys, got "
            + _short(keys)
        )
    if not _are_numbers(shape, int) or len(shape) != 1:
        raise PayloadError(f"{where}: expected a list of one integer as shape, got {_short(shape)}")
    _check_width(shape[0], feature_dim, where)
    outside = [key for key in keys if not 0 <= key < feature_dim]
    if outside:
        raise PayloadError(f"{where}: key {outside[0]} lies outside {feature_dim} features")
    return keys, values


def _are_numbers(values: Any, kind: type | tuple[type, ...]) -> TypeGuard[list[Any]]:
    return isinstance(values, list) and all(
        isinstance(value, kind) and not isinstance(value, bool) for value in values
    )


def _check_width(width: int, feature_dim: int, where: str) -> None:
    if width != feature_dim:
        raise PayloadError(f"{where}: expected {feature_dim} features, got {width}")


def _short(value: Any) -> str:
    return textwrap.shorten(json.dumps(value), 100, placeholder=" ...")


# ------------------------------------------------------------------------------------ responses


def _write_recordio(columns: dict[str, Floats]) -> bytes:
    """Write one record a prediction: no features, and a label for each column."""
    template = bytearray()
    offsets = []
    for name in columns:
        key = bytes([0x0A, len(name)]) + name.encode()
        value = b"\x12\x08\x12\x06\x0a\x04"  # in it a float32 tensor, in that four packed bytes
        template += bytes([0x12, len(key) + len(value) + 4]) + key + value
        offsets.append(8 + len(template))
        template += bytes(4)
    frame = struct.pack("<II", MAGIC, len(template)) + template + bytes(-len(template) % 4)
    frames = np.tile(np.frombuffer(frame, dtype=np.uint8), (len(columns["score"]), 1))
    for offset, column in zip(offsets, columns.values(), strict=True):
        frames[:, offset : offset + 4] = column.astype("<f4")[:, None].view(np.uint8)
    return frames.tobytes()
