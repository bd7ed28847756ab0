"""
One WebSocket of a stream: opening, greeting, heartbeats.

Knows the timeouts, and which ending a refusal or a ``bye`` is. Knows nothing of
cursors, nor of what happens after the ending.
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
"""Silence allowed before ``hello``, which waits for the store; above a heartbeat."""
CLOSE_TIMEOUT_S: Final = 1.0
"""A peer that is gone must not delay the next connection."""
PING_AFTER_HEARTBEATS: Final = 1.2
"""Heartbeats without a message before the client sends a ping. The server sends one per
heartbeat; at the same moment the client's would be superfluous."""
DEAD_AFTER_HEARTBEATS: Final = 2.5
"""Heartbeats without a message before the client drops the connection."""
HEARTBEAT_MIN_S: Final = 0.01
"""Keeps a server with a heartbeat of 0 from making its clients spin."""
QUEUED_MESSAGES_MAX: Final = 16
"""Messages that the WebSocket library reads ahead of this module."""
MESSAGE_BYTES_MAX: Final = 4 * 2**20
"""Above any notification of a server; limits the memory a hostile one can use."""


async def open_socket(url: str, token: str) -> ClientConnection:
    """
    Open a WebSocket with a token.

    Raises:
        InvalidStatus: The server refused the handshake; see `ending_of_response`.
        OSError, EOFError, WebSocketException: The connection failed.
    """
    return await connect(
        url,
        additional_headers={"Authorization": f"Bearer {token}"},
        user_agent_header="streamer-client",
        compression=None,
        open_timeout=OPEN_TIMEOUT_S,
        close_timeout=CLOSE_TIMEOUT_S,
        # The protocol has its own heartbeats. The library still answers the ping
        # frames of the server.
        ping_interval=None,
        max_size=MESSAGE_BYTES_MAX,
        max_queue=QUEUED_MESSAGES_MAX,
    )


async def receive_hello(socket: ClientConnection) -> Hello | Bye:
    """
    Return the first message of a stream, or the refusal instead of it.

    Raises:
        TimeoutError: There was no message for `HELLO_TIMEOUT_S`.
        Unreadable: Another message came first.
    """
    while True:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            message = decode(await socket.recv())
        match message:
            case Hello() | Bye():
                return message
            case Ping():
                await socket.send(PONG)
            case None:
                pass  # A message of a newer server.
            case _:
                raise Unreadable(f"{type(message).__name__} before hello")


async def receive(socket: ClientConnection, heartbeat_s: float) -> str | bytes:
    """
    Return the next message; send a ping if it does not come in time.

    The clock runs only during this call: time that the consumer needs is not silence.

    Raises:
        TimeoutError: No message arrived for `DEAD_AFTER_HEARTBEATS` heartbeats.
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
    """Return the ending that a refused handshake is, with its `Retry-After`."""
    problem = read_problem(response.body or b"")
    reason = problem.detail or problem.title or response.reason_phrase
    retry_after = response.headers.get("Retry-After")
    return ending_of_status(
        response.status_code,
        f"{response.status_code} {reason}",
        parse_retry_after(retry_after, time.time()),
        problem.detail,
    )


def ending_of_bye(bye: Bye) -> Ending:
    delay_s = None if bye.delay_ms is None else bye.delay_ms / 1000
    return Ending(bye.code, bye.reason, delay_s)
