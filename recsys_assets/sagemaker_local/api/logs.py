"""CloudWatch Logs: DescribeLogStreams and GetLogEvents over the logs of jobs.

A log group exists as soon as it has a stream. Tokens of GetLogEvents name a position in the
stream: ``f/<n>`` for what follows, ``b/<n>`` for what precedes.
"""

import re
from typing import Any

from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.identity import ACCOUNT_ID, region
from recsys_assets.sagemaker_local.store import LogStream
from recsys_assets.sagemaker_local.validation import ANY, Supported, refuse_unsupported

_MOST_STREAMS = 50
_MOST_EVENTS = 10_000
_MOST_BYTES = 1 << 20

_TOKEN = re.compile(r"([fb])/([0-9]{1,18})")

_SUPPORTED_STREAMS: Supported = {
    "logGroupName": ANY,
    "logStreamNamePrefix": ANY,
    "orderBy": ANY,
    "descending": ANY,
    "nextToken": ANY,
    "limit": ANY,
}

_SUPPORTED_EVENTS: Supported = {
    "logGroupName": ANY,
    "logStreamName": ANY,
    "startTime": ANY,
    "endTime": ANY,
    "nextToken": ANY,
    "limit": ANY,
    "startFromHead": ANY,
    "unmask": (False,),
}


def describe_log_streams(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List the streams of a log group."""
    refuse_unsupported(request, _SUPPORTED_STREAMS)
    group = _group(request)
    streams = context.store.log_streams(group, request.get("logStreamNamePrefix", ""))
    if not streams and not context.store.log_streams(group):
        raise _not_found("The specified log group does not exist.")
    if request.get("orderBy") == "LastEventTime":
        if "logStreamNamePrefix" in request:
            raise _invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
        streams.sort(key=lambda stream: stream.last_event or 0)
    if request.get("descending", False):
        streams.reverse()
    names = [stream.name for stream in streams]
    start = 0
    if "nextToken" in request:
        if request["nextToken"] not in names:
            raise _invalid("The specified nextToken is invalid.")
        start = names.index(request["nextToken"]) + 1
    stop = start + request.get("limit", _MOST_STREAMS)
    page = streams[start:stop]
    more = {"nextToken": page[-1].name} if stop < len(streams) else {}
    return {"logStreams": [_described(group, stream) for stream in page], **more}


def get_log_events(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Return a page of a stream's events, which may still grow."""
    refuse_unsupported(request, _SUPPORTED_EVENTS)
    group, limit = _group(request), request.get("limit", _MOST_EVENTS)
    forward = request.get("startFromHead", False)
    start, stop = 0, None
    if "nextToken" in request:
        token = _TOKEN.fullmatch(request["nextToken"])
        if token is None:
            raise _invalid("The specified nextToken is invalid.")
        forward, position = token[1] == "f", int(token[2])
        start, stop = (position, None) if forward else (0, position)
    events = context.store.log_events(
        group,
        request["logStreamName"],
        start=start,
        stop=stop,
        since=request.get("startTime"),
        until=request.get("endTime"),
        limit=limit,
        most_bytes=_MOST_BYTES,
        newest=not forward,
    )
    if events is None:
        raise _not_found("The specified log stream does not exist.")
    edge = start if stop is None else stop
    first = events[0].position if events else edge
    following = events[-1].position + 1 if events else edge
    return {
        "events": [
            {
                "timestamp": event.timestamp,
                "message": event.message,
                "ingestionTime": event.timestamp,
            }
            for event in events
        ],
        "nextForwardToken": f"f/{following}",
        "nextBackwardToken": f"b/{first}",
    }


def _group(request: dict[str, Any]) -> str:
    if "logGroupName" not in request:
        raise _invalid("logGroupName is required.")
    group: str = request["logGroupName"]
    return group


def _described(group: str, stream: LogStream) -> dict[str, Any]:
    described: dict[str, Any] = {
        "logStreamName": stream.name,
        "creationTime": stream.created,
        "arn": f"arn:aws:logs:{region()}:{ACCOUNT_ID}:log-group:{group}:log-stream:{stream.name}",
        "storedBytes": 0,  # as CloudWatch Logs has told since 2019
    }
    if stream.first_event is not None and stream.last_event is not None:
        described["firstEventTimestamp"] = stream.first_event
        described["lastEventTimestamp"] = stream.last_event
        described["lastIngestionTime"] = stream.last_event
    return described


def _invalid(message: str) -> ServiceError:
    return ServiceError("InvalidParameterException", message)


def _not_found(message: str) -> ServiceError:
    return ServiceError("ResourceNotFoundException", message)
