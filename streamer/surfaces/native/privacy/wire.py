"""
The audit log and results of erasures as bytes.

No I/O, no services.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from ....errors import FieldError, Invalid
from ....model import Player, iso_time
from ....names import parse_player
from ....service.privacy.erasure import Erased
from ....service.privacy.export import Item
from ....store.privacy.audit_log import AuditRecord, is_audit_id

__all__ = [
    "encode_audit",
    "encode_erased",
    "encode_items",
    "read_before",
    "read_player",
]

_encode: Final = msgspec.json.Encoder().encode


def encode_audit(records: Sequence[AuditRecord], *, more: bool) -> bytes:
    """Return a page of the audit log. With `more`, further entries follow it."""
    return _encode(
        {
            "entries": list(map(_entry, records)),
            "next": records[-1].id if more else None,
        }
    )


def _entry(record: AuditRecord) -> dict[str, Any]:
    entry = msgspec.to_builtins(record.entry)
    entry.setdefault("outcome", "done")
    return {"id": record.id, "at": iso_time(record.at_ms), **entry}


def encode_erased(erased: Erased) -> bytes:
    """Return the result of an erasure."""
    files = "pending" if erased.in_files else "external"
    return _encode({"removed": erased.removed, "files": files})


async def encode_items(
    first: Item, others: AsyncIterator[Item]
) -> AsyncIterator[bytes]:
    """Yield items as lines of JSON."""
    yield _encode(first) + b"\n"
    async for item in others:
        yield _encode(item) + b"\n"


def read_before(query: Mapping[str, str]) -> str:
    """Return the id in a query, "" without one. Raises Invalid."""
    text = query.get("before")
    if text is None:
        return ""
    if is_audit_id(text):
        return text
    raise Invalid(FieldError(("query", "before"), "is not the next of an audit page"))


def read_player(query: Mapping[str, str]) -> Player | None:
    """Return the player in a query, None without one. Raises Invalid."""
    text = query.get("player")
    if text is None:
        return None
    if player := parse_player(text):
        return player
    raise Invalid(FieldError(("query", "player"), "is not a player name"))
