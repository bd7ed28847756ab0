"""
One WebSocket of a stream: opened, greeted, and listened to for signs of life.

Knows how long to wait for what, and what a refusal or a farewell amounts to. Knows
nothing of cursors, nor of what follows an ending.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.http11 import Response

from .backoff import Ending, ending_of_status, parse_retry_after
from .problem import read_problem
from .wire import PING, PONG, Bye, Hello, Ping, Unreadable, decode

__all__ = [
    "HEARTBEAT_MIN_S",
    "ending_of_bye",
    "ending_of_response",
    "open_socket",
    "receive",
    "receive_hello",
]

OPEN_TIMEOUT_S: Final = 10.0
"""For TCP, TLS and the handshake."""
HELLO_TIMEOUT_S: Final = 30.0
"""Silence allowed before the greeting, which waits for the store; above a heartbeat."""
CLOSE_TIMEOUT_S: Final = 1.0
"""A farewell is a courtesy; a peer that is gone must not delay coming back."""
PING_AFTER_HEARTBEATS: Final = 1.2
"""Heartbeats without a sign of life before this side asks for one. The server speaks
once a heartbeat; asking at the same moment would only double that."""
DEAD_AFTER_HEARTBEATS: Final = 2.5
"""Heartbeats without a sign of life before the connection is given up."""
HEARTBEAT_MIN_S: Final = 0.01
"""Keeps a server that says 0 from making its clients spin."""
QUEUED_MESSAGES_MAX: Final = 16
"""Messages the WebSocket library reads ahead of this module."""
MESSAGE_BYTES_MAX: Final = 4 * 2**20
"""Above any notification a server lets through; bounds what a hostile one can cost."""


async def open_socket(url: str, token: str) -> ClientConnection:
    """
    Open a WebSocket with a token.

    Raises:
        InvalidStatus: The handshake was refused; see `ending_of_response`.
        OSError, EOFError, WebSocketException: There was no handshake.
    """
    return await connect(
        url,
        additional_headers={"Authorization": f"Bearer {token}"},
        user_agent_header="streamer-client",
        compression=None,
        open_timeout=OPEN_TIMEOUT_S,
        close_timeout=CLOSE_TIMEOUT_S,
        # The protocol has heartbeats of its own; the library answers the server's
        # ping frames all the same.
        ping_interval=None,
        max_size=MESSAGE_BYTES_MAX,
        max_queue=QUEUED_MESSAGES_MAX,
    )


async def receive_hello(socket: ClientConnection) -> Hello | Bye:
    """Return the message a stream begins with, or the refusal in its place."""
    while True:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            message = decode(await socket.recv())
        match message:
            case Hello() | Bye():
                return message
            case Ping():
                await socket.send(PONG)
            case None:
                pass  # A newer server may have something to say first.
            case _:
                raise Unreadable(f"{type(message).__name__} in front of hello")


async def receive(socket: ClientConnection, heartbeat_s: float) -> str | bytes:
    """
    Return the next message, asking for a sign of life when there is none.

    The clock runs only while this waits: time the consumer takes is not silence.

    Raises:
        TimeoutError: Nothing was heard for `DEAD_AFTER_HEARTBEATS` heartbeats.
    """
    try:
        async with asyncio.timeout(PING_AFTER_HEARTBEATS * heartbeat_s):
            return await socket.recv()
    except TimeoutError:
        pass
    async with asyncio.timeout(
        (DEAD_AFTER_HEARTBEATS - PING_AFTER_HEARTBEATS) * heartbeat_s
    ):
        await socket.send(PING)
        return await socket.recv()


def ending_of_response(response: Response) -> Ending:
    """Read a refused handshake: its status, its problem, and when to come back."""
    problem = read_problem(response.body or b"")
    reason = problem.detail or problem.title or response.reason_phrase
    retry_after = response.headers.get("Retry-After")
    return ending_of_status(
        response.status_code,
        f"{response.status_code} {reason}",
        parse_retry_after(retry_after, time.time()),
    )


def ending_of_bye(bye: Bye) -> Ending:
    delay_s = None if bye.delay_ms is None else bye.delay_ms / 1000
    return Ending(bye.code, bye.reason, delay_s)
