"""Old versions of assets are deleted by a rule, and nothing that anything still needs.

What belongs here: which versions go, and the job and the schedule that delete them. What does not:
the rule's options (``config.py``) and deleting objects (``recsys_assets.resources.object_store``).

A version goes with all that its run has stored for the asset, outputs of SageMaker's jobs among it;
its manifest first, so that a version is whole or is none. Without a manifest, what is left of a
folder goes as soon as no run can be at work on it. Other objects are never touched.
"""

import datetime as dt
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby, pairwise

from dagster import (
    Config,
    DagsterInstance,
    DefaultScheduleStatus,
    JobDefinition,
    MetadataValue,
    OpExecutionContext,
    RunsFilter,
    ScheduleDefinition,
    TableColumn,
    TableRecord,
    TableSchema,
    job,
    op,
)
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from pydantic import Field

from recsys_assets.automation.config import RetentionConfig, SchedulesConfig
from recsys_assets.io_managers.lineage import lineage_of
from recsys_assets.io_managers.ratings import RATINGS, REJECTS
from recsys_assets.resources.landing.ledgers import LEDGER, RAW_RATINGS, ledger_of
from recsys_assets.resources.object_store import ObjectStore, StoredObject, Version
from recsys_assets.resources.registry import registered_artefacts
from recsys_assets.resources.tracking import MlflowTracking

_MANIFEST = "manifest.json"
_URI = re.compile(r's3://[^\s"]+')
_TABLE = TableSchema(
    [TableColumn("asset"), *(TableColumn(name, "int") for name in ("versions", "objects", "bytes"))]
)
_CLOCKS_DIFFER = dt.timedelta(hours=1)  # those of Dagster's storage and of S3, at most
_LONGEST_RUN = dt.timedelta(days=7)  # SageMaker lets a job run for five days


@dataclass(frozen=True)
class InUse:
    """What must stay for reasons that do not lie in the bucket.

    Attributes
    ----------
    artefacts
        URIs of the artefacts of registered models.
    runs
        Ids of unfinished runs, and of those that they retry.
    since
        When the first of these runs began: what was current then, or later, may be read by one.
    """

    artefacts: frozenset[str]
    runs: frozenset[str]
    since: dt.datetime


@dataclass(frozen=True)
class Doomed:
    """What is to be deleted of what a run has stored for an asset."""

    asset: str
    run_id: str
    objects: tuple[StoredObject, ...]
    is_version: bool

    @property
    def bytes(self) -> int:
        """Size of all of it."""
        return sum(item.bytes for item in self.objects)


def plan(
    store: ObjectStore,
    assets: Sequence[str],
    rule: RetentionConfig,
    in_use: InUse,
    now: dt.datetime,
) -> list[Doomed]:
    """Find what is to be deleted by a rule.

    Parameters
    ----------
    assets
        Names of the assets; nothing but what is stored for these is looked at.
    """
    versions = {asset: store.versions(asset) for asset in assets}
    roots = _roots(store, versions, in_use)
    needed = {_made(root) for root in roots}
    needed |= {made for root in roots for made in root.inputs.items()}
    kept = {_made(root): root for root in roots}
    for found in versions.values():
        for rank, (written, version) in enumerate(found):
            is_young = now - written < dt.timedelta(days=rule.days)
            if rank < rule.versions or is_young or _made(version) in needed:
                kept[_made(version)] = version
    uris = _uris(store, kept.values()) | in_use.artefacts
    abandoned = now - max(dt.timedelta(days=rule.days), _LONGEST_RUN)
    doomed = []
    for asset, found in versions.items():
        whole = {version.run_id for _, version in found}
        for run_id, objects in _folders(store.objects(asset)):
            if (asset, run_id) in kept or run_id in in_use.runs:
                continue
            if run_id in whole or _is_abandoned(run_id, objects, abandoned):
                free = [o for o in objects if not _is_among(store.uri(asset, o.name), uris)]
                if free:
                    doomed.append(Doomed(asset, run_id, tuple(free), run_id in whole))
    return doomed


def look_around(instance: DagsterInstance, tracking: MlflowTracking, own_run: str) -> InUse:
    """Ask Dagster and MLflow what must stay.

    Parameters
    ----------
    own_run
        Id of the run that asks, which reads no version.
    """
    runs: set[str] = set()
    began = [_now()]
    for record in instance.get_run_records(RunsFilter(statuses=NOT_FINISHED_STATUSES)):
        if record.dagster_run.run_id != own_run:
            runs |= {*lineage_of(record.dagster_run, instance)}
            began.append(record.create_timestamp)
    artefacts = registered_artefacts(tracking.client)
    return InUse(frozenset(artefacts), frozenset(runs), min(began) - _CLOCKS_DIFFER)


