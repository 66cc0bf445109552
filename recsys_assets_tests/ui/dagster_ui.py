"""A client of the Dagster UI that does what its buttons do.

What belongs here: the GraphQL requests that the UI's own pages send, the run config that goes with
them, and waiting for what comes of them. What does not: starting the UI (``conftest.py``) and what
is expected of a run (the tests).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from recsys_assets.definitions import MAIN_JOB

T = TypeVar("T")

_ENDED = ("SUCCESS", "FAILURE", "CANCELED")
_SECONDS = 300.0  # until a test gives up; far more than anything here takes

_REPOSITORY = {"repositoryLocationName": "recsys_assets", "repositoryName": "__repository__"}

_LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on Error { message }
  }
}
"""
_RETRY = """
mutation ($params: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
  }
}
"""
_CANCEL = """
mutation ($run: String!) {
  terminateRun(runId: $run) { __typename ... on Error { message } }
}
"""
_SENSOR = """
query ($selector: SensorSelector!) {
  sensorOrError(sensorSelector: $selector) { ... on Sensor { sensorState { id } } }
}
"""
_TURN_ON = """
mutation ($selector: SensorSelector!) {
  startSensor(sensorSelector: $selector) { __typename }
}
"""
_TURN_OFF = """
mutation ($id: String!) { stopSensor(id: $id) { __typename } }
"""
_BACKFILL = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on Error { message }
  }
}
"""
_STATUS = """
query ($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }
"""
_EVENTS = """
query ($run: ID!, $cursor: String) {
  runOrError(runId: $run) {
    ... on Run {
      eventConnection(afterCursor: $cursor) {
        cursor
        hasMore
        events {
          ... on ExecutionStepFailureEvent {
            stepKey
            error { message }
            failureMetadata { description }
          }
          ... on MaterializationEvent {
            assetKey { path }
            metadataEntries {
              label
              ... on TextMetadataEntry { text }
              ... on FloatMetadataEntry { floatValue }
            }
          }
        }
      }
    }
  }
}
"""


@dataclass(frozen=True)
class Run:
    """A run that has ended.

    Attributes
    ----------
    made
        The texts and numbers among the metadata of each asset that the run has materialized.
    failures
        Why each step failed that did: the description of its Failure, else its error message.
    """

    run_id: str
    status: str
    made: Mapping[str, Mapping[str, Any]]
    failures: Mapping[str, str]


class DagsterUI:
    """A Dagster webserver with one code location."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=60)

    def answers(self) -> bool:
        """Tell whether the webserver has come up."""
        try:
            return self._http.get("/server_info").is_success
        except httpx.TransportError:
            return False

    def launch(
        self,
        config: Mapping[str, Any],
        *,
        job: str = MAIN_JOB,
        assets: Sequence[str] | None = None,
    ) -> str:
        """Press Launch Run, for all assets of a job or those selected; return the run's id."""
        selector: dict[str, Any] = {**_REPOSITORY, "jobName": job}
        if assets is not None:
            selector["assetSelection"] = [{"path": [name]} for name in assets]
            selector["assetCheckSelection"] = []
        params = {"selector": selector, "runConfigData": config}
        return self._launched(self._ask(_LAUNCH, params=params)["launchRun"])

    def retry(self, run_id: str, strategy: str) -> str:
        """Press Re-execute From Failure or From Asset Failure; return the new run's id."""
        params = {"parentRunId": run_id, "strategy": strategy}
        return self._launched(self._ask(_RETRY, params=params)["launchRunReexecution"])

    def cancel(self, run_id: str) -> None:
        """Press Terminate."""
        answer = self._ask(_CANCEL, run=run_id)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def turn_sensor(self, name: str, *, on: bool) -> None:
        """Press the switch of a sensor."""
        selector = {**_REPOSITORY, "sensorName": name}
        if on:
            answer = self._ask(_TURN_ON, selector=selector)["startSensor"]
            assert answer["__typename"] == "Sensor", answer
        else:
            found = self._ask(_SENSOR, selector=selector)["sensorOrError"]["sensorState"]["id"]
            answer = self._ask(_TURN_OFF, id=found)["stopSensor"]
            assert answer["__typename"] == "StopSensorMutationResult", answer

    def backfill(self, assets: Sequence[str]) -> str:
        """Launch a backfill of assets; return its id."""
        keys = [{"path": [name]} for name in assets]
        params = {"assetSelection": keys, "allPartitions": True, "fromFailure": False}
        answer = self._ask(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        backfill_id: str = answer["backfillId"]
        return backfill_id

    def ended(self, run_id: str) -> Run:
        """Wait for a run's end and return what came of it."""
        status = eventually(lambda: self._end_status(run_id))
        made: dict[str, dict[str, Any]] = {}
        failures: dict[str, str] = {}
        for event in self._events(run_id):
            if "error" in event:
                described = event["failureMetadata"] or {}
                failures[event["stepKey"]] = (
                    described.get("description") or event["error"]["message"]
                )
            elif "assetKey" in event:
                made["/".join(event["assetKey"]["path"])] = {
                    entry["label"]: entry.get("text", entry.get("floatValue"))
                    for entry in event["metadataEntries"]
                }
        return Run(run_id, status, made, failures)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _end_status(self, run_id: str) -> str | None:
        """Return the status of a run that has ended, else None."""
        status: str = self._ask(_STATUS, run=run_id)["runOrError"]["status"]
        return status if status in _ENDED else None

    def _events(self, run_id: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        cursor = None
        while True:
            answer = self._ask(_EVENTS, run=run_id, cursor=cursor)
            page = answer["runOrError"]["eventConnection"]
            events += page["events"]
            cursor = page["cursor"]
            if not page["hasMore"]:
                return events

    def _launched(self, answer: Mapping[str, Any]) -> str:
        assert answer["__typename"] == "LaunchRunSuccess", answer
        run_id: str = answer["run"]["runId"]
        return run_id

    def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = self._http.post("/graphql", json={"query": query, "variables": variables}).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data


def small_run(seed: int, **model_training: Any) -> dict[str, Any]:
    """Return config of a run on a few thousand ratings; each seed gives other ratings."""
    ratings = {"generated_rows": 8_000, "generated_seed": seed}
    return {
        "ops": {
            "raw_ratings": {"config": ratings},
            "model_training": {"config": {"select": "new", **model_training}},
        }
    }


def eventually(find: Callable[[], T | None]) -> T:
    """Return the first true value of `find`."""
    deadline = time.monotonic() + _SECONDS
    while not (value := find()):
        assert time.monotonic() < deadline, f"still {value!r} after {_SECONDS:.0f} seconds"
        time.sleep(0.1)
    return value
