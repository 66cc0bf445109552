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


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("describe_log_streams", {"logGroupName": "/aws/sagemaker/Endpoints"}),
        ("get_log_events", {"logGroupName": GROUP, "logStreamName": "absent/algo-1-1"}),
    ],
)
def test_a_log_that_does_not_exist_is_not_found(
    endpoint: Endpoint, action: str, arguments: dict[str, str]
) -> None:
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        getattr(endpoint.logs, action)(**arguments)
