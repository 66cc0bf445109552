"""What automation asks for: the platform's graph with empty assets, in runs of a real instance.

The clock of a look is turned on; what has been made keeps its time.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetExecutionContext,
    AssetKey,
    AssetOut,
    AssetSelection,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    Definitions,
    MaterializeResult,
    MetadataValue,
    Output,
    asset,
    asset_check,
    evaluate_automation_conditions,
    multi_asset,
)

from recsys_assets.automation.conditions import automation_sensors, with_conditions
from recsys_assets.automation.config import TrainingConfig
from recsys_assets.definitions import build_defs
from recsys_assets.settings import Settings

DATA = {
    "filtered_ratings",
    "sparse_matrix",
    "protobuf_train",
    "protobuf_validate",
    "protobuf_test",
}
MODEL = {"fm_model", "selected_model"}
PREDICTIONS = {"batch_predictions", "model_evaluation", "recommendations"}
EVERYTHING = {"raw_ratings", *DATA, *MODEL, *PREDICTIONS}

DEPS = {
    "raw_ratings": [],
    "filtered_ratings": ["raw_ratings"],
    "sparse_matrix": ["filtered_ratings"],
    "protobuf_train": ["sparse_matrix"],
    "protobuf_validate": ["sparse_matrix"],
    "protobuf_test": ["sparse_matrix"],
    "batch_predictions": ["selected_model", "protobuf_test", "sparse_matrix"],
    "model_evaluation": ["batch_predictions", "selected_model", "sparse_matrix"],
    "recommendations": ["selected_model", "sparse_matrix"],
}


@dataclass
class World:
    """What assets will be made of, which of them fail, and what checks will find."""

    rows: int = 1_000
    content: str = "first"
    keeps_model: bool = False
    failing: set[str] = field(default_factory=set)
    check: AssetCheckSeverity | None = None


class Platform:
    """The platform's graph, without what its assets do."""

    def __init__(self, instance: DagsterInstance, config: TrainingConfig) -> None:
        self.world = World()
        self.instance = instance
        self._cursor: Any = None
        assets = [
            *(self._asset(name, deps) for name, deps in DEPS.items()),
            self._models(),
        ]
        self.defs = Definitions(
            assets=with_conditions(assets, config),
            asset_checks=[self._check("raw_ratings"), self._check("filtered_ratings")],
            sensors=automation_sensors(30),
        )

    def _asset(self, name: str, deps: list[str]) -> Any:
        @asset(name=name, deps=deps)
        def node(context: AssetExecutionContext) -> MaterializeResult[Any]:
            return MaterializeResult(metadata=self._made(context, name, deps))

        return node

    def _models(self) -> Any:
        @multi_asset(
            name="model_training",
            can_subset=True,
            deps=["protobuf_train", "protobuf_validate"],
            outs={
                n: AssetOut(is_required=False)
                for n in ("fm_model", "tuned_model", "selected_model")
            },
            internal_asset_deps={
                "fm_model": {AssetKey("protobuf_train"), AssetKey("protobuf_validate")},
                "tuned_model": {AssetKey("protobuf_train"), AssetKey("protobuf_validate")},
                "selected_model": {AssetKey("fm_model"), AssetKey("tuned_model")},
            },
        )
        def model_training(context: AssetExecutionContext) -> Iterator[Output[None]]:
            selected = {key.to_user_string() for key in context.selected_asset_keys}
            made = "tuned_model" if "fm_model" not in selected else "fm_model"
            train = self.latest("protobuf_train")
            rows = {
                "training_rows": train["dagster/row_count"],
                "training_data": train["content_hash"],
            }
            for name in (made, "selected_model"):
                if name in selected:
                    metadata = self._made(context, name, ["protobuf_train", "protobuf_validate"])
                    if name == "selected_model":
                        before = self.latest(name) if self.world.keeps_model else {}
                        metadata["training_job"] = before.get("training_job", context.run.run_id)
                    yield Output(None, output_name=name, metadata={**metadata, **rows})

        return model_training

    def _made(self, context: AssetExecutionContext, name: str, deps: list[str]) -> dict[str, Any]:
        if name in self.world.failing:
            raise RuntimeError(f"{name} fails")
        read = {dep: self.latest(dep)["run"] for dep in deps}
        model = (
            {}
            if name not in PREDICTIONS
            else {"model": self.latest("selected_model")["training_job"]}
        )
        return {
            "made_from": MetadataValue.json(read),
            "content_hash": self.world.content,
            "dagster/row_count": self.world.rows,
            "run": context.run.run_id,
            **model,
        }

    def _check(self, name: str) -> Any:
        @asset_check(asset=name, name=f"{name}_good", blocking=True)
        def check() -> AssetCheckResult:
            severity = self.world.check
            return AssetCheckResult(
                passed=severity is None, severity=severity or AssetCheckSeverity.WARN
            )

        return check

    def latest(self, name: str) -> dict[str, Any]:
        event = self.instance.get_latest_materialization_event(AssetKey(name))
        assert event is not None
        assert event.asset_materialization is not None
        return {k: v.value for k, v in event.asset_materialization.metadata.items()}

    def land(self, rows: int, content: str) -> None:
        """New ratings have been ingested."""
        self.world.rows, self.world.content = rows, content
        self.run("raw_ratings")

    def run(self, *names: str) -> bool:
        """Make assets in one run, checks included, and return whether it went well."""
        job = self.defs.resolve_implicit_job_def_def_for_assets([AssetKey(n) for n in names])
        assert job is not None
        return job.execute_in_process(
            asset_selection=[AssetKey(name) for name in names],
            instance=self.instance,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        ).success

    def begin(self, *names: str) -> DagsterRun:
        """Begin a run that does not end."""
        keys = [AssetKey(name) for name in names]
        job = self.defs.resolve_implicit_job_def_def_for_assets(keys)
        assert job is not None
        return self.instance.create_run_for_job(
            job.get_subset(asset_selection=set(keys)),
            asset_selection=frozenset(keys),
            status=DagsterRunStatus.STARTED,
        )

    def asked_for(self, hours: float = 0) -> set[str]:
        """Return what is asked for at a look so many hours from now."""
        found = evaluate_automation_conditions(
            self.defs,
            self.instance,
            asset_selection=AssetSelection.all(),
            evaluation_time=dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours),
            cursor=self._cursor,
        )
        self._cursor = found.cursor
        return {
            name for name in {*EVERYTHING, "tuned_model"} if found.get_num_requested(AssetKey(name))
        }

    def follow(self, hours: float = 0) -> list[set[str]]:
        """Look and make what is asked for, until nothing is; return what was, look by look."""
        looks = []
        while asked := self.asked_for(hours):
            looks.append(asked)
            for sensor in (asked - PREDICTIONS, asked & PREDICTIONS):
                assert not sensor or self.run(*sensor)
        return looks


