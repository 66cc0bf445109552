"""Run config as flat, typed parameters, which any orchestrator's form can show.

What belongs here: config classes to parameters and back. What does not: whose config it is.
"""

import typing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

from dagster import Config
from dagster._config import process_config
from dagster._config.pythonic_config.config import infer_schema_from_config_class
from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema

from recsys_assets.export.graph import GraphError, Param

SEPARATOR = "__"
_KEPT = ("type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern")


class ConfigError(ValueError):
    """Config does not fit its step; the message says what was expected and what came."""


class _Schema(GenerateJsonSchema):
    """JSON schema of run config, where Dagster wants the names of an enum's members."""

    def enum_schema(self, schema: Any) -> dict[str, Any]:
        return {"type": "string", "enum": [member.name for member in schema["members"]]}


def config_class_of(op: Any) -> type[Config] | None:
    """Return the class of an op's config, which is the type of the argument `config`."""
    function = getattr(getattr(op, "compute_fn", None), "decorated_fn", None)
    if function is None:
        return None
    annotation = typing.get_type_hints(function).get("config")
    is_config = isinstance(annotation, type) and issubclass(annotation, Config)
    return annotation if is_config else None


def validated(step: str, config_class: type[Config], values: Mapping[str, Any]) -> Config:
    """Return the config of a step, as Dagster makes it from run config.

    Raises
    ------
    ConfigError
        If the values do not fit.
    """
    resolved = process_config(infer_schema_from_config_class(config_class).config_type, values)
    if not resolved.success:
        problems = "; ".join(" ".join(error.message.split()) for error in resolved.errors or ())
        raise ConfigError(f"the config of {step} does not fit: {problems}")
    try:
        return config_class(**(resolved.value or {}))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}, got {problem['input']!r}"
            for problem in error.errors()
        )
        raise ConfigError(f"the config of {step} does not fit: {problems}") from error


def params_of(step: str, config: Config) -> list[Param]:
    """Return a parameter for each field of a config, with its value there as the default.

    Fields of nested config classes are parameters of their own; mappings and lists stay whole.

    Raises
    ------
    GraphError
        If a field's name cannot be read back from the parameter's.
    """
    with warnings.catch_warnings():
        # Defaults of mappings of config classes are plain mappings, as Dagster wants them.
        warnings.filterwarnings("ignore", "Pydantic serializer warnings", UserWarning)
        schema = type(config).model_json_schema(schema_generator=_Schema)
        values = _plain(config.model_dump(by_alias=True))
    return list(_params(step, (), schema, schema.get("$defs", {}), values))


def required(param: Param) -> Param:
    """Return a parameter without its null: something is sent that would not be without a value."""
    kinds = param.schema["type"]
    if param.default is None or not isinstance(kinds, list):
        return param
    others = [kind for kind in kinds if kind != "null"]
    schema = {**param.schema, "type": others[0] if len(others) == 1 else others}
    if "enum" in schema:
        schema["enum"] = [value for value in schema["enum"] if value is not None]
    return replace(param, schema=schema)


def _params(
    step: str,
    path: tuple[str, ...],
    schema: Mapping[str, Any],
    definitions: Mapping[str, Any],
    values: Mapping[str, Any],
    within: str = "",
) -> Iterator[Param]:
    for name, raw in schema["properties"].items():
        inner = _resolved(raw, definitions)
        if "properties" in inner:
            # The description of a field, not that of its class.
            around = raw.get("description", "")
            yield from _params(step, (*path, name), inner, definitions, values[name], around)
            continue
        fields = [*path, name]
        if SEPARATOR.join(fields).split(SEPARATOR) != fields:
            raise GraphError(
                f"the config field {'.'.join(fields)} of {step} has underscores where the name of "
                f"a parameter has {SEPARATOR} between fields; give it another name"
            )
        description = f"{within} {inner.get('description', '')}"
        yield Param(
            name=SEPARATOR.join((step, *fields)),
            schema=_value_schema(inner, definitions),
            default=_selected(inner, values[name]),
            description=" ".join(description.split()),
            section=step,
        )


def _plain(value: Any) -> Any:
    """Return a value of run config as JSON has it."""
    match value:
        case Enum():
            return value.name
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case str():
            return value
        case Sequence():
            return [_plain(item) for item in value]
    return value


def _selected(schema: Mapping[str, Any], value: Any) -> Any:
    """Return a value as Dagster takes it: one of several config classes is under its own key."""
    if "discriminator" not in schema:
        return value
    kind = schema["discriminator"]["propertyName"]
    return {value[kind]: {name: item for name, item in value.items() if name != kind}}


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Follow a reference to another schema; what stands beside the reference goes first."""
    reference = schema.get("$ref")
    if reference is None:
        return dict(schema)
    return {**definitions[reference.rpartition("/")[2]], **schema}


def _value_schema(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of a value: simple types, of which there may be several, and limits."""
    if "const" in schema:
        return {"type": schema["type"], "enum": [schema["const"]]}
    if "anyOf" not in schema:
        if "discriminator" in schema:
            return {"type": "object"}
        kept = {key: schema[key] for key in _KEPT if key in schema}
        if "items" in schema:  # forms take lines of text for a list of what they know nothing of
            kept["items"] = _value_schema(_resolved(schema["items"], definitions), definitions)
        kept.setdefault("type", ["object", "array", "string", "number", "boolean", "null"])
        return kept
    merged: dict[str, Any] = {"type": []}
    for branch in schema["anyOf"]:
        found = _value_schema(_resolved(branch, definitions), definitions)
        kinds = found.pop("type")
        merged["type"] += kinds if isinstance(kinds, list) else [kinds]
        merged |= found
    if "enum" in merged and "null" in merged["type"]:
        merged["enum"] = [*merged["enum"], None]
    return merged
