from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import (
    WebSocketsSansIOProtocol,
)
from websockets.frames import Close

from streamer.transports.server.websocket_input import (
    CONTROLS_PER_S_MAX,
    FRAGMENTS_MAX,
)
from streamer.transports.server.websocket_protocol import WebSocketProtocol

from ..conftest import RawClient, RecordingApp, Serve

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def upgrade(*fields: bytes) -> bytes:
    lines = [
        b"GET / HTTP/1.1",
        b"Host: here",
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    return b"\r\n".join([*lines, *fields, b"", b""])


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """Return a client's frame, with a mask of zeros to keep the payload readable."""
    head = bytes([fin << 7 | opcode])
    size = len(payload)
    if size < 126:
        head += bytes([0x80 | size])
    else:
        head += bytes([0x80 | 127]) + size.to_bytes(8)
    return head + bytes(4) + payload


async def read_frame(client: Any) -> tuple[int, bytes]:
    first, size = await client.read(2)
    if size == 126:
        size = int.from_bytes(await client.read(2))
    elif size == 127:
        size = int.from_bytes(await client.read(8))
    return first & 0x0F, await client.read(size)


async def read_close(client: Any) -> tuple[int, str]:
    """Return the next close frame, skipping pings and echoes."""
    while (received := await read_frame(client))[0] != CLOSE:
        pass
    close = Close.parse(received[1])
    return close.code, close.reason


OpenSocket = Callable[..., Awaitable[RawClient]]


@pytest.fixture
async def open_socket(serve: Serve, app: RecordingApp) -> OpenSocket:
    async def open_socket(**settings: Any) -> Any:
        client = await (await serve(app, **settings)).connect()
        client.send(upgrade())
        assert await client.status() == 101
        return client

    return open_socket


async def test_messages_go_both_ways(open_socket: OpenSocket) -> None:
    client = await open_socket()

    client.send(frame(TEXT, "grüße".encode()))

    assert await read_frame(client) == (TEXT, "grüße".encode())


@pytest.mark.row("C8")
async def test_a_peer_that_sends_no_pongs_is_closed_as_silent(
    open_socket: OpenSocket, app: RecordingApp
) -> None:
    client = await open_socket(heartbeat_s=0.1)

    assert (await read_frame(client))[0] == PING
    assert await read_close(client) == (4002, "silent")
    assert await app.ending() == (4002, "silent")
    assert await client.read_to_end() == b""


async def test_a_peer_that_sends_pongs_stays_connected(open_socket: OpenSocket) -> None:
    client = await open_socket(heartbeat_s=0.5)

    for _ in range(3):
        opcode, payload = await read_frame(client)
        assert opcode == PING
        client.send(frame(PONG, payload))


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, b"x" * 1_001), 1009),
        (frame(TEXT, b"x" * 600, fin=False) + frame(CONT, b"x" * 600), 1009),
        (frame(TEXT, b"", fin=False) + frame(CONT, fin=False) * FRAGMENTS_MAX, 1009),
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"("), 1007),
        (frame(3, b"reserved"), 1002),
        (frame(CONT, b"of nothing"), 1002),
        (b"\x81\x01x", 1002),  # not masked
        (b"\xc1" + frame(TEXT, b"compressed")[1:], 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(PING) * (CONTROLS_PER_S_MAX + 1), 4103),
        (frame(PONG) * (CONTROLS_PER_S_MAX + 1), 4103),
    ],
)
@pytest.mark.row("F7")
async def test_a_violation_closes_with_its_code_and_the_app_is_notified(
    open_socket: OpenSocket,
    app: RecordingApp,
    sent: bytes,
    code: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = await open_socket(message_bytes_max=1_000)

    client.send(sent)

    assert (await read_close(client))[0] == code
    assert (await app.ending())[0] == code
    assert await client.read_to_end() == b""
    assert caplog.records == []


async def test_a_message_of_the_maximum_size_is_accepted(
    open_socket: OpenSocket,
) -> None:
    client = await open_socket(message_bytes_max=1_000)

    client.send(frame(TEXT, b"x" * 1_000))

    assert await read_frame(client) == (TEXT, b"x" * 1_000)


async def test_the_code_reaches_a_client_that_is_still_sending(
    open_socket: OpenSocket, app: RecordingApp, caplog: pytest.LogCaptureFixture
) -> None:
    client = await open_socket(message_bytes_max=1_000)

    client.send(frame(TEXT, b"x" * 3_000_000))

    assert (await read_close(client))[0] == 1009
    await client.writer.drain()
    assert (await app.ending())[0] == 1009
    assert caplog.records == []


async def test_sending_after_a_violation_raises_an_os_error(serve: Serve) -> None:
    caught: asyncio.Queue[BaseException | None] = asyncio.Queue()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        try:
            await send({"type": "websocket.send", "text": "too late"})
        except OSError as exc:
            caught.put_nowait(exc)
        else:
            caught.put_nowait(None)

    client = await (await serve(app)).connect()
    client.send(upgrade())
    assert await client.status() == 101

    client.send(frame(TEXT, b"\xff"))

    async with asyncio.timeout(60):
        assert isinstance(await caught.get(), OSError)


async def test_pongs_do_not_pile_up_for_a_client_that_does_not_read(
    open_socket: OpenSocket, app: RecordingApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "streamer.transports.server.websocket_protocol.CONTROLS_PER_S_MAX", 10**9
    )
    client = await open_socket()
    client.pause_reading()
    flood = frame(PING, b"x" * 125) * 1_000

    for _ in range(60):  # 7.5 MB of pongs, more than the kernel takes
        client.send(flood)
        await client.writer.drain()
    client.send(frame(TEXT, b"done"))
    await client.writer.drain()

    # The echo is buffered after the pongs; the buffer stays near its mark.
    assert app.handle.buffered() < 200_000


async def test_the_handle_of_a_websocket_reports_its_buffer_and_aborts(
    open_socket: OpenSocket, app: RecordingApp
) -> None:
    client = await open_socket()
    assert app.handle.buffered() == 0

    app.handle.abort()

    assert await client.read_to_end() == b""
    assert (await app.ending())[0] == 1005


async def test_a_stop_closes_websockets_with_1012(
    serve: Serve, app: RecordingApp
) -> None:
    served = await serve(app)
    clients = [await served.connect() for _ in range(3)]
    for client in clients:
        client.send(upgrade())
        assert await client.status() == 101

    served.host.stop()

    for client in clients:
        assert (await read_close(client))[0] == 1012


async def test_a_closing_websocket_can_be_shut_down_again(
    serve: Serve, app: RecordingApp
) -> None:
    served = await serve(app)
    client = await served.connect()
    client.send(upgrade())
    assert await client.status() == 101
    (protocol,) = served.host._server.server_state.connections

    protocol.shutdown()
    protocol.shutdown()

    assert (await read_close(client))[0] == 1012
    assert await client.read_to_end() == b""


def test_uvicorn_has_the_hooks_that_are_overridden() -> None:
    for name in WebSocketProtocol.__dict__:
        own = name in ("continue_from_handshake", "hand_over", "disable_chunking")
        if not own and not name.startswith("_"):
            assert hasattr(WebSocketsSansIOProtocol, name), name
    source = inspect.getsource(WebSocketsSansIOProtocol)
    for use in (
        "self.ping_timeout, self.keepalive_timeout",
        "self.frames.append(event.data)",
        "if self.disconnected:\n            raise ClientDisconnected()",
        "if self.close_timer is None:\n            self.transport.close()",
        "self.handshake_initiated = True",
        "if not self.handshake_complete and self.initial_response is None:",
        "max_size=self.config.ws_max_size",
    ):
        assert use in source, use
