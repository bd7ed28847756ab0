"""
What surrounds each request: its id, its line in the log, its place in the figures.

Decides what is said of a request: its method, the template of its route, its status and
its size. Never the path or the query themselves, which hold players' names, tickets and
cursors. Knows ASGI. Knows nothing of what is answered.

A request is told of when it is answered. A stream is told of when it is opened, with a
status of 101 or 200 and no bytes; that it has ended is told by whoever knows
(`service.streams.connection_log`), as it may go on after the call that has opened it
has returned.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable
from time import monotonic
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...core.counters import Counters
from ...service.node.fast_log import emit
from ...service.node.request_context import RequestContext, current_request

__all__ = ["AccessLog"]

HEADER: Final = b"x-request-id"

NO_ROUTE: Final = "unknown"
"""The route of a request for something that is not there."""

CLIENT_CLOSED_REQUEST: Final = 499
"""The status of a request whose client has left before it was answered, as nginx has
it: nobody was sent one."""

# What begins an answer, and the status where it does not say.
_STATUS: Final = {
    "http.response.start": 200,
    "websocket.http.response.start": 403,
    "websocket.accept": 101,
}

_logger = logging.getLogger("streamer.access")


class AccessLog:
    """
    An ASGI application around another.

    Args:
        app: The other.
        figures: What counts requests.
        lines: Whether each has a line in the log, at the level ``info``.

    """

    def __init__(self, app: ASGIApp, counters: Counters, *, lines: bool) -> None:
        self._app = app
        self.counters = counters
        self.lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(self, scope, send)
        # It is not taken back: the call has a context of its own, and what the server
        # logs of a call that has failed shall name it too.
        current_request.set(exchange.serving)
        try:
            await self._app(scope, receive, exchange.send)
        finally:
            exchange.tell()


class _Exchange:
    """A request and its answer."""

    __slots__ = ("_begun_s", "_bytes", "_log", "_scope", "_send", "_status", "serving")

    def __init__(self, log: AccessLog, scope: Scope, send: Send) -> None:
        request_id = b""
        for name, value in scope["headers"]:
            if name == HEADER:
                request_id = value
                break
        self.serving = RequestContext(request_id.decode("latin-1"))
        self._log: AccessLog | None = log
        self._scope = scope
        self._send = send
        self._begun_s = monotonic()
        self._status = CLIENT_CLOSED_REQUEST
        self._bytes = 0

    def send(self, message: Message) -> Awaitable[None]:
        """Pass an answer on, or a part of one."""
        kind = message["type"]
        if kind == "http.response.body":
            self._bytes += len(message.get("body", b""))
        elif kind in _STATUS:
            message = self._begin(message)
        elif kind == "websocket.close" and self._status == CLIENT_CLOSED_REQUEST:
            self._status = 403  # As the server answers a handshake that is declined.
        return self._send(message)

    def _begin(self, message: Message) -> Message:
        kind = message["type"]
        self._status = message.get("status", _STATUS[kind])
        headers = message.get("headers") or ()
        if kind == "websocket.accept" or _is_stream(headers):
            self.tell()
        # A message may be everybody's, and so may its headers.
        sent = [*headers, (HEADER, self.serving.id.encode())]
        return {**message, "headers": sent}

    def tell(self) -> None:
        """Count the request and tell of it, once."""
        log, self._log = self._log, None
        if log is None:
            return
        method = self._scope.get("method", "GET")  # A WebSocket's has to be GET.
        route = getattr(self._scope.get("route"), "path_format", NO_ROUTE)
        log.counters.requests[method, route, self._status] += 1
        if not log.lines:
            return
        fields = {
            "method": method,
            "route": route,
            "status": self._status,
            "duration_ms": round((monotonic() - self._begun_s) * 1_000, 1),
            "bytes": self._bytes,
            "app": self.serving.app,
        }
        emit(_logger, f"{method} {route} {self._status}", fields, logging.INFO)


def _is_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:
        if name == b"content-type":
            return value.startswith(b"text/event-stream")
    return False
