"""Who may ask: requests signed with Signature Version 4, as every AWS client signs them.

The endpoint has one secret. A client that has it as its secret access key signs with it, and so
never sends it; the access key id may be any. What a caller may do is not asked: one who knows the
secret may do everything.
"""

import datetime
import hashlib
import hmac
import re
from typing import TYPE_CHECKING

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from starlette.datastructures import Headers

from recsys_assets.sagemaker_local.errors import ServiceError

if TYPE_CHECKING:
    from botocore.compat import HTTPHeaders

SHORTEST_SECRET = 16
"""Characters that the secret must have: whoever sees a signature can try secrets against it."""

_CLOCK_SKEW = datetime.timedelta(minutes=5)

_UNSIGNED = {"x-amzn-trace-id"}
"""Proxies add it, so that clients do not sign it."""

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,\s]+)/(?P<date>[0-9]{8})/(?P<region>[\w-]+)"
    r"/(?P<service>[\w-]+)/aws4_request, ?SignedHeaders=(?P<headers>[a-z0-9;_-]+),"
    r" ?Signature=(?P<signature>[0-9a-f]{64})",
    re.ASCII,
)


class Authenticator:
    """Tells whether a request is signed with the endpoint's secret.

    Parameters
    ----------
    secret
        The secret access key.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def check(self, method: str, target: str, headers: Headers, body: bytes) -> None:
        """Let a request pass if its signature is good.

        Parameters
        ----------
        method, target, headers, body
            The request as it came; ``target`` is its path and query.

        Raises
        ------
        ServiceError
            403 otherwise.
        """
        if "authorization" not in headers:
            raise _refused("MissingAuthenticationTokenException", "Missing Authentication Token")
        given = _AUTHORIZATION.fullmatch(headers["authorization"])
        if given is None:
            raise _refused(
                "IncompleteSignatureException",
                "The Authorization header must have the form AWS4-HMAC-SHA256"
                " Credential=..., SignedHeaders=..., Signature=...",
            )
        signed = given["headers"].split(";")
        # Whatever has a meaning for the endpoint must be what the client signed.
        needed = {"host", *(name for name in headers if name.startswith("x-amz"))} - _UNSIGNED
        if missing := needed - set(signed):
            raise _mismatch(f"Headers that must be signed are not: {', '.join(sorted(missing))}.")
        timestamp = headers.get("x-amz-date", "")
        _check_time(timestamp, given["date"])
        request = AWSRequest(method, f"http://{headers.get('host')}{target}", data=body)
        for name in signed:
            for value in headers.getlist(name):
                request.headers[name] = value
        request.context["timestamp"] = timestamp
        stated = headers.get("x-amz-content-sha256")
        if stated not in (None, hashlib.sha256(body).hexdigest()):
            raise _mismatch("The body is not the one that x-amz-content-sha256 states.")
        signer = _Signer(Credentials(given["key"], self._secret), given["service"], given["region"])
        if not hmac.compare_digest(signer.sign(request), given["signature"]):
            raise _mismatch(
                "The request signature we calculated does not match the signature you provided."
                " The secret access key must be the token that the endpoint was started with."
            )


class _Signer(SigV4Auth):
    """Botocore's signer, for headers that the client has chosen already."""

    def sign(self, request: AWSRequest) -> str:
        """Return the signature that a request should have."""
        signature: str = self.signature(
            self.string_to_sign(request, self.canonical_request(request)), request
        )
        return signature

    def headers_to_sign(self, request: AWSRequest) -> "HTTPHeaders":
        return request.headers


def _check_time(timestamp: str, date: str) -> None:
    now = datetime.datetime.now(datetime.UTC)
    try:
        moment = datetime.datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(
            tzinfo=datetime.UTC
        )
    except ValueError:
        raise _mismatch(
            f"x-amz-date must have the form 20260131T235959Z, got {timestamp!r}."
        ) from None
    if timestamp[:8] != date:
        raise _mismatch(f"Date in Credential scope does not match x-amz-date: {date}, {timestamp}.")
    if abs(now - moment) > _CLOCK_SKEW:
        raise _mismatch(
            f"Signature expired: {timestamp} is more than 5 min. from {now:%Y%m%dT%H%M%SZ}."
        )


def _mismatch(message: str) -> ServiceError:
    return _refused("SignatureDoesNotMatch", message)


def _refused(code: str, message: str) -> ServiceError:
    return ServiceError(code, message, 403)
