"""The definitions: what there is, how it hangs together, and what loading it needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dagster import AssetKey, Definitions

from recsys_assets.assets.models import ModelTrainingConfig, RangeConfig, TuningConfig
from recsys_assets.definitions import MAIN_JOB, SERVING_JOB, build_defs
from recsys_assets.settings import Settings, SettingsError

PROJECT = Path(__file__).parent.parent
CONFIGS = PROJECT / "recsys_assets" / "configs"
DEPENDENCIES = {
    "raw_ratings": set(),
    "filtered_ratings": {"raw_ratings"},
    "sparse_matrix": {"filtered_ratings"},
    "protobuf_train": {"sparse_matrix"},
    "protobuf_validate": {"sparse_matrix"},
    "protobuf_test": {"sparse_matrix"},
    "fm_model": {"protobuf_train", "protobuf_validate"},
    "tuned_model": {"protobuf_train", "protobuf_validate"},
    "selected_model": {"fm_model", "tuned_model"},
    "batch_predictions": {"selected_model", "protobuf_test", "sparse_matrix"},
    "model_evaluation": {"batch_predictions", "selected_model", "sparse_matrix"},
    "recommendations": {"selected_model", "sparse_matrix"},
    "registered_model": {"selected_model"},
    "endpoint": {"registered_model", "model_evaluation"},
}
SERVING = {"registered_model", "endpoint"}


@pytest.fixture(scope="module")
def defs() -> Definitions:
    return build_defs(Settings.from_environment({"RECSYS_STATE": "/nowhere"}))


def test_the_graph_is_the_one_that_is_documented(defs: Definitions) -> None:
    found = {
        spec.key.to_user_string(): {dep.asset_key.to_user_string() for dep in spec.deps}
        for spec in defs.resolve_all_asset_specs()
    }
    assert found == DEPENDENCIES


def test_all_but_serving_and_the_checks_are_in_the_main_job(defs: Definitions) -> None:
    job = defs.resolve_job_def(MAIN_JOB)
    made = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert made == DEPENDENCIES.keys() - SERVING
    assert {node.name for node in job.nodes} >= {"raw_ratings_checks", "filtered_ratings_checks"}


def test_what_costs_money_as_long_as_it_stands_has_a_job_of_its_own(defs: Definitions) -> None:
    job = defs.resolve_job_def(SERVING_JOB)
    assert job.asset_layer.executable_asset_keys == {AssetKey(name) for name in SERVING}


def test_every_asset_says_what_it_is(defs: Definitions) -> None:
    for spec in defs.resolve_all_asset_specs():
        assert spec.description, spec.key
        assert spec.group_name != "default", spec.key


def test_only_the_batch_transform_depends_on_the_test_split(defs: Definitions) -> None:
    for spec in defs.resolve_all_asset_specs():
        if AssetKey("protobuf_test") in {dep.asset_key for dep in spec.deps}:
            assert spec.key == AssetKey("batch_predictions")


@pytest.mark.parametrize(
    "command", [["dagster", "definitions", "validate"], ["dg", "check", "defs"]]
)
def test_dagsters_own_checks_pass_without_credentials_network_or_services(
    command: list[str], tmp_path: Path
) -> None:
    # A network namespace would need root; a proxy that refuses stands in for a missing network.
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "VIRTUAL_ENV": sys.prefix,
        "HOME": str(tmp_path),
        "RECSYS_STATE": str(tmp_path / "state"),
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "DG_CLI_CONFIG": str(tmp_path / "dg.toml"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "warning" in line.lower()]
    assert [line for line in ours if "SupersessionWarning" not in line] == []
    assert not (tmp_path / "state" / "services").exists()


def test_loading_the_definitions_imports_neither_sagemaker_nor_mlflow() -> None:
    code = (
        "import sys, recsys_assets.definitions; "
        "print([m for m in ('sagemaker', 'mlflow', 'dagster_mlflow', 'numba', 'matplotlib.pyplot') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_tuning_file_says_what_the_defaults_are() -> None:
    content = yaml.safe_load((CONFIGS / "tuning.yaml").read_text())
    given = content["ops"]["model_training"]["config"]
    default = TuningConfig()
    searched = {name: RangeConfig(**item) for name, item in given["tuning"].pop("ranges").items()}
    assert searched == {name: RangeConfig(**item) for name, item in default.ranges.items()}
    assert TuningConfig(**given["tuning"]) == default
    assert given["mode"] == "tune"


def test_the_source_workflows_file_leaves_the_built_ins_rates_alone() -> None:
    content = yaml.safe_load((CONFIGS / "source_workflow.yaml").read_text())
    config = ModelTrainingConfig.model_validate(content["ops"]["model_training"]["config"])
    sent = config.hyperparameters.as_strings(feature_dim=100)
    assert sent == {
        "num_factors": "64",
        "epochs": "10",
        "mini_batch_size": "200",
        "bias_init_method": "normal",
        "linear_init_method": "normal",
        "factors_init_method": "normal",
        "feature_dim": "100",
        "predictor_type": "regressor",
    }


def test_an_unknown_environment_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="RECSYS_ENV: expected local or aws, got 'prod'"):
        Settings.from_environment({"RECSYS_ENV": "prod"})
