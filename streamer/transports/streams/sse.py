"""
Streams over Server-Sent Events: the native one, and those of other surfaces.

Decides the order of opening, which is the WebSocket's, and the shape of the response.
Knows ASGI. Knows nothing of event blocks, nor of what a session decides, nor of what
another surface asks of who wants a stream: that comes as an `Asked`.

This coroutine ends as soon as the answer has begun: the server lets go of the
connection, and the stream goes on as an `EventStream`. A server that cannot do so is
answered with 501.

A client that asks for it gets its refusals as a stream of one event, because an
EventSource that is answered with anything but 200 stops for ever, and tells nobody why.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...core.access.rights import Caller
from ...core.streams.codec import Codec, SseCodec
from ...core.streams.session import Sink
from ...errors import Error
from ...service.access.authenticator import Credentials
from ...service.streams.admission import Connection
from ..server.handle import Handle, find_handle
from ..web.requests import require_origin, until_gone
from .detached import BatchWriter, EventStream
from .framing import chunk, unframed
from .opening import (
    FINAL_RETRY_MS,
    Opening,
    StreamComponents,
    delay_ms_for,
    disconnect_for,
    tells_in_stream,
    unsupported_server,
)

__all__ = ["Asked", "SseStream"]

RETRY_MS: Final = (1_000, 3_000)
"""When EventSource comes back after a drop; at random, so that a crowd spreads out."""

_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # nginx would hold events back until its buffer is full.
    (b"x-accel-buffering", b"no"),
    # EventSource would come back on the same connection, to the very node that has sent
    # it away, and gives up for good at the first answer that is not 200.
    (b"connection", b"close"),
]
_START: Final = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
_END: Final = {"type": "http.response.body", "body": b""}


class Asked(NamedTuple):
    """
    What a request for a stream comes to: who asks, for what, in whose words.

    `preamble` goes ahead of every event, if there is one.
    """

    caller: Caller
    opening: Opening
    codec: Codec
    preamble: bytes = b""


class SseStream:
    """
    The endpoint, an ASGI application for scopes of type ``http``.

    Args:
        parts: What streams are made of.
        refuse: How the surface answers what is refused.
        ask: Finds out who asks, and for what; raises what is wrong with it. Without it
            this is the native stream, with tickets and refusals in the stream.

    """

    def __init__(
        self,
        parts: StreamComponents,
        *,
        refuse: Callable[[Error], Response],
        ask: Callable[[Request], Awaitable[Asked]] | None = None,
    ) -> None:
        self._parts = parts
        self._refuse = refuse
        self._ask = ask
        self._codec = SseCodec()
        self._chunks = BatchWriter(chunk)
        self._bare = BatchWriter(unframed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handle = find_handle(scope)
        if handle is None:
            await unsupported_server()(scope, receive, send)
            return
        try:
            with self._parts.admission.admit() as listener:
                await self._serve(handle, listener, scope, receive, send)
        except Error as error:
            # Whoever comes again at once shall find its ticket as it was.
            await self._parts.tickets.wait_closed()
            query = Request(scope).query_params
            if self._ask is None and tells_in_stream(query, error):
                await self._turn_away(error, send)
            else:
                await self._refuse(error)(scope, receive, send)

    async def _serve(
        self,
        handle: Handle,
        listener: Connection,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Begin the answer, and leave what follows to the connection."""
        if handle.drop_if_gone():
            await until_gone(receive)
            return
        request = Request(scope)
        if self._ask is not None:
            asked = await self._ask(request)
        else:
            asked = await self._ask_native(request, listener)
        chunked = scope["http_version"] == "1.1"
        batch_writer = self._chunks if chunked else self._bare
        stream = EventStream(
            listener, batch_writer, preamble=asked.preamble, chunked=chunked
        )
        join = partial(self._join, listener, asked, stream)
        if not await self._parts.join_in_turn(handle, join):
            await until_gone(receive)
            return
        if request.method == "HEAD":
            # The head that a GET would have now; what it has joined is left again.
            await send(_START)
            await send(_END)
            return
        await stream.begun()
        if not chunked:
            handle.leave_unframed()
        await send(_START)
        if not handle.hand_over(stream):
            await send(_END)

    async def _ask_native(self, request: Request, listener: Connection) -> Asked:
        opening = Opening.parse(request)
        if opening.ticket:
            caller = await self._parts.by_ticket(opening, request.headers, listener)
        else:
            caller = await self._authenticate(request)
        retry = self._codec.retry(random.randint(*RETRY_MS))
        return Asked(caller, opening, self._codec, retry)

    async def _authenticate(self, request: Request) -> Caller:
        credentials = Credentials.from_headers(request.headers.raw)
        if credentials.from_cookie and "origin" in request.headers:
            # EventSource sends no Origin to its own host.
            require_origin(
                request.headers, self._parts.allowed_origins, from_cookie=True
            )
        return await self._parts.authenticator.caller(credentials)

    async def _join(self, listener: Connection, asked: Asked, sink: Sink) -> None:
        caller, opening, codec, _ = asked
        log, session = self._parts.session(caller, opening, codec=codec, sink=sink)
        await listener.join(log, session, caller=caller, instance=opening.instance)

    async def _turn_away(self, error: Error, send: Send) -> None:
        """Say in a stream that there is none, and when to come back."""
        disconnect, delay_ms = disconnect_for(error), delay_ms_for(error)
        events = self._codec.bye(disconnect, delay_ms)
        if not delay_ms:
            events = self._codec.retry(random.randint(*FINAL_RETRY_MS)) + events
        await send(_START)
        await send({"type": "http.response.body", "body": events})
