"""The object store resource: fetching sources, and what it refuses."""

import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError

from recsys_assets.definitions import build_resources
from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.object_store import (
    ConflictError,
    Head,
    MissingObjectError,
    ObjectStore,
    Version,
)
from recsys_assets.settings import Settings
from recsys_assets_tests.proxy import Answer, Call, Forward, Proxy, drop_after, refuse


@pytest.fixture(scope="module")
def store(settings: Settings) -> Iterator[ObjectStore]:
    with build_resources(settings)["store"].process_config_and_initialize_cm() as resource:
        for key in ("one.tsv", "one.tsv.old", "folder/a.tsv", "folder/deep/b.tsv", "folder2/c.tsv"):
            resource.client.put_object(Bucket="recsys", Key=f"in/{key}", Body=key.encode())
        yield resource


def files(folder: Path) -> dict[str, str]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def test_an_object_is_fetched_alone_though_others_start_like_it(
    store: ObjectStore, tmp_path: Path
) -> None:
    assert store.download_tree("s3://recsys/in/one.tsv", tmp_path) == tmp_path / "one.tsv"
    assert files(tmp_path) == {"one.tsv": "one.tsv"}


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_is_fetched_whole_and_its_namesakes_are_not(
    store: ObjectStore, tmp_path: Path, slash: str
) -> None:
    assert store.download_tree(f"s3://recsys/in/folder{slash}", tmp_path) == tmp_path
    assert files(tmp_path) == {"a.tsv": "folder/a.tsv", "deep/b.tsv": "folder/deep/b.tsv"}


@pytest.mark.parametrize("uri", ["s3://recsys/in/nothing", "s3://recsys/in/on"])
def test_nothing_there_is_an_error_that_names_it(
    store: ObjectStore, tmp_path: Path, uri: str
) -> None:
    with pytest.raises(MissingObjectError, match="neither an object") as caught:
        store.download_tree(uri, tmp_path)
    assert uri in str(caught.value.description)


