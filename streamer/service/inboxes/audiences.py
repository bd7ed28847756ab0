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

from ...core.streams.cursor import Cursor, audience_key
from ...core.streams.views import Audience, View
from ...errors import Unavailable
from ...model import ZERO, Log, Position, Topic, everyone_log, topic_log
from ...store.logs.inbox import Inbox
from ...store.logs.views import PlayerViews, Views

__all__ = ["PlayerAudiences", "later_position", "unread_count"]


def unread_count(views: Iterable[View], audiences: dict[Log, Audience]) -> int:
    """Return how many notifications of its audiences a player has not read."""
    # One that was joined a moment ago has not been looked at.
    return sum(v.unread(audiences[v.log]) for v in views if v.log in audiences)


def later_position(joined: Position, other: Position) -> Position:
    """Return the later place in an audience; of a log that was lost, the other."""
    if joined.epoch not in (0, other.epoch) and not other.is_zero:
        return other
    return max(joined, other, key=lambda position: position.offset)


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

    async def views_of(self, log: Log) -> list[View]:
        """Return a player's views, everybody's among them."""
        (views,) = await self.views_of_many([log])
        if isinstance(views, Exception):
            raise views
        return views

    def views_in(self, log: Log, replies: Sequence[Any]) -> list[View] | None:
        """Return a player's views from replies to `Views.peek`, if these say all."""
        if not replies or any(isinstance(reply, Exception) for reply in replies):
            return None
        stored = self.views.parse_peek(log, replies)
        return None if stored is None else stored.views

    async def views_of_many(self, logs: Sequence[Log]) -> list[list[View] | Exception]:
        """Return the views of players; what cannot be read is an exception."""
        stored = await self.views.read_many(logs)
        return [
            views
            if isinstance(views, Exception)
            else await self.with_everyone(log, views)
            for log, views in zip(logs, stored, strict=True)
        ]

    async def with_everyone(self, log: Log, stored: PlayerViews) -> list[View]:
        """Return the views as read; let a player that has none be one of everybody."""
        everyone = everyone_log(log.app)
        if any(view.log == everyone for view in stored.views):
            return stored.views
        joined = await self.position_before(everyone, stored.known_since_ms)
        # A store that is full can be read; then it is written down another time.
        with contextlib.suppress(Unavailable):
            await self.views.join(log, everyone, joined, announce=False)
        return [*stored.views, View(everyone, joined)]

    async def read(self, logs: Iterable[Log]) -> dict[Log, Audience]:
        """Return audiences as they are at this moment."""
        distinct = list(dict.fromkeys(logs))
        audiences = await self._inbox.audiences(distinct)
        return dict(zip(distinct, audiences, strict=True))

    async def unread_counts(self, logs: Sequence[Log]) -> list[int | Exception]:
        """
        Return how many notifications of its audiences each player has not read.

        What cannot be read is an exception.
        """
        views_of_logs = await self.views_of_many(logs)
        audience_logs = {
            view.log
            for views in views_of_logs
            if isinstance(views, list)
            for view in views
        }
        audiences = await self.read(audience_logs)
        return [
            views if isinstance(views, Exception) else unread_count(views, audiences)
            for views in views_of_logs
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
        await self.views_of(log)
        audience = topic_log(log.app, topic)
        head = (await self.read([audience]))[audience].head
        return await self.views.join(log, audience, head)

    async def leave(self, log: Log, topic: Topic) -> bool:
        """Let a player have nothing of a topic any more; return whether it had."""
        return await self.views.leave(log, topic_log(log.app, topic))

    async def resolve_cursor(
        self, log: Log, views: Sequence[View], cursor: Cursor
    ) -> Cursor:
        """
        Return where a cursor is: a bare id may be that of an audience's notification.

        In the other logs it is then behind what was sent before that moment: what was
        sent in the same one may come twice.
        """
        own = cursor.own
        if own.epoch or cursor.audiences or own.is_zero:
            return cursor
        logs = [log, *(view.log for view in views)]
        in_own, *in_audiences = await self.views.find_live(
            [(name, [own]) for name in logs]
        )
        if in_own.offsets or not any(lookup.offsets for lookup in in_audiences):
            return cursor
        positions = {}
        for view, lookup in zip(views, in_audiences, strict=True):
            if lookup.offsets:
                position = own._replace(epoch=lookup.epoch)
            else:
                position = await self.position_before(view.log, own.at_ms)
            if not position.is_zero:
                positions[audience_key(view.log)] = position
        return Cursor(await self.position_before(log, own.at_ms), positions)

    async def position_before(self, audience: Log, at_ms: int) -> Position:
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
