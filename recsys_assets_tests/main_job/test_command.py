"""`recsys-assets run` as a person uses it: what comes out of generated, real and landed ratings."""

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recsys_assets.domain.ratings.generating import GeneratedReviews, generate_amazon_reviews
from recsys_assets_tests.main_job.command import (
    client,
    content_hash,
    recsys_assets,
    services_of,
    write_config,
)

pytestmark = pytest.mark.xdist_group("main_job_results")

MADE_IN_EVERY_MODE = {
    "raw_ratings",
    "filtered_ratings",
    "sparse_matrix",
    "protobuf_train",
    "protobuf_validate",
    "protobuf_test",
    "selected_model",
    "batch_predictions",
    "model_evaluation",
    "recommendations",
}
ONE_EPOCH = {"hyperparameters": {"epochs": 1, "num_factors": 2}}


@dataclass
class Finished:
    """A run that has made everything."""

    stdout: str
    summary: dict[str, Any]

    @property
    def recommended(self) -> list[str]:
        """Titles that are printed as recommendations, the best first."""
        section = self.stdout.split("\nRecommended to customer ")[1].split("\n\n")[0]
        ranked = re.findall(r"^  (\d+)\.\s+(\S.*?)   -?\d+\.\d\d$", section, re.MULTILINE)
        assert [int(rank) for rank, _ in ranked] == list(range(1, 11)), section
        return [title for _, title in ranked]


