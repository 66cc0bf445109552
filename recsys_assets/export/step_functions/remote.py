"""States that have SageMaker create something and follow it.

What belongs here: one state for each thing that is created, whatever it takes to follow it. What
does not: requests (``tasks.py``) and which task wants it. Each state hands on the name of what it
has created as ``name``.

Names cannot collide between two executions, and a job that is tried again gets the next number.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recsys_assets.export.step_functions.expressions import State, formatted
from recsys_assets.resources.sagemaker.jobs import ENDPOINT, Kind

_SDK = "arn:aws:states:::aws-sdk:sagemaker:"
_OPTIMIZED = "arn:aws:states:::sagemaker:"

# What SageMaker's throttling, its own faults and a cut network come as. Refusals of other kinds
# come so too: they are asked for again in vain, for about a minute.
_PASSING = {
    "sagemaker": (
        "SageMaker.AmazonSageMakerException",
        "SageMaker.SageMakerException",
        "SageMaker.SdkClientException",
    ),
    "s3": ("S3.S3Exception", "S3.SdkClientException"),
}
_MOST_PASSING = 5

_UNDER_WAY = ("Creating", "Updating", "SystemUpdating", "RollingBack")


@dataclass(frozen=True)
class Retries:
    """How often a task that fails is tried again, and the seconds between."""

    times: int = 0
    seconds: int = 30


def passing(service: str) -> State:
    """Return the retrier of errors of a service that pass by themselves."""
    return {
        "ErrorEquals": list(_PASSING[service]),
        "IntervalSeconds": 2,
        "MaxAttempts": _MOST_PASSING,
        "BackoffRate": 2,
        "MaxDelaySeconds": 60,
        "JitterStrategy": "FULL",
    }


def thing_name(task: str, kind: Kind) -> str:
    """Return the expression of the name of what is made once: a model or an endpoint config."""
    return formatted(f"{_stem(task, kind)}-{{}}-1", "$.run.short")


def follow_job(
    task: str,
    kind: Kind,
    request: Mapping[str, Any],
    retries: Retries,
    poll_seconds: int | None,
    index: str | None = None,
) -> State:
    """Return the state that runs a job to its end; one that fails or is stopped is an error.

    Parameters
    ----------
    task
        Id of the task, which the names of job and states begin with.
    kind
        Of job.
    request
        ``Parameters`` of its creation, without its name.
    retries
        Of a job that fails.
    poll_seconds
        Between two looks; None lets Step Functions wait.
    index
        Where the number of a job among several of the task is kept; None for the only one.
    """
    whose = ["$.run.short", *([index] if index else [])]
    stem = _stem(task, kind)
    if poll_seconds is not None:
        return _poll_job(task, kind, request, retries, poll_seconds, stem, whose)
    name = _job_name(stem, *whose, "States.MathAdd($$.State.RetryCount, 1)")
    return {
        "Type": "Task",
        "Resource": f"{_OPTIMIZED}{_action('create', kind)}.sync",
        "Parameters": {f"{kind.name_field}.$": name, **request},
        "Retry": [passing("sagemaker"), *_own(retries)],
        "ResultSelector": {"name.$": f"$.{kind.name_field}"},
    }


def ensure_thing(task: str, kind: Kind, request: Mapping[str, Any], name: str) -> State:
    """Return the state that creates a model or an endpoint config unless it is there.

    Parameters
    ----------
    task
        What the names of states begin with.
    kind
        Model or endpoint config.
    request
        ``Parameters`` of its creation, without its name.
    name
        Expression of its name.
    """
    given = {f"{kind.name_field}.$": name, **request}
    states = {
        f"{task} create": _create(kind, given, f"{task} look"),
        f"{task} look": _look(kind, f"{task} there", f"{task} refused"),
        f"{task} there": {"Type": "Succeed", "OutputPath": f"$.found.{kind.name_field}"},
        f"{task} refused": _refused(),
    }
    return _around(f"{task} create", states, {"request": _dynamic(given), **_NOT_REFUSED})


def ensure_endpoint(task: str, request: Mapping[str, Any], poll_seconds: int) -> State:
    """Return the state that creates an endpoint, or updates the one that is there."""
    update = {f"{name}.$": f"$.request.{name}" for name in ("EndpointName", "EndpointConfigName")}
    status = f"$.found.{ENDPOINT.status_field}"
    states = {
        # Not tried again here: most often it is refused because the endpoint is there.
        f"{task} create": {
            **_create(ENDPOINT, request, f"{task} update"),
            "Next": f"{task} look",
            "Retry": [],
        },
        f"{task} update": {
            "Type": "Task",
            "Resource": f"{_SDK}{_action('update', ENDPOINT)}",
            "Parameters": update,
            "Retry": [passing("sagemaker")],
            "Catch": [_catch("$.not_updated", f"{task} refused")],
            "ResultPath": None,
            "Next": f"{task} look",
        },
        f"{task} look": _look(ENDPOINT, f"{task} there", f"{task} lost"),
        f"{task} there": {
            "Type": "Choice",
            "Choices": [
                {
                    "And": [
                        {"Variable": status, "StringEquals": "InService"},
                        {
                            "Variable": "$.found.EndpointConfigName",
                            "StringEqualsPath": "$.request.EndpointConfigName",
                        },
                    ],
                    "Next": f"{task} in service",
                },
                {
                    "Or": [{"Variable": status, "StringEquals": item} for item in _UNDER_WAY],
                    "Next": f"{task} wait",
                },
            ],
            "Default": f"{task} failed",
        },
        f"{task} wait": {"Type": "Wait", "Seconds": poll_seconds, "Next": f"{task} look"},
        f"{task} in service": {"Type": "Succeed", "OutputPath": "$.found.EndpointName"},
        f"{task} failed": _failed("EndpointFailed"),
        f"{task} refused": {
            "Type": "Fail",
            "Error": "CreationRefused",
            "CausePath": formatted(
                "create: {}; update: {}", "$.refused.Cause", "$.not_updated.Cause"
            ),
        },
        f"{task} lost": _refused(),
    }
    return _around(f"{task} create", states, {"request": request, **_NOT_REFUSED})


_NOT_REFUSED = {
    "refused": {"Error": "NotFound", "Cause": "It was created, and then could not be described."}
}


def _poll_job(
    task: str,
    kind: Kind,
    request: Mapping[str, Any],
    retries: Retries,
    poll_seconds: int,
    stem: str,
    whose: list[str],
) -> State:
    kept = [where.rpartition(".")[2] for where in whose]
    name = _job_name(stem, *(f"$.{member}" for member in kept), "$.try")
    create = _create(kind, request, f"{task} named")
    create["Parameters"] = {f"{kind.name_field}.$": name, **create["Parameters"]}
    status = f"$.found.{kind.status_field}"
    states: dict[str, State] = {
        f"{task} create": create,
        # Created now or by a try whose answer was lost: a look decides.
        f"{task} named": {
            "Type": "Pass",
            "Parameters": {"name.$": name},
            "ResultPath": "$.job",
            "Next": f"{task} look",
        },
        f"{task} look": _look(kind, f"{task} ended", f"{task} refused", "$.job.name"),
        f"{task} ended": {
            "Type": "Choice",
            "Choices": [
                {"Variable": status, "StringEquals": "Completed", "Next": f"{task} completed"},
                {
                    "Or": [
                        {"Variable": status, "StringEquals": item} for item in ("Failed", "Stopped")
                    ],
                    "Next": f"{task} again" if retries.times else f"{task} failed",
                },
            ],
            "Default": f"{task} wait",
        },
        f"{task} wait": {"Type": "Wait", "Seconds": poll_seconds, "Next": f"{task} look"},
        f"{task} completed": {"Type": "Succeed", "OutputPath": "$.job.name"},
        f"{task} failed": _failed("JobFailed"),
        f"{task} refused": _refused(),
    }
    if retries.times:
        states |= {
            f"{task} again": {
                "Type": "Choice",
                "Choices": [
                    {
                        "Variable": "$.try",
                        "NumericLessThanEquals": retries.times,
                        "Next": f"{task} pause",
                    }
                ],
                "Default": f"{task} failed",
            },
            f"{task} pause": {"Type": "Wait", "Seconds": retries.seconds, "Next": f"{task} count"},
            f"{task} count": {
                "Type": "Pass",
                "Parameters": {
                    "try.$": "States.MathAdd($.try, 1)",
                    **{f"{member}.$": f"$.{member}" for member in (*kept, "request", "refused")},
                },
                "Next": f"{task} create",
            },
        }
    given = {
        "request": _dynamic(request),
        "try": 1,
        **{f"{member}.$": where for member, where in zip(kept, whose, strict=True)},
        **_NOT_REFUSED,
    }
    return _around(f"{task} create", states, given)


def _around(start: str, states: Mapping[str, State], given: Mapping[str, Any]) -> State:
    """Return several states as one, which hands on the name that they end with."""
    return {
        "Type": "Parallel",
        "Parameters": dict(given),
        "Branches": [{"StartAt": start, "States": dict(states)}],
        "ResultSelector": {"name.$": "$[0]"},
    }


def _create(kind: Kind, request: Mapping[str, Any], following: str) -> State:
    """Return the state that creates something; a look decides whether a refusal means anything."""
    dynamic = (member.removesuffix(".$") for member in _dynamic(request))
    return {
        "Type": "Task",
        "Resource": f"{_SDK}{_action('create', kind)}",
        "Parameters": {
            **{name: value for name, value in request.items() if name not in _dynamic(request)},
            **{f"{member}.$": f"$.request.{member}" for member in dynamic},
        },
        "Retry": [passing("sagemaker")],
        "Catch": [_catch("$.refused", following)],
        "ResultPath": None,
        "Next": following,
    }


def _dynamic(request: Mapping[str, Any]) -> State:
    """Return the members of a request that hold expressions: these are evaluated once, outside."""
    return {
        name: value
        for name, value in request.items()
        if name.endswith(".$") or '.$": ' in json.dumps(value)
    }


def _look(kind: Kind, following: str, without: str, name: str | None = None) -> State:
    return {
        "Type": "Task",
        "Resource": f"{_SDK}{_action('describe', kind)}",
        "Parameters": {f"{kind.name_field}.$": name or f"$.request.{kind.name_field}"},
        "Retry": [passing("sagemaker")],
        "Catch": [_catch("$.not_found", without)],
        "ResultPath": "$.found",
        "Next": following,
    }


def _catch(where: str, following: str) -> State:
    return {"ErrorEquals": ["States.ALL"], "ResultPath": where, "Next": following}


def _refused() -> State:
    cause = formatted("{}: {}", "$.refused.Error", "$.refused.Cause")
    return {"Type": "Fail", "Error": "CreationRefused", "CausePath": cause}


def _failed(error: str) -> State:
    return {"Type": "Fail", "Error": error, "CausePath": "States.JsonToString($.found)"}


def _own(retries: Retries) -> list[State]:
    if not retries.times:
        return []
    return [
        {
            "ErrorEquals": ["States.ALL"],
            "IntervalSeconds": retries.seconds,
            "MaxAttempts": retries.times,
            "BackoffRate": 1,
        }
    ]


def _job_name(stem: str, *parts: str) -> str:
    return formatted("-".join([stem, *["{}"] * len(parts)]), *parts)


def _action(verb: str, kind: Kind) -> str:
    return f"{verb}{kind.noun}"


def _stem(task: str, kind: Kind) -> str:
    """Return what the names of a task's things begin with; long ids keep apart by a digest."""
    length = kind.name_length - len("-12345678-1234-123")  # run, partition and try
    words = re.sub("[^a-zA-Z0-9]+", "-", task).strip("-").lower()
    if len(words) <= length:
        return words
    digest = hashlib.sha256(task.encode()).hexdigest()[:4]
    return f"{words[: length - 5].rstrip('-')}-{digest}"
