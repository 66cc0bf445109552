"""Which versions a step reads, and what a version is said to be made from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetOut,
    AssetsDefinition,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    Output,
    ReexecutionOptions,
    asset,
    define_asset_job,
    execute_job,
    in_process_executor,
    materialize,
    multi_asset,
    reconstructable,
)

from recsys_assets.definitions import build_resources
from recsys_assets.io_managers import Document
from recsys_assets.io_managers.lineage import made_from, versions_together
from recsys_assets.resources.object_store import ObjectStore, Version
from recsys_assets.settings import Settings


@pytest.fixture
def resources(settings: Settings, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The platform's resources, with a prefix of the test's own."""
    return build_resources(Settings(**{**vars(settings), "prefix": request.node.name}))


@pytest.fixture
def store(resources: dict[str, Any]) -> Iterator[ObjectStore]:
    with resources["store"].process_config_and_initialize_cm() as initialised:
        yield initialised


class History:
    """Publishes empty versions: `made("matrix", "run-1", data="run-1")` was made from that data."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self._store = store
        self._folder = folder

    def made(self, asset: str, run_id: str, /, **inputs: str) -> Version:
        return self._store.publish(
            asset, run_id, self._folder, row_count=None, facts={"content": {}}, inputs=inputs
        )


@pytest.fixture
def history(store: ObjectStore, tmp_path: Path) -> History:
    return History(store, tmp_path)


def runs_read(store: ObjectStore, assets: list[str], *lineage: str) -> dict[str, str]:
    """Return the run that made what is read of each asset."""
    found = versions_together(store, assets, lineage)
    return {asset: version.run_id for asset, version in found.items()}


def test_what_is_read_is_current_and_what_there_is_none_of_is_left_out(
    store: ObjectStore, history: History
) -> None:
    history.made("data", "run-1")
    history.made("data", "run-2")
    assert runs_read(store, ["data", "nothing"]) == {"data": "run-2"}


def test_a_run_reads_what_it_has_made_itself_and_then_what_its_forerunners_have(
    store: ObjectStore, history: History
) -> None:
    for asset_name in ("data", "matrix", "model"):
        history.made(asset_name, "first try")
    for asset_name in ("data", "matrix"):
        history.made(asset_name, "retry")
    for asset_name in ("data", "matrix", "model", "other"):
        history.made(asset_name, "somebody else")
    assert runs_read(store, ["data", "matrix", "model", "other"], "retry", "first try") == {
        "data": "retry",
        "matrix": "retry",
        "model": "first try",
        "other": "somebody else",
    }


def test_a_model_is_read_with_the_matrix_that_it_was_made_from(
    store: ObjectStore, history: History
) -> None:
    history.made("matrix", "old", data="old")
    history.made("rows", "old", data="old", matrix="old")
    history.made("model", "old", data="old", matrix="old", rows="old")
    history.made("matrix", "new", data="new")
    history.made("test", "new", data="new", matrix="new")
    assert runs_read(store, ["matrix", "model"]) == {"matrix": "old", "model": "old"}
    # What was not made from the model itself, but from the same matrix, is looked for.
    history.made("test", "old", data="old", matrix="old")
    history.made("test", "new", data="new", matrix="new")
    assert runs_read(store, ["test", "matrix", "model"]) == {
        "test": "old",
        "matrix": "old",
        "model": "old",
    }


def test_a_run_that_kept_a_model_reads_the_matrix_of_that_model_not_its_own(
    store: ObjectStore, history: History
) -> None:
    history.made("matrix", "old", data="old")
    history.made("test", "old", data="old", matrix="old")
    for asset_name in ("matrix", "test"):
        inputs = {"data": "this run"} | ({"matrix": "this run"} if asset_name == "test" else {})
        history.made(asset_name, "this run", **inputs)
    history.made("selected", "this run", data="old", matrix="old", model="old")
    assert runs_read(store, ["matrix", "test", "selected"], "this run") == {
        "matrix": "old",
        "test": "old",
        "selected": "this run",
    }


def test_of_several_that_fit_the_latest_is_read(store: ObjectStore, history: History) -> None:
    history.made("matrix", "old")
    history.made("model", "old", matrix="old", rows="old")
    for run_id in ("a", "b"):
        history.made("test", run_id, matrix="old")
    history.made("matrix", "new")
    history.made("test", "new", matrix="new")
    assert runs_read(store, ["test", "model"]) == {"test": "b", "model": "old"}


def test_where_nothing_fits_the_current_one_is_read(store: ObjectStore, history: History) -> None:
    history.made("model", "old", matrix="deleted", rows="old")
    history.made("matrix", "new")
    history.made("test", "new", matrix="new")
    assert runs_read(store, ["test", "matrix", "model"]) == {
        "test": "new",
        "matrix": "new",
        "model": "old",
    }


@pytest.mark.parametrize("order", [["stem", "left", "right"], ["right", "left", "stem"]])
def test_a_diamond_is_read_from_one_stem(
    store: ObjectStore, history: History, order: list[str]
) -> None:
    history.made("stem", "one")
    history.made("left", "one", stem="one")
    history.made("right", "one", stem="one")
    history.made("stem", "two")  # its arms have not followed yet
    assert runs_read(store, order) == {"stem": "one", "left": "one", "right": "one"}
    history.made("left", "two", stem="two")
    history.made("right", "two", stem="two")
    assert runs_read(store, order) == {"stem": "two", "left": "two", "right": "two"}


def test_what_is_made_from_versions_is_made_from_their_inputs_too(history: History) -> None:
    matrix = history.made("matrix", "old", data="old")
    model = history.made("model", "old", data="old", matrix="old")
    assert made_from([]) == {}
    for versions in ([matrix, model], [model, matrix]):
        assert made_from(versions) == {"data": "old", "matrix": "old", "model": "old"}


def graph(kept: dict[str, str] | None) -> list[AssetsDefinition]:
    """Return a diamond that ends in a document, which may say itself what it was made from."""

    @asset(io_manager_key="document_io_manager")
    def stem() -> Document:
        return Document({})

    @asset(io_manager_key="document_io_manager")
    def left(stem: Document) -> Document:
        return Document({})

    @asset(io_manager_key="document_io_manager")
    def right(stem: Document) -> Document:
        return Document({})

    @asset(io_manager_key="document_io_manager")
    def tip(left: Document, right: Document) -> Document:
        return Document({}, inputs=kept)

    return [stem, left, right, tip]


def made_by(
    resources: dict[str, Any], *names: str, kept: dict[str, str] | None = None
) -> ExecuteInProcessResult:
    return materialize(graph(kept), resources=resources, selection=list(names) or None)


def test_a_version_tells_what_its_step_has_read_and_what_that_was_made_from(
    resources: dict[str, Any], store: ObjectStore
) -> None:
    one = made_by(resources).run_id
    assert store.require("stem").inputs == {}
    assert store.require("tip").inputs == {"stem": one, "left": one, "right": one}
    two = made_by(resources, "stem", "left", "right").run_id
    three = made_by(resources, "tip").run_id
    assert store.require("tip", [three]).inputs == {"stem": two, "left": two, "right": two}


def test_a_document_may_tell_itself_what_it_was_made_from(
    resources: dict[str, Any], store: ObjectStore
) -> None:
    made_by(resources)
    made_by(resources, "tip", kept={"left": "an older run"})
    assert store.require("tip").inputs == {"left": "an older run"}


@multi_asset(
    outs={
        name: AssetOut(io_manager_key="document_io_manager", is_required=False)
        for name in ("one", "other", "picked")
    },
    internal_asset_deps={
        "one": {AssetKey("stem")},
        "other": {AssetKey("stem")},
        "picked": {AssetKey("one"), AssetKey("other")},
    },
    can_subset=True,
)
def alternatives(context: AssetExecutionContext, stem: Document) -> Iterator[Output[Document]]:
    for name in sorted(context.op_execution_context.selected_output_names):
        yield Output(Document({}), output_name=name)


def test_what_a_step_leaves_out_of_what_it_makes_is_not_among_its_inputs(
    resources: dict[str, Any], store: ObjectStore
) -> None:
    graph_of_two = [graph(None)[0], alternatives]
    materialize(graph_of_two, resources=resources)
    new = materialize(graph_of_two, resources=resources, selection=["stem", "one", "picked"])
    for asset_name in ("one", "picked"):
        assert store.require(asset_name).inputs == {"stem": new.run_id}


_FAILS_ONCE: list[Any] = []


def job_that_fails_once() -> Any:
    """Return a job whose second step fails in its first run."""
    settings = Settings.from_environment()

    @asset(io_manager_key="document_io_manager")
    def stem() -> Document:
        return Document({})

    @asset(io_manager_key="document_io_manager")
    def tip(stem: Document) -> Document:
        if not _FAILS_ONCE:
            _FAILS_ONCE.append("failed")
            raise RuntimeError("the first run fails")
        return Document({})

    resources = build_resources(Settings(**{**vars(settings), "prefix": "fails-once"}))
    job = define_asset_job("both", executor_def=in_process_executor)
    defs = Definitions(assets=[stem, tip], resources=resources, jobs=[job])
    return defs.resolve_job_def("both")


def test_a_retry_from_failure_reads_what_its_forerunner_made_though_another_run_came_between(
    settings: Settings, tmp_path: Path
) -> None:
    _FAILS_ONCE.clear()
    resources = build_resources(Settings(**{**vars(settings), "prefix": "fails-once"}))
    silent = {"telemetry": {"enabled": False}}
    with (
        DagsterInstance.local_temp(str(tmp_path), overrides=silent) as instance,
        resources["store"].process_config_and_initialize_cm() as store,
    ):
        job = reconstructable(job_that_fails_once)
        first = execute_job(job, instance)
        assert not first.success
        store.publish("stem", "between", tmp_path / "nothing", row_count=None, facts={})
        options = ReexecutionOptions.from_failure(first.run_id, instance)
        again = execute_job(job, instance, reexecution_options=options)
        assert again.success
        assert store.require("stem").run_id == "between"
        assert store.require("tip", [again.run_id]).inputs == {"stem": first.run_id}
