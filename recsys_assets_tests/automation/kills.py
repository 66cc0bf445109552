"""Kill everything, again and again, while ratings land: what comes out must be as if undisturbed.

``python -m recsys_assets_tests.automation.kills --kills 50 --minutes 30 --seed 1`` starts the
platform as three processes with PostgreSQL (`docs/operation.md`), lets files land, be overwritten
and deleted at random moments, and kills the daemon, the webserver, the code server, a run's worker
or the object store at others. At the end it waits until nothing is to be done any more and looks at
what there is. It prints what it has killed and counted, and exits with status 1 if anything is not
as it should be.
"""

import itertools
import logging
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from botocore.exceptions import BotoCoreError, ClientError
from dagster import DagsterEventType, DagsterInstance, RunsFilter
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import RETRY_NUMBER_TAG

from recsys_assets.definitions import build_resources
from recsys_assets.domain.ratings.ledger import State
from recsys_assets.resources.landing import read_ledger
from recsys_assets.settings import Settings
from recsys_assets_tests.automation.deployment import SERVERS, Deployment
from recsys_assets_tests.automation.postgres import postgres_programs, running_postgres
from recsys_assets_tests.main_job.command import client
from recsys_assets_tests.main_job.in_process import platform

WORKER, STORE = "run worker", "object store"
KINDS = (*SERVERS, WORKER, STORE)

_LANDING = "landing/"
_AUTOMATION = {
    # What of a deleted file has been ingested is a matter of chance; none of it counts.
    "landing": {
        "interval_seconds": 5,
        "settle_seconds": 1,
        "format": "table",
        "deleted": "forget",
        "uri": f"s3://recsys/{_LANDING}",
    },
    "training": {"new_share": 0.5, "min_hours_between": 0.05},
}
_CUSTOMERS, _VIDEOS = 700, 150
_ROWS, _ROWS_AT_FIRST = 500, 3_000
_SECONDS_BETWEEN_CHANGES = 12.0
_QUIET_SECONDS = 45.0
_LONGEST_UNTIL_QUIET = 2400.0


@dataclass(frozen=True)
class Landed:
    """An object that is there."""

    etag: str
    rows: int


class Landing:
    """Whoever writes the files: they know nothing of the platform."""

    def __init__(self, deployment: Deployment, chance: random.Random) -> None:
        self._client = client(deployment.state, "s3")
        self._bucket = deployment.services.bucket
        self._chance = chance
        self._numbers = itertools.count(1)
        # Each pair once, or else the checks on raw_ratings would rightly stop what follows.
        pairs = chance.sample(range(_CUSTOMERS * _VIDEOS), _CUSTOMERS * _VIDEOS)
        self._pairs = iter(pairs)
        self.there: dict[str, Landed] = {}
        self.changes: Counter[str] = Counter()

    def change(self) -> None:
        """Put a new file, overwrite one or delete one."""
        known = sorted(self.there)
        what = self._chance.choices(["new", "overwritten", "deleted"], [5, 3, 2])[0]
        if what == "new" or len(known) < 3:
            what, key = "new", f"{_LANDING}{next(self._numbers):04}.csv"
        else:
            key = self._chance.choice(known)
        if what == "deleted":
            self._persist("delete_object", Key=key)
            del self.there[key]
        else:
            rows = _ROWS_AT_FIRST if len(known) < 3 else self._chance.randint(1, 2 * _ROWS)
            answer = self._persist("put_object", Key=key, Body=self._ratings(rows))
            self.there[key] = Landed(answer["ETag"].strip('"'), rows)
        self.changes[what] += 1

    def listed(self) -> dict[str, str]:
        """Return the ETag of each object, as the store has it."""
        found = self._persist("list_objects_v2", Prefix=_LANDING).get("Contents", [])
        return {item["Key"]: item["ETag"].strip('"') for item in found}

    def _ratings(self, rows: int) -> bytes:
        lines = ["customer_id,video_id,rating,title"]
        for pair in itertools.islice(self._pairs, rows):
            customer, video = divmod(pair, _VIDEOS)
            lines.append(f"c{customer},v{video},{self._chance.randint(1, 5)},Title {video}")
        return "\n".join(lines).encode() + b"\n"

    def _persist(self, action: str, **request: Any) -> Any:
        """Make a call until it succeeds: the store may be on its way back."""
        while True:
            try:
                return getattr(self._client, action)(Bucket=self._bucket, **request)
            except (BotoCoreError, ClientError) as error:
                say(f"{action} {request.get('Key', '')}: {error}")
                time.sleep(1)


