"""The state folder of a command: its option, its environment, its services, its lock.

What belongs here: what commands share. What does not: the commands.
"""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

import recsys_assets
from recsys_assets.export.graph import OUR_DEFINITIONS
from recsys_assets.lost_interrupts import lost_interrupts_repeated
from recsys_assets.services.control import ServicesError, start_services, stop_services
from recsys_assets.settings import Settings, SettingsError

PROJECT = Path(recsys_assets.__file__).parent.parent


class UserError(Exception):
    """Something that a person can put right; the message is one sentence."""


def _absolute(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    return value.absolute()


state_option = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: os.environ.get("RECSYS_STATE") or ".recsys",
    callback=_absolute,
    help="Folder of everything local. Default: $RECSYS_STATE, else ./.recsys.",
)


definitions_option = click.option(
    "--definitions",
    default=OUR_DEFINITIONS,
    show_default=True,
    help="Dagster definitions, as module:attribute.",
)


def settings_of(state: Path) -> Settings:
    """Make `state` the state folder of this process and its children; return the settings.

    Dagster's own settings are those of ``DAGSTER_HOME`` if it is set, else the project's.
    """
    os.environ["RECSYS_STATE"] = str(state)
    os.environ["RECSYS_DAGSTER_STORAGE"] = str(state / "dagster")
    os.environ["RECSYS_DAGSTER_LOGS"] = str(state / "dagster" / "logs")
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(PROJECT)))
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if not (home / "dagster.yaml").exists():
        hint = "install with `pip install -e`" if home == PROJECT else "unset DAGSTER_HOME"
        raise UserError(f"there is no dagster.yaml in {home}: {hint}")
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        raise UserError(str(error)) from error
    try:
        (state / "dagster" / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to the state folder {state}: {error.strerror}") from error
    return settings


@contextmanager
def running_services(settings: Settings) -> Iterator[None]:
    """Have the local services run; stop them at the end if, and only if, they are started here."""
    if settings.environment != "local":
        yield
        return
    try:
        _, started_here = start_services(settings)
    except ServicesError as error:
        raise UserError(str(error)) from error
    try:
        yield
    finally:
        if started_here:
            stop_services(settings.state)


@contextmanager
def only_one_command(state: Path) -> Iterator[None]:
    """Keep a second run command off a state folder; the system frees the lock."""
    with (state / "run.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another run is at work in {state}; wait for it or give another --state"
            ) from None
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the block by an exception, so that what was started is stopped.

    A shell starts background programs with SIGINT ignored, which children would inherit: Dagster's
    own ones are told to end by SIGINT.
    """

    def on_signal(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, on_signal) for number in numbers]
    try:
        with lost_interrupts_repeated():
            yield
    except KeyboardInterrupt:
        raise UserError("interrupted") from None
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
