"""The landing as a resource.

What belongs here: what is configured of it, its clients, and how its parts make a look. What does
not: the parts (``listing.py``, ``events.py``, ``looking.py``).
"""

import hashlib
import sys
from pathlib import Path
from typing import Any, Literal

from dagster import ConfigurableResource, Failure
from pydantic import Field, PrivateAttr

from recsys_assets.domain.ratings.ledger import Ledger
from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.landing import listing
from recsys_assets.resources.landing.events import EventQueue
from recsys_assets.resources.landing.looking import Look, Looking, Rules
from recsys_assets.resources.landing.objects import LandedObject
from recsys_assets.resources.object_store import split_uri


class Landing(ConfigurableResource[Any]):
    """A bucket, a prefix and a pattern of names below it, which others write to."""

    aws: AwsClients
    uri: str = Field(description="Bucket and prefix, s3://bucket/prefix/.")
    pattern: str = Field(default="*", description="Of the names below the prefix (fnmatch).")
    format: Literal["auto", "amazon", "movielens", "movietweetings", "table"] = Field(
        default="auto", description="How its objects are read."
    )
    settle_seconds: float = Field(
        default=10, description="How long an object must have been left unchanged."
    )
    success_marker: bool = Field(default=False, description="Wait for a folder's `_SUCCESS`.")
    deleted: Literal["keep", "forget"] = Field(
        default="keep", description="Whether ratings outlive the object that they came in."
    )
    queue_url: str | None = Field(
        default=None, description="The SQS queue of the bucket's event notifications."
    )
    page_size: int = Field(default=1000, ge=1, le=1000, description="Objects of one listing.")

    _clients: dict[tuple[str, float | None], Any] = PrivateAttr(default_factory=dict)

    @property
    def id(self) -> str:
        """A short name of the bucket and prefix, for keys and tags."""
        return hashlib.sha256("/".join(self._place).rstrip("/").encode()).hexdigest()[:12]

    @property
    def client(self) -> Any:
        """The boto3 S3 client, made when first asked for."""
        return self._client("s3")

    def look(
        self,
        ledger: Ledger,
        after: str | None = None,
        *,
        budget_seconds: float,
        limit: int = sys.maxsize,
    ) -> Look:
        """Find what has arrived and is ready.

        With a queue, its messages and one page of the listing are looked at, else pages until the
        end, or until there is no time or there are enough arrivals.

        Parameters
        ----------
        ledger
            What has been ingested.
        after
            The key after which to go on; None for the beginning.
        budget_seconds
            When to stop. A call to AWS that fails is tried again for half as long.
        limit
            At most so many arrivals.

        Raises
        ------
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
            If the store or the queue does not do as it is asked.
        """
        bucket, prefix = self._place
        client = self._client("s3", budget_seconds / 2)
        versioned, moment = listing.has_versions(client, bucket)
        looking = Looking(
            client,
            bucket,
            Rules(prefix, self.pattern, self.settle_seconds, self.success_marker),
            ledger,
            versioned=versioned,
            moment=moment,
            page_size=self.page_size,
            limit=limit,
            seconds=budget_seconds,
        )
        if self.queue_url is not None:
            sqs = self._client("sqs", budget_seconds / 2)
            looking.hear(EventQueue(sqs, self.queue_url, bucket, prefix))
        after, finished = looking.walk(after, net=self.queue_url is not None)
        return Look(tuple(looking.arrivals), after, finished, looking.waiting)

    def latest(self, key: str) -> LandedObject | None:
        """Return what is there now under a key, None if nothing is."""
        return listing.latest(self.client, self._place[0], key)

    def fetch(self, found: LandedObject, path: Path) -> bool:
        """Download a version of an object.

        Returns
        -------
        bool
            False if it is gone, or another one is there by now.
        """
        return listing.download(self.client, self._place[0], found, path)

    @property
    def _place(self) -> tuple[str, str]:
        try:
            bucket, prefix = split_uri(self.uri.rstrip("/") + "/")
        except ValueError as error:
            raise Failure(
                f"Cannot look for new ratings: {error}. Set RECSYS_BUCKET, or landing.uri in the "
                "automation configuration.",
                allow_retries=False,
            ) from error
        return bucket, prefix

    def _client(self, service: str, patience_seconds: float | None = None) -> Any:
        """Return a boto3 client; a look is to end before its own patience does."""
        if self.aws.local and service == "sqs":
            raise Failure(
                "landing.queue_url is for RECSYS_ENV=aws: the local object store sends no events, "
                "and there is no local queue.",
                allow_retries=False,
            )
        made = service, patience_seconds
        if made not in self._clients:
            self._clients[made] = self.aws.client(*made)
        return self._clients[made]
