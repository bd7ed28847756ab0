"""
The native stream over WebSocket.

Decides the order of opening: the node's slot, the page's origin, the credential, the
player's lease, the feed, and only then the upgrade, so that a refusal is an HTTP answer
wherever there is somebody to read it. With the credential in the first message the
upgrade comes first, and a refusal is a close code; so it is for a client that asks for
its refusals in the stream, as browsers hide the status. Knows ASGI and Starlette's
WebSocket. Knows nothing of frames, nor of what a session decides.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from time import monotonic
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ..core.access import Caller
from ..core.codec import WebSocketCodec
from ..core.session import Authenticate, Command, MarkRead, Session, parse_message
from ..errors import (
    FORBIDDEN,
    PROTOCOL,
    TOKEN_INVALID,
    Defect,
    Disconnect,
    Error,
    Unauthenticated,
)
from ..model import Log
from ..service.authenticator import Credentials
from ..service.inboxes import parse_cursor
from .handle import find_handle
from .http import require_origin
from .outbox import Outbox
from .streams import (
    Opening,
    StreamParts,
    delay_ms_for,
    disconnect_for,
    tells_in_stream,
)

__all__ = ["WebSocketStream"]

FAREWELL_S: Final = 2.0
"""How long a reader may take to take its leave; then comes the axe."""


class WebSocketStream:
    """
    The endpoint, an ASGI application for scopes of type ``websocket``.

    Args:
        parts: What streams are made of.
        refuse: How the surface answers what is refused before the upgrade.

    """

    def __init__(
        self, parts: StreamParts, *, refuse: Callable[[Error], Response]
    ) -> None:
        self._parts = parts
        self._refuse = refuse
        self._codec = WebSocketCodec()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        connection = _Connection(self._parts, self._codec, websocket)
        # The client may be gone at any time; there is nothing left to do then.
        with contextlib.suppress(WebSocketDisconnect):
            try:
                with self._parts.listening.admit():
                    await connection.serve()
            except Error as error:
                if connection.tells(error):
                    await connection.turn_away(error)
                else:
                    await websocket.send_denial_response(self._refuse(error))


class _Connection:
    """One WebSocket, from handshake to close."""

    def __init__(
        self, parts: StreamParts, codec: WebSocketCodec, websocket: WebSocket
    ) -> None:
        self._parts = parts
        self._codec = codec
        self._websocket = websocket
        self._outbox = Outbox(find_handle(websocket.scope))

    async def serve(self) -> None:
        """Serve the connection. Raises Error where it is refused before the upgrade."""
        websocket = self._websocket
        try:
            opening = Opening.parse(websocket.query_params, websocket.headers)
            async with AsyncExitStack() as stack:
                caller = await self._authenticate(opening, stack)
                await self._open(caller, opening)
        except Error as error:
            if not self.tells(error):
                raise
            await self.turn_away(error)

    def tells(self, error: Error) -> bool:
        """Whether a refusal is a close code, and not the answer to the handshake."""
        if self._websocket.application_state is not WebSocketState.CONNECTING:
            return True
        return tells_in_stream(self._websocket.query_params, error)

    async def _open(self, caller: Caller, opening: Opening) -> None:
        log, session = self._parts.session(
            caller, opening, codec=self._codec, sink=self._outbox
        )
        async with self._parts.listening.listen(
            log, session, caller=caller, instance=opening.instance
        ):
            await self._accept()
            await self._run(session, caller)

    async def _authenticate(self, opening: Opening, stack: AsyncExitStack) -> Caller:
        headers = self._websocket.headers
        try:
            credentials = Credentials.from_headers(headers.raw)
        except Unauthenticated as error:
            if error.defect is not Defect.MISSING:
                raise
            credentials = None
        require_origin(
            headers,
            self._parts.allowed_origins,
            from_cookie=credentials is not None and credentials.from_cookie,
        )
        if opening.ticket:
            return await self._parts.by_ticket(opening, headers, stack)
        if credentials is None:
            credentials = await self._first_message()
        return await self._parts.authenticator.caller(credentials)

    async def _first_message(self) -> Credentials:
        await self._accept()
        try:
            async with asyncio.timeout(self._parts.auth_timeout_s):
                text = await self._receive()
        except TimeoutError:
            raise Unauthenticated(Defect.MISSING) from None
        message = None if text is None else parse_message(text)
        if not isinstance(message, Authenticate):
            raise Unauthenticated(Defect.MISSING)
        return Credentials.from_token(message.token)

    async def _accept(self) -> None:
        if self._websocket.application_state is WebSocketState.CONNECTING:
            await self._websocket.accept()

    async def _run(self, session: Session, caller: Caller) -> None:
        """Carry events out and messages in until one of the two ends."""
        pumping = self._outbox.pump(self._send)
        reading = asyncio.create_task(self._read(session, caller), name="reading")
        try:
            await asyncio.wait((pumping, reading), return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            pumping.cancel()
            ends = await asyncio.gather(reading, pumping, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        if self._outbox.closing is not None:
            await self._close(self._outbox.closing)

    async def _read(self, session: Session, caller: Caller) -> None:
        while True:
            text = await self._receive()
            if text is None:
                session.end(PROTOCOL)
            elif command := session.receive(text, monotonic()):
                caller = await self._carry_out(session, caller, command)

    async def _carry_out(
        self, session: Session, caller: Caller, command: Command
    ) -> Caller:
        """Do what the client asks; return who it is from here on."""
        if isinstance(command, Authenticate):
            return await self._renew(session, caller, command)
        # Somebody has looked at it.
        log = Log(caller.app, caller.require_me())
        await self._parts.listening.used(log, session)
        try:
            session.reply(command.ref, await self._mark(caller, command))
        except Error as error:
            session.fail(command.ref, str(error))
        return caller

    async def _mark(self, caller: Caller, command: MarkRead) -> int:
        inboxes, player = self._parts.inboxes, caller.require_me()
        if command.ids is not None:
            marked = await inboxes.mark_ids(caller, player, command.ids)
        elif command.up_to is not None:
            position = parse_cursor(command.up_to, "up_to")
            marked = await inboxes.mark_up_to(caller, player, position)
        else:
            marked = await inboxes.mark_all(caller, player)
        return marked.unread

    async def _renew(
        self, session: Session, caller: Caller, command: Authenticate
    ) -> Caller:
        try:
            credentials = Credentials.from_token(command.token)
            fresh = await self._parts.authenticator.caller(credentials)
        except Unauthenticated:
            session.end(TOKEN_INVALID)
            return caller
        except Error:
            # The old token still counts, and the client will come again.
            return caller
        player = caller.require_me()
        same = (fresh.app, fresh.player) == (caller.app, player)
        if not same or not fresh.may_listen(player):
            session.end(FORBIDDEN)
            return caller
        session.renew(fresh.expires_at_s)
        self._parts.listening.renew(session, fresh)
        return fresh

    async def _send(self, events: list[bytes]) -> None:
        for event in events:
            await self._websocket.send_text(event.decode())

    async def _receive(self) -> str | None:
        """Return the next text message, or None for a binary one."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text: str | None = message.get("text")
        return text

    async def turn_away(self, error: Error) -> None:
        """Say in the stream that there is none, and when to come back."""
        disconnect = disconnect_for(error)
        bye = self._codec.bye(disconnect, delay_ms_for(error))
        await self._accept()
        with contextlib.suppress(WebSocketDisconnect):
            await self._websocket.send_text(bye.decode())
        await self._close(disconnect)

    async def _close(self, disconnect: Disconnect) -> None:
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self._websocket.close(disconnect.code, disconnect.reason)
        except TimeoutError:
            self._outbox.cut_off()
        except (WebSocketDisconnect, RuntimeError):
            # Gone in the meantime. Starlette says it either way.
            pass
