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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from ...core.streams.cursor import Cursor, audience_key
from ...core.streams.unread_count import InboxCount
from ...core.streams.views import Audience, View
from ...model import ZERO, Log, Position, Topic, everyone_log, topic_log
from ...store.client.faults import STORE_FAILURES
from ...store.logs.inbox import Inbox
from ...store.logs.views import FoundOffsets, PlayerCount, PlayerViews, Views

__all__ = [
    "CountedInbox",
    "CursorLocation",
    "PlayerAudiences",
    "inbox_count",
    "later_position",
    "unread_count",
]


def unread_count(views: Iterable[View], audiences: dict[Log, Audience]) -> int:
    """Return the number of unread notifications in a player's audiences."""
    # An audience that was joined a moment ago has not been read yet.
    return sum(v.unread(audiences[v.log]) for v in views if v.log in audiences)


def inbox_count(
    head: Position,
    own_unread: int,
    marks: int,
    views: Iterable[View],
    audiences: Mapping[Log, Audience],
    own_unread_before: int = 0,
) -> InboxCount:
    """Return the count of an inbox from its own log's, with what is not muted."""
    shown = {view.log: view for view in views if not view.muted}
    return InboxCount(head, own_unread, marks, shown, audiences, own_unread_before)


def later_position(joined: Position, other: Position) -> Position:
    """Return the later position; `other` if the log was lost since `joined`."""
    if joined.epoch not in (0, other.epoch) and not other.is_zero:
        return other
    return max(joined, other, key=lambda position: position.offset)


class CursorLocation(NamedTuple):
    """
    The logs in which a cursor was found, and its position in each.

    In the logs that are not in `positions` the cursor is after everything that was sent
    before `at`; it says nothing of them if `at` is ZERO.
    """

    positions: Mapping[Log, Position]
    at: Position


class CountedInbox(NamedTuple):
    """A count, and when the own log's next entry expires in Unix ms, 0 for never."""

    counted: InboxCount
    ends_at_ms: int


def _counted(
    player: PlayerCount | Exception, read: Mapping[Log, Audience | Exception]
) -> CountedInbox | Exception:
    if isinstance(player, Exception):
        return player
    audiences: dict[Log, Audience] = {}
    for view in player.views:
        audience = read[view.log]
        if isinstance(audience, Exception):
            return audience
        audiences[view.log] = audience
    counted = inbox_count(
        player.head, player.unread, player.marks, player.views, audiences
    )
    return CountedInbox(counted, player.ends_at_ms)


