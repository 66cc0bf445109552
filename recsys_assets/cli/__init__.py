"""The `recsys-assets` program.

What belongs here: commands, their options and what they print. What does not: anything that could
be called without a terminal.

Modules of this package import Dagster and the assets only where they run something, so that
`--help` and the services answer at once.
"""

import json
import sys
from pathlib import Path

import click

from recsys_assets.cli.export import export
from recsys_assets.cli.services import services
from recsys_assets.cli.state import UserError, settings_of, state_option
from recsys_assets.cli.task import task
from recsys_assets.iam import POLICIES, policy
from recsys_assets.settings import SettingsError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run a recommender on ratings, on this machine or on AWS."""


cli.add_command(services)
cli.add_command(task)
cli.add_command(export)


@cli.command()
@click.option(
    "--ratings", help="File or folder of ratings, by path or s3:// URL. Default: generated ones."
)
@click.option(
    "--format",
    "ratings_format",
    type=click.Choice(["auto", "amazon", "movielens", "movietweetings", "table"]),
    help="Format of the ratings. Default: found out from names, header and content.",
)
@state_option
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file of Dagster run config.",
)
@click.option(
    "--summary", type=click.Path(dir_okay=False, path_type=Path), help="Write a JSON summary here."
)
def run(
    ratings: str | None,
    ratings_format: str | None,
    state: Path,
    config: Path | None,
    summary: Path | None,
) -> None:
    """Make every asset, from ratings to recommendations, and say how good they are."""
    from recsys_assets.cli.run import run_main_job

    run_main_job(ratings, ratings_format, state, config, summary)


@cli.command()
@state_option
@click.option("--port", type=int, default=3000, show_default=True, help="Of the web page.")
def ui(state: Path, port: int) -> None:
    """Open the Dagster UI on what the runs have made."""
    from recsys_assets.cli.ui import serve_ui

    serve_ui(state, port)


@cli.command()
@state_option
def doctor(state: Path) -> None:
    """Look at what a run needs and say what is missing; exit status 1 if anything is.

    Nothing is created and nothing costs money.
    """
    from recsys_assets.cli.doctor import print_findings

    if not print_findings(state):
        sys.exit(1)


@cli.command("policy")
@state_option
@click.argument("name", type=click.Choice(POLICIES))
def print_policy(state: Path, name: str) -> None:
    """Print an IAM policy with your bucket, region and role filled in.

    platform is for whoever runs the platform, sagemaker_role for the role that SageMaker's jobs
    take, sagemaker_role_trust says who may take that role.
    """
    try:
        document = policy(name, settings_of(state))
    except SettingsError as error:
        raise UserError(str(error)) from error
    click.echo(json.dumps(document, indent=2))


def main() -> None:
    """Run the program: a user's mistake is one sentence on stderr and exit status 1."""
    try:
        cli()
    except (UserError, SettingsError) as error:
        click.echo(f"recsys-assets: {error}", err=True)
        sys.exit(1)
