"""What follows new ratings by itself: the condition of each asset, and the sensors that ask them.

What belongs here: when an asset is made without anybody asking for it. What does not: what starts
from outside (``new_ratings.py``, ``schedules.py``) and how anything is made.

Conditions look at what there is, not at what has happened since they last looked: what is missed
while the daemon is away is found later, and what one run has made whole asks for nothing. The UI
shows the parts of each condition by their labels.
"""

import datetime as dt
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dagster import (
    AssetCheckKey,
    AssetCheckSeverity,
    AssetKey,
    AssetRecordsFilter,
    AssetsDefinition,
    AssetSelection,
    AssetSpec,
    AutomationCondition,
    AutomationConditionSensorDefinition,
    AutomationContext,
    AutomationResult,
    BetaWarning,
    DagsterInstance,
    DefaultSensorStatus,
    EventLogRecord,
    map_asset_specs,
)
from dagster._core.definitions.declarative_automation.automation_condition import (
    BuiltinAutomationCondition,
)
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from recsys_assets.automation.config import TrainingConfig
from recsys_assets.io_managers.base import MADE_FROM

_RAW = "raw_ratings"
_DATA = (
    "filtered_ratings",
    "sparse_matrix",
    "protobuf_train",
    "protobuf_validate",
    "protobuf_test",
)
_MODELS = ("fm_model", "tuned_model")
_SELECTED = "selected_model"
_PREDICTIONS = ("batch_predictions", "model_evaluation", "recommendations")

_TRY_AGAIN = dt.timedelta(hours=1)  # after a run that was to make an asset has not made it
_LONGEST_WAIT = dt.timedelta(hours=1)  # of a training that is due, for data that are being made


def with_conditions(
    assets: Iterable[AssetsDefinition], config: TrainingConfig
) -> list[AssetsDefinition]:
    """Return assets with their conditions.

    Some have none. raw_ratings follows the landing, tuned_model a schedule. registered_model and
    endpoint wait for somebody to ask for them: an endpoint costs money for as long as it stands.
    """
    conditions = {
        **dict.fromkeys(_DATA, data_condition()),
        "fm_model": training_condition(config),
        _SELECTED: selection_condition(),
        **dict.fromkeys(_PREDICTIONS, predictions_condition()),
    }

    def with_condition(spec: AssetSpec) -> AssetSpec:
        condition = conditions.get(spec.key.to_user_string())
        return spec.replace_attributes(automation_condition=condition)

    return [*map_asset_specs(with_condition, assets)]


def automation_sensors(interval_seconds: int) -> list[AutomationConditionSensorDefinition]:
    """Return the sensors that evaluate the conditions and request what they ask for.

    What one sensor requests at a look is one run. Predictions have a sensor of their own: in a run
    with newer data they would be of a model that was made from other data.
    """
    predictions = AssetSelection.assets(*_PREDICTIONS)
    targets = {
        "automation": AssetSelection.all() - predictions,
        "automation_of_predictions": predictions,
    }
    with warnings.catch_warnings():
        # `use_user_code_server` is in beta; each command would say so.
        warnings.simplefilter("ignore", BetaWarning)
        return [
            AutomationConditionSensorDefinition(
                name,
                target=target,
                minimum_interval_seconds=interval_seconds,
                default_status=DefaultSensorStatus.RUNNING,
                use_user_code_server=True,  # the daemon knows Dagster's own conditions only
                description="Makes what new ratings and new models ask for.",
            )
            for name, target in targets.items()
        ]


def data_condition() -> AutomationCondition[AssetKey]:
    """Return the condition of data assets: every new version of what they are made from."""
    being_made = AutomationCondition.any_deps_in_progress().ignore(AssetSelection.assets(_RAW))
    return _all(
        "new data",
        ~AutomationCondition.in_progress(),
        ~being_made,
        ~AutomationCondition.any_deps_missing(),
        ~AutomationCondition.any_deps_match(_blocked()).with_label("a blocking check failed"),
        (
            (_Behind() & _Untried()).with_label("made from something older")
            | AutomationCondition.any_deps_match(AutomationCondition.will_be_requested())
        ),
    )


def training_condition(config: TrainingConfig) -> AutomationCondition[AssetKey]:
    """Return the condition of fm_model: enough is new, nobody is at work, nothing is wrong."""
    being_made = _any_of(
        (_RAW, *_DATA),
        AutomationCondition.in_progress() | AutomationCondition.will_be_requested(),
    )
    return _all(
        "training is due",
        ~_any_of(_MODELS, AutomationCondition.in_progress()).with_label("a training is at work"),
        ~AutomationCondition.any_deps_missing(),
        ~_any_of((_RAW, _DATA[0]), _blocked()).with_label("a blocking check failed"),
        _TrainingIsDue(config),
        ~being_made.with_label("data are being made") | _TrainingHasWaited(config),
    )


