"""`recsys-assets services`: the local object store and SageMaker endpoint, by hand.

What belongs here: the four commands. What does not: how services are run
(``recsys_assets.services``).
"""

import sys
from pathlib import Path

import click

from recsys_assets.cli.state import UserError, settings_of, state_option
from recsys_assets.services.control import (
    ServicesError,
    environment_lines,
    find_services,
    start_services,
    stop_services,
)


@click.group()
def services() -> None:
    """Start, stop or look at the local services."""


@services.command()
@state_option
@click.option("--s3-port", type=int, help="Default: the port of last time, else a free one.")
@click.option("--sagemaker-port", type=int, help="Default: the port of last time, else a free one.")
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="REPOSITORY=PROGRAM",
    help="Run PROGRAM, with `train` or `serve` appended, for images of REPOSITORY (repeatable). "
    "Default: those of last time.",
)
def start(
    state: Path, s3_port: int | None, sagemaker_port: int | None, images: tuple[str, ...]
) -> None:
    """Start the services and leave them running."""
    try:
        running, started_here = start_services(
            settings_of(state), s3_port=s3_port, sagemaker_port=sagemaker_port, images=images
        )
    except ServicesError as error:
        raise UserError(str(error)) from error
    click.echo("started" if started_here else "already running")
    click.echo(f"object store  {running.s3_url}\nSageMaker     {running.sagemaker_url}")


@services.command()
@state_option
def stop(state: Path) -> None:
    """Stop the services."""
    click.echo("stopped" if stop_services(state) else "not running")


@services.command()
@state_option
def status(state: Path) -> None:
    """Say whether the services run, and where; exit status 1 if they do not."""
    running = find_services(state)
    if running is None:
        click.echo("not running")
        sys.exit(1)
    click.echo("running")
    click.echo(f"object store  {running.s3_url}\nSageMaker     {running.sagemaker_url}")


@services.command()
@state_option
def env(state: Path) -> None:
    """Print shell lines that point any AWS client at the services."""
    running = find_services(state)
    if running is None:
        raise UserError("the services do not run; start them with `recsys-assets services start`")
    click.echo("\n".join(environment_lines(running)))
