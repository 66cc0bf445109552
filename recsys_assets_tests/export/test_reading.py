"""Definitions read into tasks: ours, and such as we have never seen."""

import pytest
from dagster import AssetSelection

from recsys_assets.definitions import defs
from recsys_assets.export.graph import Created, Graph, Kind, Task
from recsys_assets.export.params import ConfigError
from recsys_assets.export.reading import GraphError, read_graph
from recsys_assets_tests.export import foreign

FOREIGN = foreign.__name__


def foreign_graph(name: str) -> Graph:
    return read_graph(f"{FOREIGN}:{name}")


@pytest.fixture(scope="module")
def ours() -> Graph:
    return read_graph()


def edges(graph: Graph) -> dict[str, tuple[str, ...]]:
    return {task.id: task.upstream for task in graph.tasks}


def test_our_graph_becomes_these_tasks(ours: Graph) -> None:
    assert edges(ours) == {
        "raw_ratings": (),
        "raw_ratings_checks": ("raw_ratings",),
        "filtered_ratings": ("raw_ratings_checks",),
        "filtered_ratings_checks": ("filtered_ratings",),
        "sparse_matrix": ("filtered_ratings_checks",),
        "protobuf_test": ("sparse_matrix",),
        "protobuf_train": ("sparse_matrix",),
        "protobuf_validate": ("sparse_matrix",),
        "model_training_mode": ("protobuf_train", "protobuf_validate"),
        "fm_model": ("model_training_mode",),
        "tuned_model": ("model_training_mode",),
        "selected_model": ("fm_model", "tuned_model"),
        "batch_predictions_transform": ("protobuf_test", "selected_model", "sparse_matrix"),
        "batch_predictions": ("batch_predictions_transform",),
        "recommendations": ("selected_model", "sparse_matrix"),
        "model_evaluation": ("batch_predictions", "selected_model", "sparse_matrix"),
        "deploy": ("model_evaluation", "selected_model"),
        "registered_model_sagemaker_model": ("deploy", "selected_model"),
        "registered_model": ("registered_model_sagemaker_model",),
        "registered_model_checks": ("model_evaluation", "registered_model"),
        "endpoint_config": ("model_evaluation", "registered_model_checks"),
        "endpoint_deployment": ("endpoint_config",),
        "endpoint": ("endpoint_deployment",),
        "clean_up": ("endpoint", "recommendations"),
    }


def test_every_asset_that_can_be_made_is_made_by_a_task(ours: Graph) -> None:
    keys = AssetSelection.all().resolve(defs.resolve_asset_graph())
    made = {asset for task in ours.tasks if task.kind is Kind.PYTHON for asset in task.assets}
    made |= {created.asset for task in ours.tasks for created in task.created}
    assert made == {key.to_user_string() for key in keys}


def test_tasks_follow_what_they_wait_for_and_come_in_one_order(ours: Graph) -> None:
    seen: set[str] = set()
    for task in ours.tasks:
        assert set(task.upstream) <= seen
        seen.add(task.id)
    assert read_graph() == ours


def test_alternatives_are_tasks_between_a_choice_and_their_join(ours: Graph) -> None:
    choice, join = ours.task("model_training_mode"), ours.task("selected_model")
    assert choice.kind is Kind.CHOICE
    assert choice.param == "model_training__mode"
    assert choice.alternatives == {"train": "fm_model", "tune": "tuned_model"}
    assert join.joins
    assert join.assets == ("selected_model",)
    assert join.created == (
        Created("fm_model", Kind.TRAINING, "fm_model"),
        Created("tuned_model", Kind.TUNING, "tuned_model"),
    )
    assert [task.id for task in ours.tasks if task.joins] == ["selected_model"]


def test_requests_refer_to_what_only_a_run_knows(ours: Graph) -> None:
    training = ours.task("fm_model").request
    assert training is not None
    assert training["HyperParameters"]["feature_dim"] == (
        "${results.protobuf_train.protobuf_train.feature_dim}"
    )
    assert training["HyperParameters"]["epochs"] == (
        "${params.model_training__hyperparameters__epochs}"
    )
    uris = [
        channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in training["InputDataConfig"]
    ]
    assert uris == [
        "${results.protobuf_train.protobuf_train.uri}",
        "${results.protobuf_validate.protobuf_validate.uri}",
    ]
    assert "${run.id}" in training["OutputDataConfig"]["S3OutputPath"]
    predictions = ours.task("batch_predictions_transform").request
    assert predictions is not None
    # The rows that belong to the model: one that is kept has not seen the run's own matrix.
    assert predictions["Transform"]["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] == (
        "${results.selected_model.selected_model.test_data}"
    )
    deployment = ours.task("endpoint_deployment").request
    assert deployment is not None
    assert deployment["EndpointConfigName"] == "${created.endpoint_config}"


