"""Where the tests of landings find S3, with and without versions, and SQS."""

from collections.abc import Iterator

import pytest

from recsys_assets_tests.automation.landing_world import VERSIONED_BUCKET, moto
from recsys_assets_tests.contract.environments import NoInterpreterError
from recsys_assets_tests.sagemaker_local.endpoint import aws_client


@pytest.fixture(scope="session")
def s3_url(object_store: str) -> str:
    """Return the URL of the object store, which has a bucket with versions too."""
    s3 = aws_client("s3", object_store)
    s3.create_bucket(Bucket=VERSIONED_BUCKET)
    s3.put_bucket_versioning(Bucket=VERSIONED_BUCKET, VersioningConfiguration={"Status": "Enabled"})
    return object_store


@pytest.fixture(scope="module")
def sqs_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of moto's SQS."""
    try:
        with moto(tmp_path_factory.mktemp("moto")) as url:
            yield url
    except NoInterpreterError as error:
        pytest.skip(str(error))
