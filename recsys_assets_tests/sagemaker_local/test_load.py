"""Many clients at once: all are answered, lists are whole, and jobs start in order and number."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from botocore.config import Config

from recsys_assets.sagemaker_local.store import MODEL, Query, Store
from recsys_assets_tests.sagemaker_local.endpoint import Endpoint, aws_client, eventually

CLIENTS = 8
CALLS = 200
JOBS = 50
MAX_JOBS = 2  # of own_endpoint

NO_SECOND_TRY = Config(retries={"total_max_attempts": 1}, max_pool_connections=CALLS)


def list_all(client: Any, order: str) -> list[str]:
    pages = client.get_paginator("list_training_jobs").paginate(
        SortBy="CreationTime", SortOrder=order, MaxResults=7
    )
    return [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]]


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """Return the results of calls that are all made at the same moment."""
    start = threading.Barrier(len(calls))

    def call(function: Callable[[], Any]) -> Any:
        start.wait()
        return function()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def test_all_clients_are_answered_and_jobs_start_in_order_and_number(
    own_endpoint: Endpoint, tmp_path: Path
) -> None:
    own_endpoint.start()
    clients = [aws_client("sagemaker", own_endpoint.url, NO_SECOND_TRY) for _ in range(CLIENTS)]
    created: list[str] = []
    passes: list[tuple[set[str], list[str]]] = []

    def create(number: int) -> None:
        name = f"load-{number:02d}"
        request = own_endpoint.training_request(
            name, {"journal": tmp_path / "journal", "seconds": 0.1}
        )
        clients[number % CLIENTS].create_training_job(**request)
        created.append(name)

    def list_while_jobs_are_created(order: str) -> None:
        while len(created) < JOBS:
            before = set(created)
            passes.append((before, list_all(clients[0], order)))

    with ThreadPoolExecutor(CLIENTS + 2) as pool:
        lists = [
            pool.submit(list_while_jobs_are_created, order) for order in ("Ascending", "Descending")
        ]
        for future in [*(pool.submit(create, number) for number in range(JOBS)), *lists]:
            future.result()
    for before, listed in passes:
        assert len(listed) == len(set(listed))
        assert before <= set(listed)
    assert any(before < set(created) for before, _ in passes), "nothing was created meanwhile"

    calls = [
        lambda client=client, name=name: client.describe_training_job(TrainingJobName=name)
        for client, name in zip(
            itertools.cycle(clients),
            itertools.islice(itertools.cycle(created), CALLS),
            strict=False,
        )
    ]
    described = at_once(calls)
    assert [job["TrainingJobName"] for job in described] == (created * CALLS)[:CALLS]
    statuses = {job["SecondaryStatus"] for job in described}
    assert "Starting" in statuses, "no job was waiting"
    assert statuses - {"Starting", "Completed"}, "no job was running"

    eventually(lambda: journal(tmp_path).count("end") == JOBS)
    running = list(
        itertools.accumulate({"begin": 1, "end": -1}.get(e, 0) for e in journal(tmp_path))
    )
    assert max(running) == MAX_JOBS
    jobs = [own_endpoint.ended_training_job(name) for name in created]
    assert {job["TrainingJobStatus"] for job in jobs} == {"Completed"}
    jobs.sort(key=lambda job: job["CreationTime"])
    started = sorted(jobs, key=lambda job: job["TrainingStartTime"])
    # Jobs that start at the same moment may change places.
    assert all(abs(started.index(job) - place) < MAX_JOBS for place, job in enumerate(jobs))


def journal(folder: Path) -> list[str]:
    return [line.split()[0] for line in (folder / "journal").read_text().splitlines()]


def test_who_asks_for_what_is_newer_than_the_last_misses_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    writers, each = 8, 100
    seen: list[str] = []

    def create(writer: int) -> None:
        for number in range(each):
            store.insert(MODEL, {"ModelName": f"{writer}-{number}"})

    with ThreadPoolExecutor(writers) as pool:
        done = [pool.submit(create, writer) for writer in range(writers)]
        last = 0.0
        while len(seen) < writers * each:
            finished = all(future.done() for future in done)
            newer = store.find(MODEL, Query(created_after=last))
            seen += [item.description["ModelName"] for item in newer]
            last = max([last, *(item.description["CreationTime"] for item in newer)])
            if finished:
                break
    store.close()
    assert len(seen) == len(set(seen)) == writers * each
