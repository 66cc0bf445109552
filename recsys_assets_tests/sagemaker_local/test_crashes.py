"""An endpoint that is killed over and over loses nothing, repeats nothing and finishes all."""

import contextlib
import functools
import json
import os
import queue
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from botocore.exceptions import ConnectionError as NotConnected
from botocore.exceptions import HTTPClientError

from recsys_assets.sagemaker_local.__main__ import lock_folder
from recsys_assets.sagemaker_local.store import (
    PROCESSING_JOB,
    TRAINING_JOB,
    TRANSFORM_JOB,
    TUNING_JOB,
    Description,
    Kind,
    Query,
    Store,
)
from recsys_assets_tests.sagemaker_local import test_processing as processing
from recsys_assets_tests.sagemaker_local.endpoint import Endpoint, eventually, free_port

KILLS = 20
JOBS = 12
RANGES = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
LOG_GROUPS = {
    TRAINING_JOB: "/aws/sagemaker/TrainingJobs",
    PROCESSING_JOB: "/aws/sagemaker/ProcessingJobs",
    TRANSFORM_JOB: "/aws/sagemaker/TransformJobs",
}


class Client(threading.Thread):
    """Sends requests one after the other, each until it is acknowledged."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.requests: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self.errors: list[Exception] = []

    def run(self) -> None:
        while (request := self.requests.get()) is not None:
            while not self._acknowledged(request):
                time.sleep(0.02)

    def _acknowledged(self, request: Callable[[], Any]) -> bool:
        try:
            request()
        except (NotConnected, HTTPClientError, ValueError):  # refused, cut off, cut short
            return False
        except Exception as error:
            # An answer that a kill has swallowed: what was asked for is there already.
            if not any(text in str(error) for text in ("ResourceInUse", "already exist")):
                self.errors.append(error)
        return True


@dataclass
class Remembered:
    """What the state folder holds after a kill."""

    completed: dict[str, tuple[Description, int]] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)


def remembered(state: Path, copy: Path) -> Remembered:
    """Read a copy of a dead endpoint's records, so that the next one finds what the kill left."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    found = Remembered()
    if not (state / "endpoint.sqlite").exists():
        return found
    for path in state.glob("endpoint.sqlite*"):
        shutil.copy(path, copy)
    store = Store(copy / "endpoint.sqlite")
    for kind in (TRAINING_JOB, PROCESSING_JOB, TUNING_JOB, TRANSFORM_JOB):
        for listed in store.find(kind, Query()):
            job, name = listed.description, listed.description[kind.name_member]
            if job[kind.status_member] == "Completed":
                found.completed[name] = job, logged(store, kind, name)
            else:
                found.unfinished.add(name)
    store.close()
    return found


def logged(store: Store, kind: Kind, name: str) -> int:
    """Count the events of a job's log, which must be one stream."""
    if kind not in LOG_GROUPS:
        return 0
    streams = store.log_streams(LOG_GROUPS[kind], f"{name}/")
    assert len(streams) == 1
    events = store.log_events(LOG_GROUPS[kind], streams[0].name, limit=10**6, most_bytes=10**9)
    assert events is not None
    return len(events)


