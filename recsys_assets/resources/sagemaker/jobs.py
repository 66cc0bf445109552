"""Things on SageMaker that are known by their name: created once, found again, followed, stopped.

What belongs here: what all kinds of them have in common. What does not: what their requests say
(``requests.py``), how they are named (``names.py``) and when they are wanted (``resource.py``).
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from dagster import Failure, MetadataValue, get_dagster_logger

from recsys_assets.export import metadata
from recsys_assets.resources.interrupts import uninterrupted
from recsys_assets.resources.patience import Tries, passes_by_itself
from recsys_assets.resources.sagemaker.cost import Fleet
from recsys_assets.resources.sagemaker.links import Links
from recsys_assets.resources.sagemaker.requests import Request, require_valid

_ABSENT = ("ValidationException", "ResourceNotFound", "ResourceNotFoundException")
# Refusals that have to do with the account's present load and not with the request.
_LATER = ("ResourceLimitExceeded",)
_CALLERS_FAULT = re.compile(r"\b(ClientError|AlgorithmError)\b")
# How SageMaker stops a job for which it found no spot instances, or not for long enough.
_NO_SPOT = {
    "Interrupted": "its spot instances were taken away",
    "MaxWaitTimeExceeded": "there were no spot instances for it",
}
_LAST_LINES = 15


@dataclass(frozen=True)
class Kind:
    """How the SageMaker API names the parts of one kind of thing.

    Attributes
    ----------
    noun
        As in the API's members: ``TrainingJob`` gives TrainingJobName and DescribeTrainingJob.
    work
        What an asset calls the work that makes one; empty for kinds that no asset asks for.
    name_length
        Most characters of a name.
    log_group
        CloudWatch's log group of such jobs; None for those without a log of their own.
    """

    noun: str
    work: str = ""
    name_length: int = 63
    log_group: str | None = None

    @property
    def name_field(self) -> str:
        """The member with the name."""
        return f"{self.noun}Name"

    @property
    def status_field(self) -> str:
        """The member with the status."""
        return f"{self.noun}Status"

    @property
    def words(self) -> str:
        """What a person calls it: ``training job``."""
        return re.sub("(?<!^)(?=[A-Z])", " ", self.noun).lower()

    def method(self, verb: str) -> str:
        """Return boto3's name of an action."""
        return f"{verb}_{self.words.replace(' ', '_')}"


TRAINING = Kind("TrainingJob", metadata.TRAINING, log_group="/aws/sagemaker/TrainingJobs")
TUNING = Kind("HyperParameterTuningJob", metadata.TUNING, name_length=32)
TRANSFORM = Kind("TransformJob", metadata.TRANSFORM, log_group="/aws/sagemaker/TransformJobs")
PROCESSING = Kind("ProcessingJob")
MODEL = Kind("Model", metadata.MODEL)
ENDPOINT_CONFIG = Kind("EndpointConfig", metadata.ENDPOINT_CONFIG)
ENDPOINT = Kind("Endpoint", metadata.ENDPOINT)

KIND_OF_WORK = {
    kind.work: kind for kind in (TRAINING, TUNING, TRANSFORM, MODEL, ENDPOINT_CONFIG, ENDPOINT)
}
"""What an asset asks for, by what it calls that work."""


class JobFailed(Failure):
    """A remote job that did not complete, with the last lines of its log.

    It may be retried unless it was stopped, or SageMaker says that its caller or its program is to
    blame. A job that found no spot instances was not stopped by anybody.
    """

    def __init__(
        self, name: str, status: str, reason: str, last_lines: Iterable[str], no_spot: bool = False
    ) -> None:
        lines = "\n".join([*last_lines][-_LAST_LINES:])
        super().__init__(
            f"{name} ended as {status}: {reason or 'no reason given'}",
            metadata={"job": name, "log": MetadataValue.md(f"```\n{lines}\n```")},
            allow_retries=no_spot or (status == "Failed" and not _CALLERS_FAULT.search(reason)),
        )
        self.reason = reason
        self.stopped = status == "Stopped" and not no_spot


