"""What the UI's pages show in a real browser, after a whole run."""

import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recsys_assets.definitions import MAIN_JOB, defs
from recsys_assets_tests.ui.dagster_ui import DagsterUI, Run

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), "")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1600,1200",
    "--virtual-time-budget=15000",  # milliseconds that a page has to settle
    "--dump-dom",
)

pytestmark = [
    pytest.mark.xdist_group("ui"),
    pytest.mark.skipif(not BROWSER, reason=f"needs one of {', '.join(BROWSERS)}"),
]


class _VisibleText(HTMLParser):
    """Collects the text of a page without its scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden and data.strip():
            self.texts.append(data.strip())


@pytest.fixture
def texts_of(ui: DagsterUI, tmp_path: Path) -> Callable[[str], list[str]]:
    """Return the pieces of text that a page of the UI shows, by the page's path."""

    def texts(path: str) -> list[str]:
        page = subprocess.run(
            [BROWSER, *FLAGS, f"--user-data-dir={tmp_path}", ui.url + path],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        parser = _VisibleText()
        parser.feed(page.stdout)
        return parser.texts

    return texts


def test_the_asset_graph_shows_the_groups(
    whole_run: Run, texts_of: Callable[[str], list[str]]
) -> None:
    shown = texts_of("/asset-groups")
    assert "Global asset lineage" in shown
    assert {"ratings", "features", "models", "predictions"} <= set(shown)


def test_the_catalog_lists_every_asset_with_its_description(
    whole_run: Run, texts_of: Callable[[str], list[str]]
) -> None:
    shown = texts_of("/assets")
    for spec in defs.resolve_all_asset_specs():
        assert spec.key.to_user_string() in shown
        assert spec.description in shown
    assert shown.count("Materialized") >= len(whole_run.made)


def test_the_page_of_an_asset_shows_its_metadata(
    whole_run: Run, texts_of: Callable[[str], list[str]]
) -> None:
    shown = texts_of("/assets/model_evaluation")
    assert "model_evaluation" in shown
    assert "predictions" in shown
    assert {"test_rmse", "bias_rmse", "mean_rmse"} <= set(shown)
    assert {"model", "biases", "video_mean", "mean"} <= set(shown)  # in the table of predictors
    assert {"batch_predictions", "selected_model", "sparse_matrix"} <= set(shown)  # upstream


def test_the_page_of_a_run_shows_that_it_succeeded(
    whole_run: Run, texts_of: Callable[[str], list[str]]
) -> None:
    shown = texts_of(f"/runs/{whole_run.run_id}")
    assert whole_run.run_id[:8] in shown
    assert "Success" in shown
    assert MAIN_JOB in shown
    assert any(text.startswith("Succeeded (") for text in shown)
