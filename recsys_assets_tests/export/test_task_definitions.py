"""What tasks run of any definitions: optional outputs, partitions, retries, checks and config."""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recsys_assets.export.task import Created, PythonTask, TaskFailed

DEFINITIONS = """
from typing import Literal
from dagster import (
    AssetCheckResult, AssetCheckSeverity, AssetCheckSpec, AssetKey, AssetOut, Config, Definitions,
    DynamicPartitionsDefinition, Failure, FilesystemIOManager, MaterializeResult, Output,
    RetryPolicy, StaticPartitionsDefinition, asset, asset_check, multi_asset,
)
from pydantic import Field

TRIES = []

class Inner(Config):
    size: int = Field(default=1, ge=1)

class Outer(Config):
    word: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    by_name: dict[str, Inner] = {}

@asset
def configured(config: Outer):
    sizes = {name: item.size for name, item in config.by_name.items()}
    return Output([config.word, config.inner.size, sizes], metadata={"word": config.word})

@asset(key=AssetKey(["configured", "word"]))
def of_that_name(config: Inner) -> MaterializeResult:
    return MaterializeResult(metadata={"size": config.size})

@asset
def reader(configured):
    return Output(None, metadata={"read": str(configured)})

@multi_asset(
    can_subset=True,
    outs={name: AssetOut(is_required=False) for name in ("one", "two", "three")},
)
def several(context):
    for name in sorted(context.op_execution_context.selected_output_names):
        if name != "two":
            yield Output(None, output_name=name)

@asset(partitions_def=StaticPartitionsDefinition(["de", "fr"]))
def by_country(context):
    return Output(None, metadata={"country": context.partition_key})

@asset(partitions_def=DynamicPartitionsDefinition(name="shops"))
def by_shop(context):
    return Output(None, metadata={"shop": context.partition_key})

@asset(retry_policy=RetryPolicy(max_retries=3))
def flaky():
    TRIES.append(1)
    raise RuntimeError("not\\nthis time")

@asset(retry_policy=RetryPolicy(max_retries=3))
def flaky_by_failure():
    raise Failure("a service is away")

@asset
def broken():
    raise Failure("cannot work", metadata={"log": "its last line"}, allow_retries=False)

def checked(name, severity, blocking):
    @asset(name=name, check_specs=[AssetCheckSpec("own", asset=name, blocking=blocking)])
    def made():
        yield Output(None)
        yield AssetCheckResult(passed=False, severity=severity, description="does not look well")
    return made

@asset_check(asset="configured", blocking=True)
def blocks(configured):
    passed = configured[0] == "a"
    return AssetCheckResult(passed=passed, description=f"the word is {configured[0]}")

@asset_check(asset="configured")
def does_not_block():
    raise Failure("not to be run")

@asset_check(asset="reader", blocking=True)
def cannot_tell():
    raise RuntimeError("no idea")

defs = Definitions(
    assets=[configured, of_that_name, reader, several, by_country, by_shop, flaky,
            flaky_by_failure, broken,
            checked("blocked", AssetCheckSeverity.ERROR, True),
            checked("warned", AssetCheckSeverity.WARN, True),
            checked("told", AssetCheckSeverity.ERROR, False)],
    asset_checks=[blocks, does_not_block, cannot_tell],
    resources={"io_manager": FilesystemIOManager(base_dir=FOLDER)},
)
"""
MODULE = "definitions_of_others"


@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("definitions")
    (folder / f"{MODULE}.py").write_text(f"FOLDER = {str(folder / 'values')!r}\n{DEFINITIONS}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield
        sys.modules.pop(MODULE, None)  # absent where no test of this process has loaded it


def task(*assets: str, **more: Any) -> PythonTask:
    return PythonTask(f"{MODULE}:defs", assets, str(uuid.uuid4()), **more)


def failure(*assets: str, **more: Any) -> tuple[str, bool]:
    """Return why assets are not made, and whether trying again may help."""
    with pytest.raises(TaskFailed) as caught:
        task(*assets, **more).make()
    return str(caught.value), caught.value.again


def test_an_optional_output_that_was_left_out_is_absent() -> None:
    assert task("one", "two", "three").make().keys() == {"one", "three"}
    assert task("three").make().keys() == {"three"}


def test_config_is_made_of_the_parameters_of_the_tasks_own_steps() -> None:
    params = {
        "configured__word": "b",
        "configured__inner__size": 7,
        "configured__by_name": {"x": {"size": 3}},
        "configured__word__size": 5,  # of the step configured__word
        "several__anything": 1,
        "configured": 1,
    }
    made = task("configured", params=params).make()
    assert made["configured"]["word"] == "b"
    assert task("reader").make()["reader"]["read"] == str(["b", 7, {"x": 3}])
    made = task("configured/word", params=params).make()
    assert made["configured/word"]["size"] == 5


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("configured__word", "c", "word"),
        ("configured__inner__size", 0, "greater than or equal to 1"),
        ("configured__iner__size", 1, "iner"),
        ("configured__by_name", 5, "by_name"),
    ],
)
def test_config_that_does_not_fit_is_the_callers_fault(name: str, value: Any, told: str) -> None:
    message, again = failure(name.partition("__")[0], params={name: value})
    assert "does not fit" in message
    assert told in message
    assert not again


