"""The small parts: images, metrics, S3 names and model archives."""

import io
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.sagemaker_local.containers.archives import pack, unpack
from recsys_assets.sagemaker_local.containers.container import ContainerFolder
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.images import (
    BUILT_IN,
    SCRIPT_MODE,
    Images,
    Program,
    parse_mappings,
    repository,
)
from recsys_assets.sagemaker_local.metrics import MetricScraper, check_definitions
from recsys_assets.sagemaker_local.s3 import S3Uri, path_below


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (
            "382416733822.dkr.ecr.us-east-1.amazonaws.com/factorization-machines:1",
            "factorization-machines",
        ),
        (
            "835164637446.dkr.ecr.eu-north-1.amazonaws.com/factorization-machines:latest",
            "factorization-machines",
        ),
        ("localhost:5000/team/trainer@sha256:0123", "team/trainer"),
        ("localhost/trainer", "trainer"),
        ("team/trainer:2", "team/trainer"),
        ("trainer", "trainer"),
    ],
)
def test_a_repository_is_an_image_without_registry_and_tag(image: str, expected: str) -> None:
    assert repository(image) == expected


def test_an_image_of_the_command_line_runs_with_train_or_serve_appended() -> None:
    programs = parse_mappings([f"mine={sys.executable} '/some where/program.py'"])
    assert programs["mine"].train == (sys.executable, "/some where/program.py", "train")
    assert programs["mine"].serve == (sys.executable, "/some where/program.py", "serve")
    assert programs.keys() == {*BUILT_IN, "mine"}


def test_script_mode_is_named_without_its_path() -> None:
    programs = parse_mappings(["xgboost=script-mode --python /other/python"])
    assert programs["xgboost"].train == (*SCRIPT_MODE, "--python", "/other/python", "train")


@pytest.mark.parametrize(
    ("specification", "expected"),
    [
        ({}, ("program",)),
        ({"ContainerArguments": ["a", "b c"]}, ("program", "a", "b c")),
        ({"ContainerEntrypoint": ["sh", "-c"]}, ("sh", "-c")),
        ({"ContainerEntrypoint": ["sh"], "ContainerArguments": ["a"]}, ("sh", "a")),
    ],
)
def test_a_requests_entrypoint_and_arguments_replace_the_images(
    specification: dict[str, list[str]], expected: tuple[str, ...]
) -> None:
    program = Program(("program", "train"), ("program", "serve"), entrypoint=("program",))
    assert program.command(specification) == expected


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("mine", "expected REPOSITORY=PROGRAM, got 'mine'"),
        ("=program", "expected REPOSITORY=PROGRAM, got '=program'"),
        ("mine=", "expected REPOSITORY=PROGRAM, got 'mine='"),
        ("mine=no-such-program", "no program 'no-such-program'"),
    ],
)
def test_an_image_that_cannot_run_is_refused_at_the_start(mapping: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_mappings([mapping])


def test_an_unknown_image_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ServiceError, match=r"repository 'xgboost'.*factorization-machines"):
        Images().program("1.dkr.ecr.us-east-1.amazonaws.com/xgboost:1")


FM_LOG = """\
[11/22/2026 10:00:00 INFO 1] #quality_metric: host=algo-1, epoch=0, batch=0 train rmse <loss>=3.5
[11/22/2026 10:00:00 INFO 1] #quality_metric: host=algo-1, epoch=0, train rmse <loss>=1.25
[11/22/2026 10:00:00 INFO 1] #progress_metric: host=algo-1, completed 50.0 % of epochs
[11/22/2026 10:00:01 INFO 1] #quality_metric: host=algo-1, epoch=1, train rmse <loss>=1.125
#throughput_metric: host=algo-1, train throughput=54648.5 records/second
[11/22/2026 10:00:01 INFO 1] #progress_metric: host=algo-1, completed 100.0 % of epochs
[11/22/2026 10:00:01 INFO 1] #quality_metric: host=algo-1, train rmse <loss>=1.0625
[11/22/2026 10:00:02 INFO 1] #quality_metric: host=algo-1, test rmse <loss>=1.5
[11/22/2026 10:00:02 INFO 1] #quality_metric: host=algo-1, test binary_f_1.000 <score>=0.75
"""


def test_the_latest_value_of_each_metric_of_the_built_in_is_read_off_its_log() -> None:
    scraper = MetricScraper(BUILT_IN["factorization-machines"].metric_definitions)
    assert all(scraper.scan(line) for line in FM_LOG.splitlines())
    assert {metric["MetricName"]: metric["Value"] for metric in scraper.final()} == {
        "train:rmse:batch": 3.5,
        "train:rmse:epoch": 1.125,
        "train:progress": 100.0,
        "train:throughput": 54648.5,
        "train:rmse": 1.0625,
        "test:rmse": 1.5,
        "test:binary_f_beta": 0.75,
    }


