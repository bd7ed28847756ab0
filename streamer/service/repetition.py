"""
Repetitions: what makes a request the same as an earlier one, and what it is told.

Decides what an idempotency key stands for, and what a repeated request makes. Knows
where keys are kept. Knows nothing of what a request consists of: whoever has one names
its parts.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from ..core.schedule import Schedule, State
from ..model import App
from ..store.link import Link
from .publisher import checked_key, claim_key

__all__ = ["RequestKey", "as_entered"]


class RequestKey(NamedTuple):
    """
    An idempotency key and the request that it stands for.

    `seed` makes the ids of what the request makes: a repetition makes the same things.
    It is empty without a key.
    """

    app: App
    key: str
    digest: str

    @classmethod
    def of(cls, app: App, key: str | None, *parts: str | bytes) -> RequestKey:
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

    async def claim(self, link: Link) -> None:
        """Let the key, if there is one, stand for this request; see `claim_key`."""
        if self.key:
            await claim_key(link, self.app, self.key, self.digest)


def as_entered(schedule: Schedule) -> Schedule:
    """Return what the first request was told: a repetition is told the same."""
    return schedule._replace(state=State.PENDING, delivered=0, begun_ms=0, settled_ms=0)
