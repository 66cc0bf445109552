"""Whatever happens to the sensor and its runs, every version is ingested exactly once.

Random sequences of what writers do and of what goes wrong, in three modes: a bucket without
versions, where that is promised of every version that a run was requested for; a bucket with
versions; and one without versions whose events come through a queue, where it is promised of every
version there ever was. The expectation comes from the writers' log.
"""

import itertools
import logging
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from dagster import DagsterInstance, DagsterRunStatus

from recsys_assets.automation import new_ratings
from recsys_assets.domain.ratings.ledger import COUNTING, Entry, Ledger, State
from recsys_assets.resources.landing import LandedObject, read_ledger
from recsys_assets.resources.landing.ledgers import ledger_of
from recsys_assets_tests.automation.landing_world import (
    HOUR,
    KILLS,
    PASSING,
    VERSIONED_BUCKET,
    Clock,
    Daemon,
    Fault,
    Put,
    Queue,
    World,
    Written,
    hurried,
    ratings,
    videos_in,
)
from recsys_assets_tests.sagemaker_local.endpoint import BUCKET

pytestmark = pytest.mark.xdist_group("landing")

UNVERSIONED, VERSIONED, EVENTS = MODES = ("unversioned", "versioned", "events")

NAMES = ("a.csv", "b/one.csv", "b/two.csv", "c d+e%20f.csv", "späß.csv", "日本/x.csv", "z/z/z.csv")
IGNORED = ("_temporary/a.csv", "b/.hidden.csv", "README.csv", "b/_SUCCESS")
MALFORMED = "no event"

_prefixes = (f"property-{number}" for number in itertools.count())


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Log nothing: what goes wrong here is meant to."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def urls(request: pytest.FixtureRequest, s3_url: str) -> dict[str, str]:
    mode = request.node.callspec.params["mode"]
    return {"s3": s3_url, "sqs": request.getfixturevalue("sqs_url") if mode == EVENTS else ""}