CONFIG = TrainingConfig(new_share=0.05, min_hours_between=24, max_age_hours=7 * 24)


@pytest.fixture
def platform() -> Iterator[Platform]:
    with DagsterInstance.ephemeral() as instance:
        yield Platform(instance, CONFIG)


def test_files_of_a_real_instance_lead_to_the_same(tmp_path: Path) -> None:
    settings = {"telemetry": {"enabled": False}}
    with DagsterInstance.local_temp(str(tmp_path), overrides=settings) as instance:
        platform = Platform(instance, CONFIG)
        platform.land(1_000, "first")
        assert platform.follow() == [DATA, MODEL, PREDICTIONS]
        platform.world.failing = {"sparse_matrix"}
        platform.land(2_000, "second")
        assert platform.asked_for() == DATA
        assert not platform.run(*DATA)
        assert platform.asked_for(hours=0.9) == set()
        platform.world.failing = set()
        assert platform.follow(hours=1.1) == [DATA - {"filtered_ratings"}]
        assert platform.asked_for(hours=24.1) == MODEL


@pytest.fixture
def trained(platform: Platform) -> Platform:
    """A platform whose everything is up to date."""
    platform.land(1_000, "first")
    platform.follow()
    return platform


def test_nothing_is_asked_for_before_anything_has_landed(platform: Platform) -> None:
    assert platform.asked_for() == set()


def test_the_first_ratings_lead_to_data_then_a_model_then_predictions(platform: Platform) -> None:
    platform.asked_for()
    platform.land(1_000, "first")
    assert platform.follow() == [DATA, MODEL, PREDICTIONS]


def test_what_landed_before_automation_first_looked_counts_too(platform: Platform) -> None:
    platform.land(1_000, "first")
    assert platform.follow() == [DATA, MODEL, PREDICTIONS]


def test_a_run_that_makes_everything_leaves_nothing_to_ask_for(platform: Platform) -> None:
    platform.asked_for()
    assert platform.run(*EVERYTHING)
    assert platform.asked_for() == set()
    assert platform.asked_for(hours=24 * 30) == set()


