import re
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from recsys_assets.sagemaker_local.jobs.search.ranges import parse_ranges
from recsys_assets.sagemaker_local.jobs.search.strategies import Search
from recsys_assets_tests.sagemaker_local.endpoint import OBJECTIVE, Endpoint, eventually

RANGES = {
    "ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}],
    "IntegerParameterRanges": [{"Name": "n", "MinValue": "2", "MaxValue": "5"}],
    "CategoricalParameterRanges": [{"Name": "method", "Values": ["normal", "uniform"]}],
}

CATEGORIES = {
    "CategoricalParameterRanges": [
        {"Name": "x", "Values": ["0.1", "0.2", "0.3"]},
        {"Name": "method", "Values": ["normal", "uniform"]},
    ]
}

HUGE = {
    "CategoricalParameterRanges": [
        {"Name": name, "Values": [str(value) for value in range(30)]} for name in ("x", "y", "z")
    ]
}

AUTOMATIC = {"Name": "x", "ValueHint": "1"}

HYPERBAND = {"StrategyConfig": {"HyperbandStrategyConfig": {"MaxResource": 9}}}

NOTHING = {"Completed": 0, "InProgress": 0, "RetryableError": 0, "NonRetryableError": 0}


def drawn(ranges: dict[str, Any], seed: int, count: int) -> list[dict[str, str]]:
    """Return what a random search tries."""
    search = Search("Random", parse_ranges(ranges), maximize=False, seed=seed)
    return [search.suggest(number, []) for number in range(1, count + 1)]


def score(child: dict[str, Any]) -> float:
    return (float(child["TunedHyperParameters"]["x"]) - 0.3) ** 2


def test_a_random_search_finds_the_best_of_its_children(endpoint: Endpoint) -> None:
    endpoint.tune("search", RANGES, jobs=4, parallel=4, static={"seconds": 0}, RandomSeed=7)
    job = endpoint.ended_tuning_job("search")

    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"] == {**NOTHING, "Completed": 4, "Stopped": 0}
    assert job["ObjectiveStatusCounters"] == {"Succeeded": 4, "Pending": 0, "Failed": 0}
    assert job["HyperParameterTuningEndTime"] >= job["CreationTime"]
    children = endpoint.children("search")
    names = [child["TrainingJobName"] for child in children]
    assert [re.sub("[0-9a-f]{8}$", "8hex", name) for name in names] == [
        f"search-00{number}-8hex" for number in (1, 2, 3, 4)
    ]
    # What is tried depends on the seed alone, not on which child ends first.
    tuned = [child["TunedHyperParameters"] for child in children]
    assert tuned == drawn(RANGES, 7, 4)

    best = min(children, key=score)
    assert job["BestTrainingJob"] == best
    assert best["FinalHyperParameterTuningJobObjectiveMetric"] == {
        "Type": "Minimize",
        "MetricName": "objective",
        "Value": pytest.approx(score(best)),
    }
    assert {child["ObjectiveStatus"] for child in children} == {"Succeeded"}
    child = endpoint.training_job(best["TrainingJobName"])
    assert child["TuningJobArn"] == job["HyperParameterTuningJobArn"]
    assert child["HyperParameters"] == {
        "seconds": "0",
        "_tuning_objective_metric": "objective",
        **best["TunedHyperParameters"],
    }
    metrics = {metric["MetricName"] for metric in child["FinalMetricDataList"]}
    assert metrics == {"objective", "ObjectiveMetric"}


def test_the_best_is_the_highest_when_it_is_maximized(endpoint: Endpoint) -> None:
    endpoint.tune("highest", RANGES, jobs=3, parallel=3, kind="Maximize")
    job = endpoint.ended_tuning_job("highest")
    assert job["BestTrainingJob"] == max(endpoint.children("highest"), key=score)