def test_matches_that_are_no_finite_numbers_are_passed_over() -> None:
    scraper = MetricScraper([{"Name": "loss", "Regex": "loss=(.*)"}])
    assert scraper.scan("loss=0.5")
    assert not any(scraper.scan(f"loss={text}") for text in ("nan", "inf", "-inf", "low", ""))
    assert [metric["Value"] for metric in scraper.final()] == [0.5]


@pytest.mark.parametrize(("regex", "message"), [("(", "not a regular expr"), ("a", "in a group")])
def test_definitions_that_cannot_be_applied_are_refused(regex: str, message: str) -> None:
    with pytest.raises(ServiceError, match=message):
        check_definitions([{"Name": "loss", "Regex": regex}])


@pytest.mark.parametrize(
    ("prefix", "key", "expected"),
    [
        ("in/", "in/a.csv", "a.csv"),
        ("in", "in/a.csv", "a.csv"),
        ("in", "in/deep/a.csv", "deep/a.csv"),
        ("in/a.csv", "in/a.csv", "a.csv"),
        ("in/part", "in/part-1.csv", "part-1.csv"),
        ("in/part", "in/parts/1.csv", "parts/1.csv"),
        ("", "in/a.csv", "in/a.csv"),
        ("part", "part-1.csv", "part-1.csv"),
    ],
)
def test_files_are_named_relative_to_their_prefix(prefix: str, key: str, expected: str) -> None:
    assert S3Uri("bucket", prefix).relative(key) == expected


@pytest.mark.parametrize(
    ("key", "parent"), [("a/b/c.txt", "a/b"), ("a/b/", "a"), ("a", ""), ("", "")]
)
def test_the_parent_of_an_object_is_its_folder(key: str, parent: str) -> None:
    assert S3Uri("bucket", key).parent == S3Uri("bucket", parent)


@pytest.mark.parametrize(
    "text", ["bucket/key", "s3:/bucket", "s3://", "https://bucket/key", "s3://two words/key", ""]
)
def test_what_is_no_s3_uri_is_refused(text: str) -> None:
    with pytest.raises(ServiceError, match="OutputPath must be of the form s3://bucket/key"):
        S3Uri.parse(text, "OutputPath")


@given(st.text("ab./\0\\", max_size=12))
def test_no_key_leads_out_of_its_folder(relative: str) -> None:
    folder = Path("/jobs/one")
    try:
        path = path_below(folder, relative)
    except ValueError:
        return
    assert folder in Path(*(part for part in path.parts if part != ".")).parents
    assert ".." not in path.parts


@pytest.mark.parametrize("relative", ["../a", "a/../../b", "/etc/passwd", "..", "", ".", "a\0b"])
def test_keys_that_would_lead_out_are_refused(relative: str) -> None:
    with pytest.raises(ValueError, match="does not name a file"):
        path_below(Path("/jobs/one"), relative)


@pytest.mark.parametrize("name", ["/opt/ml/../../etc", "/opt/ml", "/opt/mlx/a", "/etc", "a", ""])
def test_a_containers_path_is_below_opt_ml(name: str) -> None:
    folder = ContainerFolder(Path("/jobs/one/ml"))
    assert folder.path("/opt/ml/processing/in") == Path("/jobs/one/ml/processing/in")
    with pytest.raises(ValueError, match=r"."):
        folder.path(name)


def test_an_archive_has_the_same_bytes_for_the_same_files(tmp_path: Path) -> None:
    contents = {"b/c.txt": b"c" * 1000, "a.txt": b"a"}
    for attempt in ("first", "second"):
        for name, content in sorted(contents.items(), reverse=attempt == "second"):
            path = tmp_path / attempt / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (tmp_path / f"{attempt}-folder").mkdir()
        pack(tmp_path / attempt, tmp_path / f"{attempt}-folder" / "model.tar.gz")
    first = tmp_path / "first-folder" / "model.tar.gz"
    assert first.read_bytes() == (tmp_path / "second-folder" / "model.tar.gz").read_bytes()
    unpack(first, tmp_path / "unpacked")
    assert {name: (tmp_path / "unpacked" / name).read_bytes() for name in contents} == contents


def malicious(name: str, link: str | None = None) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    if link is not None:
        member.type, member.linkname = tarfile.SYMTYPE, link
    return member


@pytest.mark.parametrize(
    "member",
    [
        malicious("../escaped"),
        malicious("link", "/etc/passwd"),
        malicious("link", "../../escaped"),
    ],
)
def test_an_archive_that_leads_out_of_its_folder_is_refused(
    tmp_path: Path, member: tarfile.TarInfo
) -> None:
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(member, io.BytesIO())
    with pytest.raises(ValueError, match="cannot unpack the archive"):
        unpack(archive, tmp_path / "in" / "model")
    assert not list(tmp_path.glob("**/escaped"))


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00cut"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="cannot unpack the archive"):
        unpack(archive, tmp_path / "model")
