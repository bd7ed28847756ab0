"""The minimal client of PROTOCOL.md, as printed, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.exceptions import ConnectionClosed

from streamer_client import Client

from .conftest import GUARD_S, Running

PROTOCOL: Final = Path(__file__).parents[2] / "clients" / "PROTOCOL.md"
Listen = Callable[..., Awaitable[None]]


def snippet() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", PROTOCOL.read_text("utf-8"), re.DOTALL)
    return str(code)


@pytest.fixture
def listen() -> Listen:
    namespace: dict[str, Any] = {}
    exec(compile(snippet(), PROTOCOL.name, "exec"), namespace)
    found: Listen = namespace["listen"]
    return found


@pytest.fixture
async def running(
    serve_streams: Callable[..., Awaitable[Running]],
) -> AsyncIterator[Running]:
    yield await serve_streams()


def test_it_has_thirty_lines() -> None:
    body = snippet().partition("async def")[2]

    assert len(body.splitlines()) <= 30


async def test_it_receives_what_was_sent_while_it_was_disconnected(
    listen: Listen, running: Running
) -> None:
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    token = running.token("alice")
    async with (
        Client(running.url, token=running.key) as backend,
        Client(running.url, token=token) as client,
    ):
        cursor = (await client.page()).cursor
        task = asyncio.ensure_future(listen(running.url, token, messages.put, cursor))
        try:
            await backend.publish("alice", title="one")
            async with asyncio.timeout(GUARD_S):
                first = await messages.get()
            await running.stop()
            await running.start()
            await backend.publish("alice", title="two")
            async with asyncio.timeout(GUARD_S):
                second = await messages.get()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    assert first["notification"]["title"] == "one"
    assert second["notification"]["title"] == "two"
    assert messages.empty()


async def test_it_ends_with_a_token_that_is_refused(
    listen: Listen, running: Running
) -> None:
    with pytest.raises(ConnectionClosed) as caught:
        async with asyncio.timeout(GUARD_S):
            await listen(running.url, "no.such.token", None)

    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 4200
