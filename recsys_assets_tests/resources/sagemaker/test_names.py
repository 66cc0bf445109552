"""Names and tags: the same job is found again, and both fit the API."""

from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.resources.sagemaker import Run, job_name
from recsys_assets.service_model import service_model, violations

RUN = Run("0123456789abcdef", "0123456789abcdef", "fm_model")


@given(
    asset=st.text(min_size=1, max_size=80),
    root=st.uuids().map(str),
    length=st.sampled_from([29, 32, 63]),
)
def test_job_names_fit_the_api(asset: str, root: str, length: int) -> None:
    name = job_name(Run(root, root, f"a{asset}"), {"x": 1}, length)
    assert len(name) <= length
    assert all(part.isascii() and part.isalnum() for part in name.split("-"))


def test_the_tags_of_a_request_do_not_change_its_name() -> None:
    first = job_name(RUN, {"x": 1, "Tags": [1]}, 63)
    assert first == job_name(RUN, {"x": 1, "Tags": [2]}, 63)
    assert first != job_name(RUN, {"x": 2}, 63)


def test_another_root_run_or_asset_is_another_name() -> None:
    names = {
        job_name(Run("x", root, asset), {"x": 1}, 63)
        for root in ("11111111", "22222222")
        for asset in ("fm_model", "tuned_model")
    }
    assert len(names) == 4


def test_tags_tell_run_asset_and_partition_and_what_the_deployment_adds() -> None:
    tags = Run("r", "root", "fm_model", "2026-01-01").tags({"team": "video"})
    assert {tag["Key"]: tag["Value"] for tag in tags} == {
        "team": "video",
        "recsys:run-id": "r",
        "recsys:root-run-id": "root",
        "recsys:asset": "fm_model",
        "recsys:partition": "2026-01-01",
    }


@given(st.text(max_size=300))
def test_any_partition_makes_a_tag_that_sagemaker_takes(partition: str) -> None:
    shape = service_model("sagemaker").shape_for("TagList")
    assert not list(violations(shape, Run("r", "r", "a", partition).tags({})))
