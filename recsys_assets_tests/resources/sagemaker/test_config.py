"""The file of settings: what it may say, and what is told of a mistake in it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import recsys_assets
from recsys_assets.definitions import build_defs, build_resources
from recsys_assets.resources.sagemaker import SageMaker, configured_sagemaker
from recsys_assets.settings import Settings, SettingsError
from recsys_assets_tests.main_job.command import only_sentence
from recsys_assets_tests.main_job.command import recsys_assets as recsys_assets_command

PROJECT = Path(recsys_assets.__file__).parent.parent
PLATFORM = {
    "aws": {"local": False, "region_name": "eu-west-1"},
    "role_arn": "arn:aws:iam::123456789012:role/recsys",
}
# What has been created differs from run to run.
SETTABLE = SageMaker.model_fields.keys() - PLATFORM.keys() - {"created"}
EVERYTHING = """
image: 123456789012.dkr.ecr.eu-west-1.amazonaws.com/own:1
training:
  instance_type: ml.c5.2xlarge
  instance_count: 2
  volume_gb: 50
  max_runtime_seconds: 7200
  input_mode: Pipe
  spot: {max_wait_seconds: 9000, checkpoint_uri: s3://bucket/checkpoints}
  metric_definitions: {"test:rmse": 'rmse=(\\S+)'}
transform: {instance_type: ml.c5.xlarge, instance_count: 3, max_runtime_seconds: 3600}
endpoint: {name: recommender, instance_type: ml.c5.large, instance_count: 2}
network: {subnets: [subnet-1], security_group_ids: [sg-1], isolation: true, encrypt_traffic: true}
encryption: {volume_kms_key_id: alias/volumes, output_kms_key_id: alias/outputs}
cost: {max_usd_per_job: 5, max_usd_per_endpoint_hour: 1, price_per_hour: {ml.c5.2xlarge: 0.45}}
tags: {team: video}
poll_seconds: 30
max_retries: 1
stop_on_cancel: false
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "sagemaker.yaml"
    path.write_text(text)
    return path


def configured(path: Path | None) -> SageMaker:
    return configured_sagemaker(path, **PLATFORM)


def mistake(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        configured(path)
    return str(caught.value)


def test_a_file_sets_every_field_that_the_platform_does_not(tmp_path: Path) -> None:
    resource = configured(written(tmp_path, EVERYTHING))
    with resource.process_config_and_initialize_cm() as sagemaker:
        assert sagemaker.training.spot is not None
        assert sagemaker.training.spot.max_wait_seconds == 9000
        assert sagemaker.endpoint.name == "recommender"
        assert sagemaker.cost.price_per_hour == {"ml.c5.2xlarge": 0.45}
    default = configured(None)
    same = {name for name in SETTABLE if getattr(resource, name) == getattr(default, name)}
    assert same == set()


def test_an_empty_file_and_none_are_the_defaults(tmp_path: Path) -> None:
    assert configured(written(tmp_path, "")).training == configured(None).training


def test_the_documentation_shows_the_defaults(tmp_path: Path) -> None:
    text = (PROJECT / "docs" / "sagemaker.md").read_text()
    shown = text.partition("```yaml\n")[2].partition("```")[0]
    documented, default = configured(written(tmp_path, shown)), configured(None)
    assert yaml.safe_load(shown).keys() == SETTABLE - {"image"}
    assert {name: getattr(documented, name) for name in SETTABLE} == {
        name: getattr(default, name) for name in SETTABLE
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trainig: {}", "trainig: not known; expected cost, encryption, endpoint, image"),
        ("role_arn: x", "role_arn: not known"),
        ("created: {sagemaker_training: x}", "created: not known"),
        ("training: {volume: 3}", "training.volume: Extra inputs are not permitted, got 3"),
        ("training: {volume_gb: lots}", "training.volume_gb: Input should be a valid integer"),
        ("training: {spot: {max_wait_seconds: 5}}", "training: expected spot.max_wait_seconds"),
        (
            "training: {max_runtime_seconds: 5000, spot: {max_wait_seconds: 6000}}",
            "expected training.spot.max_wait_seconds to be at most 3600 with the built-in image",
        ),
        (
            "training: {max_runtime_seconds: 60, warm_pool_seconds: 60, spot: {}}",
            "training: expected spot or warm_pool_seconds",
        ),
        ("training: {metric_definitions: {a: b}}", "are for an image of your own: set image"),
        ("network: {subnets: [s]}", "network: expected subnets and security_group_ids together"),
        ("- a", "expected a mapping such as `name: ...`, got ['a']"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_mistake_is_told_with_file_and_key(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    said = mistake(path)
    assert said.startswith(str(path))
    assert told in said


def test_a_file_that_is_not_there_is_told_with_its_variable(tmp_path: Path) -> None:
    assert mistake(tmp_path / "absent.yaml").startswith("RECSYS_SAGEMAKER_CONFIG: cannot read")


def settings(tmp_path: Path, **variables: str) -> Settings:
    return Settings.from_environment({"RECSYS_STATE": str(tmp_path), **variables})


def test_the_environment_names_the_file_and_the_patience(tmp_path: Path) -> None:
    path = written(tmp_path, "training: {instance_type: ml.m5.4xlarge}")
    chosen = settings(tmp_path, RECSYS_SAGEMAKER_CONFIG=str(path), RECSYS_PATIENCE_SECONDS="12.5")
    sagemaker = build_resources(chosen)["sagemaker"]
    assert sagemaker.training.instance_type == "ml.m5.4xlarge"
    assert sagemaker.aws.patience_seconds == 12.5


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_patience_that_is_no_time_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="RECSYS_PATIENCE_SECONDS: expected a number"):
        settings(tmp_path, RECSYS_PATIENCE_SECONDS=text)


def test_definitions_with_every_setting_load_without_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables: dict[str, Any] = {
        "RECSYS_ENV": "aws",
        "RECSYS_SAGEMAKER_CONFIG": str(written(tmp_path, EVERYTHING)),
    }
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    build_defs(settings(tmp_path, **variables)).resolve_all_job_defs()


def test_the_command_tells_a_mistake_in_one_sentence(tmp_path: Path) -> None:
    path = written(tmp_path, "training: {volume_gb: lots}")
    done = recsys_assets_command(
        "run", "--state", tmp_path / "state", RECSYS_ENV="aws", RECSYS_SAGEMAKER_CONFIG=str(path)
    )
    assert only_sentence(done).startswith(f"{path}: training.volume_gb: ")
