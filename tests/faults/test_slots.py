"""Aborted handshakes, and readers that do not read."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import statistics
import time
from collections.abc import Callable

import pytest

from ..e2e.processes import DURABLE, ServerProcess, StoreProcess, eventually
from ..e2e.proxy import TcpProxy
from ..e2e.readers import (
    TRANSPORTS,
    Api,
    RawStream,
    StreamRefused,
    request_head,
)

MakeServer = Callable[..., ServerProcess]
MakeStore = Callable[..., StoreProcess]
MakeProxy = Callable[[int], "asyncio.Future[TcpProxy]"]
Report = Callable[[object], None]

CONNECTIONS_MAX = 8
ABORTED = 200

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def stream_head(token: str | None, *, websocket: bool) -> bytes:
    headers = {"Host": "x"} | (UPGRADE if websocket else {})
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return request_head("GET", "/v1/stream", {}, headers)


async def abort(port: int, head: bytes, after_s: float) -> None:
    """Send a request and reset the connection before reading the response."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    await asyncio.sleep(after_s)
    writer.transport.abort()


@pytest.mark.row("C12")
async def test_aborted_handshakes_leak_no_slot(
    make_server: MakeServer,
    make_store: MakeStore,
    make_proxy: Callable[[int], object],
    report: Report,
) -> None:
    store = await make_store(*DURABLE).start()
    proxy: TcpProxy = await make_proxy(store.port)  # type: ignore[misc]
    server = make_server(
        redis=proxy.redis_url,
        connections_max=CONNECTIONS_MAX,
        listeners_per_player_max=CONNECTIONS_MAX,
        auth_timeout_s=60,
    )
    await server.start()
    token = await server.token("p")
    # With a slow store, most of them abort while their lease is being taken.
    proxy.delay_s = 0.02
    heads = [
        stream_head(token, websocket=False),
        stream_head(token, websocket=True),
        stream_head(None, websocket=True),
        stream_head(token, websocket=True)[:-2],
        b"GET /notification/v1/player/me/stream/notification/lp?deadline=60 HTTP/1.1"
        b"\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % token.encode(),
    ]
    for _ in range(ABORTED // CONNECTIONS_MAX):
        await asyncio.gather(
            *(
                abort(server.port, secrets.choice(heads), secrets.randbelow(80) / 1_000)
                for _ in range(CONNECTIONS_MAX)
            )
        )
    proxy.delay_s = 0
    await server.listeners("p", 0)
    streams: list[RawStream] = []

    async def opened() -> bool:
        """As many streams as the limit can be open, once the aborted ones are gone."""
        with contextlib.suppress(StreamRefused):
            while True:
                opener = list(TRANSPORTS.values())[len(streams) % 2]
                streams.append(await opener.open(server.port, token))
        return len(streams) == CONNECTIONS_MAX

    await eventually(opened)
    for stream in streams:
        await stream.until("hello")
        stream.cut()
    assert server.complaints == ""
    report(f"0 slots leaked by {ABORTED} aborted handshakes")


async def stalled(
    server: ServerProcess, token: str, *, websocket: bool
) -> socket.socket:
    """Open a stream that is never read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", server.port))
    await loop.sock_sendall(sock, stream_head(token, websocket=websocket))
    return sock


@pytest.mark.parametrize(
    ("limit", "data_bytes", "count"),
    [
        # Small notifications are delivered live, and unsent bytes are bounded. Large
        # ones are read from the log at the reader's pace, so the age is the bound.
        ({"send_buffer_bytes": 262_144}, 8_000, 120),
        ({"send_age_s": 1}, 60_000, 40),
    ],
    ids=["bytes", "age"],
)
@pytest.mark.row("C9")
async def test_stalled_readers_are_disconnected_and_delay_no_other(
    make_server: MakeServer,
    report: Report,
    limit: dict[str, int],
    data_bytes: int,
    count: int,
) -> None:
    server = await make_server(**limit).start()
    token = await server.token("p")
    async with Api(server.port, await server.key()) as backend:
        healthy: list[RawStream] = [
            await opener.open(server.port, token) for opener in TRANSPORTS.values()
        ]
        for stream in healthy:
            await stream.until("hello")
        book = TimedPublisher(backend, healthy, data="x" * data_bytes)
        before = await book.publish(count)
        socks = [
            await stalled(server, token, websocket=websocket)
            for websocket in (False, True)
        ]
        await server.listeners("p", 4)
        during = await book.publish(count)
        await server.listeners("p", 2)
        for sock in socks:
            sock.close()
        # A disconnected reader has lost nothing: its cursor is still valid.
        for opener in TRANSPORTS.values():
            resumed = await opener.open(server.port, token, cursor=book.ids[count - 1])
            missed = await resumed.notifications(count)
            assert [message.id for message in missed] == book.ids[count:]
            resumed.cut()
        for stream in healthy:
            stream.cut()
    # Beside a busy machine a single one may take any time.
    assert statistics.median(during) < 5
    report(
        f"{1_000 * statistics.median(during):.1f} ms beside two stalled readers, "
        f"{1_000 * statistics.median(before):.1f} ms without (medians of {count})"
    )


class TimedPublisher:
    """Publishes, and measures how long each takes to reach all readers."""

    def __init__(self, backend: Api, streams: list[RawStream], *, data: str) -> None:
        self._backend = backend
        self._streams = streams
        self._data = data
        self.ids: list[str] = []

    async def publish(self, count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            begun = time.monotonic()
            (id,) = await self._backend.published("p", data=self._data)
            for stream in self._streams:
                assert (await stream.until("notification")).id == id
            seconds.append(time.monotonic() - begun)
            self.ids.append(id)
        return seconds
