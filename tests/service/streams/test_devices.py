"""Notifications for the latest device, and which of a player's readers get them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from streamer.config import Config
from streamer.core.schedule import Schedule, ScheduleState
from streamer.core.streams.subscription import Start
from streamer.model import Log, Player
from streamer.service.inboxes.audiences import PlayerAudiences
from streamer.service.streams.admission import Admission
from streamer.service.streams.catch_up import CatchUp
from streamer.store.client.cluster import redis_at
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import bucket_of, keys_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import Views
from streamer.store.presence.devices import Devices
from streamer.store.presence.leases import ALIVE_MS, Leases
from streamer.store.scheduling.schedule_records import new_schedule_id
from streamer.store.scheduling.timetable import Timetable

from ..conftest import Client

Until = Callable[[Callable[[], object]], Awaitable[None]]


class Node:
    """A node: the services that readers need, running."""

    def __init__(self, url: str) -> None:
        self.redis = redis_at(url)
        inbox = Inbox(self.redis)
        audiences = PlayerAudiences(Views(self.redis, LogSettings()), inbox)
        catch_up = CatchUp(url, inbox, audiences, replay_max=500, check_s=15)
        self.leases = Leases(self.redis, leases_max=5)
        devices = Devices(self.redis, self.leases.node)
        self.admission = Admission(catch_up, self.leases, Config(), devices=devices)
        self.running = asyncio.create_task(self.admission.run())
        self.catch_up = catch_up


Listen = Callable[..., Awaitable[Client]]
Send = Callable[..., Awaitable[None]]


@pytest.fixture
async def nodes(store_url: str, until: Until) -> AsyncIterator[list[Node]]:
    nodes = [Node(store_url) for _ in range(2)]
    await until(lambda: all(node.catch_up.connected for node in nodes))
    yield nodes
    for node in nodes:
        node.running.cancel()
        await asyncio.wait([node.running])
        await node.redis.close()


@pytest.fixture
def listen(
    nodes: list[Node], log: Log, make_client: type[Client], until: Until
) -> Listen:
    """Return a function that joins a device: ``listen(stack, "phone", node=1)``."""

    async def listen(
        stack: AsyncExitStack,
        device: str,
        *,
        node: int = 0,
        read_from: Any = Start.LATEST,
    ) -> Any:
        client = make_client(read_from)
        client.session.device = device
        admission = nodes[node].admission.listen(log, client.session)
        await stack.enter_async_context(admission)
        await until(lambda: client.begin is not None)
        return client

    return listen


@pytest.fixture
def send(nodes: list[Node], log: Log) -> Send:
    """Return a function that sends to the latest device, or to all."""
    timetable = Timetable(nodes[1].redis)

    async def send(*bodies: str, to_latest: bool = True) -> None:
        for body in bodies:
            schedule = Schedule(
                log.app,
                new_schedule_id(bucket_of(log.app, log.player)),
                ScheduleState.PENDING,
                0,
                0,
                b'"body":"%b"}' % body.encode(),
                player=log.player,
                to_latest=to_latest,
            )
            await timetable.add(schedule)
            assert await timetable.firing.fire([schedule]) == 1

    return send


def bodies(client: Any) -> list[str]:
    return [
        message["notification"]["body"]
        for message in client.messages
        if message["type"] == "notification"
    ]


async def have(until: Until, clients: Sequence[Any], *expected: list[str]) -> None:
    """
    Wait until clients have the expected entries.

    The last one has to be for all, so that every other one has come by then.
    """
    await until(
        lambda: all(
            bodies(c)[-1:] == e[-1:] for c, e in zip(clients, expected, strict=True)
        )
    )
    assert [bodies(client) for client in clients] == list(expected)


async def test_only_the_latest_device_gets_the_notification(
    listen: Listen, send: Send, until: Until
) -> None:
    async with AsyncExitStack() as stack:
        phone = await listen(stack, "phone")
        tablet = await listen(stack, "tablet", node=1)
        unnamed = await listen(stack, "")

        await send("one", "two")
        await send("all", to_latest=False)

        everything = ["one", "two", "all"]
        clients = (phone, tablet, unnamed)
        await have(until, clients, ["all"], everything, everything)


async def test_using_a_device_makes_it_the_latest(
    listen: Listen, send: Send, until: Until, nodes: list[Node], log: Log
) -> None:
    async with AsyncExitStack() as stack:
        phone = await listen(stack, "phone")
        tablet = await listen(stack, "tablet", node=1)
        # The store's clock has a resolution of milliseconds.
        await asyncio.sleep(0.002)
        await nodes[0].admission.note_use(log, phone.session)

        await send("one")
        await send("all", to_latest=False)

        await have(until, (phone, tablet), ["one", "all"], ["all"])


async def test_a_device_that_has_left_is_not_the_latest(
    listen: Listen, send: Send, until: Until, redis: RedisConnection, log: Log
) -> None:
    async with AsyncExitStack() as stack:
        phone = await listen(stack, "phone")
        async with AsyncExitStack() as short:
            await listen(short, "tablet", node=1)

        await send("one")

        await have(until, (phone,), ["one"])
    assert await redis.call("HLEN", keys_of().devices(log)) == 0


async def test_a_device_of_a_dead_node_is_not_the_latest(
    listen: Listen, send: Send, until: Until, nodes: list[Node], redis: RedisConnection
) -> None:
    async with AsyncExitStack() as stack:
        phone = await listen(stack, "phone")
        tablet = await listen(stack, "tablet", node=1)
        nodes[1].running.cancel()
        await asyncio.wait([nodes[1].running])
        node = nodes[1].leases.node
        last_ms = await redis.call("ZSCORE", keys_of().nodes, node)
        await redis.call("ZADD", keys_of().nodes, int(last_ms) - ALIVE_MS - 1, node)

        await send("one")

        await have(until, (phone,), ["one"])
        assert bodies(tablet) == []


async def test_without_any_device_every_device_gets_it_later(
    listen: Listen, send: Send, until: Until
) -> None:
    await send("one")

    async with AsyncExitStack() as stack:
        phone = await listen(stack, "phone", read_from=Start.EARLIEST)

        await have(until, (phone,), ["one"])


async def test_catching_up_leaves_out_entries_for_another_device(
    listen: Listen, send: Send, until: Until, nodes: list[Node], log: Log
) -> None:
    """And the pages have all entries."""
    async with AsyncExitStack() as stack:
        tablet = await listen(stack, "tablet")
        await send("tablets")
        await send("all", to_latest=False)
        await have(until, (tablet,), ["tablets", "all"])
    async with AsyncExitStack() as stack:
        phone = await listen(stack, "phone", node=1, read_from=Start.EARLIEST)
        again = await listen(stack, "tablet", read_from=Start.EARLIEST)

        await have(until, (phone, again), ["all"], ["tablets", "all"])
        # It is not mistaken for a hole.
        assert phone.gaps == []

    page = await Inbox(nodes[0].redis).page(log, count=9)
    assert page.entries is not None
    assert len(page.entries) == page.unread == 2


async def test_a_large_entry_is_for_one_device_as_well(
    listen: Listen, send: Send, until: Until
) -> None:
    """Its fragment is not announced, so it is read."""
    large = "x" * 100_000
    async with AsyncExitStack() as stack:
        phone = await listen(stack, "phone")
        tablet = await listen(stack, "tablet")

        await send(large)
        await send("all", to_latest=False)

        await have(until, (phone, tablet), ["all"], [large, "all"])


async def test_other_players_devices_do_not_count(
    send: Send,
    until: Until,
    listen: Listen,
    nodes: list[Node],
    log: Log,
    make_client: type[Client],
) -> None:
    async with AsyncExitStack() as stack:
        phone = await listen(stack, "phone")
        other = make_client()
        other.session.device = "tablet"
        neighbour = Log(log.app, Player(f"{log.player}-x"))
        admission = nodes[0].admission.listen(neighbour, other.session)
        await stack.enter_async_context(admission)

        await send("one")

        await have(until, (phone,), ["one"])