def test_a_parameter_that_a_request_does_not_hold_is_not_offered(ours: Graph) -> None:
    names = {param.name for param in ours.params}
    assert "model_training__hyperparameters__epochs" in names
    assert "model_training__hyperparameters__bias_lr" not in names  # not sent unless exported so
    exported = read_graph(
        run_config={
            "ops": {
                "model_training": {"config": {"hyperparameters": {"bias_lr": 0.5, "epochs": 3}}}
            }
        }
    )
    found = {param.name: param for param in exported.params}
    assert found["model_training__hyperparameters__bias_lr"].default == 0.5
    assert found["model_training__hyperparameters__epochs"].default == 3
    training = exported.task("fm_model").request
    assert training is not None
    assert training["HyperParameters"]["bias_lr"] == (
        "${params.model_training__hyperparameters__bias_lr}"
    )


def test_every_parameter_says_what_it_is(ours: Graph) -> None:
    assert [param.name for param in ours.params if not param.description] == []
    assert len({param.name for param in ours.params}) == len(ours.params)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"model_trainin": {"config": {}}},
            "there is no step model_trainin; there are raw_ratings",
        ),
        (
            {"model_training": {"config": {"mode": "both"}}},
            "the config of model_training does not fit",
        ),
        (
            {"recommendations": {"config": {"count": 0}}},
            r"count: Input should be greater than or equal to 1, got 0",
        ),
        (
            {"sparse_matrix": {"config": {"x": 1}}},
            "sparse_matrix takes no config of a dagster.Config class, got {'x': 1}",
        ),
    ],
)
def test_config_that_does_not_fit_is_told(config: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_graph(run_config={"ops": config})


def test_the_pool_of_our_sagemaker_jobs_limits_dagsters_runs_and_is_not_exported(
    ours: Graph,
) -> None:
    nodes = defs.resolve_implicit_global_asset_job_def().nodes
    pools = {node.name: node.definition.pool for node in nodes if node.definition.pool}
    assert pools == dict.fromkeys(("model_training", "batch_predictions"), "sagemaker")
    assert {task.pool for task in ours.tasks} == {None}


def test_a_diamond_is_a_diamond() -> None:
    graph = foreign_graph("diamond")
    assert edges(graph) == {
        "numbers": (),
        "evens": ("numbers",),
        "odds": ("numbers",),
        "together": ("evens", "odds"),
    }
    assert graph.task("numbers") == Task(
        id="numbers",
        kind=Kind.PYTHON,
        group="numbers",
        description="All numbers up to one.",
        owners=("team:counting",),
        tags={"python": "", "tier": "gold"},
        assets=("numbers",),
        retries=4,
        retry_seconds=7,
        pool="counters",
    )
    (param,) = graph.params
    assert (param.name, param.default, param.section) == ("numbers__upto", 3, "numbers")
    assert param.schema == {"type": "integer", "minimum": 1}
    assert param.description == "The last number."


def test_what_depends_on_an_output_that_may_be_left_out_waits_for_it_to_be_made() -> None:
    graph = foreign_graph("optional")
    assert edges(graph) == {
        "sizes": (),
        "large_made": ("sizes",),
        "small_made": ("sizes",),
        "after_counted": ("sizes",),
        "after_large": ("large_made",),
        "after_small": ("small_made",),
    }
    assert graph.task("large_made").optional_asset == "large"
    assert set(graph.task("sizes").assets) == {"large", "small", "counted"}


def test_a_blocking_check_stands_between_an_asset_and_what_depends_on_it() -> None:
    graph = foreign_graph("checked")
    assert edges(graph) == {
        "numbers": (),
        "numbers_checks": ("numbers",),
        "evens": ("numbers_checks",),
    }
    assert graph.task("numbers_checks").checks == ("enough",)
    assert [param.name for param in graph.params] == ["numbers__upto", "numbers_enough__upto"]


def test_the_work_of_a_service_comes_before_the_code_that_takes_it_in() -> None:
    graph = foreign_graph("remote")
    assert edges(graph) == {
        "numbers": (),
        "sparked_spark": ("numbers",),
        "sparked": ("sparked_spark",),
        "trained_training": ("numbers",),
        "trained": ("trained_training",),
        "clean_up": ("sparked", "trained"),
    }
    assert graph.task("trained").created == (Created("trained", Kind.TRAINING, "trained_training"),)
    assert graph.task("sparked_spark").request == {
        "application_id": "app",
        "release": "${run.id}",
    }


def test_what_a_run_must_ask_for_is_behind_one_task() -> None:
    graph = foreign_graph("asked_for")
    assert graph.task("publish").upstream == ("together",)
    assert graph.task("published").upstream == ("publish", "together")
    assert graph.task("announced").upstream == ("published",)
    assert [param.name for param in graph.params] == ["publish", "numbers__upto"]


def test_a_run_makes_one_partition_that_a_parameter_names() -> None:
    graph = foreign_graph("one_region")
    (param,) = graph.params
    assert (param.name, param.schema["enum"], param.default) == (
        "partition",
        ["eu", "us", "asia"],
        "asia",
    )
    partitions = graph.task("regional_again").partitions
    assert partitions is not None
    assert partitions.param == "partition"

    daily = foreign_graph("days").task("daily").partitions
    assert daily is not None
    assert (daily.param, daily.keys, daily.time_format) == ("partition", None, "%Y-%m-%d")


def test_a_run_makes_all_partitions_of_what_something_needs_whole() -> None:
    graph = foreign_graph("all_regions")
    assert graph.params == ()
    for name in ("regional", "regional_again"):
        partitions = graph.task(name).partitions
        assert partitions is not None
        assert (partitions.param, partitions.keys) == (None, ("eu", "us", "asia"))
    assert graph.task("everywhere").partitions is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("weeks", "weekly needs other partitions of daily than a run makes"),
        ("all_days", "ever needs all partitions of daily than a run makes"),
        ("remote_everywhere", "trained_everywhere would be worked on for all its partitions"),
        ("same_names", "two tasks would be named numbers_evens"),
        ("factories", "two steps are named build"),
        ("zigzag", "tasks would wait for each other: both_ends, first_made, between, both_ends"),
        ("checked_together", "tasks would wait for each other: .*numbers_checks"),
        ("asked_by_name", "that no task has, .* got 'numbers'"),
        ("legacy_config", "legacy needs config that is no class derived from dagster.Config"),
        ("same_params", "two parameters would be named regional_count__again__upto"),
        ("missing_field", "there is no parameter misread__missing"),
        ("missing_request", "unasked: .*:job_request returns no request for sagemaker_tuning"),
        ("missing_function", "unwritten: expected module:function of requests"),
        ("missing_kind", r"unknown_work: expected kinds of work .* got \['sagemaker_magic'\]"),
        ("mixed", "services do the work of trained_one, so they must do that of each alternative"),
        ("optional_partitions", "regional_sizes may leave out rare, and a run makes all its part"),
        ("checked_whole", "the blocking checks on regional are done on one partition of a run"),
        ("no_partitions", "no partition is defined"),
        ("nothing", "expected module:attribute of Dagster definitions"),
        ("FOREIGN", "expected module:attribute of Dagster definitions"),
        ("REGIONS", "is not a dagster.Definitions but a StaticPartitionsDefinition"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_sentence(name: str, said: str) -> None:
    with pytest.raises((GraphError, ConfigError), match=said):
        foreign_graph(name)


def test_an_opt_in_goes_before_all_that_follows_what_was_asked_for() -> None:
    found = edges(foreign_graph("asked_for_around"))
    assert found["publish"] == ("together",)
    assert found["published"] == ("publish", "together")
    assert found["plain_between"] == ("published",)
    assert found["archived"] == ("plain_between", "publish")


def test_an_alternative_that_our_code_makes_is_looked_for_where_it_is_made() -> None:
    graph = foreign_graph("alternatives")
    assert graph.task("small_one_made").upstream == ("small_one",)
    assert graph.task("after_small_one").upstream == ("small_one_made",)


def test_a_check_of_each_partition_is_told_of_the_partition() -> None:
    partitions = foreign_graph("checked_each").task("regional_checks").partitions
    assert partitions is not None
    assert partitions.param == "partition"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"ops": {}, "resources": {}}, r"config of steps \(ops\) alone, got resources"),
        ({"ops": {"numbers": {"ops": {}}}}, "numbers: expected a mapping with config alone"),
        ({"ops": {"numbers": None}}, "numbers: expected a mapping with config alone, got None"),
    ],
)
def test_run_config_that_would_be_ignored_is_refused(config: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_graph(f"{FOREIGN}:diamond", config)
