"""The image of SageMaker's built-in Factorization Machines.

What belongs here: where it is in each region. What does not: when another image is used.
"""

import json
from functools import cache
from importlib.metadata import distribution

from dagster import Failure


@cache
def built_in_image(region: str) -> str:
    """Return the URI of the built-in Factorization Machines image of a region.

    It is read from the table that the SageMaker Python SDK ships
    (``sagemaker.core.image_uris.retrieve`` reads the same one); importing the SDK for it would take
    many seconds.

    Raises
    ------
    Failure
        If the built-in is not offered in that region.
    """
    path = "sagemaker/core/image_uri_config/factorization-machines.json"
    table = json.loads(distribution("sagemaker-core").locate_file(path).read_text())
    (version,) = table["versions"].values()
    account = version["registries"].get(region)
    if account is None:
        known = ", ".join(sorted(version["registries"]))
        raise Failure(
            f"Factorization Machines is not offered in {region!r}; it is in {known}.",
            allow_retries=False,
        )
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"{account}.dkr.ecr.{region}.{domain}/{version['repository']}:1"
