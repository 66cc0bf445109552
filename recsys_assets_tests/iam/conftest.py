"""The endpoint's object store, for the tests of the policies."""

from recsys_assets_tests.sagemaker_local.conftest import object_store

__all__ = ["object_store"]