def finished(state: Path, summary: Path, *options: str | Path) -> Finished:
    """Run the main job; it must succeed and say nothing on stderr."""
    done = recsys_assets("run", "--state", state, "--summary", summary, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return Finished(done.stdout, json.loads(summary.read_text()))


@pytest.fixture(scope="module")
def generated_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generated") / "state"


@pytest.fixture(scope="module")
def generated(generated_state: Path) -> Finished:
    """A run without a source, which starts the services itself."""
    folder = generated_state.parent
    config = write_config(folder / "config.yaml", raw_ratings={"generated_rows": 10_000})
    return finished(generated_state, folder / "new" / "summary.json", "--config", config)


def test_the_summary_tells_rows_quality_and_time(generated: Finished) -> None:
    summary = generated.summary
    assert summary["rows_read"] == 10_000
    assert summary["rows_rejected"] == 5
    assert 0 < summary["videos"] < summary["customers"] < summary["rows_kept"] < 10_000
    assert summary["mode"] == "train"
    assert 0 < summary["test_rmse"] < 4
    assert 0 < summary["bias_rmse"] < summary["mean_rmse"]
    assert summary["seconds"].keys() == MADE_IN_EVERY_MODE | {"fm_model"}
    assert all(value > 0 for value in summary["seconds"].values())
    assert 0 < summary["overhead_seconds"] < summary["total_seconds"]
    # fm_model and selected_model come from one step, whose seconds stand at both.
    steps = sum(summary["seconds"].values()) - summary["seconds"]["selected_model"]
    accounted = steps + summary["check_seconds"] + summary["overhead_seconds"]
    assert accounted == pytest.approx(summary["total_seconds"], abs=0.02)


def test_a_model_of_generated_ratings_is_better_than_the_mean(generated: Finished) -> None:
    assert generated.summary["test_rmse"] < generated.summary["mean_rmse"]


def test_what_is_printed_is_what_the_summary_tells(generated: Finished) -> None:
    summary, printed = generated.summary, generated.stdout
    for label, key in (("rows read", "rows_read"), ("rows kept", "rows_kept")):
        assert re.search(rf"^  {label} +{summary[key]:,}\b", printed, re.MULTILINE)
    for label, key in (("model .train.", "test_rmse"), ("mean", "mean_rmse")):
        assert re.search(rf"^  {label} +{summary[key]:.4f}\b", printed, re.MULTILINE)
    assert len(set(generated.recommended)) > 1
    assert not any(title.startswith("B0") for title in generated.recommended)
    assert f"--state {summary['state']}" in printed


def test_a_run_stops_the_services_that_it_started(
    generated: Finished, generated_state: Path
) -> None:
    status = recsys_assets("services", "status", "--state", generated_state)
    assert (status.returncode, status.stdout) == (1, "not running\n")


def test_no_file_but_the_two_of_the_services_holds_a_secret(
    generated: Finished, generated_state: Path
) -> None:
    stored = json.loads((generated_state / "services" / "credentials.json").read_text())
    files = [path for path in generated_state.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files)
    holders = {path.name for path in files if stored["secret"].encode() in path.read_bytes()}
    assert holders == {"credentials.json"}  # services.json is there while they run
    assert stored["secret"] not in generated.stdout


@dataclass
class Reviews:
    """A file of reviews, and what a run on it has made."""

    written: GeneratedReviews
    run: Finished
    filtered: str


@pytest.fixture(scope="module")
def amazon(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Reviews:
    folder = tmp_path_factory.mktemp("amazon")
    written = generate_amazon_reviews(
        folder / "amazon_reviews_us_Digital_Video_v1_00.tsv.gz", rows=12_000, seed=5, body_words=3
    )
    run = finished(state, folder / "summary.json", "--ratings", written.path)
    return Reviews(written, run, content_hash(state, "filtered_ratings"))


def test_amazon_reviews_become_recommendations_by_title(amazon: Reviews) -> None:
    summary = amazon.run.summary
    assert summary["rows_read"] == amazon.written.rows
    assert summary["rows_rejected"] == amazon.written.malformed_rows
    assert amazon.written.oracle_rmse < summary["test_rmse"] < summary["mean_rmse"]
    with gzip.open(amazon.written.path, "rt", errors="replace") as lines:
        titles = {fields[5] for fields in (line.split("\t") for line in lines) if len(fields) == 15}
    assert set(amazon.run.recommended) <= titles


@pytest.mark.parametrize("as_folder", [False, True], ids=["one object", "two below a prefix"])
def test_ratings_in_s3_are_the_same_ratings(
    state: Path, amazon: Reviews, tmp_path: Path, as_folder: bool
) -> None:
    s3, path = client(state, "s3"), amazon.written.path
    if as_folder:
        header, *lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        for number, part in enumerate((lines[:5_000], lines[5_000:])):
            body = gzip.compress(header + b"".join(part))
            s3.put_object(Bucket="recsys", Key=f"landed/parts/{number}.tsv.gz", Body=body)
        # An earlier and longer name beside the folder, which is no part of it.
        s3.put_object(Bucket="recsys", Key="landed/parts-of-others/0.tsv.gz", Body=b"not ours")
        url = "s3://recsys/landed/parts"
    else:
        s3.upload_file(str(path), "recsys", f"landed/{path.name}")
        url = f"s3://recsys/landed/{path.name}"
    config = write_config(tmp_path / "config.yaml", model_training=ONE_EPOCH)
    run = finished(state, tmp_path / "summary.json", "--ratings", url, "--config", config)
    for key in ("rows_read", "rows_rejected", "rows_kept", "customers", "videos"):
        assert run.summary[key] == amazon.run.summary[key]
    assert content_hash(state, "filtered_ratings") == amazon.filtered
    services_of(state)  # a run leaves services alone that it has found running


@pytest.mark.parametrize(
    ("folder", "rows", "title"),
    [("movietweetings", 141_695, r".+ \(\d{4}\)"), ("ml-100k", 100_000, r".+ \(\d{4}\)|unknown")],
)
def test_real_ratings_give_a_model_better_than_the_mean(
    state: Path,
    real_data: Callable[[str], Path],
    tmp_path: Path,
    folder: str,
    rows: int,
    title: str,
) -> None:
    run = finished(state, tmp_path / "summary.json", "--ratings", real_data(folder))
    summary = run.summary
    assert summary["rows_read"] == rows
    assert summary["rows_rejected"] == 0
    assert max(summary["test_rmse"], summary["bias_rmse"]) < 0.95 * summary["mean_rmse"]
    assert all(re.fullmatch(title, name) for name in run.recommended)


def test_tuning_makes_tuned_model_in_place_of_fm_model(state: Path, tmp_path: Path) -> None:
    tuning = {
        "max_jobs": 3,
        "ranges": {
            "epochs": {"min": 5, "max": 20, "integer": True},
            "factors_lr": {"min": 0.001, "max": 0.02, "scaling": "Logarithmic"},
        },
    }
    config = write_config(
        tmp_path / "config.yaml",
        raw_ratings={"generated_rows": 10_000},
        model_training={"mode": "tune", "tuning": tuning},
    )
    run = finished(state, tmp_path / "summary.json", "--config", config)
    assert run.summary["mode"] == "tune"
    assert run.summary["seconds"].keys() == MADE_IN_EVERY_MODE | {"tuned_model"}
    assert 5 <= int(run.summary["hyperparameters"]["epochs"]) <= 20
    assert "model (tune)" in run.stdout
    listed = client(state, "sagemaker").list_hyper_parameter_tuning_jobs()
    (job,) = listed["HyperParameterTuningJobSummaries"]
    counters = job["TrainingJobStatusCounters"]
    assert counters["Completed"] == 3
    assert sum(counters.values()) == 3
    assert len(run.recommended) == 10
