"""What a person is told at the end of a run.

What belongs here: the wording. What does not: the figures (``run.py``).
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import pandas as pd
import pyarrow.parquet as pq

from recsys_assets.cli.ui import mlflow_ui
from recsys_assets.definitions import build_resources
from recsys_assets.io_managers.tables import MAIN_TABLE
from recsys_assets.settings import Settings


def print_report(summary: Mapping[str, Any], settings: Settings) -> None:
    """Print what came out, ten recommendations, where things lie and what to do next."""
    rows = [
        ("rows read", f"{summary['rows_read']:,}"),
        ("rows put aside", f"{summary['rows_rejected']:,}"),
        ("rows kept", f"{summary['rows_kept']:,}   (customers and videos with enough ratings)"),
        ("customers", f"{summary['customers']:,}"),
        ("videos", f"{summary['videos']:,}"),
    ]
    _print_section("Ratings", rows)
    mean = summary["mean_rmse"]
    predictors = [("model", "test_rmse"), ("biases", "bias_rmse"), ("mean", "mean_rmse")]
    names = {"model": f"model ({summary['mode']})", "biases": "customer + video biases"}
    _print_section(
        "RMSE on ratings that the model has not seen, in stars",
        [
            (names.get(name, name), f"{summary[key]:.4f}   {summary[key] / mean - 1:+.1%}")
            for name, key in predictors
        ],
    )
    customer, recommended = _recommendations_of_one(summary, settings)
    _print_section(
        f"Recommended to customer {customer}",
        [
            (f"{row['rank']}.", f"{row['title'] or row['video_id']}   {row['score']:.2f}")
            for row in recommended.to_dict("records")
        ],
    )
    seconds = summary["seconds"]
    _print_section(
        "Seconds",
        [
            *((name, f"{value:.1f}") for name, value in seconds.items()),
            ("checks", f"{summary['check_seconds']:.1f}"),
            ("not our work", f"{summary['overhead_seconds']:.1f}   (imports, Dagster, start-up)"),
            ("in all", f"{summary['total_seconds']:.1f}"),
        ],
    )
    objects = f"s3://{settings.bucket}/{settings.prefix}"
    _print_section("Where", [("everything local", summary["state"]), ("objects", objects)])
    state = f" --state {summary['state']}"
    _print_section(
        "Next",
        [
            ("look at it", f"make ui, or: recsys-assets ui{state}"),
            ("experiments", mlflow_ui(settings)),
            ("your own ratings", "make run RATINGS=path-or-s3-url"),
            ("search for a better model", "make run CONFIG=recsys_assets/configs/tuning.yaml"),
        ],
    )


def _recommendations_of_one(
    summary: Mapping[str, Any], settings: Settings
) -> tuple[str, pd.DataFrame]:
    """Return the first customer and what is recommended to them."""
    configured = build_resources(settings)["store"]
    with TemporaryDirectory() as folder, configured.process_config_and_initialize_cm() as store:
        path = Path(folder) / MAIN_TABLE
        store.download(summary["recommendations"] + MAIN_TABLE, path)
        batch = next(pq.ParquetFile(path).iter_batches(batch_size=1000)).to_pandas()
    customer = batch["customer_id"].iloc[0]
    return customer, batch[batch["customer_id"] == customer]


def _print_section(title: str, rows: list[tuple[str, str]]) -> None:
    click.echo(f"\n{title}")
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        click.echo(f"  {name:<{width}}  {value}")
