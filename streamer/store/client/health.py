"""
What a store reports about itself, by ``INFO`` and ``CONFIG GET``.

Knows the commands, and that a hosting provider may forbid each of them.
`core.store_health` interprets the replies.
"""

from __future__ import annotations

import asyncio

from ...core.store_health import SETTINGS, StoreFacts, parse_facts
from ...errors import Unavailable
from .connection import RedisConnection, is_forbidden
from .faults import STORE_FAILURES

__all__ = ["read_all_facts", "read_facts", "read_replicas"]


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


async def read_all_facts(redis: RedisConnection) -> dict[str, StoreFacts]:
    """
    Read the facts of every server that has a part of the keys, by its address.

    Those of a single server have an empty address. A primary of a cluster that is away
    is left out.

    Raises:
        StoreUnavailable: All of them are away.

    """
    servers = await redis.servers()
    if len(servers) == 1 and servers[0] is redis:
        return {"": await read_facts(redis)}
    found: dict[str, StoreFacts] = {}
    failures: list[Unavailable] = []
    reads = [read_facts(server) for server in servers]
    replies = await asyncio.gather(*reads, return_exceptions=True)
    for server, reply in zip(servers, replies, strict=True):
        if isinstance(reply, StoreFacts):
            server.note_serving()
            found[server.address.where] = reply
        elif isinstance(reply, Unavailable):
            failures.append(reply)
        else:
            raise reply
    if not found and failures:
        raise failures[0]
    return found


async def read_replicas(redis: RedisConnection) -> dict[str, StoreFacts]:
    """Read the facts of a cluster's replicas; see `read_all_facts`. Never fails."""
    found: dict[str, StoreFacts] = {}
    for replica in await redis.replicas():
        try:
            found[replica.address.where] = await read_facts(replica)
        except STORE_FAILURES:
            continue  # Its primary counts the replicas that are in sync.
        finally:
            await replica.close()
    return found
