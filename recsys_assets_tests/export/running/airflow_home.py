"""An Airflow of a test's own: a home folder, the command line, and the services of a deployment.

What belongs here: starting Airflow and reading what its runs came to. What does not: which DAG it
runs, and what is expected of it. All listens on loopback alone, and nothing outlives its test.
"""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx
import psutil

from recsys_assets_tests.main_job.command import PROGRAM, Done
from recsys_assets_tests.sagemaker_local.endpoint import eventually, free_port

_MINUTES = 15  # until something that hangs is given up
_STARTS_SECONDS = 240
_SETTINGS = {
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    # Airflow 2 has SQLite only with an executor that starts a new interpreter for every task.
    "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
    # Airflow 3
    "AIRFLOW__API__HOST": "127.0.0.1",
    "AIRFLOW__API__WORKERS": "1",
    "AIRFLOW__API_AUTH__JWT_SECRET": "of-these-tests-alone-" * 4,
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
}


@dataclass(frozen=True)
class TaskInstance:
    """A task in a run: its state, how often it was tried, and its process while it runs."""

    state: str | None
    tries: int
    pid: int | None


class Airflow:
    """Airflow with a home folder of its own.

    Parameters
    ----------
    python
        Interpreter of an environment in which Airflow is installed.
    home
        A folder that does not exist yet.
    variables
        What tasks find in their environment, besides the programs of the project on the path.
    database
        A migrated database to begin with a copy of; without it a new one is made.
    """

    def __init__(
        self,
        python: Path,
        home: Path,
        variables: Mapping[str, str],
        database: Path | None = None,
    ) -> None:
        self.home = home
        self.dags = home / "dags"
        self.port = free_port()
        self._program = python.with_name("airflow")
        programs = [python.parent, Path(PROGRAM).parent, os.environ["PATH"]]
        self.environment = {
            "PATH": os.pathsep.join(map(str, programs)),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            **_SETTINGS,
            **variables,
        }
        self.dags.mkdir(parents=True)
        if database is None:
            assert self.cli("db", "migrate").returncode == 0
        else:
            shutil.copyfile(database, self.database)

    @property
    def database(self) -> Path:
        """Its database file."""
        return self.home / "airflow.db"

    def cli(self, *arguments: str | Path) -> Done:
        """Run `airflow` to its end."""
        return subprocess.run(
            [self._program, *arguments],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60 * _MINUTES,
        )

    @property
    def said(self) -> Path:
        """What the last `airflow dags test` has printed."""
        return self.home / "dags-test.log"

    @property
    def _is_airflow_3(self) -> bool:
        return any(self._program.parents[1].glob("lib/*/site-packages/airflow/sdk"))

    # Runs

    def dags_test(self, dag_id: str, params: Mapping[str, Any]) -> str:
        """Run a DAG with `airflow dags test`; return the run's id."""
        done = self.cli("dags", "test", "-c", json.dumps(params), dag_id)
        self.said.write_text(done.stdout + done.stderr)
        runs = self._read("select run_id from dag_run where dag_id = ? order by id", dag_id)
        assert runs, done.stdout + done.stderr
        return str(runs[-1][0])

    def own_run_id(self, name: str) -> str:
        """Return an id of a run: runs of one name in two Airflows would be one on SageMaker."""
        return f"{name}-{self._program.parents[1].name}"

    def trigger(self, dag_id: str, run_id: str, params: Mapping[str, Any]) -> None:
        """Trigger a run, which a deployment will then do."""
        done = self.cli("dags", "trigger", "-r", run_id, "-c", json.dumps(params), dag_id)
        assert done.returncode == 0, done.stdout + done.stderr

    def clear(self, dag_id: str, task_id: str) -> None:
        """Clear a task in all runs of a DAG, and what follows it."""
        done = self.cli("tasks", "clear", "-y", "-d", "-t", task_id, dag_id)
        assert done.returncode == 0, done.stdout + done.stderr

    def mark_as_failed(self, run_id: str) -> None:
        """End a run of a deployment as a person does who marks it as failed in the UI."""
        dag_id = self._dag_of(run_id)
        if self._is_airflow_3:
            url = f"http://127.0.0.1:{self.port}"
            token = httpx.get(f"{url}/auth/token").raise_for_status().json()["access_token"]
            httpx.patch(
                f"{url}/api/v2/dags/{dag_id}/dagRuns/{run_id}",
                json={"state": "failed"},
                headers={"Authorization": f"Bearer {token}"},
                timeout=60,
            ).raise_for_status()
            return
        program = (
            "import sys\n"
            "from airflow.api.common.mark_tasks import set_dag_run_state_to_failed\n"
            "from airflow.models.dagbag import DagBag\n"
            "_, dag_id, run_id = sys.argv\n"
            "dag = DagBag().get_dag(dag_id)\n"
            "set_dag_run_state_to_failed(dag=dag, run_id=run_id, commit=True)\n"
        )
        subprocess.run(
            [self._program.with_name("python"), "-c", program, dag_id, run_id],
            env=self.environment,
            check=True,
            capture_output=True,
        )

    def state(self, run_id: str) -> str:
        """Return the state of a run."""
        ((state,),) = self._read("select state from dag_run where run_id = ?", run_id)
        return str(state)

    def period(self, run_id: str) -> tuple[str, str]:
        """Return when a run began and ended, as texts in the order of time."""
        (found,) = self._read("select start_date, end_date from dag_run where run_id = ?", run_id)
        return found

    def ended(self, run_id: str) -> str:
        """Wait for the end of a run and return its state."""
        eventually(lambda: self.state(run_id) in ("success", "failed"), seconds=60 * _MINUTES)
        return self.state(run_id)

    def tasks(self, run_id: str) -> dict[str, TaskInstance]:
        """Return the task instances of a run by task, without those of mapped tasks."""
        query = "select task_id, state, try_number, pid from task_instance where run_id = ?"
        return {name: TaskInstance(*values) for name, *values in self._read(query, run_id)}

    def states(self, run_id: str) -> dict[str, str | None]:
        """Return the states of a run's tasks."""
        return {name: task.state for name, task in self.tasks(run_id).items()}

    def returned(self, run_id: str, task_id: str) -> Any:
        """Return the XCom of a task."""
        query = (
            "select value from xcom where run_id = ? and task_id = ? and key = 'return_value'"
            " order by timestamp"
        )
        found = self._read(query, run_id, task_id)
        assert found, f"{task_id} has returned nothing: {self.states(run_id)}"
        value = json.loads(found[-1][0])
        return json.loads(value) if isinstance(value, str) else value  # 3 encodes it twice

    def platform_run_id(self, run_id: str) -> str:
        """Return the id under which the platform stores what a run has made."""
        return str(uuid5(NAMESPACE_URL, f"airflow/{self._dag_of(run_id)}/{run_id}"))

    def _dag_of(self, run_id: str) -> str:
        ((dag_id,),) = self._read("select dag_id from dag_run where run_id = ?", run_id)
        return str(dag_id)

    def _read(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()

    # A deployment

    @contextmanager
    def deployed(self, *, triggerer: bool = False) -> Iterator[None]:
        """Run scheduler and DAG processor, for Airflow 3 the API server, until the block ends.

        All DAGs in the folder are known when the block begins.
        """
        services = [["scheduler", "--skip-serve-logs"]]
        if self._is_airflow_3:
            services = [["api-server"], ["dag-processor"], *services]
        if triggerer:
            services.append(["triggerer", "--skip-serve-logs"])
        with ExitStack() as stack:
            running = {name[0]: stack.enter_context(self._service(*name)) for name in services}
            wanted = len([*self.dags.glob("*.py")])

            def known() -> bool:
                for name, alive in running.items():
                    assert alive(), (self.home / f"{name}.log").read_text()
                return len(self._read("select dag_id from dag")) >= wanted

            eventually(known, seconds=_STARTS_SECONDS)
            yield

    @contextmanager
    def _service(self, *arguments: str) -> Iterator[Callable[[], bool]]:
        """Run a service; yield whether it is alive."""
        log = self.home / f"{arguments[0]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self._program, *arguments],
                cwd=self.home,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield lambda: process.poll() is None
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a service with all that it has started, sessions of their own included."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
