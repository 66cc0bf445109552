"""The execution parameters of a batch transform: how its model's server is asked.

Where each comes from (the job, the model's container or SageMaker's defaults), and how a container
tells and learns of them. What follows from them is decided where objects are transformed.

Source: "Use Your Own Inference Code with Batch Transform" in the Amazon SageMaker developer guide.
"""

import http
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from recsys_assets.sagemaker_local.containers.model_server import ModelServer, NoAnswer
from recsys_assets.sagemaker_local.jobs.run import JobFailed
from recsys_assets.sagemaker_local.validation import parse_json

MOST_MEGABYTES = 100
"""Megabytes that the payloads under way may have together, as on AWS."""

# Containers have names of their own for the strategies; some tell the API's all the same.
_CONTAINER_NAMES = {"MultiRecord": "MULTI_RECORD", "SingleRecord": "SINGLE_RECORD"}
_STRATEGIES = {
    name: strategy for strategy, told in _CONTAINER_NAMES.items() for name in (strategy, told)
}


@dataclass(frozen=True)
class ExecutionParameters:
    """How a model's server is asked; SageMaker's defaults unless told otherwise.

    Attributes
    ----------
    strategy
        The BatchStrategy: ``MultiRecord`` or ``SingleRecord``.
    payload_mb
        Megabytes (of 1,048,576 bytes) that a payload may have; with 0 each object is streamed
        whole.
    concurrent
        Requests at a time, at least 1.
    """

    strategy: str = "MultiRecord"
    payload_mb: int = 6
    concurrent: int = 1

    @classmethod
    def preferred_by(cls, server: ModelServer) -> Self:
        """Return what a server tells at GET /execution-parameters, which it need not have.

        Raises
        ------
        JobFailed
            When it tells something else there.
        """
        try:
            answer = server.get("/execution-parameters")
        except NoAnswer:
            return cls()
        if answer.status != http.HTTPStatus.OK:
            return cls()
        try:
            told: Any = parse_json(answer.body)
            preferred: Self | None = cls(
                _STRATEGIES[told.get("BatchStrategy", cls.strategy)],
                int(told.get("MaxPayloadInMB", cls.payload_mb)),
                int(told.get("MaxConcurrentTransforms", cls.concurrent)),
            )
        except (ValueError, TypeError, AttributeError, KeyError):
            preferred = None
        # 0 would stream objects whole, which suits few jobs: only they themselves can ask for it.
        limits = range(1, MOST_MEGABYTES + 1)
        if preferred and preferred.payload_mb in limits and preferred.concurrent in limits:
            return preferred
        raise JobFailed(
            "AlgorithmError: GET /execution-parameters must be answered with JSON that has a"
            " BatchStrategy, a MaxPayloadInMB and a MaxConcurrentTransforms of 1 to"
            f" {MOST_MEGABYTES}, not {answer.body[:100]!r}"
        )

    def overridden_by(self, job: Mapping[str, Any]) -> "ExecutionParameters":
        """Return these parameters, but those that a job or a request for one tells, from there."""
        return ExecutionParameters(
            job.get("BatchStrategy", self.strategy),
            job.get("MaxPayloadInMB", self.payload_mb),
            job.get("MaxConcurrentTransforms") or self.concurrent,  # 0 tells nothing either
        )

    def __str__(self) -> str:
        return (
            f"MaxConcurrentTransforms={self.concurrent}, MaxPayloadInMB={self.payload_mb},"
            f" BatchStrategy={_CONTAINER_NAMES[self.strategy]}"
        )

    def environment(self) -> dict[str, str]:
        """Return the variables by which a serving program learns of them."""
        return {
            "SAGEMAKER_BATCH": "true",
            "SAGEMAKER_BATCH_STRATEGY": _CONTAINER_NAMES[self.strategy],
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(self.payload_mb),
            "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(self.concurrent),
        }
