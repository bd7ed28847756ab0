"""What names a player, wherever in the store it is."""

from __future__ import annotations

from streamer.model import Log
from streamer.store.client.connection import RedisConnection
from streamer.store.privacy.traces import Traces


async def test_every_server_of_the_store_is_searched(
    redis: RedisConnection, log: Log
) -> None:
    # Their buckets lead to different servers of a cluster.
    wanted = {f"card {number}" for number in range(30)}
    for card in wanted:
        key = redis.keys.card(log.app, "campaign", card)
        await redis.call("HSET", key, card, f"active 1 5 {log.name}", write=True)

    found = [trace.facts["card"] async for trace in Traces(redis).search(log)]

    assert sorted(found) == sorted(wanted)


async def test_every_server_of_the_store_is_looked_through_for_names(
    redis: RedisConnection, log: Log
) -> None:
    logs = {Log(log.app, f"{log.name}-{number}") for number in range(30)}
    for one in logs:
        await redis.call("SADD", redis.keys.mutes(one), "ad", write=True)

    assert {one async for one in Traces(redis).names(log.app)} == logs