def test_while_a_run_makes_everything_nothing_is_asked_for(trained: Platform) -> None:
    trained.land(2_000, "second")
    run = trained.begin(*EVERYTHING)
    assert trained.asked_for(hours=25) == set()
    trained.instance.report_run_canceled(run)
    assert trained.asked_for(hours=26.5) == DATA


def test_new_ratings_lead_to_new_data_and_not_at_once_to_a_new_model(trained: Platform) -> None:
    trained.land(2_000, "second")
    assert trained.follow() == [DATA]
    assert trained.asked_for(hours=23.9) == set()
    assert trained.follow(hours=24.1) == [MODEL, PREDICTIONS]


@pytest.mark.parametrize(
    ("rows", "hours", "due"),
    [
        (1_050, 24.1, True),
        (1_049, 24.1, False),
        (1_049, 7 * 24 - 0.1, False),
        (1_049, 7 * 24 + 0.1, True),
        (900, 7 * 24 + 0.1, True),
    ],
)
def test_training_is_due_when_enough_is_new_or_the_model_is_old_and_anything_is(
    trained: Platform, rows: int, hours: float, due: bool
) -> None:
    trained.land(rows, "second")
    assert trained.follow() == [DATA]
    assert trained.asked_for(hours=hours) == (MODEL if due else set())


def test_an_old_model_of_all_there_is_is_not_trained_again(trained: Platform) -> None:
    trained.run("raw_ratings")
    assert trained.follow() == [DATA]
    assert trained.asked_for(hours=24 * 365) == set()


def test_a_training_that_failed_counts_as_one(platform: Platform) -> None:
    platform.land(1_000, "first")
    assert platform.asked_for() == DATA
    platform.run(*DATA)
    assert platform.asked_for() == MODEL
    platform.world.failing = {"fm_model"}
    assert not platform.run(*MODEL)
    assert platform.asked_for(hours=23.9) == set()
    assert platform.asked_for(hours=24.1) == MODEL


@pytest.mark.parametrize("by", ["fm_model", "tuned_model"])
def test_nothing_is_trained_while_a_training_is_at_work(trained: Platform, by: str) -> None:
    trained.land(2_000, "second")
    trained.follow()
    run = trained.begin(by, "selected_model")
    assert trained.asked_for(hours=30) == set()
    trained.instance.report_run_canceled(run)
    assert trained.asked_for(hours=30) == MODEL


def test_a_model_of_a_search_counts_like_any_other(trained: Platform) -> None:
    trained.land(2_000, "second")
    trained.follow()
    trained.run("tuned_model", "selected_model")
    assert trained.follow(hours=30) == [PREDICTIONS]


def test_nothing_is_trained_while_data_are_made_but_not_for_ever(trained: Platform) -> None:
    trained.land(2_000, "second")
    trained.follow()
    trained.begin("raw_ratings")
    assert trained.asked_for(hours=24.5) == set()
    assert trained.asked_for(hours=25.1) == MODEL


def test_data_and_the_training_on_them_are_not_asked_for_at_one_look(trained: Platform) -> None:
    trained.land(2_000, "second")
    trained.follow()
    trained.land(3_000, "third")
    assert trained.asked_for(hours=24.5) == DATA


def test_a_training_that_has_waited_for_data_for_an_hour_goes_with_them(trained: Platform) -> None:
    trained.land(2_000, "second")
    trained.follow()
    trained.land(3_000, "third")
    assert trained.asked_for(hours=25.1) == DATA | MODEL


def test_a_check_that_fails_holds_back_what_follows_until_it_passes(trained: Platform) -> None:
    trained.world.check = AssetCheckSeverity.ERROR
    trained.land(2_000, "second")
    assert trained.asked_for() == set()
    assert trained.asked_for(hours=24 * 30) == set()
    trained.world.check = AssetCheckSeverity.WARN
    trained.land(3_000, "third")
    assert trained.follow() == [DATA]


def test_a_check_of_what_a_model_is_made_from_holds_training_back(trained: Platform) -> None:
    trained.land(2_000, "second")
    trained.follow()
    trained.world.check = AssetCheckSeverity.ERROR
    assert not trained.run("filtered_ratings", "sparse_matrix")
    assert trained.asked_for(hours=24 * 30) == set()
    trained.world.check = None
    trained.run("filtered_ratings")
    assert trained.follow(hours=24.5) == [DATA - {"filtered_ratings"}, MODEL, PREDICTIONS]