def test_children_are_listed_by_their_objective(endpoint: Endpoint) -> None:
    endpoint.tune("ranked", RANGES, jobs=3, parallel=3)
    endpoint.ended_tuning_job("ranked")
    by_name = endpoint.children("ranked")
    ranked = endpoint.children("ranked", SortBy="FinalObjectiveMetricValue", SortOrder="Descending")
    assert ranked == sorted(by_name, key=score, reverse=True)
    assert endpoint.children("ranked", StatusEquals="Failed") == []


def test_no_more_children_run_at_a_time_than_allowed(endpoint: Endpoint, tmp_path: Path) -> None:
    static = {"seconds": 0.1, "journal": tmp_path / "journal"}
    endpoint.tune("narrow", RANGES, jobs=3, parallel=1, static=static)
    status = "InProgress"
    while status == "InProgress":
        job = endpoint.tuning_job("narrow")
        status = job["HyperParameterTuningJobStatus"]
        counters, objectives = job["TrainingJobStatusCounters"], job["ObjectiveStatusCounters"]
        assert counters["InProgress"] <= 1
        assert objectives["Pending"] == counters["InProgress"]
        assert objectives["Succeeded"] == counters["Completed"]
    assert counters == {**NOTHING, "Completed": 3, "Stopped": 0}
    events = [line.split()[0] for line in (tmp_path / "journal").read_text().splitlines()]
    assert events == ["begin", "end"] * 3


def test_stopping_a_search_stops_its_children_and_keeps_the_best_so_far(
    endpoint: Endpoint,
) -> None:
    ranges = {"CategoricalParameterRanges": [{"Name": "seconds", "Values": ["0", "600"]}]}
    # With this seed the first child is quick and the others are slow.
    seed = next(
        seed
        for seed in range(1000)
        if [tuned["seconds"] for tuned in drawn(ranges, seed, 3)] == ["0", "600", "600"]
    )
    endpoint.tune("halted", ranges, jobs=9, parallel=2, static={"x": 0.5}, RandomSeed=seed)

    def two_are_slow() -> bool:
        counters = endpoint.tuning_job("halted")["TrainingJobStatusCounters"]
        return bool(counters["Completed"] == 1 and counters["InProgress"] == 2)

    eventually(two_are_slow)
    endpoint.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="halted")
    job = endpoint.ended_tuning_job("halted")
    assert job["HyperParameterTuningJobStatus"] == "Stopped"
    assert job["TrainingJobStatusCounters"] == {**NOTHING, "Completed": 1, "Stopped": 2}
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"seconds": "0"}
    with pytest.raises(ClientError, match="tuning job is in status Stopped"):
        endpoint.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="halted")


