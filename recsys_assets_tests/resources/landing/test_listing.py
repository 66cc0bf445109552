"""Listing the real local store: pages, versions, and what is there under one key."""

import datetime as dt
import itertools
from collections.abc import Iterator
from email.utils import format_datetime
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from recsys_assets.resources.landing.listing import (
    Page,
    download,
    has_versions,
    latest,
    object_pages,
    version_pages,
    versions_of,
)
from recsys_assets_tests.proxy import Answer, Call, Forward, Proxy, refuse
from recsys_assets_tests.sagemaker_local.endpoint import BUCKET, aws_client

VERSIONED = "listed-with-versions"
NAMES = ["B", "a a+%20", "a.tsv", "ab/c", "d/e/f", "d/é", "ü", "日"]
DENIED = refuse(403, "AccessDenied", "Access Denied")

NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


def denied_at_noon(call: Call, forward: Forward) -> Answer:
    refused = DENIED(call, forward)
    assert refused is not None
    return Answer(403, (("Date", format_datetime(NOON, usegmt=True)),), refused.body)


_prefixes = (f"listing-{number}/" for number in itertools.count())


@pytest.fixture(scope="module")
def url(object_store: str) -> str:
    s3 = aws_client("s3", object_store)
    s3.create_bucket(Bucket=VERSIONED)
    s3.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})
    return object_store


@pytest.fixture
def prefix() -> str:
    return next(_prefixes)


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    with Proxy(url) as running:
        yield running


def keys(pages: list[Page]) -> list[str]:
    return [listed.key for page in pages for listed in page.listed]


def assert_ranges_meet(pages: list[Page], after: str | None) -> None:
    assert [page.after for page in pages] == [after, *(page.until for page in pages[:-1])]
    assert pages[-1].until is None


@pytest.mark.parametrize("size", [1, 2, 3, 8, 1000])
@pytest.mark.parametrize("after", [None, 2])
def test_pages_of_objects_cover_all_keys_once(
    url: str, prefix: str, size: int, after: int | None
) -> None:
    s3 = aws_client("s3", url)
    for name in NAMES:
        s3.put_object(Bucket=BUCKET, Key=prefix + name, Body=name.encode())
    key = None if after is None else prefix + NAMES[after]
    pages = [*object_pages(s3, BUCKET, prefix, key, size)]
    assert keys(pages) == [prefix + name for name in NAMES[0 if after is None else after + 1 :]]
    assert_ranges_meet(pages, key)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("after", [None, 2])
def test_a_key_is_listed_once_with_all_its_versions_though_they_span_pages(
    url: str, prefix: str, size: int, after: int | None
) -> None:
    s3 = aws_client("s3", url)
    put = {
        name: [
            s3.put_object(Bucket=VERSIONED, Key=prefix + name, Body=bytes(number + 1))["VersionId"]
            for number in range(count)
        ]
        for count, name in enumerate(NAMES, start=1)
    }
    s3.delete_object(Bucket=VERSIONED, Key=prefix + "d/é")
    key = None if after is None else prefix + NAMES[after]
    pages = [*version_pages(s3, VERSIONED, prefix, key, size)]
    names = NAMES[0 if after is None else after + 1 :]
    assert keys(pages) == [prefix + name for name in names]
    assert_ranges_meet(pages, key)
    listed = {each.key: each for page in pages for each in page.listed}
    for name in names:
        found = listed[prefix + name]
        assert [version.version_id for version in found.versions] == put[name][::-1]
        assert (found.marker is not None) == (name == "d/é")
        assert found == versions_of(s3, VERSIONED, prefix + name, size)


def test_versions_of_a_key_are_not_those_of_keys_that_begin_like_it(url: str, prefix: str) -> None:
    s3 = aws_client("s3", url)
    s3.put_object(Bucket=VERSIONED, Key=prefix + "ab", Body=b"x")
    assert versions_of(s3, VERSIONED, prefix + "a", 1).versions == ()