def test_a_task_makes_the_partition_that_it_is_told() -> None:
    assert task("by_country", partition="fr").make()["by_country"]["country"] == "fr"
    assert task("by_shop", partition="new").make()["by_shop"]["shop"] == "new"
    assert task("configured", partition="fr").make().keys() == {"configured"}
    told = "Expected a partition of by_country, got"
    assert failure("by_country", partition="uk") == (f"{told} uk.", False)
    assert failure("by_country") == (f"{told} none.", False)


def test_trying_again_is_left_to_whoever_runs_the_task() -> None:
    assert failure("flaky") == ("RuntimeError: not this time", True)
    assert len(sys.modules[MODULE].TRIES) == 1
    assert failure("flaky_by_failure") == ("a service is away", True)


def test_a_failure_that_allows_no_retries_says_so_and_tells_what_it_knows() -> None:
    with pytest.raises(TaskFailed) as caught:
        task("broken").make()
    assert (str(caught.value), caught.value.again) == ("cannot work", False)
    assert caught.value.details == ["log: its last line"]


def test_a_check_that_an_assets_own_step_makes_fails_the_task_if_it_blocks() -> None:
    assert failure("blocked") == ("blocked:own: does not look well", False)
    assert task("warned").make().keys() == {"warned"}
    assert task("told").make().keys() == {"told"}
    assert task("blocked").check() == {"passed": True, "checks": {}}


def test_only_checks_that_may_block_are_run_and_what_they_find_is_told() -> None:
    for word, passed in (("a", True), ("b", False)):
        task("configured", params={"configured__word": word}).make()
        found = task("configured").check()
        assert found["passed"] is passed
        assert found["checks"] == {
            "configured:blocks": {
                "passed": passed,
                "severity": "ERROR",
                "description": f"the word is {word}",
            }
        }


def test_a_check_that_cannot_be_run_is_a_failure() -> None:
    with pytest.raises(TaskFailed, match="RuntimeError: no idea") as caught:
        task("reader").check()
    assert caught.value.again


def test_what_there_is_not_is_told_by_name() -> None:
    assert failure("nothing") == (f"There is no asset nothing in {MODULE}:defs.", False)
    with pytest.raises(TaskFailed, match="expected module:attribute of Dagster definitions"):
        PythonTask("no.such:defs", ("a",), str(uuid.uuid4())).make()
    job = Created("configured", "sagemaker_training", "job-1")
    message = f"{MODULE}:defs has no SageMaker resource that could go on with job-1."
    assert failure("configured", created=(job,)) == (message, False)
    none = tuple(Created(name, "sagemaker_training", "") for name in ("one", "two"))
    assert failure("three", created=none) == ("Nothing was created for one or two.", False)


PLAIN = """
from dagster import Definitions, asset

@asset
def first() -> int:
    return 41

@asset
def second(first: int) -> int:
    return first + 1

defs = Definitions(assets=[first, second])
"""


def test_what_is_stored_by_dagster_itself_is_there_for_the_next_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain_definitions.py").write_text(PLAIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("RECSYS_STATE", str(tmp_path / "state"))
    for asset in ("first", "second"):
        assert PythonTask("plain_definitions:defs", (asset,), str(uuid.uuid4())).make()
    assert (tmp_path / "state" / "tasks" / "storage" / "second").exists()


def test_a_check_of_one_partition_is_told_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where these assets are stored
    monkeypatch.setenv("RECSYS_STATE", str(tmp_path / "state"))
    passed = {}
    for partition in ("eu", "us"):
        task = PythonTask(
            "recsys_assets_tests.export.foreign:checked_each",
            ("regional",),
            str(uuid.uuid4()),
            partition,
        )
        task.make()
        passed[partition] = task.check()["passed"]
    assert passed == {"eu": True, "us": False}
