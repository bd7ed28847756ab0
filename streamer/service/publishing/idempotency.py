"""
Repetitions: what makes a request the same as an earlier one, and what it is told.

Decides which idempotency keys are acceptable, what one stands for, and what a repeated
request makes. Knows where keys are kept. Knows nothing of what a request consists of:
whoever has one names its parts.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from ...core.schedule import Schedule, State
from ...errors import Conflict, FieldError, Invalid
from ...model import App
from ...store.client.connection import RedisConnection
from ...store.keys import request_key
from ...store.logs.inbox import ONCE_MS

__all__ = ["IdempotentRequest", "as_entered", "checked_key", "claim_key", "is_claimed"]

IDEMPOTENCY_KEY_CHARS_MAX: Final = 255


class IdempotentRequest(NamedTuple):
    """
    An idempotency key and the request that it stands for.

    `seed` makes the ids of what the request makes: a repetition makes the same things.
    It is empty without a key.
    """

    app: App
    key: str
    digest: str

    @classmethod
    def of(cls, app: App, key: str | None, *parts: str | bytes) -> IdempotentRequest:
        """Return the key for a request of these parts. Raises Invalid."""
        if key is None:
            return cls(app, "", "")
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part if isinstance(part, bytes) else part.encode())
            digest.update(b"\0")
        return cls(app, checked_key(key), digest.hexdigest()[:32])

    @property
    def seed(self) -> str:
        return f"{self.app}\0{self.key}\0{self.digest}" if self.key else ""

    async def claim(self, redis: RedisConnection) -> None:
        """Let the key, if there is one, stand for this request; see `claim_key`."""
        if self.key:
            await claim_key(redis, self.app, self.key, self.digest)


def checked_key(key: str) -> str:
    """Return an idempotency key that is acceptable. Raises Invalid."""
    if (
        1 <= len(key) <= IDEMPOTENCY_KEY_CHARS_MAX
        and key.isascii()
        and key.isprintable()
    ):
        return key
    problem = f"must be 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters"
    raise Invalid(FieldError(("header", "Idempotency-Key"), problem))


async def claim_key(redis: RedisConnection, app: App, key: str, digest: str) -> None:
    """
    Let an idempotency key stand for the request of that digest, for a day.

    Raises:
        Conflict: It stands for another one.
        StoreUnavailable, OutcomeUnknown: As `RedisConnection.call`; asking again is
        harmless.

    """
    before = await redis.call(
        "SET",
        request_key(app, key),
        digest,
        "NX",
        "GET",
        "PX",
        ONCE_MS,
        write=True,
    )
    if before is not None and before != digest.encode():
        raise Conflict


async def is_claimed(redis: RedisConnection, app: App, key: str, digest: str) -> bool:
    """Whether a key stands for the request of that digest. Raises StoreUnavailable."""
    before: bytes | None = await redis.call("GET", request_key(app, key))
    return before == digest.encode()


def as_entered(schedule: Schedule) -> Schedule:
    """Return what the first request was told: a repetition is told the same."""
    return schedule._replace(state=State.PENDING, delivered=0, begun_ms=0, settled_ms=0)
