"""
Walks through all keys of a store, on every server that has a part of them.

Knows SCAN. Knows nothing of what the keys are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from .connection import RedisConnection

__all__ = ["scan"]


async def scan(
    redis: RedisConnection, *options: str | int
) -> AsyncIterator[list[bytes]]:
    """
    Yield the keys of the store, in portions, server by server.

    A key that exists from the beginning to the end is yielded at least once, unless its
    slot of a cluster moves meanwhile. Other commands run between the portions.

    Args:
        redis: The connection to the store.
        options: Options of SCAN, such as ``MATCH`` and a pattern.

    Raises:
        StoreUnavailable: Not all keys were yielded.
        ResponseError: The store refused the command.

    """
    for server in await redis.servers():
        cursor = b"0"
        while True:
            cursor, keys = await server.call("SCAN", cursor, *options)
            yield keys
            if cursor == b"0":
                break
