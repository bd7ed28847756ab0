"""
The export of a player (GDPR, article 15): everything that the store has, item by item.

Decides which items there are, and how far they are consistent. Knows where a player is
named: what an erasure removes, an export contains. Knows nothing of how a surface
encodes items.

The player's own inbox is exported up to the entry that was newest at the beginning, and
so are audiences. Each item is as it was when it was read; what changes meanwhile may be
exported before or after the change. Memory is bounded by one portion of entries.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec

from ...core.access.rights import Caller
from ...core.streams.views import View
from ...model import Entry, Log, Player, iso_time
from ...store.access.apps import Apps
from ...store.client.damage import own
from ...store.client.replies import ok
from ...store.logs.inbox import Inbox
from ...store.logs.mutes import Mutes
from ...store.logs.receipts import Receipt, ReceiptStore
from ...store.privacy.traces import Traces
from ...store.scheduling.timetable import Timetable
from ..inboxes.audiences import PlayerAudiences
from .audit import Audit

__all__ = ["VERSION", "Exporting", "Item"]

Item = dict[str, Any]
"""A JSON object with a `kind`; texts of notifications are `msgspec.Raw`."""

VERSION: Final = 1

PORTION: Final = 20
"""Entries read at a time. One has at most 64 KiB."""


class Exporting:
    """
    Exports players.

    Args:
        apps: The apps, for revocations of tokens.
        inbox: All logs.
        receipts: The receipts of entries.
        audiences: The audiences of players.
        mutes: The muted types.
        timetable: The schedules.
        traces: Where else players are named.
        audit: The audit log.

    """

    def __init__(
        self,
        apps: Apps,
        inbox: Inbox,
        receipts: ReceiptStore,
        audiences: PlayerAudiences,
        mutes: Mutes,
        timetable: Timetable,
        traces: Traces,
        audit: Audit,
    ) -> None:
        self._apps = apps
        self._inbox = inbox
        self._receipts = receipts
        self._audiences = audiences
        self._mutes = mutes
        self._timetable = timetable
        self._traces = traces
        self._audit = audit

    async def export(
        self, caller: Caller, player: Player, *, reason: str = ""
    ) -> AsyncIterator[Item]:
        """
        Yield everything of a player of the caller's app. O(keys of the store).

        The last item has the kind ``end``: an export without it is not complete.

        Raises:
            Forbidden: The caller lacks the scope ``admin:read``; before the first item.
            StoreUnavailable: The store cannot be read.

        """
        caller.require_scope("admin:read")
        items = self.export_for(caller, Log(caller.app, player), reason=reason)
        async for item in items:
            yield item

    async def export_for(
        self, by: Caller | str, log: Log, *, reason: str = ""
    ) -> AsyncIterator[Item]:
        """Yield what `export` does, without checking rights; see `Audit.recorded`."""
        count = 0
        async with self._audit.recorded(
            log.app, by, "player.export", player=log.player, reason=reason
        ) as details:
            async for item in self._items(log):
                count += 1
                yield item
            details["items"] = count
        yield {"kind": "end", "items": count}

    async def _items(self, log: Log) -> AsyncIterator[Item]:
        now_ms = await self._inbox.now_ms()
        yield {
            "kind": "export",
            "version": VERSION,
            "app": log.app,
            "player": log.name,
            "at": iso_time(now_ms),
        }
        async for item in self._own_log(log):
            yield item
        for view in await self._audiences.views_of(log):
            async for item in self._view(log, view):
                yield item
        for type_ in await self._mutes.of(log):
            yield {"kind": "mute", "type": type_}
        for connection, instance in (await self._traces.leases(log)).items():
            yield {"kind": "connection", "connection": connection, "instance": instance}
        for connection, (device, used_ms) in (await self._traces.devices(log)).items():
            yield {
                "kind": "device",
                "connection": connection,
                "device": device,
                "used_at": iso_time(used_ms),
            }
        if seen_ms := await self._traces.last_seen_ms(log):
            yield {"kind": "presence", "last_seen_at": iso_time(seen_ms)}
        async for item in self._elsewhere(log):
            yield item
        (revoked_s,) = await self._apps.revoked_before_s([log])
        if revoked_s:
            yield {
                "kind": "tokens",
                "revoked_before": iso_time(revoked_s * 1_000),
            }
        async for record in self._audit.about(log):
            yield {
                "kind": "audit",
                "at": iso_time(record.at_ms),
                **msgspec.to_builtins(record.entry),
            }

    async def _own_log(self, log: Log) -> AsyncIterator[Item]:
        async for entries in self._inbox.portions(log, PORTION):
            receipts = await self._receipts_of(log, entries)
            for entry, receipt in zip(entries, receipts, strict=True):
                if entry.withdraws:
                    yield {
                        "kind": "withdrawal",
                        "at": iso_time(entry.at_us // 1_000),
                        "id": entry.withdraws,
                    }
                elif receipt is not None:
                    yield _notification(entry, receipt)

    async def _view(self, log: Log, view: View) -> AsyncIterator[Item]:
        audience = (await self._audiences.read([view.log]))[view.log]
        of: Item = {"topic": view.log.topic} if view.log.topic else {"everyone": True}
        joined_ms = view.joined.at_us // 1_000
        yield {
            "kind": "subscription",
            **of,
            "muted": view.muted,
            **({"joined_after": iso_time(joined_ms)} if joined_ms else {}),
        }
        view = view.at(audience)
        views = self._audiences.views
        acked = await views.acked_offset(log, view.log, audience.head.epoch)
        async for entries in self._inbox.portions(view.log, PORTION):
            mine = [it for it in entries if view.reaches(it) and not it.withdraws]
            if not mine:
                continue
            receipts = await self._receipts_of(view.log, mine)
            ((read_at_ms),) = await views.read_at_ms(
                log, [(view.log, [it.offset for it in mine])]
            )
            for entry, receipt, at_ms in zip(mine, receipts, read_at_ms, strict=True):
                if receipt is None:
                    continue
                done = view.is_done(entry.offset)
                receipt = receipt._replace(
                    read_at_ms=at_ms if done else 0, acknowledged=entry.offset <= acked
                )
                item = _notification(entry, receipt)
                if entry.offset in view.deleted:
                    item["deleted"] = True
                yield {**item, **of}

    async def _elsewhere(self, log: Log) -> AsyncIterator[Item]:
        async for trace in self._traces.search(log):
            item: Item = {"kind": _KINDS[trace.kind], **trace.facts}
            if trace.schedule is not None:
                schedule = await self._timetable.get(log.app, trace.schedule.id)
                if schedule is None:
                    continue
                item["send_at"] = iso_time(schedule.due_ms)
                item["notification"] = msgspec.Raw(b"{" + schedule.fragment)
                if schedule.spelling:
                    item["spelling"] = schedule.spelling
            elif trace.kind == "ticket":
                ends_ms = item.pop("token_expires_at_ms")
                item["token_expires_at"] = iso_time(ends_ms)
            elif trace.kind == "cards":
                continue  # Copies of cards.
            yield item

    async def _receipts_of(
        self, log: Log, entries: Sequence[Entry]
    ) -> list[Receipt | None]:
        found = await self._receipts.of_each([(log, it.position) for it in entries])
        return [ok(own(receipt)) for receipt in found]


_KINDS: Final = {
    "once": "idempotency",
    "named": "label",
    "ticket": "ticket",
    "schedule": "schedule",
    "to": "recipient",
    "card": "card",
    "cards": "card",
}
"""How items name what is found by a search."""


def _notification(entry: Entry, receipt: Receipt) -> Item:
    item: Item = {
        "kind": "notification",
        "id": entry.position.id,
        "created_at": iso_time(entry.at_us // 1_000),
        "acknowledged": receipt.acknowledged,
    }
    if receipt.ended:
        item["ended"] = receipt.ended
    if receipt.read_at_ms:
        item["read_at"] = iso_time(receipt.read_at_ms)
    if receipt.expires_ms:
        item["expires_at"] = iso_time(receipt.expires_ms)
    if entry.device:
        item["device"] = entry.device
    if entry.fragment:  # It may be purged.
        item["notification"] = msgspec.Raw(b"{" + entry.fragment)
    return item
