"""
The native stream over WebSocket.

Decides the order of opening: the node's slot, the page's origin, the credential, the
player's lease, the subscriptions, and only then the upgrade, so that a refusal is an
HTTP response. If the credential comes in the first message, the upgrade comes first and
a refusal is a close code. The same holds if the client asks for refusals within the
stream, since browsers hide the status. Knows ASGI and Starlette's WebSocket. Knows
nothing of frames, nor of what a session decides.

The endpoint returns after the upgrade: the connection is handed over to a
`DetachedWebSocket`. On a server that cannot hand it over, the response is 501.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ...core.access.rights import Caller
from ...core.streams.client_messages import Authenticate, parse_message
from ...core.streams.codec import WebSocketCodec
from ...errors import Defect, Disconnect, Error, Unauthenticated
from ...service.access.authenticator import Credentials
from ...service.node.fast_log import emit
from ...service.node.request_context import (
    current_request,
    note_code,
    note_refusal,
)
from ...service.streams.admission import Connection
from ..server.handle import Handle, find_handle
from ..web.callers import credentials_of
from ..web.requests import require_origin
from .commands import Commands
from .detached import CLOSE_TIMEOUT_S
from .detached_websocket import DetachedWebSocket, websocket_batch_writer
from .opening import (
    UNSUPPORTED_SERVER,
    Opening,
    StreamComponents,
    disconnect_for,
    reconnect_delay_ms,
    refuses_in_stream,
    unsupported_server,
)

__all__ = ["WebSocketStream"]

INTERNAL_ERROR: Final = 1011

_logger = logging.getLogger(__name__)


class WebSocketStream:
    """
    The endpoint, an ASGI application for scopes of type ``websocket``.

    Args:
        components: The services that streams use.
        refuse: Returns the surface's response to an error before the upgrade.

    """

    def __init__(
        self, components: StreamComponents, *, refuse: Callable[[Error], Response]
    ) -> None:
        self._components = components
        self._refuse = refuse
        self._codec = WebSocketCodec()
        self._batch_writer = websocket_batch_writer()
        self._commands = Commands(components)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        handle = find_handle(scope)
        if handle is None:
            await _refuse_unsupported(websocket)
            return
        # The client may disconnect at any time; nothing is left to do then.
        with contextlib.suppress(WebSocketDisconnect):
            try:
                with self._components.admission.admit() as connection:
                    await self._serve(handle, websocket, connection)
            except Error as error:
                note_refusal(error, "websocket")
                # A client that retries at once has to find its ticket usable again.
                await self._components.tickets.wait_closed()
                if _refuses_in_stream(websocket, error):
                    await self._refuse_in_stream(websocket, handle, error)
                else:
                    await websocket.send_denial_response(self._refuse(error))

    async def _serve(
        self, handle: Handle, websocket: WebSocket, connection: Connection
    ) -> None:
        if handle.abort_if_gone():
            await _until_disconnect(websocket)
            return
        opening = Opening.parse(websocket)
        caller = await self._authenticate(websocket, opening, connection)
        stream = DetachedWebSocket(connection, self._batch_writer, self._commands)

        async def join() -> None:
            log, session = self._components.session(
                caller, opening, codec=self._codec, sink=stream
            )
            await connection.join(
                log, session, caller=caller, instance=opening.instance
            )
            stream.session = session

        if not await self._components.join_queued(handle, join):
            await _until_disconnect(websocket)
            return
        await stream.first_write()
        await _accept(websocket)
        # If the client is gone, the connection leaves when this returns.
        handle.hand_over(stream)

    async def _authenticate(
        self, websocket: WebSocket, opening: Opening, connection: Connection
    ) -> Caller:
        credentials = None if opening.ticket else _credentials_of(websocket)
        if credentials is not None and credentials.from_cookie:
            # Other credentials are the page's own, which no other page can send.
            require_origin(websocket, self._components.allowed_origins)
        if opening.ticket:
            return await self._components.redeem_ticket(
                opening, websocket.headers, connection
            )
        if credentials is None:
            credentials = await self._first_message(websocket)
        return await self._components.authenticator.caller(credentials)

    async def _first_message(self, websocket: WebSocket) -> Credentials:
        await _accept(websocket)
        try:
            async with asyncio.timeout(self._components.auth_timeout_s):
                text = await _receive(websocket)
        except TimeoutError:
            raise Unauthenticated(Defect.MISSING) from None
        message = None if text is None else parse_message(text)
        if not isinstance(message, Authenticate):
            raise Unauthenticated(Defect.MISSING)
        return Credentials.from_token(message.token)

    async def _refuse_in_stream(
        self, websocket: WebSocket, handle: Handle, error: Error
    ) -> None:
        """Send the refusal, and the delay, in the stream, and close it."""
        disconnect = disconnect_for(error)
        note_code(disconnect.code)
        bye = self._codec.bye(disconnect, reconnect_delay_ms(error))
        is_late = websocket.application_state is not WebSocketState.CONNECTING
        if is_late and (context := current_request.get()):
            # The line of the request was written when the WebSocket was accepted.
            fields = {
                "transport": "websocket",
                "code": disconnect.code,
                "refusal": context.refusal,
                "reason": context.reason,
                "client": context.client,
                "request_id": context.id,
            }
            emit(_logger, f"stream refused: {disconnect.reason}", fields, logging.INFO)
        await _accept(websocket)
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.send_text(bye.decode())
        await _close(websocket, handle, disconnect)


def _credentials_of(websocket: WebSocket) -> Credentials | None:
    """
    Return the credential of a handshake; None if the first message will have it.

    A cookie that is not in our form belongs to another application of the site. One in
    the URL does not count, and a client that sends it there sends no first message.
    """
    try:
        return credentials_of(websocket)
    except Unauthenticated as error:
        if error.detail:
            raise
        headers = [it for it in websocket.headers.raw if it[0] != b"cookie"]
        try:
            return Credentials.from_headers(headers)
        except Unauthenticated as other:
            if other.defect is Defect.MISSING:
                return None
            raise


async def _refuse_unsupported(websocket: WebSocket) -> None:
    """Refuse a server without the extension, with a status if it can send one."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(unsupported_server())
    else:
        await websocket.accept()
        await websocket.close(INTERNAL_ERROR, UNSUPPORTED_SERVER)


def _refuses_in_stream(websocket: WebSocket, error: Error) -> bool:
    """Whether a refusal is a close code, and not the response to the handshake."""
    if websocket.application_state is not WebSocketState.CONNECTING:
        return True
    return refuses_in_stream(websocket.query_params, error)


async def _until_disconnect(websocket: WebSocket) -> None:
    """Wait until the client has disconnected."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


async def _accept(websocket: WebSocket) -> None:
    if websocket.application_state is WebSocketState.CONNECTING:
        await websocket.accept()


async def _receive(websocket: WebSocket) -> str | None:
    """Return the next text message, or None for a binary one."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text: str | None = message.get("text")
    return text


async def _close(websocket: WebSocket, handle: Handle, disconnect: Disconnect) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await websocket.close(disconnect.code, disconnect.reason)
    except TimeoutError:
        # The client does not read.
        handle.abort()
    except (WebSocketDisconnect, RuntimeError):
        # The client has disconnected; Starlette raises either.
        pass
