"""Where a tuning job looks: its ranges, and one random draw from them.

A draw depends on the seed and the number of the child alone, so that the same tuning job tries
the same hyperparameters whatever order its children end in, and after a restart too.
"""

import hashlib
import math
import random
from collections.abc import Mapping
from typing import Any

from recsys_assets.sagemaker_local.errors import validation_error

_WIDE = 100.0
"""From this ratio of a range's ends on, ScalingType Auto means Logarithmic."""

_LARGEST_INTEGER = 1 << 53
"""Beyond it, numbers between the ends of a range cannot be told apart."""

_KINDS = ("ContinuousParameterRanges", "IntegerParameterRanges", "CategoricalParameterRanges")


def check_ranges(ranges: Mapping[str, Any]) -> list[str]:
    """Check a request's ``ParameterRanges`` and return the names of the hyperparameters in them.

    Raises
    ------
    ServiceError
        When there is no range, a name comes twice, or a range is empty or not fit for its scale.
    """
    names: list[str] = []
    for kind in _KINDS:
        for item in ranges.get(kind, []):
            if item["Name"] in names:
                raise validation_error(f"ParameterRanges hold {item['Name']!r} more than once.")
            names.append(item["Name"])
    if not names:
        raise validation_error("ParameterRanges must hold at least one range.")
    for item in ranges.get("ContinuousParameterRanges", []):
        low, high = _bound(item, "MinValue"), _bound(item, "MaxValue")
        _check_range(item, low, high)
        if item.get("ScalingType") == "ReverseLogarithmic" and not (low >= 0 and high < 1):
            raise _misfit(item, "for ReverseLogarithmic it must lie in 0 <= x < 1")
    for item in ranges.get("IntegerParameterRanges", []):
        low, high = _integer_bound(item, "MinValue"), _integer_bound(item, "MaxValue")
        _check_range(item, low, high)
        if item.get("ScalingType") == "ReverseLogarithmic":
            raise _misfit(item, "ReverseLogarithmic is for continuous ranges only")
    return names


def default_seed(tuning_job: str) -> int:
    """Return the seed of a tuning job that names none: a hash of the job's name."""
    return int(hashlib.sha256(tuning_job.encode()).hexdigest()[:8], 16)


def draw(ranges: Mapping[str, Any], seed: int, number: int) -> dict[str, str]:
    """Draw the hyperparameters of one child at random.

    Parameters
    ----------
    ranges
        Checked ``ParameterRanges``.
    seed
        The tuning job's seed.
    number
        Which child; children with different numbers draw independently.

    Returns
    -------
    dict
        Hyperparameters as text. Continuous and integer ones are uniform on their range's scale,
        both ends included.
    """
    generator = random.Random(f"{seed}/{number}")  # noqa: S311 - a search, not a secret
    drawn: dict[str, str] = {}
    for item in ranges.get("ContinuousParameterRanges", []):
        low, high = _bound(item, "MinValue"), _bound(item, "MaxValue")
        value = _at(generator.random(), low, high, _scale(item, low, high))
        drawn[item["Name"]] = repr(min(max(value, low), high))
    for item in ranges.get("IntegerParameterRanges", []):
        first, last = _integer_bound(item, "MinValue"), _integer_bound(item, "MaxValue")
        # Half a step beyond each end, so that rounding gives the ends their full share.
        value = _at(generator.random(), first - 0.5, last + 0.5, _scale(item, first, last))
        drawn[item["Name"]] = str(min(max(round(value), first), last))
    for item in ranges.get("CategoricalParameterRanges", []):
        drawn[item["Name"]] = generator.choice(item["Values"])
    return drawn


def _scale(item: Mapping[str, str], low: float, high: float) -> str:
    scale = item.get("ScalingType", "Auto")
    if scale == "Auto":
        return "Logarithmic" if low > 0 and high / low >= _WIDE else "Linear"
    return scale


def _at(share: float, low: float, high: float, scale: str) -> float:
    """Return the value at a share (0 to 1) of the way from low to high on a scale."""
    match scale:
        case "Logarithmic":
            return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        case "ReverseLogarithmic":
            return 1 - _at(share, 1 - low, 1 - high, "Logarithmic")
        case _:
            return low + share * (high - low)


def _check_range(item: Mapping[str, str], low: float, high: float) -> None:
    if low > high:
        raise _misfit(item, "MinValue must not exceed MaxValue")
    if item.get("ScalingType") == "Logarithmic" and low <= 0:
        raise _misfit(item, "for Logarithmic, MinValue must be above 0")


def _bound(item: Mapping[str, str], member: str) -> float:
    try:
        value = float(item[member])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _misfit(item, f"{member} must be a number")
    return value


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
