"""Tasks of an exported graph, each a process of its own, on the real local services."""

import json
import signal
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from recsys_assets.cli import cli
from recsys_assets.definitions import build_resources
from recsys_assets.resources.sagemaker import Run, SageMaker, Training
from recsys_assets.services.record import Services
from recsys_assets.settings import Settings
from recsys_assets_tests.main_job.command import Done, Started, client, exported, recsys_assets
from recsys_assets_tests.proxy import Proxy
from recsys_assets_tests.sagemaker_local.endpoint import eventually

pytestmark = pytest.mark.xdist_group("export_task")

RUN_ID = str(uuid.uuid4())
PREFIX = "of-tasks"
# A training of long epochs: each is told and tracked, again by a task that finds it running.
PARAMS = {
    "raw_ratings__generated_rows": 2_000,
    "filtered_ratings__min_ratings_per_customer": 2,
    "filtered_ratings__min_ratings_per_video": 2,
    "model_training__mode": "tune",
    "model_training__hyperparameters__num_factors": 1_000,
    "model_training__hyperparameters__epochs": 1_000_000,
    "model_training__hyperparameters__mini_batch_size": 1,
    "deploy": False,
}

Task = Callable[..., Done]


@pytest.fixture(scope="module")
def environment(settings: Settings) -> dict[str, str]:
    return {
        "RECSYS_STATE": str(settings.state),
        "RECSYS_PREFIX": PREFIX,
        "RECSYS_TASK_PARAMS": json.dumps(PARAMS),
    }


@pytest.fixture(scope="module")
def task(environment: dict[str, str]) -> Task:
    """Return what runs a task to its end."""

    def run(*words: str, run: str = RUN_ID, **variables: str) -> Done:
        return recsys_assets("task", *words, "--run", run, **{**environment, **variables})

    return run


@pytest.fixture(scope="module")
def clients(settings: Settings, services: Services) -> Callable[[str], Any]:
    return partial(client, settings.state)


@pytest.fixture(scope="module")
def features(task: Task) -> dict[str, dict[str, Any]]:
    """What two tasks tell of all assets up to the features."""
    return made_features(task)


def made_features(task: Task, **variables: str) -> dict[str, dict[str, Any]]:
    first = task("run", "raw_ratings", **variables)
    rest = ["filtered_ratings", "sparse_matrix"]
    rest += [f"protobuf_{split}" for split in ("train", "validate", "test")]
    return result(first) | result(task("run", *rest, **variables))


def result(done: Done) -> dict[str, Any]:
    """Return what a task has told, which must be the only line on stdout."""
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def sentence(done: Done) -> str:
    """Return the last line of a task that has failed; nothing may be on stdout."""
    assert done.returncode != 0
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("recsys-assets: "), done.stderr
    return last.removeprefix("recsys-assets: ")


def test_a_task_tells_where_its_assets_lie_and_what_is_known_of_them(
    features: dict[str, dict[str, Any]], clients: Callable[[str], Any]
) -> None:
    assert features["raw_ratings"]["rows_read"] == PARAMS["raw_ratings__generated_rows"]
    sizes = {name: told["rows"] for name, told in features.items()}
    splits = sum(sizes[f"protobuf_{split}"] for split in ("train", "validate", "test"))
    assert splits == sizes["sparse_matrix"] == sizes["filtered_ratings"] > 500
    matrix, train = features["sparse_matrix"], features["protobuf_train"]
    assert train["feature_dim"] == matrix["feature_dim"] == matrix["customers"] + matrix["videos"]
    for name, told in features.items():
        assert told["uri"] == f"s3://recsys/{PREFIX}/{name}/{RUN_ID}/data/"
        key = told["uri"].removeprefix("s3://recsys/").replace("data/", "manifest.json")
        manifest = json.loads(clients("s3").get_object(Bucket="recsys", Key=key)["Body"].read())
        assert manifest["content_hash"] == told["content_hash"]


