"""
A request that is answered beneath ASGI, and its response.

Decides nothing about requests: `DirectApp.find` says which are answered in this way.
Knows what uvicorn's protocol does with a request in progress, whose part this takes.
Knows nothing of routes.

ASGI passes a response on as two messages, each through every layer of the app, and the
server checks and joins headers that the app has encoded. Here the app calls `respond`
once, with a complete response. All else is as for any request: the body is received as
it arrives, a client that does not read its responses delays them, and the connection
goes on to the next request.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from starlette.types import Message, Receive, Scope

__all__ = ["Answer", "DirectApp", "DirectCycle", "Headers", "Respond"]

Headers = Sequence[tuple[bytes, bytes]]

Respond = Callable[[int, Headers, bytes], Awaitable[None]]
"""
Sends a response: its status, its headers and its body.

The headers are complete, in lower case, except for those that the server adds to every
response. If the client has disconnected, nothing is sent.
"""

Answer = Callable[[Scope, Receive, Respond], Awaitable[None]]
"""Answers one request. Raises after its response if the connection is to be closed."""

_CLOSE: Final = (b"connection", b"close")

_STATUS_LINES: Final = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode())
    for status in http.HTTPStatus
}

# uvicorn's logger for errors of the app.
_logger = logging.getLogger("uvicorn.error")


def _nothing() -> None:
    pass


class DirectApp(Protocol):
    """An app that answers some requests beneath ASGI."""

    def find(self, scope: Scope, target: bytes) -> Answer | None:
        """
        Return what answers a request, None if it has to go through ASGI.

        Args:
            scope: The scope without the members that come from the target, which are
                added for a request that is answered.
            target: The target of the request, as it was sent.

        """


class DirectCycle:
    """
    One request and its response, in the place of uvicorn's `RequestResponseCycle`.

    The attributes without an underscore are those that uvicorn's protocol uses.
    """

    __slots__ = (
        "_event",
        "_flow",
        "_has_news",
        "_on_response",
        "_scope",
        "body",
        "default_headers",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
        "response_started",
        "transport",
    )

    def __init__(
        self,
        scope: Scope,
        transport: asyncio.Transport,
        flow: Any,  # uvicorn's FlowControl
        default_headers: list[tuple[bytes, bytes]],
        *,
        keep_alive: bool,
        on_response: Callable[[], None],
    ) -> None:
        self.transport = transport
        self.default_headers = default_headers
        self.keep_alive = keep_alive
        self.disconnected = False
        self.body = bytearray()
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self._scope = scope
        self._flow = flow
        self._on_response = on_response
        self._has_news = False
        self._event: asyncio.Event | None = None
        """Set when there is news. Created when the app first waits, which is rare."""

    @property
    def message_event(self) -> DirectCycle:
        """What uvicorn sets for a request when its client has disconnected."""
        return self

    def set(self) -> None:
        """Wake the app, which may wait for the body or for a disconnect."""
        self._has_news = True
        if self._event is not None:
            self._event.set()

    def add_body(self, body: bytes) -> int:
        """Add a part of the body; return how many bytes the app has not received."""
        if self.response_complete:
            return 0
        self.body += body
        self.set()
        return len(self.body)

    def end_body(self) -> None:
        """Note that the body is complete."""
        if not self.response_complete:
            self.more_body = False
            self.set()

    async def run_asgi(self, answer: Answer) -> None:
        """Answer the request. The name is that of uvicorn's method."""
        try:
            await answer(self._scope, self._receive, self._respond)
        except BaseException:
            # As uvicorn does.
            _logger.exception("Exception in ASGI application\n")
            if self.response_started:
                self.transport.close()
            else:
                await self._fail()
        finally:
            # It is a method of the protocol, which has this object.
            self._on_response = _nothing

    async def _receive(self) -> Message:
        if not self._has_news and not self._is_over:
            self._flow.resume_reading()
            if self._event is None:
                self._event = asyncio.Event()
            self._event.clear()
            await self._event.wait()
        self._has_news = False
        if self._is_over:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    @property
    def _is_over(self) -> bool:
        return self.disconnected or self.response_complete

    async def _respond(self, status: int, headers: Headers, body: bytes) -> None:
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        self.response_started = True
        fields = [*self.default_headers, *headers]
        if _CLOSE in fields:
            self.keep_alive = False
        elif not self.keep_alive:
            fields.append(_CLOSE)
        lines = [b"%b: %b\r\n" % field for field in fields]
        self.transport.write(
            b"".join([_STATUS_LINES[status], *lines, b"\r\n", body])  # type: ignore[index]  # a status is an int
        )
        self.response_complete = True
        if not self.keep_alive:
            self.transport.close()
        self._on_response()

    async def _fail(self) -> None:
        body = b"Internal Server Error"
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            _CLOSE,
        ]
        await self._respond(http.HTTPStatus.INTERNAL_SERVER_ERROR, headers, body)