class Remote:
    """A thing on SageMaker, known by its name, which may or may not exist.

    Parameters
    ----------
    kind, name
        What it is.
    client
        A boto3 client of SageMaker.
    patience_seconds
        How long it is tried to create it.
    """

    def __init__(self, kind: Kind, name: str, client: Any, patience_seconds: float) -> None:
        self.kind = kind
        self.name = name
        self._client = client
        self._patience_seconds = patience_seconds

    def describe(self) -> dict[str, Any] | None:
        """Return its description, None if there is no such thing."""
        try:
            return self.call("describe")
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return None
            raise

    def create(self, request: Request) -> None:
        """Create it, unless it has come into being in the meantime; raises as :meth:`change`."""
        require_valid(f"Create{self.kind.noun}", {self.kind.name_field: self.name, **request})
        self.change("create", request, lambda found: found is not None)

    def change(
        self, verb: str, request: Request, is_done: Callable[[dict[str, Any] | None], bool]
    ) -> None:
        """Have SageMaker create or update it.

        After an error it is not simply asked for again: the request may have been obeyed and its
        answer lost, or another process of this run may have been faster. A look decides.

        Parameters
        ----------
        verb
            ``create`` or ``update``.
        request
            All but the name.
        is_done
            Tells from a description (None if there is nothing) whether nothing is left to ask for.

        Raises
        ------
        Failure
            If the request is refused.
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError
            If patience ends.
        """
        tries = Tries(self._patience_seconds)
        while True:
            try:
                # Until the answer is there SageMaker may know of nothing that could be stopped.
                with uninterrupted():
                    self.call(verb, **request)
            except (BotoCoreError, ClientError) as error:
                if is_done(self.describe()):
                    return
                pause = tries.pause_after(error)
                if pause is None:
                    raise self._refused(verb, error) from error
                get_dagster_logger().warning(f"{verb} {self.name}: {error}; again in {pause:.1f} s")
                time.sleep(pause)
            else:
                return

    def stop(self) -> None:
        """Ask SageMaker to stop a job; nothing happens if it has ended or was never created."""
        self._call_if_there("stop")

    def delete(self) -> None:
        """Delete it; nothing happens if there is no such thing."""
        self._call_if_there("delete")

    def call(self, verb: str, **parameters: Any) -> dict[str, Any]:
        """Call one of the actions that SageMaker has for it."""
        method = getattr(self._client, self.kind.method(verb))
        answer: dict[str, Any] = method(**{self.kind.name_field: self.name}, **parameters)
        return answer

    def _call_if_there(self, verb: str) -> None:
        try:
            self.call(verb)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _ABSENT:
                raise

    def _refused(self, verb: str, error: Exception) -> Exception:
        """Return the failure of a request that SageMaker refuses; other errors as they are."""
        if not isinstance(error, ClientError) or passes_by_itself(error):
            return error
        code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        return Failure(
            f"SageMaker does not {verb} {self.name}: {message} ({code})",
            allow_retries=code in _LATER,
        )


@dataclass(frozen=True)
class Look:
    """What one look at a job has found.

    Attributes
    ----------
    description
        What Describe tells.
    lines
        Lines of its log that have come since the last look.
    statuses
        Messages of the states that it has entered since the last look, the oldest first.
    """

    description: Mapping[str, Any]
    lines: Sequence[str]
    statuses: Sequence[str]


