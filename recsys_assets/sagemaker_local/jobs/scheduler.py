"""The queue: which job runs when.

The store says what is unfinished; each pass brings the running threads in line with it, so that a
new endpoint goes on where the last one ended. Nothing about a job but its status is known here.
"""

import logging
import math
import shutil
import threading
import time
from collections.abc import Mapping

from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.jobs import processing, training, tuning
from recsys_assets.sagemaker_local.jobs.run import Run
from recsys_assets.sagemaker_local.jobs.transform.job import TransformRun
from recsys_assets.sagemaker_local.store import (
    PROCESSING_JOB,
    RETRY_SECONDS,
    TRAINING_JOB,
    TRANSFORM_JOB,
    TUNING_JOB,
    Description,
    Kind,
    Query,
)

_RUNS: Mapping[Kind, type[Run]] = {
    TRAINING_JOB: training.TrainingRun,
    PROCESSING_JOB: processing.ProcessingRun,
    TRANSFORM_JOB: TransformRun,
}

_logger = logging.getLogger(__name__)


class Scheduler:
    """Starts jobs in the order of their creation and moves tuning jobs on.

    Parameters
    ----------
    context
        The endpoint's shared parts.
    max_jobs
        How many programs run at a time; further jobs wait.
    """

    def __init__(self, context: Context, max_jobs: int) -> None:
        self._context = context
        self._max_jobs = max_jobs
        self._running: dict[tuple[Kind, str], tuple[Run, threading.Thread]] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="scheduler", daemon=True)

    def start(self) -> None:
        """Take up what the last endpoint left unfinished, and begin."""
        for kind, run in _RUNS.items():
            # Killed runs leave their files behind.
            shutil.rmtree(self._context.work_folder / kind.resource_type, ignore_errors=True)
            for job in self._unfinished(kind, "InProgress"):
                with self._context.store.edit(kind, job[kind.name_member]) as record:
                    run.note_interruption(record)
        self._context.changed.set()
        self._thread.start()

    def shutdown(self) -> None:
        """End all programs at once; their jobs stay unfinished for the next endpoint."""
        self._ending.set()
        self._context.changed.set()
        self._thread.join(timeout=1)
        with self._lock:
            running = list(self._running.values())
        for run, _ in running:
            run.interrupt()
        # Programs die with this process in any case; a short wait leaves tidy folders.
        deadline = time.monotonic() + 2
        for _, thread in running:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def _loop(self) -> None:
        timeout: float | None = None
        while not self._ending.is_set():
            self._context.changed.wait(timeout)
            self._context.changed.clear()
            try:
                self._pass()
                timeout = self._seconds_to_deadline()
            except Exception:
                timeout = RETRY_SECONDS
                _logger.exception("The scheduler's pass failed and is tried again")

    def _pass(self) -> None:
        self._advance_tuning_jobs()
        for kind in _RUNS:
            for job in self._unfinished(kind, "Stopping"):
                self._stop(kind, job[kind.name_member])
        waiting = [
            (job["CreationTime"], kind, job[kind.name_member])
            for kind in _RUNS
            for job in self._unfinished(kind, "InProgress")
        ]
        for _, kind, name in sorted(waiting, key=lambda item: item[0]):
            self._start(kind, name)

    def _advance_tuning_jobs(self) -> None:
        for status in ("InProgress", "Stopping"):
            for job in self._unfinished(TUNING_JOB, status):
                try:
                    tuning.advance(self._context.store, job)
                except Exception as error:
                    # One job that cannot go on must not hold up the others.
                    name = job["HyperParameterTuningJobName"]
                    _logger.exception("tuning job %s failed", name)
                    reason = f"InternalServerError: {type(error).__name__}: {error}"
                    tuning.end(self._context.store, name, "Failed", reason)

    def _seconds_to_deadline(self) -> float | None:
        """Return when the time of a tuning job is over next; None if there is no such job."""
        deadlines = [tuning.deadline(job) for job in self._unfinished(TUNING_JOB, "InProgress")]
        nearest = min(deadlines, default=math.inf)
        return None if nearest == math.inf else max(0.0, nearest - time.time())

    def _unfinished(self, kind: Kind, status: str) -> list[Description]:
        return [item.description for item in self._context.store.find(kind, Query(status=status))]

    def _stop(self, kind: Kind, name: str) -> None:
        with self._lock:
            running = self._running.get((kind, name))
        if running is not None:
            run, _ = running
            run.stop()
            return
        with self._context.store.edit(kind, name) as job:
            _RUNS[kind].end(job, "Stopped")
        self._context.changed.set()

    def _start(self, kind: Kind, name: str) -> None:
        with self._lock:
            if (kind, name) in self._running or len(self._running) >= self._max_jobs:
                return
            # A run ends its record before it leaves the table: seen in this order, a job that
            # ended since it was listed is not run twice.
            job = self._context.store.get(kind, name)
            if job is None or job[kind.status_member] != "InProgress":
                return
            run = _RUNS[kind](self._context, name)
            thread = threading.Thread(target=self._run, args=(run,), name=name, daemon=True)
            self._running[kind, name] = run, thread
            thread.start()

    def _run(self, run: Run) -> None:
        _logger.info("%s %s starts", run.kind.resource_type, run.name)
        try:
            run.run()
        except Exception:
            # Its record still says InProgress. It keeps its place in the table, so that it is
            # tried again by the next endpoint and not at once, over and over.
            _logger.exception("%s %s could not be ended", run.kind.resource_type, run.name)
            return
        with self._lock:
            del self._running[run.kind, run.name]
        self._context.changed.set()
        _logger.info("%s %s ends", run.kind.resource_type, run.name)
