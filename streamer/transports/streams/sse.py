"""
Streams over Server-Sent Events: the native one, and those of other surfaces.

Decides the order of opening, which is the WebSocket's, and the shape of the response.
Knows ASGI. Knows nothing of event blocks, nor of what a session decides, nor of what
another surface asks of who wants a stream: that comes as an `Asked`.

Where the server can let go of a connection, this coroutine ends as soon as the answer
has begun, and the stream is an `EventStream`. Elsewhere it writes the answer to `send`
itself and does not hand it to a streaming response: a generator that is never started
because its client is already gone would never give back what its endpoint has taken.

A client that asks for it gets its refusals as a stream of one event, because an
EventSource that is answered with anything but 200 stops for ever, and tells nobody why.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from .detached import FAREWELL_S, BatchWriter, EventStream
from .framing import chunk, unframed
from .opening import (
    FINAL_RETRY_MS,
    Opening,
    StreamComponents,
    delay_ms_for,
    disconnect_for,
    tells_in_stream,
)
from .outbox import Outbox

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
        try:
            with self._parts.admission.admit() as listener:
                await self._serve(listener, scope, receive, send)
        except Error as error:
            # Whoever comes again at once shall find its ticket as it was.
            await self._parts.tickets.wait_closed()
            query = Request(scope).query_params
            if self._ask is None and tells_in_stream(query, error):
                await self._turn_away(error, send)
            else:
                await self._refuse(error)(scope, receive, send)

    async def _serve(
        self, listener: Connection, scope: Scope, receive: Receive, send: Send
    ) -> None:
        request = Request(scope)
        handle = find_handle(scope)
        if handle is not None and handle.drop_if_gone():
            await until_gone(receive)
            return
        if self._ask is not None:
            asked = await self._ask(request)
        else:
            asked = await self._ask_native(request, listener)
        if request.method == "HEAD":
            await self._join(listener, asked, Outbox())
            await send(_START)
            await send({"type": "http.response.body", "body": b""})
        elif handle is None:
            outbox = Outbox(listener.due_sooner)
            await self._join(listener, asked, outbox)
            await send(_START)
            await self._run(outbox, asked.preamble, receive, send)
        else:
            version = scope["http_version"]
            await self._detach(handle, listener, asked, version, receive, send)

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

    async def _detach(
        self,
        handle: Handle,
        listener: Connection,
        asked: Asked,
        http_version: str,
        receive: Receive,
        send: Send,
    ) -> None:
        """Begin the answer here, and leave what follows to the connection."""
        chunked = http_version == "1.1"
        batch_writer = self._chunks if chunked else self._bare
        stream = EventStream(
            listener, batch_writer, preamble=asked.preamble, chunked=chunked
        )
        join = partial(self._join, listener, asked, stream)
        if not await self._parts.join_in_turn(handle, join):
            await until_gone(receive)
            return
        await stream.begun()
        if not chunked:
            handle.leave_unframed()
        await send(_START)
        if not handle.hand_over(stream):
            await send({"type": "http.response.body", "body": b""})

    async def _turn_away(self, error: Error, send: Send) -> None:
        """Say in a stream that there is none, and when to come back."""
        disconnect, delay_ms = disconnect_for(error), delay_ms_for(error)
        events = self._codec.bye(disconnect, delay_ms)
        if not delay_ms:
            events = self._codec.retry(random.randint(*FINAL_RETRY_MS)) + events
        await send(_START)
        await send({"type": "http.response.body", "body": events})

    async def _run(
        self, outbox: Outbox, preamble: bytes, receive: Receive, send: Send
    ) -> None:
        """Carry events out until the stream ends or its client is gone."""

        async def send_events(events: list[bytes]) -> None:
            body = b"".join(events)
            await send({"type": "http.response.body", "body": body, "more_body": True})

        # Ahead of whatever the session has already said.
        if preamble:
            await send_events([preamble])
        pumping = outbox.pump(send_events)
        leaving = asyncio.create_task(until_gone(receive), name="leaving")
        try:
            await asyncio.wait((pumping, leaving), return_when=asyncio.FIRST_COMPLETED)
            gone = leaving.done()
        finally:
            pumping.cancel()
            leaving.cancel()
            ends = await asyncio.gather(pumping, leaving, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        if not gone:
            # Nothing can be done about one that does not take its farewell.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await send({"type": "http.response.body", "body": b""})
