"""Tuning jobs that start from what others have found."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from recsys_assets.sagemaker_local.jobs.search.ranges import parse_ranges
from recsys_assets.sagemaker_local.jobs.search.strategies import Search, Trial
from recsys_assets_tests.sagemaker_local.endpoint import Endpoint

NAME = "HyperParameterTuningJobName"
X = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
GRID = {"CategoricalParameterRanges": [{"Name": "x", "Values": ["0.1", "0.2", "0.3", "0.4"]}]}
PART = {"CategoricalParameterRanges": [{"Name": "x", "Values": ["0.3", "0.1"]}]}


def warm(
    endpoint: Endpoint,
    name: str,
    ranges: dict[str, Any],
    *parents: str,
    kind: str = "IdenticalDataAndAlgorithm",
    definition: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    request = endpoint.tuning_request(name, ranges, **options)
    request["TrainingJobDefinition"] |= definition or {}
    endpoint.sagemaker.create_hyper_parameter_tuning_job(
        **request,
        WarmStartConfig={
            "ParentHyperParameterTuningJobs": [{NAME: parent} for parent in parents],
            "WarmStartType": kind,
        },
    )


def tried(endpoint: Endpoint, name: str) -> list[float]:
    return [float(child["TunedHyperParameters"]["x"]) for child in endpoint.children(name)]


@pytest.fixture(scope="module")
def searched(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint with ended tuning jobs: a random one, and part of a grid."""
    endpoint.tune("w-random", X, jobs=12, parallel=4, RandomSeed=6)
    endpoint.tune("w-part", PART, jobs=2, parallel=2, Strategy="Grid")
    endpoint.tune("w-static", GRID, jobs=1, parallel=1, static={"seconds": 0, "a": "b"})
    for name in ("w-random", "w-part", "w-static"):
        endpoint.ended_tuning_job(name)
    return endpoint


def test_bayesian_begins_where_its_parent_found_the_best(searched: Endpoint) -> None:
    warm(searched, "w-bayes", X, "w-random", jobs=3, parallel=1, Strategy="Bayesian", RandomSeed=1)
    job = searched.ended_tuning_job("w-bayes")
    assert job["WarmStartConfig"]["WarmStartType"] == "IdenticalDataAndAlgorithm"
    assert not set(tried(searched, "w-bayes")) & set(tried(searched, "w-random"))
    # All of the parent's results lead its first job already.
    inherited = tuple(
        Trial(
            child["TunedHyperParameters"],
            child["FinalHyperParameterTuningJobObjectiveMetric"]["Value"],
            pending=False,
        )
        for child in searched.children("w-random")
    )
    search = Search("Bayesian", parse_ranges(X), maximize=False, seed=1, inherited=inherited)
    first = float(search.suggest(1, [])["x"])
    assert tried(searched, "w-bayes")[0] == first
    assert abs(first - 0.3) < 0.1


def test_a_grid_goes_on_with_what_its_parents_left(searched: Endpoint) -> None:
    warm(searched, "w-grid", GRID, "w-part", jobs=2, parallel=2, Strategy="Grid")
    job = searched.ended_tuning_job("w-grid")
    assert tried(searched, "w-grid") == [0.2, 0.4]
    # Its own best and the best of all are told apart.
    best, overall = job["BestTrainingJob"], job["OverallBestTrainingJob"]
    assert best["TunedHyperParameters"]["x"] in ("0.2", "0.4")
    assert overall["TunedHyperParameters"] == {"x": "0.3"}
    assert overall["TuningJobName"] == "w-part"
    assert job["TrainingJobStatusCounters"]["Completed"] == 2


def test_random_does_not_repeat_what_its_parents_tried(searched: Endpoint) -> None:
    for seed in range(3):
        name = f"w-again-{seed}"
        warm(searched, name, GRID, "w-part", jobs=2, parallel=2, RandomSeed=seed)
        searched.ended_tuning_job(name)
        assert set(tried(searched, name)) <= {0.2, 0.4}


def test_with_other_data_there_is_no_overall_best(searched: Endpoint) -> None:
    warm(searched, "w-transfer", GRID, "w-part", jobs=1, parallel=1, kind="TransferLearning")
    job = searched.ended_tuning_job("w-transfer")
    assert "OverallBestTrainingJob" not in job
    assert job["BestTrainingJob"]["TuningJobName"] == "w-transfer"


