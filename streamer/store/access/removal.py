"""
Removal of an app with everything that is stored for it.

Knows which part of a key names its app. Knows nothing of when to remove one.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ...model import App
from ..client.connection import RedisConnection
from ..client.replies import ok
from ..keys import BUCKETS
from .apps import KeyRecord

__all__ = ["remove_app"]

SCAN_COUNT: Final = 1_000

_decode_key: Final = msgspec.json.Decoder(KeyRecord).decode


async def remove_app(redis: RedisConnection, name: App) -> None:
    """
    Remove an app: its record, its backend keys, and all keys of its players and topics.

    Nodes may know the app for some seconds more; what they store in that time stays.
    Tickets and server sessions end by themselves. Works through all keys of the store
    in packets, so other commands run between. Repeating it is harmless. O(keys of the
    store).

    Raises:
        StoreUnavailable, OutcomeUnknown: Not all of it was removed.

    """
    await _remove_credentials(redis, name)
    due = [("ZREM", redis.keys.due_apps(bucket), name) for bucket in range(BUCKETS)]
    for reply in await redis.call_many(due, write=True):
        ok(reply)
    cursor = b"0"
    while True:
        cursor, found = await redis.call(
            *("SCAN", cursor, "MATCH", redis.keys.app_pattern(name)),
            *("COUNT", SCAN_COUNT),
        )
        # The pattern also matches keys of players that are called like the app.
        own = [key for key in found if redis.keys.app_of(key) == name]
        for reply in await redis.call_many([("DEL", key) for key in own], write=True):
            ok(reply)
        if cursor == b"0":
            return


async def _remove_credentials(redis: RedisConnection, name: App) -> None:
    keys = redis.keys
    records = await redis.call("HGETALL", keys.backend_keys)
    own = [
        digest
        for digest, record in zip(records[::2], records[1::2], strict=True)
        if _decode_key(record).app == name
    ]
    if own:
        await redis.call("HDEL", keys.backend_keys, *own, write=True)
    # Pairs of issuer and audience lead to their app.
    pairs = await redis.call("HGETALL", keys.audiences)
    led = [
        pair
        for pair, app in zip(pairs[::2], pairs[1::2], strict=True)
        if app.decode() == name
    ]
    if led:
        await redis.call("HDEL", keys.audiences, *led, write=True)
    await redis.call("HDEL", keys.apps, name, write=True)
