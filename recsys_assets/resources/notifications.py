"""Telling people: a webhook, Slack's among them, and SNS.

What belongs here: what a message is, and what each channel makes of it. What does not: what is
worth a message and when (``recsys_assets.automation.notifications``).

A webhook's address is a secret: whoever has it can write to the channel. It is read when it is
used, kept nowhere, and no error tells it.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Literal, Protocol

from botocore.exceptions import BotoCoreError, ClientError
from dagster import ConfigurableResource
from pydantic import Field

from recsys_assets.resources.aws import AwsClients
from recsys_assets.settings import SettingsError

WEBHOOK_URL = "RECSYS_NOTIFY_WEBHOOK_URL"

_TIMEOUT_SECONDS = 10
_PATIENCE_SECONDS = 10.0  # the next tick of a sensor has more
# Slack's "Block Kit reference" and "Posting messages using incoming webhooks".
_SLACK_HEADER, _SLACK_SECTION, _SLACK_TEXT = 150, 3_000, 4_000
# Limits of "Publish" in the Amazon SNS API reference: characters of a subject, bytes of a message.
_SNS_SUBJECT, _SNS_MESSAGE = 99, 262_144
_CUT = "…"


class ChannelError(Exception):
    """A message has not been taken; it may be sent again."""


@dataclass(frozen=True)
class Message:
    """What somebody is told.

    Attributes
    ----------
    title
        What has happened, in one short line.
    lines
        What there is to know of it, one fact a line.
    url
        Where there is more.
    facts
        The same for programs (JSON).
    """

    title: str
    lines: Sequence[str]
    url: str
    facts: Mapping[str, Any]

    @property
    def text(self) -> str:
        """All of it for a person."""
        return "\n".join([self.title, *self.lines, self.url])


class Channel(Protocol):
    """Somewhere to tell something."""

    @property
    def name(self) -> str:
        """What it is called, in errors and in the position of what it has been told."""

    def send(self, message: Message) -> None:
        """Send a message.

        Raises
        ------
        ChannelError
            If it is not known to have been taken.
        """


@dataclass(frozen=True)
class Topic:
    """An SNS topic.

    Attributes
    ----------
    client
        A boto3 client of SNS in the topic's region.
    arn
        Of the topic.
    """

    client: Any
    arn: str
    name: str = "sns"

    def send(self, message: Message) -> None:
        """Publish a message; raises as :meth:`Channel.send`."""
        text = message.text.encode()
        if len(text) > _SNS_MESSAGE:
            text = text[: _SNS_MESSAGE - len(_CUT.encode())] + _CUT.encode()
        printable = "".join(c if c.isprintable() else " " for c in message.title)
        try:
            self.client.publish(
                TopicArn=self.arn,
                Subject=shortened(printable, _SNS_SUBJECT),
                Message=text.decode(errors="ignore"),
            )
        except (BotoCoreError, ClientError) as error:
            raise ChannelError(f"SNS: {error}") from error


class Webhook:
    """An address that takes JSON by POST: an incoming webhook of Slack, or anybody's.

    Parameters
    ----------
    url
        The address.
    format
        ``slack``, or ``json``: the facts, with ``title``, ``text`` and ``url``.
    """

    name = "webhook"

    def __init__(self, url: str, format: Literal["json", "slack"]) -> None:
        if not url.startswith(("https://", "http://")):
            raise SettingsError(f"{WEBHOOK_URL}: expected an address that starts with https://")
        self._url = url
        self._format = format

    def send(self, message: Message) -> None:
        """Post a message; raises as :meth:`Channel.send`."""
        problem = self._post(_for_slack(message) if self._format == "slack" else _plain(message))
        if problem is not None:  # raised here, away from errors that hold the address
            raise ChannelError(f"webhook ({WEBHOOK_URL}): {problem}")

    def _post(self, content: Mapping[str, Any]) -> str | None:
        """Return what went wrong, without the address; None if nothing did."""
        body = json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            # The scheme has been looked at. urllib, other than its kin, logs no addresses.
            request = urllib.request.Request(self._url, body, headers)  # noqa: S310
            with opener.open(request, timeout=_TIMEOUT_SECONDS):
                return None
        except urllib.error.HTTPError as error:
            error.close()
            return f"it answered {error.code}"
        except (OSError, HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(reason, TimeoutError):
                return f"no answer within {_TIMEOUT_SECONDS} s"
            return getattr(reason, "strerror", None) or type(reason).__name__


class Notifications(ConfigurableResource[Any]):
    """The channels of a deployment."""

    aws: AwsClients
    format: Literal["json", "slack"] = Field(
        default="json", description="What the webhook receives."
    )
    sns_topic_arn: str | None = Field(default=None, description="An SNS topic that is told too.")

    def channels(self) -> list[Channel]:
        """Return the channels that are set up.

        Raises
        ------
        SettingsError
            If one cannot be used.
        """
        found: list[Channel] = []
        url = os.environ.get(WEBHOOK_URL)
        if url:
            found.append(Webhook(url, self.format))
        if self.sns_topic_arn is not None:
            found.append(Topic(self._sns(self.sns_topic_arn), self.sns_topic_arn))
        return found

    def _sns(self, arn: str) -> Any:
        if self.aws.local:
            raise SettingsError(
                "notifications.sns_topic_arn: there is no SNS among the local services; it needs "
                "RECSYS_ENV=aws"
            )
        changes = {"region_name": arn.split(":")[3], "patience_seconds": _PATIENCE_SECONDS}
        return AwsClients(**{**dict(self.aws), **changes}).client("sns")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes a redirection for an error: a POST would become a GET, and the secret go elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def shortened(text: str, length: int) -> str:
    """Return a text cut to a length, with an ellipsis for what is gone."""
    return text if len(text) <= length else text[: length - len(_CUT)] + _CUT


def _plain(message: Message) -> dict[str, Any]:
    return {
        **message.facts,
        "title": message.title,
        "text": "\n".join(message.lines),
        "url": message.url,
    }


def _for_slack(message: Message) -> dict[str, Any]:
    """Return a message in blocks, and as text for notifications of a telephone."""
    header = {"type": "plain_text", "text": shortened(message.title, _SLACK_HEADER)}
    sections = [
        _escaped([f"• {line}" for line in message.lines], _SLACK_SECTION),
        f"<{_escaped([message.url], _SLACK_SECTION)}|Open in Dagster>",
    ]
    return {
        "text": _escaped([message.title, *message.lines], _SLACK_TEXT),
        "blocks": [
            {"type": "header", "text": header},
            *(
                {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}
                for text in sections
            ),
        ],
    }


def _escaped(lines: Iterable[str], length: int) -> str:
    """Return lines with the characters escaped that Slack reads as its own, cut to a length.

    "Formatting text for app surfaces" in Slack's documentation. No escape is cut in two.
    """
    escapes = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
    characters = [escapes.get(character, character) for character in "\n".join(lines)]
    if sum(map(len, characters)) <= length:
        return "".join(characters)
    kept = []
    left = length - len(_CUT)
    for character in characters:
        left -= len(character)
        if left < 0:
            break
        kept.append(character)
    return "".join(kept) + _CUT