def test_a_hyperparameter_may_become_tunable_and_static(searched: Endpoint) -> None:
    ranges = {"CategoricalParameterRanges": [{"Name": "a", "Values": ["b", "c"]}]}
    static = {"x": "0.2", "seconds": 0}
    warm(searched, "w-swap", ranges, "w-static", jobs=1, parallel=1, static=static, Strategy="Grid")
    job = searched.ended_tuning_job("w-swap")
    # The parent had the static value b.
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"a": "c"}


def test_a_parent_is_not_deleted_while_it_is_needed(searched: Endpoint) -> None:
    static = {"seconds": 600}
    searched.tune("w-lender", GRID, jobs=1, parallel=1, static=static)
    searched.sagemaker.stop_hyper_parameter_tuning_job(**{NAME: "w-lender"})
    searched.ended_tuning_job("w-lender")
    warm(searched, "w-user", GRID, "w-lender", jobs=1, parallel=1, static=static)
    with pytest.raises(ClientError, match="cannot delete tuning job w-lender while w-user"):
        searched.sagemaker.delete_hyper_parameter_tuning_job(**{NAME: "w-lender"})
    searched.sagemaker.stop_hyper_parameter_tuning_job(**{NAME: "w-user"})
    searched.ended_tuning_job("w-user")
    searched.sagemaker.delete_hyper_parameter_tuning_job(**{NAME: "w-lender"})


INTEGERS = {"IntegerParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}


@pytest.mark.parametrize(
    ("parents", "changes", "message"),
    [
        (["absent"], {}, "can't find a tuning job called absent"),
        (["w-random", "w-random"], {}, "name a tuning job more than once"),
        (["w-random"], {"kind": "Maximize"}, "objective must be the same as that of parent"),
        (["w-random"], {"ranges": INTEGERS}, "'x' must be in ContinuousParameterRanges, as in"),
        (["w-random"], {"static": {"more": 1}}, "together must be the same as .*, 1; it is 2"),
        (["w-random", "w-static"], {}, "the same as that of parent tuning job w-static, 3"),
        (["w-part"], {"ranges": PART, "Strategy": "Grid"}, "have tried every combination"),
    ],
)
def test_what_a_warm_start_does_not_allow_is_refused(
    searched: Endpoint, parents: list[str], changes: dict[str, Any], message: str
) -> None:
    options = {"ranges": X, "static": {}, "kind": "Minimize", **changes}
    request = searched.tuning_request("w-refused", **options, jobs=1, parallel=1)
    with pytest.raises(ClientError, match=message):
        searched.sagemaker.create_hyper_parameter_tuning_job(
            **request,
            WarmStartConfig={
                "ParentHyperParameterTuningJobs": [{NAME: parent} for parent in parents],
                "WarmStartType": "TransferLearning",
            },
        )


def test_a_parent_must_have_ended(searched: Endpoint) -> None:
    searched.tune("w-running", X, jobs=1, parallel=1, static={"seconds": 600})
    with pytest.raises(ClientError, match="w-running must have ended; it is InProgress"):
        warm(searched, "w-early", X, "w-running", jobs=1, parallel=1)
    searched.sagemaker.stop_hyper_parameter_tuning_job(**{NAME: "w-running"})
    searched.ended_tuning_job("w-running")


def test_identical_data_and_algorithm_are_identical(searched: Endpoint) -> None:
    searched.put("warm/data", b"1")
    channel = {
        "ChannelName": "train",
        "DataSource": {
            "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://endpoint-tests/warm"}
        },
    }
    definition: dict[str, Any] = {"InputDataConfig": [channel]}
    with pytest.raises(ClientError, match="the same channels and data as that of parent"):
        warm(searched, "w-other", X, "w-random", jobs=1, parallel=1, definition=definition)
    specification = {
        "TrainingImage": "factorization-machines:1",
        "TrainingInputMode": "File",
    }
    definition = {"AlgorithmSpecification": specification}
    with pytest.raises(ClientError, match=r"same algorithm as that of parent .*'stand-in'; it is"):
        warm(searched, "w-image", X, "w-random", jobs=1, parallel=1, definition=definition)


def test_only_so_many_hyperparameters_may_change(searched: Endpoint) -> None:
    values = [str(value) for value in range(11)]
    ranges = {"CategoricalParameterRanges": [{"Name": "a", "Values": values}]}
    static = {"x": "0.3"}
    searched.tune("w-many", ranges, jobs=1, parallel=1, static=static)
    searched.ended_tuning_job("w-many")
    with pytest.raises(ClientError, match="w-many, 11 hyperparameters or categories became static"):
        warm(searched, "w-changed", X, "w-many", jobs=1, parallel=1, static={"a": "0"})
