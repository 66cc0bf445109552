"""The file of settings: what it may say, and what is told of a mistake in it."""

from pathlib import Path

import pytest

from recsys_assets.definitions import build_resources
from recsys_assets.resources.spark import Spark
from recsys_assets.settings import Settings, SettingsError
from recsys_assets_tests.conftest import PROJECT

EMR_SERVERLESS = """
emr_serverless:
  application_id: 00f1a2b3
  execution_role_arn: arn:aws:iam::123456789012:role/recsys-spark
"""


def configured(folder: Path, text: str, environment: str = "aws") -> Spark:
    path = folder / "spark.yaml"
    path.write_text(text)
    variables = {"RECSYS_ENV": environment, "RECSYS_BUCKET": "b", "RECSYS_SPARK_CONFIG": str(path)}
    spark = build_resources(Settings.from_environment(variables))["spark"]
    assert isinstance(spark, Spark)
    return spark


def test_without_a_file_there_is_no_spark() -> None:
    settings = Settings.from_environment({})
    assert settings.spark_config is None
    assert not build_resources(settings)["spark"].is_configured


def test_every_place_that_the_documentation_shows_can_be_configured(tmp_path: Path) -> None:
    page = (PROJECT / "docs" / "spark.md").read_text()
    shown = [block.partition("```")[0] for block in page.split("```yaml\n")[1:]]
    places = set()
    for text in shown:
        spark = configured(tmp_path, text)
        assert spark.is_configured
        places |= {name for name in ("emr_serverless", "glue", "local") if getattr(spark, name)}
    assert places == {"emr_serverless", "glue", "local"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected one of emr_serverless, glue, local, got none"),
        (
            EMR_SERVERLESS + "local: {python: /usr/bin/python3}",
            "expected one of emr_serverless, glue, local, got emr_serverless and local",
        ),
        ("emr: {}", "emr: not known; expected one of emr_serverless, glue, local"),
        ("glue: {}", "glue.job_name: Input should be a valid string, got None"),
        ("glue: {job_name: j, workers: 1}", "glue.workers: Input should be greater than or equal"),
        ("glue: {job_name: j, size: 3}", "glue.size: Extra inputs are not permitted"),
        (
            "local: {python: p, conf: {spark.app.name: two words}}",
            "local.conf: expected no space in a setting of Spark, got 'spark.app.name=two words'",
        ),
        ("local:", "expected one of emr_serverless, glue, local, got none"),
    ],
)
def test_a_mistake_is_told_with_its_file_and_key(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        configured(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'spark.yaml'}: {told}")


def test_services_of_aws_are_refused_where_nothing_else_is_on_aws(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="emr_serverless is on AWS: expected RECSYS_ENV"):
        configured(tmp_path, EMR_SERVERLESS, environment="local")
    assert configured(tmp_path, "local: {python: p}", environment="local").is_configured
