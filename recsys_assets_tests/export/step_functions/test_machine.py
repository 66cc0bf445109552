"""What the files say: names, references, retries, what is refused, and that it is the language."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys_assets.export.graph import Created, Graph, Kind, Param, Partitions, Task
from recsys_assets.export.reading import read_graph
from recsys_assets.export.step_functions import StepFunctionsOptions, export_step_functions
from recsys_assets.export.step_functions.plan import UnsupportedError
from recsys_assets_tests.contract import environments
from recsys_assets_tests.export.step_functions.graphs import GRAPH, OPTIONS, TASKS, graph_of
from recsys_assets_tests.sagemaker_local.endpoint import ROLE

POLLING = replace(OPTIONS, polling=True)
_VALIDATOR = "asl-validator@4.0.0"


def exported(graph: Graph = GRAPH, options: StepFunctionsOptions = OPTIONS) -> dict[str, Any]:
    machine: dict[str, Any] = json.loads(export_step_functions(graph, options)["ratings.asl.json"])
    return machine


def states(machine: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in machine["States"].items():
        yield name, state
        inner = [*state.get("Branches", []), state.get("ItemProcessor", {"States": {}})]
        for branch in inner:
            yield from states(branch)


def state(machine: dict[str, Any], name: str) -> dict[str, Any]:
    return dict(states(machine))[name]


def python(name: str, *upstream: str, **more: Any) -> Task:
    return Task(name, Kind.PYTHON, upstream, assets=(name,), **more)


@pytest.mark.parametrize("options", [OPTIONS, POLLING], ids=["sync", "polling"])
def test_every_state_leads_to_another_or_ends_and_has_a_name_of_its_own(
    options: StepFunctionsOptions,
) -> None:
    machine = exported(options=options)
    names = [name for name, _ in states(machine)]
    assert len(names) == len(set(names))

    def check(part: dict[str, Any]) -> None:
        led_to = {part["StartAt"]}
        for found in part["States"].values():
            ends = found["Type"] in ("Succeed", "Fail") or found.get("End")
            following = [found.get("Next"), found.get("Default")]
            following += [
                rule["Next"] for key in ("Choices", "Catch") for rule in found.get(key, [])
            ]
            following = [name for name in following if name]
            assert bool(ends) != bool(following)
            led_to |= set(following)
            for branch in found.get("Branches", []):
                check(branch)
        assert led_to == part["States"].keys()

    check(machine)


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert export_step_functions(GRAPH, OPTIONS) == export_step_functions(GRAPH, OPTIONS)


def test_the_input_is_the_defaults_and_the_machine_documents_them() -> None:
    files = export_step_functions(GRAPH, OPTIONS)
    defaults = json.loads(files["ratings.input.json"])
    assert defaults == {param.name: param.default for param in GRAPH.params}
    first = exported()["States"]["set defaults"]
    assert first["Parameters"]["defaults"] == defaults
    assert "mode (string): What to do." in first["Comment"].splitlines()


def test_jobs_are_followed_by_step_functions_itself_or_by_states_that_look() -> None:
    def resources(options: StepFunctionsOptions) -> set[str]:
        found = {item.get("Resource") for _, item in states(exported(options=options))}
        return {resource for resource in found if resource and ":sagemaker:" in resource}

    synced = {
        f"arn:aws:states:::sagemaker:create{noun}Job.sync"
        for noun in ("Training", "HyperParameterTuning", "Transform", "Processing")
    }
    assert {resource for resource in resources(OPTIONS) if "aws-sdk" not in resource} == synced
    assert {resource for resource in resources(POLLING) if "aws-sdk" not in resource} == set()
    looked = {resource for resource in resources(POLLING) if "describe" in resource}
    assert len(looked) == 7  # four kinds of jobs, models, endpoint configs and endpoints


def test_values_keep_their_type_unless_the_api_takes_a_text() -> None:
    machine = exported()
    training = state(machine, "trained")["Parameters"]
    assert training["HyperParameters"]["x.$"] == "States.Format('{}', $.params.x)"
    assert (
        training["HyperParameters"]["rows.$"]
        == "States.Format('{}', $.tasks.train.result.train.rows)"
    )
    tuning = state(machine, "tuned")["Parameters"]["HyperParameterTuningJobConfig"]
    assert tuning["ResourceLimits"] == {
        "MaxNumberOfTrainingJobs.$": "$.params.jobs",
        "MaxParallelTrainingJobs": 2,
    }


def test_a_requests_own_tags_stand_beside_those_of_the_run() -> None:
    own = [{"Key": "team", "Value": "a"}, {"Key": "recsys:asset", "Value": "b"}]
    request = {**TASKS[5].request, "Tags": own}  # type: ignore[dict-item]
    machine = exported(graph_of(Task("job", Kind.TRAINING, assets=("job",), request=request)))
    tags = state(machine, "job")["Parameters"]["Tags"]
    assert tags[:2] == own
    assert [tag["Key"] for tag in tags[2:]] == ["recsys:run-id", "recsys:root-run-id"]


def test_texts_around_references_are_escaped() -> None:
    definition = {**TASKS[5].request, "OutputDataConfig": {"S3OutputPath": "it's {a}\\${run.id}"}}  # type: ignore[dict-item]
    machine = exported(graph_of(Task("job", Kind.TRAINING, assets=("job",), request=definition)))
    found = state(machine, "job")["Parameters"]["OutputDataConfig"]["S3OutputPath.$"]
    assert found == r"States.Format('it\'s \{a\}\\{}', $.run.id)"


@pytest.mark.parametrize("task", ["trained", "tuned", "ratings"])
def test_a_jobs_name_is_the_tasks_the_runs_and_the_tries(task: str) -> None:
    parameters = state(exported(), task)["Parameters"]
    (name,) = (value for key, value in parameters.items() if key.endswith("JobName.$"))
    number = "States.MathAdd($$.State.RetryCount, 1)"
    assert name == f"States.Format('{task}-{{}}-{{}}', $.run.short, {number})"


def test_names_of_long_ids_fit_and_differ() -> None:
    tasks = [replace(TASKS[6], id=f"a_task_with_a_very_long_id_{end}", upstream=()) for end in "ab"]
    machine = exported(graph_of(*tasks))
    found = set()
    for task in tasks:
        name = state(machine, task.id)["Parameters"]["HyperParameterTuningJobName.$"]
        literal = re.fullmatch(r"States\.Format\('([a-z0-9{}-]+)', .*", name)
        assert literal
        filled = literal[1].format("12345678", "6")
        assert re.fullmatch("[a-zA-Z0-9](-*[a-zA-Z0-9]){0,31}", filled)
        found.add(filled)
    assert len(found) == 2


def test_a_tasks_own_retries_come_after_those_of_passing_errors() -> None:
    passing, own = state(exported(), "trained")["Retry"]
    assert "SageMaker.AmazonSageMakerException" in passing["ErrorEquals"]
    assert (passing["BackoffRate"], passing["JitterStrategy"]) == (2, "FULL")
    assert own == {
        "ErrorEquals": ["States.ALL"],
        "IntervalSeconds": 1,
        "MaxAttempts": 1,
        "BackoffRate": 1,
    }
    assert len(state(exported(), "tuned")["Retry"]) == 1


def test_choices_ask_for_what_is_not_known_yet() -> None:
    machine = exported()
    assert state(machine, "how")["Choices"] == [
        {"Variable": "$.params.mode", "StringEquals": "train", "Next": "trained"},
        {"Variable": "$.params.mode", "StringEquals": "tune", "Next": "tuned"},
    ]
    assert state(machine, "trained")["Next"] == state(machine, "tuned")["Next"] == "selected"
    passed = state(machine, "ratings_checks passed")
    assert passed["Choices"][0]["Variable"] == "$.tasks.ratings_checks.result.passed"
    assert passed["Default"] == state(machine, "deploy")["Default"] == "look at checks"


def test_what_depends_on_two_gates_is_done_behind_both() -> None:
    tasks = (
        python("base"),
        Task("one", Kind.OPT_IN, ("base",), param="deploy"),
        Task("two", Kind.MADE, ("base",), optional_asset="extra"),
        python("of_one", "one"),
        python("of_two", "two"),
        python("of_both", "of_one", "of_two"),
    )
    machine = exported(graph_of(*tasks))
    one = {"Variable": "$.params.deploy", "BooleanEquals": True}
    two = {"Variable": "$.tasks.base.result.extra", "IsPresent": True}
    assert state(machine, "one") == {
        "Type": "Choice",
        "Choices": [{**one, "Next": "of_one"}],
        "Default": "two",
    }
    assert state(machine, "two")["Choices"] == [{**two, "Next": "of_two"}]
    # Only who has passed the second comes here: it is not asked for again.
    assert state(machine, "one 2")["Choices"] == [{**one, "Next": "of_both"}]
    assert state(machine, "two")["Default"] == state(machine, "one 2")["Default"] == "all done"


def test_tasks_that_wait_for_nothing_of_each_other_run_side_by_side() -> None:
    machine = exported()
    together = state(machine, "train and 1 more")
    assert [branch["StartAt"] for branch in together["Branches"]] == ["train", "test"]
    assert together["ResultSelector"] == {"train.$": "$[0]", "test.$": "$[1]"}


def test_the_partition_of_a_run_is_a_parameter_and_all_partitions_are_a_map() -> None:
    one = python("one", partitions=Partitions("partition"))
    every = python("every", partitions=Partitions(None, ("eu", "o'hara")))
    machine = exported(graph_of(one, every))
    arguments = state(machine, "one")["Parameters"]["AppSpecification"]["ContainerArguments.$"]
    assert "'--partition', States.Format('{}', $.params.partition)" in arguments
    assert state(machine, "every partitions")["Result"] == {"partitions": ["eu", "o'hara"]}
    mapped = state(machine, "every partition")["Parameters"]
    arguments = mapped["AppSpecification"]["ContainerArguments.$"]
    assert "'--partition', States.Format('{}', $.partition)" in arguments
    assert "$.run.short, $.index, " in mapped["ProcessingJobName.$"]


def test_no_variable_or_argument_is_longer_than_sagemaker_takes() -> None:
    many = tuple(Param(f"p{i}", {"type": "string"}, "x" * 300, "", "s") for i in range(50))
    machine = exported(replace(GRAPH, params=(*GRAPH.params, *many)))
    request = state(machine, "ratings")["Parameters"]
    texts = [*request["Environment"].values(), *request["AppSpecification"]["ContainerEntrypoint"]]
    assert max(map(len, texts)) <= 256
    with pytest.raises(ValueError, match="environment: LONG has 257 characters"):
        replace(OPTIONS, environment={"LONG": "x" * 257})


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        ((python("a", pool="p"),), "a is in the pool p, and Step Functions has no limit"),
        ((Task("a", Kind.SPARK, request={}),), "a is work of the kind spark"),
        (
            (python("a", partitions=Partitions(None)),),
            "a makes all partitions of a run, and which these are is known only when it runs",
        ),
        (
            (replace(TASKS[5], upstream=(), partitions=Partitions(None, ("x",))),),
            "trained asks another service for every partition at once",
        ),
        (
            (
                python("train", partitions=Partitions(None, ("x",))),
                replace(TASKS[5], upstream=("train",)),
            ),
            "train makes several partitions, and other tasks need the result of one",
        ),
        (
            (
                python("a"),
                Task("o", Kind.OPT_IN, ("a",), param="deploy"),
                Task("p", Kind.MADE, ("a",), optional_asset="x"),
                python("b", "o"),
                python("c", "p"),
                python("d", "b", "c", joins=True),
            ),
            "d goes on when some of b, c are done, and these are not all the alternatives",
        ),
        (
            (python("a"), Task("c", Kind.CHOICE, ("a",), param="mode"), python("b", "c")),
            "b follows c, of which it is no alternative",
        ),
        ((python("x" * 81),), "x is longer than the 80 characters"),
    ],
)
def test_what_the_language_cannot_express_is_refused(tasks: tuple[Task, ...], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        exported(graph_of(*tasks))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "a b"}, "name: expected at most 80 letters"),
        ({"role_arn": "role"}, "role_arn: expected arn:aws:iam::<account>:role/<name>, got 'role'"),
        ({"poll_seconds": 0}, "poll_seconds: expected 1 or more, got 0"),
        ({"bucket": ""}, "bucket: expected a value, got nothing"),
    ],
)
def test_wrong_options_are_told(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(OPTIONS, **changes)


def test_an_alternative_that_was_not_chosen_has_created_nothing() -> None:
    tasks = exported()["States"]["start run"]["Parameters"]["tasks"]
    assert tasks == {"trained": {"name": ""}, "tuned": {"name": ""}}
    assert [item.task for item in TASKS[7].created] == list(tasks)
    assert TASKS[7].created[0] == Created("trained", Kind.TRAINING, "trained")


@pytest.mark.slow
@pytest.mark.parametrize("options", [OPTIONS, POLLING], ids=["sync", "polling"])
def test_an_independent_validator_finds_nothing(
    options: StepFunctionsOptions, tmp_path: Path
) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm")
    folder = environments.FOLDER / "asl-validator"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([npm, "install", "--prefix", folder, "--silent", _VALIDATOR], check=True)
    validator = folder / "node_modules" / ".bin" / "asl-validator"

    def verdict(graph: Graph, spoil: str = "") -> str:
        text = export_step_functions(graph, options)["ratings.asl.json"]
        (tmp_path / "machine.json").write_text(text.replace('"StartAt"', spoil or '"StartAt"', 1))
        done = subprocess.run(
            [validator, "--json-path", tmp_path / "machine.json"], capture_output=True, text=True
        )
        return done.stdout + done.stderr

    mapped = graph_of(python("every", partitions=Partitions(None, ("a", "b"))))
    for graph in (GRAPH, mapped, read_graph()):
        assert "is valid" in verdict(graph)
    assert "is invalid" in verdict(GRAPH, '"StartsAt"')


def test_the_platforms_own_graph_is_exported_with_every_kind_of_task() -> None:
    machine = exported(read_graph())
    found = {item.get("Resource", "").rpartition(":")[2] for _, item in states(machine)}
    assert {"createTrainingJob.sync", "createHyperParameterTuningJob.sync"} <= found
    assert {"createTransformJob.sync", "createEndpoint", "updateEndpoint"} <= found
    assert ROLE not in json.dumps(state(machine, "fm_model"))
