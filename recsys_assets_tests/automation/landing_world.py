"""A landing, those who write to it, and the daemons that look at it, all of which may fail.

What belongs here: writing with a log of what was written, driving the sensor and its runs as
Dagster's daemon does, and spoiling their calls. What does not: what is expected of it all.

S3 is the real local store. Dagster's instance is real and in memory; a daemon evaluates the real
sensor and executes the runs that it requests, each once by its run key.
"""

import contextlib
import datetime as dt
import io
import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote_plus

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import BotoCoreError, ConnectionClosedError, ReadTimeoutError
from dagster import (
    AssetKey,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    Definitions,
    IOManagerDefinition,
    ResourceDefinition,
    RunRequest,
    RunsFilter,
    SensorResult,
    build_sensor_context,
    define_asset_job,
    in_process_executor,
)
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from recsys_assets.assets.ratings import raw_ratings
from recsys_assets.automation import new_ratings
from recsys_assets.automation.config import AutomationConfig, LandingConfig
from recsys_assets.automation.new_ratings import INGEST_JOB, LANDING_TAG, new_ratings_sensor
from recsys_assets.domain.ratings.ledger import Ledger
from recsys_assets.io_managers import RawRatings, RawRatingsIOManager
from recsys_assets.resources import patience, retries
from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.landing import Landing, looking, read_ledger
from recsys_assets.resources.object_store import ObjectStore
from recsys_assets_tests.contract.environments import MOTO
from recsys_assets_tests.sagemaker_local.endpoint import (
    BUCKET,
    CREDENTIALS,
    aws_client,
    eventually,
    free_port,
)

RUN_KEY_TAG = "dagster/run_key"
_HIDDEN_SECONDS = (
    2  # those of messages that nobody knows to have been taken, for the answer got lost
)
VERSIONED_BUCKET = "landing-with-versions"
HOUR = 3600.0

Send = Callable[[], AWSResponse]
Fault = Callable[[Any, Send], AWSResponse | None]
"""What happens to a call; None lets it through."""


class KilledError(BaseException):
    """The process is gone: nothing of it runs any more, and Dagster hears no more of it."""


# Faults


def kill_before(request: Any, send: Send) -> None:
    raise KilledError


def kill_after(request: Any, send: Send) -> None:
    send()
    raise KilledError


def hang_up(request: Any, send: Send) -> None:
    raise ConnectionClosedError(endpoint_url=request.url)


def lose_answer(request: Any, send: Send) -> None:
    send()
    raise ReadTimeoutError(endpoint_url=request.url)


def refuse(status: int, code: str) -> Fault:
    def fault(request: Any, send: Send) -> AWSResponse:
        body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        if "amz-json" in str(request.headers.get("Content-Type")):
            body = json.dumps({"__type": code, "message": "injected"}).encode()
        headers = {"date": format_datetime(dt.datetime.now(dt.UTC), usegmt=True)}
        return AWSResponse(request.url, status, headers, _Raw(body))

    return fault


class _Raw(io.BytesIO):
    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


PASSING = (hang_up, lose_answer, refuse(503, "SlowDown"), refuse(500, "InternalError"))
KILLS = (kill_before, kill_after)


