"""One task of an exported graph, done in this process: Dagster as a library, without its services.

What belongs here: what of the definitions a task runs, its config from the parameters of a run, and
what is told of its outcome (JSON values). What does not: which tasks there are (``reading.py``) and
the command line (``recsys_assets.cli.task``).

Whoever runs tasks tries them again and cleans up after them. So a task makes one try, whatever
retries its assets ask for in Dagster, and leaves a job running when it is interrupted.
"""

import math
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    AssetKey,
    BoolMetadataValue,
    DagsterInstance,
    DagsterInvalidConfigError,
    Definitions,
    DynamicPartitionsDefinition,
    EventLogEntry,
    Failure,
    FloatMetadataValue,
    IntMetadataValue,
    JobDefinition,
    JobExecutionResult,
    MetadataValue,
    PathMetadataValue,
    TextMetadataValue,
    UrlMetadataValue,
    in_process_executor,
)
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.errors import DagsterAssetCheckFailedError, DagsterInvalidSubsetError
from dagster._core.execution.api import execute_run

from recsys_assets.export.graph import GraphError
from recsys_assets.export.params import SEPARATOR, ConfigError, config_class_of, validated
from recsys_assets.export.reading import load_definitions
from recsys_assets.progress import progress_logger
from recsys_assets.resources.interrupts import INTERRUPTS, was_interrupted
from recsys_assets.resources.sagemaker import SageMaker
from recsys_assets.settings import Settings, SettingsError

_NUMBERS_AND_TEXTS = (
    BoolMetadataValue,
    FloatMetadataValue,
    IntMetadataValue,
    PathMetadataValue,
    TextMetadataValue,
    UrlMetadataValue,
)
_SHORT_KEYS = {"dagster/uri": "uri", "dagster/row_count": "rows"}
_ONE_TRY = in_process_executor.configured({"retries": {"disabled": {}}}, name="one_try")
_CALLERS_FAULT = (ConfigError, DagsterInvalidSubsetError, GraphError, SettingsError)

Result = dict[str, Any]


class TaskFailed(Exception):  # noqa: N818 - as Dagster's Failure
    """A task that has not done its work; the message is one sentence.

    Attributes
    ----------
    again
        Whether trying again may help.
    details
        Lines to be read before the message, such as the end of a job's log.
    """

    def __init__(self, message: str, *, again: bool, details: Sequence[str] = ()) -> None:
        super().__init__(" ".join(message.split()))
        self.again = again
        self.details = details


@dataclass(frozen=True)
class Created:
    """What a remote task has created for an asset.

    Attributes
    ----------
    asset
        String form of the asset's key.
    kind
        The kind of work, as in ``metadata.py``.
    name
        Of the job, model, endpoint configuration or endpoint; empty if none was created.
    """

    asset: str
    kind: str
    name: str


