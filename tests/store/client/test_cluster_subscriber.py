"""Subscriptions to a cluster: one connection per primary, which follow their slots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamer.errors import StoreUnavailable
from streamer.model import App, Log, Player
from streamer.store.client.address import FixedAddress
from streamer.store.client.cluster import ClusterConnection, redis_at
from streamer.store.client.cluster_subscriber import ClusterSubscriber
from streamer.store.client.pubsub import PubSub
from streamer.store.client.slots import slot_of
from streamer.store.logs.inbox import Inbox
from streamer.store.scheduling.notices import Notices

from ...conftest import Until
from ...e2e.clusters import Cluster
from ..recording import RecordingHandler

LOGS = [Log(App("app"), Player(f"player{number}")) for number in range(30)]
FRAGMENT = b'"title":"x"}'


@pytest.fixture
async def cluster(nodes: Cluster) -> AsyncIterator[ClusterConnection]:
    redis = redis_at(nodes.url)
    assert isinstance(redis, ClusterConnection)
    yield redis
    await redis.close()


@pytest.fixture
def handler() -> RecordingHandler:
    return RecordingHandler()


@pytest.fixture
async def pubsub(
    nodes: Cluster, handler: RecordingHandler, until: Until
) -> AsyncIterator[PubSub]:
    pubsub = PubSub(nodes.url, handler, name="subscriber-test")
    running = asyncio.create_task(pubsub.run())
    channels = [pubsub._keys.channel(log).encode() for log in LOGS]
    await until(lambda: all(map(pubsub._subscriber.reaches, channels)))
    yield pubsub
    running.cancel()
    await asyncio.wait([running])


async def subscribe(pubsub: PubSub) -> None:
    await asyncio.gather(*(pubsub.subscribe(log) for log in LOGS))


async def arrives(
    redis: ClusterConnection, handler: RecordingHandler, until: Until
) -> None:
    """Append to all logs; return when each announcement has arrived."""
    before = len(handler.entries)
    appended = await Inbox(redis).append_many([(log, [FRAGMENT]) for log in LOGS])
    assert not [it for it in appended if isinstance(it, Exception)]
    await until(lambda: len(handler.entries) - before >= len(LOGS))
    assert len(handler.entries) - before == len(LOGS)


async def test_every_shard_announces(
    cluster: ClusterConnection,
    pubsub: PubSub,
    handler: RecordingHandler,
    until: Until,
) -> None:
    await subscribe(pubsub)

    await arrives(cluster, handler, until)

    assert sorted(handler.subscribed) == sorted(LOGS)


async def test_a_slot_that_moves_is_followed_and_its_readers_are_told(
    nodes: Cluster,
    cluster: ClusterConnection,
    pubsub: PubSub,
    handler: RecordingHandler,
    until: Until,
) -> None:
    await subscribe(pubsub)
    await arrives(cluster, handler, until)
    slot = slot_of(pubsub._keys.channel(LOGS[0]))
    ports = {node.port: node for node in nodes.primaries}
    owners = (await cluster.cluster.slots()).owners
    place = owners[slot]
    assert place is not None
    source = ports[place.port]
    target = next(it for it in nodes.primaries if it is not source)
    handler.subscribed.clear()

    await nodes.move(slot, source, target)
    try:
        await until(lambda: LOGS[0] in handler.subscribed)
        await arrives(cluster, handler, until)
        # Only the readers of that slot had to read.
        assert {slot_of(pubsub._keys.channel(it)) for it in handler.subscribed} == {
            slot
        }
    finally:
        handler.subscribed.clear()
        await nodes.move(slot, target, source)
    await until(lambda: LOGS[0] in handler.subscribed)
    await arrives(cluster, handler, until)


async def test_a_lost_connection_interrupts_its_shard_alone(
    nodes: Cluster,
    cluster: ClusterConnection,
    pubsub: PubSub,
    handler: RecordingHandler,
    until: Until,
) -> None:
    await subscribe(pubsub)
    owners = (await cluster.cluster.slots()).owners
    first = owners[slot_of(pubsub._keys.channel(LOGS[0]))]
    affected = [
        log for log in LOGS if owners[slot_of(pubsub._keys.channel(log))] == first
    ]
    handler.subscribed.clear()
    node = next(it for it in nodes.primaries if first and it.port == first.port)
    clients = (await node.ask("CLIENT", "LIST")).decode().splitlines()
    (mine,) = [line for line in clients if "name=subscriber-test" in line]

    await node.ask("CLIENT", "KILL", "ID", mine.split()[0].removeprefix("id="))

    await until(lambda: len(handler.subscribed) >= len(affected))
    assert sorted(handler.subscribed) == sorted(affected)
    assert pubsub.losses == 1
    assert pubsub.connected
    await arrives(cluster, handler, until)


async def test_a_channel_is_left_on_its_shard(
    cluster: ClusterConnection, pubsub: PubSub, until: Until
) -> None:
    await subscribe(pubsub)
    channels = [pubsub._keys.channel(log) for log in LOGS]
    replies = [
        await (await cluster.server_of(it)).call("PUBSUB", "SHARDNUMSUB", it)
        for it in channels
    ]
    assert [reply[1] for reply in replies] == [1] * len(LOGS)

    for log in LOGS:
        pubsub.unsubscribe(log)
    pubsub.on_watch(float("inf"))

    for channel in channels:
        server = await cluster.server_of(channel)
        async with asyncio.timeout(60):
            # The server has no event for it.
            while (await server.call("PUBSUB", "SHARDNUMSUB", channel))[1]:  # noqa: ASYNC110
                await asyncio.sleep(0)


async def test_subscribing_to_a_shard_that_is_away_fails(nodes: Cluster) -> None:
    pubsub = PubSub(nodes.url, RecordingHandler())
    with pytest.raises(StoreUnavailable):
        await pubsub.subscribe(LOGS[0])
    pubsub.unsubscribe(LOGS[0])


async def test_a_known_log_of_a_shard_that_is_away_is_refused_until_it_is_back(
    pubsub: PubSub, handler: RecordingHandler, until: Until
) -> None:
    log, channel = LOGS[0], pubsub._keys.channel(LOGS[0]).encode()
    await pubsub.subscribe(log)
    whole = pubsub._subscriber
    assert isinstance(whole, ClusterSubscriber)
    whole._partial_from_s = 0
    subscriber = whole._at[slot_of(channel)].subscriber
    address = subscriber._address
    subscriber._address = FixedAddress("redis://127.0.0.1:1")
    subscriber.reconnect()
    await until(lambda: not whole.reaches(channel))
    assert pubsub.connected

    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(60):
            await pubsub.subscribe(log)

    handler.subscribed.clear()
    subscriber._address = address
    await until(lambda: handler.subscribed == [log])
    await pubsub.subscribe(log)


async def test_notices_of_all_buckets_arrive(nodes: Cluster, until: Until) -> None:
    class Handler:
        def on_due(self, bucket: int, due_ms: int) -> None: ...

        def on_sending(self, bucket: int) -> None: ...

        def on_subscribed(self, bucket: int) -> None: ...

    notices = Notices(nodes.url)
    running = asyncio.create_task(notices.run(Handler()))
    await until(lambda: notices.complete)
    running.cancel()
    await asyncio.wait([running])
