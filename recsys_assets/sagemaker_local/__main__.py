"""The command line: ``python -m recsys_assets.sagemaker_local``.

Reads the arguments, takes the state folder for this process alone, puts the parts together and
runs until it is told to end or has lost its ground: the state folder, or its parent if asked to.
"""

import argparse
import asyncio
import contextlib
import fcntl
import ipaddress
import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from recsys_assets.sagemaker_local.app import create_app
from recsys_assets.sagemaker_local.authentication import SHORTEST_SECRET, Authenticator
from recsys_assets.sagemaker_local.connections import MOST_CONNECTIONS, LimitedProtocol
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.hosting.host import Host
from recsys_assets.sagemaker_local.identity import DEFAULT_ROLE
from recsys_assets.sagemaker_local.images import Images, parse_mappings
from recsys_assets.sagemaker_local.jobs.scheduler import Scheduler
from recsys_assets.sagemaker_local.s3 import ObjectStore
from recsys_assets.sagemaker_local.store import Store

_PATIENCE_SECONDS = 10.0
"""How long to wait for the last endpoint on the same folder, and its programs, to be gone."""

_WATCH_SECONDS = 0.5

_logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run an endpoint until it ends."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    parent = os.getppid()
    try:
        secret = _secret(options.token_file)
        loopback = ipaddress.IPv4Address(options.host).is_loopback
        if not loopback and secret is None:
            raise ValueError(
                f"--host {options.host} can be reached by others and needs --token-file"
            )
        images = Images(parse_mappings(options.image))
        options.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = lock_folder(options.state, _PATIENCE_SECONDS)
        store = Store(options.state / "endpoint.sqlite")
        listener = socket.create_server((options.host, options.port))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"sagemaker_local: {error}")
    context = Context(
        store=store,
        objects=ObjectStore(),
        images=images,
        work_folder=options.state.absolute() / "jobs",
        lock=lock,
        roles=frozenset(options.role or [DEFAULT_ROLE]),
    )
    app = create_app(
        context,
        [Scheduler(context, options.max_jobs), Host(context)],
        # Elsewhere nobody knows under which name it is reached; there the signature protects it.
        allowed_hosts=[options.host, "localhost"] if loopback else ["*"],
        authenticator=None if secret is None else Authenticator(secret),
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=LimitedProtocol,
            limit_concurrency=MOST_CONNECTIONS,
            log_config=None,
            access_log=False,
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )
    _logger.info("listening on http://%s:%d", options.host, listener.getsockname()[1])
    with contextlib.suppress(KeyboardInterrupt):  # raised once all is ended in order
        asyncio.run(
            _serve(server, listener, options.state, parent if options.exit_with_parent else 0)
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recsys_assets.sagemaker_local",
        description="A local SageMaker endpoint. It reaches S3 as boto3 finds it in the"
        " environment: AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,"
        " AWS_DEFAULT_REGION.",
    )
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; one that others can reach needs --token-file",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="serve only requests that are signed with the token in FILE: clients have it as their"
        " AWS_SECRET_ACCESS_KEY. There is no encryption; a proxy can add that",
    )
    parser.add_argument(
        "--state",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where records and logs are kept",
    )
    parser.add_argument(
        "--max-jobs",
        type=_positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="programs that run at a time; others wait (default: the number of CPUs)",
    )
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="REPOSITORY=PROGRAM",
        help="run PROGRAM, with 'train' or 'serve' appended, for images of REPOSITORY; paths in"
        " it must be absolute, and script-mode stands for the program that runs a user's scripts"
        " (repeatable)",
    )
    parser.add_argument(
        "--role",
        action="append",
        metavar="NAME",
        help=f"a role that the account has, for clients that look it up (default: {DEFAULT_ROLE};"
        " repeatable)",
    )
    parser.add_argument(
        "--exit-with-parent",
        action="store_true",
        help="end when the process that started this one has ended",
    )
    return parser


def _secret(file: Path | None) -> str | None:
    if file is None:
        return None
    secret = file.read_text(encoding="utf-8").strip()
    if len(secret) < SHORTEST_SECRET:
        raise ValueError(f"{file} must hold a token of at least {SHORTEST_SECRET} characters")
    return secret


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def lock_folder(state: Path, patience: float) -> int:
    """Lock a state folder for this process and its programs.

    Parameters
    ----------
    state
        The folder.
    patience
        Seconds to wait for another endpoint, or programs that it left, to be gone.

    Returns
    -------
    int
        Descriptor of the locked file; the lock ends with the last process that holds it.

    Raises
    ------
    RuntimeError
        When it stays locked.
    """
    lock = os.open(state / "endpoint.lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"another endpoint is using {state}") from None
            time.sleep(0.05)
        else:
            return lock


async def _serve(server: uvicorn.Server, listener: socket.socket, state: Path, parent: int) -> None:
    watch = asyncio.create_task(_watch(server, state, parent))
    await server.serve(sockets=[listener])
    watch.cancel()


async def _watch(server: uvicorn.Server, state: Path, parent: int) -> None:
    """End the server when its state folder is gone or, if ``parent`` is not 0, its parent is."""
    folder = state.stat().st_ino
    while not server.should_exit:
        await asyncio.sleep(_WATCH_SECONDS)
        try:
            lost = state.stat().st_ino != folder
        except FileNotFoundError:
            lost = True
        if lost:
            _logger.info("%s is gone", state)
        if parent and os.getppid() != parent:
            _logger.info("the parent process is gone")
            lost = True
        server.should_exit = server.should_exit or lost


if __name__ == "__main__":
    main()
