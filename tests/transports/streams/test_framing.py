from __future__ import annotations

import pytest
from websockets.frames import Close, Frame, Opcode

from streamer.core.streams.codec import WebSocketCodec
from streamer.transports.streams.detached_websocket import websocket_batch_writer
from streamer.transports.streams.framing import Framing, chunk, close_frame, text_frame


def parse(data: bytes) -> Frame:
    """Parse a server's frame as a client library does."""
    rest = memoryview(data)

    def read_exact(count: int):  # type: ignore[no-untyped-def]  # a generator's
        nonlocal rest
        read, rest = bytes(rest[:count]), rest[count:]
        return read
        yield

    parsing = Frame.parse(read_exact, mask=False)
    try:
        next(parsing)
    except StopIteration as done:
        assert not rest
        frame: Frame = done.value
        return frame
    raise AssertionError("the frame is incomplete")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_a_text_message_is_one_frame(size: int) -> None:
    frame = parse(text_frame(b"x" * size))

    assert (frame.opcode, frame.fin) == (Opcode.TEXT, True)
    assert bytes(frame.data) == b"x" * size


def test_a_close_frame_has_code_and_reason() -> None:
    frame = parse(close_frame(4100, "draining"))

    assert frame.opcode is Opcode.CLOSE
    assert Close.parse(frame.data) == Close(4100, "draining")


def test_a_long_reason_is_cut() -> None:
    assert len(parse(close_frame(1009, "x" * 200)).data) == 125


def test_a_chunk_has_its_size() -> None:
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


def test_one_event_is_framed_once() -> None:
    framed: list[bytes] = []

    def wrap(event: bytes) -> bytes:
        framed.append(event)
        return b"<" + event + b">"

    framing = Framing(wrap)
    event = b"event"

    framing.frame(event)

    assert framing.event is event
    assert framing.framed == b"<event>"
    assert framed == [event]


def test_a_ping_event_comes_with_a_ping_frame() -> None:
    framing = websocket_batch_writer()

    framing.frame(WebSocketCodec().ping())

    assert framing.framed == b'\x81\x0f{"type":"ping"}' + b"\x89\x00"


def test_all_pings_are_the_same_object() -> None:
    # Streams recognize a ping by identity.
    assert WebSocketCodec().ping() is WebSocketCodec().ping()
