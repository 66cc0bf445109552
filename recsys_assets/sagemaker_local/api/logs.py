"""CloudWatch Logs: groups, streams and events of the logs of jobs and endpoints.

A log group exists as soon as it has a stream. Tokens of GetLogEvents name a position in the
stream: ``f/<n>`` for what follows, ``b/<n>`` for what precedes; those of FilterLogEvents name the
last event.
"""

import re
from typing import Any

from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.identity import ACCOUNT_ID, region
from recsys_assets.sagemaker_local.store import LogEvent, LogStream
from recsys_assets.sagemaker_local.validation import ANY, Supported, refuse_unsupported

_MOST_GROUPS = 50
_MOST_STREAMS = 50
_MOST_EVENTS = 10_000
_MOST_BYTES = 1 << 20

_TOKEN = re.compile(r"([fb])/([0-9]{1,18})")
_PLACE = re.compile(r"([0-9]{1,18})/([0-9]{1,18})/([0-9]{1,18})")

# Of the language of filter patterns, what searches for words: all of them must be in the message.
_TERMS = re.compile(r'\s*(?:"([^"]+)"|(\w+))(?=\s|$)')

_SUPPORTED_GROUPS: Supported = {"logGroupNamePrefix": ANY, "nextToken": ANY, "limit": ANY}

_SUPPORTED_STREAMS: Supported = {
    "logGroupName": ANY,
    "logStreamNamePrefix": ANY,
    "orderBy": ANY,
    "descending": ANY,
    "nextToken": ANY,
    "limit": ANY,
}

_SUPPORTED_FILTER: Supported = {
    "logGroupName": ANY,
    "logStreamNames": ANY,
    "logStreamNamePrefix": ANY,
    "startTime": ANY,
    "endTime": ANY,
    "filterPattern": ANY,
    "nextToken": ANY,
    "limit": ANY,
    "startFromHead": (True,),
    "interleaved": ANY,  # CloudWatch Logs itself ignores it
    "unmask": (False,),
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


def describe_log_groups(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List log groups."""
    refuse_unsupported(request, _SUPPORTED_GROUPS)
    groups = context.store.log_groups(request.get("logGroupNamePrefix", ""))
    page, more = _page(list(groups), request, _MOST_GROUPS)
    return {
        "logGroups": [
            {
                "logGroupName": name,
                "creationTime": groups[name],
                "metricFilterCount": 0,
                "arn": f"{_group_arn(name)}:*",
                "logGroupArn": _group_arn(name),
                "logGroupClass": "STANDARD",
            }
            for name in page
        ],
        **more,
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
    by_name = {stream.name: stream for stream in streams}
    page, more = _page(list(by_name), request, _MOST_STREAMS)
    return {"logStreams": [_described(group, by_name[name]) for name in page], **more}


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
        "events": [_told(event) for event in events],
        "nextForwardToken": f"f/{following}",
        "nextBackwardToken": f"b/{first}",
    }


def filter_log_events(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Return a page of a group's events, by time."""
    refuse_unsupported(request, _SUPPORTED_FILTER)
    group = _group(request)
    if "logStreamNames" in request and "logStreamNamePrefix" in request:
        raise _invalid("Only one of logStreamNames and logStreamNamePrefix may be given.")
    if group not in context.store.log_groups(group):
        raise _not_found("The specified log group does not exist.")
    after = None
    if "nextToken" in request:
        place = _PLACE.fullmatch(request["nextToken"])
        if place is None:
            raise _invalid("The specified nextToken is invalid.")
        after = int(place[1]), int(place[2]), int(place[3])
    page, there_are_more = context.store.find_log_events(
        group,
        streams=request.get("logStreamNames", []),
        prefix=request.get("logStreamNamePrefix", ""),
        terms=_terms(request.get("filterPattern", "")),
        since=request.get("startTime"),
        until=request.get("endTime"),
        after=after,
        limit=request.get("limit", _MOST_EVENTS),
        most_bytes=_MOST_BYTES,
    )
    more = {"nextToken": "/".join(map(str, page[-1].place))} if there_are_more else {}
    return {
        "events": [
            {
                "logStreamName": item.stream_name,
                **_told(item.event),
                "eventId": f"{item.stream}/{item.event.position}",
            }
            for item in page
        ],
        "searchedLogStreams": [],  # as CloudWatch Logs has told since 2019
        **more,
    }


def _page(names: list[str], request: dict[str, Any], most: int) -> tuple[list[str], dict[str, str]]:
    """Return the names on the page asked for, and the answer's ``nextToken`` if there are more."""
    start = 0
    if "nextToken" in request:
        if request["nextToken"] not in names:
            raise _invalid("The specified nextToken is invalid.")
        start = names.index(request["nextToken"]) + 1
    stop = start + request.get("limit", most)
    page = names[start:stop]
    return page, {"nextToken": page[-1]} if stop < len(names) else {}


def _terms(pattern: str) -> list[str]:
    """Return the words that a filter pattern asks for."""
    terms, position, pattern = [], 0, pattern.rstrip()
    while position < len(pattern):
        term = _TERMS.match(pattern, position)
        if term is None:
            raise _invalid(
                "The local SageMaker endpoint supports only words and quoted phrases, of which all"
                f" must be in a message, for filterPattern, not {pattern!r}."
            )
        terms.append(term[1] or term[2])
        position = term.end()
    return terms


def _told(event: LogEvent) -> dict[str, Any]:
    return {
        "timestamp": event.timestamp,
        "message": event.message,
        "ingestionTime": event.timestamp,
    }


def _group_arn(group: str) -> str:
    return f"arn:aws:logs:{region()}:{ACCOUNT_ID}:log-group:{group}"


def _group(request: dict[str, Any]) -> str:
    if "logGroupName" not in request:
        raise _invalid("logGroupName is required.")
    group: str = request["logGroupName"]
    return group


def _described(group: str, stream: LogStream) -> dict[str, Any]:
    described: dict[str, Any] = {
        "logStreamName": stream.name,
        "creationTime": stream.created,
        "arn": f"{_group_arn(group)}:log-stream:{stream.name}",
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
