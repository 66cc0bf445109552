"""The landing as a resource.

What belongs here: what is configured of it, and reading one object. What does not: pages of objects
(``listing.py``) and messages (``events.py``).
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

from botocore.exceptions import ClientError
from dagster import ConfigurableResource
from pydantic import Field, PrivateAttr

from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.landing.objects import LandedObject
from recsys_assets.resources.object_store import split_uri

_GONE = frozenset({404, 405, 412})  # nothing there; a delete marker; another one than wanted


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

    _client: Any = PrivateAttr(default=None)

    @property
    def id(self) -> str:
        """A short name of the bucket and prefix, for keys and tags."""
        bucket, prefix = split_uri(self.uri)
        return hashlib.sha256(f"{bucket}/{prefix.rstrip('/')}".encode()).hexdigest()[:12]

    @property
    def client(self) -> Any:
        """The boto3 S3 client, made when first asked for."""
        if self._client is None:
            self._client = self.aws.client("s3")
        return self._client

    def latest(self, key: str) -> LandedObject | None:
        """Return what is there now under a key, None if nothing is."""
        bucket, _ = split_uri(self.uri)
        try:
            found = self.client.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if _is_gone(error):
                return None
            raise
        version_id = found.get("VersionId")
        return LandedObject(
            key=key,
            etag=found["ETag"].strip('"'),
            last_modified=found["LastModified"],
            size=found["ContentLength"],
            version_id=None if version_id == "null" else version_id,
        )

    def fetch(self, found: LandedObject, path: Path) -> bool:
        """Download a version of an object.

        Returns
        -------
        bool
            False if it is gone, or another one is there by now.
        """
        bucket, _ = split_uri(self.uri)
        which = (
            {"VersionId": found.version_id}
            if found.version_id is not None
            else {"IfMatch": f'"{found.etag}"'}
        )
        try:
            body = self.client.get_object(Bucket=bucket, Key=found.key, **which)["Body"]
        except ClientError as error:
            if _is_gone(error):
                return False
            raise
        with path.open("wb") as file:
            for chunk in body.iter_chunks(1 << 20):
                file.write(chunk)
        return True


def _is_gone(error: ClientError) -> bool:
    code = error.response["Error"]["Code"]
    return code != "NoSuchBucket" and error.response["ResponseMetadata"]["HTTPStatusCode"] in _GONE
