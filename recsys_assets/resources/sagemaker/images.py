"""The image of SageMaker's built-in Factorization Machines.

What belongs here: where it is in each region, and telling it from others. What does not: when
another image is used.
"""

import json
from functools import cache
from importlib.metadata import distribution
from typing import Any

from dagster import Failure


def built_in_image(region: str) -> str:
    """Return the URI of the built-in Factorization Machines image of a region.

    Raises
    ------
    Failure
        If the built-in is not offered in that region.
    """
    regions = _table()["registries"]
    if region not in regions:
        known = ", ".join(sorted(regions))
        raise Failure(
            f"Factorization Machines is not offered in {region!r}; it is in {known}.",
            allow_retries=False,
        )
    return f"{_repository(region)}:1"


def is_built_in(image: str) -> bool:
    """Tell whether an image, of any tag or digest, is that of the built-in in any region."""
    repository = image.partition("@")[0].partition(":")[0]
    return repository in map(_repository, _table()["registries"])


@cache
def _table() -> dict[str, Any]:
    """Read the table that the SageMaker Python SDK ships.

    ``sagemaker.core.image_uris.retrieve`` reads the same one; importing the SDK for it would take
    many seconds.
    """
    path = "sagemaker/core/image_uri_config/factorization-machines.json"
    table = json.loads(distribution("sagemaker-core").locate_file(path).read_text())
    (version,) = table["versions"].values()
    found: dict[str, Any] = version
    return found


def _repository(region: str) -> str:
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    table = _table()
    return f"{table['registries'][region]}.dkr.ecr.{region}.{domain}/{table['repository']}"
