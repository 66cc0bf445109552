"""Which instance answers an invocation: traffic shared among variants by their weights.

Only the choice belongs here. Which instances there are is told by the host (``host``), what is
sent to them by the action (``api.runtime``).
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from recsys_assets.sagemaker_local.containers.model_server import Answer
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.identity import ACCOUNT_ID


class Instance(Protocol):
    """What answers, as far as it is known here."""

    @property
    def in_service(self) -> bool:
        """Whether it can answer now."""

    @property
    def outstanding(self) -> int:
        """How many requests it has not answered yet."""

    def acquire(self) -> None:
        """Note that a request begins."""

    def release(self) -> None:
        """Note that a request has ended."""

    def send(self, payload: bytes, headers: Mapping[str, str]) -> Answer:
        """Return the answer to a request."""


@dataclass
class Route:
    """A variant of an endpoint and its instances.

    Attributes
    ----------
    variant
        Its name.
    weight
        Its share of the traffic, relative to the sum of all weights.
    instances
        The least recently chosen first.
    credit
        What the variant has been passed over for so far, in units of weights.
    """

    variant: str
    weight: float
    instances: list[Instance]
    credit: float = field(default=0.0, init=False)

    def candidates(self) -> list[Instance]:
        """Return the instances that can answer."""
        return [instance for instance in self.instances if instance.in_service]


class Routing:
    """The routes of all endpoints that answer; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._routes: dict[str, Sequence[Route]] = {}

    def publish(self, endpoint: str, routes: Sequence[Route]) -> None:
        """Set an endpoint's routes in place of those that it had."""
        with self._lock:
            self._routes[endpoint] = routes

    def withdraw(self, endpoint: str) -> None:
        """Forget an endpoint's routes, if it has any."""
        with self._lock:
            self._routes.pop(endpoint, None)

    @contextlib.contextmanager
    def instance(self, endpoint: str, variant: str | None) -> Iterator[tuple[str, Instance]]:
        """Choose an instance for one request, which lasts as long as the context.

        Variants come in turn as their weights have it (smooth weighted round robin), so that any
        run of requests is shared as evenly as whole numbers allow; those without an instance in
        service are passed over. Of a variant's instances the one with the fewest outstanding
        requests is chosen, and of these the least recently chosen.

        Parameters
        ----------
        endpoint
            The endpoint's name.
        variant
            The name of the variant that must answer; any if None.

        Yields
        ------
        tuple
            The variant's name and the instance.

        Raises
        ------
        ServiceError
            ``ValidationError`` when there is no such endpoint or variant, ``ServiceUnavailable``
            when no instance is in service.
        """
        with self._lock:
            route = self._route(endpoint, variant)
            chosen = min(route.candidates(), key=lambda instance: instance.outstanding)
            route.instances.remove(chosen)
            route.instances.append(chosen)
            chosen.acquire()
        try:
            yield route.variant, chosen
        finally:
            chosen.release()

    def _route(self, endpoint: str, variant: str | None) -> Route:
        if endpoint not in self._routes:
            raise ServiceError(
                "ValidationError", f"Endpoint {endpoint} of account {ACCOUNT_ID} not found."
            )
        routes = self._routes[endpoint]
        if variant is not None:
            routes = [route for route in routes if route.variant == variant]
            if not routes:
                raise ServiceError("ValidationError", f"Variant {variant} not found for Request")
        else:
            routes = [route for route in routes if route.weight > 0]
        routes = [route for route in routes if route.candidates()]
        if not routes:
            raise ServiceError(
                "ServiceUnavailable",
                f"Endpoint {endpoint} has no instance in service at the moment. Retry the call.",
                503,
            )
        return _next_in_turn(routes)


def _next_in_turn(routes: Sequence[Route]) -> Route:
    for route in routes:
        route.credit += route.weight
    chosen = max(routes, key=lambda route: route.credit)
    chosen.credit -= sum(route.weight for route in routes)
    return chosen
