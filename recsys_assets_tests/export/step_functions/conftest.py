"""State machines that are run for real: moto interprets, the local endpoint does the jobs."""

import contextlib
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from recsys_assets.export.graph import Graph
from recsys_assets.export.step_functions import StepFunctionsOptions, export_step_functions
from recsys_assets_tests.contract.environments import NoInterpreterError
from recsys_assets_tests.export.step_functions.graphs import GRAPH, OPTIONS
from recsys_assets_tests.export.step_functions.interpreter import Execution, Interpreter
from recsys_assets_tests.proxy import Proxy
from recsys_assets_tests.sagemaker_local.endpoint import Endpoint, aws_client, free_port

PROGRAM = shlex.join([sys.executable, str(Path(__file__).with_name("program.py"))])


@dataclass
class Machine:
    """A machine, and the services that it calls."""

    arn: str
    interpreter: Interpreter
    proxy: Proxy
    endpoint: Endpoint
    s3: Any

    def execute(self, name: str, given: str = "{}") -> Execution:
        return self.interpreter.execute(self.arn, name, given)


@contextlib.contextmanager
def running_machine(
    folder: Path, graph: Graph, options: StepFunctionsOptions, path: str
) -> Iterator[Machine]:
    """Run a graph's machine; programs of its processing jobs are looked for on `path`."""
    (folder / "endpoint").mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        interpreter = Interpreter(folder / "moto.log")
        stack.enter_context(contextlib.closing(interpreter))
        # Which program an image has matters not: jobs name what they run.
        endpoint = Endpoint(
            folder / "endpoint", interpreter.url, free_port(), f"--image=project={PROGRAM}"
        )
        stack.enter_context(contextlib.closing(endpoint))
        proxy = stack.enter_context(Proxy(interpreter.url, sagemaker=endpoint.url))
        try:
            interpreter.start(proxy.url)
        except NoInterpreterError as error:
            pytest.skip(str(error))
        s3 = aws_client("s3", interpreter.url)
        s3.create_bucket(Bucket=options.bucket)
        endpoint.start()
        variables = {
            "PATH": path,
            "AWS_ENDPOINT_URL_SAGEMAKER": endpoint.url,
            "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": endpoint.url,
            **options.environment,
        }
        options = replace(options, polling=True, environment=variables)
        definition = export_step_functions(graph, options)[f"{options.name}.asl.json"]
        arn = interpreter.create(options.name, definition)
        yield Machine(arn, interpreter, proxy, endpoint, s3)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The machine of :data:`GRAPH`."""
    folder = tmp_path_factory.mktemp("step-functions")
    program = folder / "bin" / "recsys-assets"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {PROGRAM} "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:/usr/bin:/bin"
    with running_machine(folder, GRAPH, OPTIONS, path) as running:
        yield running
