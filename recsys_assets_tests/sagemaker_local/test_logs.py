import pytest
from botocore.exceptions import ClientError

from recsys_assets_tests.sagemaker_local.endpoint import Endpoint, eventually

GROUP = "/aws/sagemaker/TrainingJobs"


def test_a_log_can_be_followed_while_its_job_runs(endpoint: Endpoint) -> None:
    endpoint.train("followed", {"seconds": 600})
    eventually(lambda: "tick 3" in endpoint.log_lines("Training", "followed"))
    assert endpoint.training_job("followed")["TrainingJobStatus"] == "InProgress"
    endpoint.sagemaker.stop_training_job(TrainingJobName="followed")
    endpoint.ended_training_job("followed")

    (stream,) = endpoint.logs.describe_log_streams(
        logGroupName=GROUP, logStreamNamePrefix="followed/", limit=1
    )["logStreams"]
    assert stream["logStreamName"].startswith("followed/algo-1-")
    assert stream["firstEventTimestamp"] <= stream["lastEventTimestamp"]
    # As clients follow it: from the head, until the token repeats.
    lines: list[str] = []
    arguments = {"startFromHead": True}
    while True:
        page = endpoint.logs.get_log_events(
            logGroupName=GROUP, logStreamName=stream["logStreamName"], limit=2, **arguments
        )
        lines += [event["message"] for event in page["events"]]
        if page["nextForwardToken"] == arguments.get("nextToken"):
            break
        arguments = {"nextToken": page["nextForwardToken"]}
    assert lines[:3] == ["started", "tick 0", "tick 1"]
    assert lines == endpoint.log_lines("Training", "followed")


def test_a_log_is_read_from_its_end_and_backwards(endpoint: Endpoint) -> None:
    endpoint.train("backwards", {"print": "a|b|c|d"})
    endpoint.ended_training_job("backwards")
    (stream,) = endpoint.logs.describe_log_streams(
        logGroupName=GROUP, logStreamNamePrefix="backwards/"
    )["logStreams"]

    def page(**arguments: object) -> tuple[list[str], str, str]:
        found = endpoint.logs.get_log_events(
            logGroupName=GROUP, logStreamName=stream["logStreamName"], limit=2, **arguments
        )
        messages = [event["message"] for event in found["events"]]
        return messages, found["nextForwardToken"], found["nextBackwardToken"]

    latest, forward, backward = page()
    assert latest == ["c", "d"]
    assert page(nextToken=forward)[0] == []
    earlier, forward, backward = page(nextToken=backward)
    assert earlier == ["a", "b"]
    assert page(nextToken=forward)[0] == ["c", "d"]
    assert page(nextToken=backward)[0] == ["started"]


def test_what_the_program_says_last_is_there_when_the_job_has_ended(endpoint: Endpoint) -> None:
    endpoint.train("wordy", {"print": "|".join(str(number) for number in range(400))})
    endpoint.ended_training_job("wordy")
    lines = endpoint.log_lines("Training", "wordy")
    assert lines == ["started", *(str(number) for number in range(400))]


def test_streams_are_listed_in_pages(endpoint: Endpoint) -> None:
    for name in ("paged-1", "paged-2", "paged-3"):
        endpoint.train(name)
        endpoint.ended_training_job(name)
    pages = list(
        endpoint.logs.get_paginator("describe_log_streams").paginate(
            logGroupName=GROUP,
            logStreamNamePrefix="paged-",
            descending=True,
            PaginationConfig={"PageSize": 2},
        )
    )
    names = [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
    assert [name.split("/")[0] for name in names] == ["paged-3", "paged-2", "paged-1"]
    assert [len(page["logStreams"]) for page in pages] == [2, 1]


def test_groups_are_listed_by_prefix(endpoint: Endpoint) -> None:
    endpoint.train("grouped")
    endpoint.ended_training_job("grouped")
    found = endpoint.logs.describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"]
    assert [group["logGroupName"] for group in found] == [GROUP]
    assert found[0]["arn"] == f"arn:aws:logs:us-east-1:123456789012:log-group:{GROUP}:*"
    assert endpoint.logs.describe_log_groups(logGroupNamePrefix="/absent")["logGroups"] == []
    with pytest.raises(ClientError, match="does not support logGroupNamePattern"):
        endpoint.logs.describe_log_groups(logGroupNamePattern="x")


def test_events_are_found_by_words_and_time_across_streams(endpoint: Endpoint) -> None:
    for name in ("search-1", "search-2"):
        endpoint.train(name, {"print": f"loss=0.5 of {name}|an error of {name}|ERROR in {name}"})
        endpoint.ended_training_job(name)

    def found(**arguments: object) -> list[str]:
        pages = endpoint.logs.get_paginator("filter_log_events").paginate(
            logGroupName=GROUP, PaginationConfig={"PageSize": 2}, **arguments
        )
        return [event["message"] for page in pages for event in page["events"]]

    everything = found(logStreamNamePrefix="search-")
    assert len(everything) == 8
    assert everything == [
        line for name in ("search-1", "search-2") for line in endpoint.log_lines("Training", name)
    ]
    assert found(logStreamNamePrefix="search-2", filterPattern="ERROR") == ["ERROR in search-2"]
    assert found(logStreamNamePrefix="search-", filterPattern='"error of" "search-1"') == [
        "an error of search-1"
    ]
    assert len(found(logStreamNamePrefix="search-", filterPattern='"loss=0.5"')) == 2

    event = endpoint.logs.filter_log_events(
        logGroupName=GROUP, logStreamNamePrefix="search-2", filterPattern='"loss=0.5"'
    )["events"][0]
    assert event["logStreamName"].startswith("search-2/")
    later = found(logStreamNamePrefix="search-", startTime=event["timestamp"])
    assert "an error of search-2" in later
    assert "an error of search-1" not in later
    assert len(found(logStreamNames=[event["logStreamName"]])) == 4
    earlier = found(logStreamNamePrefix="search-", endTime=event["timestamp"])
    assert "an error of search-1" in earlier
    assert "an error of search-2" not in earlier


@pytest.mark.parametrize("pattern", ["?a ?b", "-a", "a.b", '{ $.a = "b" }', "[a, b]", "%a%", '"a'])
def test_a_filter_pattern_that_cannot_be_done_is_refused(endpoint: Endpoint, pattern: str) -> None:
    with pytest.raises(ClientError, match=r"InvalidParameterException.*only words and quoted"):
        endpoint.logs.filter_log_events(logGroupName=GROUP, filterPattern=pattern)


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("filter_log_events", {"logGroupName": "/aws/sagemaker/Endpoints"}),
        ("describe_log_streams", {"logGroupName": "/aws/sagemaker/Endpoints"}),
        ("get_log_events", {"logGroupName": GROUP, "logStreamName": "absent/algo-1-1"}),
    ],
)
def test_a_log_that_does_not_exist_is_not_found(
    endpoint: Endpoint, action: str, arguments: dict[str, str]
) -> None:
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        getattr(endpoint.logs, action)(**arguments)
