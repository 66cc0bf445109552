"""What of a landing the ledger does not have yet.

What belongs here: comparing what is there with what has been ingested, and which of it has to wait.
What does not: asking S3 (``listing.py``) and SQS (``events.py``), and what is done about it
(``recsys_assets.assets.ratings``).

A bucket with versions is compared version by version: whatever is in it and not in the ledger is an
arrival, oldest first. Without versions, a listing tells what is there now, and events tell what
came; but a listing and an event that tell of the same object have nothing in common by which to
recognise it. So where there are events, a listing counts for objects that the ledger has never seen
and for those that are gone, as a safety net, and otherwise the events do.
"""

import datetime as dt
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

from recsys_assets.domain.ratings.ledger import Entry, Ledger
from recsys_assets.resources.landing.events import EventQueue, in_order
from recsys_assets.resources.landing.listing import (
    Listed,
    Page,
    latest,
    object_pages,
    version_pages,
    versions_of,
)
from recsys_assets.resources.landing.objects import LandedObject

MARKER = "_SUCCESS"
EMPTY, UNSETTLED, UNMARKED = "empty", "changed a moment ago", f"without {MARKER}"


@dataclass(frozen=True)
class Rules:
    """Which objects are ratings, and when they are taken.

    Attributes
    ----------
    prefix
        Of their keys.
    pattern
        Of their names below the prefix, as fnmatch reads it.
    settle_seconds
        How long they must have been left unchanged.
    success_marker
        Whether their folder must hold a ``_SUCCESS`` that is no older.
    """

    prefix: str
    pattern: str
    settle_seconds: float
    success_marker: bool

    def takes(self, key: str) -> bool:
        """Tell whether a key is one of ratings.

        Hidden names, those that begin with ``_``, README or LICENSE and folders' placeholders are
        not, as in a folder of files.
        """
        name = key.removeprefix(self.prefix)
        parts = name.split("/")
        return (
            key.startswith(self.prefix)
            and fnmatchcase(name, self.pattern)
            and parts[-1] != ""
            and not any(part.startswith((".", "_")) for part in parts)
            and not parts[-1].startswith(("README", "LICENSE"))
        )


@dataclass(frozen=True)
class Look:
    """What a look at the landing has found.

    Attributes
    ----------
    arrivals
        What the ledger does not have and is ready; under each key, oldest first.
    after
        The key after which the next look goes on; None for the beginning.
    finished
        Whether this look came to the end.
    waiting
        How many objects wait, by what for.
    """

    arrivals: tuple[LandedObject, ...]
    after: str | None
    finished: bool
    waiting: Counter[str]


