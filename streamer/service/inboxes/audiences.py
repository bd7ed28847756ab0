"""
The audiences of players, and the unread counts in them.

Decides since when a player belongs to everyone, and reads views and audiences together.
Knows views and logs. Knows nothing of callers.

A player belongs to everyone since it first appeared: since its first notification, page
or stream. The first read of its views stores that. Topics are joined and left
explicitly.
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
    """Return the number of unread notifications in a player's audiences."""
    # An audience that was joined a moment ago has not been read yet.
    return sum(v.unread(audiences[v.log]) for v in views if v.log in audiences)


def later_position(joined: Position, other: Position) -> Position:
    """Return the later position; `other` if the log was lost since `joined`."""
    if joined.epoch not in (0, other.epoch) and not other.is_zero:
        return other
    return max(joined, other, key=lambda position: position.offset)


class PlayerAudiences:
    """
    The audiences of players. All methods raise StoreUnavailable.

    Args:
        views: The views of players in the store.
        inbox: The logs.

    """

    def __init__(self, views: Views, inbox: Inbox) -> None:
        self.views = views
        self._inbox = inbox

    async def views_of(self, log: Log) -> list[View]:
        """Return a player's views, including that of everyone's log."""
        (views,) = await self.views_of_many([log])
        if isinstance(views, Exception):
            raise views
        return views

    def views_in(self, log: Log, replies: Sequence[Any]) -> list[View] | None:
        """
        Return a player's views from replies to `Views.peek`, None if they do not
        suffice.
        """
        if not replies or any(isinstance(reply, Exception) for reply in replies):
            return None
        stored = self.views.parse_peek(log, replies)
        return None if stored is None else stored.views

    async def views_of_many(self, logs: Sequence[Log]) -> list[list[View] | Exception]:
        """Return the views of players; an exception where they cannot be read."""
        stored = await self.views.read_many(logs)
        return [
            views
            if isinstance(views, Exception)
            else await self.with_everyone(log, views)
            for log, views in zip(logs, stored, strict=True)
        ]

    async def with_everyone(self, log: Log, stored: PlayerViews) -> list[View]:
        """
        Return stored views with that of everyone's log, which is added if it is
        missing.
        """
        everyone = everyone_log(log.app)
        if any(view.log == everyone for view in stored.views):
            return stored.views
        joined = await self.position_before(everyone, stored.known_since_us)
        # A full store can still be read; a later read stores the view.
        with contextlib.suppress(Unavailable):
            await self.views.join(log, everyone, joined, announce=False)
        return [*stored.views, View(everyone, joined)]

    async def read(self, logs: Iterable[Log]) -> dict[Log, Audience]:
        """Return the present state of audiences."""
        distinct = list(dict.fromkeys(logs))
        audiences = await self._inbox.audiences(distinct)
        return dict(zip(distinct, audiences, strict=True))

    async def unread_counts(self, logs: Sequence[Log]) -> list[int | Exception]:
        """
        Return the number of unread notifications in each player's audiences.

        It is an exception where it cannot be read.
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
        Subscribe a player to a topic, from the topic's present head on.

        Returns whether it was not subscribed yet.

        Raises:
            LimitReached: The player has joined the maximum number of topics.
            OutcomeUnknown: A retry is safe.

        """
        # Everyone's view first: a player with a topic belongs to everyone, too.
        await self.views_of(log)
        audience = topic_log(log.app, topic)
        head = (await self.read([audience]))[audience].head
        return await self.views.join(log, audience, head)

    async def leave(self, log: Log, topic: Topic) -> bool:
        """Unsubscribe a player from a topic; return whether it was subscribed."""
        return await self.views.leave(log, topic_log(log.app, topic))

    async def resolve_cursor(
        self, log: Log, views: Sequence[View], cursor: Cursor
    ) -> Cursor:
        """
        Return a cursor over all logs for one that may be a bare id.

        The id may be that of a notification in an audience's log. In the other logs the
        cursor is then after everything that was sent before that notification; what was
        sent in the same microsecond may be delivered twice.
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
                position = await self.position_before(view.log, own.at_us)
            if not position.is_zero:
                positions[audience_key(view.log)] = position
        return Cursor(await self.position_before(log, own.at_us), positions)

    async def position_before(self, audience: Log, at_us: int) -> Position:
        """
        Return the position after all entries of an audience that were sent before a
        time, in microseconds.
        """
        if at_us == 0:
            return ZERO
        page = await self._inbox.page(
            audience,
            newest=Position(0, at_us, 1, 0),
            newest_included=False,
            count=1,
        )
        if page.entries:
            return page.entries[0].entry.position
        if not page.head.is_zero and page.head.at_us < at_us:
            return page.head
        return ZERO