class Story:
    """One random sequence, which its seed tells."""

    def __init__(self, mode: str, seed: int, urls: dict[str, str]) -> None:
        self.mode = mode
        self.rng = rng = random.Random(seed)
        self.clock = Clock()
        self.happened: Counter[str] = Counter()
        queue = Queue(urls["sqs"], rng) if mode == EVENTS else None
        self.world = World(
            urls["s3"],
            bucket=VERSIONED_BUCKET if mode == VERSIONED else BUCKET,
            prefix=next(_prefixes),
            queue=queue,
            sqs_url=urls["sqs"],
            objects_per_run=rng.choice((1, 2, 3, 5, 500)),
            page_size=rng.randint(1, 7),
            deleted=rng.choice(("keep", "forget")),
        )
        self.instance = DagsterInstance.ephemeral()
        self.daemons = [Daemon(self.world, self.instance) for _ in range(rng.choice((1, 1, 2)))]
        self.contents = 0
        self.malformed = 0
        self.grpc_timeout = 60

    def tell(self, operations: int) -> None:
        """Let so many writes happen, with everything else between them; then let it be quiet."""
        with self.instance, hurried(self.clock) as patch:
            patch.setattr(new_ratings, "default_sensor_grpc_timeout", lambda: self.grpc_timeout)
            while self.world.writer.operations.total() < operations:
                for _ in range(self.rng.randint(1, 16)):
                    self.write()
                self.deliver()
                self.befall()
                for daemon in self.daemons:
                    self.step(daemon)
                self.check()
            self.drain()
            self.check()
            self.check_all()
            self.happened["runs"] = len(self.daemons[0].runs())

    # What writers do

    def write(self) -> None:
        rng, writer = self.rng, self.world.writer
        name = rng.choice(NAMES)
        written = writer.log.get(self.world.landing_prefix + name, Written())
        match rng.choices(
            ("new", "earlier", "delete", "empty", "garbage", "ignored"), (50, 20, 20, 5, 3, 2)
        )[0]:
            case "earlier" if written.puts:
                writer.put(name, rng.choice(written.puts).body)
            case "delete" if written.live:
                writer.delete(name)
            case "empty":
                writer.put(name, b"")
            case "garbage":
                self.contents += 1
                writer.put(name, b"no ratings %d" % self.contents)
            case "ignored":
                writer.put(rng.choice(IGNORED), b"anything")
            case _:
                self.contents += 1
                rows = [f"{self.contents}-{row}" for row in range(rng.randint(1, 3))]
                writer.put(name, ratings(*rows))

    def deliver(self) -> None:
        queue = self.world.queue
        if queue is None:
            return
        queue.deliver(self.rng.choice((0.0, 0.3, 0.7, 1.0)))
        queue.expire(self.rng.choice((0.0, 0.5, 1.0)))
        match self.rng.randrange(40):
            case 0 if not self.malformed:
                self.malformed += 1
                queue.send(MALFORMED)
            case 1:
                queue.send('{"Service": "Amazon S3", "Event": "s3:TestEvent"}')
            case 2:
                queue.tell("another-bucket", "a.csv", "1", None)
            case 3:
                queue.tell(self.world.bucket, "another-prefix/a.csv", "1", None)

    # What goes wrong

    def befall(self) -> None:
        """Let things happen to the daemons' machines."""
        rng = self.rng
        self.clock.skew = rng.choice((0, 0, 9 * HOUR, -9 * HOUR))
        self.grpc_timeout = rng.choice((60, 60, 60, 0))
        self.happened["clock is wrong"] += bool(self.clock.skew)
        self.happened["look ends early"] += not self.grpc_timeout
        for daemon in self.daemons:
            if rng.random() < 0.05:
                self.happened["cursor lost"] += 1
                daemon.cursor = rng.choice((None, "not JSON", '{"after": 7}', "[]"))
            daemon.monitor()

    def step(self, daemon: Daemon) -> None:
        """Let a daemon do a tick or go on with one, during which it may be killed."""
        if daemon.requested is None:
            with self.spoilt("tick", 12):
                daemon.evaluate()
            if self.rng.random() < 0.1:
                self.happened["daemon killed after a tick"] += 1
                if self.rng.random() < 0.5:
                    daemon.requested = None
                return
        if daemon.requested and self.rng.random() < 0.1:
            self.happened["daemon killed before a run was started"] += 1
            daemon.create(daemon.requested[0])
            return
        with self.spoilt("run", 40):
            daemon.submit()

    def spoilt(self, what: str, calls: int) -> "Spoilt":
        """Spoil what a daemon does: not at all, at one of its calls, or at all of them."""
        number = self.rng.randrange(calls)
        match self.rng.choices(("fine", "kill", "passing", "outage", "meanwhile"), (9, 4, 3, 1, 3)):
            case ["kill"]:
                return Spoilt(self, f"{what} killed", {number: self.rng.choice(KILLS)})
            case ["passing"]:
                return Spoilt(self, f"{what}: a call failed", {number: self.rng.choice(PASSING)})
            case ["outage"]:
                return Spoilt(self, f"{what}: all calls failed", always=self.rng.choice(PASSING))
            case ["meanwhile"]:
                return Spoilt(self, f"{what}: meanwhile", {number: self.meanwhile})
        return Spoilt(self, f"{what} undisturbed")

    def meanwhile(self, request: Any, send: Callable[[], Any]) -> None:
        """Let others act between two calls: writers, or another daemon with a whole tick."""
        with self.world.calls.spoilt():
            if self.rng.random() < 0.5:
                for _ in range(self.rng.randint(1, 3)):
                    self.write()
                return
            other = Daemon(self.world, self.instance)
            thread = threading.Thread(target=other.tick)  # Dagster's contexts are a thread's own
            thread.start()
            thread.join()

    def drain(self) -> None:
        """Let nothing be written and nothing go wrong until there is nothing to do."""
        self.grpc_timeout = 60
        self.clock.skew = 0.0
        if self.world.queue is not None:
            self.world.queue.deliver()
        for daemon in self.daemons:
            daemon.monitor()
            daemon.submit()
        (daemon, *_) = self.daemons
        quiet = 0
        enough = 2 * len(NAMES + IGNORED) if self.mode == EVENTS else 2  # one page a tick, or all
        for _ in range(2000):
            self.clock.skew += HOUR  # past all pauses
            reason = daemon.tick().skip_reason
            is_quiet = reason is not None and str(reason.skip_message).startswith("Nothing new")
            quiet = quiet + 1 if is_quiet else 0
            if self.is_empty() and quiet >= enough:
                return
        pytest.fail(f"never quiet: {reason}")

    def is_empty(self) -> bool:
        """Tell whether the queue is, but for what is left there; else what it has comes again."""
        queue = self.world.queue
        if queue is None:
            return True
        queue.expire()
        return queue.size() == self.malformed

    # What is expected

    def check(self) -> None:
        """Check what holds at any time."""
        ledger = self.world.ledger
        log = self.world.writer.log
        entries: dict[str, list[Entry]] = defaultdict(list)
        for entry in ledger:
            entries[entry.key].append(entry)
        rows: Counter[str] = Counter()
        for key, found in entries.items():
            puts = [put for put in log[key].puts if put.body]
            assert [entry.generation for entry in found] == [*range(1, len(found) + 1)]
            wanted = Counter(map(self.identity_of_put, puts))
            assert Counter(map(self.identity, filter(self.is_identified, found))) <= wanted
            assert Counter(e.etag for e in found) <= Counter(put.etag for put in puts)
            bodies = {put.etag: put.body for put in puts}
            for entry in found:
                videos = videos_in(bodies[entry.etag])
                assert entry.rows in (None, len(videos))
                assert entry.rejects in (None, 0 if videos else 1)
            counting = [entry for entry in found if entry.state in COUNTING]
            assert len(counting) <= 1
            for entry in counting:
                assert entry.rows is not None
                rows.update(videos_in(bodies[entry.etag]))
        assert self.world.videos() == rows

    def identity(self, entry: Entry) -> tuple[Any, ...]:
        match self.mode:
            case "versioned":
                return (entry.version_id,)
            case "events":
                return entry.etag, entry.sequencer
        return entry.etag, entry.last_modified

    def is_identified(self, entry: Entry) -> bool:
        """Tell apart what was found by looking: it has no sequencer before its event comes."""
        return self.mode != EVENTS or entry.sequencer is not None

    def identity_of_put(self, put: Put) -> tuple[Any, ...]:
        match self.mode:
            case "versioned":
                return (put.version_id,)
            case "events":
                return put.etag, put.sequencer
        return put.etag, put.last_modified

    def check_all(self) -> None:
        """Check what holds when all is quiet."""
        head, ledger = read_ledger(self.world.store, self.world.landing.id)
        log = self.world.writer.log
        for name in NAMES:
            key = self.world.landing_prefix + name
            if key in log:
                self.check_key(ledger, key, log[key])
        if head.version is not None:
            current = self.world.store.require("raw_ratings")
            assert [*ledger_of(self.world.store, current)] == [*ledger]
            assert head.version.run_id in self.daemons[0].told()
        if self.world.queue is not None:
            assert self.world.queue.size() == self.malformed

    def check_key(self, ledger: Ledger, key: str, written: Written) -> None:
        puts = [put for put in written.puts if put.body]
        found = Counter(map(self.identity, ledger.entries(key)))
        wanted = Counter(map(self.identity_of_put, puts))
        if self.mode == UNVERSIONED:
            assert self.requested(key) <= set(found)
            assert found <= wanted
        else:
            assert found == wanted
        if self.mode == VERSIONED:
            assert all(entry.rows is not None for entry in ledger.entries(key))
        current = ledger.current(key)
        if written.live is None:
            assert current is None
            counting = {entry.state for entry in ledger.entries(key)} & COUNTING
            assert counting <= ({State.KEPT} if self.world.landing.deleted == "keep" else set())
        elif written.live.body:
            assert current is not None
            assert self.identity(current) == self.identity_of_put(written.live)

    def requested(self, key: str) -> set[tuple[Any, ...]]:
        """Return the identities of what runs that were started were requested for."""
        runs = [run for run in self.daemons[0].runs() if run.status != DagsterRunStatus.NOT_STARTED]
        configs: list[Any] = [run.run_config for run in runs]
        arrivals = [
            LandedObject.from_json(arrival)
            for config in configs
            for arrival in config["ops"]["raw_ratings"]["config"]["arrivals"]
        ]
        return {
            (found.etag, found.last_modified)
            for found in arrivals
            if found.key == key and not found.deleted
        }


