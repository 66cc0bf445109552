"""Dagster Pipes through the platform's bucket.

What belongs here: how context and messages of a job on AWS lie in the bucket. What does not: the
job. The module is imported only where there is such a job: dagster-aws takes a while.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from dagster_aws.pipes import PipesS3ContextInjector, PipesS3MessageReader
from dagster_pipes import PipesParams

from recsys_assets.resources.object_store import ObjectStore, split_uri


class _MessageReader(PipesS3MessageReader):
    """Reads messages below a prefix, where else they would be at the top of the bucket."""

    def __init__(self, store: ObjectStore, key_prefix: str) -> None:
        super().__init__(bucket=store.bucket, client=store.client)
        self._key_prefix = key_prefix

    @contextmanager
    def get_params(self) -> Iterator[PipesParams]:
        with super().get_params() as params:
            yield {**params, "key_prefix": self._key_prefix}


def s3_pipes(
    store: ObjectStore, folder: str
) -> tuple[PipesS3ContextInjector, PipesS3MessageReader]:
    """Return the ways to a job and back.

    Parameters
    ----------
    store
        Whose client and bucket are used.
    folder
        Below the platform's prefix; the job's own.
    """
    _, prefix = split_uri(store.uri(folder, "pipes"))
    injector = PipesS3ContextInjector(
        bucket=store.bucket, client=store.client, key_prefix=f"{prefix}/"
    )
    return injector, _MessageReader(store, f"{prefix}/messages")
