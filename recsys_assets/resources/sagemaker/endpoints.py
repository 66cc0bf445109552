"""The endpoint that answers single requests: created, brought to another model, taken down.

What belongs here: the order of the steps, and waiting for SageMaker to take them. What does not:
requests and names. SageMaker itself replaces the instances (blue/green) and returns to the old ones
if the new ones do not come up.
"""

import time
from collections.abc import Callable
from typing import Any

from dagster import Failure

from recsys_assets.resources.sagemaker.jobs import ENDPOINT, ENDPOINT_CONFIG, MODEL, Remote

_SETTLED = ("InService", "Failed", "OutOfService", "UpdateRollbackFailed")

Log = Callable[[str], None]


class Deployment:
    """An endpoint of SageMaker.

    Parameters
    ----------
    name
        Of the endpoint.
    client
        A boto3 client of SageMaker.
    poll_seconds
        Time between two looks.
    patience_seconds
        How long a change is tried.
    log
        Is told each state that the endpoint enters.
    """

    def __init__(
        self, name: str, client: Any, poll_seconds: float, patience_seconds: float, log: Log
    ) -> None:
        self._client = client
        self._endpoint = Remote(ENDPOINT, name, client, patience_seconds)
        self._poll_seconds = poll_seconds
        self._patience_seconds = patience_seconds
        self._log = log

    def bring_to(self, config_name: str, tags: list[dict[str, str]]) -> dict[str, Any]:
        """Create the endpoint with a configuration, or bring it to it; return its description.

        A step that starts again waits for the change that it finds under way.

        Raises
        ------
        Failure
            If the endpoint does not come up, or SageMaker has returned to the old configuration.
        """
        name = self._endpoint.name
        found = self._settled()
        if found is None:
            self._endpoint.create({"EndpointConfigName": config_name, "Tags": tags})
        elif found["EndpointConfigName"] != config_name:
            self._require_in_service(found)
            self._endpoint.change(
                "update",
                {"EndpointConfigName": config_name},
                lambda found: found is not None and found["EndpointStatus"] == "Updating",
            )
        found = self._settled()
        if found is None:
            raise Failure(f"Endpoint {name} was deleted while it was waited for.")
        self._require_in_service(found)
        if found["EndpointConfigName"] != config_name:
            raise Failure(
                f"SageMaker has rolled endpoint {name} back to {found['EndpointConfigName']}: "
                f"{found.get('FailureReason', 'no reason given')}",
                allow_retries=False,
            )
        return found

    def delete(self) -> None:
        """Delete the endpoint, its configuration and its models, whatever of them there is.

        Raises
        ------
        Failure
            If the endpoint is still there afterwards.
        """
        found = self._settled()
        if found is None:
            return
        config = Remote(
            ENDPOINT_CONFIG, found["EndpointConfigName"], self._client, self._patience_seconds
        )
        described = config.describe() or {"ProductionVariants": []}
        models = [
            Remote(MODEL, variant["ModelName"], self._client, self._patience_seconds)
            for variant in described["ProductionVariants"]
        ]
        for remote in (self._endpoint, config, *models):
            remote.delete()
        left = self._settled()
        if left is not None:
            raise Failure(f"Endpoint {found['EndpointName']} is still {left['EndpointStatus']}.")

    def _settled(self) -> dict[str, Any] | None:
        """Wait until nothing is under way; return the description, None if there is no endpoint."""
        last = None
        while True:
            found = self._endpoint.describe()
            status = "absent" if found is None else found["EndpointStatus"]
            if status != last:
                self._log(f"endpoint {self._endpoint.name}: {status}")
                last = status
            if found is None or status in _SETTLED:
                return found
            time.sleep(self._poll_seconds)

    def _require_in_service(self, found: dict[str, Any]) -> None:
        if found["EndpointStatus"] != "InService":
            raise Failure(
                f"Endpoint {self._endpoint.name} is {found['EndpointStatus']}: "
                f"{found.get('FailureReason', 'no reason given')}. SageMaker cannot mend it; "
                "delete it (job stop_serving) and try again.",
                allow_retries=False,
            )
