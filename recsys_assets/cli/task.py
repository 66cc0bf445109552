"""`recsys-assets task`: one task of an exported graph, for orchestrators.

What belongs here: options, what goes to which stream, and exit statuses. What does not: what tasks
do (``recsys_assets.export.task``, ``recsys_assets.resources.sagemaker.leftovers``).

Logs go to stderr; the only line on stdout is the result, as JSON. Exit status 1: failed, trying
again may help; 2: failed, trying again does not help.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

import click

from recsys_assets.cli.state import definitions_option, interruptible
from recsys_assets.export import metadata
from recsys_assets.settings import Settings, SettingsError

_FAILED, _CALLERS_FAULT = 1, 2
_CREATED = (
    metadata.TRAINING,
    metadata.TUNING,
    metadata.TRANSFORM,
    metadata.MODEL,
    metadata.ENDPOINT_CONFIG,
    metadata.ENDPOINT,
)

Result = dict[str, Any]
Place = tuple[str, str]  # bucket and key of an object
Command = Callable[..., None]


@click.group()
def task() -> None:
    """Do one task of an exported graph; for Airflow, Step Functions and the like."""


def _bucket_and_key(
    context: click.Context, parameter: click.Parameter, uri: str | None
) -> tuple[str, str] | None:
    from recsys_assets.resources.object_store import split_uri

    try:
        return None if uri is None else split_uri(uri)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


_run_option = click.option("--run", "run_id", type=click.UUID, required=True, help="The run's id.")
_result_option = click.option(
    "--result-uri",
    "result_place",
    metavar="S3_URI",
    callback=_bucket_and_key,
    help="Put the result here, too (s3://bucket/key).",
)


def _python_task(command: Command) -> Command:
    """Add what the commands have in common that run the project's own code."""
    for add in (
        _result_option,
        definitions_option,
        click.option("--partition", help="Partition of the assets, where they have partitions."),
        _run_option,
        click.argument("assets", nargs=-1, required=True, metavar="ASSET..."),
    ):
        command = add(command)
    return command


@task.command()
@_python_task
@click.option(
    "--created",
    type=(str, click.Choice(_CREATED), str),
    multiple=True,
    metavar="ASSET KIND NAME",
    help="What a remote task has created for an asset, which is gone on with (repeatable). An "
    "empty name: nothing was, and the asset is not made.",
)
def run(
    assets: tuple[str, ...],
    run_id: UUID,
    partition: str | None,
    definitions: str,
    result_place: Place | None,
    created: tuple[tuple[str, str, str], ...],
) -> None:
    """Make assets; RECSYS_TASK_PARAMS holds the run's parameters (JSON)."""

    def make() -> Result:
        from recsys_assets.export.task import Created, PythonTask

        given = tuple(Created(*item) for item in created)
        return PythonTask(definitions, assets, str(run_id), partition, _params(), given).make()

    _print_result(make, result_place)


@task.command()
@_python_task
def check(
    assets: tuple[str, ...],
    run_id: UUID,
    partition: str | None,
    definitions: str,
    result_place: Place | None,
) -> None:
    """Run the blocking checks on assets; exit status 0 whatever they find."""

    def checked() -> Result:
        from recsys_assets.export.task import PythonTask

        return PythonTask(definitions, assets, str(run_id), partition, _params()).check()

    _print_result(checked, result_place)


@task.command("clean-up")
@_run_option
@_result_option
def clean_up(run_id: UUID, result_place: Place | None) -> None:
    """Stop the jobs that a run has left running, and delete the models of its transforms."""

    def cleaned() -> Result:
        from recsys_assets.definitions import build_resources
        from recsys_assets.resources.sagemaker.leftovers import clean_up_after

        sagemaker = build_resources(Settings.from_environment())["sagemaker"]
        return clean_up_after(str(run_id), sagemaker.aws.client("sagemaker"), _log)

    _print_result(cleaned, result_place)


def _params() -> dict[str, Any]:
    """Return the parameters of the run.

    Raises
    ------
    SettingsError
        If they are no JSON object.
    """
    text = os.environ.get("RECSYS_TASK_PARAMS") or "{}"
    try:
        params = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"RECSYS_TASK_PARAMS is not JSON: {error}") from error
    if not isinstance(params, dict):
        raise SettingsError(f"RECSYS_TASK_PARAMS: expected a JSON object, got {text}")
    return params


def _print_result(work: Callable[[], Result], place: Place | None) -> None:
    """Do a task's work and print its result, or why there is none."""
    # Dagster and MLflow call home unless they are told not to.
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with _diverted_stdout() as stdout, interruptible():
        from recsys_assets.export.task import task_failed

        try:
            text = json.dumps(work(), allow_nan=False)
            if place is not None:
                _put(*place, text)
        except Exception as error:
            failed = task_failed(error)
            for line in failed.details:
                _log(line)
            _log(f"recsys-assets: {failed}")
            sys.exit(_FAILED if failed.again else _CALLERS_FAULT)
        print(text, file=stdout, flush=True)
    # Airflow reads both streams as one and takes the last line: nothing may follow the result.
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 2)


@contextmanager
def _diverted_stdout() -> Iterator[TextIO]:
    """Have everything that is printed go to stderr, by child processes too; yield stdout."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stdout:
        os.dup2(2, 1)
        try:
            yield stdout
        finally:
            sys.stdout.flush()
            os.dup2(stdout.fileno(), 1)


def _log(line: str) -> None:
    sys.stdout.flush()  # what the assets have printed goes before
    click.echo(line, err=True)


def _put(bucket: str, key: str, text: str) -> None:
    from recsys_assets.definitions import build_resources

    client = build_resources(Settings.from_environment())["store"].aws.client("s3")
    client.put_object(Bucket=bucket, Key=key, Body=text.encode(), ContentType="application/json")
