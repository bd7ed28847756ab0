"""
A WebSocket client's input, from bytes to messages.

Detects protocol errors, with their close codes, and bounds what is held of an
incomplete message. Knows the sans-I/O protocol of `websockets`, which parses frames and
replies to pings and closes. Knows nothing of connections, nor of the content of
messages.

A parser takes more memory than the rest of a connection, and most connections are idle
most of the time. So a parser exists from the first byte of a message to its last, and
none is created for a pong.
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

# Its debug messages would contain what clients send, tokens included.
_parser_logger: Final = logging.getLogger(f"{__name__}.parser")
_parser_logger.setLevel(logging.WARNING)


_FIN_PONG: Final = 0x8A
_MASKED: Final = 0x80
_HEAD_BYTES: Final = 6
"""The head of a client's short frame: two bytes, and four of the mask."""
_SHORT_MAX: Final = 125


def is_pong(data: bytes) -> bool:
    """
    Whether `data` is exactly one pong frame (RFC 6455 section 5.5.3).

    An idle client sends one per ping and nothing else. To create a parser for each
    would be a fifth of the CPU that idle connections take.
    """
    size = len(data) - _HEAD_BYTES
    return (
        0 <= size <= _SHORT_MAX and data[0] == _FIN_PONG and data[1] == _MASKED | size
    )


class InboundEvent(enum.Enum):
    """What was received. A value comes with some of them."""

    TEXT = enum.auto()
    """A complete text message. Value: its text."""
    BINARY = enum.auto()
    """A complete binary message, which the protocol does not use."""
    PING = enum.auto()
    """`InboundParser.reply` returns the pong."""
    PONG = enum.auto()
    CLOSE = enum.auto()
    """`InboundParser.reply` returns the close frame. Nothing follows."""
    ERROR = enum.auto()
    """A protocol error. Value: code and reason to close with. Nothing follows."""


class InboundParser:
    """
    A parser, and what it holds of an incomplete message.

    Args:
        parser: Assembles frames.
        fragments: Fragments so far of an incomplete message.
        is_text: Whether that message is text.

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
        """Return a parser without input."""
        parser = Protocol(
            Side.SERVER,
            state=State.OPEN,
            max_size=message_bytes_max,
            logger=_parser_logger,
        )
        return cls(parser, [], is_text=False)

    @property
    def is_idle(self) -> bool:
        """Whether no frame and no message is incomplete, so that nothing is lost."""
        parser = self._parser
        if parser.current_size is not None:
            return False
        # The generator shows whether the parser waits for a frame, or within one.
        generator: Any = parser.parser
        while isinstance(generator.gi_yieldfrom, GeneratorType):
            generator = generator.gi_yieldfrom
        return generator.gi_code is StreamReader.at_eof.__code__

    def feed(self, data: bytes) -> Iterator[tuple[InboundEvent, Any]]:
        """Yield what `data` completes, in order; the caller may stop at any time."""
        parser = self._parser
        parser.receive_data(data)
        if parser.parser_exc is not None:
            close = parser.close_sent
            assert close is not None, "websockets fails the connection first"
            yield InboundEvent.ERROR, (close.code, close.reason)
            return
        for frame in parser.events_received():
            assert isinstance(frame, Frame)
            event = self._on_frame(frame)
            if event is not None:
                yield event

    def reply(self) -> bytes:
        """Return the frames that reply to pings and closes."""
        return b"".join(self._parser.data_to_send())

    def close(self) -> None:
        """Free the parser: it and its generator refer to each other."""
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
