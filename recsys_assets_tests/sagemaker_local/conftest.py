"""An object store, endpoints and clients for the tests of the endpoint."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from recsys_assets.services.object_store import PORTS, command
from recsys_assets_tests.sagemaker_local.endpoint import (
    BUCKET,
    CREDENTIALS,
    Endpoint,
    aws_client,
    eventually,
    free_port,
)


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


@pytest.fixture
def own_endpoint(object_store: str, tmp_path: Path) -> Iterator[Endpoint]:
    """Return an endpoint that is not started and that one test may do anything to."""
    state = tmp_path / "state"
    with contextlib.closing(Endpoint(state, object_store, free_port(), "--max-jobs=2")) as own:
        yield own
