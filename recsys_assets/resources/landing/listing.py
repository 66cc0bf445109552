"""What a bucket says of its objects: pages of them, their versions, and single ones.

What belongs here: S3's requests and answers. What does not: what is new of it (``looking.py``).

A page covers a range of keys: what it does not list in that range is not there. Some stores list a
few keys out of order, so that a key may come on another page than on its range's; ask for it before
you take it for deleted.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from dagster import get_dagster_logger

from recsys_assets.resources.landing.objects import LandedObject

_GONE = frozenset({404, 405, 412})  # nothing there; a delete marker; another one than wanted
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Listed:
    """What there is under a key.

    Attributes
    ----------
    key
        The key.
    versions
        Latest first; in a bucket without versions, the one object.
    marker
        The delete marker, where it is what was written last.
    """

    key: str
    versions: tuple[LandedObject, ...]
    marker: LandedObject | None = None


@dataclass(frozen=True)
class Page:
    """One page of a listing.

    Attributes
    ----------
    listed
        Its keys, as the store orders them.
    after, until
        It covers the keys in ``(after, until]``; None is no bound.
    moment
        When it was made, by the store's clock.
    """

    listed: tuple[Listed, ...]
    after: str | None
    until: str | None
    moment: dt.datetime


def has_versions(client: Any, bucket: str) -> tuple[bool, dt.datetime]:
    """Return whether a bucket has (had) versioning, and the store's time.

    Who may not ask is told so in the log and gets False.
    """
    try:
        answer = client.get_bucket_versioning(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        get_dagster_logger().warning(
            f"Whether {bucket} has versioning may not be asked (s3:GetBucketVersioning): what is "
            "overwritten between two looks goes unnoticed."
        )
        answer = error.response
    return "Status" in answer, _moment(answer)


def object_pages(
    client: Any, bucket: str, prefix: str, after: str | None, size: int
) -> Iterator[Page]:
    """Yield pages of objects, from the first key after `after` on; the last has no bound."""
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket,
        Prefix=prefix,
        PaginationConfig={"PageSize": size},
        **({} if after is None else {"StartAfter": after}),
    )
    for page in pages:
        found = [_seen(item) for item in page.get("Contents", [])]
        listed = tuple(Listed(each.key, (each,)) for each in found)
        if page["IsTruncated"] and not listed:
            continue
        until = listed[-1].key if page["IsTruncated"] else None
        yield Page(listed, after, until, _moment(page))
        after = until


def version_pages(
    client: Any, bucket: str, prefix: str, after: str | None, size: int
) -> Iterator[Page]:
    """Yield pages of keys with all their versions, as :func:`object_pages` does of objects.

    A key's versions may go on on the store's next page: it is yielded when they are all there.
    """
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=bucket,
        Prefix=prefix,
        PaginationConfig={"PageSize": size},
        **({} if after is None else {"KeyMarker": after}),
    )
    versions: dict[str, list[LandedObject]] = {}
    markers: dict[str, LandedObject] = {}
    for page in pages:
        for item in page.get("Versions", []):
            versions.setdefault(item["Key"], []).append(_seen(item))
        for item in page.get("DeleteMarkers", []):
            versions.setdefault(item["Key"], [])
            if item["IsLatest"]:
                markers[item["Key"]] = _seen(item)
        unfinished = max(versions, default=None) if page["IsTruncated"] else None
        listed = tuple(
            Listed(key, tuple(versions[key]), markers.get(key))
            for key in sorted(versions)
            if key != unfinished
        )
        if page["IsTruncated"] and not listed:
            continue
        until = listed[-1].key if page["IsTruncated"] else None
        yield Page(listed, after, until, _moment(page))
        after = until
        versions = {key: versions[key] for key in versions if key == unfinished}
        markers = {key: markers[key] for key in markers if key == unfinished}


def versions_of(client: Any, bucket: str, key: str, size: int) -> Listed:
    """Return all versions of one key."""
    for page in version_pages(client, bucket, key, None, size):
        for listed in page.listed:
            if listed.key == key:
                return listed
            if listed.key > key:
                break
    return Listed(key, ())


def latest(client: Any, bucket: str, key: str) -> LandedObject | None:
    """Return what is there now under a key, None if nothing is."""
    try:
        return _seen({"Key": key, **client.head_object(Bucket=bucket, Key=key)})
    except ClientError as error:
        if _is_gone(error) or _is_hidden(client, error, bucket, key):
            return None
        raise


def download(client: Any, bucket: str, found: LandedObject, path: Path) -> bool:
    """Download a version of an object.

    Returns
    -------
    bool
        False if it is gone, or another one is there by now.
    """
    which = (
        {"IfMatch": f'"{found.etag}"'}
        if found.version_id is None
        else {"VersionId": found.version_id}
    )
    try:
        body = client.get_object(Bucket=bucket, Key=found.key, **which)["Body"]
    except ClientError as error:
        if _is_gone(error) or _is_hidden(client, error, bucket, found.key):
            return False
        raise
    with path.open("wb") as file:
        for chunk in body.iter_chunks(_READ_BYTES):
            file.write(chunk)
    return True


def _seen(item: dict[str, Any]) -> LandedObject:
    version_id = item.get("VersionId")
    return LandedObject(
        key=item["Key"],
        etag=item.get("ETag", "").strip('"'),
        last_modified=item["LastModified"].astimezone(dt.UTC),
        size=item.get("Size", item.get("ContentLength", 0)),
        # What was there before its bucket had versions is told apart as it was then.
        version_id=None if version_id == "null" else version_id,
        deleted="ETag" not in item,
    )


def _moment(answer: dict[str, Any]) -> dt.datetime:
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])


def _is_gone(error: ClientError) -> bool:
    code = error.response["Error"]["Code"]
    return code != "NoSuchBucket" and error.response["ResponseMetadata"]["HTTPStatusCode"] in _GONE


def _is_hidden(client: Any, error: ClientError, bucket: str, key: str) -> bool:
    """Tell whether a request was denied for want of its object.

    So S3 answers whoever may list below a prefix only, as the policy in `recsys_assets/iam` allows.
    """
    if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
        return False
    found = client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    return all(item["Key"] != key for item in found.get("Contents", []))