class Kills:
    """Which kills are to come when, and those that have been."""

    def __init__(self, count: int, seconds: float, chance: random.Random) -> None:
        kinds = list(itertools.islice(itertools.cycle(KINDS), count))
        chance.shuffle(kinds)
        moments = sorted(chance.uniform(0, seconds) for _ in kinds)
        self._planned = list(zip(moments, kinds, strict=True))
        self._chance = chance
        self.done: Counter[str] = Counter()

    @property
    def left(self) -> int:
        """How many are to come."""
        return len(self._planned)

    def kill_due(self, deployment: Deployment, moment: float) -> None:
        """Kill what is due; a worker when there is one."""
        for planned in [plan for plan in self._planned if plan[0] <= moment]:
            kind = planned[1]
            if kind == WORKER:
                workers = deployment.workers()
                if not workers:
                    continue
                self._chance.choice(workers).kill()
            elif kind == STORE:
                deployment.kill_object_store()
            else:
                deployment.kill(kind)
            self._planned.remove(planned)
            self.done[kind] += 1
            say(f"{moment:6.1f} s: killed {kind}, {self.left} to come")


def say(text: str) -> None:
    """Print a line at once."""
    click.echo(text)
    sys.stdout.flush()


@click.command()
@click.option("--kills", type=int, default=50, show_default=True)
@click.option("--minutes", type=float, default=30.0, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
def main(kills: int, minutes: float, seed: int) -> None:
    """Kill parts of the platform while ratings land, and look at what comes of it."""
    programs = postgres_programs()
    if programs is None:
        raise click.ClickException("there is no PostgreSQL in /usr/lib/postgresql")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # not without `close`
    folder = Path(tempfile.mkdtemp(prefix="recsys-kills-"))
    say(f"everything is in {folder}")
    with running_postgres(programs) as url:
        deployment = Deployment(folder / "state", url, _AUTOMATION)
        try:
            wrong = disturb(deployment, kills, minutes * 60, random.Random(seed))
        finally:
            deployment.close()
    for fault in wrong:
        say(f"WRONG: {fault}")
    sys.exit(1 if wrong else 0)


def disturb(deployment: Deployment, kills: int, seconds: float, chance: random.Random) -> list[str]:
    """Do it all; return what is wrong at the end."""
    deployment.start()
    landing, plan = Landing(deployment, chance), Kills(kills, seconds, chance)
    began, next_change = time.monotonic(), 0.0
    while (moment := time.monotonic() - began) < seconds or plan.left:
        if moment < seconds and moment >= next_change:
            landing.change()
            next_change = moment + chance.expovariate(1 / _SECONDS_BETWEEN_CHANGES)
        plan.kill_due(deployment, moment)
        deployment.restart_ended()
        if moment > seconds + _LONGEST_UNTIL_QUIET:
            return [f"{plan.left} kills found nothing to kill"]
        time.sleep(0.1)
    say(f"killed: {dict(plan.done)}")
    say(f"objects: {dict(landing.changes)}, {len(landing.there)} there")
    with deployment.instance() as instance:
        settings = Settings.from_environment()
        try:
            wait_until_quiet(deployment, instance, settings, landing)
        except TimeoutError as error:
            wrong = [str(error)]
        else:
            wrong = faults(settings, landing)
        wrong += faults_of_runs(deployment, instance)
        count(instance)
    return wrong


def wait_until_quiet(
    deployment: Deployment, instance: DagsterInstance, settings: Settings, landing: Landing
) -> None:
    """Wait until all that is there has been made from all that has landed, and for a while more.

    Raises
    ------
    TimeoutError
        If that does not come about; the message says what is missing.
    """
    began = quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < _QUIET_SECONDS:
        missing = undone(instance, settings, landing)
        if missing:
            quiet_since = time.monotonic()
        if quiet_since - began > _LONGEST_UNTIL_QUIET:
            raise TimeoutError(f"after {quiet_since - began:.0f} s: {missing}")
        deployment.restart_ended()
        time.sleep(2)
    say(f"quiet after {quiet_since - began:.0f} s")


def undone(instance: DagsterInstance, settings: Settings, landing: Landing) -> str:
    """Say what is still to be done, or nothing."""
    runs = instance.get_runs(RunsFilter(statuses=list(NOT_FINISHED_STATUSES)))
    if runs:
        return f"{len(runs)} runs are at work"
    made = build_resources(settings)
    store = made["store"]
    _, ledger = read_ledger(store, made["landing"].id)
    if {entry.key: entry.etag for entry in ledger if entry.state is State.CURRENT} != (
        landing.listed()
    ):
        return "the ledger does not have what is there"
    raw, filtered = store.find("raw_ratings"), store.find("filtered_ratings")
    if filtered is None or filtered.inputs.get("raw_ratings") != raw.run_id:
        return "filtered_ratings has not been made from the latest raw_ratings"
    return ""


def faults(settings: Settings, landing: Landing) -> list[str]:
    """Compare what there is with what has landed and with what comes of it undisturbed."""
    made = build_resources(settings)
    store = made["store"]
    wrong = []
    _, ledger = read_ledger(store, made["landing"].id)
    arrivals = Counter((entry.key, entry.etag, entry.last_modified) for entry in ledger)
    wrong += [f"{arrival} was ingested {n} times" for arrival, n in arrivals.items() if n > 1]
    current = [entry for entry in ledger if entry.state is State.CURRENT]
    have = {entry.key: Landed(entry.etag, entry.rows or 0) for entry in current}
    if len(current) != len(have) or have != landing.there:
        wrong.append(f"expected as current {landing.there}, got {have}")
    say(f"versions in the ledger: {dict(Counter(entry.state.value for entry in ledger))}")
    rows = sum(landed.rows for landed in landing.there.values())
    raw = store.find("raw_ratings")
    if raw.row_count != rows:
        wrong.append(f"expected {rows} rows in raw_ratings, got {raw.row_count}")
    logging.disable(logging.WARNING)  # of Dagster: every event of the run in this process
    filtered = store.find("filtered_ratings").content_hash
    undisturbed = filtered_undisturbed(settings)
    say(f"filtered_ratings: {filtered}\n     undisturbed: {undisturbed}")
    if filtered != undisturbed:
        wrong.append("filtered_ratings is not what an undisturbed run makes")
    return wrong


def faults_of_runs(deployment: Deployment, instance: DagsterInstance) -> list[str]:
    """Say which runs have not ended or were executed twice, and what goes on without them."""
    wrong = []
    for run in instance.get_runs():
        starts = len(instance.all_logs(run.run_id, of_type=DagsterEventType.RUN_START))
        if not run.is_finished:
            wrong.append(f"run {run.run_id} of {run.job_name} is {run.status.value}")
        if starts > 1:
            wrong.append(f"run {run.run_id} of {run.job_name} was started {starts} times")
    wrong += [f"process {worker.pid} outlives its run" for worker in deployment.workers()]
    jobs = client(deployment.state, "sagemaker").list_training_jobs(StatusEquals="InProgress")
    wrong += [f"{job['TrainingJobName']} is at work" for job in jobs["TrainingJobSummaries"]]
    return wrong


def filtered_undisturbed(settings: Settings) -> str:
    """Return the content hash of filtered_ratings as one run makes it of all that is there."""
    with platform(settings, "undisturbed") as other:
        other.run({"raw_ratings": {"source": "landing"}}, ["raw_ratings", "filtered_ratings"])
        version = other.store.find("filtered_ratings")
    assert version is not None
    return version.content_hash


def count(instance: DagsterInstance) -> None:
    """Print how often runs and ticks ended how."""
    runs = instance.get_runs()
    retried = sum(RETRY_NUMBER_TAG in run.tags for run in runs)
    by_job = Counter((run.job_name, run.status.value) for run in runs)
    say(f"runs: {len(runs)}, of them retries: {retried}")
    for (job, status), number in sorted(by_job.items()):
        say(f"  {job}: {number} {status}")
    for state in instance.all_instigator_state():
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id)
        by_status = Counter(tick.status.value for tick in ticks)
        say(f"ticks of {state.instigator_name}: {dict(by_status)}")


if __name__ == "__main__":
    main()