def selection_condition() -> AutomationCondition[AssetKey]:
    """Return the condition of selected_model: a model is trained, in the same run."""
    trained = AutomationCondition.asset_matches("fm_model", AutomationCondition.will_be_requested())
    return trained.with_label("a model will be trained")


def predictions_condition() -> AutomationCondition[AssetKey]:
    """Return the condition of what a model predicts: another model has been selected."""
    missed = _OfAnotherModel() & ~AutomationCondition.will_be_requested()
    return _all(
        "another model is selected",
        ~AutomationCondition.in_progress(),
        ~AutomationCondition.any_deps_missing(),
        ~AutomationCondition.any_deps_match(missed).allow(AssetSelection.assets(*_PREDICTIONS)),
        (_OfAnotherModel() & _Untried((_SELECTED,))).with_label("made by another model"),
    )


def _all(label: str, *parts: AutomationCondition[Any]) -> AutomationCondition[AssetKey]:
    """Return the conjunction; what looks for work at hand stands before what looks for results.

    So a run that ends in between is seen by neither or by the latter alone.
    """
    whole = parts[0] & parts[1]
    for part in parts[2:]:
        whole &= part
    return whole.with_label(label)


def _any_of(
    assets: Sequence[str], condition: AutomationCondition[Any]
) -> BuiltinAutomationCondition[AssetKey]:
    """Return whether a condition holds for any of some assets, whichever asset it is asked for."""
    first, *others = (AutomationCondition.asset_matches(name, condition) for name in assets)
    whole: BuiltinAutomationCondition[AssetKey] = first
    for other in others:
        whole |= other
    return whole


def _blocked() -> AutomationCondition[AssetKey]:
    return AutomationCondition.any_checks_match(_FailedAsError(), blocking_only=True)


@dataclass(frozen=True)
class _Condition(AutomationCondition[Any]):
    """A condition of ours: true or false of the whole asset, for none has partitions."""

    @property
    def requires_cursor(self) -> bool:
        return False

    def evaluate(self, context: AutomationContext[Any]) -> AutomationResult[Any]:
        wanted = context.candidate_subset
        if wanted.is_empty or not self.holds(context):
            wanted = context.get_empty_subset()
        return AutomationResult(context, wanted)

    @abstractmethod
    def holds(self, context: AutomationContext[Any]) -> bool:
        """Tell whether the condition is true of the asset or check in question."""


@dataclass(frozen=True)
class _Behind(_Condition):
    @property
    def name(self) -> str:
        return "behind"

    @property
    def description(self) -> str:
        return "It was not made from the latest version of what it is made from, or not at all"

    def holds(self, context: AutomationContext[AssetKey]) -> bool:
        instance = context.asset_graph_view.instance
        own = _latest(instance, context.key)
        if own is None:
            return True
        made_from = _metadata(own).get(MADE_FROM, {})
        for key in context.asset_graph.get(context.key).parent_keys:
            dep = _latest(instance, key)
            read = made_from.get(key.to_user_string())
            # What another orchestrator has made meanwhile is not for this one to judge.
            if dep and read != dep.run_id and (read is None or instance.has_run(read)):
                return True
        return False


@dataclass(frozen=True)
class _Untried(_Condition):
    """No run that was to make the asset has failed to do so within the last hour.

    Attributes
    ----------
    after
        Runs from before the latest of these was made do not count; by default of all that the
        asset is made from.
    """

    after: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return "untried"

    @property
    def description(self) -> str:
        return "No run has tried to make it of this within the last hour"

    def holds(self, context: AutomationContext[AssetKey]) -> bool:
        instance = context.asset_graph_view.instance
        planned = instance.get_latest_planned_materialization_info(context.key)
        if planned is None:
            return True
        deps = [
            dep
            for key in context.asset_graph.get(context.key).parent_keys
            if self.after is None or key.to_user_string() in self.after
            if (dep := _latest(instance, key)) is not None
        ]
        latest = max(deps, key=lambda dep: dep.storage_id)
        # A run that has made both was planned before it made either.
        if planned.storage_id < latest.storage_id and planned.run_id != latest.run_id:
            return True
        return context.evaluation_time - _ended(instance, planned.run_id) >= _TRY_AGAIN


@dataclass(frozen=True)
class _OfAnotherModel(_Condition):
    @property
    def name(self) -> str:
        return "of_another_model"

    @property
    def description(self) -> str:
        return "It was not made by the model that is selected"

    def holds(self, context: AutomationContext[AssetKey]) -> bool:
        instance = context.asset_graph_view.instance
        selected = _latest(instance, AssetKey(_SELECTED))
        own = _latest(instance, context.key)
        if selected is None or own is None:
            return selected is not None
        return bool(_metadata(own).get("model") != _metadata(selected)["training_job"])


