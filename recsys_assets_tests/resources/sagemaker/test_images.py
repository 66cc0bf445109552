"""The built-in's image is the one that the SageMaker SDK knows."""

import subprocess
import sys

import pytest

from recsys_assets.resources.sagemaker import built_in_image


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