class Looking:
    """One look at a landing: what it has found so far, and how much more it may.

    Parameters
    ----------
    client
        A boto3 S3 client.
    bucket, rules
        What is looked at.
    ledger
        What has been ingested.
    versioned, moment
        Whether the bucket has versions, and the store's time.
    page_size
        Objects or versions that S3 lists at once.
    limit
        At most so many arrivals.
    seconds
        Nothing more is begun after this; one object always is looked at.
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        rules: Rules,
        ledger: Ledger,
        *,
        versioned: bool,
        moment: dt.datetime,
        page_size: int,
        limit: int,
        seconds: float,
    ) -> None:
        self.arrivals: list[LandedObject] = []
        self.waiting: Counter[str] = Counter()
        self._client = client
        self._bucket = bucket
        self._rules = rules
        self._ledger = ledger
        self._versioned = versioned
        self._moment = moment
        self._page_size = page_size
        self._limit = limit
        self._ends = time.monotonic() + seconds
        self._current = ledger.current_keys(None, None)
        self._seen: set[str] = set()  # keys that are there
        self._told: set[str] = set()  # keys that messages have told of
        self._markers: dict[str, LandedObject | None] = {}

    def walk(self, after: str | None, *, net: bool) -> tuple[str | None, bool]:
        """Look at what is listed after a key, page by page.

        Parameters
        ----------
        after
            Where to begin; None for the beginning.
        net
            Look at one page, as the safety net beneath a queue.

        Returns
        -------
        tuple
            Where the next look goes on, None for the beginning, and whether the end was reached.
        """
        pages = version_pages if self._versioned else object_pages
        for page in pages(self._client, self._bucket, self._rules.prefix, after, self._page_size):
            self._moment = page.moment
            self._seen.update(listed.key for listed in page.listed)
            for key in self._missing(page):
                gone = latest(self._client, self._bucket, key) is None
                if gone and not self._take(self._news(Listed(key, ()))):
                    return page.after, False
                if not self._has_time():
                    return page.after, False
            looked_at = page.after
            for listed in page.listed:
                if self._counts(listed, net=net) and not self._take(self._news(listed)):
                    return looked_at, False
                looked_at = listed.key
                if not self._has_time():
                    return looked_at, False
            if net:
                return page.until, page.until is None
        return None, True

    def hear(self, queue: EventQueue) -> None:
        """Look at what messages tell of; those whose news the ledger has are taken off the queue.

        In a bucket with versions an event says where to look: the versions themselves tell more.
        """
        messages = queue.receive(self._limit, self._has_time)
        events = in_order(
            event
            for message in messages
            for event in message.events
            if self._rules.takes(event.key)
        )
        news_of = self._news_of_versions if self._versioned else self._news_of_events
        untold: set[LandedObject] = set()
        for key, group in groupby(events, lambda event: event.key):
            self._told.add(key)
            told = [*group]
            if not self._has_time():
                untold.update(told)
                continue
            news = news_of(told)
            if news:
                untold.update(told if self._versioned else news)
                self._take(news)
        queue.delete(message for message in messages if untold.isdisjoint(message.events))

    def _has_time(self) -> bool:
        return time.monotonic() < self._ends

    def _take(self, news: Sequence[LandedObject]) -> bool:
        """Add news of one key to the arrivals, until one has to wait; say whether there was room.

        What came later waits for what came earlier.
        """
        for found in news:
            waits_for = self._waits_for(found)
            if waits_for:
                self.waiting[waits_for] += 1
                return True
            if len(self.arrivals) >= self._limit:
                return False
            self.arrivals.append(found)
        return True

    def _waits_for(self, found: LandedObject) -> str | None:
        if found.deleted:
            return None
        if not found.size:
            return EMPTY
        age = self._moment - found.last_modified
        if self._rules.settle_seconds > max(0.0, age.total_seconds()):
            return UNSETTLED
        return UNMARKED if self._rules.success_marker and not self._is_marked(found) else None

    def _is_marked(self, found: LandedObject) -> bool:
        key = "".join([*found.key.rpartition("/")[:2], MARKER])
        if key not in self._markers:
            self._markers[key] = latest(self._client, self._bucket, key)
        marker = self._markers[key]
        # An event's time has milliseconds; S3's has whole seconds.
        written = found.last_modified.replace(microsecond=0)
        return marker is not None and marker.last_modified >= written

    def _counts(self, listed: Listed, *, net: bool) -> bool:
        """Tell whether what is listed under a key is to be compared with the ledger."""
        told = net and not self._versioned and bool(self._ledger.entries(listed.key))
        return self._rules.takes(listed.key) and not told and listed.key not in self._told

    def _missing(self, page: Page) -> list[str]:
        """Return the keys that the ledger has, the page should list and no page so far has."""
        first = 0 if page.after is None else bisect_right(self._current, page.after)
        last = None if page.until is None else bisect_right(self._current, page.until)
        return [key for key in self._current[first:last] if key not in self._seen]

    def _news(self, listed: Listed) -> list[LandedObject]:
        """Return what the ledger does not have of a key, oldest first.

        An empty version is none, unless it is what is there: it may be filled yet. What is there is
        among the news whenever the ledger has something else as current: a version may come back,
        when those after it are deleted for good.
        """
        entries = self._ledger.entries(listed.key)
        current = self._ledger.current(listed.key)
        there = listed.versions[0] if listed.versions and listed.marker is None else None
        news = [
            self._as_arrival(version)
            for version in reversed(listed.versions)
            if (version.size or version is there)
            and not any(_is_same(entry, version) for entry in entries)
        ]
        if there is None:
            if listed.marker is not None and (news or current is not None):
                return [*news, listed.marker]
            if current is not None:
                moment = current.last_modified
                return [LandedObject(listed.key, "", moment, size=0, deleted=True)]
            return news
        is_current = current is not None and _is_same(current, there)
        if there.size and any(_is_same(entry, there) for entry in entries):
            return [*news, self._as_arrival(there)] if news or not is_current else []
        return news

    def _as_arrival(self, found: LandedObject) -> LandedObject:
        if found.version_id is not None:
            return found
        return replace(found, generation=len(self._ledger.entries(found.key)) + 1)

    def _news_of_versions(self, events: Sequence[LandedObject]) -> list[LandedObject]:
        key = events[0].key
        listed = versions_of(self._client, self._bucket, key, self._page_size)
        there = {version.version_id for version in listed.versions}
        lost = [  # deleted for good before anybody looked
            event
            for event in events
            if event.version_id is not None
            and event.size
            and event.version_id not in there
            and not self._ledger.knows(key, version_id=event.version_id)
        ]
        return [*lost, *self._news(listed)]

    def _news_of_events(self, events: Sequence[LandedObject]) -> list[LandedObject]:
        return [event for event in events if self._is_news(event)]

    def _is_news(self, event: LandedObject) -> bool:
        if event.deleted:
            # Whether it is still deleted says the store; what came since has an event of its own.
            return (
                self._ledger.current(event.key) is not None
                and latest(self._client, self._bucket, event.key) is None
            )
        return event.size > 0 and not is_known(self._ledger, event)


def is_known(ledger: Ledger, found: LandedObject) -> bool:
    """Tell whether the ledger has an arrival as it was seen."""
    return ledger.knows(
        found.key,
        version_id=found.version_id,
        sequencer=found.sequencer,
        etag=found.etag,
        last_modified=found.last_modified,
        generation=found.generation,
    )


def _is_same(entry: Entry, found: LandedObject) -> bool:
    """Tell whether an entry is of this version of an object."""
    if found.version_id is not None:
        return entry.version_id == found.version_id
    return entry.is_listed_as(found.etag, found.last_modified)
