"""A node with few file descriptors: streams are refused, and requests go on."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from .processes import GUARD_S, ServerProcess, command, eventually
from .readers import Api, SseStream, StreamRefused, WsStream

LIMIT = 256
STREAMS = (LIMIT - 64) * 3 // 4


class LimitedServer(ServerProcess):
    """A server that can open `LIMIT` files, by its hard limit."""

    def _spawn(self, command: list[str], env: dict[str, str] | None = None) -> None:
        limited = ["sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh"]
        super()._spawn([*limited, *command], env)

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LimitedServer]:
    server = LimitedServer(tmp_path / "limited", listeners_per_player_max=1_000)
    try:
        await server.start()
        yield server
    finally:
        server.discard()


@pytest.fixture
async def streams(server: LimitedServer) -> AsyncIterator[list[SseStream]]:
    """Open as many streams as the server admits."""
    token = await server.token("ann")
    opened: list[SseStream] = []
    with contextlib.suppress(StreamRefused):
        while len(opened) < LIMIT:
            opened.append(await SseStream.open(server.port, token))
    yield opened
    for stream in opened:
        stream.cut()


async def test_streams_are_refused_while_descriptors_are_left(
    server: LimitedServer, streams: list[SseStream]
) -> None:
    token = await server.token("ann")

    assert len(streams) == STREAMS
    for kind in (SseStream, WsStream):
        with pytest.raises(StreamRefused) as refused:
            await kind.open(server.port, token)
        assert refused.value.status == 503
        assert int(refused.value.headers["retry-after"]) > 0
        assert refused.value.problem["limit"] == "connections_per_node"


async def test_publishers_go_on_while_streams_are_refused(
    server: LimitedServer, streams: list[SseStream]
) -> None:
    key = await server.key()
    sent = []
    async with AsyncExitStack() as stack:
        # Each publisher keeps a connection of its own.
        for n in range(30):
            backend = await stack.enter_async_context(Api(server.port, key))
            sent += await backend.published("ann", title=str(n))
        received = [(await streams[-1].until("notification")).id for _ in sent]

    assert received == sent


async def test_a_low_limit_is_told_at_the_start_and_by_doctor(
    server: LimitedServer,
) -> None:
    limited = ["sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh", *command("doctor")]
    found = await asyncio.to_thread(
        subprocess.run,
        limited,
        env=server.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    expected = f"{STREAMS} streams instead of the 10000 of connections_max"

    assert f"this process can open {LIMIT} files, which allows {expected}" in (
        server.logged
    )
    assert server.logged.count(expected) == 1
    assert found.returncode == 1
    assert f"can open {LIMIT} files and needs 11064: it admits {expected}" in (
        found.stdout
    )


SENT = {
    "silent": b"",
    "kept alive": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost: ",
    "half a body": (
        b"POST /v1/notifications HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
        b"\r\nContent-Length: 100\r\n\r\n{"
    ),
}


@pytest.mark.parametrize("kind", SENT)
async def test_connections_without_a_request_leave_descriptors_to_publishers(
    server: LimitedServer, kind: str
) -> None:
    """More of them than descriptors, again and again."""
    key = await server.key()
    idle: list[socket.socket] = []

    async def flood() -> None:
        while True:
            # Connecting does not wait: the system queues connections.
            one = socket.create_connection(("127.0.0.1", server.port))
            idle.append(one)
            one.send(SENT[kind])
            if len(idle) > 2 * LIMIT:
                idle.pop(0).close()
            await asyncio.sleep(0.01)

    flooding = asyncio.create_task(flood())
    try:
        await eventually(lambda: "closing those without a request" in server.logged)
        statuses = [
            await asyncio.to_thread(publish_at_once, server.port, key)
            for _ in range(10)
        ]
    finally:
        flooding.cancel()
        await asyncio.wait([flooding])
        for one in idle:
            one.close()

    assert statuses == [200] * 10
    assert server.logged.count("closing those without a request") == 1


def publish_at_once(port: int, key: str) -> int:
    """
    Publish on a connection of its own; return the status.

    Nothing is between connecting and sending: half a second would be silence.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GUARD_S)
    body = b'{"to": {"players": ["ann"]}, "title": "Hello"}'
    fields = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with contextlib.closing(connection):
        connection.request("POST", "/v1/notifications", body, fields)
        return connection.getresponse().status


async def test_connections_beyond_the_limit_wait_without_work(
    server: LimitedServer,
) -> None:
    """The system queues them. The server accepts them when descriptors are free."""
    with contextlib.ExitStack() as opened:
        for _ in range(LIMIT):
            opened.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        await eventually(lambda: server.descriptors() == LIMIT)
        lines = server.logged.count("\n")
    await eventually(lambda: server.probe("/readyz"))

    assert server.logged.count("\n") <= lines + 3
    assert "Traceback" not in server.logged
