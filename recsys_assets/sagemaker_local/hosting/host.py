"""The host: it makes the running instances agree with the records of the endpoints.

The store says which instances there should be; each pass starts the missing ones, moves the
records on and retires what is not wanted any more. So a new process brings back by itself what the
last one served, whichever way that ended.
"""

import logging
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.hosting import records
from recsys_assets.sagemaker_local.hosting.instance import Instance
from recsys_assets.sagemaker_local.hosting.routing import Route
from recsys_assets.sagemaker_local.jobs.run import LONGEST_FAILURE_REASON
from recsys_assets.sagemaker_local.store import ENDPOINT, RETRY_SECONDS, Description, Query

_TRANSITIONAL = ("Creating", "Updating", "SystemUpdating")

_logger = logging.getLogger(__name__)


class Host:
    """Serves every endpoint that the store has.

    Its programs do not count among the jobs that run at a time: a job ends and makes room for the
    next, an endpoint stays, and a few of them would keep every job waiting for ever. SageMaker has
    a quota of its own for them as well (``api.endpoints``).

    Parameters
    ----------
    context
        The endpoint's shared parts.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._hosted: dict[str, _Hosted] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="host", daemon=True)

    def start(self) -> None:
        """Take up what the last process served, and begin."""
        shutil.rmtree(self._context.work_folder / ENDPOINT.resource_type, ignore_errors=True)
        for endpoint in self._endpoints():
            if endpoint["EndpointStatus"] == "InService":
                with self._context.store.edit(ENDPOINT, endpoint["EndpointName"]) as record:
                    record["EndpointStatus"] = "SystemUpdating"
        self._pass()  # so that no endpoint is unknown when the first request comes
        self._thread.start()

    def shutdown(self) -> None:
        """End all programs at once; the records stay as they are for the next process."""
        self._ending.set()
        self._context.hosting_changed.set()
        self._thread.join(timeout=2)
        instances = [i for hosted in self._hosted.values() for i in hosted.all_instances()]
        for instance in instances:
            instance.kill()
        # Programs die with this process in any case; a short wait leaves tidy folders.
        deadline = time.monotonic() + 1
        for instance in instances:
            instance.join(max(0.0, deadline - time.monotonic()))

    def _loop(self) -> None:
        timeout: float | None = None
        while True:
            self._context.hosting_changed.wait(timeout)
            self._context.hosting_changed.clear()
            if self._ending.is_set():
                return
            try:
                timeout = None if self._pass() else RETRY_SECONDS
            except Exception:
                timeout = RETRY_SECONDS
                _logger.exception("The host's pass failed and is tried again")

    def _pass(self) -> bool:
        """Bring every endpoint forward; return whether each could be."""
        failed = False
        for endpoint in self._endpoints():
            try:
                self._reconcile(endpoint)
            except Exception:
                # One endpoint that cannot go on must not hold up the others.
                failed = True
                _logger.exception("endpoint %s: the pass failed", endpoint["EndpointName"])
        return not failed

    def _endpoints(self) -> list[Description]:
        return [item.description for item in self._context.store.find(ENDPOINT, Query())]

    def _reconcile(self, endpoint: Description) -> None:
        name = endpoint["EndpointName"]
        hosted = self._hosted.setdefault(name, _Hosted())
        hosted.forget_ended()
        if endpoint["EndpointStatus"] == "Deleting":
            self._delete(name, hosted)
            return
        for slot, variant in records.wanted_slots(endpoint).items():
            if slot not in hosted.instances:
                instance = hosted.instances[slot] = Instance(self._context, name, variant)
                instance.start()
        endpoint = self._move_on(endpoint, hosted.instances)
        self._route(endpoint, hosted)
        for slot in hosted.instances.keys() - records.wanted_slots(endpoint).keys():
            instance = hosted.instances.pop(slot)
            hosted.retired.append(instance)
            instance.retire()

    def _delete(self, name: str, hosted: "_Hosted") -> None:
        self._context.routing.withdraw(name)
        for instance in hosted.all_instances():
            instance.kill()
        if not hosted.all_instances():
            self._context.store.delete(ENDPOINT, name)
            del self._hosted[name]

    def _move_on(
        self, endpoint: Description, instances: Mapping[records.Slot, Instance]
    ) -> Description:
        """Write to a record what its instances have come to, if anything; return the record."""
        current = records.slots(endpoint.get("Fleet"))
        pending = records.slots(endpoint.get("PendingFleet"))
        failures = [
            reason for slot in pending.keys() - current if (reason := instances[slot].failure)
        ]
        ready = all(instances[slot].in_service for slot in pending or current)
        if not failures and not (ready and endpoint["EndpointStatus"] in _TRANSITIONAL):
            return endpoint
        with self._context.store.edit(ENDPOINT, endpoint["EndpointName"]) as record:
            if record["EndpointStatus"] != endpoint["EndpointStatus"]:
                return record  # a client was faster, and another pass will come
            if failures:
                records.give_up(record, failures[0][:LONGEST_FAILURE_REASON])
            elif pending:
                records.take_over(record)
            else:
                record["EndpointStatus"] = "InService"
        return record

    def _route(self, endpoint: Description, hosted: "_Hosted") -> None:
        """Send requests to the present fleet, if that is not done yet."""
        fleet = endpoint.get("Fleet")
        instances = {slot: hosted.instances[slot] for slot in records.slots(fleet)}
        if fleet is None or hosted.routed == (fleet, instances):
            return
        hosted.routed = fleet, instances
        self._context.routing.publish(
            endpoint["EndpointName"],
            [
                Route(
                    variant["VariantName"],
                    variant["Weight"],
                    [
                        instance
                        for slot, instance in instances.items()
                        if slot.variant == variant["VariantName"]
                    ],
                )
                for variant in fleet["Variants"]
            ],
        )


@dataclass
class _Hosted:
    """What the host knows of one endpoint.

    Attributes
    ----------
    instances
        Those that are wanted.
    retired
        Those that are not, and have not ended yet.
    routed
        The fleet and its instances that requests are sent to.
    """

    instances: dict[records.Slot, Instance] = field(default_factory=dict)
    retired: list[Instance] = field(default_factory=list)
    routed: tuple[Description, dict[records.Slot, Instance]] | None = None

    def all_instances(self) -> list[Instance]:
        return [*self.instances.values(), *self.retired]

    def forget_ended(self) -> None:
        self.instances = {
            slot: instance for slot, instance in self.instances.items() if not instance.ended
        }
        self.retired = [instance for instance in self.retired if not instance.ended]
