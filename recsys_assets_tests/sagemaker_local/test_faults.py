"""What goes wrong around the endpoint passes, and leaves nothing wrong behind."""

import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.hosting import records
from recsys_assets.sagemaker_local.hosting.host import Host
from recsys_assets.sagemaker_local.images import Images
from recsys_assets.sagemaker_local.jobs import background, tuning
from recsys_assets.sagemaker_local.jobs.outputs import FolderMirror
from recsys_assets.sagemaker_local.jobs.run import LONGEST_FAILURE_REASON, JobFailed, Run
from recsys_assets.sagemaker_local.jobs.scheduler import Scheduler
from recsys_assets.sagemaker_local.jobs.training import TrainingRun
from recsys_assets.sagemaker_local.s3 import ObjectStore, S3Uri
from recsys_assets.sagemaker_local.store import (
    ENDPOINT,
    TRAINING_JOB,
    TUNING_JOB,
    Description,
    Kind,
    Listed,
    Query,
    Store,
)
from recsys_assets_tests.sagemaker_local.endpoint import eventually


class FaultyStore(Store):
    """A store that cannot be used for a while, as when the disk fails."""

    faulty = False
    failures = 0

    def find(self, kind: Kind, query: Query) -> list[Listed]:
        self._fail()
        return super().find(kind, query)

    @contextlib.contextmanager
    def edit(self, kind: Kind, name: str) -> Iterator[Description]:
        self._fail()
        with super().edit(kind, name) as description:
            yield description

    def _fail(self) -> None:
        if self.faulty:
            self.failures += 1
            raise sqlite3.OperationalError("disk I/O error")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    store = FaultyStore(tmp_path / "store.sqlite")
    yield Context(store, ObjectStore(), Images(), tmp_path / "jobs", lock=1)
    store.close()


@contextlib.contextmanager
def lost_pass(context: Context, changed: threading.Event) -> Iterator[None]:
    """Have the pass fail that a change brings; what is done meanwhile brings no other."""
    store = context.store
    assert isinstance(store, FaultyStore)
    store.faulty = True
    changed.set()
    eventually(lambda: not changed.is_set())
    failures = store.failures
    eventually(lambda: store.failures > failures)
    yield
    store.faulty = False


def status(context: Context, kind: Kind, name: str) -> str | None:
    record = context.store.get(kind, name)
    return None if record is None else record[kind.status_member]


def test_a_pass_of_the_scheduler_that_failed_is_tried_again_without_a_change(
    context: Context,
) -> None:
    scheduler = Scheduler(context, max_jobs=1)
    scheduler.start()
    try:
        job = {"TrainingJobName": "a", "TrainingJobStatus": "Stopping"}
        with lost_pass(context, context.changed):
            context.store.insert(TRAINING_JOB, {**job, "SecondaryStatusTransitions": []})
        eventually(lambda: status(context, TRAINING_JOB, "a") == "Stopped", seconds=20)
    finally:
        scheduler.shutdown()


def test_a_pass_of_the_host_that_failed_is_tried_again_without_a_change(context: Context) -> None:
    host = Host(context)
    host.start()
    try:
        endpoint = records.new_endpoint("a", {"EndpointConfigName": "a", "Variants": []})
        del endpoint["PendingFleet"]
        with lost_pass(context, context.hosting_changed):
            context.store.insert(ENDPOINT, {**endpoint, "EndpointStatus": "Deleting"})
        eventually(lambda: status(context, ENDPOINT, "a") is None, seconds=20)
    finally:
        host.shutdown()


class EndsWithoutStore(Run):
    """A job that fails at a moment when the store does too."""

    kind = TRAINING_JOB

    def _do(self, folder: Path) -> None:
        assert isinstance(self.context.store, FaultyStore)
        self.context.store.faulty = True
        raise JobFailed("bad luck")