def test_a_name_that_leads_out_of_the_folder_is_refused(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The local store itself refuses such keys; Amazon S3 takes them.
    hostile = ["s3://recsys/in/hostile/../../../etc/passwd"]
    monkeypatch.setattr(ObjectStore, "list", lambda self, uri: iter(hostile))
    with pytest.raises(MissingObjectError, match="is no name of a file"):
        store.download_tree("s3://recsys/in/hostile", tmp_path / "in")
    assert files(tmp_path) == {}


def test_an_object_that_is_not_there_is_named(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(MissingObjectError, match="Cannot read s3://recsys/in/nothing"):
        store.download("s3://recsys/in/nothing", tmp_path / "x")


@pytest.fixture
def proxied(store: ObjectStore, proxied_aws: AwsClients) -> Iterator[ObjectStore]:
    """The store as on AWS, with the proxy between."""
    configured = ObjectStore(aws=proxied_aws, bucket=store.bucket)
    with configured.process_config_and_initialize_cm() as resource:
        yield resource


def test_what_s3_denies_because_it_is_not_there_has_not_been_made(
    store: ObjectStore, proxied: ObjectStore, proxy: Proxy, tmp_path: Path
) -> None:
    # Whoever may list below a prefix only is told 403 of a key that does not exist, not 404.
    proxy.inject(refuse(403, "AccessDenied", "Access Denied"), "GetObject")
    assert proxied.find("never_made") is None

    (tmp_path / "file").write_text("content")
    made = store.publish("made", "run", tmp_path, row_count=None, facts={})
    proxy.inject(refuse(403, "AccessDenied", "Access Denied"), "GetObject")
    assert proxied.find("made", ["another run"]) == made


def test_what_is_there_and_may_not_be_read_is_told(
    store: ObjectStore, proxied: ObjectStore, proxy: Proxy, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("content")
    store.publish("hidden", "run", tmp_path, row_count=None, facts={})
    proxy.inject(refuse(403, "AccessDenied", "Access Denied"), "GetObject")
    with pytest.raises(ClientError, match="AccessDenied"):
        proxied.find("hidden")


def test_a_bucket_in_another_region_is_followed_there(proxied: ObjectStore, proxy: Proxy) -> None:
    elsewhere = (("x-amz-bucket-region", "eu-north-1"),)
    moved = b"<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>"
    proxy.inject(lambda call, forward: Answer(301, elsewhere, moved), "ListObjectsV2")
    assert [*proxied.list("s3://recsys/in/folder2")] == ["s3://recsys/in/folder2/c.tsv"]


def test_credentials_that_expire_before_a_download_are_waited_for(
    proxied: ObjectStore, proxy: Proxy, tmp_path: Path
) -> None:
    # The answer to HEAD has no body, and so no ExpiredToken in it.
    proxy.inject(lambda call, forward: Answer(400, (), b""), "HeadObject", times=2)
    proxied.download("s3://recsys/in/one.tsv", tmp_path / "one.tsv")
    assert (tmp_path / "one.tsv").read_text() == "one.tsv"


def test_a_path_is_not_a_uri(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected s3://bucket/key, got '/etc/passwd'"):
        store.download("/etc/passwd", tmp_path / "x")


PART = 16 << 20  # bytes


def test_a_large_file_goes_up_in_parts(
    store: ObjectStore, proxied: ObjectStore, proxy: Proxy, tmp_path: Path
) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2 * PART + 3)
    parts: list[int] = []

    def list_parts(call: Call, forward: Forward) -> Answer:
        upload = parse_qs(urlsplit(call.path).query)["uploadId"][0]
        key = "parted/run/data/large"
        listed = store.client.list_parts(Bucket=store.bucket, Key=key, UploadId=upload)
        parts.extend(part["Size"] for part in listed["Parts"])
        return forward()

    proxy.inject(list_parts, "CompleteMultipartUpload")
    made = proxied.publish("parted", "run", tmp_path, row_count=None, facts={})
    assert parts == [PART, PART, 3]
    fetched = tmp_path / "fetched"
    store.fetch(made, fetched)
    assert (fetched / "large").stat().st_size == 2 * PART + 3


def test_no_file_is_held_in_memory_while_it_goes_up(store: ObjectStore, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(6 * PART)
    tracemalloc.start()
    try:
        store.publish("streamed", "run", tmp_path, row_count=None, facts={})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < PART


def test_an_upload_that_fails_half_way_leaves_no_version_and_no_parts(
    store: ObjectStore, proxied: ObjectStore, proxy: Proxy, tmp_path: Path
) -> None:
    (tmp_path / "small").write_text("content")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(3 * PART)

    def refuse_the_second(call: Call, forward: Forward) -> Answer | None:
        is_second = "partNumber=2" in call.path
        return refuse(403, "AccessDenied")(call, forward) if is_second else forward()

    proxy.inject(refuse_the_second, "UploadPart", times=3)
    with pytest.raises(S3UploadFailedError, match=r"broken_off/run/data/large: .*AccessDenied"):
        proxied.publish("broken_off", "run", tmp_path, row_count=None, facts={})
    assert store.version("broken_off", "run") is None
    assert store.find("broken_off") is None
    assert [call.forwarded for call in proxy.seen("AbortMultipartUpload")] == [204]
    uploads = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix="broken_off/")
    assert uploads.get("Uploads", []) == []


def test_files_of_a_version_go_up_several_at_a_time(
    proxied: ObjectStore, proxy: Proxy, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    together = threading.Barrier(3, timeout=30)

    def wait_for_the_others(call: Call, forward: Forward) -> Answer:
        with suppress(threading.BrokenBarrierError):
            together.wait()
        return forward()

    proxy.inject(wait_for_the_others, "PutObject", times=3)
    made = proxied.publish("together", "run", tmp_path, row_count=None, facts={})
    assert not together.broken
    assert [file.name for file in made.files] == ["a", "b", "c"]


def commit(store: ObjectStore, asset: str, run_id: str, folder: Path, head: Head) -> Version:
    return store.publish(asset, run_id, folder, row_count=None, facts={}, head=head)


def test_versions_are_told_the_latest_first_and_unfinished_ones_are_not(
    store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("content")
    for run_id in ("1", "2", "3"):
        store.publish("told", run_id, tmp_path, row_count=None, facts={})
    store.client.put_object(Bucket="recsys", Key="told/4/data/file", Body=b"no manifest yet")
    store.client.put_object(Bucket="recsys", Key="told/heads/landing.json", Body=b"no version")
    found = store.versions("told")
    assert [version.run_id for _, version in found] == ["3", "2", "1"]
    assert found[0][1] == store.version("told", "3") == store.find("told")
    assert store.version("told", "4") is None
    assert store.versions("never told") == []


def test_of_two_runs_that_start_from_one_head_one_commits_and_the_other_leaves_nothing_visible(
    store: ObjectStore, tmp_path: Path
) -> None:
    first = store.head("grown", "landing")
    assert first == Head("landing")
    one = commit(store, "grown", "one", tmp_path, first)
    with pytest.raises(ConflictError, match="Another run has replaced s3://recsys/grown/heads"):
        commit(store, "grown", "two", tmp_path, first)
    assert store.version("grown", "two") is None
    assert store.find("grown") == store.head("grown", "landing").version == one

    second = store.head("grown", "landing")
    three = commit(store, "grown", "three", tmp_path, second)
    with pytest.raises(ConflictError):
        commit(store, "grown", "four", tmp_path, second)
    assert store.find("grown") == store.head("grown", "landing").version == three


def test_heads_of_other_names_do_not_meet(store: ObjectStore, tmp_path: Path) -> None:
    for name in ("a", "b"):
        commit(store, "apart", name, tmp_path, store.head("apart", name))
    heads = [store.head("apart", name).version for name in ("a", "b")]
    assert [version.run_id for version in heads if version] == ["a", "b"]


@pytest.mark.parametrize("before", [False, True])
def test_a_commit_whose_answer_is_lost_is_made_once_and_holds(
    store: ObjectStore, proxied: ObjectStore, proxy: Proxy, tmp_path: Path, before: bool
) -> None:
    asset = f"lost_{before}"
    if before:
        commit(store, asset, "zero", tmp_path, store.head(asset, "landing"))
    proxy.inject(drop_after, "PutObject")  # of an empty folder the head is the first object put
    made = commit(proxied, asset, "one", tmp_path, store.head(asset, "landing"))
    assert store.head(asset, "landing").version == store.find(asset) == made
    heads = [call for call in proxy.seen("PutObject") if "/heads/" in call.path]
    assert [call.forwarded for call in heads] == [200, 412]
