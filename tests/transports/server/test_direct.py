"""
What the protocol does with answers beneath ASGI, where it is not as in the tests of
`http_protocol`, which run in both ways.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from streamer.transports.server.direct import DirectCycle

HEADERS = [(b"content-length", b"2")]


class Transport(asyncio.Transport):
    """Keeps what is written, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True


class Flow:
    """Flow control, as uvicorn's."""

    def __init__(self) -> None:
        self.write_paused = False
        self.writable = asyncio.Event()
        self.resumed = 0

    async def drain(self) -> None:
        await self.writable.wait()

    def resume_reading(self) -> None:
        self.resumed += 1


class World:
    def __init__(self) -> None:
        self.transport = Transport()
        self.flow = Flow()
        self.responded = 0

    def cycle(
        self,
        *,
        keep_alive: bool = True,
        default_headers: list[tuple[bytes, bytes]] | None = None,
    ) -> DirectCycle:
        return DirectCycle(
            {"type": "http"},
            self.transport,
            self.flow,
            default_headers or [],
            keep_alive=keep_alive,
            on_response=self._on_response,
        )

    def _on_response(self) -> None:
        self.responded += 1


@pytest.fixture
async def world() -> World:
    return World()


async def respond_ok(scope: Any, receive: Any, respond: Any) -> None:
    await respond(200, HEADERS, b"ok")


async def test_a_response_is_one_write(world: World) -> None:
    await world.cycle(default_headers=[(b"date", b"now")]).run_asgi(respond_ok)

    assert world.transport.written == [
        b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\n\r\nok"
    ]
    assert world.responded == 1
    assert not world.transport.closed


@pytest.mark.parametrize(
    "kind",
    [{"keep_alive": False}, {"default_headers": [(b"connection", b"close")]}],
)
async def test_the_last_response_of_a_connection_says_so(
    world: World, kind: Any
) -> None:
    await world.cycle(**kind).run_asgi(respond_ok)

    (written,) = world.transport.written
    assert written.count(b"connection: close\r\n") == 1
    assert world.transport.closed


async def test_a_response_waits_until_the_client_reads_those_before(
    world: World,
) -> None:
    world.flow.write_paused = True

    task = asyncio.create_task(world.cycle().run_asgi(respond_ok))
    await asyncio.sleep(0)

    assert not world.transport.written
    world.flow.writable.set()
    await task
    assert len(world.transport.written) == 1


async def test_a_client_that_left_gets_nothing(world: World) -> None:
    cycle = world.cycle()
    cycle.disconnected = True

    await cycle.run_asgi(respond_ok)

    assert not world.transport.written
    assert not cycle.response_complete
    assert not world.responded


async def test_a_body_is_received_as_it_arrives(world: World) -> None:
    cycle = world.cycle()
    received = []

    async def answer(scope: Any, receive: Any, respond: Any) -> None:
        while True:
            message = await receive()
            received.append(message)
            if not message.get("more_body"):
                await respond(200, HEADERS, b"ok")
                break
        received.append(await receive())

    task = asyncio.create_task(cycle.run_asgi(answer))
    await asyncio.sleep(0)
    for part, more in ((b"ab", True), (b"c", False)):
        cycle.body += part
        cycle.more_body = more
        cycle.message_event.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await task

    assert received == [
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "body": b"c", "more_body": False},
        {"type": "http.disconnect"},
    ]
    assert world.flow.resumed == 2


async def test_a_disconnect_ends_the_wait_for_a_body(world: World) -> None:
    cycle = world.cycle()
    received = []

    async def answer(scope: Any, receive: Any, respond: Any) -> None:
        received.append(await receive())

    task = asyncio.create_task(cycle.run_asgi(answer))
    await asyncio.sleep(0)
    cycle.disconnected = True
    cycle.message_event.set()
    await task

    assert received == [{"type": "http.disconnect"}]


@pytest.mark.parametrize("has_responded", [False, True])
async def test_an_answer_that_fails_closes_the_connection_and_is_logged(
    world: World, caplog: pytest.LogCaptureFixture, has_responded: bool
) -> None:
    async def answer(scope: Any, receive: Any, respond: Any) -> None:
        if has_responded:
            await respond(500, HEADERS, b"no")
        raise RuntimeError("a fault")

    with caplog.at_level(logging.ERROR):
        await world.cycle().run_asgi(answer)

    (written,) = world.transport.written
    assert written.endswith(b"no" if has_responded else b"Internal Server Error")
    assert world.transport.closed
    assert "a fault" in caplog.text
