"""What may stand in the file that RECSYS_AUTOMATION_CONFIG names, and what its page says of it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from recsys_assets.automation.config import AutomationConfig
from recsys_assets.settings import SettingsError
from recsys_assets_tests.conftest import PROJECT

PAGE = (PROJECT / "docs" / "settings.md").read_text()


def read(folder: Path, text: str) -> AutomationConfig:
    path = folder / "automation.yaml"
    path.write_text(text)
    return AutomationConfig.from_file(path)


def sections() -> dict[str, type[BaseModel]]:
    fields = AutomationConfig.model_fields
    return {name: type(field.default) for name, field in fields.items()}


def table() -> list[str]:
    """Return the rows that the page has to have."""
    return [
        f"| `{section}.{name}` | {shown(field.default)} | {field.description} |"
        for section, model in sections().items()
        for name, field in model.model_fields.items()
    ]


def shown(default: Any) -> str:
    return "none" if default is None else f"`{json.dumps(default)}`"


def test_the_page_tells_every_option_with_its_default_and_its_meaning() -> None:
    assert [line for line in PAGE.splitlines() if re.match(r"\| `\w+\.\w+` ", line)] == table()


def test_the_pages_example_is_a_file_that_is_taken(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    config = read(tmp_path, example)
    given = yaml.safe_load(example)
    assert given
    for section, options in given.items():
        found = getattr(config, section).model_dump()
        assert {name: found[name] for name in options} == options


@pytest.mark.parametrize("text", ["", "landing: {}\n", "{}"])
def test_all_that_is_left_out_has_its_default(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, text) == AutomationConfig() == AutomationConfig.from_file(None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("notify: {}", "notify: Extra inputs are not permitted"),
        ("schedules: {nightly: 0 2 * * *}", "schedules.nightly: Extra inputs are not permitted"),
        (
            "schedules: {timezone: Europe/Berln}",
            "schedules.timezone: expected a time zone such as Europe/Berlin, got 'Europe/Berln'",
        ),
        (
            "schedules: {weekly_tuning: every sunday}",
            "schedules.weekly_tuning: expected a cron expression such as 0 2 * * *, got "
            "'every sunday'",
        ),
        (
            "freshness: {data_warn_hours: 80}",
            "freshness: expected data_warn_hours to be below data_fail_hours, got 80 and 72",
        ),
        (
            "freshness: {model_fail_hours: 0}",
            "freshness.model_fail_hours: Input should be greater than or equal to 0.1, got 0",
        ),
        (
            "notifications: {sns_topic_arn: alarms}",
            "notifications.sns_topic_arn: expected the ARN of a standard topic such as "
            "arn:aws:sns:eu-west-1:123456789012:alarms, got 'alarms'",
        ),
        (
            "notifications: {sns_topic_arn: 'arn:aws:sns:eu-west-1:123456789012:alarms.fifo'}",
            "expected the ARN of a standard topic",
        ),
        (
            "notifications: {ui_url: 'dagster.example.com'}",
            "notifications.ui_url: expected an address such as https://dagster.example.com, got "
            "'dagster.example.com'",
        ),
        ("notifications: {format: xml}", "notifications.format: Input should be 'json' or 'slack'"),
        ("landing: {uri: /data}", "landing.uri: expected s3://bucket/prefix/, got '/data'"),
        ("- landing", "expected a mapping such as `name: ...`, got ['landing']"),
        ("landing: {", "is not YAML"),
    ],
)
def test_what_does_not_fit_is_told_with_file_and_option(
    text: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert str(tmp_path / "automation.yaml") in str(caught.value)


def test_a_file_that_is_not_there_is_told_with_the_variable_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RECSYS_AUTOMATION_CONFIG: cannot read"):
        AutomationConfig.from_file(tmp_path / "none.yaml")


def test_a_webhooks_address_has_no_place_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="webhook_url: Extra inputs are not permitted"):
        read(tmp_path, "notifications: {webhook_url: 'https://hooks.example.com/secret'}")


if __name__ == "__main__":
    print("\n".join(table()))  # noqa: T201