class Calls:
    """The platform's calls to S3 and SQS, counted, and what is to happen to which of them."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.receipts: list[str] = []
        self.killed = False
        self._plan: dict[int, Fault] = {}
        self._always: Fault | None = None

    @contextlib.contextmanager
    def spoilt(
        self, plan: Mapping[int, Fault] | None = None, always: Fault | None = None
    ) -> Iterator[None]:
        """Spoil calls of the ``with`` block: some by their number, from 0, or all."""
        before = self._plan, self._always
        start = len(self.made)
        self._plan = {start + number: fault for number, fault in (plan or {}).items()}
        self._always = always
        try:
            yield
        finally:
            self._plan, self._always = before
            self.killed = False

    def watch(self, client: Any) -> None:
        session = client._endpoint.http_session

        def before_send(request: Any, event_name: str, **_: Any) -> AWSResponse | None:
            if self.killed:
                raise KilledError
            number = len(self.made)
            self.made.append(event_name.rpartition(".")[2])
            fault = self._plan.get(number, self._always)
            try:
                return None if fault is None else fault(request, lambda: session.send(request))
            except KilledError:
                self.killed = True
                raise

        def received(parsed: Mapping[str, Any], **_: Any) -> None:
            self.receipts += [each["ReceiptHandle"] for each in parsed.get("Messages", [])]

        client.meta.events.register("before-send", before_send)
        client.meta.events.register("after-call.sqs.ReceiveMessage", received)


_CALLS = Calls()
_CLIENTS: dict[tuple[Any, ...], Any] = {}


class WatchedClients(AwsClients):
    """Clients as on AWS, whose calls are counted and spoilt; they are made once in a process."""

    urls: dict[str, str]

    def client(self, service: str, patience_seconds: float | None = None) -> Any:
        made = self.urls[service], service, patience_seconds, self.patience_seconds
        if made not in _CLIENTS:
            at = AwsClients(**{**self._own(), "endpoint_url": self.urls[service]})
            _CLIENTS[made] = at.client(service, patience_seconds)
            _CALLS.watch(_CLIENTS[made])
        return _CLIENTS[made]

    def _own(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in AwsClients.model_fields}


# Writing


@dataclass(frozen=True)
class Put:
    """A version of an object, as the store answered for it."""

    key: str
    body: bytes
    etag: str
    last_modified: dt.datetime
    version_id: str | None
    sequencer: str


@dataclass
class Written:
    """What was written under a key."""

    puts: list[Put] = field(default_factory=list)
    live: Put | None = None


def ratings(*videos: str) -> bytes:
    rows = "".join(f"customer,{video},3\n" for video in videos)
    return f"customer_id,video_id,rating\n{rows}".encode()


def videos_in(body: bytes) -> list[str]:
    """Return the videos that a body rates; one that is no table rates none."""
    if not body.startswith(b"customer_id"):
        return []
    return [line.split(",")[1] for line in body.decode().splitlines()[1:]]


class Writer:
    """Somebody who writes to a landing and logs it; their calls are never spoilt."""

    def __init__(self, s3: Any, bucket: str, prefix: str, queue: "Queue | None") -> None:
        self.log: dict[str, Written] = {}
        self.operations: Counter[str] = Counter()
        self._s3 = s3
        self._bucket = bucket
        self._prefix = prefix
        self._queue = queue
        self._events = 0

    def put(self, name: str, body: bytes) -> Put:
        key = self._prefix + name
        answer = self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)
        moment = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        if "VersionId" not in answer:  # by which it is known, else by this
            found = self._s3.head_object(Bucket=self._bucket, Key=key)
            moment = found["LastModified"].astimezone(dt.UTC)
        put = Put(
            key,
            body,
            answer["ETag"].strip('"'),
            moment,
            answer.get("VersionId"),
            self._next_sequencer(),
        )
        written = self.log.setdefault(key, Written())
        self.operations["overwritten" if written.live else "put"] += 1
        written.puts.append(put)
        written.live = put
        if self._queue is not None:
            self._queue.tell(self._bucket, key, put.sequencer, put=put)
        return put

    def delete(self, name: str) -> None:
        key = self._prefix + name
        self._s3.delete_object(Bucket=self._bucket, Key=key)
        self.operations["deleted"] += 1
        self.log.setdefault(key, Written()).live = None
        if self._queue is not None:
            self._queue.tell(self._bucket, key, self._next_sequencer(), put=None)

    def _next_sequencer(self) -> str:
        # S3's are of differing lengths, to be filled up on the right.
        self._events += 1
        return f"0062E99A{self._events:06X}".rstrip("0")


class Queue:
    """An SQS queue that gets the bucket's events: late, twice, in any order and every form."""

    def __init__(self, url: str, rng: random.Random) -> None:
        self._sqs = aws_client("sqs", url)
        self._rng = rng
        self._waiting: list[dict[str, Any]] = []
        attributes = {"VisibilityTimeout": str(_HIDDEN_SECONDS)}
        name = f"landing-{rng.getrandbits(64):x}"
        self.url: str = self._sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    def tell(self, bucket: str, key: str, sequencer: str, put: Put | None) -> None:
        """Make an event of a put or, without one, of a deletion; it is sent later."""
        self._waiting.append({"bucket": bucket, "key": key, "sequencer": sequencer, "put": put})

    def deliver(self, share: float = 1.0) -> None:
        """Send a share of the events that wait, in any order, some of them twice."""
        self._rng.shuffle(self._waiting)
        count = round(share * len(self._waiting))
        sent, self._waiting = self._waiting[:count], self._waiting[count:]
        bodies = [
            body
            for event in sent
            for body in self._rng.choice(([self._form(event)], [self._form(event)] * 2))
        ]
        for start in range(0, len(bodies), 10):
            self._sqs.send_message_batch(
                QueueUrl=self.url,
                Entries=[
                    {"Id": str(number), "MessageBody": body}
                    for number, body in enumerate(bodies[start : start + 10])
                ],
            )

    def send(self, body: str) -> None:
        self._sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def expire(self, share: float = 1.0) -> None:
        """Let the time pass after which a share of the messages taken are handed out again."""
        taken, _CALLS.receipts = _CALLS.receipts, []
        for receipt in taken:
            if self._rng.random() < share:
                with contextlib.suppress(self._sqs.exceptions.ClientError):  # deleted
                    self._sqs.change_message_visibility(
                        QueueUrl=self.url, ReceiptHandle=receipt, VisibilityTimeout=0
                    )
            else:
                _CALLS.receipts.append(receipt)

    def size(self) -> int:
        """Return how many messages there are, taken or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(map(int, answer["Attributes"].values()))

    def _form(self, event: Mapping[str, Any]) -> str:
        form = self._rng.choice((notification, notification, event_bridge))
        body = form(event["bucket"], event["key"], event["sequencer"], event["put"])
        if self._rng.random() < 0.2:
            return json.dumps({"Type": "Notification", "TopicArn": "arn", "Message": body})
        return body


def notification(bucket: str, key: str, sequencer: str | None, put: Put | None) -> str:
    """Return S3's message of a put or, without one, of a deletion."""
    about: dict[str, Any] = {"key": quote_plus(key, safe="/")}
    if sequencer is not None:
        about["sequencer"] = sequencer
    moment = dt.datetime.now(dt.UTC)
    if put is not None:
        about |= {"size": len(put.body), "eTag": put.etag}
        moment = put.last_modified + dt.timedelta(milliseconds=321)
    if put is not None and put.version_id is not None:
        about["versionId"] = put.version_id
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        "eventName": "ObjectCreated:Put" if put else "ObjectRemoved:Delete",
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "landing",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": about,
        },
    }
    return json.dumps({"Records": [record]})


