"""
What the client does on an open connection: wait for the greeting, keep heartbeats.

Knows the timeouts, and which ending a ``bye`` is. Knows nothing of cursors, nor of what
happens after the ending.
"""

from __future__ import annotations

from typing import Final

from .backoff import Clock, Ending
from .links import Link
from .wire import PING, PONG, Bye, Hello, Message, Ping, Unreadable

__all__ = ["HEARTBEAT_MIN_S", "ending_of_bye", "receive", "receive_hello"]

HELLO_TIMEOUT_S: Final = 30.0
"""Silence allowed before ``hello``, which waits for the store; above a heartbeat."""
PING_AFTER_HEARTBEATS: Final = 1.2
"""Heartbeats without a message before the client sends a ping. The server sends one per
heartbeat; at the same moment the client's would be superfluous."""
DEAD_AFTER_HEARTBEATS: Final = 2.5
"""Heartbeats without a message before the client drops the connection."""
HEARTBEAT_MIN_S: Final = 0.01
"""Keeps a server with a heartbeat of 0 from making its clients spin."""


async def receive_hello(link: Link, clock: Clock) -> Hello | Bye:
    """
    Return the first message of a stream, or the refusal instead of it.

    Raises:
        TimeoutError: There was no message for `HELLO_TIMEOUT_S`.
        Unreadable: Another message came first.
    """
    while True:
        async with clock.timeout(HELLO_TIMEOUT_S):
            message, _ = await link.receive()
        match message:
            case Hello() | Bye():
                return message
            case Ping():
                await send_pong(link)
            case None:
                pass  # A message of a newer server.
            case _:
                raise Unreadable(f"{type(message).__name__} before hello")


async def receive(
    link: Link, heartbeat_s: float, clock: Clock
) -> tuple[Message | None, int]:
    """
    Return the next message and its size; send a ping if it does not come in time.

    The clock runs only during this call: time that the consumer needs is not silence.

    Raises:
        TimeoutError: No message arrived for `DEAD_AFTER_HEARTBEATS` heartbeats.
    """
    if not link.has_heartbeat:
        return await link.receive()
    if not link.can_send:
        async with clock.timeout(DEAD_AFTER_HEARTBEATS * heartbeat_s):
            return await link.receive()
    try:
        async with clock.timeout(PING_AFTER_HEARTBEATS * heartbeat_s):
            return await link.receive()
    except TimeoutError:
        pass
    async with clock.timeout(
        (DEAD_AFTER_HEARTBEATS - PING_AFTER_HEARTBEATS) * heartbeat_s
    ):
        await link.send(PING)
        return await link.receive()


async def send_pong(link: Link) -> None:
    """Answer a ping, where the transport has answers."""
    if link.can_send:
        await link.send(PONG)


def ending_of_bye(bye: Bye) -> Ending:
    delay_s = None if bye.delay_ms is None else bye.delay_ms / 1000
    return Ending(bye.code, bye.reason, delay_s)
