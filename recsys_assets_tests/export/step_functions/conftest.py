"""State machines that are run for real: moto interprets, the local endpoint does the jobs."""

import contextlib
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from recsys_assets.export.step_functions import export_step_functions
from recsys_assets_tests.contract.environments import NoInterpreterError
from recsys_assets_tests.export.step_functions.graphs import GRAPH, OPTIONS
from recsys_assets_tests.export.step_functions.interpreter import Execution, Interpreter
from recsys_assets_tests.proxy import Proxy
from recsys_assets_tests.sagemaker_local.endpoint import BUCKET, Endpoint, aws_client, free_port

PROGRAM = shlex.join([sys.executable, str(Path(__file__).with_name("program.py"))])


@dataclass
class Machine:
    """The machine of :data:`GRAPH`, and the services that it calls."""

    arn: str
    interpreter: Interpreter
    proxy: Proxy
    endpoint: Endpoint
    s3: Any

    def execute(self, name: str, given: str = "{}") -> Execution:
        return self.interpreter.execute(self.arn, name, given)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("step-functions")
    program = folder / "bin" / "recsys-assets"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {PROGRAM} "$@"\n')
    program.chmod(0o755)
    (folder / "endpoint").mkdir()
    with contextlib.ExitStack() as stack:
        interpreter = Interpreter(folder / "moto.log")
        stack.enter_context(contextlib.closing(interpreter))
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
        s3.create_bucket(Bucket=BUCKET)
        endpoint.start()
        variables = {
            "PATH": f"{program.parent}:/usr/bin:/bin",
            "AWS_ENDPOINT_URL_SAGEMAKER": endpoint.url,
        }
        options = replace(OPTIONS, polling=True, environment=variables)
        definition = export_step_functions(GRAPH, options)["ratings.asl.json"]
        arn = interpreter.create("ratings", definition)
        yield Machine(arn, interpreter, proxy, endpoint, s3)
