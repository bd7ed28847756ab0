from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from streamer_conformance.listener import Listener

from ..client.proxy import LosingProxy
from ..e2e.proxy import TcpProxy

GUARD_S = 60
Close = Callable[[], Awaitable[None]]


async def read_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def listener() -> tuple[int, Close]:
    listener = Listener(read_all)
    await listener.open()
    return listener.port, listener.close


async def tcp_proxy() -> tuple[int, Close]:
    target = await listener()
    proxy = await TcpProxy(target[0]).start()

    async def close() -> None:
        await proxy.close()
        await target[1]()

    return proxy.port, close


async def losing_proxy() -> tuple[int, Close]:
    target = await listener()
    proxy = LosingProxy(f"http://127.0.0.1:{target[0]}")
    url = await proxy.listen()

    async def close() -> None:
        await proxy.close()
        await target[1]()

    return int(url.rpartition(":")[2]), close


@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize("start", [listener, tcp_proxy, losing_proxy])
async def test_a_connection_is_closed_however_young_it_is(
    start: Callable[[], Awaitable[tuple[int, Close]]], steps: int
) -> None:
    """`steps` iterations of the loop pass between the connection and the end."""
    port, close = await start()
    with socket.create_connection(("127.0.0.1", port), GUARD_S) as client:
        for _ in range(steps):
            await asyncio.sleep(0)
        await close()
        # The loop stops here: what is open now, nobody closes any more.
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass


async def test_an_error_of_a_handler_fails_the_test() -> None:
    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise ValueError("no number")

    listener = Listener(fail)
    await listener.open()
    with socket.create_connection(("127.0.0.1", listener.port), GUARD_S) as client:
        await asyncio.get_running_loop().run_in_executor(None, client.recv, 1)
    with pytest.raises(ValueError, match="no number"):
        await listener.close()
