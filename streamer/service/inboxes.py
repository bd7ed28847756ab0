"""
Reading an inbox and marking it, for somebody who may.

Decides the rights each needs, and what a cursor or an id of the caller's means. Knows
the inbox. Knows nothing of surfaces: they choose the limits and write the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..core.access import Caller
from ..core.subscription import Place
from ..errors import FieldError, Invalid, NotFound
from ..model import (
    CURSOR_CHARS_MAX,
    Log,
    Player,
    Position,
    decode_cursor,
    decode_id,
)
from ..store.inbox import Inbox, Marked, Page, PageEntry, Read

__all__ = ["Inboxes", "parse_cursor"]

MARK_IDS_MAX: Final = 1_000


def parse_cursor(text: str, *where: str) -> Position:
    """
    Return the position that a caller's cursor or id names.

    Raises:
        Invalid: It is neither; the error says `where` it stood.

    """
    if len(text) <= CURSOR_CHARS_MAX and (position := decode_cursor(text)):
        return position
    raise Invalid(FieldError(where, "is not a cursor or notification id"))


class Inboxes:
    """What a caller may do with inboxes."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def page(
        self,
        caller: Caller,
        player: Player,
        *,
        newest: Position | None = None,
        newest_included: bool = True,
        oldest: Position | None = None,
        count: int,
        version: str = "",
    ) -> Page:
        """Read a page as `store.inbox` does. Raises Forbidden, StoreAway."""
        caller.require_read(player)
        return await self._inbox.page(
            Log(caller.app, player),
            newest=newest,
            newest_included=newest_included,
            oldest=oldest,
            count=count,
            version=version,
        )

    async def one(
        self, caller: Caller, player: Player, notification_id: str
    ) -> PageEntry:
        """
        Return one notification.

        Raises:
            Forbidden: The caller may not read this inbox.
            NotFound: No such notification in it, or not any more.
            StoreAway: It cannot be read now.

        """
        caller.require_read(player)
        place = decode_id(notification_id)
        if place is None:
            raise NotFound("the notification")
        page = await self._inbox.page(
            Log(caller.app, player),
            newest=place,
            oldest=place,
            oldest_included=True,
            count=1,
        )
        for found in page.entries or ():
            if found.entry.tag == place.tag:
                return found
        raise NotFound("the notification")

    async def after(
        self, caller: Caller, player: Player, place: Place, *, count: int
    ) -> Read:
        """Read what follows a place, oldest first. Raises Forbidden, StoreAway."""
        caller.require_listen(player)
        return await self._inbox.read_after(Log(caller.app, player), place, count=count)

    async def mark_ids(
        self,
        caller: Caller,
        player: Player,
        ids: Sequence[str],
        *,
        ids_max: int = MARK_IDS_MAX,
    ) -> Marked:
        """
        Mark notifications as read, all in one step; unknown ids are ignored.

        Raises:
            Forbidden: The caller may not mark this inbox.
            Invalid: There are more than `ids_max`.
            StoreAway: Nothing was marked.
            OutcomeUnknown: Repeating it is harmless.

        """
        caller.require_mark(player)
        if len(ids) > ids_max:
            problem = f"has {len(ids)} items, allowed {ids_max}"
            raise Invalid(FieldError(("body", "ids"), problem))
        places = [place for text in ids if (place := decode_id(text))]
        return await self._inbox.mark_ids(Log(caller.app, player), places)

    async def mark_up_to(
        self, caller: Caller, player: Player, position: Position
    ) -> Marked:
        """Mark all up to a position; see `mark_ids`. A foreign one marks nothing."""
        caller.require_mark(player)
        return await self._inbox.mark_up_to(Log(caller.app, player), position)

    async def mark_all(self, caller: Caller, player: Player) -> Marked:
        """Mark all that is in the inbox at this moment; see `mark_ids`."""
        caller.require_mark(player)
        return await self._inbox.mark_all(Log(caller.app, player))
