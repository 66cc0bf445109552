"""`recsys-assets run` as a person uses it: what comes out, mistakes, and interruptions."""

import gzip
import json
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recsys_assets.domain.ratings.generating import GeneratedReviews, generate_amazon_reviews
from recsys_assets.services.clients import isolated_session
from recsys_assets.services.record import Services, read_services
from recsys_assets_tests.main_job.command import (
    Started,
    only_sentence,
    recsys_assets,
    write_config,
)
from recsys_assets_tests.sagemaker_local.endpoint import eventually

pytestmark = pytest.mark.xdist_group("main_job")

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
KEEP_ALMOST_ALL = {"min_ratings_per_customer": 2, "min_ratings_per_video": 2}
ONE_EPOCH = {"hyperparameters": {"epochs": 1, "num_factors": 2}}
HOURS = {"hyperparameters": {"epochs": 1_000_000, "num_factors": 100, "mini_batch_size": 10}}


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
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder that runs share, with services that are there before and after each."""
    folder = tmp_path_factory.mktemp("main_job") / "state"
    assert recsys_assets("services", "start", "--state", folder).returncode == 0
    yield folder
    recsys_assets("services", "stop", "--state", folder)


def services_of(state: Path) -> Services:
    found = read_services(state)
    assert found is not None
    assert found.alive
    return found


def client(state: Path, service: str) -> Any:
    found = services_of(state)
    session = isolated_session(found.access_key_id, found.secret_access_key, found.region)
    url = found.s3_url if service == "s3" else found.sagemaker_url
    return session.client(service, endpoint_url=url)


def content_hash(state: Path, asset: str) -> str:
    body = client(state, "s3").get_object(Bucket="recsys", Key=f"{asset}/current.json")["Body"]
    return str(json.loads(body.read())["content_hash"])


# --------------------------------------------------------------------------- what comes out


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


# --------------------------------------------------------------------------- mistakes


def mistake(state: Path, *options: str | Path) -> str:
    return only_sentence(recsys_assets("run", "--state", state, *options))


@pytest.mark.parametrize("ratings", ["nowhere.csv", "no/folder/", "s3:/typo/in/the/url"])
def test_a_source_that_is_not_there_is_told(state: Path, tmp_path: Path, ratings: str) -> None:
    given = tmp_path / ratings if "s3:" not in ratings else ratings
    assert mistake(state, "--ratings", given) == f"there is no file or folder {given}"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://recsys/nothing/here", "There is neither an object s3://recsys/nothing/here"),
        ("s3://no-such-bucket/ratings.csv", "The specified bucket does not exist"),
    ],
)
def test_an_object_that_is_not_there_is_told(state: Path, url: str, reason: str) -> None:
    said = mistake(state, "--ratings", url)
    assert said.startswith("raw_ratings failed: ")
    assert reason in said


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a,b,c\n1,2,3\n", "it begins with 'a,b,c'"),
        (
            b"customer_id,video_id,stars\n1,2,3\n",
            "needs the column rating; it has customer_id, video_id, stars",
        ),
        (b"", "it is empty"),
        (b"customer_id,video_id,rating\n", "got a header and no rows"),
        (b"\x1f\x8b\x08 no gzip at all", "corrupt gzip"),
    ],
    ids=["unknown columns", "a missing column", "empty", "only a header", "broken gzip"],
)
def test_a_file_that_holds_no_ratings_is_told(
    state: Path, tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "ratings.csv"
    path.write_bytes(content)
    said = mistake(state, "--ratings", path)
    assert said.startswith(f"raw_ratings failed: cannot read {path}")
    assert reason in said


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("ops: [1", "config.yaml is not YAML"),
        ("- a\n- b", "expected a mapping such as `ops: ...`, got ['a', 'b']"),
        ("ops: \xff\xfe", "config.yaml is not YAML"),
        ("ops: {nonsense: {config: {}}}", '"nonsense" at path root:ops. Expected: batch_pred'),
        (
            "ops: {raw_ratings: {config: {generated_row: 5}}}",
            '"generated_row" at path root:ops:raw_ratings:config. Expected: columns, format, ',
        ),
        (
            "ops: {raw_ratings: {config: {generated_rows: many}}}",
            'generated_rows. Value "many" of type "<class \'str\'>" is not valid for expected ',
        ),
        (
            "ops: {raw_ratings: {config: {generated_rows: 5}}}",
            "generated_rows Input should be greater than or equal to 1000",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_told(
    state: Path, tmp_path: Path, content: str, reason: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content.encode("latin-1"))
    said = mistake(state, "--config", path)
    assert reason in said
    assert len(said) < 400


def test_options_and_a_config_that_cannot_be_joined_are_told(state: Path, tmp_path: Path) -> None:
    config, ratings = tmp_path / "config.yaml", tmp_path / "ratings.csv"
    config.write_text("ops: {raw_ratings: nothing}")
    ratings.touch()
    said = mistake(state, "--config", config, "--ratings", ratings)
    assert said == f"{config}: expected a mapping as value of `raw_ratings`, got 'nothing'"


def test_options_that_do_not_exist_show_the_usage(state: Path, tmp_path: Path) -> None:
    for options in (["--rating", "x"], ["--config", str(tmp_path / "absent")], ["--format", "x"]):
        done = recsys_assets("run", "--state", state, *options)
        assert done.returncode == 2
        assert done.stderr.startswith("Usage: ")
        assert "Traceback" not in done.stderr


def test_a_filter_that_leaves_nothing_is_told(state: Path, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "config.yaml",
        raw_ratings={"generated_rows": 1_000},
        filtered_ratings={"min_ratings_per_customer": 900},
    )
    said = mistake(state, "--config", config)
    assert said.startswith("filtered_ratings failed: none of ")
    assert "at least 900" in said


def test_a_data_check_that_fails_stops_the_run(state: Path, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "config.yaml",
        raw_ratings={"generated_rows": 4_000},
        raw_ratings_checks={"rejected_share": {"error": 0.0}},
    )
    before = content_hash(state, "raw_ratings")
    said = mistake(state, "--config", config)
    assert said == "raw_ratings_checks failed: rejected_share: 2 of 4,000 lines put aside"
    assert content_hash(state, "raw_ratings") != before
    newest = client(state, "s3").get_object(Bucket="recsys", Key="filtered_ratings/current.json")
    assert (
        newest["LastModified"]
        < client(state, "s3").get_object(Bucket="recsys", Key="raw_ratings/current.json")[
            "LastModified"
        ]
    )


# --------------------------------------------------------------------------- interruptions


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """Run config of a training that takes hours."""
    return write_config(
        tmp_path / "endless.yaml",
        raw_ratings={"generated_rows": 2_000},
        filtered_ratings=KEEP_ALMOST_ALL,
        model_training=HOURS,
    )


def test_a_second_run_on_a_state_folder_is_refused(
    state: Path, endless: Path, tmp_path: Path
) -> None:
    first = Started(tmp_path, "run", "--state", state, "--config", endless)
    first.wait_until_it_says("raw_ratings")
    said = mistake(state)
    assert said == f"another run is at work in {state}; wait for it or give another --state"
    assert first.process.poll() is None
    first.process.send_signal(signal.SIGINT)
    assert only_sentence(first.ended()) == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_is_stopped_and_running_services_go_on(
    state: Path, endless: Path, tmp_path: Path, number: signal.Signals
) -> None:
    before = services_of(state)
    run = Started(tmp_path, "run", "--state", state, "--config", endless)
    run.wait_until_it_says("epoch 1")
    run.process.send_signal(number)
    assert only_sentence(run.ended()) == "interrupted"

    assert services_of(state) == before
    job = newest_training_job(state)
    assert job.startswith("fm-model-")
    eventually(lambda: status_of(state, job) == "Stopped")
    assert tracked_status(state, job) == "KILLED"
    assert "STARTED" not in dagster_statuses(state)


def newest_training_job(state: Path) -> str:
    jobs = client(state, "sagemaker").list_training_jobs(SortOrder="Descending")
    return str(jobs["TrainingJobSummaries"][0]["TrainingJobName"])


def status_of(state: Path, job: str) -> str:
    description = client(state, "sagemaker").describe_training_job(TrainingJobName=job)
    return str(description["TrainingJobStatus"])


def tracked_status(state: Path, job: str) -> str:
    ((status,),) = query(
        state / "mlflow" / "mlflow.db", "SELECT status FROM runs WHERE name = ?", job
    )
    return str(status)


def dagster_statuses(state: Path) -> set[str]:
    path = state / "dagster" / "history" / "runs.db"
    return {status for (status,) in query(path, "SELECT status FROM runs")}


def query(database: Path, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("moment", ["while services start", "while training"])
def test_services_of_an_interrupted_run_end_with_it(
    endless: Path, tmp_path: Path, moment: str
) -> None:
    own = tmp_path / "state"
    run = Started(tmp_path, "run", "--state", own, "--config", endless)
    if moment == "while training":
        run.wait_until_it_says("epoch 1")
        found = services_of(own)
        run.process.send_signal(signal.SIGTERM)
    else:
        eventually((own / "services" / "object_store.log").exists)
        run.process.send_signal(signal.SIGINT)
        found = None
    assert only_sentence(run.ended()) == "interrupted"
    if found is not None:
        assert not any(process.find() for process in (found.supervisor, *found.children))
    status = recsys_assets("services", "status", "--state", own)
    assert (status.returncode, status.stdout) == (1, "not running\n")