def test_an_end_that_cannot_be_written_is_written_later(context: Context) -> None:
    store = context.store
    assert isinstance(store, FaultyStore)
    store.insert(TRAINING_JOB, {"TrainingJobName": "a", "TrainingJobStatus": "InProgress"})
    thread = threading.Thread(target=EndsWithoutStore(context, "a").run)
    thread.start()
    eventually(lambda: store.failures)
    store.faulty = False
    thread.join()
    job = store.get(TRAINING_JOB, "a")
    assert job is not None
    assert (job["TrainingJobStatus"], job["FailureReason"]) == ("Failed", "bad luck")


def test_an_end_that_cannot_be_written_does_not_hold_up_the_end_of_the_endpoint(
    context: Context,
) -> None:
    store = context.store
    assert isinstance(store, FaultyStore)
    store.insert(TRAINING_JOB, {"TrainingJobName": "a", "TrainingJobStatus": "InProgress"})
    run = EndsWithoutStore(context, "a")
    thread = threading.Thread(target=run.run)
    thread.start()
    eventually(lambda: store.failures)
    run.interrupt()
    thread.join()
    assert status(context, TRAINING_JOB, "a") == "InProgress"  # for the next endpoint to do again


def test_a_reason_too_long_for_the_api_is_cut(context: Context) -> None:
    store, reason = context.store, "why " * 1000
    job: Description = {"HyperParameterTuningJobName": "a"}
    store.insert(TUNING_JOB, {**job, "HyperParameterTuningJobStatus": "InProgress"})
    tuning.end(store, "a", "Failed", reason)
    ended = store.get(TUNING_JOB, "a")
    assert ended is not None
    assert ended["FailureReason"] == reason[:LONGEST_FAILURE_REASON]
    child: Description = {"TrainingJobStatus": "InProgress", "SecondaryStatusTransitions": []}
    TrainingRun.end(child, "Failed", reason)
    assert child["FailureReason"] == reason[:LONGEST_FAILURE_REASON]


class Uploads(ObjectStore):
    """An object store in memory whose first upload lasts until it is let to end."""

    def __init__(self) -> None:
        self.objects: dict[str, str] = {}
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def upload(self, path: Path, target: S3Uri) -> None:
        content = path.read_text()
        if not self.begun.is_set():
            self.begun.set()
            self.may_end.wait()
        self.objects[target.key] = content


def test_a_slow_upload_does_not_replace_what_was_written_after_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_PATIENCE_SECONDS", 0.0)  # shorter than any upload
    uploads = Uploads()
    mirror = FolderMirror(uploads, tmp_path / "checkpoints", S3Uri("bucket", "prefix"))
    (tmp_path / "checkpoints" / "file").write_text("old")
    with mirror:
        uploads.begun.wait()
        (tmp_path / "checkpoints" / "file").write_text("newer")
    finishing = threading.Thread(target=mirror.finish)
    finishing.start()
    finishing.join(timeout=0.3)  # enough to overtake the upload, if nothing hinders it
    uploads.may_end.set()
    finishing.join()
    eventually(lambda: not mirror._thread.is_alive())
    assert uploads.objects == {"prefix/file": "newer"}


CHURN = """
import os, shutil, sys
while True:
    os.makedirs("a/b/c/d", exist_ok=True)
    open("a/b/file", "w").close()
    shutil.rmtree("a")
"""


def test_folders_may_come_and_go_while_they_are_uploaded(tmp_path: Path) -> None:
    uploads = Uploads()
    uploads.begun.set()
    mirror = FolderMirror(uploads, tmp_path, S3Uri("bucket", "prefix"))
    with subprocess.Popen([sys.executable, "-c", CHURN], cwd=tmp_path) as churn:
        try:
            eventually((tmp_path / "a" / "b" / "file").exists)
            for _ in range(3000):
                mirror.upload()
        finally:
            churn.kill()
    (tmp_path / "last").write_text("last")
    mirror.upload()
    assert uploads.objects.pop("prefix/last") == "last"
    assert uploads.objects in ({}, {"prefix/a/b/file": ""})
