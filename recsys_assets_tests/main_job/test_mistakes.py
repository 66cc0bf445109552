"""Mistakes of a person who types `recsys-assets run`: each is one plain sentence."""

from pathlib import Path

import pytest

from recsys_assets_tests.main_job.command import (
    client,
    only_sentence,
    recsys_assets,
    write_config,
)

pytestmark = pytest.mark.xdist_group("main_job_mistakes")


def mistake(state: Path, *options: str | Path) -> str:
    return only_sentence(recsys_assets("run", "--state", state, *options))


@pytest.mark.parametrize("ratings", ["nowhere.csv", "no/folder/", "s3:/typo/in/the/url"])
def test_a_source_that_is_not_there_is_told(state: Path, tmp_path: Path, ratings: str) -> None:
    given = tmp_path / ratings if "s3:" not in ratings else ratings
    assert mistake(state, "--ratings", given) == f"there is no file or folder {given}"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://recsys/nothing/here", "There is neither an object s3://recsys/nothing/here"),
        ("s3://no-such-bucket/ratings.csv", "The specified bucket does not exist"),
    ],
)
def test_an_object_that_is_not_there_is_told(state: Path, url: str, reason: str) -> None:
    said = mistake(state, "--ratings", url)
    assert said.startswith("raw_ratings failed: ")
    assert reason in said


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a,b,c\n1,2,3\n", "it begins with 'a,b,c'"),
        (
            b"customer_id,video_id,stars\n1,2,3\n",
            "needs the column rating; it has customer_id, video_id, stars",
        ),
        (b"", "it is empty"),
        (b"customer_id,video_id,rating\n", "got a header and no rows"),
        (b"\x1f\x8b\x08 no gzip at all", "corrupt gzip"),
    ],
    ids=["unknown columns", "a missing column", "empty", "only a header", "broken gzip"],
)
def test_a_file_that_holds_no_ratings_is_told(
    state: Path, tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "ratings.csv"
    path.write_bytes(content)
    said = mistake(state, "--ratings", path)
    assert said.startswith(f"raw_ratings failed: cannot read {path}")
    assert reason in said


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("ops: [1", "config.yaml is not YAML"),
        ("- a\n- b", "expected a mapping such as `ops: ...`, got ['a', 'b']"),
        ("ops: \xff\xfe", "config.yaml is not YAML"),
        ("ops: {nonsense: {config: {}}}", '"nonsense" at path root:ops. Expected: batch_pred'),
        (
            "ops: {raw_ratings: {config: {generated_row: 5}}}",
            '"generated_row" at path root:ops:raw_ratings:config. Expected: arrivals, columns, ',
        ),
        (
            "ops: {raw_ratings: {config: {generated_rows: many}}}",
            'generated_rows. Value "many" of type "<class \'str\'>" is not valid for expected ',
        ),
        (
            "ops: {raw_ratings: {config: {generated_rows: 5}}}",
            "generated_rows Input should be greater than or equal to 1000",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_told(
    state: Path, tmp_path: Path, content: str, reason: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content.encode("latin-1"))
    said = mistake(state, "--config", path)
    assert reason in said
    assert len(said) < 400


def test_options_and_a_config_that_cannot_be_joined_are_told(state: Path, tmp_path: Path) -> None:
    config, ratings = tmp_path / "config.yaml", tmp_path / "ratings.csv"
    config.write_text("ops: {raw_ratings: nothing}")
    ratings.touch()
    said = mistake(state, "--config", config, "--ratings", ratings)
    assert said == f"{config}: expected a mapping as value of `raw_ratings`, got 'nothing'"


def test_options_that_do_not_exist_show_the_usage(state: Path, tmp_path: Path) -> None:
    for options in (["--rating", "x"], ["--config", str(tmp_path / "absent")], ["--format", "x"]):
        done = recsys_assets("run", "--state", state, *options)
        assert done.returncode == 2
        assert done.stderr.startswith("Usage: ")
        assert "Traceback" not in done.stderr


def test_a_filter_that_leaves_nothing_is_told(state: Path, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "config.yaml",
        raw_ratings={"generated_rows": 1_000},
        filtered_ratings={"min_ratings_per_customer": 900},
    )
    said = mistake(state, "--config", config)
    assert said.startswith("filtered_ratings failed: none of ")
    assert "at least 900" in said


def test_a_data_check_that_fails_stops_the_run(state: Path, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "config.yaml",
        raw_ratings={"generated_rows": 4_000},
        raw_ratings_checks={"rejected_share": {"error": 0.0}},
    )
    said = mistake(state, "--config", config)
    assert said == "raw_ratings_checks failed: rejected_share: 2 of 4,000 lines put aside"
    s3 = client(state, "s3")
    assert s3.list_objects_v2(Bucket="recsys", Prefix="raw_ratings/")["KeyCount"] > 0
    assert s3.list_objects_v2(Bucket="recsys", Prefix="filtered_ratings/")["KeyCount"] == 0
