"""When a tuning job is at its end, and what it tells of itself until then."""

import contextlib
import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_assets.sagemaker_local.images import Program
from recsys_assets.sagemaker_local.jobs import tuning, tuning_results
from recsys_assets.sagemaker_local.jobs.training import TrainingRun
from recsys_assets.sagemaker_local.store import TRAINING_JOB, TUNING_JOB, Query, Store
from recsys_assets_tests.sagemaker_local.endpoint import OBJECTIVE, Endpoint, eventually

CONFIG = "HyperParameterTuningJobConfig"


def grid(*values: object) -> dict[str, Any]:
    """Return ranges that a Grid tries in their order."""
    return {"CategoricalParameterRanges": [{"Name": "x", "Values": [str(v) for v in values]}]}


def tried(endpoint: Endpoint, name: str) -> list[str]:
    return [child["TunedHyperParameters"]["x"] for child in endpoint.children(name)]


def test_a_search_ends_at_its_target(endpoint: Endpoint) -> None:
    endpoint.tune(
        "target",
        grid(0.9, 0.5, 0.31, 0.8, 0.7),
        jobs=5,
        parallel=1,
        Strategy="Grid",
        TuningJobCompletionCriteria={"TargetObjectiveMetricValue": 0.01},
    )
    job = endpoint.ended_tuning_job("target")
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert tried(endpoint, "target") == ["0.9", "0.5", "0.31"]
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"x": "0.31"}


def test_reaching_the_target_stops_what_still_runs(endpoint: Endpoint) -> None:
    ranges = {
        "CategoricalParameterRanges": [
            {"Name": "x", "Values": ["0.3"]},
            {"Name": "seconds", "Values": ["600", "0", "1"]},
        ]
    }
    endpoint.tune(
        "overtaken",
        ranges,
        jobs=3,
        parallel=2,
        Strategy="Grid",
        TuningJobCompletionCriteria={"TargetObjectiveMetricValue": 0.01},
    )
    job = endpoint.ended_tuning_job("overtaken")
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    counters = job["TrainingJobStatusCounters"]
    assert (counters["Completed"], counters["Stopped"], counters["InProgress"]) == (1, 1, 0)


def test_a_search_ends_when_it_improves_no_longer(endpoint: Endpoint) -> None:
    # Of the squares of 0.5, 0.4, 0.399, 0.6 and 0.41 the third is better by less than 1 %.
    endpoint.tune(
        "stuck",
        grid(0.8, 0.7, 0.699, 0.9, 0.71, 0.3),
        jobs=6,
        parallel=1,
        Strategy="Grid",
        TuningJobCompletionCriteria={
            "BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 3}
        },
    )
    job = endpoint.ended_tuning_job("stuck")
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert tried(endpoint, "stuck") == ["0.8", "0.7", "0.699", "0.9", "0.71"]
    details = job["TuningJobCompletionDetails"]
    assert details["NumberOfTrainingJobsObjectiveNotImproving"] == 3
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"x": "0.699"}


def test_a_search_whose_time_is_over_ends_by_itself(own_endpoint: Endpoint) -> None:
    own_endpoint.start()
    request = own_endpoint.tuning_request(
        "overdue", grid(0.3, 0.4), jobs=2, parallel=1, static={"seconds": 600}, Strategy="Grid"
    )
    request[CONFIG]["ResourceLimits"]["MaxRuntimeInSeconds"] = 120
    own_endpoint.sagemaker.create_hyper_parameter_tuning_job(**request)
    eventually(lambda: own_endpoint.children("overdue"))
    own_endpoint.signal(signal.SIGKILL)
    # It was created just so long ago that its time is over soon after the endpoint goes on.
    with sqlite3.connect(next(own_endpoint.state.glob("*.sqlite"))) as connection:
        connection.execute(
            "UPDATE resources SET description = json_set(description, '$.CreationTime',"
            " json_extract(description, '$.CreationTime') - 119) WHERE name = 'overdue'"
        )
    own_endpoint.start()
    job = own_endpoint.ended_tuning_job("overdue")
    # No job has a result, so that the search has none.
    assert job["HyperParameterTuningJobStatus"] == "Failed"
    assert job["TrainingJobStatusCounters"]["Stopped"] == 1
    assert job["ConsumedResources"]["RuntimeInSeconds"] >= 120


