"""A Step Functions interpreter, moto's, whose calls reach other services through a proxy.

What belongs here: the process, state machines and executions. What does not: which services.
"""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from recsys_assets_tests.contract.environments import MOTO
from recsys_assets_tests.sagemaker_local.endpoint import aws_client, eventually, free_port

_LISTENING_SECONDS = 120


class Interpreter:
    """moto's server, which interprets state machines for real.

    Parameters
    ----------
    log
        What it says goes there.
    """

    def __init__(self, log: Path) -> None:
        self._port = free_port()
        self._log = log
        self.url = f"http://127.0.0.1:{self._port}"
        self.client = aws_client("stepfunctions", self.url)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, calls_to: str, *, execute: bool = True) -> None:
        """Start it; states call services at the URL `calls_to`, a port of this machine.

        Without `execute` executions are written down and nothing else.
        """
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [MOTO.python, Path(__file__).with_name("server.py"), f"--port={self._port}"],
                env={**os.environ, "MOTO_PORT": calls_to.rpartition(":")[2]},
                stdout=log,
                stderr=log,
            )
        config = {"stepfunctions": {"execute_state_machine": execute}}

        def configured() -> bool:
            try:
                return httpx.post(f"{self.url}/moto-api/config", json=config).is_success
            except httpx.TransportError:
                return False

        eventually(configured, _LISTENING_SECONDS)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def create(self, name: str, definition: str) -> str:
        """Create a state machine and return its ARN."""
        machine = self.client.create_state_machine(
            name=name, definition=definition, roleArn="arn:aws:iam::123456789012:role/machine"
        )
        return str(machine["stateMachineArn"])

    def execute(self, machine: str, name: str, given: str) -> "Execution":
        """Run a machine to its end."""
        arn = self.client.start_execution(stateMachineArn=machine, name=name, input=given)[
            "executionArn"
        ]
        deadline = time.monotonic() + 300
        while (found := self.client.describe_execution(executionArn=arn))["status"] == "RUNNING":
            assert time.monotonic() < deadline, self._log.read_text()[-3000:]
            time.sleep(0.1)
        return Execution(found, self._history(arn))

    def _history(self, arn: str) -> list[dict[str, Any]]:
        pages = self.client.get_paginator("get_execution_history").paginate(executionArn=arn)
        return [event for page in pages for event in page["events"]]


class Execution:
    """An execution that has ended."""

    def __init__(self, described: dict[str, Any], history: list[dict[str, Any]]) -> None:
        self.status = described["status"]
        self.error = described.get("error")
        self.cause = described.get("cause", "")
        self.output = described.get("output", "{}")
        entered = [event.get("stateEnteredEventDetails") for event in history]
        self.states = [event["name"] for event in entered if event]

    def passed(self, *names: str) -> bool:
        """Tell whether it has entered these states in this order."""
        rest = iter(self.states)
        return all(name in rest for name in names)
