"""What many tests share: the real local services, an endpoint alone, and real ratings."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from recsys_assets.services.control import start_services, stop_services
from recsys_assets.services.object_store import PORTS, command
from recsys_assets.services.record import Services, read_services
from recsys_assets.settings import Settings
from recsys_assets_tests.proxy import Proxy
from recsys_assets_tests.sagemaker_local.endpoint import (
    BUCKET,
    CREDENTIALS,
    Endpoint,
    aws_client,
    eventually,
    free_port,
)

PROJECT = Path(__file__).parent.parent
REAL_DATA = Path(os.environ.get("RECSYS_TEST_DATA", PROJECT.parent / "shared" / "data"))


def pytest_configure() -> None:
    """Take SIGINT as a terminal gives it.

    A shell starts background programs with SIGINT ignored; Dagster gives SIGTERM the same handler
    when it executes a run, and every process that a test starts would ignore both.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Return the path of a folder of real ratings by its name; the test skips without it."""

    def find(name: str) -> Path:
        path = REAL_DATA / name
        if not path.exists():
            pytest.skip(f"needs real ratings in {path} (RECSYS_TEST_DATA names another folder)")
        return path

    return find


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a state folder of this test process, with the local services running."""
    state = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith(("RECSYS_", "AWS_", "DAGSTER_", "MLFLOW_")):
                patch.delenv(name)
        patch.setenv("RECSYS_STATE", str(state))
        patch.setenv("RECSYS_DAGSTER_STORAGE", str(state / "dagster"))
        patch.setenv("RECSYS_DAGSTER_LOGS", str(state / "dagster" / "logs"))
        patch.setenv("DAGSTER_HOME", str(PROJECT))
        patch.setenv("DAGSTER_DISABLE_TELEMETRY", "yes")  # instances in memory do not ask its file
        (state / "dagster" / "logs").mkdir(parents=True)
        found = Settings.from_environment()
        start_services(found)
        yield found
        stop_services(state)


@pytest.fixture(scope="session")
def services(settings: Settings) -> Services:
    """The local services of this test process."""
    found = read_services(settings.state)
    assert found is not None
    return found


@pytest.fixture
def proxy(services: Services) -> Iterator[Proxy]:
    """A proxy in front of these services, which sees and spoils the calls of one test."""
    with Proxy(services.sagemaker_url, s3=services.s3_url) as running:
        yield running


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a real S3-compatible store with an empty bucket."""
    folder = tmp_path_factory.mktemp("object-store")
    with contextlib.ExitStack() as held:  # hold every port until all are chosen
        listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in PORTS]
        ports = [listener.getsockname()[1] for listener in listeners]
    with (folder / "log").open("wb") as log:
        store = subprocess.Popen(
            command(folder, BUCKET, dict(zip(PORTS, ports, strict=True))),
            env={**os.environ, **CREDENTIALS},
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{ports[0]}"
    client = aws_client("s3", url)

    def bucket_is_there() -> bool:
        try:
            client.head_bucket(Bucket=BUCKET)
        except (BotoCoreError, ClientError):
            return False
        return True

    try:
        eventually(bucket_is_there)
        yield url
    finally:
        store.kill()  # its graceful end can take half a minute
        store.wait()


@pytest.fixture(scope="session")
def endpoint(object_store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Return a running endpoint that many tests share."""
    state = tmp_path_factory.mktemp("endpoint")
    with contextlib.closing(Endpoint(state, object_store, free_port(), "--max-jobs=4")) as shared:
        shared.start()
        yield shared
