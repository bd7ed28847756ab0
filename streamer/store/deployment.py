"""
The record of a deployment in its store.

Decides when a record is written, and what a store without one holds. Knows the keys
``ns:deployment`` and ``ns:{ns:nodes}:levels``. Whoever reads the record on a connection
sets the terms of that connection. `core.deployment` decides what the record means.

The first node writes the record before anything else. Later only its level changes:
`raise_level` raises it once all nodes can read more. So data without a record is of
format 1. To look for such data takes a bounded number of steps,
however large the store is: two keys that every deployment has, and a sample of
`SAMPLE_KEYS` keys.
"""

from __future__ import annotations

import uuid
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import msgspec
from redis.exceptions import ResponseError

from ..core.deployment import (
    FORMAT,
    LEVEL,
    Deployment,
    common_level,
    format_problem,
    holds_data,
    level_problem,
    name_problem,
    parse_deployment,
)
from ..errors import StoreUnavailable, StoreUnfit
from .client.connection import RedisConnection, Script, is_forbidden
from .client.replies import ok
from .client.scanning import scan
from .presence.leases import node_beats

__all__ = [
    "enter_deployment",
    "find_deployment",
    "judge_record",
    "raise_level",
    "read_deployment",
    "read_levels",
    "read_record",
    "restore_deployment",
]

SAMPLE_KEYS: Final = 10_000
"""Number of keys, about, that are looked at if a store has no record."""

SCAN_COUNT: Final = 1_000

SURE_MS: Final = 60_000
"""
How long a node counts that has had no heartbeat and did not leave. One that is only
slow goes on to read, until it has read the record again.
"""

_RAISE: Final = Script("deployment_raise")


async def read_deployment(redis: RedisConnection, name: str = "") -> Deployment | None:
    """
    Return the deployment whose record a connection's namespace has, or None.

    Args:
        redis: The connection.
        name: The name that it must have; empty means any.

    Raises:
        StoreUnfit: It must not be used: it has another name or another format.
        StoreUnavailable: The store is unreachable.
        ResponseError: The store refused to show the record.

    """
    encoded = await read_record(redis)
    return None if encoded is None else judge_record(redis, encoded, name)


async def read_record(redis: RedisConnection) -> bytes | None:
    """Return the record as it is stored, None if there is none; unjudged."""
    encoded: bytes | None = await redis.call("GET", redis.keys.deployment)
    return encoded


async def find_deployment(redis: RedisConnection, name: str = "") -> Deployment | None:
    """
    Return the deployment in a connection's namespace, None if it is empty.

    As `read_deployment`. Raises StoreUnfit also if there is data without a record.
    """
    record = await read_deployment(redis, name)
    if record is None and await _has_data(redis):
        # Another node may have written the record, and data, in between.
        record = await read_deployment(redis, name)
        if record is None:
            raise StoreUnfit(
                f"{_where(redis)} {format_problem(1)}: use an empty database, or "
                "another namespace"
            )
    return record


async def enter_deployment(redis: RedisConnection, name: str = "") -> Deployment:
    """
    Return the deployment in a connection's namespace; begin one if there is none.

    If several nodes begin one at the same time, one of them does, and all get that one.

    Args:
        redis: The connection.
        name: The name that it must have, or is given; empty means any, or none.

    Raises:
        StoreUnfit: As `find_deployment`.
        StoreUnavailable: The store is unreachable, or takes no writes.
        OutcomeUnknown: The record may have been written. Repeating it is harmless.
        ResponseError: The store refused to show or to write the record.

    """
    found = await find_deployment(redis, name)
    if found is not None:
        return found
    own = Deployment(FORMAT, str(uuid.uuid4()), name, _version(), LEVEL, _version())
    return await _write(redis, own, name)


async def restore_deployment(
    redis: RedisConnection, deployment: Deployment
) -> Deployment:
    """
    Write a record that a store had, and has lost; return the one that it has then.

    For a store that was emptied while a node ran. Raises as `enter_deployment`.
    """
    return await _write(redis, deployment, deployment.name)


async def read_levels(redis: RedisConnection) -> dict[bytes, int]:
    """
    Return the level that each node can read, by its name.

    Those of all nodes that had a heartbeat within `SURE_MS`. A node that tells none is
    of a version that knows no levels, which is level 0.

    Raises:
        StoreUnavailable: The store is unreachable.
        ResponseError: The store refused to show them.

    """
    beats = await node_beats(redis)
    flat = await redis.call("HGETALL", redis.keys.node_levels)
    told = dict(zip(flat[::2], flat[1::2], strict=True))
    return {
        node: common_level([node], told)
        for node, age_ms in beats.ages_ms.items()
        if age_ms <= SURE_MS
    }


async def raise_level(redis: RedisConnection, found: Deployment) -> Deployment:
    """
    Raise the level of a deployment to what all its nodes can read, if that is more.

    Returns the deployment after that. If another node changed the record meanwhile,
    nothing is done. A node that starts in the same moment with an older version finds
    the level with its next look at the record, within a second.

    Raises:
        StoreUnavailable: The store is unreachable, or takes no writes.
        OutcomeUnknown: The level may have been raised. Repeating it is harmless.
        ResponseError: The store refused to show or to write it.

    """
    levels = await read_levels(redis)
    level = min(levels.values(), default=0)
    if level <= found.level:
        return found
    seen = await read_record(redis)
    if seen is None or judge_record(redis, seen, "") != found:
        return found
    # What other versions have written there stays.
    fields = {**msgspec.json.decode(seen), "level": level, "raised_by": _version()}
    new = msgspec.json.encode(fields)
    if not await redis.run(_RAISE, (redis.keys.deployment,), (seen, new)):
        return found
    return judge_record(redis, new, "")


async def _write(redis: RedisConnection, own: Deployment, name: str) -> Deployment:
    encoded = await redis.call(
        *("SET", redis.keys.deployment, msgspec.json.encode(own), "NX", "GET"),
        write=True,
    )
    if encoded is not None:
        return judge_record(redis, encoded, name)
    redis.terms.level = own.level
    return own


def judge_record(redis: RedisConnection, encoded: bytes, name: str) -> Deployment:
    """
    Return the deployment of a record that was read on a connection; set its terms.

    Raises StoreUnfit as `read_deployment`.
    """
    try:
        record = parse_deployment(encoded)
    except ValueError as error:
        raise StoreUnfit(
            f"{redis.keys.deployment} is not the record of a deployment: {error}"
        ) from error
    problem = (
        format_problem(record.format, record.version)
        or level_problem(record)
        or name_problem(record, name)
    )
    if problem is not None:
        raise StoreUnfit(f"{_where(redis)} {problem}")
    redis.terms.level = record.level
    return record


async def _has_data(redis: RedisConnection) -> bool:
    keys = redis.keys
    known = [("EXISTS", keys.apps), ("EXISTS", keys.backend_keys)]
    replies = await redis.call_many(known)
    if any(map(ok, replies)):
        return True
    left = SAMPLE_KEYS // SCAN_COUNT
    try:
        async for names in scan(redis, "COUNT", SCAN_COUNT):
            left -= 1
            if any(holds_data(name, keys.namespace) for name in names):
                return True
            if not left:
                break
    except (ResponseError, StoreUnavailable) as error:
        if not is_forbidden(error):
            raise
        # The ACL forbids it. What every deployment has is missing.
    return False


def _where(redis: RedisConnection) -> str:
    return f"the namespace {redis.keys.namespace!r} of the store"


@cache
def _version() -> str:
    try:
        return version("streamer-server")
    except PackageNotFoundError:  # Run from a source tree.
        return ""