def event_bridge(bucket: str, key: str, sequencer: str | None, put: Put | None) -> str:
    """Return EventBridge's event of a put or, without one, of a deletion."""
    about: dict[str, Any] = {"key": key, "sequencer": sequencer}
    moment = dt.datetime.now(dt.UTC) if put is None else put.last_modified
    if put is not None:
        about |= {"size": len(put.body), "etag": put.etag}
    if put is not None and put.version_id is not None:
        about["version-id"] = put.version_id
    return json.dumps(
        {
            "version": "0",
            "detail-type": "Object Created" if put else "Object Deleted",
            "source": "aws.s3",
            "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "detail": {"version": "0", "bucket": {"name": bucket}, "object": about},
        }
    )


# The platform


class World:
    """A landing of its own, with the platform's resources for it."""

    def __init__(
        self,
        s3_url: str,
        *,
        bucket: str = BUCKET,
        prefix: str,
        queue: Queue | None = None,
        sqs_url: str = "",
        objects_per_run: int = 500,
        patience_seconds: float = 0.02,
        **landing: Any,
    ) -> None:
        self.calls = _CALLS
        self.landing_prefix = f"{prefix}/landing/"
        self.queue = queue
        self.s3 = aws_client("s3", s3_url)
        self.bucket = bucket
        self.writer = Writer(self.s3, bucket, self.landing_prefix, queue)
        aws = WatchedClients(
            local=False,
            urls={"s3": s3_url, "sqs": sqs_url},
            patience_seconds=patience_seconds,
            region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        self.store = ObjectStore(aws=aws, bucket=BUCKET, prefix=prefix)
        self.landing = Landing(
            aws=aws,
            uri=f"s3://{bucket}/{self.landing_prefix}",
            queue_url=queue.url if queue else None,
            **{"settle_seconds": 0, **landing},
        )
        self.io_manager = RawRatingsIOManager(store=self.store)
        config = LandingConfig(objects_per_run=objects_per_run)
        self.sensor = new_ratings_sensor(AutomationConfig(landing=config))
        # Without its checks: these ratings are too few for them.
        self.job = Definitions(
            assets=[raw_ratings],
            jobs=[define_asset_job(INGEST_JOB, selection=[raw_ratings])],
            resources={
                **self.resources(),
                "raw_ratings_io_manager": IOManagerDefinition.hardcoded_io_manager(self.io_manager),
            },
            executor=in_process_executor,
            loggers={},
        ).resolve_job_def(INGEST_JOB)

    def resources(self) -> dict[str, ResourceDefinition]:
        """Return resources that are not made anew for each use, which takes Dagster long."""
        made = {"store": self.store, "landing": self.landing}
        return {key: ResourceDefinition.hardcoded_resource(each) for key, each in made.items()}

    @property
    def ledger(self) -> Ledger:
        return read_ledger(self.store, self.landing.id)[1]

    def videos(self) -> Counter[str]:
        """Count the ratings of each video in what is committed."""
        version = read_ledger(self.store, self.landing.id)[0].version
        if version is None:
            return Counter()
        raw = self.io_manager.load(version, RawRatings)
        return Counter(raw_videos(raw))


def raw_videos(raw: RawRatings) -> list[str]:
    import pyarrow.parquet as pq

    files = (raw.path / "ratings").glob("*.parquet")
    return [video for file in files for video in pq.read_table(file)["video_id"].to_pylist()]


class Daemon:
    """Dagster's daemon: it has the sensor evaluated, and what it requests executed.

    Like Dagster's it remembers the requests of a tick until they are all handed over, and the
    cursor then.
    """

    def __init__(self, world: World, instance: DagsterInstance) -> None:
        self.world = world
        self.instance = instance
        self.cursor: str | None = None
        self.requested: list[RunRequest] | None = None
        self._cursor_of_tick: str | None = None

    def evaluate(self) -> SensorResult:
        """Evaluate the sensor, and remember what it wants."""
        resources = self.world.resources()
        context = build_sensor_context(self.instance, self.cursor, resources=resources)
        result: SensorResult = self.world.sensor(context)
        self.requested = [*(result.run_requests or [])]
        self._cursor_of_tick = result.cursor
        return result

    def submit(self) -> list[DagsterRun]:
        """Execute the runs that were requested and that have not been started."""
        executed = []
        for request in self.requested or []:
            run = self.create(request)
            if run.status is DagsterRunStatus.NOT_STARTED:
                executed.append(run)
                self.execute(run)
        self.requested = None
        self.cursor = self._cursor_of_tick
        return executed

    def tick(self) -> SensorResult:
        """Evaluate the sensor and execute what it requests."""
        result = self.evaluate()
        self.submit()
        return result

    def create(self, request: RunRequest) -> DagsterRun:
        """Return the run of a request's key, which is created if there is none."""
        assert request.run_key is not None
        tags = {RUN_KEY_TAG: request.run_key}
        existing = self.instance.get_runs(RunsFilter(tags=tags))
        if existing:
            return existing[0]
        return self.instance.create_run_for_job(
            self.world.job, run_config=request.run_config, tags={**request.tags, **tags}
        )

    def execute(self, run: DagsterRun) -> None:
        with pytest.MonkeyPatch.context() as patch:
            hears = DagsterInstance.handle_new_event

            def hear(instance: DagsterInstance, *event: Any, **options: Any) -> None:
                if self.world.calls.killed:
                    raise KilledError
                hears(instance, *event, **options)

            patch.setattr(DagsterInstance, "handle_new_event", hear)
            job = InMemoryJob(self.world.job)
            execute_run(job, run, self.instance, raise_on_error=False)

    def monitor(self) -> None:
        """Fail the runs whose process is gone, as run monitoring does."""
        for run in self.instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTED])):
            self.instance.report_run_failed(run, "the run worker is gone")

    def runs(self) -> Sequence[DagsterRun]:
        return self.instance.get_runs(RunsFilter(tags={LANDING_TAG: self.world.landing.id}))

    def told(self) -> list[str]:
        """Return the runs whose raw_ratings Dagster has heard of, the latest first."""
        found = self.instance.fetch_materializations(AssetKey("raw_ratings"), limit=1000)
        return [record.run_id for record in found.records]


class Clock:
    """The wall clock of a sensor's machine, which may be wrong."""

    def __init__(self) -> None:
        self.skew = 0.0

    def time(self) -> float:
        return time.time() + self.skew


@contextlib.contextmanager
def hurried(clock: Clock) -> Iterator[pytest.MonkeyPatch]:
    """Let the sensor see a clock, and the platform try again after no more than milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(new_ratings, "time", clock)
        patch.setattr(looking, "time", SimpleNamespace(monotonic=time.monotonic))
        patch.setattr(patience, "_FIRST_PAUSE_SECONDS", 0.001)
        for name in ("AWAY", "CONFLICT"):
            patch.setattr(retries, name, getattr(retries, name)._replace(delay=0.001))
        yield patch


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[str]:
    """Run moto's SQS; yield its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [MOTO.python, "-m", "moto.server", "--port", str(port)]
    with (folder / "moto.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)

    def answers() -> bool:
        try:
            aws_client("sqs", url).list_queues()
        except BotoCoreError:
            return False
        return True

    try:
        eventually(answers)
        yield url
    finally:
        server.kill()
        server.wait()
