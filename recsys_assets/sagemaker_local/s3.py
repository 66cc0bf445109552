"""Objects in S3: naming, listing, fetching and storing them, with boto3's ordinary environment.

Endpoint URL, credentials and region are boto3's to find (``AWS_ENDPOINT_URL_S3`` and the like).
How a key becomes a file's path is decided here, so that no key leads out of a job's folder.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from recsys_assets.sagemaker_local.errors import validation_error
from recsys_assets.sagemaker_local.identity import region
from recsys_assets.sagemaker_local.validation import parse_json

TRANSFER_ERRORS = (BotoCoreError, ClientError, S3UploadFailedError)
"""What boto3 raises when an object cannot be listed, fetched or stored."""

# As boto3 has it, without ARNs of access points.
_BUCKET = re.compile(r"[a-zA-Z0-9.\-_]{1,255}")

# Transfers stay in the thread of the job they belong to: a thread pool's workers would hold up
# the endpoint's exit until the object is through.
_IN_THIS_THREAD = TransferConfig(use_threads=False)


@dataclass(frozen=True)
class S3Uri:
    """An object or a prefix in S3."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str, where: str) -> "S3Uri":
        """Read ``s3://bucket/key``.

        Parameters
        ----------
        text
            The URI.
        where
            The request's member it comes from, for the error.

        Raises
        ------
        ServiceError
            When it is not of that form.
        """
        scheme, separator, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not separator or not _BUCKET.fullmatch(bucket):
            raise validation_error(f"{where} must be of the form s3://bucket/key, got {text!r}.")
        return cls(bucket, key)

    def child(self, path: str) -> "S3Uri":
        """Return the object at a path below this prefix."""
        return S3Uri(self.bucket, f"{self.key.rstrip('/')}/{path}" if self.key else path)

    @property
    def parent(self) -> "S3Uri":
        """The folder that this object or folder lies in."""
        return S3Uri(self.bucket, self.key.rstrip("/").rpartition("/")[0])

    def relative(self, key: str) -> str:
        """Return a key's path relative to this prefix, as SageMaker names files.

        Below a prefix that names a folder or ends with a slash it is the rest of the key; under
        any other prefix (which may be the key itself) it begins with the last part of the prefix.
        """
        folder = self.key if self.key.endswith("/") or not self.key else f"{self.key}/"
        if not key.startswith(folder):
            folder = self.key[: self.key.rfind("/") + 1]
        return key[len(folder) :].lstrip("/")

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


class ObjectStore:
    """The S3-compatible store of the surrounding environment."""

    def keys(self, prefix: S3Uri) -> Iterator[str]:
        """Yield the keys under a prefix in their order, without folder markers."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=prefix.bucket, Prefix=prefix.key
        )
        for page in pages:
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    yield item["Key"]

    def sources(self, data: Mapping[str, Any]) -> Iterator[tuple[str, S3Uri]]:
        """Yield the objects that a data source names, each behind its path for the program.

        Parameters
        ----------
        data
            ``S3Uri`` and ``S3DataType``: ``S3Prefix`` for all objects under a prefix, in the order
            of their keys, or ``ManifestFile`` for those that a manifest lists, in its order.

        Raises
        ------
        ValueError
            When an object that should be a manifest is none.
        """
        location = S3Uri.parse(data["S3Uri"], "S3Uri")
        if data["S3DataType"] == "ManifestFile":
            yield from self._manifest(location)
            return
        for key in self.keys(location):
            yield location.relative(key), S3Uri(location.bucket, key)

    def _manifest(self, manifest: S3Uri) -> Iterator[tuple[str, S3Uri]]:
        with self.open(manifest) as stream:
            content = parse_json(stream.read())
        match content:
            case [{"prefix": str(prefix)}, *names] if all(isinstance(name, str) for name in names):
                for name in cast("list[str]", names):
                    yield name, S3Uri.parse(f"{prefix}{name}", f"An entry of manifest {manifest}")
            case _:
                raise ValueError(
                    f'{manifest} is not a manifest: expected [{{"prefix": "s3://..."}}, "key", ...]'
                )

    def has_objects(self, prefix: S3Uri) -> bool:
        """Return whether any object lies under a prefix; False when there is no such bucket."""
        try:
            return any(True for _ in self.keys(prefix))
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchBucket":
                return False
            raise

    def download(self, source: S3Uri, path: Path) -> None:
        """Write an object to a file; its folder is created if there is none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._client.download_file(source.bucket, source.key, str(path), Config=_IN_THIS_THREAD)

    def open(self, source: S3Uri) -> BinaryIO:
        """Return an object's content as a stream to be read once and closed."""
        stream: BinaryIO = self._client.get_object(Bucket=source.bucket, Key=source.key)["Body"]
        return stream

    def upload(self, path: Path, target: S3Uri) -> None:
        """Write a file to an object, whole or not at all."""
        self._client.upload_file(str(path), target.bucket, target.key, Config=_IN_THIS_THREAD)

    @functools.cached_property
    def _client(self) -> Any:
        # Of a session of its own: boto3's common one must not make clients in several threads.
        return boto3.session.Session().client(
            "s3",
            config=Config(
                # A local store has no host name for each bucket.
                s3={"addressing_style": "path"},
                retries={"mode": "standard", "total_max_attempts": 5},
                connect_timeout=5,
            ),
        )


def no_objects(prefix: S3Uri) -> str:
    """Return AWS's words for an input prefix that holds nothing."""
    return (
        f'No S3 objects found under S3 URL "{prefix}" given in input data source. Please ensure'
        f" that the bucket exists in the selected region ({region()}) and that objects exist under"
        " that S3 prefix."
    )


def path_below(folder: Path, relative: str) -> Path:
    """Return the path of a file below a folder.

    Raises
    ------
    ValueError
        When the relative path would lead out of the folder.
    """
    parts = PurePosixPath(relative).parts
    if not parts or relative.startswith("/") or ".." in parts or "\0" in relative:
        raise ValueError(f"{relative!r} does not name a file below its prefix")
    return folder.joinpath(*parts)
