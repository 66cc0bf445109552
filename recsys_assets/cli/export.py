"""`recsys-assets export`: the asset graph for other orchestrators.

What belongs here: options, what they default to, and writing the files. What does not: the graph
and the files' texts (``recsys_assets.export``).
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from recsys_assets.cli.run import read_run_config
from recsys_assets.cli.state import UserError, definitions_option
from recsys_assets.settings import Settings

if TYPE_CHECKING:
    from recsys_assets.export.graph import Graph


@click.group()
def export() -> None:
    """Write the asset graph down for another orchestrator."""


def _graph_options(command: Any) -> Any:
    """Add the options that all orchestrators share."""
    for option in (
        click.option("--role-arn", help="Role that the jobs take. Default: that of the settings."),
        click.option(
            "--region", help="AWS region of images and jobs. Default: that of the settings."
        ),
        definitions_option,
        click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="YAML file of Dagster run config, whose values become the defaults of a run.",
        ),
        click.option(
            "--out",
            type=click.Path(file_okay=False, path_type=Path),
            required=True,
            help="Folder to write to.",
        ),
    ):
        command = option(command)
    return command


@export.command()
@_graph_options
@click.option("--dag-id", default="recsys_assets", show_default=True, help="Also the file's name.")
@click.option("--schedule", help="Cron expression or preset, such as @daily. Default: none.")
@click.option("--after-asset", help="URI of an Airflow asset whose updates start the DAG.")
@click.option("--wait-for", help="s3://bucket/prefix/*: wait, deferred, for such an object first.")
@click.option("--max-active-runs", default=1, show_default=True, help="Runs at the same time.")
@click.option("--retries", default=1, show_default=True, help="Of a task that fails.")
@click.option("--deferrable", is_flag=True, help="Have the triggerer wait for jobs.")
@click.option(
    "--logs/--no-logs", default=True, show_default=True, help="Copy a training job's log."
)
@click.option(
    "--check-interval", default=30, show_default=True, help="Seconds between looks at a job."
)
@click.option(
    "--aws-conn-id", default="aws_default", show_default=True, help="Airflow's connection to AWS."
)
@click.option(
    "--command",
    default="recsys-assets",
    show_default=True,
    help="How a worker starts this program; it may be in a Python environment of its own.",
)
@click.option(
    "--processing-image",
    help="Run Python tasks as SageMaker Processing jobs of this image, with the project in it. "
    "Default: as commands on Airflow's workers.",
)
@click.option(
    "--processing-instance-type",
    default="ml.m5.xlarge",
    show_default=True,
    help="Of these jobs.",
)
@click.pass_context
def airflow(
    context: click.Context,
    out: Path,
    config: Path | None,
    definitions: str,
    region: str | None,
    role_arn: str | None,
    dag_id: str,
    schedule: str | None,
    after_asset: str | None,
    wait_for: str | None,
    max_active_runs: int,
    retries: int,
    deferrable: bool,
    logs: bool,
    check_interval: int,
    aws_conn_id: str,
    command: str,
    processing_image: str | None,
    processing_instance_type: str,
) -> None:
    """Write an Airflow DAG, for Airflow 2.11 and 3, that needs no Dagster service.

    See docs/airflow.md.
    """
    from recsys_assets.export.airflow import AirflowOptions, ProcessingOptions, export_airflow

    graph = _read_graph(definitions, config, region, role_arn)
    settings = Settings.from_environment()
    processing = None
    try:
        if processing_image is not None:
            processing = ProcessingOptions(
                image=processing_image,
                role_arn=settings.role_arn,
                results_uri=f"{_storage(settings)}/tasks",
                instance_type=processing_instance_type,
                environment=_environment(settings),
            )
        options = AirflowOptions(
            dag_id=dag_id,
            schedule=schedule,
            after_asset=after_asset,
            wait_for=wait_for,
            max_active_runs=max_active_runs,
            retries=retries,
            deferrable=deferrable,
            print_log=logs,
            check_interval=check_interval,
            aws_conn_id=aws_conn_id,
            region_name=region,
            command=command,
            python_tasks="command" if processing is None else "processing",
            processing=processing,
            command_line=_command_line(context),
        )
        files = export_airflow(graph, options)
    except ValueError as error:
        raise UserError(str(error)) from error
    _write(out, files)


@export.command("step-functions")
@_graph_options
@click.option(
    "--name", default="recsys_assets", show_default=True, help="Of the state machine and its files."
)
@click.option(
    "--processing-image",
    required=True,
    help="Image of the SageMaker Processing jobs that run Python tasks, with the project in it.",
)
@click.option(
    "--processing-instance-type", default="ml.m5.xlarge", show_default=True, help="Of these jobs."
)
@click.option(
    "--polling",
    is_flag=True,
    help="Look at jobs again and again, for interpreters that lack the .sync integrations.",
)
@click.option(
    "--poll-seconds", default=30, show_default=True, help="Between two looks, at endpoints too."
)
def step_functions(
    out: Path,
    config: Path | None,
    definitions: str,
    region: str | None,
    role_arn: str | None,
    name: str,
    processing_image: str,
    processing_instance_type: str,
    polling: bool,
    poll_seconds: int,
) -> None:
    """Write an AWS Step Functions state machine, without Lambda functions.

    See docs/step-functions.md.
    """
    from recsys_assets.export.step_functions import StepFunctionsOptions, export_step_functions

    graph = _read_graph(definitions, config, region, role_arn)
    settings = Settings.from_environment()
    try:
        options = StepFunctionsOptions(
            image=processing_image,
            role_arn=settings.role_arn,
            bucket=settings.bucket,
            prefix=settings.prefix,
            region=settings.region,
            name=name,
            polling=polling,
            poll_seconds=poll_seconds,
            instance_type=processing_instance_type,
            environment=_tracking(settings),
        )
        files = export_step_functions(graph, options)
    except ValueError as error:
        raise UserError(str(error)) from error
    _write(out, files)


def _read_graph(
    definitions: str, config: Path | None, region: str | None, role_arn: str | None
) -> "Graph":
    """Read the graph with the settings of the environment and those of the options."""
    given = {"RECSYS_REGION": region, "RECSYS_ROLE_ARN": role_arn}
    os.environ.update({name: value for name, value in given.items() if value is not None})
    from recsys_assets.export.reading import read_graph

    try:
        return read_graph(definitions, read_run_config(config) if config is not None else None)
    except ValueError as error:
        raise UserError(str(error)) from error


def _storage(settings: Settings) -> str:
    return "s3://" + "/".join(filter(None, (settings.bucket, settings.prefix)))


def _environment(settings: Settings) -> dict[str, str]:
    """Return the variables that make a container's platform this one."""
    given = {
        "RECSYS_ENV": settings.environment,
        "RECSYS_BUCKET": settings.bucket,
        "RECSYS_PREFIX": settings.prefix,
        "RECSYS_REGION": settings.region,
        "RECSYS_ROLE_ARN": settings.role_arn,
        **_tracking(settings),
    }
    return {name: value for name, value in given.items() if value}


def _tracking(settings: Settings) -> dict[str, str]:
    """Return the variable of an MLflow server; a database file is out of a container's reach."""
    if settings.mlflow_tracking_uri.startswith("sqlite:"):
        return {}
    if settings.shown_mlflow_uri != settings.mlflow_tracking_uri:
        raise UserError(
            "RECSYS_MLFLOW_TRACKING_URI holds a password, which would stand in the exported file"
        )
    return {"RECSYS_MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri}


def _command_line(context: click.Context) -> str:
    """Return how the command was called, but for where it writes to."""
    words = ["recsys-assets", "export", str(context.info_name), "--out", "."]
    for parameter in context.command.params:
        name = str(parameter.name)
        if name == "out" or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(value, bool):
            words.append(parameter.opts[0] if value else (*parameter.secondary_opts, "")[0])
        else:
            words += [parameter.opts[0], str(value)]
    return shlex.join(filter(None, words))


def _write(out: Path, files: Mapping[str, str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text)
        click.echo(out / name)
