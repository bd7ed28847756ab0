"""
Audit logs: what was done to an app and its players, by whom, when and why.

Decides the form of an entry and how many are kept. An app has a log of its own; the
deployment has one for operations on apps. Knows nothing of which operations are
recorded.

A player is named by a hash (`pseudonyms`), and by name only if the setting
`log_players` says so. The erasure of the player removes the name and the reasons, which
people have written about the player, and leaves the hash.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple

import msgspec

from ...model import App
from ..client.connection import RedisConnection, Script
from ..client.damage import parsed

__all__ = ["ENTRIES_MAX", "AuditEntry", "AuditLog", "AuditRecord", "is_audit_id"]

ENTRIES_MAX: Final = 10_000
"""Entries kept per log; a further one removes the oldest."""

PORTION: Final = 200

PART: Final = "audit log"
"""The name of this part in `Damage`."""

_ID: Final = re.compile(r"(\d{1,15})-(\d{1,10})", re.ASCII)
_FORGET: Final = Script("audit_forget", includes=("_whole", "_rewrite"))


class AuditEntry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """
    One operation.

    `by` is who did it: ``key`` and the id of a backend key, ``oidc`` and the subject of
    a person at the issuer of the console, ``token`` and the hash of its player, or
    ``cli`` and the user of the machine. `by_name` is the name of the key or the person.
    `target` is on what, if not on a player: ``topic:news``. `player` is the hash of the
    player. `outcome` is ``done``, or why it was not done: ``not_found``.
    """

    action: str
    by: str
    by_name: str = ""
    target: str = ""
    player: str = ""
    player_name: str = ""
    reason: str = ""
    request_id: str = ""
    outcome: str = "done"
    details: dict[str, Any] = {}


class AuditRecord(NamedTuple):
    """An entry with its id, ``<ms>-<number>``; ids ascend."""

    id: str
    entry: AuditEntry

    @property
    def at_ms(self) -> int:
        """When it was written, in Unix ms by the store's clock."""
        return int(self.id.partition("-")[0])


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(AuditEntry).decode


def is_audit_id(text: str) -> bool:
    """Whether a text is the id of an entry."""
    return _ID.fullmatch(text) is not None


class AuditLog:
    """
    All audit logs of the store. In place of an app, None stands for the deployment.

    Every method raises StoreUnavailable; those that write raise OutcomeUnknown, too.
    """

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis

    async def append(self, app: App | None, entry: AuditEntry) -> str:
        """Append an entry and return its id. O(1)."""
        added = await self._redis.call(
            *("XADD", self._name(app), "MAXLEN", ENTRIES_MAX, "*"),
            *("e", _encode(entry)),
            write=True,
        )
        return str(added, "ascii")

    async def newest_first(
        self, app: App | None, *, before: str = ""
    ) -> AsyncIterator[AuditRecord]:
        """Yield the entries before an id, newest first. Damaged ones are left out."""
        if before and not before.strip("0-"):
            return  # Nothing is before 0-0, and the store refuses that bound.
        last = f"({before}" if before else "+"
        while True:
            items = await self._redis.call(
                *("XREVRANGE", self._name(app), last, "-", "COUNT", PORTION)
            )
            for item_id, fields in items:
                entry = parsed(_decode, fields[1])
                if isinstance(entry, Exception):
                    self._redis.damage.note(PART, self._name(app), entry)
                else:
                    yield AuditRecord(str(item_id, "ascii"), entry)
            if len(items) < PORTION:
                return
            last = f"({items[-1][0].decode()}"

    async def forget(self, app: App, player: str) -> int:
        """
        Remove the name and the reasons from the entries that concern a player, given by
        its hash, or were the player's own. Returns how many were changed.

        Idempotent. One step, O(entries).
        """
        keys = (self._name(app), self._redis.keys.rewriting(app, "audit"))
        return int(await self._redis.run(_FORGET, keys, (player,)))

    def _name(self, app: App | None) -> str:
        keys = self._redis.keys
        return keys.audit_of_apps if app is None else keys.audit(app)
