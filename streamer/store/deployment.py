"""
The record of a deployment in its store.

Decides when a record is written, and what a store without one holds. Knows the key
``ns:deployment``. `core.deployment` decides what the record means.

The first node writes the record before anything else, and it is never changed. So data
without a record is of format 1. To look for such data takes a bounded number of steps,
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
    Deployment,
    format_problem,
    holds_data,
    name_problem,
    parse_deployment,
)
from ..errors import StoreUnavailable, StoreUnfit
from .client.connection import RedisConnection, is_forbidden
from .client.replies import ok
from .client.scanning import scan

__all__ = [
    "enter_deployment",
    "find_deployment",
    "read_deployment",
    "restore_deployment",
]

SAMPLE_KEYS: Final = 10_000
"""Number of keys, about, that are looked at if a store has no record."""

SCAN_COUNT: Final = 1_000


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
    encoded = await redis.call("GET", redis.keys.deployment)
    return None if encoded is None else _judge(redis, encoded, name)


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
    own = Deployment(FORMAT, str(uuid.uuid4()), name, _version())
    return await _write(redis, own, name)


async def restore_deployment(
    redis: RedisConnection, deployment: Deployment
) -> Deployment:
    """
    Write a record that a store had, and has lost; return the one that it has then.

    For a store that was emptied while a node ran. Raises as `enter_deployment`.
    """
    return await _write(redis, deployment, deployment.name)


async def _write(redis: RedisConnection, own: Deployment, name: str) -> Deployment:
    encoded = await redis.call(
        *("SET", redis.keys.deployment, msgspec.json.encode(own), "NX", "GET"),
        write=True,
    )
    return own if encoded is None else _judge(redis, encoded, name)


def _judge(redis: RedisConnection, encoded: bytes, name: str) -> Deployment:
    try:
        record = parse_deployment(encoded)
    except ValueError as error:
        raise StoreUnfit(
            f"{redis.keys.deployment} is not the record of a deployment: {error}"
        ) from error
    problem = format_problem(record.format, record.version) or name_problem(
        record, name
    )
    if problem is not None:
        raise StoreUnfit(f"{_where(redis)} {problem}")
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
