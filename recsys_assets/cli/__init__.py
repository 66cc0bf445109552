"""The `recsys-assets` program.

What belongs here: commands, their options and what they print. What does not: anything that could
be called without a terminal.

Modules of this package import Dagster and the assets only where they run something, so that
`--help` and the services answer at once.
"""

import sys
from pathlib import Path

import click

from recsys_assets.cli.services import services
from recsys_assets.cli.state import UserError, state_option


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run a recommender on ratings, on this machine or on AWS."""


cli.add_command(services)


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


def main() -> None:
    """Run the program: a user's mistake is one sentence on stderr and exit status 1."""
    try:
        cli()
    except UserError as error:
        click.echo(f"recsys-assets: {error}", err=True)
        sys.exit(1)
