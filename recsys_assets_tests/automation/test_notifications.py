"""People are told of every run that failed and every check that did not pass, once and in time."""

import html
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetsDefinition,
    AssetSelection,
    DagsterInstance,
    DagsterRunStatus,
    Failure,
    asset,
    build_sensor_context,
    materialize,
    multi_asset_check,
)
from dagster._core.storage.tags import (
    AUTO_RETRY_RUN_ID_TAG,
    PARTITION_NAME_TAG,
    RETRY_NUMBER_TAG,
    ROOT_RUN_ID_TAG,
    WILL_RETRY_TAG,
)
from dagster._core.test_utils import create_run_for_test
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.automation import notifications
from recsys_assets.automation.config import NotificationsConfig
from recsys_assets.automation.notifications import notification_sensors
from recsys_assets.resources import notifications as channels
from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.notifications import (
    WEBHOOK_URL,
    ChannelError,
    Message,
    Notifications,
    Topic,
    Webhook,
)
from recsys_assets.settings import SettingsError
from recsys_assets_tests.automation.postgres import postgres_programs, running_postgres
from recsys_assets_tests.automation.receivers import SECRET, Receiver, Sns
from recsys_assets_tests.contract.environments import NoInterpreterError
from recsys_assets_tests.sagemaker_local.endpoint import aws_client

LOCAL = AwsClients(local=True)
RUN_RETRIES = {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}


@dataclass
class Watch:
    """An instance of Dagster and the two sensors, whose cursors are kept as the daemon keeps them.

    Attributes
    ----------
    said
        What the last tick of each sensor said, by its name; the error of one that failed.
    """

    instance: DagsterInstance
    resource: Notifications
    config: NotificationsConfig = field(default_factory=NotificationsConfig)
    cursors: dict[str, str | None] = field(default_factory=dict)
    said: dict[str, str | ChannelError] = field(default_factory=dict)

    def tick(self) -> None:
        for sensor in notification_sensors(self.config):
            with build_sensor_context(
                instance=self.instance,
                cursor=self.cursors.get(sensor.name),
                resources={"notifications": self.resource},
            ) as context:
                try:
                    done = sensor.evaluate_tick(context)
                except ChannelError as error:
                    self.said[sensor.name] = error
                else:
                    self.cursors[sensor.name] = done.cursor
                    self.said[sensor.name] = done.skip_message

    @property
    def failed(self) -> bool:
        """Whether a sensor's last tick did."""
        return any(isinstance(said, ChannelError) for said in self.said.values())

    def run(self, *assets: Any, tags: dict[str, str] | None = None) -> str:
        """Materialize assets and return the run's id."""
        selection = [made for made in assets if type(made) is AssetsDefinition]
        run = materialize(
            [*assets],
            instance=self.instance,
            selection=AssetSelection.assets(*selection),
            tags=tags,
            raise_on_error=False,
        )
        return run.run_id

    def crash(self, **tags: str) -> str:
        """Have the worker of a run crash, as run monitoring notes it down."""
        run = create_run_for_test(
            self.instance, job_name="crashing", status=DagsterRunStatus.STARTED, tags=tags
        )
        self.instance.report_run_failed(run, "Run worker process is gone")
        return run.run_id


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    programs = postgres_programs()
    if programs is None:
        pytest.skip("needs Debian's PostgreSQL in /usr/lib/postgresql")
    with running_postgres(programs) as url:
        yield url


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.xdist_group("notifications")),
        pytest.param(
            "postgres",
            marks=[pytest.mark.slow, pytest.mark.xdist_group("notifications_postgres")],
        ),
    ]
)
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DagsterInstance]:
    settings: dict[str, Any] = {"run_retries": RUN_RETRIES, "telemetry": {"enabled": False}}
    if request.param == "postgres":
        url = request.getfixturevalue("postgres")
        settings["storage"] = {"postgres": {"postgres_url": url}}
    with DagsterInstance.local_temp(str(tmp_path), overrides=settings) as made:
        yield made


