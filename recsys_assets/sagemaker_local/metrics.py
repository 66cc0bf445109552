"""Metrics read off a job's log by regular expressions, as SageMaker does.

The definitions come from a request or from the table of images; where the values go is the job's
business.
"""

import math
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from recsys_assets.sagemaker_local.errors import validation_error


def check_definitions(definitions: Iterable[Mapping[str, str]]) -> None:
    """Check that metric definitions can be applied.

    Raises
    ------
    ServiceError
        When a regular expression is invalid or does not capture a value.
    """
    for definition in definitions:
        name, regex = definition["Name"], definition["Regex"]
        try:
            groups = re.compile(regex).groups
        except re.error as error:
            raise validation_error(
                f"Metric definition {name!r}: {regex!r} is not a regular expression: {error}."
            ) from error
        if groups < 1:
            raise validation_error(
                f"Metric definition {name!r}: {regex!r} must capture the value in a group."
            )


class MetricScraper:
    """The latest value of every metric seen in a log.

    Parameters
    ----------
    definitions
        Items with ``Name`` and ``Regex``; the first group of a match is the value. Matches that
        are no finite numbers are passed over, for JSON cannot carry them.
    """

    def __init__(self, definitions: Iterable[Mapping[str, str]]) -> None:
        self._definitions = [
            (definition["Name"], re.compile(definition["Regex"])) for definition in definitions
        ]
        self._latest: dict[str, dict[str, Any]] = {}

    def scan(self, line: str) -> list[tuple[str, float]]:
        """Look for metrics in a line; return their names and values."""
        found: list[tuple[str, float]] = []
        for name, regex in self._definitions:
            match = regex.search(line)
            value = _finite_number(match.group(1)) if match else None
            if value is not None:
                self._latest[name] = {
                    "MetricName": name,
                    "Value": value,
                    "Timestamp": time.time(),
                }
                found.append((name, value))
        return found

    def final(self) -> list[dict[str, Any]]:
        """Return the latest values as a ``FinalMetricDataList``."""
        return list(self._latest.values())


def _finite_number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
