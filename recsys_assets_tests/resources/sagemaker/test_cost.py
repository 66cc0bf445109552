"""What jobs cost, where it is known, and the caps."""

import pytest
from dagster import Failure
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.resources.sagemaker.config import CostConfig
from recsys_assets.resources.sagemaker.cost import (
    fleet,
    require_affordable_endpoint,
    require_affordable_job,
)

PRICED = CostConfig(price_per_hour={"ml.x": 2.0})


def test_seconds_times_instances_times_price() -> None:
    assert fleet("ml.x", 3, PRICED, None).usd(1800) == pytest.approx(3.0)


def test_the_metadata_tells_the_estimate_and_its_price() -> None:
    assert fleet("ml.x", 3, PRICED, "eu-west-1").metadata(1800.4) == {
        "billable_seconds": 1800,
        "instances": "3 x ml.x",
        "estimated_cost_usd": 3.0007,
        "price": "2 USD an hour and instance (set in cost.price_per_hour)",
    }


@pytest.mark.parametrize(
    ("region", "instance_type"), [(None, "ml.m5.xlarge"), ("eu-west-1", "ml.m5.xlarge")]
)
def test_without_a_known_price_there_are_the_seconds_alone(
    region: str | None, instance_type: str
) -> None:
    assert fleet(instance_type, 1, CostConfig(), region).metadata(60) == {
        "billable_seconds": 60,
        "instances": f"1 x {instance_type}",
    }


def test_a_list_price_says_where_and_of_when_it_is_and_gives_way_to_a_price_of_ones_own() -> None:
    listed = fleet("ml.m5.xlarge", 1, CostConfig(), "us-east-1")
    assert listed.price_per_hour == 0.23
    assert "2025 in us-east-1; yours may differ" in listed.price_source
    own = CostConfig(price_per_hour={"ml.m5.xlarge": 0.2})
    assert fleet("ml.m5.xlarge", 1, own, "us-east-1").price_per_hour == 0.2


@given(st.floats(0.01, 100), st.integers(1, 20), st.integers(1, 100_000), st.integers(1, 50))
def test_a_job_is_refused_exactly_when_it_could_cost_more_than_the_cap(
    cap: float, count: int, seconds: int, jobs: int
) -> None:
    config = CostConfig(max_usd_per_job=cap, price_per_hour={"ml.x": 2.0})
    dear = 2.0 * count * seconds * jobs / 3600 > cap
    try:
        require_affordable_job(fleet("ml.x", count, config, None), seconds, jobs, config)
    except Failure as refusal:
        assert dear
        assert refusal.allow_retries is False
    else:
        assert not dear


def test_a_refusal_tells_figures_and_what_to_change() -> None:
    config = CostConfig(max_usd_per_job=10, price_per_hour={"ml.x": 2.0})
    with pytest.raises(Failure) as caught:
        require_affordable_job(fleet("ml.x", 2, config, None), 7200, 3, config)
    assert str(caught.value.description) == (
        "This could cost 24.00 USD, and cost.max_usd_per_job is 10.00: 3 job(s) of 2 x ml.x for at "
        "most 7,200 s at 2 USD an hour (set in cost.price_per_hour). Allow less time with "
        "max_runtime_seconds, take fewer jobs or other instances, or raise the cap."
    )


def test_a_cap_without_a_known_price_refuses_and_says_what_to_set() -> None:
    config = CostConfig(max_usd_per_job=10, max_usd_per_endpoint_hour=10)
    what = fleet("ml.y", 1, config, "us-east-1")
    for require in (
        lambda: require_affordable_job(what, 60, 1, config),
        lambda: require_affordable_endpoint(what, config),
    ):
        with pytest.raises(
            Failure, match=r"price of ml.y is not known here: set it in cost.price_per_hour"
        ):
            require()


def test_where_nobody_is_billed_a_cap_refuses_only_by_a_price_that_is_set() -> None:
    cap = CostConfig(max_usd_per_job=1, max_usd_per_endpoint_hour=1)
    here = fleet("ml.m5.xlarge", 1, cap, None)
    require_affordable_job(here, 86_400, 100, cap)
    require_affordable_endpoint(here, cap)
    priced = CostConfig(max_usd_per_job=1, price_per_hour={"ml.m5.xlarge": 2.0})
    with pytest.raises(Failure, match=r"This could cost 2.00 USD"):
        require_affordable_job(fleet("ml.m5.xlarge", 1, priced, None), 3600, 1, priced)


def test_an_endpoint_is_capped_by_the_hour() -> None:
    config = CostConfig(max_usd_per_endpoint_hour=3.9, price_per_hour={"ml.x": 2.0})
    require_affordable_endpoint(fleet("ml.x", 1, config, None), config)
    with pytest.raises(Failure, match=r"would cost 4.00 USD an hour .* is 3.90"):
        require_affordable_endpoint(fleet("ml.x", 2, config, None), config)


def test_without_a_cap_nothing_is_refused() -> None:
    require_affordable_job(fleet("ml.y", 9, CostConfig(), None), 10**9, 100, CostConfig())
    require_affordable_endpoint(fleet("ml.y", 9, CostConfig(), None), CostConfig())
