from __future__ import annotations

import gc

import pytest

from streamer.transports.server.websocket_input import FRAGMENTS_MAX
from streamer.transports.streams.inbound import InboundEvent, InboundParser, is_pong

from ..server.test_websocket_protocol import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    frame,
)


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (frame(TEXT, "grüße".encode()), [(InboundEvent.TEXT, "grüße")]),
        (frame(TEXT, b"a", fin=False) + frame(CONT, b"b"), [(InboundEvent.TEXT, "ab")]),
        (frame(BINARY, b"a"), [(InboundEvent.BINARY, None)]),
        (
            frame(PING, b"a") + frame(PONG),
            [(InboundEvent.PING, None), (InboundEvent.PONG, None)],
        ),
        (frame(CLOSE, b"\x03\xe8"), [(InboundEvent.CLOSE, None)]),
    ],
)
def test_complete_frames_become_events(
    data: bytes, events: list[tuple[InboundEvent, object]]
) -> None:
    assert list(InboundParser.create(1_000).feed(data)) == events


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"text" * 40),
        frame(TEXT, b"a", fin=False) + frame(PING, b"b") + frame(CONT, b"c"),
        b"\x81\xfe\x00\x01" + bytes(4) + b"x",  # a length in more bytes than necessary
    ],
)
def test_a_parser_is_idle_between_messages_only(data: bytes) -> None:
    parser = InboundParser.create(1_000)
    assert parser.is_idle

    for i in range(len(data) - 1):
        list(parser.feed(data[i : i + 1]))
        assert not parser.is_idle

    list(parser.feed(data[-1:]))
    assert parser.is_idle


def test_a_message_of_too_many_fragments_is_an_error() -> None:
    parser = InboundParser.create(1_000)
    data = frame(TEXT, fin=False) + frame(CONT, fin=False) * FRAGMENTS_MAX

    assert list(parser.feed(data)) == [
        (InboundEvent.ERROR, (1009, "too many fragments"))
    ]


def test_a_pong_has_the_payload_of_its_ping() -> None:
    parser = InboundParser.create(1_000)

    list(parser.feed(frame(PING, b"payload")))

    assert parser.reply() == b"\x8a\x07payload"


def test_a_closed_parser_needs_no_garbage_collection() -> None:
    gc.collect()
    gc.disable()
    try:
        parser = InboundParser.create(1_000)
        list(parser.feed(frame(TEXT, b"x")))
        parser.close()
        parser_class = type(parser._parser)
        del parser
        assert not [one for one in gc.get_objects() if type(one) is parser_class]
    finally:
        gc.enable()


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 125])
def test_a_lone_pong_is_recognized_without_a_parser(payload: bytes) -> None:
    data = frame(PONG, payload)

    assert is_pong(data)
    assert list(InboundParser.create(1_000).feed(data)) == [(InboundEvent.PONG, None)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        frame(PONG)[:-1],
        frame(PONG, b"payload")[:-1],
        frame(PONG) + b"x",
        frame(PONG) * 2,
        frame(PONG, b"x" * 125) + frame(TEXT, b"x"),
        frame(PING),
        frame(TEXT, b"text"),
        frame(PONG, fin=False),
        b"\x8a\x00" + bytes(4),  # not masked
        b"\xca\x80" + bytes(4),  # with a reserved bit
        b"\x8a\xfe\x00\x7e" + bytes(4 + 126),  # too long for a control frame
    ],
)
def test_nothing_else_is_recognized_as_a_lone_pong(data: bytes) -> None:
    assert not is_pong(data)