def test_without_a_number_of_training_jobs_there_is_the_quota(endpoint: Endpoint) -> None:
    request = endpoint.tuning_request(
        "unlimited", grid(0.3, 0.4), jobs=1, parallel=1, static={"seconds": 600}
    )
    del request[CONFIG]["ResourceLimits"]["MaxNumberOfTrainingJobs"]
    endpoint.sagemaker.create_hyper_parameter_tuning_job(**request)
    limits = endpoint.tuning_job("unlimited")[CONFIG]["ResourceLimits"]
    assert limits["MaxNumberOfTrainingJobs"] == 750
    endpoint.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="unlimited")
    endpoint.ended_tuning_job("unlimited")


def test_what_is_told_is_right_while_children_fail_are_stopped_and_the_endpoint_is_killed(
    own_endpoint: Endpoint, tmp_path: Path
) -> None:
    own_endpoint.start()
    ranges = {
        "CategoricalParameterRanges": [
            {"Name": "x", "Values": ["0.9", "0.5", "0.35"]},
            {"Name": "exit", "Values": ["0", "3"]},
            {"Name": "seconds", "Values": ["0", "0.3"]},
        ]
    }
    own_endpoint.tune("troubled", ranges, jobs=12, parallel=2, Strategy="Grid")
    stopped: set[str] = set()
    seen = 0
    while True:
        before = own_endpoint.children("troubled")
        job = own_endpoint.tuning_job("troubled")
        after = own_endpoint.children("troubled")
        if [(c["TrainingJobName"], c["TrainingJobStatus"]) for c in before] == [
            (c["TrainingJobName"], c["TrainingJobStatus"]) for c in after
        ]:
            seen += 1
            assert_right(job, after)
        if job["HyperParameterTuningJobStatus"] != "InProgress":
            break
        if len(after) == 6 and not stopped:
            for child in after:
                if child["TrainingJobStatus"] == "InProgress":
                    stopped.add(child["TrainingJobName"])
            for name in stopped:
                with contextlib.suppress(ClientError):  # it may have ended by now
                    own_endpoint.sagemaker.stop_training_job(TrainingJobName=name)
            own_endpoint.signal(signal.SIGKILL)
            own_endpoint.start()
    assert seen > 5
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert len(after) == 12


def assert_right(job: dict[str, Any], children: list[dict[str, Any]]) -> None:
    """Check what Describe tells against the list of children."""
    statuses = [child["TrainingJobStatus"] for child in children]
    counted_as = {
        "Completed": ["Completed"],
        "InProgress": ["InProgress", "Stopping"],
        "NonRetryableError": ["Failed"],
        "Stopped": ["Stopped"],
        "RetryableError": [],
    }
    assert job["TrainingJobStatusCounters"] == {
        counter: sum(statuses.count(status) for status in names)
        for counter, names in counted_as.items()
    }
    objectives = [child["ObjectiveStatus"] for child in children]
    assert job["ObjectiveStatusCounters"] == {
        status: objectives.count(status) for status in ("Succeeded", "Pending", "Failed")
    }
    member = "FinalHyperParameterTuningJobObjectiveMetric"
    values = [child[member]["Value"] for child in children if member in child]
    assert len(values) == objectives.count("Succeeded")
    best = job.get("BestTrainingJob", {}).get(member, {}).get("Value")
    assert best == min(values, default=None)


