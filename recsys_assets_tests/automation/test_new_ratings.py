"""The sensor for new ratings, one promise at a time; the property test has them all at once."""

import itertools
import json
import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    Failure,
    RunRequest,
    SensorResult,
)

from recsys_assets.automation import new_ratings
from recsys_assets.automation.config import AutomationConfig, LandingConfig
from recsys_assets.automation.new_ratings import LANDING_TAG, new_ratings_sensor
from recsys_assets.definitions import defs
from recsys_assets.domain.ratings.ledger import Entry, Ledger, State
from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.landing import Landing, read_ledger
from recsys_assets.resources.landing.ledgers import LEDGER
from recsys_assets.resources.landing.listing import object_pages
from recsys_assets.resources.landing.looking import Rules
from recsys_assets.resources.object_store import Head
from recsys_assets_tests.automation.landing_world import (
    HOUR,
    VERSIONED_BUCKET,
    Clock,
    Daemon,
    KilledError,
    Queue,
    World,
    hang_up,
    hurried,
    kill_after,
    kill_before,
    notification,
    ratings,
    refuse,
)
from recsys_assets_tests.sagemaker_local.endpoint import BUCKET, aws_client

pytestmark = pytest.mark.xdist_group("landing")

_prefixes = (f"sensor-{number}" for number in itertools.count())


@pytest.fixture
def clock() -> Iterator[Clock]:
    """The clock of the sensor's machine; nothing is waited for long."""
    clock = Clock()
    with hurried(clock):
        yield clock


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as instance:
        yield instance


def daemon_of(s3_url: str, instance: DagsterInstance, clock: Clock, **options: Any) -> Daemon:
    """Return a daemon that looks at a landing of its own."""
    return Daemon(World(s3_url, prefix=next(_prefixes), **options), instance)


@pytest.fixture
def daemon(s3_url: str, instance: DagsterInstance, clock: Clock) -> Daemon:
    return daemon_of(s3_url, instance, clock)


def names(result: SensorResult) -> list[str]:
    """Return the names of the objects that a tick requested a run for."""
    return [arrival["key"].partition("/landing/")[2] for arrival in arrivals(result)]


def arrivals(result: SensorResult) -> list[dict[str, Any]]:
    config: dict[str, Any] = request(result).run_config
    found: list[dict[str, Any]] = config["ops"]["raw_ratings"]["config"]["arrivals"]
    return found


def request(result: SensorResult) -> RunRequest:
    assert result.run_requests, result.skip_reason
    (only,) = result.run_requests
    return only


def skipped(result: SensorResult) -> str:
    assert result.skip_reason is not None, result.run_requests
    message = result.skip_reason.skip_message
    assert message is not None
    return message


def states(daemon: Daemon, name: str) -> list[State]:
    key = daemon.world.landing_prefix + name
    return [entry.state for entry in daemon.world.ledger.entries(key)]


# What is noticed


def test_new_overwritten_and_deleted_keys_are_noticed_once_each(daemon: Daemon) -> None:
    writer = daemon.world.writer
    writer.put("a.csv", ratings("1"))
    writer.put("deep/er/b.csv", ratings("2"))
    assert names(daemon.tick()) == ["a.csv", "deep/er/b.csv"]
    assert "Nothing new" in skipped(daemon.tick())
    writer.put("a.csv", ratings("3"))
    assert names(daemon.tick()) == ["a.csv"]
    assert daemon.world.videos() == {"2": 1, "3": 1}
    writer.delete("a.csv")
    result = daemon.tick()
    assert [(each["key"], each["deleted"]) for each in arrivals(result)] == [
        (f"{daemon.world.landing_prefix}a.csv", True)
    ]
    assert states(daemon, "a.csv") == [State.SUPERSEDED, State.KEPT]
    assert "Nothing new" in skipped(daemon.tick())


