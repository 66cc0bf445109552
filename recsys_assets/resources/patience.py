"""Patience with AWS: which errors pass by themselves, and how long a call is tried again for them.

What belongs here: telling errors that pass from those that do not, the pauses between tries, and
hanging both into a boto3 client, so that whoever uses it need not think of them. What does not:
what any call is for.

boto3's own retries are made for seconds. A network that is cut for a minute, or credentials that
somebody has to renew, take longer; a job that trains for hours should survive both.
"""

import random
import time
from collections.abc import Callable
from typing import Any

from botocore.credentials import Credentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # botocore's own, and no kind of HTTPClientError
    CredentialRetrievalError,
    HTTPClientError,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from dagster import get_dagster_logger

# The last is all that S3's answer to a HEAD request says, for it has no body.
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "400"})
_THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_CLIENTS_FAULT, _SERVERS_FAULT = 400, 500  # HTTP statuses from which on an answer is an error
_NO_ANSWER = (ConnectionError, HTTPClientError)
_NO_CREDENTIALS = (
    CredentialRetrievalError,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 20.0

Renew = Callable[[], None]


def passes_by_itself(error: BaseException) -> bool:
    """Tell whether the same call may well succeed later, with nothing changed but the time.

    That is so of throttling, timeouts, 5xx answers, a network that is cut and credentials that
    have expired.
    """
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = error.response.get("Error", {}).get("Code", "")
        return status >= _SERVERS_FAULT or code in _THROTTLED | _EXPIRED
    return isinstance(error, _NO_ANSWER + _NO_CREDENTIALS)


def has_expired(error: BaseException) -> bool:
    """Tell whether it was the credentials that had expired."""
    return isinstance(error, ClientError) and error.response["Error"]["Code"] in _EXPIRED


class Tries:
    """The tries of one call, which end when its caller's patience does.

    Parameters
    ----------
    patience_seconds
        How long to go on, counted from now.
    """

    def __init__(self, patience_seconds: float) -> None:
        self._ends = time.monotonic() + patience_seconds
        self._made = 0

    def pause_after(self, error: BaseException) -> float | None:
        """Return the seconds to wait before the next try; None if there is to be none.

        They grow exponentially and are drawn at random, so that many clients that were cut off
        together do not come back together.
        """
        if not passes_by_itself(error) or time.monotonic() >= self._ends:
            return None
        self._made += 1
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**self._made)
        return random.uniform(longest / 2, longest)  # noqa: S311 - nothing secret


def make_patient(
    client: Any, patience_seconds: float, credentials: Credentials | None, renew: Renew
) -> None:
    """Let a boto3 client try its calls again for as long as it takes, up to a limit.

    Calls that make or change something in SageMaker are left to their caller (``jobs.py``): one
    whose answer got lost may have been obeyed, and only a look tells.

    Parameters
    ----------
    client
        A client without retries of its own.
    patience_seconds
        How long a call is tried.
    credentials
        What the client signs with. Some are fetched anew before a request is signed; that is tried
        for as long as a call.
    renew
        Called when the credentials have expired, before the next try.
    """

    def needs_retry(
        operation: Any, response: Any, caught_exception: Any, request_dict: Any, **_: Any
    ) -> float | None:
        service, action = operation.service_model.service_name, operation.name
        if service == "sagemaker" and action.startswith(("Create", "Update")):
            return None
        error: BaseException | None = caught_exception or _refusal(response, action)
        if error is None:
            return None
        tries: Tries = request_dict["context"].setdefault("recsys_tries", Tries(patience_seconds))
        pause = tries.pause_after(error)
        if pause is None:
            return None  # botocore's own handlers may know better: S3's follows redirections
        if has_expired(error):
            renew()
        get_dagster_logger().warning(
            f"{service} {action}: {error}; asked again in {pause:.1f} s, for at most "
            f"{patience_seconds:.0f} s"
        )
        return pause

    def await_credentials(**_: Any) -> None:
        tries = Tries(patience_seconds)
        while credentials is not None:
            try:
                credentials.get_frozen_credentials()
            except (BotoCoreError, ClientError) as error:
                pause = tries.pause_after(error)
                if pause is None:
                    raise
                get_dagster_logger().warning(f"{error}; asked again in {pause:.1f} s")
                time.sleep(pause)
            else:
                return

    # So specific a pattern goes before botocore's own handler, whose answer would count otherwise.
    client.meta.events.register("needs-retry.*.*", needs_retry)
    client.meta.events.register("request-created.*.*", await_credentials)  # before signing


def _refusal(response: tuple[Any, Any], action: str) -> ClientError | None:
    """Return the error that an answer will be turned into, if it is one."""
    http, parsed = response
    return ClientError(parsed, action) if http.status_code >= _CLIENTS_FAULT else None
