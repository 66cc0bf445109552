"""What an asset says of itself to those who export the graph.

What belongs here: the metadata keys and their values. What does not: reading them
(``reading.py``).
"""

from typing import Any

WORK = "export/work"
CHOICE = "export/choice"
OPT_IN = "export/opt_in"
POOL = "export/pool"

TRAINING = "sagemaker_training"
TUNING = "sagemaker_tuning"
TRANSFORM = "sagemaker_transform"
MODEL = "sagemaker_model"
ENDPOINT_CONFIG = "sagemaker_endpoint_config"
ENDPOINT = "sagemaker_endpoint"
SPARK = "spark"
"""Kinds of work that is done elsewhere; an asset without such work is made by its Python code."""


def remote_work(*kinds: str, requests: str) -> dict[str, Any]:
    """Say that services do the work of an asset, whose Python code then takes in what they made.

    Parameters
    ----------
    kinds
        What is done, in its order, such as :data:`ENDPOINT_CONFIG`, then :data:`ENDPOINT`.
    requests
        ``module:function`` that returns the requests. It is called with a
        :class:`recsys_assets.export.requests.RequestContext` and returns one request for each kind,
        by kind, without a name and tags.
    """
    return {WORK: {"kinds": list(kinds), "requests": requests}}


def alternative(field: str, value: str) -> dict[str, Any]:
    """Say that an output is made only where a config field of its step has a value.

    Parameters
    ----------
    field
        Name of the field, whose type is a ``Literal`` of all alternatives' values.
    value
        The value that asks for this output.
    """
    return {CHOICE: {"field": field, "value": value}}


def opt_in(param: str, description: str) -> dict[str, Any]:
    """Say that an asset is made only in runs that ask for it.

    Parameters
    ----------
    param
        Name of the parameter of a run, false by default; assets may share one.
    description
        What is asked for.
    """
    return {OPT_IN: {"param": param, "description": description}}


def pool_of_dagster() -> dict[str, Any]:
    """Say that the pool of an asset's step limits runs of Dagster and is nobody else's.

    Other pools are exported: an orchestrator that has none refuses them.
    """
    return {POOL: "dagster"}
