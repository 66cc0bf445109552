"""The exported DAG in a deployment of each Airflow: scheduler, executor and database are real.

The tests share runs, which take minutes; each asks for those that it looks at.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from recsys_assets.definitions import build_resources
from recsys_assets.resources.object_store import ObjectStore
from recsys_assets.services.record import Services
from recsys_assets.settings import Settings
from recsys_assets_tests.export.running import parity
from recsys_assets_tests.export.running.airflow_home import Airflow
from recsys_assets_tests.main_job.command import client, recsys_assets, write_config
from recsys_assets_tests.proxy import Proxy
from recsys_assets_tests.sagemaker_local.endpoint import eventually

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("airflow")]

DAG = "recommender"
FAULTS = "recommender_with_faults"

RATINGS = {"generated_rows": 4_000, "generated_seed": 3}
FILTER = {"min_ratings_per_customer": 2, "min_ratings_per_video": 2, "seed": 1}
HYPERPARAMETERS = {"epochs": 3, "num_factors": 8}
SERVING = {  # whatever the model is like
    "deploy",
    "registered_model_sagemaker_model",
    "registered_model",
    "registered_model_checks",
    "endpoint_config",
    "endpoint_deployment",
    "endpoint",
}


def config(mode: str, **hyperparameters: Any) -> dict[str, Any]:
    """Return config of a run that takes seconds."""
    return {
        "raw_ratings": RATINGS,
        "filtered_ratings": FILTER,
        "model_training": {
            "mode": mode,
            "select": "new",
            "hyperparameters": {**HYPERPARAMETERS, **hyperparameters},
            "tuning": {"max_jobs": 2},
        },
        "recommendations": {"count": 5},
    }


@pytest.fixture(scope="module")
def deployment(airflow: Airflow, export: Callable[..., Path]) -> Iterator[Airflow]:
    """Airflow with the DAGs, which runs for all tests of a module."""
    export(DAG, "--max-active-runs", "2")
    export(FAULTS)
    with airflow.deployed():
        yield airflow


@pytest.fixture(scope="module")
def runs(deployment: Airflow) -> Mapping[str, str]:
    """A run of each branch, by mode, both at once; that of `train` deploys what it has made."""
    anyhow = {"deploy": True, "registered_model_good_enough__margin": 5}
    found = {mode: deployment.own_run_id(mode) for mode in ("tune", "train")}
    deployment.trigger(DAG, found["tune"], parity.params(config("tune")))
    deployment.trigger(DAG, found["train"], {**parity.params(config("train")), **anyhow})
    for run_id in found.values():
        state = deployment.ended(run_id)
        assert state == "success", deployment.states(run_id)
    return found


@pytest.fixture(scope="module")
def sagemaker(settings: Settings, services: Services) -> Any:
    return client(settings.state, "sagemaker")


@pytest.fixture(scope="module")
def store(settings: Settings) -> Iterator[ObjectStore]:
    with build_resources(settings)["store"].process_config_and_initialize_cm() as found:
        yield found


@pytest.fixture(scope="module")
def dagster_runs(
    settings: Settings, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    """The ids of runs of `recsys-assets run` with the same config, by mode."""
    found = {}
    for mode in ("train", "tune"):
        folder = tmp_path_factory.mktemp(mode)
        done = recsys_assets(
            *("run", "--state", settings.state, "--summary", folder / "summary.json"),
            *("--config", write_config(folder / "config.yaml", **config(mode))),
        )
        assert done.returncode == 0, done.stderr
        found[mode] = json.loads((folder / "summary.json").read_text())["run_id"]
    return found


def jobs_of(sagemaker: Any, airflow: Airflow, run_id: str, kind: str) -> list[str]:
    """Return the names of all jobs of a run that SageMaker knows."""
    short = airflow.platform_run_id(run_id)[:8]
    answer = getattr(sagemaker, f"list_{kind}_jobs")(NameContains=short)
    (jobs,) = (value for value in answer.values() if isinstance(value, list))
    return sorted(name for job in jobs for key, name in job.items() if key.endswith("JobName"))


def without_groups(states: Mapping[str, str | None]) -> dict[str, str | None]:
    return {task.rpartition(".")[2]: state for task, state in states.items()}


def test_the_branch_that_was_chosen_is_done_and_the_other_skipped(
    deployment: Airflow, runs: Mapping[str, str]
) -> None:
    other = {"train": "tuned_model", "tune": "fm_model"}
    for mode, run_id in runs.items():
        states = without_groups(deployment.states(run_id))
        skipped = {other[mode]} | (SERVING - {"deploy"} if mode == "tune" else set())
        assert {task for task, state in states.items() if state == "skipped"} == skipped
        assert {state for task, state in states.items() if task not in skipped} == {"success"}


def test_two_runs_at_once_have_jobs_and_results_of_their_own(
    deployment: Airflow, runs: Mapping[str, str], sagemaker: Any, store: ObjectStore
) -> None:
    periods = [deployment.period(run_id) for run_id in runs.values()]
    assert max(began for began, _ in periods) < min(ended for _, ended in periods)
    for mode, run_id in runs.items():
        training = jobs_of(sagemaker, deployment, run_id, "training")
        tuning = jobs_of(sagemaker, deployment, run_id, "hyper_parameter_tuning")
        assert (len(training), len(tuning)) == {"train": (1, 0), "tune": (2, 1)}[mode]
        assert len(jobs_of(sagemaker, deployment, run_id, "transform")) == 1
        for asset in (*parity.SAME_BYTES, *parity.DOCUMENTS):
            parity.version(store, asset, deployment.platform_run_id(run_id))


def test_a_run_that_asks_for_it_brings_the_endpoint_up(
    deployment: Airflow, runs: Mapping[str, str], sagemaker: Any, store: ObjectStore
) -> None:
    made = parity.version(store, "endpoint", deployment.platform_run_id(runs["train"]))
    name = made.facts["content"]["endpoint"]
    endpoint = sagemaker.describe_endpoint(EndpointName=name)
    assert endpoint["EndpointStatus"] == "InService"
    described = sagemaker.describe_endpoint_config(
        EndpointConfigName=endpoint["EndpointConfigName"]
    )
    (variant,) = described["ProductionVariants"]
    assert variant["ModelName"] == made.facts["content"]["sagemaker_model"]


def test_what_a_run_no_longer_needs_is_deleted_and_what_serves_is_not(
    deployment: Airflow, runs: Mapping[str, str], sagemaker: Any, store: ObjectStore
) -> None:
    for run_id in runs.values():
        short = deployment.platform_run_id(run_id)[:8]
        names = [m["ModelName"] for m in sagemaker.list_models(NameContains=short)["Models"]]
        assert [name for name in names if name.startswith("batch-predictions")] == []
    made = parity.version(store, "endpoint", deployment.platform_run_id(runs["train"]))
    sagemaker.describe_model(ModelName=made.facts["content"]["sagemaker_model"])


def test_what_operators_create_bears_the_tags_that_the_policy_asks_for(
    deployment: Airflow, runs: Mapping[str, str], sagemaker_calls: Proxy
) -> None:
    platform_runs = {deployment.platform_run_id(run_id) for run_id in runs.values()}
    created = [call for call in sagemaker_calls.calls if call.action.startswith("Create")]
    assert len({call.action for call in created}) == 6
    for call in created:
        tags = {tag["Key"]: tag["Value"] for tag in call.content.get("Tags", [])}
        assert tags.get("recsys:run-id") in platform_runs, call.action


@pytest.mark.parametrize("mode", ["train", "tune"])
def test_a_dag_run_makes_what_dagster_makes(
    deployment: Airflow,
    runs: Mapping[str, str],
    dagster_runs: Mapping[str, str],
    store: ObjectStore,
    mode: str,
) -> None:
    made = parity.contents(store, deployment.platform_run_id(runs[mode]))
    expected = parity.contents(store, dagster_runs[mode])
    assert made == expected
    assert made["model_evaluation"]["test_rmse"] > 0


@pytest.fixture(scope="module")
def run_with_a_killed_task(deployment: Airflow, sagemaker_calls: Proxy) -> str:
    """A run whose training task is killed while its job runs, and then tried again."""
    sagemaker_calls.calls.clear()
    run_id, task = deployment.own_run_id("killed"), "models.fm_model"
    deployment.trigger(FAULTS, run_id, parity.params(config("train", epochs=400)))
    eventually(lambda: sagemaker_calls.seen("CreateTrainingJob"), seconds=600)
    pid = eventually(lambda: deployment.tasks(run_id)[task].pid)
    created = sagemaker_calls.seen("CreateTrainingJob")
    eventually(lambda: created[0].answered == 200)
    os.kill(pid, signal.SIGKILL)
    assert deployment.ended(run_id) == "success", deployment.states(run_id)
    return run_id


def test_a_killed_task_finds_its_job_again(
    deployment: Airflow, run_with_a_killed_task: str, sagemaker: Any, sagemaker_calls: Proxy
) -> None:
    assert deployment.tasks(run_with_a_killed_task)["models.fm_model"].tries == 2
    assert len(sagemaker_calls.seen("CreateTrainingJob")) == 1
    assert len(jobs_of(sagemaker, deployment, run_with_a_killed_task, "training")) == 1


def test_a_cleared_training_takes_the_job_that_it_has_had(
    deployment: Airflow, run_with_a_killed_task: str, sagemaker: Any, store: ObjectStore
) -> None:
    run_id = run_with_a_killed_task
    platform_run = deployment.platform_run_id(run_id)
    before = parity.contents(store, platform_run)
    jobs = jobs_of(sagemaker, deployment, run_id, "training")
    deployment.clear(FAULTS, "models.fm_model")
    assert deployment.ended(run_id) == "success", deployment.states(run_id)
    assert deployment.tasks(run_id)["models.fm_model"].tries == 3
    assert jobs_of(sagemaker, deployment, run_id, "training") == jobs
    assert parity.contents(store, platform_run) == before


def test_a_run_cleared_from_the_features_on_makes_the_same_again(
    deployment: Airflow, run_with_a_killed_task: str, sagemaker: Any, store: ObjectStore
) -> None:
    run_id = run_with_a_killed_task
    platform_run = deployment.platform_run_id(run_id)
    before = parity.contents(store, platform_run)
    jobs = jobs_of(sagemaker, deployment, run_id, "training")
    tries = deployment.tasks(run_id)
    deployment.clear(FAULTS, "features.sparse_matrix")
    assert deployment.ended(run_id) == "success", deployment.states(run_id)
    again = deployment.tasks(run_id)
    assert again["features.sparse_matrix"].tries == tries["features.sparse_matrix"].tries + 1
    assert again["ratings.filtered_ratings"] == tries["ratings.filtered_ratings"]
    assert jobs_of(sagemaker, deployment, run_id, "training") == jobs  # the same data: no new job
    assert parity.contents(store, platform_run) == before


def test_a_run_marked_as_failed_takes_its_job_with_it(
    deployment: Airflow, sagemaker: Any, sagemaker_calls: Proxy
) -> None:
    sagemaker_calls.calls.clear()
    run_id = deployment.own_run_id("marked")
    deployment.trigger(FAULTS, run_id, parity.params(config("train", epochs=100_000)))
    (created,) = eventually(lambda: sagemaker_calls.seen("CreateTrainingJob"), seconds=600)
    eventually(lambda: created.answered == 200)
    deployment.mark_as_failed(run_id)
    # The run's own state is Airflow's matter: it looks at the last tasks, which are skipped.
    deployment.ended(run_id)
    states = deployment.states(run_id)
    assert states["models.fm_model"] == "failed"
    assert states["clean_up"] == "success"
    job = sagemaker.describe_training_job(TrainingJobName=created.content["TrainingJobName"])
    assert job["TrainingJobStatus"] in ("Stopping", "Stopped")
