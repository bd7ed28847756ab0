"""
Receipts: whether a notification was acknowledged or read, and how it ended.

Decides how to look up receipts and how acknowledgements are stored. Knows the scripts.
Knows nothing of rights.

A client acknowledges everything up to a position, which takes one number per player.
Read marks and ends of entries are stored anyway. A receipt is therefore computed when
it is requested, and nothing else is stored for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from ...model import Entry, Log, Position
from ..client.connection import RedisConnection, Script, ScriptCall
from ..client.damage import own, parsed
from ..client.replies import ok
from .entries import parse_entry, position_args
from .settings import LogSettings

__all__ = ["EndReason", "Receipt", "ReceiptStore"]

_ACKNOWLEDGE: Final = Script(
    "acknowledge", includes=("_announce", "_whole", "_inbox", "_marks")
)
_RECEIPT: Final = Script(
    "receipt", includes=("_whole", "_inbox", "_ranges", "_read_at")
)

EndReason = Literal["", "expired", "withdrawn", "replaced"]


class Receipt(NamedTuple):
    """
    The receipt of an entry. Times are Unix ms, 0 for none.

    `acknowledged` is whether a client has confirmed that it has the entry. `read_at_ms`
    does not change after the entry has ended. `expires_ms` is when the entry expires or
    has expired; 0 if it was withdrawn or replaced before.
    """

    stored_ms: int
    acknowledged: bool
    read_at_ms: int
    ended: EndReason
    expires_ms: int


class ReceiptStore:
    """
    The receipts of all logs of the store.

    Args:
        redis: The connection to the store.
        settings: The settings of all logs.

    """

    def __init__(self, redis: RedisConnection, settings: LogSettings) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._settings = settings

    async def acknowledge(self, log: Log, position: Position) -> bool:
        """
        Record that a client has all entries up to `position`.

        Returns whether that was new. A position that the log does not know is ignored.
        O(log n). Raises as `RedisConnection.run`; this operation is idempotent.
        """
        args = (*self._settings.script_args(), *position)
        return bool(await self._redis.run(_ACKNOWLEDGE, self._keys.inbox(log), args))

    async def of(self, log: Log, position: Position) -> Receipt | None:
        """Return the receipt of the entry at `position`; see `of_many`."""
        (receipt,) = await self.of_many([(log, position)])
        return receipt

    async def of_many(
        self, positions: Sequence[tuple[Log, Position]]
    ) -> list[Receipt | None]:
        """
        Return the receipts of entries, in one packet; None if there is no entry.

        O(log n) each, and O(kept / 8) bytes. Raises StoreUnavailable, or what one log
        alone has refused.
        """
        return [ok(receipt) for receipt in await self.of_each(positions)]

    async def newest(self, log: Log, count: int) -> list[tuple[Entry, Receipt]]:
        """
        Return the newest entries of a log with their receipts, ended ones too.

        Newest first; control entries are left out, so there may be fewer than `count`.
        O(count log n). Raises StoreUnavailable, or what the log has refused.
        """
        state, stream = self._keys.inbox(log)[:2]
        items, epoch = await self._redis.call_many(
            [("XREVRANGE", stream, "+", "-", "COUNT", count), ("HGET", state, "epoch")]
        )
        entries = [
            entry
            for entry in (parse_entry(int(ok(epoch) or 0), it) for it in ok(items))
            if not entry.withdraws
        ]
        receipts = await self.of_many([(log, entry.position) for entry in entries])
        pairs = zip(entries, receipts, strict=True)
        # One that is missing was trimmed in between.
        return [(entry, receipt) for entry, receipt in pairs if receipt is not None]

    async def of_each(
        self, positions: Sequence[tuple[Log, Position]]
    ) -> list[Receipt | Exception | None]:
        """Return what `of_many` does, with an exception where a log is damaged."""
        calls = [
            ScriptCall(
                _RECEIPT,
                self._keys.inbox(log),
                (*self._settings.script_args(), *position_args([position])),
            )
            for log, position in positions
        ]
        receipts: list[Receipt | Exception | None] = []
        replies = await self._redis.run_many(calls, write=False)
        for (_, position), reply in zip(positions, replies, strict=True):
            receipt = own(reply)
            if receipt is not None and not isinstance(receipt, Exception):
                receipt = parsed(_receipt, position.at_us // 1_000, *reply)
            receipts.append(receipt)
        return receipts


def _receipt(
    stored_ms: int, acknowledged: int, read_at_ms: bytes, ended: Any, expires_ms: bytes
) -> Receipt:
    return Receipt(
        stored_ms,
        bool(acknowledged),
        int(read_at_ms),
        ended.decode(),
        int(expires_ms),
    )