def test_an_empty_prefix_is_one_page(url: str, prefix: str) -> None:
    s3 = aws_client("s3", url)
    for pages, bucket in ((object_pages, BUCKET), (version_pages, VERSIONED)):
        (page,) = pages(s3, bucket, prefix, None, 5)
        assert (page.listed, page.after, page.until) == ((), None, None)


def test_whether_a_bucket_has_versions_is_asked_and_who_may_not_ask_is_told(
    url: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    s3 = aws_client("s3", proxy.url)
    assert has_versions(s3, VERSIONED)[0]
    assert not has_versions(s3, BUCKET)[0]
    proxy.inject(denied_at_noon)
    assert has_versions(s3, VERSIONED) == (False, NOON)
    assert "may not be asked (s3:GetBucketVersioning)" in caplog.text
    proxy.inject(refuse(404, "NoSuchBucket"))
    with pytest.raises(ClientError, match="NoSuchBucket"):
        has_versions(s3, VERSIONED)


def test_what_is_there_is_told_with_its_version_and_what_is_not_is_none(
    url: str, prefix: str
) -> None:
    s3 = aws_client("s3", url)
    key = prefix + "a b+ü"
    assert latest(s3, VERSIONED, key) is None
    version_id = s3.put_object(Bucket=VERSIONED, Key=key, Body=b"abc")["VersionId"]
    found = latest(s3, VERSIONED, key)
    assert found is not None
    assert (found.version_id, found.size, found.deleted) == (version_id, 3, False)
    s3.delete_object(Bucket=VERSIONED, Key=key)
    assert latest(s3, VERSIONED, key) is None


def test_what_is_denied_because_it_is_not_there_is_gone_and_else_it_is_an_error(
    url: str, proxy: Proxy, prefix: str, tmp_path: Path
) -> None:
    # Whoever may list below a prefix only is told 403 of a key that does not exist, not 404.
    s3 = aws_client("s3", proxy.url)
    aws_client("s3", url).put_object(Bucket=BUCKET, Key=prefix + "ab", Body=b"abc")
    there = latest(s3, BUCKET, prefix + "ab")
    assert there is not None
    proxy.inject(DENIED, "HeadObject")
    assert latest(s3, BUCKET, prefix + "a") is None
    proxy.inject(DENIED, "HeadObject")
    with pytest.raises(ClientError, match="403"):
        latest(s3, BUCKET, prefix + "ab")
    proxy.inject(DENIED, "GetObject")
    with pytest.raises(ClientError, match="AccessDenied"):
        download(s3, BUCKET, there, tmp_path / "x")


def test_a_version_is_downloaded_though_others_came_after_it(
    url: str, prefix: str, tmp_path: Path
) -> None:
    s3 = aws_client("s3", url)
    key = prefix + "a"
    s3.put_object(Bucket=VERSIONED, Key=key, Body=b"first")
    first = latest(s3, VERSIONED, key)
    assert first is not None
    s3.put_object(Bucket=VERSIONED, Key=key, Body=b"second")
    s3.delete_object(Bucket=VERSIONED, Key=key)
    assert download(s3, VERSIONED, first, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"first"
    s3.delete_object(Bucket=VERSIONED, Key=key, VersionId=first.version_id)
    assert not download(s3, VERSIONED, first, tmp_path / "x")


def test_another_object_than_was_seen_is_not_downloaded(
    url: str, prefix: str, tmp_path: Path
) -> None:
    s3 = aws_client("s3", url)
    key = prefix + "a"
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"first")
    first = latest(s3, BUCKET, key)
    assert first is not None
    assert download(s3, BUCKET, first, tmp_path / "x")
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"second")
    assert not download(s3, BUCKET, first, tmp_path / "x")
    s3.delete_object(Bucket=BUCKET, Key=key)
    assert not download(s3, BUCKET, first, tmp_path / "x")
