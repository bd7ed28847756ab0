"""
The access log: each request's id, its log record, and its count in the metrics.

Decides what is recorded of a request: its method, the template of its route, its
status, its size, its caller, and why it was refused. Never the path or the query
themselves, which contain players' names, tickets and cursors. Knows ASGI. Knows nothing
of the content of responses.

A request is recorded when its response ends. A stream is recorded when it opens, with
status 101 or 200 and 0 bytes, since it outlives the call that opened it; its end is
recorded by `service.streams.connection_log`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...core.counters import Counters
from ...service.access.failures import FailedAuthentications
from ...service.inspection.history import History
from ...service.node.fast_log import emit
from ...service.node.player_names import PlayerNames
from ...service.node.request_context import RequestContext, current_request

__all__ = ["NO_ROUTE", "PROBES", "AccessLog", "Exchange", "ExchangeMaker"]

HEADER: Final = b"x-request-id"

NO_ROUTE: Final = "unknown"
"""The route of a request that matches no route."""

PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Routes that programs request every few seconds."""

CLIENT_CLOSED_REQUEST: Final = 499
"""
The recorded status of a request whose client disconnected before the response.

No status was sent; nginx records the same number.
"""

# Messages that begin a response, and their status if they carry none.
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
        app: The application that responds.
        counters: Count requests by method, route and status.
        lines: Whether to log each request, at level ``info``.
        probes: Whether these lines include successful requests of `PROBES`.
        players: Names players.
        failures: Counts authentications that fail.
        history: Remembers refusals of players.
        exchange: Makes an `Exchange` of a request, or what extends it.

    """

    def __init__(
        self,
        app: ASGIApp,
        counters: Counters,
        *,
        lines: bool,
        probes: bool = True,
        players: PlayerNames | None = None,
        failures: FailedAuthentications | None = None,
        history: History | None = None,
        exchange: ExchangeMaker | None = None,
    ) -> None:
        self._app = app
        self.exchange: ExchangeMaker = exchange or Exchange
        self.history = history
        self.failures = failures or FailedAuthentications()
        self.counters = counters
        self.lines = lines
        self.probes = probes
        self.players = players or PlayerNames("none", "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self.exchange(self, scope, send)
        try:
            await self._app(scope, receive, exchange.send)
        finally:
            exchange.record()


ExchangeMaker = Callable[["AccessLog", Scope, Send | None], "Exchange"]
"""Makes an `Exchange`, from its arguments."""


class Exchange:
    """
    A request and its response.

    Its creation makes it the request that is being served. That is not reset: the call
    has a context of its own, and what the server logs of a failed call is to carry the
    request id, too.

    Args:
        log: Where it is recorded.
        scope: The scope of the request.
        send: Sends messages of the response. None if the response is sent at once;
            then `begin` is called instead of `send`.

    """

    __slots__ = (
        "_bytes",
        "_log",
        "_scope",
        "_send",
        "_started_s",
        "_status",
        "serving",
    )

    def __init__(self, log: AccessLog, scope: Scope, send: Send | None = None) -> None:
        request_id = b""
        for name, value in scope["headers"]:
            if name == HEADER:
                request_id = value
                break
        client = scope.get("client")
        self.serving = RequestContext(
            request_id.decode("latin-1"),
            client[0] if client else "",
            log.failures,
            log.history,
        )
        current_request.set(self.serving)
        self._log: AccessLog | None = log
        self._scope = scope
        self._send = send
        self._started_s = monotonic()
        self._status = CLIENT_CLOSED_REQUEST
        self._bytes = 0

    def send(self, message: Message) -> Awaitable[None]:
        """Pass on a message of the response."""
        kind = message["type"]
        if kind == "http.response.body":
            self._bytes += len(message.get("body", b""))
        elif kind in _STATUS:
            message = self._begin_response(message)
        elif kind == "websocket.close" and self._status == CLIENT_CLOSED_REQUEST:
            self._status = 403  # What the server sends for a declined handshake.
        assert self._send is not None
        return self._send(message)

    def begin(self, status: int, size: int) -> tuple[bytes, bytes]:
        """Note a complete response; return the header that is to be added to it."""
        self._status = status
        self._bytes = size
        return HEADER, self.serving.id.encode()

    def _begin_response(self, message: Message) -> Message:
        kind = message["type"]
        self._status = message.get("status", _STATUS[kind])
        headers = message.get("headers") or ()
        if kind == "websocket.accept" or _is_stream(headers):
            self.record()
        # The message and its headers may be shared by all responses.
        sent = [*headers, (HEADER, self.serving.id.encode())]
        return {**message, "headers": sent}

    def record(self) -> None:
        """Count and log the request, once."""
        log, self._log = self._log, None
        if log is None:
            return
        method = self._scope.get("method", "GET")  # a WebSocket's is always GET
        route = getattr(self._scope.get("route"), "path_format", NO_ROUTE)
        log.counters.requests[method, route, self._status] += 1
        if not log.lines:
            return
        if route in PROBES and self._status < 300 and not log.probes:
            return
        serving = self.serving
        fields = {
            "method": method,
            "route": route,
            "status": self._status,
            "duration_ms": round((monotonic() - self._started_s) * 1_000, 1),
            "bytes": self._bytes,
            "app": serving.app,
            "player": log.players.of(serving.app, serving.player),
            "client": serving.client,
        }
        if serving.refusal:
            fields |= {"refusal": serving.refusal, "reason": serving.reason}
        if serving.code:
            fields["code"] = serving.code
        emit(_logger, f"{method} {route} {self._status}", fields, logging.INFO)


def _is_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:
        if name == b"content-type":
            return value.startswith(b"text/event-stream")
    return False
