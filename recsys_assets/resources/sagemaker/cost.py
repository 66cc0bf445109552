"""What jobs cost, as well as can be told from here.

What belongs here: prices, estimates from seconds and instances, and the caps. What does not: what
AWS bills (storage, transfer, savings plans, taxes): these are estimates, and say so.
"""

from dataclasses import dataclass
from typing import Any

from dagster import Failure

from recsys_assets.resources.sagemaker.config import CostConfig

PRICES_REGION, PRICES_OF = "us-east-1", "2025"
# US dollars an hour on demand, from the list on the Amazon SageMaker pricing page.
_LIST_PRICES = {
    "ml.m5.large": 0.115,
    "ml.m5.xlarge": 0.23,
    "ml.m5.2xlarge": 0.461,
    "ml.m5.4xlarge": 0.922,
    "ml.m5.12xlarge": 2.765,
    "ml.m5.24xlarge": 5.53,
    "ml.c5.xlarge": 0.204,
    "ml.c5.2xlarge": 0.408,
    "ml.c5.4xlarge": 0.816,
    "ml.c5.9xlarge": 1.836,
    "ml.c5.18xlarge": 3.672,
}
_HOUR = 3600


@dataclass(frozen=True)
class Fleet:
    """The instances of a job or an endpoint.

    Attributes
    ----------
    price_per_hour
        In US dollars, of one instance; None if it is not known.
    price_source
        Where the price comes from, in words.
    billed
        Whether anybody is billed for them: not so on the local services.
    """

    instance_type: str
    instance_count: int
    price_per_hour: float | None
    price_source: str
    billed: bool = True

    def usd(self, seconds: float) -> float | None:
        """Return the estimated cost of all instances for some seconds; None if not known."""
        if self.price_per_hour is None:
            return None
        return seconds / _HOUR * self.instance_count * self.price_per_hour

    def metadata(self, billable_seconds: float) -> dict[str, Any]:
        """Return what a job cost, for an asset's metadata; without a price, the seconds alone."""
        shown: dict[str, Any] = {
            "billable_seconds": round(billable_seconds),
            "instances": f"{self.instance_count} x {self.instance_type}",
        }
        usd = self.usd(billable_seconds)
        if usd is not None:
            shown["estimated_cost_usd"] = round(usd, 4)
            shown["price"] = (
                f"{self.price_per_hour:g} USD an hour and instance ({self.price_source})"
            )
        return shown


def fleet(instance_type: str, instance_count: int, config: CostConfig, region: str | None) -> Fleet:
    """Return instances with their price.

    Parameters
    ----------
    instance_type, instance_count
        What and how many.
    config
        Its prices go first.
    region
        The AWS region; None where nothing is billed, on the local services.
    """
    if instance_type in config.price_per_hour:
        price, source = config.price_per_hour[instance_type], "set in cost.price_per_hour"
    elif region == PRICES_REGION and instance_type in _LIST_PRICES:
        price, source = (
            _LIST_PRICES[instance_type],
            f"AWS's list price of {PRICES_OF} in {PRICES_REGION}; yours may differ",
        )
    else:
        price, source = None, ""
    return Fleet(instance_type, instance_count, price, source, billed=region is not None)


def require_affordable_job(what: Fleet, seconds: int, jobs: int, config: CostConfig) -> None:
    """Refuse a job that could cost more than the cap.

    Parameters
    ----------
    what
        The instances of one job.
    seconds
        The longest that one job may run, and keep its instances afterwards.
    jobs
        How many such jobs there may be.
    config
        Has the cap; without one nothing is refused, nor where nobody is billed, unless a price is
        set there.

    Raises
    ------
    Failure
        With the figures and with what to set.
    """
    cap = config.max_usd_per_job
    usd = _usd_to_cap(what, seconds * jobs, "cost.max_usd_per_job", cap)
    if cap is not None and usd > cap:
        raise Failure(
            f"This could cost {usd:.2f} USD, and cost.max_usd_per_job is {cap:.2f}: {jobs} job(s) "
            f"of {what.instance_count} x {what.instance_type} for at most {seconds:,} s at "
            f"{what.price_per_hour:g} USD an hour ({what.price_source}). Allow less time with "
            "max_runtime_seconds, take fewer jobs or other instances, or raise the cap.",
            allow_retries=False,
        )


def require_affordable_endpoint(what: Fleet, config: CostConfig) -> None:
    """Refuse an endpoint that costs more an hour than the cap.

    Raises
    ------
    Failure
        With the figures and with what to set.
    """
    cap = config.max_usd_per_endpoint_hour
    usd = _usd_to_cap(what, _HOUR, "cost.max_usd_per_endpoint_hour", cap)
    if cap is not None and usd > cap:
        raise Failure(
            f"This endpoint would cost {usd:.2f} USD an hour for as long as it stands, and "
            f"cost.max_usd_per_endpoint_hour is {cap:.2f}: {what.instance_count} x "
            f"{what.instance_type} at {what.price_per_hour:g} USD an hour ({what.price_source}). "
            "Take other instances, or raise the cap.",
            allow_retries=False,
        )


def _usd_to_cap(what: Fleet, seconds: float, key: str, cap: float | None) -> float:
    """Return what a cap is compared with: 0 where there is none, or nobody is billed.

    Raises
    ------
    Failure
        If there is a cap and the price is not known.
    """
    usd = what.usd(seconds)
    if usd is None and what.billed and cap is not None:
        raise Failure(
            f"{key} is {cap:.2f}, but the price of {what.instance_type} is not known here: set it "
            "in cost.price_per_hour to what the Amazon SageMaker pricing page says.",
            allow_retries=False,
        )
    return usd or 0.0
