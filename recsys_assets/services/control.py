"""Start, stop and find the local services of a state folder.

What belongs here: what the command line and the resources call. What does not: owning the services
(``supervisor``).
"""

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import psutil

from recsys_assets.services.record import (
    Services,
    read_services,
    remove_services,
    services_folder,
)
from recsys_assets.settings import LOCAL_ROLE_ARN, Settings

_STOP_SECONDS = 20


class ServicesError(RuntimeError):
    """The services could not be started; the message is a sentence for a person."""


def find_services(state: Path) -> Services | None:
    """Return the running services of a state folder, or None."""
    services = read_services(state)
    return services if services is not None and services.alive else None


def start_services(
    settings: Settings,
    *,
    s3_port: int | None = None,
    sagemaker_port: int | None = None,
    images: Sequence[str] = (),
) -> tuple[Services, bool]:
    """Start the services of a state folder unless they run; say whether this call started them.

    What a person should know of the start, such as a port that has moved, goes to stderr.

    Parameters
    ----------
    s3_port, sagemaker_port
        Ports to use; by default those of last time, or free ones.
    images
        ``REPOSITORY=PROGRAM`` each, as the endpoint's ``--image`` takes them; by default those of
        last time.

    Raises
    ------
    ServicesError
        If the environment is not ``local``, a service could not start, or the services run and are
        asked to be otherwise.
    """
    if settings.environment != "local":
        raise ServicesError("local services are for RECSYS_ENV=local, not for aws")
    folder = services_folder(settings.state)
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        running = find_services(settings.state)
        if running is not None:
            if s3_port is not None or sagemaker_port is not None or images:
                raise ServicesError(
                    "the services run already; `recsys-assets services stop` them to start them "
                    "with other options"
                )
            return running, False
        _end_leftovers(settings.state)
        command = [
            sys.executable,
            "-m",
            "recsys_assets.services.supervisor",
            f"--state={settings.state}",
            f"--bucket={settings.bucket}",
            f"--region={settings.region}",
            f"--role={settings.role_arn.rpartition('/')[2]}",
            *(f"--image={image}" for image in images),
        ]
        options = {
            "--s3-port": s3_port,
            "--sagemaker-port": sagemaker_port,
            "--s3-endpoint-url": settings.s3_endpoint_url,
        }
        command += [f"{name}={value}" for name, value in options.items() if value is not None]
        log = folder / "supervisor.log"
        with log.open("wb") as output:
            supervisor = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            while supervisor.poll() is None:
                services = read_services(settings.state)
                if services is not None and services.supervisor.pid == supervisor.pid:
                    click.echo(log.read_text(errors="replace"), err=True, nl=False)
                    return services, True
                time.sleep(0.05)
        except BaseException:  # interrupted: what is half started must not stay behind
            supervisor.terminate()
            supervisor.wait()
            raise
    lines = log.read_text(errors="replace").strip().splitlines()
    raise ServicesError(lines[-1] if lines else "the local services ended at once")


def stop_services(state: Path) -> bool:
    """Stop the services of a state folder; say whether any ran."""
    services = read_services(state)
    if services is None:
        return False
    supervisor = services.supervisor.find()
    if supervisor is not None:
        supervisor.terminate()
        try:
            supervisor.wait(_STOP_SECONDS)
        except psutil.TimeoutExpired:
            supervisor.kill()
    _end_leftovers(state)
    return supervisor is not None


def environment_lines(services: Services) -> list[str]:
    """Return shell lines with which an unmodified AWS client works on the services."""
    aws_services = ("SAGEMAKER", "SAGEMAKER_RUNTIME", "CLOUDWATCH_LOGS", "STS", "IAM")
    variables = {
        "AWS_ENDPOINT_URL_S3": services.s3_url,
        **{f"AWS_ENDPOINT_URL_{name}": services.sagemaker_url for name in aws_services},
        "AWS_ACCESS_KEY_ID": services.access_key_id,
        "AWS_SECRET_ACCESS_KEY": services.secret_access_key,
        "AWS_DEFAULT_REGION": services.region,
        "AWS_REGION": services.region,
        "RECSYS_BUCKET": services.bucket,
        "RECSYS_ROLE_ARN": LOCAL_ROLE_ARN,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    return [
        "unset AWS_SESSION_TOKEN AWS_PROFILE AWS_DEFAULT_PROFILE",
        *(f"export {name}='{value}'" for name, value in variables.items()),
    ]


def _end_leftovers(state: Path) -> None:
    """End services whose supervisor was killed, where they did not end with it."""
    services = read_services(state)
    if services is None:
        return
    for child in services.children:
        process = child.find()
        if process is not None:
            process.kill()
            process.wait(_STOP_SECONDS)
    remove_services(state)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one process at a time start services in a folder; the system frees the lock."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