def test_what_fails_is_tried_again_after_an_hour_or_when_more_lands(trained: Platform) -> None:
    trained.world.failing = {"sparse_matrix"}
    trained.land(2_000, "second")
    assert trained.asked_for() == DATA
    assert not trained.run(*DATA)
    assert trained.asked_for(hours=0.9) == set()
    assert trained.asked_for(hours=1.1) == DATA - {"filtered_ratings"}
    trained.land(3_000, "third")
    trained.world.failing = set()
    assert trained.follow() == [DATA]


def test_what_a_run_of_everything_did_not_reach_is_not_begun_again_at_once(
    trained: Platform,
) -> None:
    trained.world.failing = {"filtered_ratings"}
    assert not trained.run(*EVERYTHING)
    assert trained.asked_for(hours=0.9) == set()
    assert trained.asked_for(hours=1.1) == DATA


def test_nothing_is_predicted_again_when_only_the_data_move(trained: Platform) -> None:
    trained.land(1_001, "second")
    assert trained.follow() == [DATA]
    assert trained.asked_for(hours=24) == set()


def test_nothing_is_predicted_again_by_a_model_that_was_kept(trained: Platform) -> None:
    trained.world.keeps_model = True
    trained.land(2_000, "second")
    assert trained.follow(hours=24.1) == [DATA, MODEL]


def test_predictions_that_fail_are_tried_again_after_an_hour(trained: Platform) -> None:
    trained.land(2_000, "second")
    trained.follow()
    assert trained.asked_for(hours=24.1) == MODEL
    trained.run(*MODEL)
    assert trained.asked_for() == PREDICTIONS
    trained.world.failing = {"batch_predictions"}
    assert not trained.run(*PREDICTIONS)
    # What did not need them has been made.
    assert trained.asked_for(hours=0.9) == set()
    assert trained.asked_for(hours=1.1) == PREDICTIONS - {"recommendations"}
    # Data that move are no reason to try again.
    trained.land(2_001, "third")
    trained.run(*DATA)
    assert trained.asked_for(hours=0.9) == set()


def test_an_evaluation_waits_for_the_predictions_of_its_model(trained: Platform) -> None:
    trained.run("selected_model", "fm_model")
    run = trained.begin("batch_predictions")
    assert trained.asked_for() == {"recommendations"}
    trained.instance.report_run_canceled(run)


def test_what_was_made_of_an_older_version_is_made_again(trained: Platform) -> None:
    # As when a run from failure goes on with what its forerunner has made.
    older = trained.latest("raw_ratings")["run"]
    trained.run("raw_ratings")
    before = trained.latest

    def stale(name: str) -> dict[str, Any]:
        found = before(name)
        return {**found, "run": older} if name == "raw_ratings" else found

    trained.latest = stale  # type: ignore[method-assign]
    assert trained.run(*DATA)
    trained.latest = before  # type: ignore[method-assign]
    assert trained.asked_for(hours=1.1) == DATA


def test_what_another_orchestrator_has_made_meanwhile_is_left_alone(trained: Platform) -> None:
    trained.run("raw_ratings")
    before = trained.latest

    def foreign(name: str) -> dict[str, Any]:
        found = before(name)
        return {**found, "run": "of Airflow"} if name == "raw_ratings" else found

    trained.latest = foreign  # type: ignore[method-assign]
    assert trained.run(*DATA)
    assert trained.asked_for(hours=24) == set()


def test_conditions_are_on_the_platforms_own_assets_and_say_what_they_are() -> None:
    defs = build_defs(Settings.from_environment({"RECSYS_STATE": "/nowhere"}))
    found = {
        spec.key.to_user_string(): spec.automation_condition
        for spec in defs.resolve_all_asset_specs()
    }
    labels = {name: c.get_label() for name, c in found.items() if c is not None}
    assert labels == {
        **dict.fromkeys(DATA, "new data"),
        "fm_model": "training is due",
        "selected_model": "a model will be trained",
        **dict.fromkeys(PREDICTIONS, "another model is selected"),
    }


def test_no_run_of_automation_makes_both_data_and_predictions(trained: Platform) -> None:
    trained.run(*MODEL)
    trained.land(2_000, "second")
    assert trained.asked_for() == DATA | PREDICTIONS
    sensors = automation_sensors(30)
    graph = trained.defs.resolve_asset_graph()
    targets = [
        {key.to_user_string() for key in sensor.asset_selection.resolve(graph)}
        for sensor in sensors
    ]
    assert targets == [{*EVERYTHING, "tuned_model"} - PREDICTIONS, PREDICTIONS]
    assert [sensor.default_status.value for sensor in sensors] == ["RUNNING", "RUNNING"]