@dataclass(frozen=True)
class PythonTask:
    """A task that runs the project's own code.

    Attributes
    ----------
    definitions
        ``module:attribute`` of Dagster definitions.
    assets
        What the task makes or checks: string forms of asset keys.
    run_id
        A UUID, under which what is made is stored, and read by the other tasks of the run.
    partition
        Partition of those assets that have partitions; None if none has.
    params
        Parameters of the run by name, those of other tasks among them.
    created
        What remote tasks have created for the assets that the task makes.
    """

    definitions: str
    assets: tuple[str, ...]
    run_id: str
    partition: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    created: tuple[Created, ...] = ()

    def make(self) -> Result:
        """Make the assets, and those that something was created for.

        An asset is left out for which something should have been created and was not: another one
        was chosen.

        Returns
        -------
        dict
            By asset that was made: ``uri``, ``content_hash`` and ``rows`` where its IO manager
            tells them, and those of its metadata that are numbers, texts or booleans. An optional
            output may be missing.

        Raises
        ------
        TaskFailed
            If they are not made.
        KeyboardInterrupt
            If the process is told to end.
        """
        expected = {item.asset for item in self.created}
        made = {*self.assets, *expected} - {item.asset for item in self.created if not item.name}
        if expected and not expected & made:
            raise TaskFailed(
                f"Nothing was created for {' or '.join(sorted(expected))}.", again=False
            )
        assets = {self._key(name) for name in made}
        # Checks that an asset's own step makes cannot be left out of it.
        steps = [item for item in self._graph.assets_defs if not assets.isdisjoint(item.keys)]
        events = self._execute(assets, {key for step in steps for key in step.check_keys})
        blocking = [found for found in _evaluations(events) if _blocks(found)]
        if blocking:
            reasons = (f"{_name(found)}: {found.description}" for found in blocking)
            raise TaskFailed("; ".join(reasons), again=False)
        return {
            event.asset_materialization.asset_key.to_user_string(): _told(
                event.asset_materialization.metadata
            )
            for event in events
            if event.asset_materialization is not None
        }

    def check(self) -> Result:
        """Run the checks on the assets that may block what depends on them.

        Returns
        -------
        dict
            ``passed``: whether no blocking check has failed as an error. ``checks``: by
            ``<asset>:<check>``, whether it ``passed``, its ``severity`` and ``description``.

        Raises
        ------
        TaskFailed
            If they could not be run.
        KeyboardInterrupt
            If the process is told to end.
        """
        assets = {self._key(name) for name in self.assets}
        checks = {
            key
            for step in self._graph.assets_defs
            if not step.keys  # others run with the assets that they make
            if any(spec.blocking and spec.asset_key in assets for spec in step.check_specs)
            for key in step.check_keys
        }
        found = list(_evaluations(self._execute(set(), checks))) if checks else []
        return {
            "passed": not any(map(_blocks, found)),
            "checks": {
                _name(item): {
                    "passed": item.passed,
                    "severity": item.severity.value,
                    "description": item.description,
                }
                for item in found
            },
        }

    @cached_property
    def _loaded(self) -> Definitions:
        try:
            return load_definitions(self.definitions)
        except _CALLERS_FAULT as error:
            raise TaskFailed(str(error), again=False) from error

    @cached_property
    def _graph(self) -> AssetGraph:
        return self._loaded.resolve_asset_graph()

    def _key(self, name: str) -> AssetKey:
        key = AssetKey.from_user_string(name)
        if not self._graph.has(key):
            raise TaskFailed(f"There is no asset {name} in {self.definitions}.", again=False)
        return key

    def _execute(
        self, assets: Set[AssetKey], checks: Set[AssetCheckKey]
    ) -> Sequence[EventLogEntry]:
        """Run assets and checks, and return what has happened, be it that checks block."""
        # Dagster's own IO manager stores in its instance's folder, where the next task looks too.
        folder = Settings.from_environment().state / "tasks"
        folder.mkdir(parents=True, exist_ok=True)
        with DagsterInstance.ephemeral(tempdir=str(folder)) as instance:
            try:
                job = self._job(assets, checks)
                checked = {check.asset_key for check in checks}
                run = instance.create_run_for_job(
                    job_def=job,
                    run_id=self.run_id,
                    run_config={"ops": self._config(job), "loggers": {"progress": {}}},
                    tags=self._partition_tags(job, assets or checked, instance),
                )
                done = execute_run(InMemoryJob(job), run, instance, raise_on_error=True)
            except DagsterAssetCheckFailedError:
                pass
            except (Exception, *INTERRUPTS) as error:
                if was_interrupted(error):
                    raise KeyboardInterrupt from error
                raise task_failed(error) from error
            else:
                if not done.success:  # without an error: a step wants to be tried again
                    raise TaskFailed(_reason(done), again=True)
            return instance.all_logs(self.run_id)

    def _job(self, assets: Set[AssetKey], checks: Set[AssetCheckKey]) -> JobDefinition:
        keys = assets or {check.asset_key for check in checks}
        everything = self._loaded.resolve_implicit_job_def_def_for_assets(keys)
        if everything is None:
            raise TaskFailed(f"Nothing in {self.definitions} makes them.", again=False)
        job = everything.get_subset(asset_selection=assets, asset_check_selection=checks)
        return (
            job.with_top_level_resources({**job.resource_defs, **self._sagemaker()})
            .with_executor_def(_ONE_TRY)
            .with_logger_defs({"progress": progress_logger})
        )

    def _sagemaker(self) -> dict[str, Any]:
        """Return the resources that run jobs, with what was created for them."""
        created = {item.kind: item.name for item in self.created if item.name}
        changes = {"created": created, "stop_on_cancel": False, "max_retries": 0}
        found = {
            key: type(resource)(**{**dict(resource), **changes}).get_resource_definition()
            for key, resource in (self._loaded.resources or {}).items()
            if isinstance(resource, SageMaker)
        }
        if created and not found:
            raise TaskFailed(
                f"{self.definitions} has no SageMaker resource that could go on with "
                f"{' and '.join(created.values())}.",
                again=False,
            )
        return found

    def _config(self, job: JobDefinition) -> dict[str, Any]:
        """Return the run config of a job's steps."""
        # Names of steps may hold the separator: the longest that a parameter begins with is meant.
        names = {item.node_def.name for item in self._graph.assets_defs if item.is_executable}
        longest_first = sorted(names, key=len, reverse=True)
        steps = {node.name: node.definition for node in job.nodes}
        config: dict[str, dict[str, Any]] = {}
        for param, value in self.params.items():
            step = next((n for n in longest_first if param.startswith(n + SEPARATOR)), None)
            if step in steps:
                *outer, name = param.removeprefix(step + SEPARATOR).split(SEPARATOR)
                fields = config.setdefault(step, {})
                for part in outer:
                    fields = fields.setdefault(part, {})
                fields[name] = value
        for step, fields in config.items():
            config_class = config_class_of(steps[step])
            if config_class is not None:
                validated(step, config_class, fields)
        return {step: {"config": fields} for step, fields in config.items()}

    def _partition_tags(
        self, job: JobDefinition, assets: Set[AssetKey], instance: DagsterInstance
    ) -> Mapping[str, str]:
        definitions = (self._graph.get(key).partitions_def for key in assets)
        partitions = next(filter(None, definitions), None)
        if partitions is None:
            return {}
        names = " and ".join(sorted(key.to_user_string() for key in assets))
        if not self.partition:
            raise TaskFailed(f"Expected a partition of {names}, got none.", again=False)
        if isinstance(partitions, DynamicPartitionsDefinition) and partitions.name:
            instance.add_dynamic_partitions(partitions.name, [self.partition])
        with partition_loading_context(dynamic_partitions_store=instance):
            known = partitions.has_partition_key(self.partition)
        if not known:
            raise TaskFailed(f"Expected a partition of {names}, got {self.partition}.", again=False)
        return job.get_tags_for_partition_key(self.partition, selected_asset_keys=assets)


