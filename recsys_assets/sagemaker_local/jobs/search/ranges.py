"""Where a tuning job looks: the ranges of a request, their checks and their scales.

A range translates between a hyperparameter's text and a value in Optuna's space, in which every
strategy searches. What is tried in a range is decided elsewhere.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from recsys_assets.sagemaker_local.errors import validation_error

_WIDE = 100.0
"""From this ratio of a range's ends on, ScalingType Auto means Logarithmic."""

_LARGEST_INTEGER = 1 << 53
"""Beyond it, numbers between the ends of a range cannot be told apart."""


@dataclass(frozen=True)
class ContinuousRange:
    """A range of real numbers, both ends included.

    Attributes
    ----------
    name
        The hyperparameter.
    low, high
        Its ends; finite.
    scale
        ``Linear``, ``Logarithmic`` or ``ReverseLogarithmic``: on which scale equal steps count as
        equal. The last one is the logarithm of the distance from 1.
    """

    name: str
    low: float
    high: float
    scale: str

    @property
    def distribution(self) -> FloatDistribution:
        """The range in Optuna's space."""
        if self.scale == "ReverseLogarithmic":
            return FloatDistribution(1 - self.high, 1 - self.low, log=True)
        return FloatDistribution(self.low, self.high, log=self.scale == "Logarithmic")

    def text(self, value: float) -> str:
        """Return a value of Optuna's space as the hyperparameter's text."""
        number = 1 - value if self.scale == "ReverseLogarithmic" else value
        return repr(min(max(number, self.low), self.high))

    def value(self, text: str) -> float | None:
        """Return a text's value in Optuna's space; None where it is not in the range."""
        number = _number(text)
        if not self.low <= number <= self.high:  # nor is NaN
            return None
        return 1 - number if self.scale == "ReverseLogarithmic" else number


@dataclass(frozen=True)
class IntegerRange:
    """A range of whole numbers, both ends included.

    Attributes
    ----------
    name
        The hyperparameter.
    low, high
        Its ends.
    scale
        ``Linear`` or ``Logarithmic``.
    """

    name: str
    low: int
    high: int
    scale: str

    @property
    def distribution(self) -> IntDistribution:
        """The range in Optuna's space."""
        return IntDistribution(self.low, self.high, log=self.scale == "Logarithmic")

    def text(self, value: int) -> str:
        """Return a value of Optuna's space as the hyperparameter's text."""
        return str(value)

    def value(self, text: str) -> int | None:
        """Return a text's value in Optuna's space; None where it is not in the range."""
        number = _number(text)
        return int(number) if self.low <= number <= self.high and number.is_integer() else None


@dataclass(frozen=True)
class CategoricalRange:
    """A choice among texts.

    Attributes
    ----------
    name
        The hyperparameter.
    categories
        Its values, each of them once.
    """

    name: str
    categories: tuple[str, ...]

    @property
    def distribution(self) -> CategoricalDistribution:
        """The range in Optuna's space."""
        return CategoricalDistribution(self.categories)

    def text(self, value: str) -> str:
        """Return a value of Optuna's space as the hyperparameter's text."""
        return value

    def value(self, text: str) -> str | None:
        """Return a text's value in Optuna's space; None where it is not in the range."""
        return text if text in self.categories else None


Range: TypeAlias = ContinuousRange | IntegerRange | CategoricalRange


def parse_ranges(ranges: Mapping[str, Any]) -> tuple[Range, ...]:
    """Return the ranges of a request's ``ParameterRanges``.

    Raises
    ------
    ServiceError
        When there is no range, a name comes twice, or a range is empty or not fit for its scale.
    """
    parsed: list[Range] = []
    parsed += [_continuous(item) for item in ranges.get("ContinuousParameterRanges", [])]
    parsed += [_integer(item) for item in ranges.get("IntegerParameterRanges", [])]
    parsed += [_categorical(item) for item in ranges.get("CategoricalParameterRanges", [])]
    if not parsed:
        raise validation_error("ParameterRanges must hold at least one range.")
    names: set[str] = set()
    for item in parsed:
        if item.name in names:
            raise validation_error(f"ParameterRanges hold {item.name!r} more than once.")
        names.add(item.name)
    return tuple(parsed)


def _continuous(item: Mapping[str, str]) -> ContinuousRange:
    low, high = _number(item["MinValue"]), _number(item["MaxValue"])
    for member, bound in (("MinValue", low), ("MaxValue", high)):
        if not math.isfinite(bound):
            raise _misfit(item, f"{member} must be a number")
    scale = _scale(item, low, high)
    if scale == "ReverseLogarithmic" and not (low >= 0 and high < 1):
        raise _misfit(item, "for ReverseLogarithmic it must lie in 0 <= x < 1")
    if not math.isfinite(high - low):
        raise _misfit(item, "it is too wide")
    return ContinuousRange(item["Name"], low, high, scale)


def _integer(item: Mapping[str, str]) -> IntegerRange:
    low, high = _integer_bound(item, "MinValue"), _integer_bound(item, "MaxValue")
    scale = _scale(item, low, high)
    if scale == "ReverseLogarithmic":
        raise _misfit(item, "ReverseLogarithmic is for continuous ranges only")
    return IntegerRange(item["Name"], low, high, scale)


def _categorical(item: Mapping[str, Any]) -> CategoricalRange:
    categories = tuple(item["Values"])
    if len(set(categories)) < len(categories):
        raise validation_error(f"The range of {item['Name']!r} holds a value more than once.")
    return CategoricalRange(item["Name"], categories)


def _scale(item: Mapping[str, str], low: float, high: float) -> str:
    """Return a checked range's scale; ``Auto`` is resolved."""
    if low > high:
        raise _misfit(item, "MinValue must not exceed MaxValue")
    scale = item.get("ScalingType", "Auto")
    if scale == "Logarithmic" and low <= 0:
        raise _misfit(item, "for Logarithmic, MinValue must be above 0")
    if scale == "Auto":
        return "Logarithmic" if low > 0 and high / low >= _WIDE else "Linear"
    return scale


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _integer_bound(item: Mapping[str, str], member: str) -> int:
    try:
        value = int(item[member])
    except ValueError:
        raise _misfit(item, f"{member} must be a whole number") from None
    if abs(value) > _LARGEST_INTEGER:
        raise _misfit(item, f"{member} must lie within ±{_LARGEST_INTEGER:,}")
    return value


def _misfit(item: Mapping[str, str], rule: str) -> Exception:
    return validation_error(
        f"The range of {item['Name']!r} is {item['MinValue']} to {item['MaxValue']}: {rule}."
    )
