"""How fresh assets are to be: every asset has a policy, and Dagster's daemon judges by it."""

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from dagster import AssetKey, AssetMaterialization, DagsterInstance, asset
from dagster._core.definitions import freshness_evaluator
from dagster._core.definitions.freshness import FreshnessState, TimeWindowFreshnessPolicy
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.freshness import FreshnessDaemon
from dagster._time import get_current_timestamp

from recsys_assets.automation.config import FreshnessConfig
from recsys_assets.automation.freshness import with_freshness
from recsys_assets.definitions import build_defs
from recsys_assets.settings import Settings

CONFIG = "freshness: {data_warn_hours: 1, data_fail_hours: 2, model_warn_hours: 3}"
DATA = {"raw_ratings", "filtered_ratings", "sparse_matrix"} | {
    f"protobuf_{split}" for split in ("train", "validate", "test")
}


def policies(folder: Path, config: str) -> dict[str, TimeWindowFreshnessPolicy]:
    path = folder / "automation.yaml"
    path.write_text(config)
    variables = {"RECSYS_STATE": "/nowhere", "RECSYS_AUTOMATION_CONFIG": str(path)}
    found = {}
    for spec in build_defs(Settings.from_environment(variables)).resolve_all_asset_specs():
        assert isinstance(spec.freshness_policy, TimeWindowFreshnessPolicy), spec.key
        found[spec.key.to_user_string()] = spec.freshness_policy
    return found


def test_no_asset_is_without_a_policy_and_each_has_that_of_its_group(tmp_path: Path) -> None:
    for name, policy in policies(tmp_path, CONFIG).items():
        warn, fail = (1, 2) if name in DATA else (3, 15 * 24)
        assert policy.warn_window is not None
        assert policy.warn_window.to_timedelta() == timedelta(hours=warn), name
        assert policy.fail_window.to_timedelta() == timedelta(hours=fail), name


def test_an_asset_of_a_group_without_a_policy_is_refused() -> None:
    @asset(group_name="other")
    def stray() -> None:
        """Make nothing."""

    with pytest.raises(
        ValueError, match=r"expected stray to be in one of the groups .*, got other"
    ):
        with_freshness([stray], FreshnessConfig())


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[WorkspaceProcessContext]:
    target = LoadableTargetOrigin(
        executable_path=sys.executable, module_name="recsys_assets.definitions", attribute="defs"
    )
    place = InProcessWorkspaceLoadTarget(InProcessCodeLocationOrigin(target))
    settings = {"telemetry": {"enabled": False}}
    with (
        DagsterInstance.local_temp(str(tmp_path), overrides=settings) as instance,
        WorkspaceProcessContext(instance, place) as context,
    ):
        yield context


def test_the_daemon_warns_of_what_is_old_and_fails_what_is_older(
    workspace: WorkspaceProcessContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = workspace.instance
    for name in ("raw_ratings", "fm_model"):
        instance.report_runless_asset_event(AssetMaterialization(name))

    def judged_after(hours: float) -> dict[str, FreshnessState]:
        later = get_current_timestamp() + hours * 3600
        monkeypatch.setattr(freshness_evaluator, "get_current_timestamp", lambda: later)
        list(FreshnessDaemon().run_iteration(workspace))
        keys = [AssetKey(name) for name in ("raw_ratings", "fm_model", "endpoint")]
        records = instance.get_freshness_state_records(keys)
        return {key.to_user_string(): record.freshness_state for key, record in records.items()}

    passing, warning, failing = FreshnessState.PASS, FreshnessState.WARN, FreshnessState.FAIL
    never = {"endpoint": FreshnessState.UNKNOWN}
    for hours, ratings, model in (
        (1, passing, passing),
        (37, warning, passing),
        (73, failing, passing),
        (9 * 24, failing, warning),
        (16 * 24, failing, failing),
    ):
        judged = judged_after(hours)
        assert judged | never == {"raw_ratings": ratings, "fm_model": model} | never, hours
