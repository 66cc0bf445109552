"""S3's event notifications: what each form of message tells, and what is no event."""

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.resources.landing.events import events_of, in_order
from recsys_assets.resources.landing.objects import LandedObject

# The example of Amazon S3's user guide, with a key that has to be encoded.
RECORD = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "awsRegion": "us-west-2",
    "eventTime": "1970-01-01T00:00:00.000Z",
    "eventName": "ObjectCreated:Put",
    "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
    "requestParameters": {"sourceIPAddress": "127.0.0.1"},
    "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8"},
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "testConfigRule",
        "bucket": {
            "name": "amzn-s3-demo-bucket",
            "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
            "arn": "arn:aws:s3:::amzn-s3-demo-bucket",
        },
        "object": {
            "key": "landing/Happy+F%C3%A4ce%2B1.tsv",
            "size": 1024,
            "eTag": "d41d8cd98f00b204e9800998ecf8427e",
            "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
            "sequencer": "0055AED6DCD90281E5",
        },
    },
}
CREATED = LandedObject(
    key="landing/Happy Fäce+1.tsv",
    etag="d41d8cd98f00b204e9800998ecf8427e",
    last_modified=dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
    size=1024,
    version_id="096fKKXTRTtl3on89fVO.nfljtsv6qko",
    sequencer="0055AED6DCD90281E5",
)
BRIDGED = {
    "version": "0",
    "id": "17793124-05d4-b198-2fde-7ededc63b103",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "account": "111122223333",
    "time": "2021-11-12T00:00:00Z",
    "region": "ca-central-1",
    "resources": ["arn:aws:s3:::amzn-s3-demo-bucket1"],
    "detail": {
        "version": "0",
        "bucket": {"name": "amzn-s3-demo-bucket1"},
        "object": {
            "key": "landing/a+b%20c.tsv",
            "size": 5,
            "etag": "b1946ac92492d2347c6235b4d2611184",
            "version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
            "sequencer": "617f08299329d189",
        },
        "reason": "PutObject",
    },
}


def told(body: object) -> list[tuple[str, LandedObject]]:
    return [*events_of(json.dumps(body))]


def record(name: str, **about: object) -> dict[str, object]:
    s3 = {**RECORD["s3"], "object": about}
    return {"Records": [{**RECORD, "eventName": name, "s3": s3}]}


def test_a_notification_tells_the_object_under_its_decoded_key() -> None:
    assert told({"Records": [RECORD]}) == [("amzn-s3-demo-bucket", CREATED)]


def test_sns_wraps_a_notification() -> None:
    wrapped = {"Type": "Notification", "Message": json.dumps({"Records": [RECORD, RECORD]})}
    assert told(wrapped) == [("amzn-s3-demo-bucket", CREATED)] * 2


def test_event_bridge_does_not_encode_keys() -> None:
    ((bucket, found),) = told(BRIDGED)
    assert bucket == "amzn-s3-demo-bucket1"
    assert found.key == "landing/a+b%20c.tsv"
    assert found.version_id == "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e"
    assert found.last_modified == dt.datetime(2021, 11, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "name",
    ["ObjectRemoved:Delete", "ObjectRemoved:DeleteMarkerCreated", "LifecycleExpiration:Delete"],
)
def test_a_deletion_has_neither_size_nor_etag(name: str) -> None:
    ((_, found),) = told(record(name, key="a.tsv", sequencer="01"))
    assert (found.key, found.deleted, found.etag, found.size) == ("a.tsv", True, "", 0)


def test_event_bridge_tells_a_deletion() -> None:
    detail = {"bucket": {"name": "b"}, "object": {"key": "a.tsv", "sequencer": "01"}}
    ((_, found),) = told({**BRIDGED, "detail-type": "Object Deleted", "detail": detail})
    assert found.deleted


@pytest.mark.parametrize("name", ["ObjectTagging:Put", "ObjectRestore:Completed", "ObjectAcl:Put"])
def test_what_neither_makes_nor_removes_an_object_tells_nothing(name: str) -> None:
    assert told(record(name, key="a.tsv")) == []
    assert told({**BRIDGED, "detail-type": "Object Tags Added"}) == []


def test_s3s_test_event_tells_nothing() -> None:
    assert told({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}) == []


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "[]",
        "7",
        "null",
        "{}",
        '{"Records": null}',
        '{"Records": [{}]}',
        '{"Records": ["x"]}',
        '{"Type": "Notification"}',
        '{"Type": "Notification", "Message": "no JSON"}',
        '{"source": "aws.ec2"}',
        '{"source": "aws.s3"}',
        json.dumps(record("ObjectCreated:Put", key="a", eTag="x", sequencer="01")),
        json.dumps(record("ObjectCreated:Put", key="a", size=1, sequencer="01")),
        json.dumps(record("ObjectCreated:Put", key="a", size=1, eTag="x")),
        json.dumps({"Records": [{**RECORD, "eventTime": "yesterday"}]}),
    ],
)
def test_what_is_no_event_is_an_error_and_no_other_exception(body: str) -> None:
    with pytest.raises(ValueError, match="expected an event notification of S3, got"):
        [*events_of(body)]


@given(st.lists(st.integers(0, 16**6 - 1), unique=True), st.randoms())
def test_events_of_a_key_are_ordered_as_if_their_sequencers_were_filled_up_on_the_right(
    numbers: list[int], order: "st.random.Random"
) -> None:
    happened = [
        LandedObject("a", "", CREATED.last_modified, 1, sequencer=f"{number:06X}".rstrip("0"))
        for number in sorted(numbers)
    ]
    told = [*happened, *happened]
    order.shuffle(told)
    assert in_order(told) == happened
