"""Which version of each input a step reads, and what a version was made from.

What belongs here: choosing among versions. What does not: where they lie
(``recsys_assets.resources.object_store``) and what is in them.

A step reads what its own run has made, or the runs that it retries, else what is current. Where
that would put things together that were not made from one another, it reads what belongs together:
the predictions of a model read the matrix that the model was made from, though a newer one is
current.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from weakref import WeakKeyDictionary

from dagster import AssetKey, DagsterInstance, DagsterRun
from dagster._core.definitions.assets.definition.assets_definition import ASSET_SUBSET_INPUT_PREFIX
from dagster._core.execution.context.system import StepExecutionContext

from recsys_assets.resources.object_store import ObjectStore, Version

# By step: what is read is chosen once, so that all its inputs belong together and its outputs can
# tell what they were made from.
_READ: WeakKeyDictionary[StepExecutionContext, dict[str, Version]] = WeakKeyDictionary()


def run_lineage(context: StepExecutionContext) -> list[str]:
    """Return the ids of a run and of those that it retries, the latest first.

    A run that is retried from failure reads what its forerunners made, not what another run has
    made current in the meantime.
    """
    return lineage_of(context.dagster_run, context.instance)


def lineage_of(run: DagsterRun, instance: DagsterInstance) -> list[str]:
    """Return the ids of a run and of those that it retries, the latest first."""
    lineage = [run.run_id]
    while run.parent_run_id:
        lineage.append(run.parent_run_id)
        parent = instance.get_run_by_id(run.parent_run_id)
        if parent is None:
            break
        run = parent
    return lineage


def versions_read(store: ObjectStore, context: StepExecutionContext) -> dict[str, Version]:
    """Return the version of each asset that a step reads; those that there are none of are absent.

    The choice is made when a step first asks.
    """
    if context not in _READ:
        assets = ["/".join(key.path) for key in _inputs(context)]
        _READ[context] = versions_together(store, assets, run_lineage(context))
    return _READ[context]


def versions_together(
    store: ObjectStore, assets: Iterable[str], lineage: Sequence[str]
) -> dict[str, Version]:
    """Return a version of each asset such that those made from one another belong together.

    What the runs of `lineage` made goes before what is current, and what was made from more goes
    before what was made from less: it says which versions of the others are read. Where no version
    of an asset fits, it is the current one, and whoever puts them together has to tell.

    Parameters
    ----------
    assets
        Those that are wanted; those that there is no version of are left out.
    lineage
        Ids of the reading run and of those that it retries, the latest first.
    """
    found = {asset: version for asset in assets if (version := store.find(asset, lineage))}
    chosen: dict[str, Version] = {}
    pinned: dict[str, str] = {}
    for asset, version in sorted(
        found.items(), key=lambda item: (item[1].run_id not in lineage, -len(item[1].inputs))
    ):
        run_id = pinned.get(asset, version.run_id)
        if run_id != version.run_id:
            chosen[asset] = store.version(asset, run_id) or version
        elif _fits(version, pinned):
            chosen[asset] = version
        else:
            others = (other for _, other in store.versions(asset) if _fits(other, pinned))
            chosen[asset] = next(others, version)
        for name, made_by in made_from([chosen[asset]]).items():
            pinned.setdefault(name, made_by)
    return chosen


def made_from(versions: Iterable[Version]) -> dict[str, str]:
    """Return what a value is made from that is made from these versions: them, and their inputs."""
    inputs: dict[str, str] = {}
    for version in sorted(versions, key=lambda version: len(version.inputs)):
        inputs |= {**version.inputs, version.asset: version.run_id}
    return inputs


def _fits(version: Version, pinned: Mapping[str, str]) -> bool:
    """Tell whether a version was made from the versions that others were made from."""
    return all(pinned.get(asset, run_id) == run_id for asset, run_id in version.inputs.items())


def _inputs(context: StepExecutionContext) -> Iterator[AssetKey]:
    """Yield the assets that a step reads.

    To a step that makes some of its assets only, Dagster gives the others as inputs; it reads none
    of them, and they were made from something else.
    """
    node = context.step.node_handle
    for name in context.step.step_input_dict:
        key = context.job_def.asset_layer.get_asset_key_for_node_input(node, name)
        if key is not None and not name.startswith(ASSET_SUBSET_INPUT_PREFIX):
            yield key