def test_checks_that_block_are_a_result_and_no_failure(
    task: Task, features: dict[str, Any], clients: Callable[[str], Any]
) -> None:
    strict = {**PARAMS, "raw_ratings_checks__missing_share__warn": -1}
    strict["raw_ratings_checks__duplicate_share__error"] = -1
    uri = f"s3://recsys/{PREFIX}/tasks/{RUN_ID}/raw_ratings_checks.json"
    done = task("check", "raw_ratings", "--result-uri", uri, RECSYS_TASK_PARAMS=json.dumps(strict))
    found = result(done)
    assert not found["passed"]
    verdicts = {
        name: (check["passed"], check["severity"]) for name, check in found["checks"].items()
    }
    assert verdicts == {
        "raw_ratings:rejected_share": (True, "WARN"),
        "raw_ratings:missing_share": (False, "WARN"),
        "raw_ratings:most_frequent_rating_share": (True, "WARN"),
        "raw_ratings:duplicate_share": (False, "ERROR"),
    }
    assert "rated before" in found["checks"]["raw_ratings:duplicate_share"]["description"]
    key = uri.removeprefix("s3://recsys/")
    body = clients("s3").get_object(Bucket="recsys", Key=key)["Body"].read()
    assert json.loads(body) == found


def test_config_that_does_not_fit_is_one_sentence_and_not_worth_another_try(task: Task) -> None:
    params = {"raw_ratings__generated_rows": "many"}
    done = task("run", "raw_ratings", RECSYS_TASK_PARAMS=json.dumps(params))
    assert sentence(done).startswith("the config of raw_ratings does not fit: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ("[1]", "RECSYS_TASK_PARAMS: expected a JSON object, got [1]"),
        ("{", "RECSYS_TASK_PARAMS is not JSON: "),
    ],
)
def test_parameters_that_are_none_are_told(params: str, told: str) -> None:
    words = ["task", "run", "raw_ratings", "--run", RUN_ID]
    done = CliRunner().invoke(cli, words, env={"RECSYS_TASK_PARAMS": params})
    assert done.stderr.startswith(f"recsys-assets: {told}")
    assert done.exit_code == 2


def training_request(
    settings: Settings, features: dict[str, Any], **hyperparameters: str
) -> dict[str, Any]:
    """Return the request of a training on the features, as the platform itself makes it."""
    sagemaker: SageMaker = build_resources(settings)["sagemaker"]
    dimension = str(features["protobuf_train"]["feature_dim"])
    training = Training(
        {
            "feature_dim": dimension,
            "num_factors": "2",
            "predictor_type": "regressor",
            **hyperparameters,
        },
        features["protobuf_train"]["uri"],
        features["protobuf_validate"]["uri"],
        f"s3://recsys/{PREFIX}/fm_model/{RUN_ID}/jobs",
    )
    run = Run(RUN_ID, RUN_ID, "fm_model")
    return sagemaker.requests().training(sagemaker.training, training, run)


def test_a_training_that_was_created_becomes_the_model_that_was_chosen(
    task: Task, settings: Settings, features: dict[str, Any], clients: Callable[[str], Any]
) -> None:
    name = f"fm-model-{RUN_ID[:8]}-0a0a0a0a"
    request = training_request(settings, features, epochs="2")
    clients("sagemaker").create_training_job(TrainingJobName=name, **request)
    created = ["--created", "fm_model", "sagemaker_training", name]
    other = ["--created", "tuned_model", "sagemaker_tuning", ""]
    made = result(task("run", "selected_model", *created, *other))
    assert made.keys() == {"fm_model", "selected_model"}
    assert made["selected_model"]["selected"] == "fm_model"
    assert made["selected_model"]["training_job"] == name
    described = clients("sagemaker").describe_training_job(TrainingJobName=name)
    artefact = described["ModelArtifacts"]["S3ModelArtifacts"]
    assert made["selected_model"]["artefact"] == artefact
    metrics = {item["MetricName"]: item["Value"] for item in described["FinalMetricDataList"]}
    assert made["fm_model"]["validate_rmse"] == pytest.approx(metrics["test:rmse"])
    jobs = clients("sagemaker").list_training_jobs(NameContains=f"-{RUN_ID[:8]}-")
    assert [job["TrainingJobName"] for job in jobs["TrainingJobSummaries"]] == [name]


