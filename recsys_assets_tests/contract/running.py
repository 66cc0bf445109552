"""Running a client's program against the local services, and what came of it.

What belongs here: which clients there are, what each needs besides the services' addresses, and
their results. What does not: what the programs do (``clients/``), and making their environments
(``environments``).
"""

import json
import math
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recsys_assets.sagemaker_local.containers.private_mount import private_mounts_work
from recsys_assets.service_model import service_model, violations
from recsys_assets.services.clients import isolated_session
from recsys_assets.services.record import Services
from recsys_assets_tests.contract.data import FEATURE_DIM, Data
from recsys_assets_tests.contract.environments import (
    AIRFLOW_2,
    AIRFLOW_3,
    AWS_CLI,
    BOTO3,
    SAGEMAKER_SDK_2,
    SAGEMAKER_SDK_3,
    Environment,
)
from recsys_assets_tests.main_job.command import exported
from recsys_assets_tests.proxy import Answer, Call, Forward, Proxy

RESULTS = Path(__file__).with_name("results")
"""One JSON file a client, of the last time that all were run."""

PROGRAMS = Path(__file__).with_name("clients")
"""The clients' programs."""

_MINUTES = 20  # until a program that hangs is given up

_SDK_DEFAULTS = PROGRAMS / "sagemaker_defaults.yaml"
_SDK_SETTINGS = {"SAGEMAKER_USER_CONFIG_OVERRIDE": str(_SDK_DEFAULTS)}


@dataclass(frozen=True)
class Client:
    """A client that nobody here wrote.

    Attributes
    ----------
    title
        What people call it.
    environment
        Where it is installed; also gives its results their name.
    program
        Its program in ``clients/``.
    settings
        Environment variables that it needs besides those of ``recsys-assets services env``.
    """

    title: str
    environment: Environment
    program: str
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def results(self) -> Path:
        """The file of its results."""
        return RESULTS / f"{self.environment.name}.json"


CLIENTS = (
    Client("boto3", BOTO3, "boto3_actions.py"),
    Client("AWS CLI", AWS_CLI, "aws_cli.py"),
    Client("SageMaker Python SDK 3", SAGEMAKER_SDK_3, "sdk3.py", _SDK_SETTINGS),
    Client("SageMaker Python SDK 2", SAGEMAKER_SDK_2, "sdk2.py", _SDK_SETTINGS),
    Client("Airflow 3", AIRFLOW_3, "airflow_operators.py"),
    Client("Airflow 2", AIRFLOW_2, "airflow_operators.py"),
)


@dataclass
class Case:
    """How one case of a client's program went.

    Attributes
    ----------
    result
        ``passed``, ``failed`` or ``not run``.
    detail
        Why, unless it passed.
    """

    case: str
    result: str
    detail: str = ""


@dataclass
class Results:
    """How a client's program went.

    Attributes
    ----------
    versions
        Of Python and the packages of the client.
    cases
        In the program's order.
    calls
        All that it called, as the proxy saw it.
    strange_answers
        Where answers of SageMaker and CloudWatch Logs break botocore's models.
    """

    versions: dict[str, str]
    cases: list[Case]
    calls: list[Call]
    strange_answers: list[str]

    def as_json(self) -> str:
        """Return what is kept of the results."""
        content = {
            "versions": self.versions,
            "cases": [asdict(case) for case in self.cases],
            "calls": sorted({f"{call.service}:{call.action}" for call in self.calls}),
        }
        return json.dumps(content, indent=1) + "\n"


def run_client(client: Client, python: Path, services: Services, folder: Path) -> Results:
    """Run a client's program in an environment and check what its cases have seen.

    Parameters
    ----------
    client
        Which one.
    python
        The interpreter to run it with.
    services
        Running local services.
    folder
        An empty folder, which becomes the program's home.

    Raises
    ------
    RuntimeError
        If the program itself fails.
    """
    data = Data(_s3(services), services.bucket)
    data.put()
    strange: list[str] = []
    report, log = folder / "report.jsonl", folder / "log"
    with Proxy(services.sagemaker_url, s3=services.s3_url) as proxy, log.open("wb") as output:
        proxy.inject(_compare_with_model(strange), times=math.inf)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            **exported(services),
            **proxy.environment(),
            "CONTRACT_FEATURE_DIM": str(FEATURE_DIM),
            "CONTRACT_HAS_OPT_ML": "yes" if private_mounts_work() else "",
            **client.settings,
        }
        done = subprocess.run(
            [python, PROGRAMS / client.program, report],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            timeout=60 * _MINUTES,
        )
    if done.returncode:
        raise RuntimeError(f"{client.program} ended with {done.returncode}:\n{log.read_text()}")
    head, *lines = map(json.loads, report.read_text().splitlines())
    cases = [_checked(line, data) for line in lines]
    return Results(head["versions"], cases, proxy.calls, strange)


def _s3(services: Services) -> Any:
    session = isolated_session(services.access_key_id, services.secret_access_key, services.region)
    return session.client("s3", endpoint_url=services.s3_url)


def _checked(line: dict[str, Any], data: Data) -> Case:
    """Return a case as its program has reported it, failed if its evidence does not hold."""
    evidence = line.pop("evidence", None)
    if evidence:
        try:
            data.check(evidence)
        except AssertionError as difference:
            return Case(line["case"], "failed", str(difference).strip())
    return Case(**line)


def _compare_with_model(strange: list[str]) -> Any:
    """Return a handler for the proxy that notes answers which botocore's models do not allow."""

    def compare(call: Call, forward: Forward) -> Answer:
        answer = forward()
        if call.service in ("sagemaker", "logs") and answer.status == 200:
            shape = service_model(call.service).operation_model(call.action).output_shape
            if shape is not None:
                found = violations(shape, json.loads(answer.body))
                strange.extend(f"{call.action}: {violation}" for violation in found)
        return answer

    return compare
