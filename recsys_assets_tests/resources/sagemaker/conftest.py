"""The resource on the local services, and something small to train."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys_assets.definitions import build_resources
from recsys_assets.domain.recordio import write_recordio
from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.object_store import ObjectStore
from recsys_assets.resources.sagemaker import SageMaker, Training, configured_sagemaker
from recsys_assets.settings import Settings

HYPERPARAMETERS = {
    "feature_dim": "20",
    "num_factors": "2",
    "predictor_type": "regressor",
    "epochs": "3",
}


@pytest.fixture(scope="module")
def sagemaker(settings: Settings) -> Iterator[SageMaker]:
    with build_resources(settings)["sagemaker"].process_config_and_initialize_cm() as resource:
        yield resource


@pytest.fixture(scope="module")
def store(settings: Settings) -> Iterator[ObjectStore]:
    with build_resources(settings)["store"].process_config_and_initialize_cm() as resource:
        yield resource


@pytest.fixture(scope="module")
def training(
    store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Training]:
    """Return a training of 400 random rows, with hyperparameters changed at will."""
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(0)
    columns = np.stack([rng.integers(0, 10, 400), rng.integers(10, 20, 400)], axis=1)
    features = csr_matrix(
        (np.ones(800, np.float32), columns.ravel(), np.arange(0, 801, 2)), shape=(400, 20)
    )
    write_recordio(folder / "rows", features, rng.integers(1, 6, 400).astype(np.float32))
    uris = []
    for name in ("train", "validate"):
        version = store.publish(f"{name}_rows", "r", folder, row_count=400, facts={})
        uris.append(version.uri)

    def changed(**hyperparameters: str) -> Training:
        return Training(
            {**HYPERPARAMETERS, **hyperparameters}, *uris, store.uri("fm_model", "jobs")
        )

    return changed


@pytest.fixture
def proxied(settings: Settings, proxied_aws: AwsClients) -> Iterator[SageMaker]:
    """The resource as on AWS, with the proxy between."""
    resource = configured_sagemaker(None, aws=proxied_aws, role_arn=settings.role_arn)
    fast = resource.model_copy(update={"poll_seconds": 0.1})
    with fast.process_config_and_initialize_cm() as sagemaker:
        yield sagemaker
