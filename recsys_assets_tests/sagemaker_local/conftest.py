"""An object store, endpoints and clients for the tests of the endpoint."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from recsys_assets_tests.sagemaker_local.endpoint import (
    BUCKET,
    CREDENTIALS,
    Endpoint,
    aws_client,
    eventually,
    free_port,
)

_STORE_PORTS = (
    "s3.port",
    "s3.port.grpc",
    "s3.port.https",
    "s3.port.iceberg",
    "s3.port.lance",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
    "metricsPort",
)


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a real S3-compatible store with an empty bucket."""
    folder = tmp_path_factory.mktemp("object-store")
    with contextlib.ExitStack() as held:  # hold every port until all are chosen
        listeners = [
            held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in _STORE_PORTS
        ]
        ports = [listener.getsockname()[1] for listener in listeners]
    with (folder / "log").open("wb") as log:
        store = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("weed")),
                "mini",
                f"-dir={folder}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-admin.ui=false",
                "-webdav=false",
                "-master.telemetry=false",
                *(f"-{name}={port}" for name, port in zip(_STORE_PORTS, ports, strict=True)),
            ],
            env={**os.environ, **CREDENTIALS},
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{ports[0]}"
    client = aws_client("s3", url)

    def bucket_is_made() -> bool:
        try:
            client.create_bucket(Bucket=BUCKET)
        except (BotoCoreError, ClientError):
            return False
        return True

    try:
        eventually(bucket_is_made)
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
