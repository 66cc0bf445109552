"""Runs whose worker, code server or both are killed: real processes, Dagster's own monitoring."""

import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import (
    consume_new_runs_for_automatic_reexecution,
)
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from recsys_assets.automation import run_launcher
from recsys_assets.automation.run_launcher import (
    LaunchError,
    MonitoredRunLauncher,
    worker_tags,
)
from recsys_assets_tests.conftest import PROJECT
from recsys_assets_tests.sagemaker_local.endpoint import eventually, free_port

pytestmark = pytest.mark.xdist_group("run_launcher")

LOGGER = logging.getLogger(__name__)
IMPORTING_BYTES = 30_000_000
MODULE = "recsys_assets_tests.automation.waiting"


class Machine:
    """A Dagster instance with a code server, and the parts of the daemon that are tested."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self._folder, self._host, self._port = folder, host, free_port()
        settings = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
        kept = {name: settings[name] for name in ("run_launcher", "run_monitoring", "run_retries")}
        (folder / "dagster.yaml").write_text(yaml.safe_dump(kept))
        self.instance = DagsterInstance.from_config(str(folder))
        self.start_code_server()
        target = GrpcServerTarget(host=host, port=self._port, socket=None, location_name="tests")
        self._context = WorkspaceProcessContext(self.instance, target)
        assert self.workspace.get_code_location("tests")

    def start_code_server(self) -> None:
        command = ["-m", "dagster", "api", "grpc", "--module-name", MODULE, "--host", self._host]
        with (self._folder / "code_server.log").open("ab") as log:
            self.code_server = subprocess.Popen(
                [sys.executable, *command, "--port", str(self._port)],
                cwd=PROJECT,
                stdout=log,
                stderr=log,
            )
        eventually(lambda: socket.socket().connect_ex((self._host, self._port)) == 0)

    def kill_code_server(self) -> None:
        self.code_server.kill()
        self.code_server.wait()

    @property
    def grpc_info(self) -> str:
        """What the launcher notes down of the code server that has started a run's worker."""
        return json.dumps({"host": self._host, "port": self._port})

    @property
    def workspace(self) -> WorkspaceRequestContext:
        return self._context.create_request_context()

    @property
    def launcher(self) -> MonitoredRunLauncher:
        launcher = self.instance.run_launcher
        assert isinstance(launcher, MonitoredRunLauncher)
        return launcher

    def create_run(self) -> DagsterRun:
        location = self.workspace.get_code_location("tests")
        job = location.get_repository("__repository__").get_full_job("waiting")
        config = {"ops": {"wait": {"config": {"folder": str(self._folder)}}}}
        plan = location.get_execution_plan(job, config, None, None)
        return self.instance.create_run(
            job_name="waiting",
            run_id=None,
            run_config=config,
            status=DagsterRunStatus.NOT_STARTED,
            tags={},
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=plan.execution_plan_snapshot,
            job_snapshot=job.job_snapshot,
            parent_job_snapshot=job.parent_job_snapshot,
            asset_selection=None,
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
            asset_graph=location.get_repository("__repository__").asset_graph,
        )

    def run_at_work(self) -> tuple[DagsterRun, psutil.Process]:
        """Launch a run; return it, and its worker, when its op is at work."""
        run = self.create_run()
        self.instance.launch_run(run.run_id, self.workspace)
        return self.find(run.run_id), self.worker_of(run.run_id)

    def worker_of(self, run_id: str) -> psutil.Process:
        (worker,) = eventually(lambda: self.ops_at_work(run_id), seconds=60)
        return psutil.Process(worker)

    def ops_at_work(self, run_id: str) -> list[int]:
        """The processes that have begun to execute a run's op."""
        return [int(path.suffix[1:]) for path in self._folder.glob(f"{run_id}.*")]

    def find(self, run_id: str) -> DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def status(self, run_id: str) -> DagsterRunStatus:
        return self.find(run_id).status

    def monitor(self) -> None:
        """Do what the daemon does every few seconds about runs that are at work."""
        assert not any(execute_run_monitoring_iteration(self._context, LOGGER))

    def retry(self, run_id: str) -> DagsterRun | None:
        """Do what the daemon does about a run that has ended; return the run that was made."""
        known = {run.run_id for run in self.instance.get_runs()}
        (record,) = [r for r in self.instance.get_run_records() if r.dagster_run.run_id == run_id]
        list(consume_new_runs_for_automatic_reexecution(self._context, [record], LOGGER))
        made = [run for run in self.instance.get_runs() if run.run_id not in known]
        return made[0] if made else None

    def let_runs_end(self) -> None:
        (self._folder / "go").touch()

    def close(self) -> None:
        self.let_runs_end()
        self._context.__exit__(None, None, None)
        self.kill_code_server()
        self.instance.dispose()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    started = Machine(tmp_path)
    yield started
    started.close()


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_run_whose_worker_and_code_server_were_killed_is_failed_and_started_again(
    machine: Machine,
) -> None:
    run, worker = machine.run_at_work()
    machine.monitor()
    assert machine.status(run.run_id) is DagsterRunStatus.STARTED

    machine.kill_code_server()
    worker.kill()
    eventually(lambda: has_ended(worker))
    machine.monitor()
    assert machine.status(run.run_id) is DagsterRunStatus.STARTED  # a retry needs the code server
    machine.start_code_server()
    machine.monitor()
    assert machine.status(run.run_id) is DagsterRunStatus.FAILURE

    again = machine.retry(run.run_id)
    assert again is not None
    assert again.parent_run_id == run.run_id
    assert machine.retry(run.run_id) is None


