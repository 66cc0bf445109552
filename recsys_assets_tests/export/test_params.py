"""Config classes as flat parameters."""

from typing import Literal

from dagster import Config
from pydantic import Field

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
        "step__names": ({"type": "array"}, ["n"]),
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
