"""Clients as a deployment on AWS has them, on the local services."""

import pytest

from recsys_assets.resources.aws import AwsClients
from recsys_assets.services.record import Services
from recsys_assets_tests.proxy import Proxy


@pytest.fixture
def proxied_aws(services: Services, proxy: Proxy) -> AwsClients:
    """Clients as on AWS, with the proxy between them and the services."""
    return AwsClients(
        local=False,
        endpoint_url=proxy.url,
        region_name=services.region,
        aws_access_key_id=services.access_key_id,
        aws_secret_access_key=services.secret_access_key,
    )
