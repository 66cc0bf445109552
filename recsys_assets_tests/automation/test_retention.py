"""Retention on a real object store: what goes, and above all what does not."""

import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRunStatus, Definitions, Failure, asset
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys_assets.automation import retention
from recsys_assets.automation.config import RetentionConfig
from recsys_assets.automation.retention import Doomed, InUse, delete, look_around, plan
from recsys_assets.definitions import build_defs, build_resources
from recsys_assets.domain.ratings.ledger import Entry, Ledger, State
from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.object_store import ObjectStore, Version
from recsys_assets.resources.registry import register_model
from recsys_assets.resources.sagemaker import Run
from recsys_assets.resources.tracking import MlflowTracking
from recsys_assets.services.record import Services
from recsys_assets.settings import Settings
from recsys_assets_tests.proxy import Proxy, refuse

ASSETS = ["raw_ratings", "sparse_matrix", "fm_model", "selected_model", "registered_model"]
NOW = dt.datetime.now(dt.UTC)
LATER = NOW + dt.timedelta(days=40)
NOTHING = InUse(frozenset(), frozenset(), LATER)
LATEST = RetentionConfig(versions=1, days=0)


def run_id(number: int) -> str:
    return f"{number:08d}-0000-4000-8000-000000000000"


class Bucket:
    """Versions below a prefix of a test's own, whose runs have numbers."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self.store = store
        self._folder = folder

    def made(
        self, name: str, number: int, facts: Mapping[str, Any] | None = None, **inputs: int
    ) -> Version:
        (self._folder / "file").write_text(f"{name} of run {number}")
        return self.store.publish(
            name,
            run_id(number),
            self._folder,
            row_count=None,
            facts=facts or {},
            inputs={other: run_id(made_by) for other, made_by in inputs.items()},
        )

    def put(self, name: str) -> str:
        uri = self.store.uri(name)
        bucket, key = uri.removeprefix("s3://").split("/", 1)
        self.store.client.put_object(Bucket=bucket, Key=key, Body=b"12345")
        return uri

    def model(self, number: int, **inputs: int) -> str:
        """Store a model whose artefact lies with the outputs of its job; return its URI."""
        artefact = self.put(f"fm_model/{run_id(number)}/jobs/job-{number}/output/model.tar.gz")
        facts = {"content": {"artefact": artefact, "job_name": f"job-{number}"}}
        self.made("fm_model", number, facts, **inputs)
        return artefact

    def selected(self, number: int, model: int, artefact: str, **inputs: int) -> None:
        facts = {"content": {"artefact": artefact, "job_name": f"job-{model}"}}
        self.made("selected_model", number, facts, fm_model=model, **inputs)

    def plan(
        self, rule: RetentionConfig = LATEST, in_use: InUse = NOTHING, now: dt.datetime = LATER
    ) -> list[Doomed]:
        return plan(self.store, ASSETS, rule, in_use, now)

    def going(self, *args: Any, **kwargs: Any) -> set[tuple[str, int]]:
        """Return which versions are to go, by asset and number of the run."""
        return {(d.asset, int(d.run_id[:8])) for d in self.plan(*args, **kwargs) if d.is_version}

    def names(self) -> set[str]:
        prefix = self.store.uri("")
        return {uri.removeprefix(prefix).lstrip("/") for uri in self.store.list(prefix)}


@pytest.fixture(scope="module")
def tracking(settings: Settings) -> MlflowTracking:
    """MLflow as the platform has it; its database takes seconds to make."""
    found: MlflowTracking = build_resources(settings)["tracking"]
    return found


@pytest.fixture
def bucket(settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bucket]:
    own = Settings(**{**vars(settings), "prefix": request.node.name})
    with build_resources(own)["store"].process_config_and_initialize_cm() as store:
        yield Bucket(store, tmp_path)


def test_the_latest_versions_and_the_young_ones_stay(bucket: Bucket) -> None:
    for number in range(5):
        bucket.made("sparse_matrix", number)
    assert bucket.going(RetentionConfig(versions=2, days=30)) == {
        ("sparse_matrix", number) for number in (0, 1, 2)
    }
    assert bucket.going(RetentionConfig(versions=2, days=50)) == set()
    assert bucket.going(RetentionConfig(versions=5, days=0)) == set()


def test_what_the_selected_model_was_made_from_stays_though_it_is_old(bucket: Bucket) -> None:
    for number in range(4):
        bucket.made("raw_ratings", number)
        bucket.made("sparse_matrix", number, raw_ratings=number)
    artefact = bucket.model(1, raw_ratings=1, sparse_matrix=1)
    bucket.selected(1, 1, artefact, raw_ratings=1, sparse_matrix=1)
    bucket.model(3, raw_ratings=3, sparse_matrix=3)
    bucket.selected(3, 1, artefact, raw_ratings=1, sparse_matrix=1)  # the model of run 1 was kept
    assert bucket.going() == {
        *((name, number) for name in ("raw_ratings", "sparse_matrix") for number in (0, 2)),
        ("selected_model", 1),
    }


def test_what_a_registered_model_was_made_from_stays(
    bucket: Bucket, tracking: MlflowTracking
) -> None:
    artefacts = {}
    for number in range(4):
        bucket.made("sparse_matrix", number)
        artefacts[number] = bucket.model(number, sparse_matrix=number)
    tracked = tracking.open("job", Run("run", "run", "fm_model"), {})
    for name, number in (("one", 1), ("other", 2)):
        register_model(tracking.client, name, artefacts[number], tracked.run_id, {})
    with DagsterInstance.ephemeral() as instance:
        in_use = look_around(instance, tracking, "own")
    assert in_use.artefacts >= {artefacts[1], artefacts[2]}
    in_use = InUse(in_use.artefacts, in_use.runs, LATER)
    assert bucket.going(in_use=in_use) == {("sparse_matrix", 0), ("fm_model", 0)}


@pytest.mark.parametrize("registered", [False, True])
def test_an_artefact_stays_wherever_it_lies(bucket: Bucket, registered: bool) -> None:
    # The run that trained it was retried, and its retry published the model.
    artefact = bucket.put(f"fm_model/{run_id(0)}/jobs/job-0/output/model.tar.gz")
    log = bucket.put(f"fm_model/{run_id(0)}/jobs/job-0/log.txt")
    bucket.made("fm_model", 1)
    if not registered:
        bucket.selected(2, 1, artefact)
    artefacts = frozenset({artefact} if registered else ())
    delete(bucket.store, bucket.plan(in_use=InUse(artefacts, frozenset(), LATER)))
    assert [*bucket.store.list(artefact)] == [artefact]
    assert [*bucket.store.list(log)] == []


def test_what_an_unfinished_run_may_read_stays(bucket: Bucket) -> None:
    for number in range(4):
        bucket.made("sparse_matrix", number)
    began = InUse(frozenset(), frozenset(), NOW - dt.timedelta(minutes=1))
    assert bucket.going(in_use=began) == set()  # all were current at some time since then
    own = InUse(frozenset(), frozenset({run_id(1)}), LATER)
    assert bucket.going(in_use=own) == {("sparse_matrix", 0), ("sparse_matrix", 2)}


def test_the_outputs_of_an_unfinished_runs_jobs_stay(bucket: Bucket) -> None:
    bucket.put(f"fm_model/{run_id(1)}/jobs/job-1/checkpoint")
    own = InUse(frozenset(), frozenset({run_id(1)}), LATER)
    assert bucket.plan(in_use=own) == []
    assert [d.run_id for d in bucket.plan()] == [run_id(1)]


def test_unfinished_runs_and_those_that_they_retry_are_found(tracking: MlflowTracking) -> None:
    @asset
    def thing() -> None: ...

    job = Definitions(assets=[thing]).resolve_implicit_global_asset_job_def()
    with DagsterInstance.ephemeral() as instance:
        failed = instance.create_run_for_job(job, status=DagsterRunStatus.FAILURE)
        retry = instance.create_run_for_job(
            job,
            status=DagsterRunStatus.STARTED,
            parent_run_id=failed.run_id,
            root_run_id=failed.run_id,
        )
        instance.create_run_for_job(job, status=DagsterRunStatus.SUCCESS)
        own = instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
        found = look_around(instance, tracking, own.run_id)
        record = instance.get_run_record_by_id(retry.run_id)
    assert found.runs == {failed.run_id, retry.run_id}
    assert record is not None
    assert found.since == record.create_timestamp - dt.timedelta(hours=1)


def entry(key: str, made_by: int, state: State) -> Entry:
    part = f"{key}-{made_by}"
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return Entry(key, None, None, "e", moment, 1, 1, state, 1, 0, part, run_id(made_by), "0", None)


def ingested(bucket: Bucket, number: int, folder: Path, *entries: Entry) -> None:
    """Publish a version of raw_ratings whose ledger refers to the parts of earlier runs."""
    (folder / "ratings").mkdir(parents=True)
    Ledger(entries).write(folder / "sources.parquet")
    for item in entries:
        if item.run_id == run_id(number):
            (folder / "ratings" / f"{item.part}.parquet").write_text(item.part)
    bucket.store.publish(
        "raw_ratings",
        run_id(number),
        folder,
        row_count=None,
        facts={},
        head=bucket.store.head("raw_ratings", "landing"),
    )


def test_a_part_stays_that_a_kept_ledger_counts_though_the_version_that_brought_it_goes(
    bucket: Bucket, tmp_path: Path
) -> None:
    ingested(bucket, 0, tmp_path / "0", entry("a", 0, State.CURRENT), entry("b", 0, State.CURRENT))
    ingested(
        bucket,
        1,
        tmp_path / "1",
        entry("a", 0, State.SUPERSEDED),
        entry("a", 1, State.CURRENT),
        entry("b", 0, State.KEPT),
    )
    ingested(
        bucket,
        2,
        tmp_path / "2",
        entry("a", 0, State.SUPERSEDED),
        entry("a", 1, State.CURRENT),
        entry("b", 0, State.KEPT),
        entry("c", 2, State.DELETED),
    )
    assert bucket.going() == {("raw_ratings", 0), ("raw_ratings", 1)}
    delete(bucket.store, bucket.plan())
    assert {name for name in bucket.names() if "ratings/" in name and ".parquet" in name} == {
        f"raw_ratings/{run_id(0)}/data/ratings/b-0.parquet",
        f"raw_ratings/{run_id(1)}/data/ratings/a-1.parquet",
        f"raw_ratings/{run_id(2)}/data/ratings/c-2.parquet",
        f"raw_ratings/{run_id(2)}/data/sources.parquet",
    }
    assert bucket.plan() == []
    assert "raw_ratings/heads/landing.json" in bucket.names()


def test_what_a_landing_has_committed_stays_though_its_run_died_before_it_was_current(
    bucket: Bucket, tmp_path: Path
) -> None:
    ingested(bucket, 0, tmp_path / "0", entry("a", 0, State.CURRENT))
    for name in ("manifest.json", "../current.json"):
        key = f"{run_id(0)}/{name}".replace(f"{run_id(0)}/../", "")
        bucket.store.delete("raw_ratings", [key])
    for number in (1, 2):
        bucket.made("raw_ratings", number)
    assert {d.run_id for d in bucket.plan()} == {run_id(1)}


def test_only_what_belongs_to_the_assets_is_touched(bucket: Bucket) -> None:
    for number in range(2):
        bucket.made("sparse_matrix", number)
    others = {
        "landing/ratings.csv",
        f"unknown_asset/{run_id(0)}/manifest.json",
        "sparse_matrix/notes.txt",
        "sparse_matrix/by hand/notes.txt",
        f"sparse_matrix_of_somebody/{run_id(0)}/data/file",
        "compute_logs/log",
    }
    for name in others:
        bucket.put(name)
    delete(bucket.store, bucket.plan())
    assert bucket.names() == others | {
        "sparse_matrix/current.json",
        f"sparse_matrix/{run_id(1)}/manifest.json",
        f"sparse_matrix/{run_id(1)}/data/file",
    }


def test_what_a_run_has_left_without_a_manifest_goes_when_no_run_can_be_at_work_on_it(
    bucket: Bucket,
) -> None:
    bucket.put(f"sparse_matrix/{run_id(0)}/data/half")
    assert bucket.plan(now=NOW + dt.timedelta(days=6.9)) == []
    (left,) = bucket.plan(now=NOW + dt.timedelta(days=7.1))
    assert (left.run_id, left.bytes, left.is_version) == (run_id(0), 5, False)


def test_a_deletion_that_breaks_off_leaves_whole_versions_and_rubbish_that_the_next_one_removes(
    bucket: Bucket, services: Services, proxy: Proxy
) -> None:
    for number in range(4):
        bucket.made("sparse_matrix", number)
    aws = AwsClients(
        local=False,
        endpoint_url=proxy.url,
        region_name=services.region,
        aws_access_key_id=services.access_key_id,
        aws_secret_access_key=services.secret_access_key,
        max_attempts=1,
        patience_seconds=0,
    )
    proxied = ObjectStore(aws=aws, bucket=bucket.store.bucket, prefix=bucket.store.prefix)
    # Of each version first the manifest is deleted and then the rest: the second one breaks off.
    for fault in ("pass", "pass", "pass", "stop"):
        if fault == "pass":
            proxy.inject(lambda call, forward: forward(), "DeleteObjects")
        else:
            proxy.inject(refuse(403, "AccessDenied"), "DeleteObjects")
    with pytest.raises(Exception, match="AccessDenied"):
        delete(proxied, bucket.plan())
    names = bucket.names()
    assert f"sparse_matrix/{run_id(1)}/manifest.json" not in names
    assert f"sparse_matrix/{run_id(1)}/data/file" in names
    for _, version in bucket.store.versions("sparse_matrix"):
        assert {f"sparse_matrix/{version.run_id}/data/{f.name}" for f in version.files} <= names
    delete(bucket.store, bucket.plan())
    assert [v.run_id for _, v in bucket.store.versions("sparse_matrix")] == [run_id(3)]
    assert len(bucket.names()) == 3


def test_an_object_that_may_not_be_deleted_is_told(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # S3 answers 200 to such a request; the local store lets all be deleted.
    client = bucket.store.client
    refused = {"Errors": [{"Key": "k/one", "Code": "AccessDenied", "Message": "Access Denied"}]}
    monkeypatch.setattr(client, "delete_objects", lambda **request: refused)
    with pytest.raises(Failure, match="Cannot delete s3://recsys/k/one: Access Denied"):
        bucket.store.delete("k", ["one"])


def test_more_objects_than_one_request_may_name_are_deleted(bucket: Bucket) -> None:
    names = [f"run/data/{number:04d}" for number in range(1_005)]
    for name in names[::100] + names[-1:]:
        bucket.put(f"many/{name}")
    bucket.store.delete("many", names)
    assert bucket.names() == set()


Step = tuple[str, bool]


@given(
    st.lists(
        st.tuples(st.sampled_from(["data", "model", "select", "register"]), st.booleans()),
        min_size=3,
        max_size=12,
    ),
    st.integers(1, 3),
)
@hypothesis_settings(
    deadline=None,
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_the_history_what_counts_stays_readable_with_what_it_was_made_from(
    settings: Settings, tmp_path: Path, steps: list[Step], versions: int
) -> None:
    prefix = f"history-{abs(hash((tuple(steps), versions)))}"
    own = Settings(**{**vars(settings), "prefix": prefix})
    with build_resources(own)["store"].process_config_and_initialize_cm() as store:
        for uri in [*store.list(store.uri("") + "/")]:
            store.client.delete_object(Bucket="recsys", Key=uri.split("/", 3)[3])
        folder = tmp_path / "one file"
        folder.mkdir(exist_ok=True)
        bucket = Bucket(store, folder)
        matrix, model, selected = None, None, None
        registered: set[str] = set()
        for number, (step, keeps) in enumerate(steps):
            if step == "data":
                bucket.made("raw_ratings", number)
                bucket.made("sparse_matrix", number, raw_ratings=number)
                matrix = number
            elif step == "model" and matrix is not None:
                inputs = {"raw_ratings": matrix, "sparse_matrix": matrix}
                model = (number, bucket.model(number, **inputs), inputs)
            elif step == "select" and model is not None:
                selected = selected if keeps and selected else model
                made_by, artefact, inputs = selected
                bucket.selected(number, made_by, artefact, **inputs)
            elif step == "register" and selected is not None:
                registered.add(selected[1])
        rule = RetentionConfig(versions=versions, days=0)
        in_use = InUse(frozenset(registered), frozenset(), LATER)
        models = [version for _, version in store.versions("fm_model")]
        delete(store, bucket.plan(rule, in_use))
        current = [version for name in ASSETS if (version := store.find(name))]
        wanted = current + [
            version for version in models if version.facts["content"]["artefact"] in registered
        ]
        for version in wanted:
            for name, made_by in {**version.inputs, version.asset: version.run_id}.items():
                found = store.version(name, made_by)
                assert found is not None, (version.asset, name, made_by)
                store.fetch(found, tmp_path / "fetched")
            artefact = version.facts.get("content", {}).get("artefact")
            if artefact:
                assert [*store.list(artefact)] == [artefact]
        for name in ASSETS:
            assert len(store.versions(name)) <= max(versions, 1) + len(wanted)
        assert bucket.plan(rule, in_use) == []


def run_retention(defs: Definitions, instance: DagsterInstance, **config: Any) -> dict[str, Any]:
    result = defs.resolve_job_def("retention").execute_in_process(
        run_config={"ops": {"delete_old_versions": {"config": config}}}, instance=instance
    )
    (event,) = result.get_step_success_events()
    assert event.step_key == "delete_old_versions"
    (handled,) = (e for e in result.all_events if e.is_successful_output)
    return {k: v.value for k, v in handled.step_output_data.metadata.items()}


def test_the_job_deletes_by_the_configured_rule_or_only_tells(
    settings: Settings, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        bucket.made("sparse_matrix", number)
    rule = tmp_path / "automation.yaml"
    rule.write_text("retention: {versions: 1, days: 30}")
    own = {**vars(settings), "prefix": bucket.store.prefix, "automation_config": rule}
    defs = build_defs(Settings(**own))
    before = bucket.names()
    size = 2 * len("sparse_matrix of run 0")
    with DagsterInstance.ephemeral() as instance:
        assert run_retention(defs, instance)["versions"] == 0
        monkeypatch.setattr(retention, "_now", lambda: LATER)
        told = run_retention(defs, instance, dry_run=True)
        assert bucket.names() == before
        done = run_retention(defs, instance)
    assert len(before - bucket.names()) == 4
    assert (told.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert told == done
    assert (done["versions"], [row.data for row in done["by_asset"].records]) == (
        2,
        [{"asset": "sparse_matrix", "versions": 2, "objects": 4, "bytes": done["bytes"]}],
    )
    assert done["bytes"] > size