def events(journal: Path) -> list[str]:
    """Return what the runs of a program noted: begin, end, or whom of its kind a run met."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [line.split()[0] for line in lines]


def await_notes(journals: Path, more: int) -> None:
    """Give programs the time for a few more notes, as far as there are programs to run."""

    def count() -> int:
        return sum(len(events(path)) for path in journals.iterdir())

    enough, deadline = count() + more, time.monotonic() + 2
    while count() < enough and time.monotonic() < deadline:
        time.sleep(0.01)


def workload(endpoint: Endpoint, journals: Path, chance: random.Random) -> dict[str, Any]:
    """Return jobs of every kind as their kinds and what creates them, by name."""

    def train(name: str, seconds: float) -> None:
        endpoint.train(name, {"journal": journals, "seconds": seconds, "name": name})

    def tune(name: str, seconds: float) -> None:
        static = {"journal": journals, "seconds": seconds}
        endpoint.tune(name, RANGES, jobs=2, parallel=2, static=static)

    def transform(name: str, _seconds: float) -> None:
        endpoint.transform(name, "echo", "crash/", given={"SplitType": "Line"})

    def process(name: str, seconds: float) -> None:
        environment = {"JOURNAL": journals / name, "SECONDS": seconds}
        endpoint.sagemaker.create_processing_job(**processing.request(name, environment))

    jobs = {}
    kinds = [
        (TRAINING_JOB, train),
        (TRANSFORM_JOB, transform),
        (TUNING_JOB, tune),
        (PROCESSING_JOB, process),
    ]
    for number in range(JOBS):
        kind, create = kinds[number % 4]
        name = f"crash-{number:02d}"
        jobs[name] = kind, functools.partial(create, name, round(chance.uniform(0, 0.3), 2))
    return jobs


def test_nothing_is_lost_repeated_or_left_undone_whenever_the_endpoint_is_killed(
    object_store: str, tmp_path: Path
) -> None:
    chance = random.Random(20)
    journals = tmp_path / "journals"
    journals.mkdir()
    endpoint = Endpoint(tmp_path / "state", object_store, free_port(), "--max-jobs=3")
    endpoint.state.mkdir()  # it may be killed before it gets there
    inputs = {f"crash/{number}": b"%d\n" % number * 1000 for number in range(3)}
    for key, content in inputs.items():
        endpoint.put(key, content)
    jobs = workload(endpoint, journals, chance)
    client = Client()
    client.start()
    client.requests.put(lambda: endpoint.create_model("echo", MODE="echo"))

    completed: dict[str, tuple[Description, int]] = {}
    lost_ends: set[tuple[str, int]] = set()
    with contextlib.closing(endpoint):
        creations = [create for _, create in jobs.values()]
        for kill in range(KILLS):
            while len(jobs) - len(creations) < JOBS * (kill + 1) // KILLS:
                client.requests.put(creations.pop(0))
            endpoint.spawn()
            if chance.random() < 0.7:  # otherwise it is killed while it starts
                eventually(endpoint.answers)
                await_notes(journals, more=chance.randrange(4))
            time.sleep(chance.uniform(0, 0.3))
            endpoint.signal(signal.SIGKILL)
            os.close(lock_folder(endpoint.state, patience=10))  # its programs are gone as well
            found = remembered(endpoint.state, tmp_path / "copy")
            completed |= found.completed
            for name in found.unfinished:
                # The program ended and the kill came before this was noted: it runs again.
                noted = events(journals / name)
                if noted[-1:] == ["end"]:
                    lost_ends.add((name, noted.count("end")))
        endpoint.start()
        client.requests.put(None)
        client.join(timeout=60)
        assert not client.is_alive()
        assert not client.errors
        for name, (kind, _) in jobs.items():
            check_completed(endpoint, kind, name)
        assert endpoint.process is not None
        process = psutil.Process(endpoint.process.pid)
        eventually(lambda: not process.children() and not list(endpoint.state.glob("jobs/*/*")))
        endpoint.signal(signal.SIGKILL)

    after = remembered(endpoint.state, tmp_path / "copy")
    assert not after.unfinished
    assert set(jobs) <= set(after.completed)
    assert completed, "no kill came after a job's end"
    assert {name: after.completed[name] for name in completed} == completed
    runs = {path.name: events(path) for path in journals.iterdir()}
    programs = {TUNING_JOB: 2, TRANSFORM_JOB: 0}
    assert len(runs) == sum(programs.get(kind, 1) for kind, _ in jobs.values())
    for name, noted in runs.items():
        assert set(noted) == {"begin", "end"}, "runs of one job met"
        assert noted[-1] == "end"
        assert noted.count("end") == 1 + len([job for job, _ in lost_ends if job == name])
    assert any(len(noted) > 2 for noted in runs.values()), "no kill came while a program ran"


def check_completed(endpoint: Endpoint, kind: Kind, name: str) -> None:
    """Wait for a job's good end and check that all that it leaves is there, whole."""
    if kind is TRAINING_JOB:
        job = endpoint.ended_training_job(name)
        assert job["TrainingJobStatus"] == "Completed", job
        check_model(endpoint, job)
    elif kind is TUNING_JOB:
        job = endpoint.ended_tuning_job(name)
        assert job["HyperParameterTuningJobStatus"] == "Completed", job
        children = endpoint.children(name)
        assert [child["TrainingJobStatus"] for child in children] == ["Completed"] * 2
        assert len({child["TunedHyperParameters"]["x"] for child in children}) == 2
        for child in children:
            check_model(endpoint, endpoint.training_job(child["TrainingJobName"]))
    elif kind is PROCESSING_JOB:
        job = processing.ended(endpoint, name)
        assert job["ProcessingJobStatus"] == "Completed", job
        assert endpoint.keys(f"processed/{name}/") == [f"processed/{name}/found.json"]
    else:
        job = endpoint.ended_transform_job(name)
        assert job["TransformJobStatus"] == "Completed", job
        for number in range(3):
            assert endpoint.get(f"out/{name}/{number}.out") == endpoint.get(f"crash/{number}")


def check_model(endpoint: Endpoint, job: Description) -> None:
    files = endpoint.archive(job["ModelArtifacts"]["S3ModelArtifacts"])
    assert json.loads(files["seen.json"])["hyperparameters"] == job["HyperParameters"]
