"""
Small values that expire: tickets, sessions and revocations.

Knows one script. A full store stores them too, unlike a plain SET.
"""

from __future__ import annotations

from typing import Final, Literal

from ..client.connection import RedisConnection, Script

__all__ = ["put_once", "put_until"]

_PUT: Final = Script("put_until")


async def put_until(
    redis: RedisConnection,
    key: str,
    value: bytes | int,
    unit: Literal["PX", "PXAT"],
    ms: int,
) -> None:
    """
    Store a value for a number of ms (PX), or until a Unix time in ms (PXAT).

    Raises:
        StoreUnavailable: Nothing was stored.
        OutcomeUnknown: It may have been; storing it again is harmless.

    """
    await redis.run(_PUT, (key,), (value, unit, ms))


async def put_once(redis: RedisConnection, key: str, ms: int) -> bool:
    """
    Store that something has happened, for a number of ms; return whether it is new.

    Raises:
        StoreUnavailable: Nothing was stored.
        OutcomeUnknown: It may have been.

    """
    return await redis.run(_PUT, (key,), (1, "PX", ms, "NX")) is not None
