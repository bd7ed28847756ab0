"""
The native stream over Server-Sent Events.

Decides the order of opening, which is the WebSocket's, and the shape of the response.
Knows ASGI. Knows nothing of event blocks, nor of what a session decides.

The response is written to `send` by this coroutine, not handed to a streaming response:
a generator that is never started because its client is already gone would never give
back what its endpoint has taken.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..core.codec import SseCodec
from ..errors import Error
from ..service.authenticator import Credentials
from .handle import find_handle
from .http import require_origin
from .outbox import Outbox
from .streams import Opening, StreamParts

__all__ = ["SseStream"]

RETRY_MS: Final = (1_000, 3_000)
"""When EventSource comes back after a drop; at random, so that a crowd spreads out."""

FAREWELL_S: Final = 2.0

_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # nginx would hold events back until its buffer is full.
    (b"x-accel-buffering", b"no"),
]


class SseStream:
    """
    The endpoint, an ASGI application for scopes of type ``http``.

    Args:
        parts: What streams are made of.
        refuse: How the surface answers what is refused.

    """

    def __init__(
        self, parts: StreamParts, *, refuse: Callable[[Error], Response]
    ) -> None:
        self._parts = parts
        self._refuse = refuse
        self._codec = SseCodec()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._parts.listening.admit():
                await self._serve(scope, receive, send)
        except Error as error:
            await self._refuse(error)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        opening = Opening.parse(request.query_params, request.headers)
        credentials = Credentials.from_headers(request.headers.raw)
        if credentials.from_cookie and "origin" in request.headers:
            # EventSource sends no Origin to its own host.
            require_origin(
                request.headers, self._parts.allowed_origins, from_cookie=True
            )
        caller = await self._parts.authenticator.caller(credentials)
        outbox = Outbox(find_handle(scope))
        log, session = self._parts.session(
            caller, opening, codec=self._codec, sink=outbox
        )
        async with self._parts.listening.listen(
            log, session, instance=opening.instance
        ):
            await send(
                {"type": "http.response.start", "status": 200, "headers": _HEADERS}
            )
            if request.method == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            await self._run(outbox, receive, send)

    async def _run(self, outbox: Outbox, receive: Receive, send: Send) -> None:
        """Carry events out until the stream ends or its client is gone."""

        async def send_events(events: list[bytes]) -> None:
            body = b"".join(events)
            await send({"type": "http.response.body", "body": body, "more_body": True})

        retry_ms = random.randint(*RETRY_MS)
        # Ahead of whatever the session has already said.
        await send_events([self._codec.retry(retry_ms)])
        pumping = outbox.pump(send_events)
        leaving = asyncio.create_task(_until_gone(receive), name="leaving")
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
            await self._finish(outbox, send)

    async def _finish(self, outbox: Outbox, send: Send) -> None:
        try:
            async with asyncio.timeout(FAREWELL_S):
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            outbox.cut_off()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
