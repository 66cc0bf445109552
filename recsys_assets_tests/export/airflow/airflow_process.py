"""An Airflow of its own for tests, in a process that runs their DAGs.

What belongs here: its home, its environment, and talking to its program. What does not: the program
(``airflow_program.py``) and the tests.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from recsys_assets_tests.contract.environments import Environment
from recsys_assets_tests.main_job.command import PROGRAM, shell_environment

_AIRFLOW_PROGRAM = Path(__file__).with_name("airflow_program.py")
DATE = "2026-02-03T00:00:00+00:00"


class Airflow:
    """An Airflow with a home folder.

    What it and its tasks write goes to ``log`` in the home folder.
    """

    def __init__(self, environment: Environment, home: Path, **variables: str) -> None:
        self._python = environment.python
        self.home = home
        self.dags = home / "dags"
        self.dags.mkdir(parents=True)
        path = f"{Path(PROGRAM).parent}:{self._python.parent}:/usr/bin:/bin"
        self.variables = shell_environment(
            AIRFLOW_HOME=str(home),
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__CORE__DAGS_FOLDER=str(self.dags),
            AIRFLOW__CORE__UNIT_TEST_MODE="False",
            PATH=path,
            HOME=str(home),
            PYTHONPATH=str(home),
            **variables,
        )
        self._log = (home / "log").open("ab")
        self._process: subprocess.Popen[str] | None = None

    def write(self, files: dict[str, str]) -> Path:
        """Put the files of a DAG into the dags folder and return the DAG's own."""
        for name, text in files.items():
            (self.dags / name).write_text(text)
        return self.dags / next(iter(files))

    def parse(self, dag: Path) -> dict[str, Any]:
        return self._ask(action="parse", path=str(dag))

    def run(self, dag: Path, date: str = DATE, conf: Any = None, **environment: str) -> Any:
        """Run a DAG to its end; the same date is the same run, whose tasks are done again."""
        self._make_database()
        return self._ask(
            action="run", path=str(dag), date=date, conf=conf or {}, environment=environment
        )

    def start(self, dag: Path, date: str = DATE, conf: Any = None, **environment: str) -> None:
        """Begin to run a DAG."""
        self._make_database()
        self._send(action="run", path=str(dag), date=date, conf=conf or {}, environment=environment)

    def kill(self) -> None:
        """End the process as if the machine had gone; the next request starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        return (self.home / "log").read_text()

    def close(self) -> None:
        self.kill()
        self._log.close()

    def _make_database(self) -> None:
        if not (self.home / "airflow.db").exists():
            migrate = [self._python.with_name("airflow"), "db", "migrate"]
            subprocess.run(
                migrate, env=self.variables, stdout=self._log, stderr=self._log, check=True
            )

    def _ask(self, **request: Any) -> Any:
        process = self._send(**request)
        assert process.stdout is not None
        answer = process.stdout.readline()
        assert answer, self.log()[-8000:]
        return json.loads(answer)

    def _send(self, **request: Any) -> "subprocess.Popen[str]":
        if self._process is None:
            self._process = subprocess.Popen(
                [self._python, _AIRFLOW_PROGRAM],
                env=self.variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                cwd=self.home,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._process
