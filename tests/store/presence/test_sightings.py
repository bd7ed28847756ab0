"""Who is online, and when the others were last seen."""

from __future__ import annotations

from streamer.model import App, Log, Player
from streamer.store.client.connection import RedisConnection
from streamer.store.presence.leases import ALIVE_MS, SEEN_MS, Leases
from streamer.store.presence.sightings import PORTION, Sighting, Sightings

NEVER = Sighting(0, 0)


async def test_a_player_with_leases_is_online(redis: RedisConnection, log: Log) -> None:
    node, other = Leases(redis, leases_max=5), Leases(redis, leases_max=5)
    await node.acquire(log, "one")
    await other.acquire(log, "two")

    assert await Sightings(redis).of_many([log]) == [Sighting(2, 0)]


async def test_a_player_was_last_seen_when_the_last_connection_closed(
    redis: RedisConnection, log: Log
) -> None:
    node = Leases(redis, leases_max=5)
    lease, _ = await node.acquire(log, "one")
    before_ms = await redis.now_ms()

    await node.release(lease)

    (sighting,) = await Sightings(redis).of_many([log])
    assert not sighting.is_online
    assert before_ms <= sighting.seen_ms <= await redis.now_ms()
    lifetime_ms = await redis.call("PTTL", redis.keys.seen(log))
    assert 0 < lifetime_ms <= SEEN_MS


async def test_a_release_of_a_lease_that_is_gone_leaves_no_trace(
    redis: RedisConnection, log: Log
) -> None:
    node = Leases(redis, leases_max=5)
    lease, _ = await node.acquire(log, "one")
    await redis.call("DEL", redis.keys.lease(log))

    await node.release(lease)

    assert await redis.call("EXISTS", redis.keys.seen(log)) == 0


async def test_the_players_of_a_killed_node_were_last_seen_at_its_last_heartbeat(
    redis: RedisConnection, log: Log
) -> None:
    node = Leases(redis, leases_max=5)
    await node.acquire(log, "one")
    gone_ms = await redis.now_ms() - ALIVE_MS - 1_000
    await redis.call("ZADD", redis.keys.nodes, gone_ms, node.node, write=True)

    (sighting,) = await Sightings(redis).of_many([log])

    assert (sighting.connections, sighting.seen_ms) == (0, gone_ms)


async def test_players_are_told_apart_over_several_packets(
    redis: RedisConnection, log: Log
) -> None:
    node = Leases(redis, leases_max=5)
    logs = [Log(App("app"), Player(f"p{n}")) for n in range(PORTION)]
    await node.acquire(log, "one")

    found = await Sightings(redis).of_many([*logs, log])

    assert found == [*[NEVER] * PORTION, Sighting(1, 0)]


async def test_a_damaged_key_hides_nobody_else(
    redis: RedisConnection, log: Log
) -> None:
    node = Leases(redis, leases_max=5)
    damaged = Log(App("app"), Player("damaged"))
    await redis.call("SET", redis.keys.lease(damaged), "text")
    await redis.call("SET", redis.keys.seen(damaged), "text")
    await node.acquire(log, "one")

    assert await Sightings(redis).of_many([damaged, log]) == [NEVER, Sighting(1, 0)]
