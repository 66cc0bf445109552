"""Steps that go on with what another orchestrator has created for them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from dagster import Failure

from recsys_assets.export import metadata
from recsys_assets.resources.object_store import ObjectStore
from recsys_assets.resources.sagemaker import JobFailed, Range, Run, SageMaker, Training, Tuning
from recsys_assets_tests.proxy import Proxy

CREATIONS = (
    "CreateTrainingJob",
    "CreateHyperParameterTuningJob",
    "CreateTransformJob",
    "CreateModel",
    "CreateEndpointConfig",
    "CreateEndpoint",
)
RUN = Run("x", "eeee0000", "fm_model")

Given = Callable[..., AbstractContextManager[SageMaker]]


@pytest.fixture
def given(proxied: SageMaker) -> Given:
    """Return the resource as a step has it for which something was created, by kind of work."""

    @contextmanager
    def given(**created: str) -> Iterator[SageMaker]:
        resource = proxied.model_copy(update={"created": created, "role_arn": ""})
        with resource.process_config_and_initialize_cm() as sagemaker:
            yield sagemaker

    return given


@pytest.fixture(scope="module")
def artefact(sagemaker: SageMaker, training: Callable[..., Training]) -> str:
    with sagemaker.training_job(training(), RUN) as job:
        return str(job.follow()["ModelArtifacts"]["S3ModelArtifacts"])


def create(sagemaker: SageMaker, verb: str, **request: Any) -> None:
    getattr(sagemaker.aws.client("sagemaker"), f"create_{verb}")(**request)


def test_a_training_that_was_created_is_followed_to_its_end(
    sagemaker: SageMaker, given: Given, training: Callable[..., Training], proxy: Proxy
) -> None:
    request = sagemaker.requests().training(sagemaker.training, training(), RUN)
    create(sagemaker, "training_job", TrainingJobName="created-elsewhere", **request)
    with (
        given(sagemaker_training="created-elsewhere") as step,
        step.training_job(training(epochs="77"), RUN) as job,
    ):
        description = job.follow()
    assert job.name == "created-elsewhere"
    assert description["HyperParameters"]["epochs"] == "3"
    assert [name for name in CREATIONS if proxy.seen(name)] == []


def test_a_training_that_has_failed_tells_its_reason_and_no_other_is_begun(
    sagemaker: SageMaker, given: Given, training: Callable[..., Training], proxy: Proxy
) -> None:
    bad = training(num_factors="nonsense")
    request = sagemaker.requests().training(sagemaker.training, bad, RUN)
    create(sagemaker, "training_job", TrainingJobName="fails-elsewhere", **request)
    for _ in range(2):
        with (
            pytest.raises(JobFailed, match=r"fails-elsewhere ended as Failed.*num_factors") as e,
            given(sagemaker_training="fails-elsewhere") as step,
            step.training_job(training(), RUN) as job,
        ):
            job.follow()
        assert e.value.allow_retries is False
        assert "num_factors" in str(e.value.metadata["log"].value)
    assert proxy.seen("CreateTrainingJob") == []


def test_a_transform_that_was_created_needs_no_model_of_the_step(
    sagemaker: SageMaker,
    store: ObjectStore,
    given: Given,
    training: Callable[..., Training],
    artefact: str,
    proxy: Proxy,
) -> None:
    requests = sagemaker.requests()
    create(sagemaker, "model", ModelName="transforms", **requests.model(artefact))
    source, target = training().train_uri, store.uri("transformed", "elsewhere")
    request = requests.transform(sagemaker.transform, "transforms", source, target)
    create(sagemaker, "transform_job", TransformJobName="transforms", **request)
    with (
        given(sagemaker_transform="transforms") as step,
        step.transform_job("s3://no/artefact", source, target, RUN) as job,
    ):
        job.follow()
    assert store.read_text(f"{target}/rows.out").count("\n") == 400
    assert [name for name in CREATIONS if proxy.seen(name)] == []


def test_a_model_and_an_endpoint_that_were_created_are_gone_on_with(
    sagemaker: SageMaker, given: Given, artefact: str, proxy: Proxy
) -> None:
    requests = sagemaker.requests()
    create(sagemaker, "model", ModelName="serves", **requests.model(artefact))
    config = requests.endpoint_config(sagemaker.endpoint, "serves")
    create(sagemaker, "endpoint_config", EndpointConfigName="serves", **config)
    create(sagemaker, "endpoint", EndpointName="serves", EndpointConfigName="serves")
    with given(
        sagemaker_model="serves",
        sagemaker_endpoint_config="serves",
        sagemaker_endpoint="serves",
    ) as step:
        assert step.ensure_model(artefact, RUN) == "serves"
        found = step.deploy("serves", RUN, print)
        assert (found["EndpointName"], found["EndpointStatus"]) == ("serves", "InService")
        assert [name for name in CREATIONS if proxy.seen(name)] == []
        assert proxy.seen("UpdateEndpoint") == []
        step.delete_endpoint(print)


USES: dict[str, tuple[str, Callable[[SageMaker, Training], Any]]] = {
    metadata.TRAINING: ("training job", lambda s, t: s.training_job(t, RUN).__enter__()),
    metadata.TUNING: ("hyper parameter tuning job", lambda s, t: search(s, t).__enter__()),
    metadata.TRANSFORM: (
        "transform job",
        lambda s, t: s.transform_job("s3://a/b", "s3://a/b", "s3://a/b", RUN).__enter__(),
    ),
    metadata.MODEL: ("model", lambda s, t: s.ensure_model("s3://a/b", RUN)),
    metadata.ENDPOINT_CONFIG: ("endpoint config", lambda s, t: s.deploy("m", RUN, print)),
    metadata.ENDPOINT: ("endpoint", lambda s, t: s.deploy("m", RUN, print)),
}


def search(sagemaker: SageMaker, training: Training) -> AbstractContextManager[Any]:
    ranges = (Range("linear_lr", "Continuous", 0.001, 0.01),)
    return sagemaker.tuning_job(Tuning(training, ranges, "Random", 2, 2, seed=0), RUN)


@pytest.mark.parametrize("kind", USES)
def test_what_should_have_been_created_and_is_not_there_is_told_by_name(
    kind: str,
    sagemaker: SageMaker,
    given: Given,
    training: Callable[..., Training],
    proxy: Proxy,
    artefact: str,
) -> None:
    noun, use = USES[kind]
    created = {kind: "nowhere"}
    if kind == metadata.ENDPOINT:
        name = f"config-{noun}"
        config = sagemaker.requests().endpoint_config(
            sagemaker.endpoint, sagemaker.ensure_model(artefact, RUN)
        )
        create(sagemaker, "endpoint_config", EndpointConfigName=name, **config)
        created[metadata.ENDPOINT_CONFIG] = name
    with given(**created) as step, pytest.raises(Failure) as caught:
        use(step, training())
    assert str(caught.value.description).startswith(f"There is no {noun} nowhere, which should")
    assert caught.value.allow_retries is False
    assert [name for name in CREATIONS if proxy.seen(name)] == []
