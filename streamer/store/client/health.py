"""
What a store reports about itself, by ``INFO`` and ``CONFIG GET``.

Knows the commands, and that a hosting provider may forbid each of them.
`core.store_health` interprets the replies.
"""

from __future__ import annotations

from ...core.store_health import SETTINGS, StoreFacts, parse_facts
from .connection import RedisConnection, is_forbidden

__all__ = ["read_facts"]


async def read_facts(redis: RedisConnection) -> StoreFacts:
    """
    Read version, persistence and memory settings of the store, in one packet.

    The cost does not depend on the amount of data.

    Raises:
        StoreUnavailable: The store is unreachable or refuses commands for now.

    """
    info, settings = await redis.call_many([("INFO",), ("CONFIG", "GET", *SETTINGS)])
    for reply in (info, settings):
        if isinstance(reply, Exception) and not is_forbidden(reply):
            raise reply
    return parse_facts(
        b"" if isinstance(info, Exception) else info,
        None if isinstance(settings, Exception) else settings,
    )