class Spoilt:
    """A ``with`` block during which calls are spoilt, and that ends when its process is killed."""

    def __init__(
        self,
        story: Story,
        name: str,
        plan: dict[int, Fault] | None = None,
        always: Fault | None = None,
    ) -> None:
        self._story = story
        self._name = name
        self._fails = bool(plan or always)
        self._spoilt = story.world.calls.spoilt(plan, always)

    def __enter__(self) -> None:
        self._story.happened[self._name] += 1
        self._spoilt.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> bool:
        killed = self._story.world.calls.killed
        self._spoilt.__exit__(None, None, None)
        return killed or (self._fails and isinstance(error, BotoCoreError | ClientError))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(2))
def test_every_version_is_ingested_exactly_once_whatever_happens(
    mode: str, seed: int, urls: dict[str, str]
) -> None:
    Story(mode, seed, urls).tell(operations=60)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_ten_thousand_operations_later_every_version_has_been_ingested_exactly_once(
    mode: str, urls: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    happened: Counter[str] = Counter()
    seeds = itertools.count(1000)
    while sum(happened[name] for name in ("put", "overwritten", "deleted")) < 3400:
        story = Story(mode, next(seeds), urls)
        story.tell(operations=120)
        happened += story.happened + story.world.writer.operations
        happened["sequences"] += 1
    with capsys.disabled():
        print(f"\n{mode}: {dict(happened.most_common())}")  # noqa: T201
