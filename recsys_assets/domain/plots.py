"""Pictures of what the platform measures.

What belongs here: matplotlib figures made from plain frames. What does not: measuring, and how a
picture is stored or shown.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_evaluation(predictors: pd.DataFrame, segments: pd.DataFrame) -> "Figure":
    """Plot the frames of ``evaluation.compare``: RMSE by predictor, and by training ratings."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    bars, *by_segment = figure.subplots(1, 3)
    shown = predictors["rmse"].iloc[::-1]
    colours = ["tab:blue" if name == "model" else "tab:gray" for name in shown.index]
    bars.barh(shown.index, shown, color=colours)
    bars.bar_label(bars.containers[0], fmt=" %.4f")
    bars.set(title="Test RMSE", xlim=(0, shown.max() * 1.25))
    for axes, (segment, rows) in zip(by_segment, segments.groupby("segment"), strict=False):
        axes.plot(rows["training_ratings"], rows["model_rmse"], "o-", label="model")
        axes.plot(
            rows["training_ratings"], rows["bias_rmse"], "o--", label="biases", color="tab:gray"
        )
        axes.set(title=f"RMSE by training ratings of the {segment}")
        axes.legend()
    return figure


def plot_losses(losses: Mapping[int, float]) -> "Figure":
    """Plot the train RMSE (in stars) by epoch, which counts from 0."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([*losses], [*losses.values()], "o-", markersize=3)
    axes.set(title="Train RMSE by epoch", xlabel="epoch")
    return figure


def plot_long_tail(percentiles: pd.DataFrame) -> "Figure":
    """Plot how many ratings customers and videos have, before and after the filter.

    Parameters
    ----------
    percentiles
        A row for each of ``ratings per`` (customer, video) and ``filter`` (before, after); the
        other columns are percentiles, ascending.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.8), layout="constrained")
    kinds = percentiles.groupby("ratings per", sort=False)
    for axes, (kind, rows) in zip(figure.subplots(1, kinds.ngroups), kinds, strict=True):
        counts = rows.set_index("filter").drop(columns="ratings per")
        for moment, colour in (("before", "tab:gray"), ("after", "tab:blue")):
            label = f"{moment} the filter"
            axes.plot(counts.columns, counts.loc[moment], "o-", label=label, color=colour)
        axes.set(title=f"Ratings per {kind}", yscale="log")
        axes.legend()
    return figure