@dataclass(frozen=True)
class _FailedAsError(_Condition):
    @property
    def name(self) -> str:
        return "check_failed_as_error"

    @property
    def description(self) -> str:
        return "The check has failed, and not as a mere warning, when it was last evaluated"

    def holds(self, context: AutomationContext[AssetCheckKey]) -> bool:
        storage = context.asset_graph_view.instance.event_log_storage
        found = storage.get_asset_check_execution_history(context.key, limit=1, status=_EVALUATED)
        evaluation = found[0].evaluation if found else None
        return (
            evaluation is not None
            and not evaluation.passed
            and evaluation.severity is AssetCheckSeverity.ERROR
        )


_EVALUATED = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}


@dataclass(frozen=True)
class _TrainingIsDue(_Condition):
    config: TrainingConfig

    @property
    def name(self) -> str:
        return "training_is_due"

    @property
    def description(self) -> str:
        config = self.config
        return (
            f"The training rows have grown by {config.new_share:.0%} since the last model, or the "
            f"last model is older than {config.max_age_hours:g} hours and they have changed; and "
            f"no training was tried within the last {config.min_hours_between:g} hours"
        )

    def holds(self, context: AutomationContext[AssetKey]) -> bool:
        instance, now = context.asset_graph_view.instance, context.evaluation_time
        rows = _latest(instance, AssetKey("protobuf_train"))
        if rows is None or now < _may_train_from(instance, self.config):
            return False
        model = _last_model(instance)
        if model is None:
            return True
        data, trained = _metadata(rows), _metadata(model)
        if data["content_hash"] == trained["training_data"]:
            return False
        grown = data["dagster/row_count"] - trained["training_rows"]
        age = now - _moment(model.timestamp)
        return bool(
            grown >= self.config.new_share * trained["training_rows"]
            or age >= dt.timedelta(hours=self.config.max_age_hours)
        )


@dataclass(frozen=True)
class _TrainingHasWaited(_Condition):
    """So that ratings that never cease to land do not put training off for ever."""

    config: TrainingConfig

    @property
    def name(self) -> str:
        return "training_has_waited"

    @property
    def description(self) -> str:
        return "There is something new to train on, and for an hour it would have been time to"

    def holds(self, context: AutomationContext[AssetKey]) -> bool:
        instance = context.asset_graph_view.instance
        model = _last_model(instance)
        since = AssetRecordsFilter(
            AssetKey("protobuf_train"), after_storage_id=model.storage_id if model else None
        )
        new = instance.fetch_materializations(since, limit=1, ascending=True).records
        if not new:
            return False
        due = max(_moment(new[0].timestamp), _may_train_from(instance, self.config))
        return context.evaluation_time - due >= _LONGEST_WAIT


def _last_model(instance: DagsterInstance) -> EventLogRecord | None:
    """Return how the last model was made, whether or not it was selected."""
    made = (_latest(instance, AssetKey(name)) for name in _MODELS)
    return max(filter(None, made), key=lambda model: model.storage_id, default=None)


def _may_train_from(instance: DagsterInstance, config: TrainingConfig) -> dt.datetime:
    """Return when training may be tried again; the last try counts though it failed."""
    planned = (instance.get_latest_planned_materialization_info(AssetKey(n)) for n in _MODELS)
    tried = [_began(instance, info.run_id) for info in planned if info is not None]
    if not tried:
        return dt.datetime.min.replace(tzinfo=dt.UTC)
    return max(tried) + dt.timedelta(hours=config.min_hours_between)


def _latest(instance: DagsterInstance, key: AssetKey) -> EventLogRecord | None:
    """Return the latest materialization of an asset."""
    records = instance.get_asset_records([key])
    return records[0].asset_entry.last_materialization_record if records else None


def _metadata(record: EventLogRecord) -> dict[str, Any]:
    materialization = record.asset_materialization
    metadata = materialization.metadata if materialization else {}
    return {name: value.value for name, value in metadata.items()}


def _began(instance: DagsterInstance, run_id: str) -> dt.datetime:
    """Return when a run was asked for; long ago if it has been deleted."""
    record = instance.get_run_record_by_id(run_id)
    return record.create_timestamp if record else _moment(0)


def _ended(instance: DagsterInstance, run_id: str) -> dt.datetime:
    """Return when a run ended; if it has not, when it was asked for."""
    record = instance.get_run_record_by_id(run_id)
    return _moment(record.end_time) if record and record.end_time else _began(instance, run_id)


def _moment(timestamp: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(timestamp, dt.UTC)
