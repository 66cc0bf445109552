"""An asset graph as tasks: what every orchestrator knows, and nothing of any one of them.

What belongs here: plain entities. What does not: where they come from (``reading.py``) and how an
orchestrator writes them (``airflow``, ``step_functions``).

Requests and texts may hold references to what is known only in a run, written as ``${...}``:

- ``${run.id}``: the run's id, a UUID made from the orchestrator's own.
- ``${run.short}``: its first 8 characters, which names of remote jobs hold.
- ``${params.<name>}``: the value of a parameter of the run.
- ``${results.<task>.<asset>.<key>}``: from the result of a Python task: ``uri``, ``content_hash``,
  ``rows`` or a key of the asset's metadata.
- ``${created.<task>}``: the name of what a remote task has created.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from recsys_assets.export import metadata

REFERENCE = re.compile(r"\$\{([^}]+)\}")
"""Matches a reference; group 1 is what stands between the braces."""


OUR_DEFINITIONS = "recsys_assets.definitions:defs"
"""The platform's own Dagster definitions."""

RUN_SECTION = "Run"
"""The section of parameters that concern a run as a whole."""


class GraphError(ValueError):
    """A graph that cannot be exported; the message says what of it, and why."""


class Kind(Enum):
    """What a task is.

    The values of remote work are those of the metadata (``metadata.py``).
    """

    PYTHON = "python"
    """Makes assets by the project's own code."""
    CHECK = "check"
    """Runs blocking asset checks; what follows is not done unless they pass."""
    CHOICE = "choice"
    """Goes on with one of several alternatives, by the value of a parameter."""
    OPT_IN = "opt_in"
    """Goes on only if a boolean parameter is true."""
    MADE = "made"
    """Goes on only if a Python task has made an output that it may leave out."""
    CLEAN_UP = "clean_up"
    """Stops what a run has left running; always done, and no part of a run's success."""
    TRAINING = metadata.TRAINING
    TUNING = metadata.TUNING
    TRANSFORM = metadata.TRANSFORM
    MODEL = metadata.MODEL
    ENDPOINT_CONFIG = metadata.ENDPOINT_CONFIG
    ENDPOINT = metadata.ENDPOINT
    SPARK = metadata.SPARK

    @property
    def remote(self) -> bool:
        """Whether a service does the work, to whom a request is sent."""
        return self.value.startswith("sagemaker_") or self is Kind.SPARK


@dataclass(frozen=True)
class Param:
    """A parameter of a run: one field of the config of one step, or of the whole graph.

    Attributes
    ----------
    name
        ``<step>__<field>``, with ``__<inner field>`` where config is nested; a plain name for what
        concerns the whole graph (choices of opt-ins, partitions).
    schema
        JSON schema of its value: type, enum, minimum and so on, without default and description.
    default
        A JSON value.
    description
        One sentence, or empty.
    section
        Under which heading a form shows it: the step's name, or :data:`RUN_SECTION`.
    """

    name: str
    schema: Mapping[str, Any]
    default: Any
    description: str
    section: str


@dataclass(frozen=True)
class Partitions:
    """How the assets of a task are partitioned.

    Attributes
    ----------
    param
        The parameter that names the partition of a run; None where a run makes all partitions.
    keys
        All partition keys where they are fixed; None for partitions by time or dynamic ones.
    time_format
        ``strftime`` format of the key of a partition by time; None for others.
    """

    param: str | None
    keys: tuple[str, ...] | None = None
    time_format: str | None = None


@dataclass(frozen=True)
class Created:
    """What a Python task takes in: something that a remote task has created for an asset."""

    asset: str
    kind: Kind
    task: str


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes
    ----------
    id
        Unique in the graph; letters, digits and underscores.
    kind
        What it is.
    upstream
        Ids of the tasks that it waits for, sorted.
    group
        The group that it is shown in; None for none.
    description, owners, tags
        As they stand on its assets.
    assets
        What a Python task makes (string form of the asset keys), in the graph's order; for a
        remote task, the one that it works for; for a check, what is checked.
    checks
        Names of the checks of a CHECK task, sorted.
    created
        What a Python task takes in from remote tasks. With several assets' work in it, exactly one
        asset's is there in a run: the alternative that was chosen.
    request
        What a remote task asks for, with references and without a name; None for others.
    param
        Of a CHOICE or OPT_IN task, the parameter's name.
    alternatives
        Of a CHOICE task: task ids by value of the parameter.
    joins
        Whether it goes on when some of its upstream tasks were skipped (none failed, at least one
        done): it follows alternatives.
    optional_asset
        Of a MADE task: the asset that its one upstream task may leave out.
    retries, retry_seconds
        How often a failed task is tried again, and the pause; None: as the orchestrator does.
    pool
        Limits how many tasks run at once; None for none.
    partitions
        How its assets are partitioned; None for assets without.
    """

    id: str
    kind: Kind
    upstream: tuple[str, ...] = ()
    group: str | None = None
    description: str = ""
    owners: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    assets: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    created: tuple[Created, ...] = ()
    request: Mapping[str, Any] | None = None
    param: str | None = None
    alternatives: Mapping[str, str] = field(default_factory=dict)
    joins: bool = False
    optional_asset: str | None = None
    retries: int | None = None
    retry_seconds: float | None = None
    pool: str | None = None
    partitions: Partitions | None = None


@dataclass(frozen=True)
class Graph:
    """An asset graph.

    Attributes
    ----------
    definitions
        ``module:attribute`` of the Dagster definitions that it was read from.
    version
        Of the distribution that the module belongs to; empty if it belongs to none.
    tasks
        In an order in which each follows its upstream tasks; the same for the same definitions.
    params
        In the order of the tasks that they belong to.
    asset_uris
        Where the current version of an asset is found, by asset, where its IO manager tells.
    """

    definitions: str
    version: str
    tasks: tuple[Task, ...]
    params: tuple[Param, ...]
    asset_uris: Mapping[str, str] = field(default_factory=dict)

    def task(self, name: str) -> Task:
        """Return a task by its id."""
        return next(task for task in self.tasks if task.id == name)
