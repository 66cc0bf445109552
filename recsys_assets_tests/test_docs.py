"""README and docs say what is true: links, targets, commands and settings."""

import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from recsys_assets.cli import cli
from recsys_assets.definitions import build_defs
from recsys_assets.settings import Settings

PROJECT = Path(__file__).parent.parent
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text() for page in PAGES}
EVERYTHING = "\n".join(TEXTS.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_every_make_target_that_is_named_exists() -> None:
    rules = (PROJECT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", rules, flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", EVERYTHING, flags=re.MULTILINE))
    assert {"run", "test"} <= named
    assert named <= targets


def test_every_command_that_is_named_exists() -> None:
    named = re.findall(r"recsys-assets ([a-z]+)(?: (start|stop|status|env))?\b", EVERYTHING)
    assert named
    for words in set(named):
        answer = CliRunner().invoke(cli, [*filter(None, words), "--help"])
        assert answer.exit_code == 0, words


def test_every_file_of_the_project_that_is_named_exists() -> None:
    named = set(re.findall(r"(?:recsys_assets|docs|benchmarks)/[\w./-]*\w", EVERYTHING))
    assert {name for name in named if not (PROJECT / name).exists()} == set()


def test_every_setting_is_documented_and_every_documented_one_is_read() -> None:
    documented = set(re.findall(r"RECSYS_[A-Z0-9_]+", TEXTS["settings.md"]))
    code = "\n".join(path.read_text() for path in (PROJECT / "recsys_assets").rglob("*.py"))
    read = set(re.findall(r'"(RECSYS_[A-Z0-9_]+)"', code))
    assert documented == read - {"RECSYS_DAGSTER_STORAGE", "RECSYS_DAGSTER_LOGS"}


def test_the_readmes_asset_table_names_the_assets() -> None:
    defs = build_defs(Settings.from_environment({}))
    assets = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    table = TEXTS["README.md"].partition("## The assets")[2].partition("\n\nOnly")[0]
    named = set(re.findall(r"`(\w+)`", table)) - {"mode"}
    assert named == assets


def test_help_lists_every_target_with_what_it_does() -> None:
    done = subprocess.run(["make", "help"], cwd=PROJECT, capture_output=True, text=True, check=True)
    for target in ("run", "ui", "test", "test-slow", "check", "clean"):
        assert re.search(rf"^{target}\s+\w", done.stdout, flags=re.MULTILINE), target


def test_no_committed_file_names_a_package_registrys_host() -> None:
    hosts = ["pypi" + ".org", "python" + "hosted", "registry." + "npmjs", "index" + "-url"]
    listed = subprocess.run(
        ["git", "grep", "-lIF", *[part for host in hosts for part in ("-e", host)]],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    if listed.returncode > 1:
        pytest.skip("needs a git checkout")
    assert listed.stdout == ""
