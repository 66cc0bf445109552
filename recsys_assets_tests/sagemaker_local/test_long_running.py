"""A day of an endpoint's life: what it holds does not grow.

Real are the process, its jobs and programs, its files and the clients with their connections. Only
the time between two polls is left out, in which neither side does anything: a round of polls stands
for 15 seconds. New jobs come every few minutes, and a client connects anew for each.
"""

from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from recsys_assets_tests.sagemaker_local.endpoint import ENDED, Endpoint

ROUND_SECONDS = 15
MEGABYTE = 1 << 20

RANGES = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}


@dataclass(frozen=True)
class Holding:
    """What a process holds at a moment when it has nothing to do."""

    files: int
    threads: int
    children: int
    memory: int
    log: int

    @classmethod
    def of(cls, endpoint: Endpoint) -> "Holding":
        assert endpoint.process is not None
        process = psutil.Process(endpoint.process.pid)
        return cls(
            files=process.num_fds(),
            threads=process.num_threads(),
            children=len(process.children(recursive=True)),
            memory=process.memory_info().rss,
            log=(endpoint.state / "endpoint.sqlite-wal").stat().st_size,
        )


class Follower:
    """Follows a job as Airflow's operator does: its description, its log streams, its events."""

    def __init__(self, endpoint: Endpoint, number: int) -> None:
        self._endpoint = endpoint
        self._name = name = f"day-{number}"
        self._tokens: dict[str, dict[str, str]] = {}
        self.lines = 0
        if number % 7 == 5:
            self._kind, self._group = "transform", "/aws/sagemaker/TransformJobs"
            endpoint.transform(name, "echo", "day/")
        elif number % 7 == 6:
            self._kind, self._group = "tuning", "/aws/sagemaker/TrainingJobs"
            endpoint.tune(name, RANGES, jobs=2, parallel=2)
        else:
            self._kind, self._group = "training", "/aws/sagemaker/TrainingJobs"
            endpoint.train(name, {"print": "a|b|c"})

    def poll(self) -> bool:
        """Poll once; return whether the job has ended."""
        job: dict[str, Any] = getattr(self._endpoint, f"{self._kind}_job")(self._name)
        logs = self._endpoint.logs
        try:
            streams = logs.describe_log_streams(
                logGroupName=self._group, logStreamNamePrefix=self._name
            )["logStreams"]
        except logs.exceptions.ResourceNotFoundException:
            streams = []
        for stream in streams:
            name = stream["logStreamName"]
            page = logs.get_log_events(
                logGroupName=self._group,
                logStreamName=name,
                startFromHead=True,
                **self._tokens.get(name, {}),
            )
            self._tokens[name] = {"nextToken": page["nextForwardToken"]}
            self.lines += len(page["events"])
        return any(job[member] in ENDED for member in job if member.endswith("JobStatus"))


@pytest.mark.parametrize(
    ("hours", "minutes_between_jobs"),
    [(1, 4), pytest.param(24, 5, marks=pytest.mark.slow)],
    ids=["hour", "day"],
)
def test_what_an_endpoint_holds_does_not_grow(
    own_endpoint: Endpoint, hours: int, minutes_between_jobs: int
) -> None:
    own_endpoint.start()
    own_endpoint.create_model("echo", MODE="echo")
    own_endpoint.put("day/in", b"1\n")
    held: list[Holding] = []
    for number in range(hours * 60 // minutes_between_jobs):
        follower = Follower(own_endpoint, number)
        rounds = [follower.poll() for _ in range(minutes_between_jobs * 60 // ROUND_SECONDS)]
        while not rounds[-1]:
            rounds.append(follower.poll())
        assert follower.lines
        own_endpoint.sagemaker.close()
        own_endpoint.logs.close()
        held.append(Holding.of(own_endpoint))

    # Each kind of job has run once by then. A leak of each job or poll goes far beyond the margins.
    warm, late = held[7], held[-1]
    assert late.children == 0
    assert late.threads <= warm.threads + 4, "threads of idle workers"
    assert late.files <= warm.files + 4, "idle connections"
    assert late.memory <= warm.memory + 16 * MEGABYTE
    assert late.log <= 8 * MEGABYTE, "SQLite has never taken its log over"