class RemoteJob(Remote):
    """A job on SageMaker.

    Parameters
    ----------
    kind, name, client, patience_seconds
        As of any thing on SageMaker.
    logs
        A boto3 client of CloudWatch Logs.
    poll_seconds
        Time between two looks.
    fleet
        The instances of the job (of each, for a search).
    """

    def __init__(
        self,
        kind: Kind,
        name: str,
        client: Any,
        patience_seconds: float,
        *,
        logs: Any,
        poll_seconds: float,
        fleet: Fleet,
    ) -> None:
        super().__init__(kind, name, client, patience_seconds)
        self._log = JobLog(logs, kind.log_group, name)
        self._poll_seconds = poll_seconds
        self.fleet = fleet

    def follow(
        self,
        on_look: Callable[[Look], None] = lambda look: None,
        max_runtime_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Wait for the job's end and return its description.

        Parameters
        ----------
        on_look
            Called at each look; a cancelled run does not cut it short.
        max_runtime_seconds
            Stop the job when it has run for so long; for kinds that SageMaker does not stop itself.

        Raises
        ------
        JobFailed
            If it fails or is stopped.
        """
        last_lines: list[str] = []
        told = 0
        overdue = False
        while True:
            description = self.call("describe")  # before the log: its end must be in the log
            lines = self._log.new_lines()
            last_lines = [*last_lines, *lines][-_LAST_LINES:]
            transitions = description.get("SecondaryStatusTransitions", [])
            statuses = [item.get("StatusMessage", item["Status"]) for item in transitions[told:]]
            told = len(transitions)
            with uninterrupted():
                on_look(Look(description, lines, statuses))
            status = description[self.kind.status_field]
            if status == "Completed":
                return description
            if status in ("Failed", "Stopped"):
                no_spot = _NO_SPOT.get(description.get("SecondaryStatus", ""), "")
                reason = description.get("FailureReason", no_spot)
                if overdue:
                    reason = f"it ran longer than max_runtime_seconds ({max_runtime_seconds:g})"
                raise JobFailed(self.name, status, reason, last_lines, no_spot=bool(no_spot))
            if not overdue and max_runtime_seconds is not None:
                age = time.time() - description["CreationTime"].timestamp()
                if overdue := age > max_runtime_seconds:
                    self.stop()
            time.sleep(self._poll_seconds)

    def metadata(
        self, links: Links, billable_seconds: float, artefact: str | None = None
    ) -> dict[str, Any]:
        """Return what an asset shows of the job that made it: links to it, and its cost.

        The key of the job itself is ``training_job``, ``tuning_job`` or ``transform_job``.
        """
        key = "_".join(self.kind.words.split()[-2:])
        shown: dict[str, Any] = {key: links.resource(self.kind.noun, self.name)}
        if self.kind.log_group is not None:
            shown["log"] = links.log(self.kind.log_group, self.name)
        if artefact is not None:
            shown["artefact"] = links.object(artefact)
        return {**shown, **self.fleet.metadata(billable_seconds)}


class JobLog:
    """Reads on in a job's CloudWatch log.

    Parameters
    ----------
    client
        A boto3 client of CloudWatch Logs.
    group
        The log group; None for jobs without a log.
    job
        The job's name.
    """

    def __init__(self, client: Any, group: str | None, job: str) -> None:
        self._client = client
        self._group = group
        self._job = job
        self._tokens: dict[str, str] = {}

    def new_lines(self) -> list[str]:
        """Return the lines that have come since the last call."""
        if self._group is None:
            return []
        pages = self._client.get_paginator("describe_log_streams").paginate(
            logGroupName=self._group, logStreamNamePrefix=f"{self._job}/"
        )
        try:
            streams = [stream for page in pages for stream in page["logStreams"]]
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return []  # nothing logged yet
            raise
        return [line for stream in streams for line in self._read(stream["logStreamName"])]

    def _read(self, stream: str) -> list[str]:
        lines = []
        while True:
            token = self._tokens.get(stream)
            page = self._client.get_log_events(
                logGroupName=self._group,
                logStreamName=stream,
                startFromHead=True,
                **({"nextToken": token} if token else {}),
            )
            lines += [event["message"] for event in page["events"]]
            self._tokens[stream] = page["nextForwardToken"]
            if page["nextForwardToken"] == token:  # a page may be empty and not the last one
                return lines