def test_a_search_that_is_to_end_does_not_go_on_because_of_what_it_stops(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    job = new_job(most=99, parallel=2, strategy="Random")
    job[CONFIG]["TuningJobCompletionCriteria"] = {
        "BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 3}
    }
    store.insert(TUNING_JOB, job)

    def advanced() -> tuple[str, list[str]]:
        tuning.advance(store, fetched())
        children = tuning_results.children_of(store, "fates")
        return (
            fetched()["HyperParameterTuningJobStatus"],
            [child["TrainingJobStatus"] for child in children],
        )

    def fetched() -> dict[str, Any]:
        found = store.get(TUNING_JOB, "fates")
        assert found is not None
        return found

    def end(number: int, status: str, value: float) -> None:
        name = tuning_results.children_of(store, "fates")[number - 1]["TrainingJobName"]
        with store.edit(TRAINING_JOB, name) as child:
            child["FinalMetricDataList"] = [{"MetricName": "objective", "Value": value}]
            TrainingRun.end(child, status)

    for number in (1, 2, 3, 4):
        assert advanced()[0] == "InProgress"
        end(number, "Completed", 1.0)
    assert advanced() == ("InProgress", ["Completed"] * 4 + ["Stopping"])
    end(5, "Stopped", 0.1)  # an improvement, but too late
    assert advanced() == ("Completed", ["Completed"] * 4 + ["Stopped"])
    store.close()


FATES = st.sampled_from(["Completed", "mute", "Failed", "Stopped", "stop", "restart", "wait"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(FATES, st.integers(0, 9), st.floats(-5, 5)), max_size=40),
    st.integers(1, 8),
    st.integers(1, 4),
    st.sampled_from(["Random", "Bayesian", "Hyperband"]),
)
def test_children_are_never_lost_repeated_or_too_many(
    tmp_path_factory: pytest.TempPathFactory,
    fates: list[tuple[str, int, float]],
    most: int,
    parallel: int,
    strategy: str,
) -> None:
    path = tmp_path_factory.mktemp("fates") / "store.sqlite"
    store = Store(path)
    store.insert(TUNING_JOB, new_job(most, parallel, strategy))
    stopping = False
    for fate, which, value in [*fates, *[("Completed", 0, 1.0)] * 9]:
        for listed in store.find(TUNING_JOB, Query()):
            if listed.description["HyperParameterTuningJobStatus"] in ("InProgress", "Stopping"):
                tuning.advance(store, listed.description)
        job = store.get(TUNING_JOB, "fates")
        assert job is not None
        children = tuning_results.children_of(store, "fates")
        active = [c for c in children if c["TrainingJobStatus"] in ("InProgress", "Stopping")]
        assert len(children) <= most
        assert len(active) <= parallel
        if job["HyperParameterTuningJobStatus"] == "InProgress":
            assert len(active) == min(parallel, most - len(children) + len(active))
        elif job["HyperParameterTuningJobStatus"] != "Stopping":
            assert not active
            assert stopping or len(children) == most
        assert_right({**job, **tuning_results.progress(store, job)}, children)
        names = [child["TrainingJobName"] for child in children]
        assert [int(n.split("-")[1]) for n in names] == list(range(1, len(names) + 1))

        if fate == "restart":
            store.close()
            store = Store(path)
        elif fate == "stop" and job["HyperParameterTuningJobStatus"] == "InProgress":
            stopping = True
            with store.edit(TUNING_JOB, "fates") as record:
                tuning.request_stop(record)
        elif active and fate in ("Completed", "mute", "Failed", "Stopped"):
            name = active[which % len(active)]["TrainingJobName"]
            with store.edit(TRAINING_JOB, name) as child:
                if fate != "mute":
                    child["FinalMetricDataList"] = [{"MetricName": "objective", "Value": value}]
                TrainingRun.end(child, "Completed" if fate == "mute" else fate)
    store.close()


def new_job(most: int, parallel: int, strategy: str) -> dict[str, Any]:
    """Return the record of a tuning job of an image that emits the objective."""
    request = {
        "HyperParameterTuningJobName": "fates",
        CONFIG: {
            "Strategy": strategy,
            "StrategyConfig": {"HyperbandStrategyConfig": {"MaxResource": 9}},
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "objective"},
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": most,
                "MaxParallelTrainingJobs": parallel,
            },
            "ParameterRanges": {
                "ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]
            },
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": "image",
                "TrainingInputMode": "File",
                "MetricDefinitions": [OBJECTIVE],
            },
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/models"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        },
    }
    copied: dict[str, Any] = json.loads(json.dumps(request))
    return tuning.new_tuning_job(copied, Program(train=("true",), serve=("true",)))