def delete(store: ObjectStore, doomed: Iterable[Doomed]) -> None:
    """Delete what was found, version after version, and of each the manifest before all else."""
    for item in doomed:
        if item.is_version:
            store.delete(item.asset, [f"{item.run_id}/{_MANIFEST}"])
        store.delete(item.asset, [found.name for found in item.objects])


class DeletionConfig(Config):
    """Whether to delete anything."""

    dry_run: bool = Field(default=False, description="Only tell what would be deleted.")


def retention_job(assets: Sequence[str], rule: RetentionConfig) -> JobDefinition:
    """Return the job that deletes old versions of assets.

    Parameters
    ----------
    assets
        Their names.
    """

    @op(description=f"Keep {rule.versions} versions of each asset and those of {rule.days:g} days.")
    def delete_old_versions(
        context: OpExecutionContext,
        config: DeletionConfig,
        store: ObjectStore,
        tracking: MlflowTracking,
    ) -> None:
        in_use = look_around(context.instance, tracking, context.run.run_id)
        doomed = plan(store, assets, rule, in_use, _now())
        if not config.dry_run:
            delete(store, doomed)
        table = [
            TableRecord(
                {
                    "asset": asset,
                    "versions": sum(item.is_version for item in doomed if item.asset == asset),
                    "objects": sum(len(item.objects) for item in doomed if item.asset == asset),
                    "bytes": sum(item.bytes for item in doomed if item.asset == asset),
                }
            )
            for asset in sorted({item.asset for item in doomed})
        ]
        versions, size = sum(item.is_version for item in doomed), sum(i.bytes for i in doomed)
        context.log.info(
            f"{'Would delete' if config.dry_run else 'Deleted'} {versions:,} versions, "
            f"{size:,} bytes in all."
        )
        context.add_output_metadata(
            {
                "dry_run": config.dry_run,
                "versions": versions,
                "bytes": size,
                "by_asset": MetadataValue.table(table, schema=_TABLE),
            }
        )

    @job(name="retention", description="Delete old versions of assets that nothing needs.")
    def retention() -> None:
        delete_old_versions()

    return retention


def retention_schedule(config: SchedulesConfig, job: JobDefinition) -> ScheduleDefinition:
    """Return the schedule of the job, which is off until somebody turns it on: it deletes."""
    return ScheduleDefinition(
        name="daily_retention",
        job=job,
        cron_schedule=config.daily_retention,
        execution_timezone=config.timezone,
        default_status=DefaultScheduleStatus.STOPPED,
        description="Delete old versions of assets that nothing needs.",
    )


def _roots(
    store: ObjectStore,
    versions: Mapping[str, Sequence[tuple[dt.datetime, Version]]],
    in_use: InUse,
) -> list[Version]:
    """Return the versions that must stay together with what they were made from."""
    roots = []
    for asset, found in versions.items():
        current = store.find(asset)
        roots += [current] if current is not None else []
        roots += store.committed(asset)
        roots += [
            version
            for _, version in found
            if version.run_id in in_use.runs or _artefact(version) in in_use.artefacts
        ]
        roots += [
            version
            for (superseded, _), (_, version) in pairwise(found)
            if superseded >= in_use.since
        ]
    return roots


def _uris(store: ObjectStore, versions: Iterable[Version]) -> set[str]:
    """Return what versions refer to, be it in other runs' folders; folders end with a slash."""
    uris = set()
    for version in versions:
        uris |= {version.uri, *_URI.findall(version.to_json())}
        if version.asset == RAW_RATINGS and LEDGER in (file.name for file in version.files):
            uris |= {
                store.uri(version.asset, entry.run_id, "data", kind, f"{entry.part}.parquet")
                for entry in ledger_of(store, version).counting()
                for kind in (RATINGS, REJECTS)
            }
    return uris


def _folders(objects: Iterator[StoredObject]) -> Iterator[tuple[str, list[StoredObject]]]:
    """Group what is stored for an asset by run."""
    for run_id, group in groupby(objects, key=lambda item: item.name.partition("/")[0]):
        yield run_id, [item for item in group if "/" in item.name]


def _is_abandoned(run_id: str, objects: Sequence[StoredObject], before: dt.datetime) -> bool:
    """Tell whether a folder without a manifest is what a run has left that has long ended."""
    try:
        uuid.UUID(run_id)
    except ValueError:
        return False
    return all(item.written < before for item in objects)


def _is_among(uri: str, uris: Set[str]) -> bool:
    """Tell whether an object, or a folder that it is in, is among others."""
    parts = uri.split("/")
    return uri in uris or any("/".join(parts[:n]) + "/" in uris for n in range(3, len(parts)))


def _made(version: Version) -> tuple[str, str]:
    return version.asset, version.run_id


def _artefact(version: Version) -> str | None:
    artefact: str | None = version.facts.get("content", {}).get("artefact")
    return artefact


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
