"""
Idempotency: a request with an ``Idempotency-Key`` takes effect once.

`IdempotentRequest` is the only implementation, for publishes, schedules and campaigns.
It decides which keys are acceptable, what makes two requests the same, and what a
repetition creates. It knows the key's record in the store. It knows nothing of what a
request consists of: its caller lists the parts that have to be equal.

The record maps a key to the digest of the first request for 24 hours. It is what
detects a key that is used again for another request. What makes a repetition harmless
is kept with the effect itself: appends carry the key and its digest (`once`), schedules
have ids that are derived from them (`seed`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from ...core.schedule import Schedule, ScheduleState
from ...errors import Conflict, FieldError, Invalid, StoreFull
from ...model import App
from ...store.client.connection import RedisConnection
from ...store.logs.inbox import ONCE_MS, Once

__all__ = ["IdempotentRequest", "as_first_answered"]

IDEMPOTENCY_KEY_CHARS_MAX: Final = 255
DIGEST_CHARS: Final = 32


class IdempotentRequest(NamedTuple):
    """
    An app's idempotency key and the digest of the request that it stands for.

    Both are empty for a request without a key, which claims nothing.
    """

    app: App
    key: str
    digest: str

    @classmethod
    def of(
        cls, app: App, key: str | None, parts: Iterable[str | bytes]
    ) -> IdempotentRequest:
        """
        Return the request that consists of `parts`, in their order.

        Without a key, `parts` are not read. O(bytes).

        Raises:
            Invalid: The key is not 1 to 255 printable ASCII characters.

        """
        if key is None:
            return cls(app, "", "")
        _check_key(key)
        texts = [part if isinstance(part, bytes) else part.encode() for part in parts]
        digest = hashlib.sha256(b"\0".join([*texts, b""])).hexdigest()
        return cls(app, key, digest[:DIGEST_CHARS])

    @property
    def once(self) -> Once | None:
        """The key as an append carries it, None without one."""
        return Once(self.key, self.digest) if self.key else None

    @property
    def seed(self) -> str:
        """What ids are derived from: a repetition has the same; "" without a key."""
        return f"{self.app}\0{self.key}\0{self.digest}" if self.key else ""

    async def claim(self, redis: RedisConnection) -> None:
        """
        Claim the key, if there is one, for this request, for 24 hours.

        One command, SET with NX and GET. The first request decides how long the claim
        lasts; a repetition does not extend it. A full store refuses that command, even
        if there is nothing to store; then the claim is read.

        Raises:
            Conflict: The key is claimed for another request.
            StoreFull: It is not claimed, and the store is full.
            StoreUnavailable, OutcomeUnknown: As `RedisConnection.call`. Claiming again
                is harmless.

        """
        if not self.key:
            return
        key = redis.keys.request(self.app, self.key)
        try:
            before = await redis.call(
                *("SET", key, self.digest, "NX", "GET", "PX", ONCE_MS), write=True
            )
        except StoreFull:
            before = await redis.call("GET", key)
            if before is None:
                raise
        if before is not None and before != self.digest.encode():
            raise Conflict

    async def is_claimed(self, redis: RedisConnection) -> bool:
        """Whether the key is claimed for this very request. Raises StoreUnavailable."""
        if not self.key:
            return False
        key = redis.keys.request(self.app, self.key)
        digest: bytes | None = await redis.call("GET", key)
        return digest == self.digest.encode()


def as_first_answered(schedule: Schedule) -> Schedule:
    """Return a schedule as the first request was answered; a repetition gets that."""
    return schedule._replace(
        state=ScheduleState.PENDING,
        delivered=0,
        begun_ms=0,
        settled_ms=0,
        paused_ms=0,
        resumed_ms=0,
        held_ms=0,
    )


def _check_key(key: str) -> None:
    if (
        1 <= len(key) <= IDEMPOTENCY_KEY_CHARS_MAX
        and key.isascii()
        and key.isprintable()
    ):
        return
    problem = f"must be 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters"
    raise Invalid(FieldError(("header", "Idempotency-Key"), problem))
