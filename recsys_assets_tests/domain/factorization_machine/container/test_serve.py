"""The inference program: its routes, its formats and its refusals."""

import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import psutil
import pytest
from scipy.sparse import csr_matrix

from recsys_assets.domain.factorization_machine.artefact import write_model
from recsys_assets.domain.factorization_machine.model import FactorizationMachine
from recsys_assets.domain.recordio import encode_recordio
from recsys_assets_tests.domain.factorization_machine.container.conftest import Container

MODEL = FactorizationMachine(
    "regressor",
    3.0,
    np.array([0.5, 0, -0.25], dtype=np.float32),
    np.array([[1], [0], [2]], dtype=np.float32),
)
# 3 + 0.5 - 0.25 + 1 * 2
RECORD, SCORE = csr_matrix(np.array([[1, 0, 1]], dtype=np.float32)), 5.25


class Server:
    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.port = port
        self.process = process

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(folder: Path, model: FactorizationMachine, **environment: str) -> Iterator[Server]:
    container = Container(folder / "ml")
    write_model(container.base / "model" / "model_algo-1", model)
    port = free_port()
    server = Server(port, container.start("serve", SAGEMAKER_BIND_TO_PORT=str(port), **environment))
    deadline = time.monotonic() + 60
    while True:
        try:
            assert server.ask("GET", "/ping") == (200, b"")
            break
        except ConnectionRefusedError:
            if server.process.poll() is not None or time.monotonic() > deadline:
                server.process.kill()
                pytest.fail(f"the server did not start: {server.process.communicate()}")
            time.sleep(0.05)
    yield server
    server.process.send_signal(signal.SIGTERM)
    server.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serve"), MODEL) as running:
        yield running


def test_json_is_answered_in_json(server: Server) -> None:
    body = json.dumps({"instances": [{"features": [1, 0, 1]}, {"features": [0, 0, 0]}]}).encode()
    status, answer = server.ask("POST", "/invocations", body, Content_Type="application/json")
    assert status == 200
    assert json.loads(answer) == {"predictions": [{"score": SCORE}, {"score": 3.0}]}


def test_recordio_is_answered_in_json_lines(server: Server) -> None:
    status, answer = server.ask(
        "POST",
        "/invocations",
        encode_recordio(RECORD),
        Content_Type="application/x-recordio-protobuf",
    )
    assert (status, answer) == (200, b'{"score": 5.25}\n')


def test_the_answer_comes_in_the_accepted_type(server: Server) -> None:
    body = b'{"data": {"features": {"keys": [0, 2], "shape": [3], "values": [1, 1]}}}'
    for accept, expected in (
        ("application/json", b'{"predictions": [{"score": 5.25}]}'),
        ("application/jsonlines", b'{"score": 5.25}\n'),
    ):
        assert server.ask(
            "POST", "/invocations", body, Content_Type="application/jsonlines", Accept=accept
        ) == (200, expected)


@pytest.mark.parametrize(
    ("headers", "body", "status", "sentence"),
    [
        ({"Content_Type": "text/csv"}, b"1,0,1", 415, "content type 'text/csv' is not supported"),
        ({"Content_Type": "application/json"}, b"{", 400, "the body is not JSON"),
        (
            {"Content_Type": "application/json"},
            b'{"instances": [{"features": [1]}]}',
            400,
            "instance 0: expected 3 features, got 1",
        ),
        (
            {"Content_Type": "application/json", "Accept": "text/html"},
            b'{"instances": []}',
            406,
            "cannot answer in 'text/html'",
        ),
    ],
)
def test_a_bad_request_is_refused_with_a_sentence(
    server: Server, headers: dict[str, str], body: bytes, status: int, sentence: str
) -> None:
    got, answer = server.ask("POST", "/invocations", body, **headers)
    assert got == status
    assert sentence in answer.decode()
    assert server.ask("GET", "/ping")[0] == 200


def listening(server: Server) -> set[tuple[str, int]]:
    connections = psutil.Process(server.process.pid).net_connections("inet")
    return {entry.laddr for entry in connections if entry.status == psutil.CONN_LISTEN}


def test_only_loopback_is_served(server: Server) -> None:
    assert listening(server) == {("127.0.0.1", server.port)}


def test_an_image_may_have_every_address_served(tmp_path: Path) -> None:
    with serving(tmp_path, MODEL, FACTORIZATION_MACHINE_HOST="0.0.0.0") as running:
        assert listening(running) == {("0.0.0.0", running.port)}


def test_without_a_model_the_program_ends_with_the_reason(container: Container) -> None:
    process = container.start("serve")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot load the model" in errors
    assert "model_algo-1" in errors
