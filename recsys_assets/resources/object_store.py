"""The bucket and the layout of what lies in it.

What belongs here: versions of assets, their manifests, and moving files to and from S3. What does
not: the formats of the files (``recsys_assets.io_managers``).

A materialization writes new objects under ``<asset>/<run id>/data/``, then their manifest
``<asset>/<run id>/manifest.json``, then replaces ``<asset>/current.json`` by one put. A version is
visible when its manifest is, whole. Nothing written is changed.

A version that grows out of the one before it has a head besides, ``<asset>/heads/<name>.json``,
which is replaced only by who has read it: of two runs that start from the same head, one commits
and the other is told to start again.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.exceptions import ClientError
from dagster import ConfigurableResource, Failure, MetadataValue
from pydantic import Field, PrivateAttr

from recsys_assets.resources.aws import AwsClients

_PART_BYTES = 16 << 20
_UPLOADS = TransferConfig(multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES)
_DELETED_AT_ONCE = 1000  # S3's limit
_HEADS = "heads"


class MissingObjectError(Failure):
    """An object that is not there or not readable; trying again would not help."""

    def __init__(self, description: str, uri: str) -> None:
        super().__init__(
            description, metadata={"uri": MetadataValue.text(uri)}, allow_retries=False
        )


class ConflictError(Failure):
    """Another run has committed since this one looked; trying again starts from what it left."""


@dataclass(frozen=True)
class StoredFile:
    """One object of a version: its name below the version's ``data/``, size and SHA-256."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Version:
    """One materialization of an asset, as its manifest tells.

    Attributes
    ----------
    asset, run_id
        What it is and which Dagster run made it.
    uri
        ``s3://`` URI of the folder of its files, with a slash at the end.
    files
        Its files, by name.
    content_hash
        SHA-256 over names and contents of all files: equal for equal content.
    row_count
        Rows, where that means something.
    facts
        What its IO manager wrote down to be read without opening a file.
    inputs
        The run id of the version of each asset that it was made from, directly or through others.
    """

    asset: str
    run_id: str
    uri: str
    files: tuple[StoredFile, ...]
    content_hash: str
    row_count: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> "Version":
        """Read a manifest."""
        content = json.loads(text)
        content["files"] = tuple(StoredFile(**file) for file in content["files"])
        return cls(**content)

    def to_json(self) -> str:
        """Write a manifest."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)


@dataclass(frozen=True)
class StoredObject:
    """Any object of an asset: its name below the asset, its size and when it was written."""

    name: str
    bytes: int
    written: dt.datetime


@dataclass(frozen=True)
class Head:
    """The last committed version of something that grows, as it was found.

    Attributes
    ----------
    name
        Of the head among its asset's.
    version
        What is committed; None before the first commit.
    etag
        Of the head's object, by which a commit tells whether it still is what was found.
    """

    name: str
    version: Version | None = None
    etag: str | None = None


class ObjectStore(ConfigurableResource[Any]):
    """One bucket and one prefix of S3, or of a store that speaks its protocol."""

    aws: AwsClients
    bucket: str = Field(description="Bucket of everything that the platform stores.")
    prefix: str = Field(default="", description="Prefix of all keys within the bucket.")

    _client: Any = PrivateAttr(default=None)

    @property
    def client(self) -> Any:
        """The boto3 S3 client, made when first asked for."""
        if self._client is None:
            self._require_bucket()
            self._client = self.aws.client("s3")
        return self._client

    def uri(self, *parts: str) -> str:
        """Return the ``s3://`` URI of a key below the prefix."""
        self._require_bucket()
        return f"s3://{self.bucket}/{self._key(*parts)}"

    def publish(
        self,
        asset: str,
        run_id: str,
        folder: Path,
        *,
        row_count: int | None,
        facts: Mapping[str, Any],
        inputs: Mapping[str, str] | None = None,
        head: Head | None = None,
    ) -> Version:
        """Upload the files of `folder` as a version of `asset` and make it the current one.

        Files are sent from where they lie, in parts of 16 MB, several at a time and several of each
        file; no file is held in memory.

        Parameters
        ----------
        head
            Where the version grows out of an earlier one: the head that it was made from.

        Raises
        ------
        ConflictError
            If `head` has been replaced since it was read; nothing has become visible.
        boto3.exceptions.S3UploadFailedError
            If S3 refuses a file; it says which and why, and nothing has become visible.
        """
        names = sorted(
            p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()
        )
        files = self._upload(folder, names, self._key(asset, run_id, "data"))
        content = hashlib.sha256(
            "".join(f"{file.name}\0{file.sha256}\n" for file in files).encode()
        ).hexdigest()
        version = Version(
            asset=asset,
            run_id=run_id,
            uri=self.uri(asset, run_id, "data") + "/",
            files=tuple(files),
            content_hash=content,
            row_count=row_count,
            facts=dict(facts),
            inputs=dict(inputs or {}),
        )
        if head is not None:
            self._commit(version, head)
        self._put(self._key(asset, run_id, "manifest.json"), version)
        self._put(self._key(asset, "current.json"), version)
        return version

    def _upload(self, folder: Path, names: Sequence[str], prefix: str) -> list[StoredFile]:
        """Upload files below a prefix; if one fails, the others are called off."""
        with create_transfer_manager(self.client, _UPLOADS) as uploads:
            futures = {
                name: uploads.upload(str(folder / name), self.bucket, f"{prefix}/{name}")
                for name in names
            }
            files = [
                StoredFile(name, (folder / name).stat().st_size, sha256_of(folder / name))
                for name in names
            ]
            for name, future in futures.items():
                try:
                    future.result()
                except ClientError as error:
                    raise S3UploadFailedError(
                        f"Cannot upload s3://{self.bucket}/{prefix}/{name}: {error}"
                    ) from error
        return files

    def head(self, asset: str, name: str) -> Head:
        """Return what has been committed under a name; a head without version if nothing has."""
        key = self._head_key(asset, name)
        try:
            answer = self.client.get_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if self._is_absent(error, key):
                return Head(name)
            raise
        version = Version.from_json(str(answer["Body"].read(), "utf-8"))
        return Head(name, version, answer["ETag"])

    def committed(self, asset: str) -> list[Version]:
        """Return the versions that the heads of an asset name."""
        uris = self.list(self.uri(asset, _HEADS) + "/")
        return [Version.from_json(self.read_text(uri)) for uri in uris]

    def _commit(self, version: Version, head: Head) -> None:
        condition = {"IfMatch": head.etag} if head.etag else {"IfNoneMatch": "*"}
        key = self._head_key(version.asset, head.name)
        try:
            self._put(key, version, **condition)
        except ClientError as error:
            # S3 says ConditionalRequestConflict when two conditional writes meet.
            if error.response["Error"]["Code"] not in (
                "PreconditionFailed",
                "ConditionalRequestConflict",
            ):
                raise
            # A put whose answer got lost is made again, and then meets its own commit.
            if self.head(version.asset, head.name).version != version:
                raise ConflictError(
                    f"Another run has replaced s3://{self.bucket}/{key} since this one read it."
                ) from error

    def _put(self, key: str, version: Version, **condition: str) -> None:
        self.client.put_object(
            Bucket=self.bucket,
            Key=key,
            Body=version.to_json().encode(),
            ContentType="application/json",
            **condition,
        )

    def version(self, asset: str, run_id: str) -> Version | None:
        """Return the version of an asset that a run made, None if it made none."""
        text = self._get_text(self._key(asset, run_id, "manifest.json"))
        return None if text is None else Version.from_json(text)

    def versions(self, asset: str) -> list[tuple[dt.datetime, Version]]:
        """Return all versions of an asset and when each was written, the latest first."""
        found = []
        prefix = self._key(asset) + "/"
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix, Delimiter="/"
        )
        folders = (item["Prefix"] for page in pages for item in page.get("CommonPrefixes", []))
        for folder in folders:
            key = f"{folder}manifest.json"
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if self._is_absent(error, key):
                    continue
                raise
            version = Version.from_json(str(answer["Body"].read(), "utf-8"))
            found.append((answer["LastModified"], version))
        return sorted(found, key=lambda item: (item[0], item[1].run_id), reverse=True)

    def objects(self, asset: str) -> Iterator[StoredObject]:
        """Yield all objects of an asset, in the order of their names."""
        prefix = self._key(asset) + "/"
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        )
        for page in pages:
            for item in page.get("Contents", []):
                name = item["Key"].removeprefix(prefix)
                yield StoredObject(name, item["Size"], item["LastModified"])

    def delete(self, asset: str, names: Sequence[str]) -> None:
        """Delete objects of an asset, in their order, as many at a time as S3 allows.

        Raises
        ------
        Failure
            If one cannot be deleted; it says which and why.
        """
        for first in range(0, len(names), _DELETED_AT_ONCE):
            keys = [self._key(asset, name) for name in names[first : first + _DELETED_AT_ONCE]]
            answer = self.client.delete_objects(
                Bucket=self.bucket,
                Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True},
            )
            for error in answer.get("Errors", []):
                raise Failure(
                    f"Cannot delete s3://{self.bucket}/{error['Key']}: {error['Message']}."
                )

    def find(self, asset: str, run_ids: Sequence[str] = ()) -> Version | None:
        """Return the version that the first of `run_ids` made, else the current one, else None."""
        for run_id in run_ids:
            version = self.version(asset, run_id)
            if version is not None:
                return version
        text = self._get_text(self._key(asset, "current.json"))
        return None if text is None else Version.from_json(text)

    def require(self, asset: str, run_ids: Sequence[str] = ()) -> Version:
        """Return what :meth:`find` finds.

        Raises
        ------
        MissingObjectError
            If there is no version; it names the key that was looked for.
        """
        version = self.find(asset, run_ids)
        if version is None:
            uri = self.uri(asset, "current.json")
            raise MissingObjectError(
                f"{asset} has not been materialized: there is no {uri}. Materialize {asset} first.",
                uri,
            )
        return version

    def fetch(self, version: Version, folder: Path) -> None:
        """Download a version's files into `folder` and check that they are what was written.

        Raises
        ------
        MissingObjectError
            If a file is gone or is not what the manifest says; it names the object.
        """
        for file in version.files:
            path = folder / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            self.fetch_file(version.asset, version.uri + file.name, file.sha256, path)

    def fetch_file(self, asset: str, uri: str, sha256: str, path: Path) -> None:
        """Download a file of an asset and check that it is what was written.

        Raises
        ------
        MissingObjectError
            If it is gone or of another SHA-256; it names the object.
        """
        self.download(uri, path)
        found = sha256_of(path)
        if found != sha256:
            raise MissingObjectError(
                f"{uri} is not what was written: expected SHA-256 {sha256}, found "
                f"{path.stat().st_size} bytes of {found}. Materialize {asset} again.",
                uri,
            )

    def download(self, uri: str, path: Path) -> None:
        """Download any object by its URI.

        Raises
        ------
        MissingObjectError
            If there is no such object or bucket, or no permission to read it.
        """
        bucket, key = split_uri(uri)
        try:
            self.client.download_file(bucket, key, str(path))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "403", "NoSuchKey", "NoSuchBucket"):
                message = error.response["Error"]["Message"]
                raise MissingObjectError(f"Cannot read {uri}: {message}.", uri) from error
            raise

    def download_tree(self, uri: str, folder: Path) -> Path:
        """Download an object, or all objects below a URI taken for a folder, into `folder`.

        Returns
        -------
        pathlib.Path
            Of the file, or `folder` itself.

        Raises
        ------
        MissingObjectError
            If there is nothing, or an object's name would lead out of `folder`.
        """
        if uri in self.list(uri):
            path = folder / uri.rpartition("/")[2]
            self.download(uri, path)
            return path
        root = uri.rstrip("/") + "/"
        names = [name.removeprefix(root) for name in self.list(root) if not name.endswith("/")]
        if not names:
            raise MissingObjectError(f"There is neither an object {uri} nor one below it.", uri)
        for name in names:
            if ".." in PurePosixPath(name).parts:
                raise MissingObjectError(f"{root}{name} is no name of a file.", root + name)
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self.download(root + name, path)
        return folder

    def list(self, uri: str) -> Iterator[str]:
        """Yield the URIs of all objects whose URI starts with `uri`, in the order of their keys."""
        bucket, prefix = split_uri(uri)
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for item in page.get("Contents", []):
                yield f"s3://{bucket}/{item['Key']}"

    def read_text(self, uri: str) -> str:
        """Return a small text object.

        Raises
        ------
        MissingObjectError
            If there is no such object.
        """
        bucket, key = split_uri(uri)
        try:
            body = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if self._is_absent(error, key, bucket):
                message = f"Cannot read {uri}: there is no such object."
                raise MissingObjectError(message, uri) from error
            raise
        return str(body, "utf-8")

    def _is_absent(self, error: ClientError, key: str, bucket: str | None = None) -> bool:
        """Tell whether a request failed for want of its object.

        Of a key that does not exist S3 says AccessDenied to whoever may list below a prefix only,
        as the policy in `recsys_assets/iam` allows.
        """
        code = error.response["Error"]["Code"]
        uri = f"s3://{bucket or self.bucket}/{key}"
        return code == "NoSuchKey" or (code == "AccessDenied" and uri not in self.list(uri))

    def _head_key(self, asset: str, name: str) -> str:
        return self._key(asset, _HEADS, f"{name}.json")

    def _require_bucket(self) -> None:
        if not self.bucket:
            raise Failure("No bucket: set RECSYS_BUCKET.", allow_retries=False)

    def _get_text(self, key: str) -> str | None:
        try:
            return self.read_text(f"s3://{self.bucket}/{key}")
        except MissingObjectError:
            return None

    def _key(self, *parts: str) -> str:
        return str(PurePosixPath(self.prefix, *parts))


def split_uri(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/key`` in bucket and key.

    Raises
    ------
    ValueError
        If it is no S3 URI.
    """
    parsed = urlparse(uri, allow_fragments=False)
    if parsed.scheme != "s3" or not parsed.netloc:
        raise ValueError(f"expected s3://bucket/key, got {uri!r}")
    return parsed.netloc, uri.removeprefix(f"s3://{parsed.netloc}").lstrip("/")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
