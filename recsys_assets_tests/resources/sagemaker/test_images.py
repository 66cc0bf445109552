"""The built-in's image is the one that the SageMaker SDK knows."""

import subprocess
import sys

import pytest

from recsys_assets.resources.sagemaker.images import built_in_image, is_built_in


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "cn-north-1"])
def test_the_image_is_the_one_that_the_sagemaker_sdk_retrieves(region: str) -> None:
    code = (
        "from sagemaker.core import image_uris; "
        f"print(image_uris.retrieve('factorization-machines', '{region}'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == built_in_image(region)


def test_a_region_without_the_built_in_is_named_in_the_error() -> None:
    with pytest.raises(Exception, match="not offered in 'mars-1'"):
        built_in_image("mars-1")


@pytest.mark.parametrize("region", ["us-east-1", "cn-north-1"])
def test_the_built_in_is_known_by_its_repository(region: str) -> None:
    image = built_in_image(region)
    repository = image.removesuffix(":1")
    digest = f"{repository}@sha256:{'0' * 64}"
    assert all(map(is_built_in, [image, repository, f"{repository}:latest", digest]))
    for other in ("/own-factorization-machines:1", "/factorization-machines/own:1"):
        assert not is_built_in(image.replace("/factorization-machines:1", other))
    own_account = image.replace(image.partition(".")[0], "123456789012")
    assert not is_built_in(own_account)
