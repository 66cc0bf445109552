"""How partitioned assets are made by a run of tasks.

What belongs here: which partitions a run makes, and which dependencies between partitions one run
cannot follow. What does not: the tasks (``reading.py``).

A run makes one partition, which a parameter names. Where something without partitions needs all
those of an asset, and they are fixed, a run makes them all.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from dagster import (
    AssetKey,
    PartitionsDefinition,
    StaticPartitionsDefinition,
    TimeWindowPartitionsDefinition,
)
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from recsys_assets.export.graph import RUN_SECTION, GraphError, Param, Partitions

Partitioning = PartitionsDefinition[Any]


class PartitionReader:
    """Knows the partitionings of an asset graph.

    Parameters
    ----------
    assets
        The graph.
    keys
        Its assets that are made, in order.
    """

    def __init__(self, assets: AssetGraph, keys: Sequence[AssetKey]) -> None:
        self._assets = assets
        self._keys = keys

    def partitions_of(self, key: AssetKey) -> Partitions | None:
        """Return how an asset is partitioned; None if it is not.

        Raises
        ------
        GraphError
            If it needs partitions of other assets that a run does not make.
        """
        own = self._assets.get(key).partitions_def
        self._require_expressible(key, own)
        if own is None:
            return None
        if own in self._all_made:
            return Partitions(None, tuple(own.get_partition_keys()))
        time_format = own.fmt if isinstance(own, TimeWindowPartitionsDefinition) else None
        return Partitions(self._params[own].name, _fixed_keys(own), time_format)

    def params(self) -> list[Param]:
        """Return the parameters that name the partition of a run."""
        return list(self._params.values())

    @cached_property
    def _all_made(self) -> set[Partitioning]:
        """Partitionings of which a run makes all partitions."""
        return {
            node.partitions_def
            for node in map(self._assets.get, self._keys)
            if isinstance(node.partitions_def, StaticPartitionsDefinition)
            and any(self._assets.get(child).partitions_def is None for child in node.child_keys)
        }

    @cached_property
    def _params(self) -> dict[Partitioning, Param]:
        first: dict[Partitioning, AssetKey] = {}
        for key in self._keys:
            own = self._assets.get(key).partitions_def
            if own is not None and own not in self._all_made:
                first.setdefault(own, key)
        return {
            own: _param("partition" if len(first) == 1 else f"{'_'.join(key.path)}_partition", own)
            for own, key in first.items()
        }

    def _require_expressible(self, key: AssetKey, own: Partitioning | None) -> None:
        for parent in map(self._assets.get, sorted(self._assets.get(key).parent_keys)):
            other = parent.partitions_def
            if not parent.is_materializable or other is None or other == own:
                continue
            if own is None and isinstance(other, StaticPartitionsDefinition):
                continue
            what = "all partitions" if own is None else "other partitions"
            raise GraphError(
                f"{key.to_user_string()} needs {what} of {parent.key.to_user_string()} than a run "
                "makes: the partitions of the two cannot be put into one run"
            )


def _param(name: str, partitioning: Partitioning) -> Param:
    schema: dict[str, Any] = {"type": "string", "minLength": 1}
    default: str | None = ""
    text = "The partition to make."
    keys = _fixed_keys(partitioning)
    if keys is not None:
        if not keys:
            raise GraphError(f"there is nothing to choose from for {name}: no partition is defined")
        schema, default = {"type": "string", "enum": list(keys)}, keys[-1]
    elif isinstance(partitioning, TimeWindowPartitionsDefinition):
        schema, default = {"type": ["null", "string"]}, None
        text = "The partition to make; by default that of the run's data interval."
    return Param(name, schema, default, text, RUN_SECTION)


def _fixed_keys(partitioning: Partitioning) -> tuple[str, ...] | None:
    if isinstance(partitioning, StaticPartitionsDefinition):
        return tuple(partitioning.get_partition_keys())
    return None
