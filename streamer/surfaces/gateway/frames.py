"""
The gateway's stream as a codec: the events of a session as the gateway's frames.

Decides which events have a frame. Knows the clock, which two of the frames show. Knows
nothing of connections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ...core.streams.codec import Hello
from ...errors import TOKEN_INVALID, Disconnect
from ...model import Entry, Gap, Log
from . import wire
from .refusals import UNAUTHORIZED

__all__ = ["GatewayCodec"]

NOTHING: Final = b""
LOST: Final = "Events were lost, read the list of notifications"


class GatewayCodec:
    """
    Events as frames for the streams of one player, whom each frame names.

    Args:
        log: The player's log.
        clock: Returns Unix time in seconds.

    """

    def __init__(self, log: Log, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock

    def hello(self, hello: Hello) -> bytes:
        return wire.encode_connected(self._now_ms())

    def entry(self, entry: Entry, tail: str | None) -> bytes:
        # A withdrawal has no frame; the list no longer shows the notification.
        return NOTHING if entry.withdraws else wire.encode_event(self._log, entry)

    def entries(self, entries: list[Entry], tail: str | None) -> list[bytes]:
        return [self.entry(entry, tail) for entry in entries]

    def ephemeral(self, notification: bytes) -> bytes:
        # Every frame names a notification that the list has, too.
        return NOTHING

    def replaced(self, entry: Entry) -> bytes:
        return NOTHING

    def cursor(self, cursor: str) -> bytes:
        return NOTHING

    def gap(self, gap: Gap, cursor: str, audience: Log | None) -> bytes:
        return wire.encode_error(LOST)

    def unread(self, unread: int) -> bytes:
        return NOTHING

    def read(self, *, marks: int, unread: int, body: bytes) -> bytes:
        return NOTHING

    def ping(self) -> bytes:
        return wire.encode_keepalive(self._now_ms())

    def bye(self, disconnect: Disconnect, delay_ms: int) -> bytes:
        if disconnect == TOKEN_INVALID:
            return wire.encode_error(UNAUTHORIZED)
        return NOTHING

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
