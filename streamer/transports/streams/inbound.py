"""
What a WebSocket client sends, from bytes to messages.

Decides what is a fault, with its close code, and how much of an unfinished message is
held. Knows the sans-I/O protocol of `websockets`, which parses frames and answers pings
and closes. Knows nothing of connections, nor of what a message says.

A parser weighs more than all the rest of a connection, and most connections say nothing
for most of the time: so there is one from the first byte of something to its last, and
none for what answers a ping.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterator
from types import GeneratorType
from typing import Any, Final

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.streams import StreamReader

from ..server.websocket_input import FRAGMENTS_MAX

__all__ = ["InboundEvent", "InboundParser", "is_pong"]

# What it logs for debugging is what clients say, their tokens included.
_parser_logger: Final = logging.getLogger(f"{__name__}.parser")
_parser_logger.setLevel(logging.WARNING)


_FIN_PONG: Final = 0x8A
_MASKED: Final = 0x80
_HEAD_BYTES: Final = 6
"""Of a short frame of a client's: two, and four of its mask."""
_SHORT_MAX: Final = 125


def is_pong(data: bytes) -> bool:
    """
    Whether `data` is one whole pong and nothing else (RFC 6455 section 5.5.3).

    That is what most of all clients send for most of the time, once per ping. A parser
    made for it and thrown away would be a fifth of what idle connections cost.
    """
    size = len(data) - _HEAD_BYTES
    return (
        0 <= size <= _SHORT_MAX and data[0] == _FIN_PONG and data[1] == _MASKED | size
    )


class InboundEvent(enum.Enum):
    """What came, and what comes with it."""

    TEXT = enum.auto()
    """A message, whole: its text."""
    BINARY = enum.auto()
    """A message nobody can read."""
    PING = enum.auto()
    """Its answer lies ready, see `InboundParser.reply`."""
    PONG = enum.auto()
    CLOSE = enum.auto()
    """Its answer lies ready. Nothing follows."""
    ERROR = enum.auto()
    """Code and reason to close with. Nothing follows."""


class InboundParser:
    """
    What has come and is not whole yet.

    Args:
        parser: Where frames are put together.
        fragments: The first ones of a message whose last is still to come.
        is_text: What kind of message that is.

    """

    __slots__ = ("_fragments", "_is_text", "_parser")

    def __init__(
        self, parser: Protocol, fragments: list[bytes], *, is_text: bool
    ) -> None:
        self._parser = parser
        self._fragments = fragments
        self._is_text = is_text

    @classmethod
    def create(cls, message_bytes_max: int) -> InboundParser:
        """Return one that has heard nothing yet."""
        parser = Protocol(
            Side.SERVER,
            state=State.OPEN,
            max_size=message_bytes_max,
            logger=_parser_logger,
        )
        return cls(parser, [], is_text=False)

    @property
    def is_idle(self) -> bool:
        """Whether everything that came is whole, so that nothing would be lost."""
        parser = self._parser
        if parser.current_size is not None:
            return False
        # Where the parser waits: in front of a frame, or somewhere within.
        generator: Any = parser.parser
        while isinstance(generator.gi_yieldfrom, GeneratorType):
            generator = generator.gi_yieldfrom
        return generator.gi_code is StreamReader.at_eof.__code__

    def feed(self, data: bytes) -> Iterator[tuple[InboundEvent, Any]]:
        """Give what `data` completes, one after the other; may be left at any time."""
        parser = self._parser
        parser.receive_data(data)
        if parser.parser_exc is not None:
            close = parser.close_sent
            assert close is not None, "websockets fails the connection before it says"
            yield InboundEvent.ERROR, (close.code, close.reason)
            return
        for frame in parser.events_received():
            assert isinstance(frame, Frame)
            event = self._on_frame(frame)
            if event is not None:
                yield event

    def reply(self) -> bytes:
        """Return the frames that answer what came."""
        return b"".join(self._parser.data_to_send())

    def close(self) -> None:
        """Let go of the parser: it and its generator hold each other."""
        self._parser.parser.close()

    def _on_frame(self, frame: Frame) -> tuple[InboundEvent, Any] | None:
        opcode = frame.opcode
        if opcode is Opcode.PING:
            return InboundEvent.PING, None
        if opcode is Opcode.PONG:
            return InboundEvent.PONG, None
        if opcode is Opcode.CLOSE:
            return InboundEvent.CLOSE, None
        if opcode is not Opcode.CONT:
            self._is_text = opcode is Opcode.TEXT
            self._fragments = []
        elif len(self._fragments) >= FRAGMENTS_MAX:
            return InboundEvent.ERROR, (CloseCode.MESSAGE_TOO_BIG, "too many fragments")
        self._fragments.append(bytes(frame.data))
        return self._on_message() if frame.fin else None

    def _on_message(self) -> tuple[InboundEvent, Any]:
        message = b"".join(self._fragments)
        self._fragments = []
        if not self._is_text:
            return InboundEvent.BINARY, None
        try:
            return InboundEvent.TEXT, message.decode()
        except UnicodeDecodeError:
            return InboundEvent.ERROR, (CloseCode.INVALID_DATA, "invalid UTF-8")