@pytest.fixture
def watch(instance: DagsterInstance, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A watch that has looked once, so that all that follows is news."""
    monkeypatch.setattr(notifications, "_SETTLED_SECONDS", 0)
    monkeypatch.setenv(WEBHOOK_URL, receiver.url)
    watch = Watch(instance, Notifications(aws=LOCAL))
    watch.tick()
    return watch


@asset
def broken() -> None:
    raise Failure("no column rating\n in  ratings.csv", allow_retries=False)


@asset
def fine() -> None:
    """Make nothing."""


def checked(*found: AssetCheckResult, blocking: bool = False) -> tuple[AssetsDefinition, Any]:
    """Return an asset whose checks find this."""
    names = [result.check_name for result in found]

    @asset
    def ratings() -> None:
        """Make nothing."""

    @multi_asset_check(
        name="ratings_checks",
        specs=[AssetCheckSpec(name, asset="ratings", blocking=blocking) for name in names],
    )
    def check() -> Iterator[AssetCheckResult]:
        yield from found

    return ratings, check


def result(
    name: str, value: Any = 0.5, severity: str = "ERROR", passed: bool = False
) -> AssetCheckResult:
    return AssetCheckResult(
        asset_key="ratings",
        check_name=name,
        passed=passed,
        severity=AssetCheckSeverity(severity),
        description=f"{name} is too high",
        metadata={"value": value},
    )


def test_a_failed_run_is_told_once_with_its_reason_and_where_to_look(
    watch: Watch, receiver: Receiver
) -> None:
    run_id = watch.run(fine, broken, tags={PARTITION_NAME_TAG: "2024-01-01", "team": "video"})
    watch.tick()
    watch.tick()
    (told,) = receiver.taken
    assert told == {
        "event": "run_failure",
        "title": "a run of broken, fine failed",
        "text": "broken: no column rating in ratings.csv\n"
        "Tags: partition=2024-01-01, team=video\n"
        "It is not tried again by itself.",
        "url": f"http://127.0.0.1:3000/runs/{run_id}",
        "run_id": run_id,
        "job": told["job"],
        "assets": told["assets"],
        "tags": {"partition": "2024-01-01", "team": "video"},
        "attempt": 1,
        "reason": "broken: no column rating in ratings.csv",
        "failed_steps": [{"step": "broken", "reason": "no column rating in ratings.csv"}],
        "checks": [],
    }


def test_a_run_without_a_failed_step_is_told_with_dagsters_own_reason(
    watch: Watch, receiver: Receiver
) -> None:
    watch.crash(**{"dagster/max_retries": "0"})
    watch.tick()
    (told,) = receiver.taken
    assert told["title"] == "crashing failed"
    assert told["reason"] == "Run worker process is gone"


def test_of_many_failed_steps_some_are_told_and_the_rest_counted(
    watch: Watch, receiver: Receiver
) -> None:
    def one(number: int) -> AssetsDefinition:
        @asset(name=f"broken_{number:02}")
        def made() -> None:
            raise ValueError("x" * 10_000)

        return made

    watch.run(*map(one, range(13)))
    watch.tick()
    (told,) = receiver.taken
    assert len(told["failed_steps"]) == 13
    assert "and 3 more" in told["text"]
    assert len(told["text"]) < 8_000


def test_checks_that_block_are_told_with_the_failure_of_their_run_and_not_again(
    watch: Watch, receiver: Receiver
) -> None:
    watch.run(*checked(result("rejected_share"), result("missing", severity="WARN"), blocking=True))
    watch.tick()
    watch.tick()
    (told,) = receiver.taken
    assert told["event"] == "run_failure"
    assert told["reason"] == "ratings_checks: rejected_share: rejected_share is too high"
    assert told["checks"] == [
        {
            "asset": "ratings",
            "check": "rejected_share",
            "severity": "error",
            "blocking": True,
            "description": "rejected_share is too high",
            "value": 0.5,
            "partition": None,
        }
    ]


def test_all_checks_of_one_run_that_did_not_pass_are_one_message(
    watch: Watch, receiver: Receiver
) -> None:
    found = result("a"), result("b", 7), result("c", passed=True), result("d", severity="WARN")
    run_id = watch.run(*checked(*found))
    watch.tick()
    watch.tick()
    (told,) = receiver.taken
    assert told["event"] == "check_failure"
    assert told["title"] == "2 checks did not pass in a run of ratings"
    assert told["text"].splitlines() == [
        "Check a of ratings (error): a is too high (value 0.5)",
        "Check b of ratings (error): b is too high (value 7)",
    ]
    assert told["url"].endswith(run_id)


def test_warnings_are_told_to_who_wants_them(watch: Watch, receiver: Receiver) -> None:
    watch.run(*checked(result("odd", severity="WARN")))
    watch.tick()
    assert receiver.taken == []
    watch.config = NotificationsConfig(check_severity="warn", ui_url="https://dagster.example.com/")
    watch.run(*checked(result("odd", severity="WARN")))
    watch.tick()
    (told,) = receiver.taken
    assert told["checks"][0]["severity"] == "warn"
    assert told["url"].startswith("https://dagster.example.com/runs/")


@pytest.mark.parametrize(
    ("value", "told"),
    [(float("nan"), "nan"), (float("inf"), "inf"), ({"a": 1}, "{'a': 1}"), ("x", "x"), (3, 3)],
)
def test_any_value_of_a_check_can_be_told(
    watch: Watch, receiver: Receiver, value: Any, told: Any
) -> None:
    watch.run(*checked(result("odd", value)))
    watch.tick()
    assert receiver.taken[0]["checks"][0]["value"] == told


def test_what_was_before_the_first_look_is_no_news(
    watch: Watch, receiver: Receiver, instance: DagsterInstance
) -> None:
    watch.run(broken)
    newcomer = Watch(instance, watch.resource)
    newcomer.tick()
    newcomer.tick()
    assert receiver.taken == []
    newcomer.run(broken)
    newcomer.tick()
    assert len(receiver.taken) == 1


def test_with_nobody_to_tell_the_sensors_say_so(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WEBHOOK_URL)
    watch.tick()
    assert len(watch.said) == 2
    assert all(WEBHOOK_URL in str(said) for said in watch.said.values())


def test_runs_that_are_not_failed_are_not_told(watch: Watch, receiver: Receiver) -> None:
    watch.run(fine)
    watch.tick()
    assert receiver.asked == 0


def fail_with(status: int) -> Callable[[Receiver], None]:
    return lambda receiver: receiver.answers.extend([status])


def hang_up(receiver: Receiver) -> None:
    receiver.stop()


FAULTS = {
    "500": (fail_with(500), "it answered 500"),
    "404": (fail_with(404), "it answered 404"),
    "a redirection": (fail_with(302), "it answered 302"),
    "a redirection of the POST": (fail_with(307), "it answered 307"),
    "no answer": (lambda receiver: receiver.answers.append(1.5), "no answer within 0.3 s"),
    "connection refused": (hang_up, "Connection refused"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_webhook_does_not_take_is_told_later_in_order_and_its_address_never(
    watch: Watch,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    monkeypatch.setattr(channels, "_TIMEOUT_SECONDS", 0.3)
    caplog.set_level(logging.DEBUG)
    spoil, said = FAULTS[fault]
    runs = [watch.run(broken), watch.run(*checked(result("a"))), watch.run(broken)]
    before = dict(watch.cursors)
    for _ in range(2):
        spoil(receiver)
        # The sensor of checks passes over failed runs, and so makes progress before it fails.
        spoil(receiver)
        watch.tick()
    assert watch.failed
    error = watch.said["run_failure_notifications"]
    assert isinstance(error, ChannelError)
    assert said in str(error)
    assert receiver.taken == []
    assert watch.cursors["run_failure_notifications"] == before["run_failure_notifications"]
    context = "".join(traceback.format_exception(error)) + repr(error.__context__)
    printed = "".join(capfd.readouterr())
    assert all(SECRET not in text for text in (context, caplog.text, printed, str(watch.said)))

    receiver.answers.clear()
    receiver.start() if fault == "connection refused" else None
    watch.tick()
    watch.tick()
    assert not watch.failed
    failures = [told["run_id"] for told in receiver.taken if told["event"] == "run_failure"]
    assert failures == [runs[0], runs[2]]
    assert sorted(told["run_id"] for told in receiver.taken) == sorted(runs)


def test_what_a_webhook_has_taken_is_not_sent_again_when_it_refuses_the_next(
    watch: Watch, receiver: Receiver
) -> None:
    runs = [watch.run(broken) for _ in range(3)]
    receiver.answers += [200, 500, 500, 500, 200, 200]
    for _ in range(6):
        watch.tick()
    assert [told["run_id"] for told in receiver.taken] == runs
    assert receiver.asked == 6


def test_a_tick_that_leaves_runs_over_is_followed_by_one_that_goes_on(
    watch: Watch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_RUNS_A_TICK", 2)
    runs = []
    for number in range(7):
        runs.append(watch.run(broken if number % 2 else fine))
    watch.tick()
    assert len(receiver.taken) < 3
    for _ in range(4):
        watch.tick()
    assert [told["run_id"] for told in receiver.taken] == runs[1::2]
    assert all(len(str(cursor)) < 40 for cursor in watch.cursors.values())


def test_a_run_that_ended_just_now_waits_for_those_that_are_not_seen_yet(
    watch: Watch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_SETTLED_SECONDS", 60)
    watch.run(broken)
    watch.tick()
    assert receiver.asked == 0
    monkeypatch.setattr(notifications, "_SETTLED_SECONDS", 0)
    watch.tick()
    assert len(receiver.taken) == 1


def test_a_run_that_is_tried_again_is_told_when_its_last_attempt_has_failed(
    watch: Watch, receiver: Receiver, instance: DagsterInstance
) -> None:
    first = watch.crash()
    run = instance.get_run_by_id(first)
    assert run is not None
    assert run.tags[WILL_RETRY_TAG] == "true"  # so says Dagster
    after = watch.run(broken)
    watch.tick()
    assert receiver.taken == []  # it is not known yet, and nobody goes past it

    last = create_run_for_test(
        instance,
        job_name="crashing",
        status=DagsterRunStatus.STARTED,
        parent_run_id=first,
        root_run_id=first,
        tags={RETRY_NUMBER_TAG: "1", ROOT_RUN_ID_TAG: first, "dagster/max_retries": "1"},
    )
    instance.add_run_tags(first, {AUTO_RETRY_RUN_ID_TAG: last.run_id})
    watch.tick()
    assert [told["run_id"] for told in receiver.taken] == [after]

    instance.report_run_failed(instance.get_run_by_id(last.run_id))
    watch.tick()
    told = receiver.taken[-1]
    assert (told["run_id"], told["attempt"]) == (last.run_id, 2)
    assert "It was attempt 2, the last one." in told["text"]


def test_a_run_that_was_to_be_tried_again_and_is_not_is_told_all_the_same(
    watch: Watch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, instance: DagsterInstance
) -> None:
    dropped, forgotten = watch.crash(), watch.crash()
    watch.tick()
    assert receiver.taken == []
    instance.add_run_tags(dropped, {WILL_RETRY_TAG: "false"})  # its code location is broken
    watch.tick()
    assert [told["run_id"] for told in receiver.taken] == [dropped]
    monkeypatch.setattr(notifications, "_RETRY_STARTS_SECONDS", 0)
    watch.tick()
    assert [told["run_id"] for told in receiver.taken] == [dropped, forgotten]
    assert "no attempt has been started" in receiver.taken[-1]["text"]


def test_what_checks_found_in_an_attempt_that_is_tried_again_is_told(
    watch: Watch, receiver: Receiver, instance: DagsterInstance
) -> None:
    found = result("a")
    watch.run(broken, *checked(found), tags={"dagster/retry_on_asset_or_op_failure": "true"})
    (record,) = instance.get_run_records(limit=1)
    first = record.dagster_run
    assert first.tags[WILL_RETRY_TAG] == "true"
    again = create_run_for_test(instance, status=DagsterRunStatus.STARTED)
    instance.add_run_tags(first.run_id, {AUTO_RETRY_RUN_ID_TAG: again.run_id})
    watch.tick()
    assert [told["event"] for told in receiver.taken] == ["check_failure"]


def test_a_message_can_be_made_for_slack(watch: Watch, receiver: Receiver) -> None:
    watch.resource = Notifications(aws=LOCAL, format="slack")

    @asset
    def angry() -> None:
        raise Failure("<!channel> a & b", allow_retries=False)

    run_id = watch.run(angry)
    watch.tick()
    (told,) = receiver.taken
    header, section, link = told["blocks"]
    assert header["text"] == {"type": "plain_text", "text": "a run of angry failed"}
    assert section["text"]["type"] == "mrkdwn"
    assert "&lt;!channel&gt; a &amp; b" in section["text"]["text"]
    assert link["text"]["text"] == f"<http://127.0.0.1:3000/runs/{run_id}|Open in Dagster>"
    assert told["text"].startswith("a run of angry failed\nangry: &lt;!channel&gt; a &amp; b")


TEXTS = st.text(st.sampled_from("<>&ab\n") | st.characters(exclude_categories=["Cs"]))
LONG = st.tuples(TEXTS, st.integers(1, 3_000)).map(lambda made: made[0] * made[1])


@given(title=LONG, lines=st.lists(LONG, max_size=5))
def test_whatever_is_told_keeps_within_slacks_limits_and_cuts_no_escape_in_two(
    title: str, lines: list[str]
) -> None:
    made = channels._for_slack(Message(title, lines, "http://127.0.0.1/runs/a", {}))
    header, section, _ = made["blocks"]
    assert len(header["text"]["text"]) <= 150
    bulleted = "\n".join(f"• {line}" for line in lines)
    for text, whole, limit in (
        (section["text"]["text"], bulleted, 3_000),
        (made["text"], "\n".join([title, *lines]), 4_000),
    ):
        assert len(text) <= limit
        assert not set("<>") & set(text)
        shown = html.unescape(text)
        assert whole == shown or whole.startswith(shown.removesuffix("…"))
        if len(html.escape(whole, quote=False)) <= limit:
            assert shown == whole


@pytest.mark.parametrize("address", ["hooks.slack.com/services/T0/B0/x", "file:///etc/passwd"])
def test_an_address_that_is_none_is_refused_without_being_told(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv(WEBHOOK_URL, address)
    with pytest.raises(SettingsError, match=WEBHOOK_URL) as caught:
        watch.resource.channels()
    assert address not in str(caught.value)


def test_an_address_with_something_wrong_in_it_is_an_error_that_does_not_tell_it() -> None:
    message = Message("title", ["line"], "http://127.0.0.1", {})
    for address in (f"http://127.0.0.1:1/{SECRET} x", f"http://[::1/{SECRET}", "http://"):
        with pytest.raises(ChannelError) as caught:
            Webhook(address, "json").send(message)
        shown = "".join(traceback.format_exception(caught.value))
        assert SECRET not in shown + repr(caught.value.__context__)


def test_there_is_no_sns_among_the_local_services() -> None:
    topic = "arn:aws:sns:us-east-1:123456789012:alarms"
    with pytest.raises(SettingsError, match="no SNS among the local services"):
        Notifications(aws=LOCAL, sns_topic_arn=topic).channels()


@pytest.fixture(scope="module")
def sns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sns]:
    try:
        running = Sns(tmp_path_factory.mktemp("sns") / "log")
    except NoInterpreterError as error:
        pytest.skip(str(error))
    yield running
    running.close()


@pytest.mark.slow
@pytest.mark.xdist_group("sns")
def test_each_channel_is_told_in_its_own_time(
    watch: Watch, receiver: Receiver, sns: Sns, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ACCESS_KEY_ID": "id", "SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    aws = AwsClients(local=False, endpoint_url=sns.url)
    watch.resource = Notifications(aws=aws, sns_topic_arn=sns.topic)
    watch.run(broken)
    watch.tick()  # SNS is new, and so is told of nothing; the webhook is
    assert (sns.taken(), len(receiver.taken)) == ([], 1)
    receiver.stop()
    run_id = watch.run(broken)
    for _ in range(3):
        watch.tick()
    assert watch.failed
    (told,) = sns.taken()
    assert told["Subject"] == "a run of broken failed"
    assert told["Message"].splitlines()[1] == "broken: no column rating in ratings.csv"
    assert told["Message"].endswith(run_id)
    receiver.start()
    watch.tick()
    assert not watch.failed
    assert [told["run_id"] for told in receiver.taken][1:] == [run_id]
    assert sns.taken() == []
    monkeypatch.delenv(WEBHOOK_URL)
    watch.run(fine)
    watch.tick()
    assert {key for cursor in watch.cursors.values() for key in json.loads(cursor or "")} == {"sns"}


@pytest.mark.slow
@pytest.mark.xdist_group("sns")
def test_whatever_is_told_keeps_within_the_limits_of_sns(sns: Sns) -> None:
    topic = Topic(aws_client("sns", sns.url), sns.topic)
    topic.send(Message("é\n" * 90, ["ü" * 200_000], "http://127.0.0.1", {}))
    (told,) = sns.taken()
    assert len(told["Subject"]) == 99
    assert "\n" not in told["Subject"]
    size = len(told["Message"].encode())
    assert 262_140 < size <= 262_144
    assert told["Message"].endswith("ü…")
    with pytest.raises(ChannelError, match=r"SNS: .*NotFound"):
        Topic(topic.client, f"{sns.topic}s").send(Message("t", ["l"], "u", {}))
