"""
Which audiences a player belongs to, and what it has not read of theirs.

Decides when a player began to be one of everybody, and reads views and audiences
together. Knows the views and the logs. Knows nothing of who asks.

A player is one of everybody from its first appearance on: its first notification, its
first page or stream. That is written down when its views are looked at for the first
time. A topic is joined and left in so many words, on behalf of the player.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

from ...core.streams.cursor import Cursor, audience_mark
from ...core.streams.views import Audience, View
from ...errors import Unavailable
from ...model import ZERO, Log, Position, Topic, everyone_log, topic_log
from ...store.logs.inbox import Inbox
from ...store.logs.views import PlayerViews, Views

__all__ = ["PlayerAudiences", "later", "unread"]


def unread(views: Iterable[View], audiences: dict[Log, Audience]) -> int:
    """Return how many notifications of its audiences a player has not read."""
    # One that was joined a moment ago has not been looked at.
    return sum(v.unread(audiences[v.log]) for v in views if v.log in audiences)


def later(joined: Position, place: Position) -> Position:
    """Return the later place in an audience; of a log that was lost, the other."""
    if joined.epoch not in (0, place.epoch) and not place.is_zero:
        return place
    return max(joined, place, key=lambda position: position.offset)


class PlayerAudiences:
    """
    The audiences of players. Every method raises StoreUnavailable.

    Args:
        views: What players see of them.
        inbox: Their logs.

    """

    def __init__(self, views: Views, inbox: Inbox) -> None:
        self.views = views
        self._inbox = inbox

    async def of(self, log: Log) -> list[View]:
        """Return a player's views, everybody's among them."""
        (views,) = await self.of_many([log])
        if isinstance(views, Exception):
            raise views
        return views

    def seen(self, log: Log, replies: Sequence[Any]) -> list[View] | None:
        """Return a player's views from replies to `Views.peek`, if these say all."""
        if not replies or any(isinstance(reply, Exception) for reply in replies):
            return None
        found = self.views.parse_peek(log, replies)
        return None if found is None else found.views

    async def of_many(self, logs: Sequence[Log]) -> list[list[View] | Exception]:
        """Return the views of players; what cannot be read is an exception."""
        found = await self.views.read_many(logs)
        return [
            player if isinstance(player, Exception) else await self.settle(log, player)
            for log, player in zip(logs, found, strict=True)
        ]

    async def settle(self, log: Log, found: PlayerViews) -> list[View]:
        """Return the views as read; let a player that has none be one of everybody."""
        everyone = everyone_log(log.app)
        if any(view.log == everyone for view in found.views):
            return found.views
        joined = await self.place_before(everyone, found.known_since_ms)
        # A store that is full can be read; then it is written down another time.
        with contextlib.suppress(Unavailable):
            await self.views.join(log, everyone, joined, announce=False)
        return [*found.views, View(everyone, joined)]

    async def at(self, logs: Iterable[Log]) -> dict[Log, Audience]:
        """Return audiences as they are at this moment."""
        distinct = list(dict.fromkeys(logs))
        found = await self._inbox.audiences(distinct)
        return dict(zip(distinct, found, strict=True))

    async def unread_of_many(self, logs: Sequence[Log]) -> list[int | Exception]:
        """
        Return how many notifications of its audiences each player has not read.

        What cannot be read is an exception.
        """
        found = await self.of_many(logs)
        wanted = {v.log for views in found if isinstance(views, list) for v in views}
        audiences = await self.at(wanted)
        return [
            views if isinstance(views, Exception) else unread(views, audiences)
            for views in found
        ]

    async def join(self, log: Log, topic: Topic) -> bool:
        """
        Let a player have what is sent to a topic from now on, wherever it looks.

        Returns whether it did not have it already.

        Raises:
            LimitReached: It has joined as many topics as it may.
            OutcomeUnknown: Repeating it is harmless.

        """
        # Everybody's first, so that a player with a topic is one of everybody too.
        await self.of(log)
        audience = topic_log(log.app, topic)
        place = (await self.at([audience]))[audience].head
        return await self.views.join(log, audience, place)

    async def leave(self, log: Log, topic: Topic) -> bool:
        """Let a player have nothing of a topic any more; return whether it had."""
        return await self.views.leave(log, topic_log(log.app, topic))

    async def located(self, log: Log, views: Sequence[View], cursor: Cursor) -> Cursor:
        """
        Return where a cursor is: a bare id may be that of an audience's notification.

        In the other logs it is then behind what was sent before that moment: what was
        sent in the same one may come twice.
        """
        place = cursor.own
        if place.epoch or cursor.audiences or place.is_zero:
            return cursor
        logs = [log, *(view.log for view in views)]
        mine, *found = await self.views.find_live([(one, [place]) for one in logs])
        if mine.offsets or not any(there.offsets for there in found):
            return cursor
        places = {}
        for view, there in zip(views, found, strict=True):
            if there.offsets:
                at = place._replace(epoch=there.epoch)
            else:
                at = await self.place_before(view.log, place.at_ms)
            if not at.is_zero:
                places[audience_mark(view.log)] = at
        return Cursor(await self.place_before(log, place.at_ms), places)

    async def place_before(self, audience: Log, at_ms: int) -> Position:
        """Return the place behind all that an audience was sent before a time."""
        if at_ms == 0:
            return ZERO
        page = await self._inbox.page(
            audience,
            newest=Position(0, at_ms, 1, 0),
            newest_included=False,
            count=1,
        )
        if page.entries:
            return page.entries[0].entry.position
        if not page.head.is_zero and page.head.at_ms < at_ms:
            return page.head
        return ZERO