@pytest.mark.parametrize(
    ("name", "static", "reason", "counter"),
    [
        ("all-fail", {"failure": "no"}, "No training job succeeded after 2", "NonRetryableError"),
        ("all-mute", {"mute": 1}, "No objective metrics found after running 2", "Completed"),
    ],
)
def test_a_search_without_one_result_fails(
    endpoint: Endpoint, name: str, static: dict[str, object], reason: str, counter: str
) -> None:
    endpoint.tune(name, RANGES, jobs=2, parallel=2, static=static)
    job = endpoint.ended_tuning_job(name)
    assert job["HyperParameterTuningJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(reason)
    assert job["TrainingJobStatusCounters"][counter] == 2
    assert job["ObjectiveStatusCounters"] == {"Succeeded": 0, "Pending": 0, "Failed": 2}
    assert "BestTrainingJob" not in job


def test_one_failed_child_does_not_fail_the_search(endpoint: Endpoint) -> None:
    ranges = {"CategoricalParameterRanges": [{"Name": "exit", "Values": ["0", "3"]}]}
    seed = next(
        seed
        for seed in range(1000)
        if {tuned["exit"] for tuned in drawn(ranges, seed, 2)} == {"0", "3"}
    )
    endpoint.tune("mixed", ranges, jobs=2, parallel=2, static={"x": 0.1}, RandomSeed=seed)
    job = endpoint.ended_tuning_job("mixed")
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["ObjectiveStatusCounters"] == {"Succeeded": 1, "Pending": 0, "Failed": 1}
    failed = next(
        child for child in endpoint.children("mixed") if child["TrainingJobStatus"] == "Failed"
    )
    assert failed["FailureReason"].endswith("exit code: 3")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {
                "TuningJobCompletionCriteria": {
                    "ConvergenceDetected": {"CompleteOnConvergence": "Enabled"}
                }
            },
            r"supports only 'Disabled' for \S*CompleteOnConvergence",
        ),
        ({"ParameterRanges": {"AutoParameters": [AUTOMATIC]}}, "does not support .*AutoParameters"),
        ({"Strategy": "Grid"}, "Strategy Grid is for categorical ranges only; 'x' is none"),
        (
            {"Strategy": "Grid", "ParameterRanges": CATEGORIES},
            "absent for Strategy Grid, or the number of combinations to try, 6; it is 1",
        ),
        (
            {"Strategy": "Grid", "ParameterRanges": HUGE},
            "have 27,000 combinations; Strategy Grid can try 750",
        ),
        ({"Strategy": "Hyperband"}, "HyperbandStrategyConfig.MaxResource is required"),
        (
            {"Strategy": "Hyperband", "TrainingJobEarlyStoppingType": "Auto", **HYPERBAND},
            "TrainingJobEarlyStoppingType must be Off for Strategy Hyperband",
        ),
        (HYPERBAND, "StrategyConfig is for Strategy Hyperband only, not for Random"),
        (
            {
                "HyperParameterTuningJobObjective": {
                    "Type": "Minimize",
                    "MetricName": "validation:loss",
                }
            },
            "objective metric 'validation:loss' is not among the algorithm's metrics: objective",
        ),
        ({"ParameterRanges": {}}, "at least one range"),
    ],
)
def test_what_cannot_be_searched_is_refused_at_once(
    endpoint: Endpoint, config: dict[str, Any], message: str
) -> None:
    request = endpoint.tuning_request("refused", RANGES, jobs=1, parallel=1)
    request["HyperParameterTuningJobConfig"] |= config
    with pytest.raises(ClientError, match=f"ValidationException.*{message}"):
        endpoint.sagemaker.create_hyper_parameter_tuning_job(**request)


@pytest.mark.parametrize("member", ["HyperParameterTuningJobObjective", "ParameterRanges"])
def test_what_the_model_leaves_open_and_a_search_needs_is_required(
    endpoint: Endpoint, member: str
) -> None:
    request = endpoint.tuning_request("refused", RANGES, jobs=1, parallel=1)
    del request["HyperParameterTuningJobConfig"][member]
    with pytest.raises(ClientError, match=f"{member} is required in"):
        endpoint.sagemaker.create_hyper_parameter_tuning_job(**request)


def test_a_hyperparameter_is_tuned_or_static(endpoint: Endpoint) -> None:
    with pytest.raises(ClientError, match="'x' is in StaticHyperParameters and in"):
        endpoint.tune("both", RANGES, jobs=1, parallel=1, static={"x": 1})


@pytest.mark.parametrize(
    ("changes", "member"),
    [
        ({"Autotune": {"Mode": "Enabled"}}, "Autotune.Mode"),
        ({"RetryStrategy": {"MaximumRetryAttempts": 2}}, "TrainingJobDefinition.RetryStrategy"),
        (
            {"HyperParameterTuningResourceConfig": {"AllocationStrategy": "Prioritized"}},
            "TrainingJobDefinition.HyperParameterTuningResourceConfig.AllocationStrategy",
        ),
        ({"CheckpointConfig": {"S3Uri": "s3://bucket"}}, "TrainingJobDefinition.CheckpointConfig"),
    ],
)
def test_members_that_are_not_supported_are_refused_by_name(
    endpoint: Endpoint, changes: dict[str, Any], member: str
) -> None:
    request = endpoint.tuning_request("refused", RANGES, jobs=1, parallel=1)
    (request if "Autotune" in changes else request["TrainingJobDefinition"]).update(changes)
    with pytest.raises(ClientError, match=f"does not support {member}"):
        endpoint.sagemaker.create_hyper_parameter_tuning_job(**request)