def task_failed(error: BaseException) -> TaskFailed:
    """Return what a task says of an error.

    What is not known to be the caller's fault may pass if it is tried again.
    """
    if isinstance(error, TaskFailed):
        return error
    if isinstance(error, Failure):
        told = [f"{name}: {value.value}" for name, value in error.metadata.items()]
        return TaskFailed(
            error.description or "no reason given", again=error.allow_retries, details=told
        )
    if isinstance(error, DagsterInvalidConfigError):
        problems = "; ".join(problem.message for problem in error.errors)
        return TaskFailed(f"the config does not fit: {problems}", again=False)
    if isinstance(error, _CALLERS_FAULT):
        return TaskFailed(str(error), again=False)
    told = [line.rstrip() for line in traceback.format_exception(error)]
    return TaskFailed(f"{type(error).__name__}: {error}", again=True, details=told)


def _reason(done: JobExecutionResult) -> str:
    """Return why the step of a run failed that was to be tried again."""
    for event in done.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return str(data.user_failure_data.description)
        error = data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return str(error.message)
    return "no reason given"


def _evaluations(events: Sequence[EventLogEntry]) -> Iterator[AssetCheckEvaluation]:
    return (found for event in events if (found := event.asset_check_evaluation) is not None)


def _blocks(found: AssetCheckEvaluation) -> bool:
    """Tell whether a check stops what depends on its asset."""
    return bool(found.blocking and not found.passed and found.severity is AssetCheckSeverity.ERROR)


def _name(found: AssetCheckEvaluation) -> str:
    return f"{found.asset_key.to_user_string()}:{found.check_name}"


def _told(metadata: Mapping[str, MetadataValue[Any]]) -> Result:
    """Return of a materialization's metadata what JSON holds; infinite numbers are left out."""
    told = {}
    for key, value in metadata.items():
        if isinstance(value, _NUMBERS_AND_TEXTS):
            plain = os.fspath(value.value) if isinstance(value, PathMetadataValue) else value.value
            if not isinstance(plain, float) or math.isfinite(plain):
                told[_SHORT_KEYS.get(key, key)] = plain
    return told