def test_a_run_is_failed_though_its_code_server_does_not_come_back(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, worker = machine.run_at_work()
    machine.kill_code_server()
    worker.kill()
    eventually(lambda: has_ended(worker))
    monkeypatch.setattr(run_launcher, "_AWAY_SECONDS", 0.0)
    machine.monitor()
    assert machine.status(run.run_id) is DagsterRunStatus.FAILURE


def test_a_worker_outlives_its_code_server_and_finishes_its_run(machine: Machine) -> None:
    run, _ = machine.run_at_work()
    machine.kill_code_server()
    machine.monitor()
    assert machine.status(run.run_id) is DagsterRunStatus.STARTED
    machine.start_code_server()
    machine.monitor()
    assert machine.status(run.run_id) is DagsterRunStatus.STARTED

    machine.let_runs_end()
    eventually(lambda: machine.status(run.run_id) is DagsterRunStatus.SUCCESS, seconds=60)


@pytest.mark.parametrize("restarted", [False, True], ids=["server gone", "server anew"])
def test_a_worker_that_has_outlived_its_code_server_can_be_stopped(
    machine: Machine, restarted: bool
) -> None:
    run, worker = machine.run_at_work()
    machine.kill_code_server()
    if restarted:
        machine.start_code_server()
    assert machine.launcher.terminate(run.run_id)
    eventually(lambda: machine.status(run.run_id) is DagsterRunStatus.CANCELED, seconds=60)
    eventually(lambda: has_ended(worker))
    assert not machine.launcher.terminate(run.run_id)


def started_run(machine: Machine, pid: int, at: float, **tags: str) -> DagsterRun:
    """Return a run of which a process said, at a time, that it had started it."""
    run = create_run_for_test(machine.instance, tags={**worker_tags(), **tags})
    start = DagsterEvent(DagsterEventType.RUN_START.value, job_name=run.job_name, pid=pid)
    machine.instance.report_dagster_event(start, run.run_id, timestamp=at)
    return machine.find(run.run_id)


def test_a_process_that_has_come_by_a_workers_number_is_not_taken_for_it(machine: Machine) -> None:
    server = psutil.Process(machine.code_server.pid)
    health = machine.launcher.check_run_worker_health
    after, before = server.create_time() + 1, server.create_time() - 10
    assert health(started_run(machine, server.pid, after)).status is WorkerStatus.RUNNING
    assert health(started_run(machine, server.pid, before)).status is WorkerStatus.NOT_FOUND


def test_a_worker_launched_on_another_host_is_gone_but_another_hosts_command_may_be_at_work(
    machine: Machine,
) -> None:
    server = psutil.Process(machine.code_server.pid)
    elsewhere = {"recsys/worker_host": "elsewhere"}
    for tags, expected in (
        ({**elsewhere, GRPC_INFO_TAG: machine.grpc_info}, WorkerStatus.NOT_FOUND),
        (elsewhere, WorkerStatus.RUNNING),
    ):
        run = started_run(machine, server.pid, server.create_time() + 1, **tags)
        assert machine.launcher.check_run_worker_health(run).status is expected
        assert not machine.launcher.terminate(run.run_id)
    assert server.is_running()


def launch(machine: Machine, run: DagsterRun) -> None:
    """Launch a run as the daemon does when it takes the run from the queue."""
    starting = DagsterEvent(DagsterEventType.PIPELINE_STARTING.value, job_name=run.job_name)
    machine.instance.report_dagster_event(starting, run.run_id)
    machine.launcher.launch_run(LaunchRunContext(run, machine.workspace))


def test_a_code_server_that_does_not_answer_leaves_the_run_to_the_queue(machine: Machine) -> None:
    run = machine.create_run()
    machine.kill_code_server()
    with pytest.raises(DagsterUserCodeUnreachableError):
        launch(machine, run)


def test_a_code_server_killed_while_it_starts_a_worker_does_not_lead_to_two_of_them(
    machine: Machine,
) -> None:
    run = machine.create_run()
    server = psutil.Process(machine.code_server.pid)

    def starting() -> list[psutil.Process]:
        """The workers that have read what they are to do, for they import Dagster."""
        spawned = [c for c in server.children() if "--multiprocessing-fork" in c.cmdline()]
        return [child for child in spawned if child.memory_info().rss > IMPORTING_BYTES]

    def kill_server() -> None:
        (worker,) = eventually(starting)
        worker.suspend()
        machine.kill_code_server()
        workers.append(worker)

    workers: list[psutil.Process] = []
    killer = threading.Thread(target=kill_server)
    killer.start()
    with pytest.raises(LaunchError, match="went away while it was starting the run's process"):
        launch(machine, run)
    killer.join()
    # What Dagster does of such an error; one of the other kind puts the run into the queue again.
    machine.instance.report_run_failed(machine.find(run.run_id))

    machine.start_code_server()
    workers[0].resume()
    eventually(lambda: has_ended(workers[0]), seconds=60)
    assert machine.status(run.run_id) is DagsterRunStatus.FAILURE
    assert machine.ops_at_work(run.run_id) == []
    said = [entry.message for entry in machine.instance.all_logs(run.run_id)]
    assert any("started after the run had already finished" in message for message in said)


def test_a_code_server_on_another_machine_is_refused_by_name(tmp_path: Path) -> None:
    machine = Machine(tmp_path, host="127.0.0.2")  # stands for an address of another machine
    try:
        with pytest.raises(LaunchError, match=r"on this machine, got one on 127\.0\.0\.2"):
            launch(machine, machine.create_run())
    finally:
        machine.close()
