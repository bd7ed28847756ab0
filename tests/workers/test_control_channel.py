"""The worker's end of the channel, and the shares of the limits that it gets."""

from __future__ import annotations

import asyncio
import socket

import pytest

from streamer.config import Config
from streamer.workers.control_channel import HEARTBEAT, ControlChannel, share


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("limit", [7, 8, 1_000, 10_001])
def test_the_shares_of_all_workers_add_up_to_the_limits(
    workers: int, limit: int
) -> None:
    config = Config(
        workers=workers,
        connections_max=limit,
        connects_per_s_max=limit + 1,
        requests_in_flight_max=limit + 2,
    )

    shares = [share(config, index) for index in range(workers)]

    for name, whole in (
        ("connections_max", limit),
        ("connects_per_s_max", limit + 1),
        ("requests_in_flight_max", limit + 2),
    ):
        parts = [getattr(one, name) for one in shares]
        assert sum(parts) == whole
        assert max(parts) - min(parts) <= 1
        assert min(parts) >= 1
    assert {one.workers for one in shares} == {1}


def test_limits_per_player_are_not_divided() -> None:
    config = Config(workers=4)

    one = share(config, 0)

    assert one.listeners_per_player_max == config.listeners_per_player_max
    assert one.requests_per_player_max == config.requests_per_player_max


async def test_a_channel_that_ends_leaves_no_task() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    channel = ControlChannel(ours.detach())
    before = asyncio.all_tasks()
    async with channel.open():
        read = asyncio.get_running_loop().sock_recv(theirs, 1)
        assert await read == HEARTBEAT

    assert asyncio.all_tasks() == before
    theirs.close()
    channel._socket.close()
