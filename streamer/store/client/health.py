"""
Asking a store about itself.

Knows the commands, and that a host may forbid each of them. What the answers mean is
the matter of `core.store_health`.
"""

from __future__ import annotations

from redis.exceptions import ResponseError

from ...core.store_health import SETTINGS, StoreFacts, parse_facts
from .connection import RedisConnection

__all__ = ["read_facts"]


async def read_facts(redis: RedisConnection) -> StoreFacts:
    """
    Read what the store says about itself. O(1) in what it holds.

    Raises:
        StoreUnavailable: It does not answer, or not now.

    """
    info, settings = await redis.call_many([("INFO",), ("CONFIG", "GET", *SETTINGS)])
    for reply in (info, settings):
        if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
            raise reply
    return parse_facts(
        b"" if isinstance(info, ResponseError) else info,
        None if isinstance(settings, ResponseError) else settings,
    )
