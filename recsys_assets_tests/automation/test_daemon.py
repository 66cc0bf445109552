"""Dagster's own daemon with the platform's settings: it tells of what is wrong, and limits runs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dagster import AssetKey, DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.scheduler.instigation import InstigatorState, TickStatus

from recsys_assets.resources.notifications import WEBHOOK_URL
from recsys_assets_tests.automation.receivers import SECRET, Receiver
from recsys_assets_tests.conftest import PROJECT
from recsys_assets_tests.sagemaker_local.endpoint import eventually

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("daemon")]

MODULE = "recsys_assets_tests.automation.alarming"
OF_THE_PLATFORM = (
    "run_coordinator",
    "run_launcher",
    "run_monitoring",
    "run_retries",
    "concurrency",
    "sensors",
    "freshness",
)
SETTINGS = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
SECONDS = 240


class Daemon:
    """Dagster's daemon on an instance of its own, with the settings of the platform's."""

    def __init__(self, home: Path, receiver: Receiver) -> None:
        kept = {name: SETTINGS[name] for name in OF_THE_PLATFORM}
        kept["run_retries"] = {**kept["run_retries"], "max_retries": 1}
        kept["telemetry"] = {"enabled": False}
        (home / "dagster.yaml").write_text(yaml.safe_dump(kept))
        self.home = home
        self._environment = {
            **os.environ,
            "DAGSTER_HOME": str(home),
            WEBHOOK_URL: receiver.url,
            "GO": str(home / "go"),
        }
        self.instance = DagsterInstance.from_config(str(home))
        with (home / "daemon.log").open("wb") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).with_name("dagster-daemon"), "run", "-m", MODULE],
                cwd=PROJECT,
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def launch(self, *jobs: str) -> None:
        """Put runs of jobs in the queue, all at once."""
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "dagster", "job", "launch", "-m", MODULE, "-j", job],
                cwd=PROJECT,
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for job in jobs
        ]
        assert [process.wait() for process in started] == [0] * len(jobs)

    def sensors(self) -> list[InstigatorState]:
        return [
            state
            for state in self.instance.all_instigator_state()
            if state.name.endswith("_notifications")
        ]

    def has_looked(self) -> bool:
        """Tell whether both sensors have found out where they are."""
        assert self._process.poll() is None
        cursors = [getattr(state.instigator_data, "cursor", None) for state in self.sensors()]
        return len(cursors) == 2 and all(cursors)

    def ticks(self, *statuses: TickStatus) -> list[int]:
        """Return how many ticks of each sensor had these ends."""
        return [
            len(
                self.instance.get_ticks(
                    state.instigator_origin_id, state.selector_id, statuses=[*statuses]
                )
            )
            for state in self.sensors()
        ]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self.instance.dispose()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def daemon(tmp_path: Path, receiver: Receiver) -> Iterator[Daemon]:
    running = Daemon(tmp_path, receiver)
    yield running
    running.close()
    receiver.stop()


def test_each_is_told_once_though_the_webhook_was_away(daemon: Daemon, receiver: Receiver) -> None:
    eventually(daemon.has_looked, SECONDS)
    daemon.launch("failing", "crashing", "checking")
    eventually(lambda: all(daemon.ticks(TickStatus.FAILURE)), SECONDS)
    receiver.start()
    eventually(lambda: len(receiver.taken) >= 3, SECONDS)
    enough = [count + 2 for count in daemon.ticks(TickStatus.SKIPPED)]
    eventually(
        lambda: all(
            now >= then for now, then in zip(daemon.ticks(TickStatus.SKIPPED), enough, strict=True)
        ),
        SECONDS,
    )
    told = {message["job"]: message for message in receiver.taken}
    assert len(receiver.taken) == len(told) == 3
    assert told["failing"]["reason"] == "broken: no column rating"
    assert told["checking"]["event"] == "check_failure"
    assert told["crashing"]["attempt"] == 2
    assert "attempt 2, the last one" in told["crashing"]["text"]
    assert len(daemon.instance.get_runs()) == 4

    written = b"".join(path.read_bytes() for path in daemon.home.rglob("*") if path.is_file())
    assert b"ChannelError" in written
    assert SECRET.encode() not in written

    keys = [AssetKey("doubtful")]
    (record,) = eventually(
        lambda: [*daemon.instance.get_freshness_state_records(keys).values()], SECONDS
    )
    assert record.freshness_state is FreshnessState.PASS


def test_no_more_runs_with_a_sagemaker_job_are_at_work_than_the_pool_allows(
    daemon: Daemon,
) -> None:
    limit = SETTINGS["concurrency"]["pools"]["default_limit"]
    launched = limit + 2

    def of(job: str, *statuses: DagsterRunStatus) -> int:
        return daemon.instance.get_runs_count(RunsFilter(job_name=job, statuses=statuses))

    daemon.launch(*["waiting"] * launched)
    eventually(lambda: of("waiting", DagsterRunStatus.STARTED) >= limit, SECONDS)
    # A run that came last and is not in the pool has passed those that wait for it.
    daemon.launch("checking")
    eventually(lambda: of("checking", DagsterRunStatus.SUCCESS) == 1, SECONDS)
    assert of("waiting", DagsterRunStatus.STARTED) == limit
    assert of("waiting", DagsterRunStatus.QUEUED) == launched - limit
    (daemon.home / "go").touch()
    eventually(lambda: of("waiting", DagsterRunStatus.SUCCESS) == launched, SECONDS)
