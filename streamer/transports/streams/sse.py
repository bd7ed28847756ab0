"""
Streams over Server-Sent Events, of the native surface and of others.

Opens a stream in the same order as the WebSocket, and decides the head of the response.
Knows ASGI. Knows nothing of the format of events, nor of what a session decides. A
surface other than the native one parses its requests itself, into a `StreamRequest`.

The endpoint returns as soon as the response has begun: the connection is handed over to
an `EventStream`. On a server that cannot hand it over, the response is 501.

A client can ask for refusals within the stream, as its only event: an EventSource that
gets any status but 200 stops for good, and the page cannot see the status.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ...core.access.rights import Caller
from ...core.streams.codec import Codec, SseCodec
from ...core.streams.session import Sink
from ...errors import Error
from ...service.node.request_context import note_code, note_refusal
from ...service.streams.admission import Connection
from ..server.handle import Handle, find_handle
from ..web.callers import credentials_of
from ..web.requests import require_origin, until_disconnect
from .detached import BatchWriter, EventStream
from .framing import chunk, unframed
from .opening import (
    FINAL_RETRY_MS,
    Opening,
    StreamComponents,
    disconnect_for,
    has_lost_upgrade,
    reconnect_delay_ms,
    refuses_in_stream,
    unsupported_server,
    upgrade_required,
)

__all__ = ["SseStream", "StreamRequest"]

RETRY_MS: Final = (1_000, 3_000)
"""
After how long EventSource reconnects; random, to spread the clients of a node.
"""

_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    # Otherwise Node's `compression`, which development servers have, keeps events until
    # its buffer is full.
    (b"cache-control", b"no-store, no-transform"),
    # Otherwise nginx delays events until its buffer is full.
    (b"x-accel-buffering", b"no"),
    # Otherwise EventSource reconnects on the same connection, to the node that has just
    # closed the stream, and stops for good at the first status that is not 200.
    (b"connection", b"close"),
]
_END: Final = {"type": "http.response.body", "body": b""}


class StreamRequest(NamedTuple):
    """
    A parsed request for a stream: the caller, the parameters, and the surface's codec.

    `preamble` begins the first event, if not empty.
    """

    caller: Caller
    opening: Opening
    codec: Codec
    preamble: bytes = b""


class SseStream:
    """
    The endpoint, an ASGI application for scopes of type ``http``.

    Args:
        components: The services that streams use.
        refuse: Returns the surface's response to an error.
        parse: Authenticates and parses a request; raises an `Error` to refuse it.
            Without it this is the native stream, with tickets and with refusals within
            the stream.

    """

    def __init__(
        self,
        components: StreamComponents,
        *,
        refuse: Callable[[Error], Response],
        parse: Callable[[Request], Awaitable[StreamRequest]] | None = None,
    ) -> None:
        self._components = components
        self._refuse = refuse
        self._parse = parse
        self._codec = SseCodec()
        self._chunks = BatchWriter(chunk)
        self._unframed = BatchWriter(unframed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handle = find_handle(scope)
        if handle is None:
            await unsupported_server()(scope, receive, send)
            return
        if self._parse is None and has_lost_upgrade(HTTPConnection(scope)):
            await upgrade_required()(scope, receive, send)
            return
        try:
            with self._components.admission.admit() as connection:
                await self._serve(handle, connection, scope, receive, send)
        except Error as error:
            note_refusal(error, "sse")
            # A client that retries at once has to find its ticket usable again.
            await self._components.tickets.wait_closed()
            query = Request(scope).query_params
            if self._parse is None and refuses_in_stream(query, error):
                await self._refuse_in_stream(error, send)
            else:
                await self._refuse(error)(scope, receive, send)

    async def _serve(
        self,
        handle: Handle,
        connection: Connection,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Join, begin the response, and hand the connection over."""
        if handle.abort_if_gone():
            await until_disconnect(receive)
            return
        request = Request(scope)
        if self._parse is not None:
            stream_request = await self._parse(request)
        else:
            stream_request = await self._parse_native(request, connection)
        chunked = scope["http_version"] == "1.1"
        batch_writer = self._chunks if chunked else self._unframed
        stream = EventStream(
            connection, batch_writer, preamble=stream_request.preamble, chunked=chunked
        )
        join = partial(self._join, connection, stream_request, stream)
        if not await self._components.join_queued(handle, join):
            await until_disconnect(receive)
            return
        if request.method == "HEAD":
            # The same head as for GET. The stream leaves when this returns.
            await send(_start())
            await send(_END)
            return
        await stream.first_write()
        if not chunked:
            handle.disable_chunking()
        await send(_start())
        if not handle.hand_over(stream):
            await send(_END)

    async def _parse_native(
        self, request: Request, connection: Connection
    ) -> StreamRequest:
        opening = Opening.parse(request)
        if opening.ticket:
            caller = await self._components.redeem_ticket(
                opening, request.headers, connection
            )
        else:
            caller = await self._authenticate(request)
        retry = self._codec.retry(random.randint(*RETRY_MS))
        return StreamRequest(caller, opening, self._codec, retry)

    async def _authenticate(self, request: Request) -> Caller:
        credentials = credentials_of(request)
        if credentials.from_cookie and "origin" in request.headers:
            # EventSource sends no Origin to its own origin.
            require_origin(request, self._components.allowed_origins)
        return await self._components.authenticator.caller(credentials)

    async def _join(
        self, connection: Connection, stream_request: StreamRequest, sink: Sink
    ) -> None:
        caller, opening, codec, _ = stream_request
        log, session = self._components.session(caller, opening, codec=codec, sink=sink)
        await connection.join(log, session, caller=caller, instance=opening.instance)

    async def _refuse_in_stream(self, error: Error, send: Send) -> None:
        """Respond with a stream that has the refusal, and the delay, as its end."""
        disconnect, delay_ms = disconnect_for(error), reconnect_delay_ms(error)
        note_code(disconnect.code)
        events = self._codec.bye(disconnect, delay_ms)
        if not delay_ms:
            events = self._codec.retry(random.randint(*FINAL_RETRY_MS)) + events
        await send(_start())
        await send({"type": "http.response.body", "body": events})


def _start() -> Message:
    # A new one each time: middleware changes it.
    return {"type": "http.response.start", "status": 200, "headers": _HEADERS}
