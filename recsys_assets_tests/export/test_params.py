"""Config classes as flat parameters."""

from enum import Enum
from typing import Literal

import pytest
from dagster import Config
from pydantic import Field

from recsys_assets.export.graph import GraphError
from recsys_assets.export.params import params_of, required, validated


class Inner(Config):
    size: int = Field(default=2, ge=1, le=9, description="How\n    large.")
    ratio: float | None = Field(default=None, gt=0)


class Outer(Config):
    mode: Literal["a", "b"] = "a"
    only: Literal["x"] = "x"
    inner: Inner = Field(default=Inner(), description="What is inside.")
    names: list[str] = Field(default=["n"])
    by_name: dict[str, Inner] = Field(default={}, description="Of each.")
    flag: bool = False


def test_each_field_is_a_parameter_with_its_type_limits_and_default() -> None:
    config = validated("step", Outer, {"inner": {"size": 3}, "by_name": {"k": {"size": 4}}})
    found = {param.name: param for param in params_of("step", config)}
    assert {name: (dict(param.schema), param.default) for name, param in found.items()} == {
        "step__mode": ({"type": "string", "enum": ["a", "b"]}, "a"),
        "step__only": ({"type": "string", "enum": ["x"]}, "x"),
        "step__inner__size": ({"type": "integer", "minimum": 1, "maximum": 9}, 3),
        "step__inner__ratio": ({"type": ["number", "null"], "exclusiveMinimum": 0}, None),
        "step__names": ({"type": "array", "items": {"type": "string"}}, ["n"]),
        "step__by_name": ({"type": "object"}, {"k": {"size": 4, "ratio": None}}),
        "step__flag": ({"type": "boolean"}, False),
    }
    assert found["step__inner__size"].description == "What is inside. How large."
    assert {param.section for param in found.values()} == {"step"}


def test_a_value_that_is_sent_may_not_be_null() -> None:
    found = params_of("step", validated("step", Inner, {"ratio": 0.5}))
    size, ratio = found
    assert required(size) == size
    assert required(ratio).schema == {"type": "number", "exclusiveMinimum": 0}
    (_, unsent) = params_of("step", Inner())
    assert required(unsent) == unsent


class Colour(Enum):
    RED = "r"
    BLUE = "b"


class Cat(Config):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(Config):
    kind: Literal["dog"] = "dog"


class Dagsters(Config):
    colour: Colour = Colour.RED
    other: Colour | None = None
    renamed: int = Field(default=1, alias="as_told")
    pet: Cat | Dog = Field(default=Cat(), discriminator="kind")


def test_defaults_are_what_dagster_takes_them_from() -> None:
    config = validated("step", Dagsters, {"colour": "BLUE", "as_told": 5})
    found = {param.name: param for param in params_of("step", config)}
    defaults = {name.removeprefix("step__"): param.default for name, param in found.items()}
    assert defaults == {
        "colour": "BLUE",
        "other": None,
        "as_told": 5,
        "pet": {"cat": {"lives": 9}},
    }
    assert found["step__other"].schema["enum"] == ["RED", "BLUE", None]
    assert validated("step", Dagsters, defaults) == config


class Trailing(Config):
    lambda_: Inner = Inner()


class Double(Config):
    of__two: int = 1


@pytest.mark.parametrize("config", [Trailing(), Double()])
def test_a_field_that_could_not_be_read_back_is_refused(config: Config) -> None:
    with pytest.raises(GraphError, match="give it another name"):
        params_of("step", config)