def _unread_count(
    views: Sequence[View], read: Mapping[Log, Audience | Exception]
) -> int | Exception:
    audiences: dict[Log, Audience] = {}
    for view in views:
        audience = read[view.log]
        # Pages do not count what is in a damaged log, either.
        if isinstance(audience, ResponseError):
            continue
        if isinstance(audience, Exception):
            return audience
        audiences[view.log] = audience
    return unread_count(views, audiences)


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
        for reply in replies:
            if isinstance(reply, Exception):
                return None
        if not replies:
            return None
        stored = self.views.parse_peek(log, replies)
        return None if stored is None else stored.views

    async def views_of_many(self, logs: Sequence[Log]) -> list[list[View] | Exception]:
        """Return the views of players; an exception where they cannot be read."""
        stored = await self.views.read_many(logs)
        found: list[list[View] | Exception] = []
        for log, views in zip(logs, stored, strict=True):
            if isinstance(views, Exception):
                found.append(views)
                continue
            try:
                found.append(await self.with_everyone(log, views))
            except ResponseError as error:
                # The log for everyone in the app of this player is damaged.
                found.append(error)
        return found

    async def with_everyone(self, log: Log, stored: PlayerViews) -> list[View]:
        """
        Return stored views with that of everyone's log, which is added if it is
        missing.
        """
        everyone = everyone_log(log.app)
        for view in stored.views:
            if view.log == everyone:
                return stored.views
        joined = await self.position_before(everyone, stored.known_since_us)
        # A full store can still be read; a later read stores the view.
        with contextlib.suppress(*STORE_FAILURES):
            await self.views.join(log, everyone, joined, announce=False)
        return [*stored.views, View(everyone, joined)]

    async def read(self, logs: Iterable[Log]) -> dict[Log, Audience]:
        """Return the present state of audiences."""
        distinct = list(dict.fromkeys(logs))
        audiences = await self._inbox.audiences(distinct)
        return dict(zip(distinct, audiences, strict=True))

    async def counts(self, logs: Sequence[Log]) -> list[CountedInbox | Exception]:
        """
        Count players' inboxes; an exception where one cannot be counted.

        O(players + audiences) for the store, in two packets.
        """
        players = dict(zip(logs, await self.views.count_many(logs), strict=True))
        # A new player may have no view of everyone's log yet, on a full store for long.
        newcomers = [
            log
            for log, player in players.items()
            if isinstance(player, PlayerCount)
            and all(view.log != everyone_log(log.app) for view in player.views)
        ]
        for log, views in zip(
            newcomers, await self.views_of_many(newcomers), strict=True
        ):
            player = players[log]
            if isinstance(views, Exception):
                players[log] = views
            elif isinstance(player, PlayerCount):
                players[log] = player._replace(views=views)
        read = await self.read_each(
            view.log
            for player in players.values()
            if isinstance(player, PlayerCount)
            for view in player.views
        )
        return [_counted(players[log], read) for log in logs]

    async def read_each(self, logs: Iterable[Log]) -> dict[Log, Audience | Exception]:
        """Return what `read` does, with an exception for each that failed."""
        distinct = list(dict.fromkeys(logs))
        audiences = await self._inbox.audiences_each(distinct)
        return dict(zip(distinct, audiences, strict=True))

    async def unread_counts(self, logs: Sequence[Log]) -> list[int | Exception]:
        """
        Return the number of unread notifications in each player's audiences.

        It is an exception where it cannot be read.
        """
        views_of_logs = await self.views_of_many(logs)
        audiences = await self.read_each(
            view.log
            for views in views_of_logs
            if isinstance(views, list)
            for view in views
        )
        return [
            views if isinstance(views, Exception) else _unread_count(views, audiences)
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

    async def locate(
        self, log: Log, logs: Sequence[Log], cursor: Cursor
    ) -> CursorLocation | None:
        """
        Look a cursor, or an id, up in a player's own log and in those of audiences.

        Returns None if it is a position of none of them: another player's, of an
        audience that is not among `logs`, or of a log that was lost. An entry that has
        ended is found as any other. Of an entry that has left its log only offset and
        time can be compared: its id is taken as a position of every log that may have
        had it.

        Args:
            log: The player's own log.
            logs: The logs of audiences.
            cursor: A cursor, or the id of a notification in any of the logs.

        """
        own = cursor.own
        if cursor.audiences or own.is_zero:
            named = {
                audience: position
                for audience in logs
                if (position := cursor.audiences.get(audience_key(audience)))
                is not None
            }
            if not own.is_zero:
                named[log] = own
        else:
            named = dict.fromkeys([log, *logs], own)
        found = await self.views.find([(name, [named[name]]) for name in named])
        in_log = dict(zip(named, found, strict=True))
        if cursor.audiences or own.is_zero:
            return _vector_location(log, own, named, in_log)
        for lookups in (
            {name: lookup for name, lookup in in_log.items() if lookup.kept},
            {name: lookup for name, lookup in in_log.items() if lookup.left},
        ):
            positions = {
                name: own._replace(epoch=lookup.epoch)
                for name, lookup in lookups.items()
                if own.epoch in (0, lookup.epoch)
            }
            if positions:
                return CursorLocation(positions, own)
        return None

    async def resolve_cursor(
        self,
        log: Log,
        views: Sequence[View],
        cursor: Cursor,
        *,
        listened: Sequence[Log] = (),
    ) -> Cursor:
        """
        Return a cursor over all logs for one that may be a bare id.

        The id may be that of a notification in an audience's log, whether it has ended.
        In the other logs the cursor is then after everything that was sent before that
        notification; what was sent in the same microsecond may be delivered twice. A
        cursor that needs no other form is returned unchanged, and so is an id that none
        of the logs knows.

        Args:
            log: The player's own log.
            views: The player's views, muted ones too.
            cursor: The cursor or id.
            listened: Other audiences that a stream follows.

        """
        if cursor.audiences or cursor.own.is_zero:
            return cursor
        logs = [view.log for view in views]
        location = await self.locate(log, [*logs, *listened], cursor)
        if location is None or location.positions.keys() == {log}:
            return cursor
        positions = {}
        for audience in dict.fromkeys([*logs, *listened]):
            position = location.positions.get(audience)
            if position is None and audience in logs:
                position = await self.position_before(audience, cursor.own.at_us)
            if position is not None and not position.is_zero:
                positions[audience_key(audience)] = position
        own = location.positions.get(log)
        if own is None:
            own = await self.position_before(log, cursor.own.at_us)
        return Cursor(own, positions)

    async def position_before(self, audience: Log, at_us: int) -> Position:
        """
        Return the position after all entries of an audience that were sent before a
        time, in microseconds.
        """
        if at_us == 0:
            return ZERO
        return await self._inbox.last_position(
            audience, Position(0, at_us, 1, 0), included=False
        )

    async def position_up_to(self, audience: Log, position: Position) -> Position:
        """
        Return the position after all entries of an audience that pages show below a
        position of another log, or at it.
        """
        if position.is_zero:
            return ZERO
        return await self._inbox.last_position(audience, position, included=True)


def _vector_location(
    log: Log,
    own: Position,
    named: Mapping[Log, Position],
    found: Mapping[Log, FoundOffsets],
) -> CursorLocation | None:
    """Return the location of a cursor with a position for each log in `named`."""
    if not own.is_zero and own.epoch not in (0, found[log].epoch):
        return None
    # A position that its log does not know stands at its beginning, and not at the time
    # of another log's: an unknown one says nothing of what has arrived.
    positions = {
        name: position._replace(epoch=found[name].epoch)
        if (found[name].kept or found[name].left)
        and position.epoch in (0, found[name].epoch)
        else ZERO
        for name, position in named.items()
    }
    return CursorLocation(positions, positions.get(log, ZERO))
