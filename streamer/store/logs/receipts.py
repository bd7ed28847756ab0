"""
Receipts: what became of a notification after it was stored.

Decides how they are asked of the store, and how a client's word that it has something
is kept. Knows the scripts. Knows nothing of who may ask.

A client that says it has everything up to a place costs one number per player, whatever
it says it of. What was read is known by the read marks, and how an entry ended by what
ended it; so a receipt is looked up when it is asked for, and nothing is kept for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from ...model import Log, Position
from ..client.connection import RedisConnection, Script, ScriptCall
from ..client.replies import ok
from ..keys import inbox_keys
from .entries import position_args
from .settings import LogSettings

__all__ = ["EndReason", "Receipt", "ReceiptStore"]

_ACKNOWLEDGE: Final = Script("acknowledge", includes=("_inbox", "_marks"))
_RECEIPT: Final = Script("receipt", includes=("_inbox", "_read_at"))

EndReason = Literal["", "expired", "withdrawn", "replaced"]


class Receipt(NamedTuple):
    """
    What became of an entry. Times are Unix ms, 0 for not.

    `acknowledged` is whether a client has said it has it. `read_at_ms` stays what it
    was when the entry ended. `expires_ms` is when it ends or has ended by itself; 0
    too where something else has ended it.
    """

    stored_ms: int
    acknowledged: bool
    read_at_ms: int
    ended: EndReason
    expires_ms: int


class ReceiptStore:
    """
    All receipts of the store.

    Args:
        redis: The way to the store.
        settings: The settings of all logs.

    """

    def __init__(self, redis: RedisConnection, settings: LogSettings) -> None:
        self._redis = redis
        self._settings = settings

    async def acknowledge(self, log: Log, position: Position) -> bool:
        """
        Note that a client has all up to `position`; return whether that was news.

        A position that the log does not know is ignored. O(log n). Raises as
        `RedisConnection.run`; saying it again is harmless.
        """
        args = (*self._settings.script_args(), *position)
        return bool(await self._redis.run(_ACKNOWLEDGE, inbox_keys(log), args))

    async def of(self, log: Log, position: Position) -> Receipt | None:
        """Return the receipt of the entry at `position`; see `of_many`."""
        (receipt,) = await self.of_many([(log, position)])
        return receipt

    async def of_many(
        self, positions: Sequence[tuple[Log, Position]]
    ) -> list[Receipt | None]:
        """
        Return the receipts of entries, in one packet; None where there is none there.

        O(log n) each, and O(kept / 8) bytes. Raises StoreUnavailable.
        """
        calls = [
            ScriptCall(
                _RECEIPT,
                inbox_keys(log),
                (*self._settings.script_args(), *position_args([position])),
            )
            for log, position in positions
        ]
        receipts = []
        replies = await self._redis.run_many(calls, write=False)
        for (_, position), reply in zip(positions, replies, strict=True):
            ok(reply)
            receipts.append(None if reply is None else _receipt(position.at_ms, *reply))
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