def test_several_definitions_are_refused(endpoint: Endpoint) -> None:
    request = endpoint.tuning_request("refused", RANGES, jobs=1, parallel=1)
    several = {**request, "TrainingJobDefinitions": [request["TrainingJobDefinition"]]}
    with pytest.raises(ClientError, match="does not support TrainingJobDefinitions"):
        endpoint.sagemaker.create_hyper_parameter_tuning_job(**several)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"range": "num_factors"}, "'num_factors' of the algorithm is not tunable; tunable are"),
        ({"metric": "train:rmse"}, "metric 'train:rmse' is not among .*: test:rmse, test:binary"),
        ({"kind": "Maximize"}, r"type, \[Maximize\], .* \[test:rmse\], isn't valid .* Minimize"),
        ({"Strategy": "Hyperband", **HYPERBAND}, "does not support Strategy Hyperband for this"),
    ],
)
def test_what_the_built_in_does_not_allow_to_be_tuned_is_refused(
    endpoint: Endpoint, changes: dict[str, Any], message: str
) -> None:
    tuned = {"Name": changes.pop("range", "linear_lr"), "MinValue": "2", "MaxValue": "9"}
    metric, kind = changes.pop("metric", "test:rmse"), changes.pop("kind", "Minimize")
    ranges = {"ContinuousParameterRanges": [tuned]}
    request = endpoint.tuning_request("refused", ranges, jobs=1, parallel=1, **changes)
    request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"] = {
        "Type": kind,
        "MetricName": metric,
    }
    request["TrainingJobDefinition"]["AlgorithmSpecification"] = {
        "TrainingImage": "382416733822.dkr.ecr.us-east-1.amazonaws.com/factorization-machines:1",
        "TrainingInputMode": "File",
    }
    with pytest.raises(ClientError, match=f"ValidationException.*{message}"):
        endpoint.sagemaker.create_hyper_parameter_tuning_job(**request)


def test_children_carry_the_tags_of_their_tuning_job(endpoint: Endpoint) -> None:
    request = endpoint.tuning_request("tagged", RANGES, jobs=1, parallel=1)
    tags = [{"Key": "team", "Value": "films"}]
    endpoint.sagemaker.create_hyper_parameter_tuning_job(**request, Tags=tags)
    endpoint.ended_tuning_job("tagged")
    (child,) = endpoint.children("tagged")
    assert endpoint.sagemaker.list_tags(ResourceArn=child["TrainingJobArn"])["Tags"] == tags


def test_a_deleted_tuning_job_leaves_its_children_and_its_name(endpoint: Endpoint) -> None:
    endpoint.tune("deleted", RANGES, jobs=2, parallel=1, static={"seconds": 600})
    delete = endpoint.sagemaker.delete_hyper_parameter_tuning_job
    with pytest.raises(ClientError, match="deleted cannot be deleted while it is InProgress"):
        delete(HyperParameterTuningJobName="deleted")
    eventually(lambda: endpoint.children("deleted"))
    endpoint.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="deleted")
    endpoint.ended_tuning_job("deleted")
    (left,) = endpoint.children("deleted")
    delete(HyperParameterTuningJobName="deleted")
    with pytest.raises(endpoint.sagemaker.exceptions.ResourceNotFound):
        endpoint.tuning_job("deleted")
    with pytest.raises(endpoint.sagemaker.exceptions.ResourceNotFound):
        delete(HyperParameterTuningJobName="deleted")
    assert endpoint.training_job(left["TrainingJobName"])["TrainingJobStatus"] == "Stopped"

    endpoint.tune("deleted", RANGES, jobs=2, parallel=2)
    job = endpoint.ended_tuning_job("deleted")
    assert job["TrainingJobStatusCounters"] == {**NOTHING, "Completed": 2, "Stopped": 0}
    assert left["TrainingJobName"] not in [
        child["TrainingJobName"] for child in endpoint.children("deleted")
    ]


