"""S3's event notifications, as an SQS queue hands them out.

What belongs here: the forms of messages, and taking them from and off the queue. What does not:
what is new of what they tell (``looking.py``).

A message stays in the queue until the ledger has what it tells, and until then is handed out again
and again: once the queue's visibility timeout is over. So a queue with a dead-letter queue needs a
`maxReceiveCount` of hundreds: an object that waits for its folder's marker, or a run that fails
until somebody mends its cause, would else lose its message. A message that cannot be read is left
for the dead-letter queue.

Events come late, twice and in any order. Those of one key are ordered by their sequencer.
"""

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from dagster import get_dagster_logger

from recsys_assets.resources.landing.objects import LandedObject

_BATCH = 10  # SQS hands out and deletes no more at once
_SHOWN = 500  # characters of a message that cannot be read
_CREATED = ("ObjectCreated:", "Object Created")
_DELETED = ("ObjectRemoved:", "LifecycleExpiration:", "Object Deleted")


@dataclass(frozen=True)
class Message:
    """A message, and what it tells of one landing.

    Attributes
    ----------
    receipt
        SQS's name for this handing out of it.
    events
        Objects that came or were deleted; none where it is not about this landing.
    """

    receipt: str
    events: tuple[LandedObject, ...]


class EventQueue:
    """The queue of a landing's events.

    Parameters
    ----------
    client
        A boto3 SQS client.
    url
        Of the queue.
    bucket, prefix
        Events of other places are left out.
    """

    def __init__(self, client: Any, url: str, bucket: str, prefix: str) -> None:
        self._client = client
        self._url = url
        self._bucket = bucket
        self._prefix = prefix

    def receive(self, limit: int, has_time: Callable[[], bool]) -> list[Message]:
        """Take messages from the queue, until there are none or no time; they stay in it."""
        received: dict[str, Message | None] = {}
        while len(received) < limit and has_time():
            # No long polling: what a short look misses is there at the next one.
            answer = self._client.receive_message(QueueUrl=self._url, MaxNumberOfMessages=_BATCH)
            fresh = [raw for raw in answer.get("Messages", []) if raw["MessageId"] not in received]
            if not fresh:
                break
            received.update({raw["MessageId"]: self._read(raw) for raw in fresh})
        return [message for message in received.values() if message is not None]

    def delete(self, messages: Iterable[Message]) -> None:
        """Take messages off the queue; one that does not go comes again."""
        receipts = [message.receipt for message in messages]
        for start in range(0, len(receipts), _BATCH):
            entries = [
                {"Id": str(number), "ReceiptHandle": receipt}
                for number, receipt in enumerate(receipts[start : start + _BATCH])
            ]
            self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)

    def _read(self, raw: dict[str, Any]) -> Message | None:
        try:
            told = [*events_of(raw["Body"])]
        except ValueError as error:
            get_dagster_logger().error(
                f"Message {raw['MessageId']} of {self._url} is left where it is: {error}"
            )
            return None
        events = [
            found
            for bucket, found in told
            if bucket == self._bucket and found.key.startswith(self._prefix)
        ]
        return Message(raw["ReceiptHandle"], tuple(events))


def events_of(body: str) -> Iterator[tuple[str, LandedObject]]:
    """Yield the bucket and the object of each event of a message.

    Read are notifications of S3 (versions 2.x), events of EventBridge, and both as SNS wraps them.
    S3's test event tells nothing, nor do events that neither make nor remove an object.

    Raises
    ------
    ValueError
        If it is none of these; the message says what is wrong.
    """
    try:
        content = json.loads(body)
        if "Records" in content:
            for record in content["Records"]:
                yield from _notified(record)
        elif content.get("Type") == "Notification":
            yield from events_of(content["Message"])
        elif content.get("source") == "aws.s3":
            yield from _bridged(content)
        elif content.get("Event") != "s3:TestEvent":
            raise ValueError("there are neither Records nor a source")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"expected an event notification of S3, got {body[:_SHOWN]!r}: {error!r}"
        ) from error


def in_order(events: Iterable[LandedObject]) -> list[LandedObject]:
    """Return events by key and, under each, as they happened; each once.

    Sequencers are hexadecimal, of differing lengths, to be filled up on the right.
    """
    once = {(event.key, event.sequencer or "", event.version_id): event for event in events}
    width = max((len(sequencer) for _, sequencer, _ in once), default=0)
    return sorted(
        once.values(), key=lambda event: (event.key, (event.sequencer or "").ljust(width, "0"))
    )


def _notified(record: dict[str, Any]) -> Iterator[tuple[str, LandedObject]]:
    name = record["eventName"].removeprefix("s3:")
    if not name.startswith(_CREATED + _DELETED):
        return
    about = record["s3"]["object"]
    yield (
        record["s3"]["bucket"]["name"],
        _seen(
            {**about, "key": unquote_plus(about["key"])},
            moment=record["eventTime"],
            etag=about.get("eTag"),
            version_id=about.get("versionId"),
            deleted=name.startswith(_DELETED),
        ),
    )


def _bridged(event: dict[str, Any]) -> Iterator[tuple[str, LandedObject]]:
    name = event["detail-type"]
    if name not in _CREATED + _DELETED:
        return
    about = event["detail"]["object"]  # its key is not encoded
    yield (
        event["detail"]["bucket"]["name"],
        _seen(
            about,
            moment=event["time"],
            etag=about.get("etag"),
            version_id=about.get("version-id"),
            deleted=name in _DELETED,
        ),
    )


def _seen(
    about: dict[str, Any], *, moment: str, etag: str | None, version_id: str | None, deleted: bool
) -> LandedObject:
    sequencer = about.get("sequencer")
    known = "size" in about and etag is not None and (version_id or sequencer) is not None
    if not deleted and not known:
        raise ValueError(
            f"expected size, ETag and sequencer or version id of {about['key']}, got {about!r}"
        )
    return LandedObject(
        key=about["key"],
        etag="" if deleted else str(etag).strip('"'),
        last_modified=dt.datetime.fromisoformat(moment).astimezone(dt.UTC),
        size=0 if deleted else int(about["size"]),
        version_id=None if version_id == "null" else version_id,
        sequencer=sequencer,
        deleted=deleted,
    )