def test_every_version_between_two_ticks_is_noticed_where_the_bucket_has_versions(
    s3_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    daemon = daemon_of(s3_url, instance, clock, bucket=VERSIONED_BUCKET, deleted="forget")
    writer = daemon.world.writer
    for video in ("1", "2"):
        writer.put("a.csv", ratings(video))
    writer.delete("a.csv")
    writer.put("a.csv", ratings("3"))
    assert names(daemon.tick()) == ["a.csv"] * 3
    assert states(daemon, "a.csv") == [State.SUPERSEDED, State.SUPERSEDED, State.CURRENT]
    writer.put("a.csv", ratings("4"))
    writer.delete("a.csv")
    assert [each.get("deleted", False) for each in arrivals(daemon.tick())] == [False, True]
    assert daemon.world.videos() == {}
    assert "Nothing new" in skipped(daemon.tick())


def test_a_version_counts_again_when_what_came_after_it_is_deleted_for_good(
    s3_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    daemon = daemon_of(s3_url, instance, clock, bucket=VERSIONED_BUCKET)
    world = daemon.world
    world.writer.put("a.csv", ratings("1"))
    second = world.writer.put("a.csv", ratings("2"))
    daemon.tick()
    assert world.videos() == {"2": 1}
    world.s3.delete_object(Bucket=VERSIONED_BUCKET, Key=second.key, VersionId=second.version_id)
    daemon.tick()
    assert world.videos() == {"1": 1}
    assert "Nothing new" in skipped(daemon.tick())


def test_what_was_there_before_a_bucket_had_versions_is_not_ingested_again(
    s3_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    bucket = "versions-later"
    s3 = aws_client("s3", s3_url)
    s3.create_bucket(Bucket=bucket)
    daemon = daemon_of(s3_url, instance, clock, bucket=bucket)
    daemon.world.writer.put("a.csv", ratings("1"))
    daemon.tick()
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert "Nothing new" in skipped(daemon.tick())
    daemon.world.writer.put("a.csv", ratings("2"))
    daemon.tick()
    assert states(daemon, "a.csv") == [State.SUPERSEDED, State.CURRENT]


def test_a_file_that_goes_a_b_a_is_three_arrivals_though_all_share_a_second(
    daemon: Daemon,
) -> None:
    keys = set()
    for body in (ratings("1"), ratings("2"), ratings("1")):
        daemon.world.writer.put("a.csv", body)
        keys.add(request(daemon.tick()).run_key)
    assert len(keys) == 3
    assert states(daemon, "a.csv") == [State.SUPERSEDED, State.SUPERSEDED, State.CURRENT]
    assert daemon.world.videos() == {"1": 1}


def test_a_file_that_is_put_and_deleted_twice_within_a_second_is_noticed_each_time(
    s3_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    daemon = daemon_of(s3_url, instance, clock, deleted="forget")
    for _ in range(2):
        daemon.world.writer.put("a.csv", ratings("1"))
        daemon.tick()
        assert daemon.world.videos() == {"1": 1}
        daemon.world.writer.delete("a.csv")
        daemon.tick()
        assert daemon.world.videos() == {}
    assert len(daemon.runs()) == 4


def test_a_key_that_arrives_late_with_an_old_time_is_noticed(daemon: Daemon) -> None:
    world = daemon.world
    world.writer.put("m.csv", ratings("1"))
    daemon.tick()
    old = world.writer.put("a.csv", ratings("2"))

    def years_ago(request: Any, send: Any) -> AWSResponse | None:
        # As S3 does of what was begun long ago and came to its end now.
        answer = send()
        if "list-type" in request.url:
            text = answer.content.decode()
            before, found, after = text.partition(old.key)
            answer._content = (
                before + found + re.sub(r">2\d\d\d-", ">2001-", after, count=1)
            ).encode()
        return answer

    with world.calls.spoilt(always=years_ago):
        result = daemon.evaluate()
    assert names(result) == ["a.csv"]
    assert arrivals(result)[0]["last_modified"].startswith("2001-")


def test_names_that_are_no_ratings_are_passed_over() -> None:
    rules = Rules("in/", "*.csv", settle_seconds=0, success_marker=False)
    assert [
        name
        for name in (
            "in/a.csv",
            "in/b/c d.csv",
            "in/_SUCCESS.csv",
            "in/_temporary/0/a.csv",
            "in/.hidden/a.csv",
            "in/README.csv",
            "in/b/LICENSE.csv",
            "in/a.csv.tmp",
            "in/folder.csv/",
            "other/a.csv",
        )
        if rules.takes(name)
    ] == ["in/a.csv", "in/b/c d.csv"]


def test_a_landing_is_the_folder_of_its_uri_and_not_its_namesakes(
    s3_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    daemon = daemon_of(s3_url, instance, clock)
    world = daemon.world
    beside = world.landing_prefix.rstrip("/") + "-2/a.csv"
    world.s3.put_object(Bucket=BUCKET, Key=beside, Body=ratings("1"))
    bare = world.landing.uri.rstrip("/")
    assert Landing(aws=world.landing.aws, uri=bare).id == world.landing.id
    assert "Nothing new" in skipped(daemon.tick())


# What has to wait


def test_an_object_is_taken_when_it_has_settled_by_the_stores_clock_whatever_the_machines(
    s3_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    daemon = daemon_of(s3_url, instance, clock, settle_seconds=1.5)
    daemon.world.writer.put("a.csv", ratings("1"))
    clock.skew = 9 * HOUR
    assert "waiting: 1 changed a moment ago" in skipped(daemon.tick())
    clock.skew = -9 * HOUR
    ticks = (daemon.tick() for _ in itertools.count())
    assert names(next(result for result in ticks if result.run_requests)) == ["a.csv"]


def test_an_empty_object_waits_and_what_it_replaced_counts_on(daemon: Daemon) -> None:
    writer = daemon.world.writer
    writer.put("a.csv", b"")
    assert "waiting: 1 empty" in skipped(daemon.tick())
    writer.put("a.csv", ratings("1"))
    daemon.tick()
    writer.put("a.csv", b"")
    assert "waiting: 1 empty" in skipped(daemon.tick())
    assert daemon.world.videos() == {"1": 1}


def test_a_folder_waits_for_a_marker_that_is_no_older_than_its_objects(
    s3_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    daemon = daemon_of(s3_url, instance, clock, success_marker=True)
    writer = daemon.world.writer
    writer.put("day/a.csv", ratings("1"))
    writer.put("day/b.csv", ratings("2"))
    writer.put("other/_SUCCESS", b"")
    assert "waiting: 2 without _SUCCESS" in skipped(daemon.tick())
    asked = [call for call in daemon.world.calls.made if call == "HeadObject"]
    with daemon.world.calls.spoilt():
        daemon.evaluate()
    again = [call for call in daemon.world.calls.made if call == "HeadObject"]
    assert len(again) - len(asked) == 1  # for the folder, not for each object
    marker = writer.put("day/_SUCCESS", b"")
    assert names(daemon.tick()) == ["day/a.csv", "day/b.csv"]
    while writer.put("day/a.csv", ratings("3")).last_modified == marker.last_modified:
        pass  # the store's clock has whole seconds
    assert "waiting: 1 without _SUCCESS" in skipped(daemon.tick())


# Batches, pages and the cursor


def test_a_run_gets_no_more_objects_than_the_cap_and_the_next_goes_on(
    s3_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    daemon = daemon_of(s3_url, instance, clock, objects_per_run=2)
    for name in "abcde":
        daemon.world.writer.put(f"{name}.csv", ratings(name))
    assert [names(daemon.tick()) for _ in range(3)] == [
        ["a.csv", "b.csv"],
        ["c.csv", "d.csv"],
        ["e.csv"],
    ]
    assert "Nothing new" in skipped(daemon.tick())
    assert sorted(daemon.world.videos()) == [*"abcde"]


def test_more_than_a_thousand_keys_are_looked_at_across_ticks_with_a_cursor_that_is_a_key(
    s3_url: str, instance: DagsterInstance, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = daemon_of(s3_url, instance, clock, objects_per_run=400)
    world = daemon.world
    keys = [f"{world.landing_prefix}{number:05}.csv" for number in range(1050)]
    fill(world, keys)
    found: list[str] = []
    while True:
        result = daemon.evaluate()  # no run is made: a position is all that is remembered
        found += [arrival["key"] for arrival in arrivals(result)]
        daemon.cursor = result.cursor
        after = json.loads(str(result.cursor))["after"]
        if after is None:
            break
        assert after == found[-1]
        assert len(str(result.cursor)) < 100
    assert found == keys


def fill(world: World, keys: list[str]) -> None:
    with ThreadPoolExecutor(16) as pool:
        put = world.s3.put_object
        for _ in pool.map(lambda key: put(Bucket=world.bucket, Key=key, Body=b"x"), keys):
            pass


def test_a_look_that_runs_out_of_time_goes_on_within_the_page(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        daemon.world.writer.put(f"{name}.csv", ratings(name))
    monkeypatch.setattr(new_ratings, "default_sensor_grpc_timeout", lambda: 0)
    found = []
    for _ in range(4):
        result = daemon.evaluate()
        daemon.cursor = result.cursor
        found.append(names(result) if result.run_requests else skipped(result))
    assert found[:3] == [["a.csv"], ["b.csv"], ["c.csv"]]
    assert str(found[3]).startswith("Nothing new")


@pytest.mark.parametrize("cursor", [None, "", "not JSON", "[]", "7", '{"after": 7}', '{"x": "y"}'])
def test_a_cursor_that_is_lost_or_cannot_be_read_is_the_beginning(
    daemon: Daemon, cursor: str | None
) -> None:
    daemon.world.writer.put("a.csv", ratings("1"))
    daemon.cursor = cursor
    assert names(daemon.evaluate()) == ["a.csv"]


@pytest.mark.slow
def test_a_tick_over_a_hundred_thousand_keys_comes_to_the_end_within_its_time(
    s3_url: str, instance: DagsterInstance, clock: Clock, tmp_path: Path
) -> None:
    daemon = daemon_of(s3_url, instance, clock)
    world = daemon.world
    fill(world, [f"{world.landing_prefix}{number:06}.csv" for number in range(100_000)])
    ledger = Ledger()
    for page in object_pages(world.s3, BUCKET, world.landing_prefix, None, 1000):
        for listed in page.listed:
            (found,) = listed.versions
            ledger.add(
                Entry(
                    key=found.key,
                    version_id=None,
                    sequencer=None,
                    etag=found.etag,
                    last_modified=found.last_modified,
                    size=found.size,
                    generation=1,
                    state=State.CURRENT,
                    rows=0,
                    rejects=0,
                    part="part",
                    run_id="run",
                )
            )
    assert len(ledger) == 100_000
    ledger.write(tmp_path / LEDGER)
    world.store.publish(
        "raw_ratings", "run", tmp_path, row_count=0, facts={}, head=Head(world.landing.id)
    )
    world.writer.put("last.csv", ratings("1"))
    result = daemon.evaluate()
    assert names(result) == ["last.csv"]
    assert result.cursor == '{"after": null}'  # else it had stopped for want of time


# Crashes, and two daemons


def test_the_same_arrivals_are_the_same_run_whoever_sees_them_and_however_often(
    daemon: Daemon, instance: DagsterInstance
) -> None:
    daemon.world.writer.put("a.csv", ratings("1"))
    other = Daemon(daemon.world, instance)
    assert request(daemon.evaluate()).run_key == request(other.evaluate()).run_key
    assert len(daemon.submit()) == 1
    assert other.submit() == []
    assert len(daemon.runs()) == 1


def test_a_tick_that_dies_at_any_of_its_calls_changes_nothing(daemon: Daemon) -> None:
    daemon.world.writer.put("a.csv", ratings("1"))
    for number in itertools.count():
        made = len(daemon.world.calls.made)
        try:
            with daemon.world.calls.spoilt({number: kill_before}):
                daemon.evaluate()
        except KilledError:
            assert len(daemon.world.calls.made) == made + number + 1
            assert daemon.cursor is None
            continue
        break
    assert number >= 3  # the head, whether there are versions, a page
    assert names(daemon.tick()) == ["a.csv"]


def test_a_run_that_dies_at_any_of_its_calls_leaves_nothing_lost_and_nothing_twice(
    daemon: Daemon, clock: Clock
) -> None:
    calls = daemon.world.calls
    for number in itertools.count():
        daemon.world.writer.put(f"{number:02}.csv", ratings(str(number)))
        daemon.evaluate()
        made = len(calls.made)
        survived = True
        with calls.spoilt({number: kill_after}):
            try:
                daemon.submit()
            except KilledError:
                survived = False
        if survived:
            break
        # Several objects are read at once: other calls may have been under way.
        assert number < len(calls.made) - made <= number + 4
        daemon.monitor()
        daemon.requested = None
        clock.skew += 2 * HOUR
        daemon.tick()
        assert daemon.world.videos() == {str(landed): 1 for landed in range(number + 1)}
        assert [entry.generation for entry in daemon.world.ledger] == [1] * (number + 1)
        assert len({*daemon.told()}) == len(daemon.told())
    assert number >= 6


def test_what_is_committed_and_dagster_has_not_heard_of_is_told_by_another_run(
    daemon: Daemon,
) -> None:
    daemon.world.writer.put("a.csv", ratings("1"))
    daemon.evaluate()
    with pytest.raises(KilledError), daemon.world.calls.spoilt(dies_when_committed(daemon)):
        daemon.submit()
    daemon.monitor()
    head, _ = read_ledger(daemon.world.store, daemon.world.landing.id)
    assert head.version is not None
    assert daemon.told() == []
    assert arrivals(daemon.tick()) == []
    assert len(daemon.told()) == 1
    assert daemon.world.videos() == {"1": 1}
    assert "Nothing new" in skipped(daemon.tick())


def dies_when_committed(daemon: Daemon) -> dict[int, Any]:
    """Return the plan of a run that dies after the put that commits."""

    def fault(request: Any, send: Any) -> None:
        if request.method == "PUT" and "/heads/" in request.url:
            kill_after(request, send)

    return dict.fromkeys(range(100), fault)


def test_a_run_at_work_is_waited_for_and_one_that_was_never_handed_over_is_started(
    daemon: Daemon, instance: DagsterInstance
) -> None:
    daemon.world.writer.put("a.csv", ratings("1"))
    run = daemon.create(request(daemon.evaluate()))
    assert run.status is DagsterRunStatus.NOT_STARTED
    assert [started.run_id for started in Daemon(daemon.world, instance).runs()] == [run.run_id]
    result = daemon.evaluate()
    assert request(result).run_key == run.tags["dagster/run_key"]
    instance.create_run_for_job(
        daemon.world.job,
        tags={LANDING_TAG: daemon.world.landing.id},
        status=DagsterRunStatus.STARTED,
    )
    assert "is ingesting from" in skipped(daemon.evaluate())


def test_a_run_that_failed_is_tried_again_later_and_later(daemon: Daemon, clock: Clock) -> None:
    daemon.world.writer.put("a.csv", ratings("1"))
    keys = []
    pauses = []
    for _ in range(8):
        keys.append(request(daemon.evaluate()).run_key)
        with daemon.world.calls.spoilt(always=refuse(403, "AccessDenied")):
            daemon.submit()
        clock.skew = 0
        while "The next is started in" in str(daemon.evaluate().skip_reason):
            clock.skew += 60
        pauses.append(clock.skew / 60)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(set(keys)) == 8
    daemon.tick()
    assert daemon.world.videos() == {"1": 1}
    assert "Nothing new" in skipped(daemon.tick())


def test_a_clock_that_is_behind_does_not_put_a_retry_off(daemon: Daemon, clock: Clock) -> None:
    daemon.world.writer.put("a.csv", ratings("1"))
    daemon.evaluate()
    with daemon.world.calls.spoilt(always=refuse(403, "AccessDenied")):
        daemon.submit()
    clock.skew = -9 * HOUR
    assert names(daemon.tick()) == ["a.csv"]


def test_what_a_failed_run_was_to_ingest_is_counted_though_it_has_been_replaced_since(
    daemon: Daemon, clock: Clock
) -> None:
    writer = daemon.world.writer
    writer.put("a.csv", ratings("1"))
    daemon.evaluate()
    with daemon.world.calls.spoilt(always=refuse(403, "AccessDenied")):
        daemon.submit()
    writer.put("a.csv", ratings("2"))
    clock.skew = HOUR
    assert names(daemon.tick()) == ["a.csv", "a.csv"]
    gone, current = daemon.world.ledger.entries(f"{daemon.world.landing_prefix}a.csv")
    assert (gone.state, gone.rows) == (State.SUPERSEDED, None)
    assert (current.state, current.rows) == (State.CURRENT, 1)
    assert "Nothing new" in skipped(daemon.tick())


def test_a_run_that_a_person_started_without_arrivals_and_that_failed_is_followed_by_another(
    daemon: Daemon, instance: DagsterInstance, clock: Clock
) -> None:
    run = instance.create_run_for_job(
        daemon.world.job,
        run_config={"ops": {"raw_ratings": {"config": {"source": "landing"}}}},
        tags={LANDING_TAG: daemon.world.landing.id},
    )
    instance.report_run_failed(run)
    daemon.world.writer.put("a.csv", ratings("1"))
    clock.skew = HOUR
    assert names(daemon.tick()) == ["a.csv"]


def test_a_tick_whose_calls_fail_is_tried_again_by_the_next(daemon: Daemon) -> None:
    daemon.world.writer.put("a.csv", ratings("1"))
    with (
        pytest.raises(ClientError, match="SlowDown"),
        daemon.world.calls.spoilt(always=refuse(503, "SlowDown")),
    ):
        daemon.tick()
    with daemon.world.calls.spoilt({1: hang_up, 3: hang_up}):
        assert names(daemon.tick()) == ["a.csv"]


# Event notifications


def events_daemon(
    s3_url: str, sqs_url: str, instance: DagsterInstance, clock: Clock, **options: Any
) -> tuple[Daemon, Queue]:
    queue = Queue(sqs_url, random.Random(0))
    daemon = daemon_of(s3_url, instance, clock, queue=queue, sqs_url=sqs_url, **options)
    return daemon, queue


def test_every_version_that_events_tell_of_is_counted_and_messages_go_when_it_is(
    s3_url: str, sqs_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    daemon, queue = events_daemon(s3_url, sqs_url, instance, clock)
    for video in ("1", "2", "3"):
        daemon.world.writer.put("a.csv", ratings(video))
    queue.deliver()
    told = queue.size()
    daemon.evaluate()
    assert queue.size() == told  # nothing has been ingested yet
    daemon.submit()
    assert states(daemon, "a.csv") == [State.SUPERSEDED, State.SUPERSEDED, State.CURRENT]
    assert daemon.world.videos() == {"3": 1}
    queue.expire()
    assert "Nothing new" in skipped(daemon.tick())
    assert queue.size() == 0


def test_events_that_come_in_any_order_end_with_the_latest(
    s3_url: str, sqs_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    daemon, queue = events_daemon(s3_url, sqs_url, instance, clock)
    first = daemon.world.writer.put("a.csv", ratings("1"))
    second = daemon.world.writer.put("a.csv", ratings("2"))
    for put in (second, first):
        queue.send(notification(BUCKET, put.key, put.sequencer, put))
        daemon.tick()
        queue.expire()
    assert daemon.world.videos() == {"2": 1}
    assert states(daemon, "a.csv") == [State.CURRENT, State.SUPERSEDED]


def test_what_no_event_has_told_of_is_found_by_looking_and_its_late_event_is_no_other_version(
    s3_url: str, sqs_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    daemon, queue = events_daemon(s3_url, sqs_url, instance, clock)
    put = daemon.world.writer.put("a.csv", ratings("1"))
    assert names(daemon.tick()) == ["a.csv"]
    queue.deliver()
    daemon.tick()
    queue.expire()
    daemon.tick()
    assert queue.size() == 0
    (entry,) = daemon.world.ledger.entries(put.key)
    assert (entry.sequencer, entry.rows) == (put.sequencer, 1)


def test_what_is_found_by_looking_when_its_event_has_been_ingested_is_no_other_version(
    s3_url: str, sqs_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    daemon, queue = events_daemon(s3_url, sqs_url, instance, clock)
    put = daemon.world.writer.put("a.csv", ratings("1"))
    daemon.evaluate()  # by looking: its event is late
    queue.deliver()
    Daemon(daemon.world, instance).tick()
    daemon.submit()
    (entry,) = daemon.world.ledger.entries(put.key)
    assert entry.sequencer == put.sequencer


def test_a_deletion_is_noticed_by_its_event_and_without_it(
    s3_url: str, sqs_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    daemon, queue = events_daemon(s3_url, sqs_url, instance, clock)
    for name in ("a.csv", "b.csv"):
        daemon.world.writer.put(name, ratings(name))
    queue.deliver()
    daemon.tick()
    daemon.world.writer.delete("a.csv")
    queue.deliver()
    daemon.world.s3.delete_object(Bucket=BUCKET, Key=f"{daemon.world.landing_prefix}b.csv")
    daemon.cursor = None
    daemon.tick()
    assert states(daemon, "a.csv") == states(daemon, "b.csv") == [State.KEPT]


def test_a_version_that_is_deleted_for_good_before_anybody_looks_is_counted(
    s3_url: str, sqs_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    daemon, queue = events_daemon(s3_url, sqs_url, instance, clock, bucket=VERSIONED_BUCKET)
    world = daemon.world
    lost = world.writer.put("a.csv", ratings("1"))
    world.writer.put("a.csv", ratings("2"))
    world.s3.delete_object(Bucket=VERSIONED_BUCKET, Key=lost.key, VersionId=lost.version_id)
    queue.deliver()
    daemon.tick()
    assert [entry.rows for entry in world.ledger.entries(lost.key)] == [None, 1]
    queue.expire()
    daemon.tick()
    assert queue.size() == 0


def test_messages_that_are_not_ours_go_and_one_that_cannot_be_read_stays(
    s3_url: str,
    sqs_url: str,
    instance: DagsterInstance,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    daemon, queue = events_daemon(s3_url, sqs_url, instance, clock)
    put = daemon.world.writer.put("README.csv", b"not for us")
    empty = daemon.world.writer.put("empty.csv", b"")
    queue.deliver()
    queue.send(notification("another-bucket", put.key, "01", put))
    queue.send(notification(BUCKET, "another/prefix.csv", "01", empty))
    queue.send('{"Service": "Amazon S3", "Event": "s3:TestEvent"}')
    queue.send("gibberish")
    assert "Nothing new" in skipped(daemon.tick())
    assert queue.size() == 1
    assert "is left where it is: expected an event notification of S3, got 'gibberish'" in (
        caplog.text
    )


def test_a_queue_is_refused_where_the_local_services_stand_in_for_aws(
    s3_url: str, instance: DagsterInstance, clock: Clock
) -> None:
    daemon = daemon_of(s3_url, instance, clock)
    landing = Landing(
        aws=AwsClients(local=True), uri=daemon.world.landing.uri, queue_url="http://queue"
    )
    landing._clients["s3", 5.0] = daemon.world.s3
    with pytest.raises(Failure, match=r"landing.queue_url is for RECSYS_ENV=aws"):
        landing.look(Ledger(), budget_seconds=10)


# Definitions


def test_the_sensor_runs_by_default_and_looks_as_often_as_the_configuration_says() -> None:
    sensor = new_ratings_sensor(AutomationConfig(landing=LandingConfig(interval_seconds=77)))
    assert sensor.default_status is DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 77
    assert sensor.name in {each.name for each in defs.sensors or ()}
    assert new_ratings.INGEST_JOB in {job.name for job in defs.jobs or ()}


def test_without_a_bucket_it_is_said_which_setting_is_missing() -> None:
    landing = Landing(aws=AwsClients(local=False), uri="s3:///landing/")
    with pytest.raises(Failure, match="RECSYS_BUCKET"):
        landing.look(Ledger(), budget_seconds=1)
