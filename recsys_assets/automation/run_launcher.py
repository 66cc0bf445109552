"""The run launcher: Dagster's default one, whose run workers can be watched.

What belongs here: telling whether the process that executes a run is still there, so that Dagster's
run monitoring fails runs whose process is gone and run retries start them again. What does not:
when that is looked at and how often a run is tried (``dagster.yaml``).

The code server starts a process for each run. That process outlives a killed code server, daemon or
`dagster dev`: it goes on and finishes its run. Only its own end, or the machine's, ends the run.
"""

import socket
import time

import psutil
from dagster import DagsterError, DagsterEventType, DagsterRun, DefaultRunLauncher
from dagster._core.errors import (
    DagsterUserCodeProcessError,
    DagsterUserCodeUnreachableError,
)
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._serdes import ConfigurableClassData

_HOST_TAG = "recsys/worker_host"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# A process that was created after the run had been started is another one with the same id. The two
# clocks, the kernel's since boot and that of the events, agree to about a second.
_CLOCK_SECONDS = 2.0
# A retry asks the code server about the run once; if there is no answer, the run is never retried.
# So a run whose worker is gone is not failed before its code server is back, or is not coming back.
_AWAY_SECONDS = 120.0


class LaunchError(DagsterError):
    """A run could not be launched and must not be launched again as it is."""


def worker_tags() -> dict[str, str]:
    """Return the tags of a run that is executed on this machine."""
    return {_HOST_TAG: socket.gethostname()}


class MonitoredRunLauncher(DefaultRunLauncher):
    """Starts a process for each run through a code server on this machine, and watches it.

    A worker is known by its host, its process id and its time of birth: ids are used again, sooner
    on a machine that was restarted.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._gone_since: dict[str, float] = {}  # runs whose worker and code server are gone

    def launch_run(self, context: LaunchRunContext) -> None:
        """Have the code server start a process for a run.

        Raises
        ------
        DagsterUserCodeUnreachableError, DagsterCodeLocationLoadError
            If the code server does not answer: nothing has been started, the queue may try again.
        LaunchError
            If the code server is on another machine, where processes cannot be watched; or if it
            went away while it was starting the process, which may have come to life. The queue must
            not start a second one for the same run, so the run fails; a worker that finds its run
            failed leaves it alone, and run retries make a new run.
        """
        _reach_code_server(context)
        self._instance.add_run_tags(context.dagster_run.run_id, worker_tags())
        try:
            super().launch_run(context)
        except DagsterUserCodeUnreachableError as error:
            raise LaunchError(
                "the code server went away while it was starting the run's process"
            ) from error

    def terminate(self, run_id: str) -> bool:
        """Ask a run's worker to stop; say whether there was one to ask.

        A worker that has outlived its code server is asked by SIGTERM, which means the same to it.
        """
        try:
            asked = super().terminate(run_id)  # type: ignore[no-untyped-call]
        except (DagsterUserCodeUnreachableError, DagsterUserCodeProcessError):
            asked = False
        run = self._instance.get_run_by_id(run_id)
        if asked or run is None or run.is_finished:
            return bool(asked)
        worker = self._find_worker(run) if _is_on_this_host(run) else None
        if worker is None:
            return False
        worker.terminate()
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring may ask for the health of workers: always."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Say whether the process that executes a started run is still there.

        There is one daemon. A worker that it, or its predecessor, has launched from another host
        ended with that host; one of `recsys-assets run` on another host is not for us to judge.
        """
        if not _is_on_this_host(run):
            host = run.tags.get(_HOST_TAG)
            if host is not None and GRPC_INFO_TAG in run.tags:
                return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"it was launched on {host}")
            return CheckRunHealthResult(WorkerStatus.RUNNING, "it was not launched from here")
        if self._find_worker(run) is not None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if self._awaits_code_server(run):
            return CheckRunHealthResult(WorkerStatus.RUNNING, "its code server is awaited")
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its process has ended")

    def _awaits_code_server(self, run: DagsterRun) -> bool:
        """Tell whether a run's code server is away and may well be back soon."""
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        try:
            if client is not None:
                client.ping("")
        except DagsterUserCodeUnreachableError:
            since = self._gone_since.setdefault(run.run_id, time.monotonic())
            if time.monotonic() - since < _AWAY_SECONDS:
                return True
        self._gone_since.pop(run.run_id, None)
        return False

    def _find_worker(self, run: DagsterRun) -> psutil.Process | None:
        """Return the process that said to have started a run; None if it has ended or said nothing.

        A run is started by one process, whose id and time stand in the event.
        """
        for entry in self._instance.all_logs(run.run_id, of_type=DagsterEventType.RUN_START):
            event = entry.dagster_event
            if event is None or event.pid is None:
                continue
            try:
                process = psutil.Process(event.pid)
                if process.create_time() > entry.timestamp + _CLOCK_SECONDS:
                    return None
                return process if process.status() != psutil.STATUS_ZOMBIE else None
            except psutil.NoSuchProcess:
                return None
        return None


def _is_on_this_host(run: DagsterRun) -> bool:
    return run.tags.get(_HOST_TAG) == socket.gethostname()


def _reach_code_server(context: LaunchRunContext) -> None:
    """Raise unless a run's code server is on this machine and answers."""
    workspace, origin = context.workspace, context.dagster_run.remote_job_origin
    if workspace is None or origin is None:
        return  # refused by Dagster's own launcher
    location = workspace.get_code_location(origin.location_name)
    if not isinstance(location, GrpcServerCodeLocation):
        return
    client = location.client
    if client.socket is None and client.host not in _LOOPBACK:
        raise LaunchError(
            f"expected a code server on this machine, got one on {client.host}: this run launcher "
            "watches processes; for other machines use Dagster's launcher for Docker, ECS or "
            "Kubernetes"
        )
    client.ping("")
