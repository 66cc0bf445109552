"""Real Spark, on this machine, makes of ratings exactly what DuckDB makes.

``RECSYS_TEST_SPARK_ROWS`` sets how many ratings are generated (120,000; the published set has
4,057,147). The tests need Java 17.
"""

import hashlib
import itertools
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from dagster import DagsterInstance, ExecuteInProcessResult, materialize

from recsys_assets.assets.ratings import filtered_ratings, raw_ratings
from recsys_assets.definitions import build_resources
from recsys_assets.domain.ratings.filtering import filter_ratings
from recsys_assets.domain.ratings.generating import generate_amazon_reviews
from recsys_assets.domain.ratings.parts import join_parts
from recsys_assets.domain.ratings.reading import read_ratings
from recsys_assets.domain.ratings.transformation import FilterRules, NothingLeftError
from recsys_assets.settings import Settings
from recsys_assets_tests.conftest import PROJECT
from recsys_assets_tests.contract.environments import PYSPARK, NoInterpreterError
from recsys_assets_tests.domain.literal_ratings import write_ratings
from recsys_assets_tests.spark.cloud import Cloud, Deployment, Parameters
from recsys_assets_tests.spark.test_spark_on_aws import (
    APPLICATION,
    EMR,
    GLUE,
    STARTED,
    emr_parameters,
    emr_state,
    glue_state,
    reason,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark")]

ROWS = int(os.environ.get("RECSYS_TEST_SPARK_ROWS", 120_000))
MEMORY = "1g" if ROWS < 1_000_000 else "3g"
LOCAL = {
    "spark.master": "local[2]",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": MEMORY,
    "spark.ui.enabled": "false",
    "spark.log.level": "WARN",
}
# A pipe and a backslash are what the split's hash escapes, the rest is what SQL, Spark's literals
# and UTF-16 would stumble over.
ODD_IDS = ["a|b", r"a\|b", "a\\", "'", '"', r"a'b\'c", "🎬", "\uffee", "é", "e\u0301", " a", "a "]


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of PySpark's environment, which is kept for the next time."""
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("needs Java 17")
    try:
        return PYSPARK.python
    except (NoInterpreterError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs an environment with {', '.join(PYSPARK.requirements)}: {error}")


def submit(
    python: Path, arguments: Sequence[str | Path], conf: dict[str, str], **variables: str
) -> None:
    """Run spark-submit to its end."""
    options = [word for item in {**LOCAL, **conf}.items() for word in ("--conf", "=".join(item))]
    done = subprocess.run(
        [python.parent / "spark-submit", *options, *arguments],
        env={**os.environ, "PYSPARK_PYTHON": str(python), **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def odd_rows() -> list[tuple[Any, ...]]:
    """Ratings of odd ids, pairs rated twice in every way, some without a title or a date."""
    rows: list[tuple[Any, ...]] = []
    for number, (customer, video) in enumerate(itertools.product(ODD_IDS, ODD_IDS)):
        if number % 7 == 3 or number // len(ODD_IDS) + number % len(ODD_IDS) > 14:
            continue  # the higher a place in the list, the fewer ratings
        day = None if number % 5 == 0 else number % 90
        title = None if number % 3 == 0 else f"{video}: it's \\ {'FILM' * (number % 2)}"
        rows.append((customer, video, 1.0 + number % 5, day, f"R{number}", title))
        if number % 4 == 0:  # an earlier and a later one, and one without a date
            rows.append((customer, video, 5.0, 50, f"R{number}x", title))
            rows.append((customer, video, 4.0, None, f"R{number}y", None))
        if number % 6 == 0:  # the same but for the review's id, and the same but for the rating
            rows.append((customer, video, 2.0, day, f"S{number}", title))
            rows.append((customer, video, 3.0, day, f"S{number}", title))
            rows.append((customer, video, 3.0, day, None, title))
    rows += [("rare", ODD_IDS[0], 3.0, 1, "R", "t"), (ODD_IDS[0], "rare", 3.0, 1, "R", "t")]
    return rows


def rows_of(path: Path) -> tuple[list[tuple[str, str]], int, str]:
    """Return columns with their types, number and hash of the rows, in their order."""
    digest, count = hashlib.sha256(), 0
    with duckdb.connect() as db:
        columns = db.execute("DESCRIBE FROM read_parquet(?)", [str(path)]).fetchall()
        rows = db.execute("FROM read_parquet(?)", [str(path)])
        while batch := rows.fetchmany(10_000):
            count += len(batch)
            digest.update("\n".join(map(repr, batch)).encode())
    return [(name, kind) for name, kind, *_ in columns], count, digest.hexdigest()


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of checked ratings: of a generated file with bad lines, and odd ones."""
    folder = tmp_path_factory.mktemp("ratings")
    generate_amazon_reviews(folder / "reviews.tsv.gz", rows=ROWS, seed=20)
    report = read_ratings(folder / "reviews.tsv.gz", folder / "generated")
    assert report.rows_rejected > ROWS // 10_000
    (folder / "odd").mkdir()
    odd = odd_rows()
    write_ratings(folder / "odd" / "ratings-0.parquet", odd[:100])
    write_ratings(folder / "odd" / "ratings-1.parquet", odd[100:])
    (folder / "none").mkdir()
    write_ratings(folder / "none" / "ratings.parquet", [])
    return folder


CASES = {
    "generated": ("generated", FilterRules()),
    "generated core": ("generated", FilterRules(k_core=True, seed=3)),
    "odd": ("odd", FilterRules(3, 3)),
    "odd core": ("odd", FilterRules(6, 6, k_core=True, train_share=0.5, validate_share=0.25)),
    "nothing left": ("odd", FilterRules(min_ratings_per_video=1000)),
    "no ratings": ("none", FilterRules()),
    "no core": ("odd", FilterRules(13, 13, k_core=True)),
}
NOTHING_LEFT = {"nothing left", "no core", "no ratings"}


@pytest.fixture(scope="module")
def by_spark(
    python: Path, ratings: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Return a folder in which Spark has filtered each case, and what it has reported of it."""
    folder = tmp_path_factory.mktemp("spark")
    cases = [
        {
            "ratings": [  # a step passes no file that has no row
                str(path)
                for path in sorted((ratings / source).glob("ratings*.parquet"))
                if pq.read_metadata(path).num_rows
            ],
            "scratch": str(folder / name),
            "rules": asdict(rules),
        }
        for name, (source, rules) in CASES.items()
    ]
    (folder / "cases.json").write_text(json.dumps(cases))
    program = Path(__file__).with_name("spark_program.py")
    arguments = [program, folder / "cases.json", folder / "reports.json"]
    submit(python, arguments, {"spark.local.dir": str(folder)}, PYTHONPATH=str(PROJECT))
    reports = json.loads((folder / "reports.json").read_text())
    return folder, dict(zip(CASES, reports, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_both_engines_keep_the_same_rows_in_the_same_order(
    name: str, ratings: Path, by_spark: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, reports = by_spark
    source, rules = CASES[name]
    by_duckdb = tmp_path / "duckdb.parquet"
    try:
        report = filter_ratings(ratings / source / "ratings*.parquet", by_duckdb, rules)
    except NothingLeftError as error:
        assert reports[name] == str(error)
        assert name in NOTHING_LEFT
        return
    assert reports[name] == asdict(report)
    joined = tmp_path / "spark.parquet"
    parts = sorted((folder / name / "filtered").glob("*.parquet"))
    assert join_parts(parts, joined) == report.rows_kept
    assert rows_of(joined) == rows_of(by_duckdb)


def test_the_cases_hold_what_they_are_for() -> None:
    rows = odd_rows()
    pairs = Counter((row[0], row[1]) for row in rows)
    assert max(pairs.values()) > 4
    assert {None} < {row[3] for row in rows}
    assert {None} < {row[5] for row in rows}


def test_filtered_ratings_are_the_same_with_a_spark_of_this_machine(
    python: Path, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "spark.yaml").write_text(f"local: {{python: {python}}}")
    found = {}
    for name, file in (("duckdb", None), ("spark", tmp_path / "spark.yaml")):
        own = Settings(**{**vars(settings), "prefix": f"real-{name}", "spark_config": file})
        resources = build_resources(own)
        with DagsterInstance.ephemeral() as instance:
            result = materialize(
                [raw_ratings, filtered_ratings],
                resources=resources,
                run_config={"ops": {"raw_ratings": {"config": {"generated_rows": 20_000}}}},
                instance=instance,
            )
        store = resources["store"]
        version = store.require("filtered_ratings")
        store.fetch(version, tmp_path / name)
        facts = shown(result)
        found[name] = (rows_of(tmp_path / name / "data.parquet"), facts, version.facts)
        names = [item.name.partition("/")[2] for item in store.objects("filtered_ratings")]
        assert sorted(names) == ["", "data/data.parquet", "manifest.json"]
    assert found["spark"] == found["duckdb"]


def test_a_spark_of_this_machine_that_is_not_there_is_told(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "spark.yaml").write_text(f"local: {{python: {tmp_path / 'python'}}}")
    own = {"prefix": "real-none", "spark_config": tmp_path / "spark.yaml"}
    with DagsterInstance.ephemeral() as instance:
        result = materialize(
            [raw_ratings, filtered_ratings],
            resources=build_resources(Settings(**{**vars(settings), **own})),
            run_config={"ops": {"raw_ratings": {"config": {"generated_rows": 1000}}}},
            instance=instance,
            raise_on_error=False,
        )
    assert reason(result).startswith(f"expected PySpark 3.5 beside {tmp_path / 'python'}, found no")


class Bucket:
    """A deployment's objects as files, which Spark sees as S3."""

    def __init__(self, world: Deployment, folder: Path) -> None:
        self._world, self._folder = world, folder
        self._prefix = world.settings.prefix

    def fetch(self) -> None:
        for uri in self._world.store.list(self._world.store.uri("")):
            path = self._path(uri)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._world.store.download(uri, path)

    def store(self) -> None:
        for path in self._folder.rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                key = f"{self._prefix}/{path.relative_to(self._folder)}"
                self._world.store.client.upload_file(str(path), self._world.store.bucket, key)

    @property
    def conf(self) -> dict[str, str]:
        """Settings by which Hadoop takes the folder for what is below the prefix in S3."""
        table = f"spark.hadoop.fs.viewfs.mounttable.{self._world.store.bucket}"
        return {
            "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme",
            f"{table}.link./{self._prefix}": self._folder.as_uri(),
        }

    def _path(self, uri: str) -> Path:
        return self._folder / uri.removeprefix(self._world.store.uri("") + "/")


@pytest.mark.parametrize("service", ["EMR Serverless", "Glue"])
def test_what_is_submitted_to_aws_runs_as_it_is_submitted(
    service: str, python: Path, deployment: Callable[[str], Deployment], tmp_path: Path
) -> None:
    world = deployment(EMR if service == "EMR Serverless" else GLUE)
    bucket = Bucket(world, tmp_path / "bucket")

    def run_on_emr(request: Parameters) -> None:
        asked = request["jobDriver"]["sparkSubmit"]
        options = asked["sparkSubmitParameters"].split()
        bucket.fetch()
        # What EMR makes of these settings is the environment of the driver.
        submit(python, [*options, asked["entryPoint"]], bucket.conf, **emr_parameters(request))
        bucket.store()

    def run_on_glue(request: Parameters) -> None:
        arguments = dict(request["Arguments"])
        options = ["--py-files", arguments.pop("--extra-py-files")]
        options += ["--conf", *arguments.pop("--conf").split()]
        script = arguments.pop("--scriptLocation")
        bucket.fetch()
        rest = [word for item in arguments.items() for word in item]
        submit(python, [*options, script, *rest], bucket.conf)
        bucket.store()

    if service == "Glue":
        states = [
            ("start_job_run", {"JobRunId": "jr_1"}),
            *map(glue_state, ["RUNNING", "SUCCEEDED"]),
        ]
        cloud = Cloud(states, run_on_glue)
    else:
        application = ("get_application", {"application": APPLICATION})
        states = [("start_job_run", STARTED), emr_state("SUCCESS"), application]
        cloud = Cloud(states, run_on_emr)
    assert world.run(cloud).success
    assert world.objects("filtered_ratings") == ["", "data/data.parquet", "manifest.json"]
    assert world.rows() == world.rows_without_spark()


def shown(result: ExecuteInProcessResult) -> dict[str, Any]:
    """Return the counts that filtered_ratings shows."""
    (event,) = (e for e in result.get_asset_materialization_events() if "filtered" in e.step_key)
    metadata = event.step_materialization_data.materialization.metadata
    counts = {name: item.value for name, item in metadata.items() if isinstance(item.value, int)}
    del counts["bytes"]  # of a file whose rows are the same, but not its bytes
    return counts
