"""The choice of an instance, without programs behind the instances."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.sagemaker_local.containers.model_server import Answer
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.hosting.routing import Route, Routing


@dataclass(eq=False)
class Idle:
    """An instance that answers nothing."""

    in_service: bool = True
    outstanding: int = 0

    def acquire(self) -> None:
        self.outstanding += 1

    def release(self) -> None:
        self.outstanding -= 1

    def send(self, payload: bytes, headers: Mapping[str, str]) -> Answer:
        raise NotImplementedError


def routing(*routes: Route) -> Routing:
    published = Routing()
    published.publish("e", list(routes))
    return published


def chosen(router: Routing, variant: str | None = None) -> str:
    with router.instance("e", variant) as (name, _):
        return name


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any), st.integers(0, 10))
def test_any_run_of_requests_is_shared_by_weight(weights: list[int], start: int) -> None:
    router = routing(*(Route(str(n), weight, [Idle()]) for n, weight in enumerate(weights)))
    for _ in range(start):
        chosen(router)
    shares = Counter(chosen(router) for _ in range(sum(weights)))
    assert [shares[str(number)] for number in range(len(weights))] == weights


def test_a_variant_that_is_out_of_service_is_passed_over() -> None:
    router = routing(Route("a", 1, [Idle(in_service=False)]), Route("b", 1, [Idle()]))
    assert {chosen(router) for _ in range(4)} == {"b"}
    with pytest.raises(ServiceError, match="no instance in service") as caught:
        chosen(router, "a")
    assert (caught.value.code, caught.value.status) == ("ServiceUnavailable", 503)


def test_a_variant_without_weight_is_not_fallen_back_on() -> None:
    router = routing(Route("a", 1, [Idle(in_service=False)]), Route("b", 0, [Idle()]))
    with pytest.raises(ServiceError, match="no instance in service"):
        chosen(router)
    assert chosen(router, "b") == "b"


def test_the_instance_with_the_fewest_outstanding_requests_is_chosen() -> None:
    first, second = Idle(), Idle()
    router = routing(Route("a", 1, [first, second]))
    with router.instance("e", None) as (_, busy):
        others = set()
        for _ in range(3):
            with router.instance("e", None) as (_, instance):
                others.add(instance)
        assert others == {second if busy is first else first}
    with pytest.raises(RuntimeError), router.instance("e", None):
        raise RuntimeError
    assert (first.outstanding, second.outstanding) == (0, 0)


def test_an_endpoint_that_is_withdrawn_is_not_found() -> None:
    router = routing(Route("a", 1, [Idle()]))
    router.withdraw("e")
    router.withdraw("e")
    with pytest.raises(ServiceError, match="Endpoint e of account 123456789012 not found"):
        chosen(router)
