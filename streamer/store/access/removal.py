"""
Removal of an app with everything that is stored for it.

Knows which part of a key names its app. Knows nothing of when to remove one.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from ...model import App
from ..client.connection import RedisConnection
from ..client.replies import ok
from ..client.scanning import scan
from ..keys import BUCKETS
from .apps import KeyRecord

__all__ = ["is_removing", "remove_app"]

SCAN_COUNT: Final = 1_000

_decode_key: Final = msgspec.json.Decoder(KeyRecord).decode


async def remove_app(redis: RedisConnection, name: App, *, settle_s: float = 0) -> None:
    """
    Remove an app: its record, its backend keys, and all keys of its players and topics.

    From the beginning to the end the app is in ``ns:removing``: a removal that failed
    half way is found there and repeated, and no app of that name can be created.
    Repeating it is harmless. Nodes may know the app for some seconds more; what they
    store in that time is removed if `settle_s` is longer than that, otherwise it stays.
    Tickets and server sessions end by themselves. Works through all keys of the store
    in packets, so other commands run between. O(keys of the store).

    Args:
        redis: The connection to the store.
        name: The app.
        settle_s: How long to wait before the keys are gone through once more.

    Raises:
        StoreUnavailable, OutcomeUnknown: Not all of it was removed.

    """
    now_ms = await redis.now_ms()
    await redis.call("HSET", redis.keys.removing, name, now_ms, write=True)
    await _remove_credentials(redis, name)
    await _remove_keys(redis, name)
    if settle_s:
        await asyncio.sleep(settle_s)
        await _remove_keys(redis, name)
    # The name of an erased player is of no app now.
    await _remove_fields(redis, redis.keys.erasures, name)
    await _remove_fields(redis, redis.keys.erasing, name)
    # Last, so that a call that fails on the way is made good by the next one.
    await redis.call("HDEL", redis.keys.removing, name, write=True)


async def is_removing(redis: RedisConnection, name: App) -> bool:
    """Whether the removal of an app has begun and not ended. Raises as `remove_app`."""
    return bool(await redis.call("HEXISTS", redis.keys.removing, name))


async def _remove_fields(redis: RedisConnection, key: str, name: App) -> None:
    """Remove the fields of a hash that begin with the app's name and a space."""
    names = await redis.call("HKEYS", key)
    own = [field for field in names if field.startswith(f"{name} ".encode())]
    if own:
        await redis.call("HDEL", key, *own, write=True)


async def _remove_keys(redis: RedisConnection, name: App) -> None:
    due = [("ZREM", redis.keys.due_apps(bucket), name) for bucket in range(BUCKETS)]
    for reply in await redis.call_many(due, write=True):
        ok(reply)
    # Leases first: one that is released later than its player's other keys are gone
    # would leave when the player was seen.
    for kind in ("lease", "*"):
        await _remove_keys_of(redis, name, kind)


async def _remove_keys_of(redis: RedisConnection, name: App, kind: str) -> None:
    pattern = redis.keys.app_pattern(name, kind)
    async for found in scan(redis, "MATCH", pattern, "COUNT", SCAN_COUNT):
        # The pattern also matches keys of players that are called like the app.
        own = [key for key in found if redis.keys.app_of(key) == name]
        for reply in await redis.call_many([("DEL", key) for key in own], write=True):
            ok(reply)


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
