"""The local services of the endpoint's tests."""

from recsys_assets_tests.sagemaker_local.conftest import endpoint, object_store

__all__ = ["endpoint", "object_store"]
