"""That what has arrived is read before a client's time is over."""

from __future__ import annotations

import asyncio
import socket

import pytest

from streamer.transports.server.read_first import call_after_reading

from ..conftest import GUARD_S


@pytest.mark.parametrize("delay_s", [0, 0.001], ids=["a call", "a timer"])
async def test_what_has_arrived_is_read_first(delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    events: list[str] = []
    is_over = asyncio.Event()
    ours, peers = socket.socketpair()

    def read() -> None:
        events.append(ours.recv(9).decode())

    def be_over(event: str) -> None:
        events.append(event)
        is_over.set()

    def be_due() -> None:
        peers.send(b"arrived")
        call_after_reading(loop, be_over, "over")

    with ours, peers:
        loop.add_reader(ours, read)
        loop.call_later(delay_s, be_due)
        async with asyncio.timeout(GUARD_S):
            await is_over.wait()
        loop.remove_reader(ours)

    assert events == ["arrived", "over"]
