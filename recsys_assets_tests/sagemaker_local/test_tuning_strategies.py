"""What each strategy, and early stopping, make of a budget: through the endpoint's processes."""

import itertools
import signal
import sqlite3
from pathlib import Path
from typing import Any

from recsys_assets.sagemaker_local.jobs.search.ranges import parse_ranges
from recsys_assets.sagemaker_local.jobs.search.strategies import Search
from recsys_assets_tests.sagemaker_local.endpoint import Endpoint, eventually

X = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}


def objective(child: dict[str, Any]) -> float:
    value: float = child["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    return value


def tuned(endpoint: Endpoint, name: str) -> list[dict[str, str]]:
    return [child["TunedHyperParameters"] for child in endpoint.children(name)]


def emitted(endpoint: Endpoint, child: dict[str, Any]) -> int:
    """Return for how many epochs a training job emitted its objective."""
    lines = endpoint.log_lines("Training", child["TrainingJobName"])
    return sum(line.startswith("objective=") for line in lines)


def most_at_once(journal: Path) -> int:
    """Return how many programs of a journal ran at the same time."""
    events = [line.split()[0] for line in journal.read_text().splitlines()]
    steps = ({"begin": 1, "end": -1}.get(event, 0) for event in events)
    return max(itertools.accumulate(steps))


def test_bayesian_finds_a_better_model_than_random_would(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    static = {"journal": tmp_path / "journal", "seconds": 0.2}
    endpoint.tune(
        "bayesian", X, jobs=16, parallel=2, static=static, Strategy="Bayesian", RandomSeed=3
    )
    job = endpoint.ended_tuning_job("bayesian")
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["HyperParameterTuningJobConfig"]["Strategy"] == "Bayesian"
    random = Search("Random", parse_ranges(X), maximize=False, seed=3)
    scores = [(float(random.suggest(number, [])["x"]) - 0.3) ** 2 for number in range(1, 17)]
    assert objective(job["BestTrainingJob"]) < min(scores)
    # The later half looks where the good values are.
    distances = [abs(float(given["x"]) - 0.3) for given in tuned(endpoint, "bayesian")]
    assert sum(distances[8:]) < sum(distances[:8]) / 2
    assert most_at_once(tmp_path / "journal") == 2


def test_a_grid_tries_every_combination_once(endpoint: Endpoint) -> None:
    ranges = {
        "CategoricalParameterRanges": [
            {"Name": "x", "Values": ["0.1", "0.3", "0.5"]},
            {"Name": "method", "Values": ["normal", "uniform"]},
        ]
    }
    request = endpoint.tuning_request("grid", ranges, jobs=6, parallel=4, Strategy="Grid")
    del request["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"]
    endpoint.sagemaker.create_hyper_parameter_tuning_job(**request)
    job = endpoint.ended_tuning_job("grid")
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    limits = job["HyperParameterTuningJobConfig"]["ResourceLimits"]
    assert limits == {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 4}
    tried = sorted((given["x"], given["method"]) for given in tuned(endpoint, "grid"))
    assert tried == [(x, m) for x in ("0.1", "0.3", "0.5") for m in ("normal", "uniform")]
    assert job["BestTrainingJob"]["TunedHyperParameters"]["x"] == "0.3"


def test_hyperband_gives_long_runs_only_to_the_promising(endpoint: Endpoint) -> None:
    static = {"score_epochs": 1, "epochs": 9, "slow_above": 0.01, "pause": 1}
    endpoint.tune(
        "hyperband", X, jobs=9, parallel=3, static=static, Strategy="Hyperband", RandomSeed=1
    )
    job = endpoint.ended_tuning_job("hyperband")
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    children = endpoint.children("hyperband")
    epochs = {child["TrainingJobName"]: emitted(endpoint, child) for child in children}
    ended = {
        status: [child for child in children if child["TrainingJobStatus"] == status]
        for status in ("Completed", "Stopped")
    }
    for status, found in ended.items():
        assert job["TrainingJobStatusCounters"][status] == len(found)
    # Those that are given up have an objective too, and stopped long before the others' end.
    assert job["ObjectiveStatusCounters"] == {"Succeeded": 9, "Pending": 0, "Failed": 0}
    assert len(ended["Stopped"]) >= 4
    assert all(epochs[child["TrainingJobName"]] == 9 for child in ended["Completed"])
    assert all(epochs[child["TrainingJobName"]] < 9 for child in ended["Stopped"])
    distance = {
        child["TrainingJobName"]: abs(float(child["TunedHyperParameters"]["x"]) - 0.3)
        for child in children
    }
    nearest = min(distance, key=lambda name: distance[name])
    assert job["BestTrainingJob"]["TrainingJobName"] == nearest
    assert epochs[nearest] == 9


def test_hyperband_stops_what_would_go_on_for_ever(endpoint: Endpoint) -> None:
    """Without a static number of epochs, MaxResource ends the jobs."""
    static = {"score_epochs": 1, "slow_above": 1, "x": 0.5}
    ranges = {"IntegerParameterRanges": [{"Name": "epochs", "MinValue": "999", "MaxValue": "999"}]}
    config = {"StrategyConfig": {"HyperbandStrategyConfig": {"MaxResource": 2}}}
    endpoint.tune(
        "endless", ranges, jobs=1, parallel=1, static=static, Strategy="Hyperband", **config
    )
    job = endpoint.ended_tuning_job("endless")
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["Stopped"] == 1
    assert 2 <= emitted(endpoint, job["BestTrainingJob"]) < 999


EPOCHS = {"score_epochs": 1, "epochs": 4, "slow_above": 0.02}

# In this order: good, bad, a little better, worst of all.
FOUR = {"CategoricalParameterRanges": [{"Name": "x", "Values": ["0.4", "0.8", "0.3", "1.0"]}]}


def test_early_stopping_gives_up_what_is_worse_than_the_median(endpoint: Endpoint) -> None:
    endpoint.tune(
        "early",
        FOUR,
        jobs=4,
        parallel=1,
        static=EPOCHS,
        Strategy="Grid",
        TrainingJobEarlyStoppingType="Auto",
    )
    job = endpoint.ended_tuning_job("early")
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    children = endpoint.children("early")
    assert [child["TrainingJobStatus"] for child in children] == [
        "Completed",
        "Stopped",
        "Completed",
        "Stopped",
    ]
    assert [emitted(endpoint, child) for child in children] == [4, 1, 4, 1]
    assert job["TrainingJobStatusCounters"]["Stopped"] == 2
    assert job["ObjectiveStatusCounters"] == {"Succeeded": 4, "Pending": 0, "Failed": 0}
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"x": "0.3"}
    stopped = endpoint.training_job(children[1]["TrainingJobName"])
    steps = [step["Status"] for step in stopped["SecondaryStatusTransitions"]]
    assert steps == ["Starting", "Downloading", "Training", "Stopping", "Stopped"]


def test_without_early_stopping_every_job_runs_to_its_end(endpoint: Endpoint) -> None:
    static = {**EPOCHS, "slow_above": 9}
    endpoint.tune("patient", FOUR, jobs=4, parallel=2, static=static, Strategy="Grid")
    job = endpoint.ended_tuning_job("patient")
    assert job["TrainingJobStatusCounters"]["Completed"] == 4


def test_jobs_that_emit_their_objective_once_are_never_given_up(endpoint: Endpoint) -> None:
    endpoint.tune(
        "once-only",
        FOUR,
        jobs=4,
        parallel=1,
        Strategy="Grid",
        TrainingJobEarlyStoppingType="Auto",
    )
    job = endpoint.ended_tuning_job("once-only")
    assert job["TrainingJobStatusCounters"]["Completed"] == 4


def test_the_course_of_a_job_that_is_run_again_begins_anew(own_endpoint: Endpoint) -> None:
    own_endpoint.start()
    ranges = {"CategoricalParameterRanges": [{"Name": "x", "Values": ["0.8"]}]}
    static = {"score_epochs": 1, "epochs": 3, "slow_above": 0, "pause": 0.5}
    own_endpoint.tune("anew", ranges, jobs=1, parallel=1, static=static, Strategy="Grid")
    (child,) = eventually(lambda: own_endpoint.children("anew"))
    eventually(lambda: emitted(own_endpoint, child))
    own_endpoint.signal(signal.SIGKILL)
    own_endpoint.start()
    own_endpoint.ended_tuning_job("anew")
    assert emitted(own_endpoint, child) > 3
    with sqlite3.connect(next(own_endpoint.state.glob("*.sqlite"))) as connection:
        course = connection.execute("SELECT step FROM metrics WHERE metric = 'objective'")
        assert course.fetchall() == [(1,), (2,), (3,)]


def test_a_search_that_was_killed_goes_on_as_it_would_have(own_endpoint: Endpoint) -> None:
    """No child is lost or repeated, and what is known of the ended ones leads the next ones."""
    own_endpoint.start()
    options: dict[str, Any] = {"jobs": 9, "parallel": 1, "Strategy": "Bayesian", "RandomSeed": 5}
    own_endpoint.tune("killed", X, **options)
    for done in (2, 6):
        eventually(lambda: len(own_endpoint.children("killed")) >= done)  # noqa: B023
        own_endpoint.signal(signal.SIGKILL)
        own_endpoint.start()
    job = own_endpoint.ended_tuning_job("killed")
    assert job["TrainingJobStatusCounters"]["Completed"] == 9
    names = [child["TrainingJobName"] for child in own_endpoint.children("killed")]
    assert [name.split("-")[1] for name in names] == [f"{n:03d}" for n in range(1, 10)]
    own_endpoint.tune("undisturbed", X, **options)
    own_endpoint.ended_tuning_job("undisturbed")
    assert tuned(own_endpoint, "killed") == tuned(own_endpoint, "undisturbed")
