"""The built-in's log lines, from which SageMaker's regular expressions take metrics.

What belongs here: the text of each kind of line. What does not: when they are written
(``container.train``).

Source: logs of the built-in's training jobs, and the metric definitions that SageMaker attaches to
its jobs.
"""

import json
import sys
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from recsys_assets.domain.factorization_machine.metrics import Metric


class TrainingLog:
    """Writes lines to standard output, each as soon as it is known.

    Parameters
    ----------
    host
        The name of this container's host, such as "algo-1".
    """

    def __init__(self, host: str) -> None:
        self._host = host

    def info(self, message: str) -> None:
        """Write a message, as all others are, behind time, level and thread."""
        _write(f"{_prefix('INFO')} {message}")

    def quality(self, metrics: Iterable[Metric], data: str) -> None:
        """Write metrics of `data`, such as "train" or "epoch=0, batch=0 train"."""
        for metric in metrics:
            self.info(
                f"#quality_metric: host={self._host}, {data} "
                f"{metric.name} <{metric.kind}>={metric.value}"
            )

    def test_scores(self, metrics: Iterable[Metric]) -> None:
        """Write metrics of the test channel in their older form."""
        for metric in metrics:
            self.info(f"#test_score ({self._host}) : {(metric.name, metric.value)}")

    def progress(self, percent: float) -> None:
        """Write how much of the epochs is done."""
        self.info(f"#progress_metric: host={self._host}, completed {percent} % of epochs")

    def throughput(self, records_per_second: float) -> None:
        """Write how fast records were read and learned from."""
        self.info(
            f"#throughput_metric: host={self._host}, "
            f"train throughput={records_per_second} records/second"
        )

    def timings(self, start: float, end: float, milliseconds: Mapping[str, float]) -> None:
        """Write durations; `start` and `end` are Unix times, in seconds."""
        metrics = {
            name: {"sum": value, "count": 1, "min": value, "max": value}
            for name, value in milliseconds.items()
        }
        dimensions = {
            "Algorithm": "factorization-machines",
            "Host": self._host,
            "Operation": "training",
        }
        line = {"StartTime": start, "EndTime": end, "Dimensions": dimensions, "Metrics": metrics}
        _write(f"#metrics {json.dumps(line)}")


def write_error(message: str) -> None:
    """Write an error line."""
    _write(f"{_prefix('ERROR')} {message}")


def _prefix(level: str) -> str:
    return f"[{datetime.now(UTC):%m/%d/%Y %H:%M:%S} {level} {threading.get_ident()}]"


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