@pytest.mark.slow
def test_a_task_that_is_killed_leaves_its_job_which_the_next_one_finds(
    task: Task,
    environment: dict[str, str],
    services: Services,
    proxy: Proxy,
    clients: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    sagemaker = clients("sagemaker")
    params = {"RECSYS_TASK_PARAMS": json.dumps({**PARAMS, "raw_ratings__generated_rows": 40_000})}
    run_id = str(uuid.uuid4())
    made_features(task, run=run_id, **params)
    (tmp_path / "sagemaker.yaml").write_text("poll_seconds: 0.2")
    on_aws = {
        **environment,
        **params,
        **exported(services),
        **proxy.environment(),
        "RECSYS_ENV": "aws",
        "RECSYS_SAGEMAKER_CONFIG": str(tmp_path / "sagemaker.yaml"),
    }

    def started(folder: str) -> Started:
        words = ["task", "run", "fm_model", "--run", run_id]
        process = Started(tmp_path / folder, *words, **on_aws)
        eventually(lambda: "epoch 1" in (tmp_path / folder / "stderr").read_text(), seconds=120)
        return process

    first = started("first")
    first.process.send_signal(signal.SIGTERM)
    done = first.ended()
    assert (done.returncode, sentence(done)) == (1, "interrupted")
    (created,) = proxy.seen("CreateTrainingJob")
    name = created.content["TrainingJobName"]
    described = sagemaker.describe_training_job(TrainingJobName=name)
    assert described["TrainingJobStatus"] == "InProgress"
    assert proxy.seen("StopTrainingJob") == []

    second = started("second")
    sagemaker.stop_training_job(TrainingJobName=name)
    done = second.ended()
    assert sentence(done) == f"{name} ended as Stopped: no reason given"
    assert "#quality_metric" in done.stderr.partition("log: ")[2]  # the end of the job's log
    assert done.returncode == 2
    assert len(proxy.seen("CreateTrainingJob")) == 1


def test_cleaning_up_stops_what_a_run_has_left(
    task: Task, settings: Settings, features: dict[str, Any], clients: Callable[[str], Any]
) -> None:
    run_id = str(uuid.uuid4())
    name = f"fm-model-{run_id[:8]}-1"
    request = training_request(settings, features, epochs="10000000")
    clients("sagemaker").create_training_job(TrainingJobName=name, **request)
    done = task("clean-up", run=run_id)
    assert result(done) == {"stopped": [name], "deleted": []}
    assert f"stopped training job {name}" in done.stderr.splitlines()
    described = clients("sagemaker").describe_training_job(TrainingJobName=name)
    assert described["TrainingJobStatus"] in ("Stopping", "Stopped")


FOREIGN = """
import os
from dagster import *

@asset
def talks():
    print("printed by Python")
    os.system("echo printed by a program")
    return Output(None, metadata={"n": 1, "text": "t", "path": MetadataValue.path("/p"),
        "url": MetadataValue.url("https://a.example"), "yes": True, "nan": float("nan"),
        "table": MetadataValue.md("| a |"), "json": {"a": 1}})

defs = Definitions(assets=[talks])
"""


def test_what_other_definitions_print_stays_off_stdout(task: Task, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text(FOREIGN)
    done = task("run", "talks", "--definitions", "elsewhere:defs", PYTHONPATH=str(tmp_path))
    told = {"n": 1, "text": "t", "path": "/p", "url": "https://a.example", "yes": True}
    assert result(done)["talks"].items() >= told.items()
    assert result(done)["talks"].keys().isdisjoint({"nan", "table", "json"})
    assert "printed by Python" in done.stderr
    assert "printed by a program" in done.stderr