def test_a_tuning_jobs_name_is_used_once_and_absent_ones_are_not_found(
    endpoint: Endpoint,
) -> None:
    endpoint.tune("once", RANGES, jobs=1, parallel=1)
    with pytest.raises(endpoint.sagemaker.exceptions.ResourceInUse, match="already exists"):
        endpoint.tune("once", RANGES, jobs=1, parallel=1)
    with pytest.raises(endpoint.sagemaker.exceptions.ResourceNotFound, match="called absent"):
        endpoint.tuning_job("absent")
    endpoint.ended_tuning_job("once")


def test_as_many_metrics_and_hyperparameters_as_the_api_has_can_be_described(
    endpoint: Endpoint,
) -> None:
    ranges = {"ContinuousParameterRanges": RANGES["ContinuousParameterRanges"]}
    request = endpoint.tuning_request("many", ranges, jobs=1, parallel=1)
    definition = request["TrainingJobDefinition"]
    metrics = [OBJECTIVE, *({"Name": f"m{n}", "Regex": f"m{n}=(.)"} for n in range(39))]
    definition["AlgorithmSpecification"]["MetricDefinitions"] = metrics
    definition["StaticHyperParameters"] = {f"h{n}": "1" for n in range(99)}
    with pytest.raises(ClientError, match=r"At most 99 hyperparameters.*there are 99 and 1"):
        endpoint.sagemaker.create_hyper_parameter_tuning_job(**request)
    del definition["StaticHyperParameters"]["h0"]
    endpoint.sagemaker.create_hyper_parameter_tuning_job(**request)
    job = endpoint.ended_tuning_job("many")
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    child = endpoint.training_job(job["BestTrainingJob"]["TrainingJobName"])
    assert len(child["HyperParameters"]) == 100
    assert child["AlgorithmSpecification"]["MetricDefinitions"] == metrics


def test_an_objective_may_have_the_name_under_which_it_is_scraped_again(
    endpoint: Endpoint,
) -> None:
    request = endpoint.tuning_request("namesake", RANGES, jobs=1, parallel=1)
    metric = {**OBJECTIVE, "Name": "ObjectiveMetric"}
    definition = request["TrainingJobDefinition"]
    definition["AlgorithmSpecification"]["MetricDefinitions"] = [metric]
    config = request["HyperParameterTuningJobConfig"]
    config["HyperParameterTuningJobObjective"]["MetricName"] = "ObjectiveMetric"
    endpoint.sagemaker.create_hyper_parameter_tuning_job(**request)
    specification = endpoint.tuning_job("namesake")["TrainingJobDefinition"][
        "AlgorithmSpecification"
    ]
    assert specification["MetricDefinitions"] == [metric]
    assert endpoint.ended_tuning_job("namesake")["HyperParameterTuningJobStatus"] == "Completed"


def test_resources_of_the_tuning_jobs_own_are_those_of_its_children(endpoint: Endpoint) -> None:
    request = endpoint.tuning_request("resources", RANGES, jobs=1, parallel=1)
    definition = request["TrainingJobDefinition"]
    resources = definition.pop("ResourceConfig")
    definition["HyperParameterTuningResourceConfig"] = resources
    endpoint.sagemaker.create_hyper_parameter_tuning_job(**request)
    described = endpoint.ended_tuning_job("resources")["TrainingJobDefinition"]
    assert described["HyperParameterTuningResourceConfig"] == resources
    assert described["ResourceConfig"] == resources
    (child,) = endpoint.children("resources")
    job = endpoint.training_job(child["TrainingJobName"])
    assert job["TrainingJobStatus"] == "Completed"
    assert job["ResourceConfig"] == resources

    definition["ResourceConfig"] = resources
    with pytest.raises(ClientError, match="only one of ResourceConfig and HyperParameterTuning"):
        endpoint.sagemaker.create_hyper_parameter_tuning_job(**request)
