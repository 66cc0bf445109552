"""What holds for every connection: no delays, and a limit to the time of a request's head.

uvicorn closes a connection that is idle after an answer, and waits without end for the first
request and for the rest of a head that has begun. Limits of a body are the application's (``app``).
"""

import asyncio
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0
"""How long the head of a request may take, from the opening of the connection or the last answer.

A client that sends a byte now and then would hold a connection for ever otherwise.
"""

MOST_CONNECTIONS = 256
"""Connections at a time; further ones are answered with 503, which clients try again."""


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP protocol with a limit to the time that a request's head may take."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        # asyncio sets this too, but not for a listener that was opened elsewhere; without it an
        # answer's body waits some 40 ms for the confirmation of its head.
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        if self._limit is not None:
            self._limit.cancel()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._await_head()

    def _await_head(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._limit = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        # A cycle is made of a head that is complete.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
