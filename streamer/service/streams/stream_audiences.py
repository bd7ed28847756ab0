"""
The audiences that a reader hears: found, joined while it listens, and left.

Decides which logs besides the player's own a reader follows, and from which place on.
Knows the relay, the hub and the views. Knows nothing of transports.

A reader hears what its player has joined, everybody's messages, and the topics that it
has asked for on its own account. It is woven in one step without waiting, when all of
these are subscribed, so that it either hears all of them or does not exist. Afterwards
whoever reads its log compares what it hears with what it should, which finds a topic
that was joined or left meanwhile, announced or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from ...core.streams.audience_subscription import AudienceSubscription
from ...core.streams.cursor import Cursor, audience_key
from ...core.streams.subscription import ReadFrom, Start, Subscription
from ...core.streams.views import View
from ...hub import Hub, Reader
from ...model import ZERO, Log, Position, Topic, everyone_log, topic_log
from ...store.client.commands import Packed
from ...store.client.connection import Reply
from ...store.client.pubsub import PubSub
from ...store.presence.leases import Newcomer
from ..inboxes.audiences import PlayerAudiences, later_position

__all__ = ["PendingJoin", "StreamAudiences"]


class PendingJoin(NamedTuple):
    """
    Somebody who is on the way into a player's log.

    `commands` are commands that ask for the player's views, and `newcomer` is what
    becomes of a player without any, where that is known.
    """

    log: Log
    subscribing: asyncio.Future[None]
    commands: Sequence[Packed]
    newcomer: Newcomer | None


class StreamAudiences:
    """
    Gives readers their strands. Its methods raise StoreUnavailable.

    Args:
        hub: Who is told what comes.
        relay: What it comes by.
        audiences: Who belongs to what.

    """

    def __init__(self, hub: Hub, pubsub: PubSub, audiences: PlayerAudiences) -> None:
        self._hub = hub
        self._pubsub = pubsub
        self._audiences = audiences

    @asynccontextmanager
    async def follow(self, log: Log, reader: Reader) -> AsyncIterator[None]:
        """Let `reader` follow `log` for the block."""
        await self.join(log, reader)
        try:
            yield
        finally:
            self.leave(log, reader)

    async def join(self, log: Log, reader: Reader) -> None:
        """Let `reader` follow `log`; see `finish_join`."""
        await self.finish_join(self.begin_join(log), reader)

    def begin_join(self, log: Log) -> PendingJoin:
        """
        Begin to let somebody follow a log; `finish_join` or `abort_join` goes on.

        While the log is being subscribed to, the store may be asked what the arrival
        says. That is not what is relied on: with the first read all of it is asked
        again, when nothing can be missed any more.
        """
        views, head = self._audiences.views, self._hub.head(everyone_log(log.app))
        newcomer = None if head is None else views.newcomer(head)
        return PendingJoin(
            log, self._pubsub.begin_subscribe(log), views.peek(log), newcomer
        )

    def abort_join(self, pending_join: PendingJoin) -> None:
        """Let nobody follow after all."""
        self._pubsub.unsubscribe(pending_join.log)

    async def finish_join(
        self, pending_join: PendingJoin, reader: Reader, replies: Sequence[Reply] = ()
    ) -> None:
        """
        Let `reader` follow its player's log and the audiences' of the player.

        It does until `leave`, which is due only where this returns. `replies` is what
        the store has answered to the arrival, if it was asked. Where this raises, the
        arrival is turned back.
        """
        log = pending_join.log
        try:
            await self._pubsub.wait_confirmed(pending_join.subscribing)
            views = self._audiences.views_in(
                log, replies
            ) or await self._audiences.views_of(log)
            audience_subscriptions = await self._first_audience_subscriptions(
                log, reader, views
            )
            await self._subscribe([sub.log for sub in audience_subscriptions])
        except BaseException:
            self.abort_join(pending_join)
            raise
        reader.set_audiences(tuple(audience_subscriptions))
        self._hub.attach(log, reader)
        for sub in audience_subscriptions:
            self._hub.attach_audience(sub)

    def leave(self, log: Log, reader: Reader) -> None:
        """Let `reader` go, at once."""
        self._hub.detach(log, reader)
        self._pubsub.unsubscribe(log)
        audience_subscriptions, reader.audience_subscriptions = (
            reader.audience_subscriptions,
            (),
        )
        self._detach_audiences(audience_subscriptions)

    async def refresh(self, log: Log, reader: Reader, views: Sequence[View]) -> None:
        """Let a reader hear what its player's views say, and what it asked for."""
        wanted = {view.log: view for view in _unmuted(views)}
        asked = {topic_log(log.app, topic) for topic in reader.topics}
        for sub in reader.audience_subscriptions:
            # The player may have joined what the reader had asked for.
            view = None if sub.is_member else wanted.get(sub.log)
            if view is not None and _has_all(reader, sub, view):
                sub.leave_group()  # What it is given counts from here on.
                sub.is_member = True
        hears = {sub.log for sub in reader.audience_subscriptions if sub.is_member}
        # Either it hears what is wanted no more, or too little of what is.
        left = [
            s
            for s in reader.audience_subscriptions
            if s.is_member is not (s.log in wanted)
        ]
        joined = [view for audience, view in wanted.items() if audience not in hears]
        await self._change(log, reader, left, joined, is_member=True)
        # What was heard for the player's sake may have been asked for as well.
        hears = {sub.log for sub in reader.audience_subscriptions}
        more = [View(audience, ZERO) for audience in asked - hears]
        gone = [
            s
            for s in reader.audience_subscriptions
            if not s.is_member and s.log not in asked
        ]
        await self._change(log, reader, gone, more, is_member=False)

    async def listen_to(
        self, log: Log, reader: Reader, topics: Iterable[Topic]
    ) -> None:
        """
        Let a reader listen to these topics on its own account, and to no others.

        Where this raises, nothing has changed.
        """
        before = reader.topics
        reader.topics = tuple(dict.fromkeys(topics))
        if reader.topics != before:
            try:
                await self.refresh(log, reader, await self._audiences.views_of(log))
            except BaseException:
                reader.topics = before
                raise

    async def _first_audience_subscriptions(
        self, log: Log, reader: Reader, views: Sequence[View]
    ) -> list[AudienceSubscription]:
        """Return what a reader that begins is woven of."""
        await self._locate(log, reader, views)
        audience_subscriptions = [
            await self._audience_subscription(reader, view, is_member=True, begins=True)
            for view in _unmuted(views)
        ]
        hears = {sub.log for sub in audience_subscriptions}
        for topic in reader.topics:
            audience = topic_log(log.app, topic)
            if audience not in hears:
                view = View(audience, ZERO)
                audience_subscriptions.append(
                    await self._audience_subscription(
                        reader, view, is_member=False, begins=True
                    )
                )
        return audience_subscriptions

    async def _change(
        self,
        log: Log,
        reader: Reader,
        left: Sequence[AudienceSubscription],
        joined: Sequence[View],
        *,
        is_member: bool,
    ) -> None:
        if not left and not joined:
            return
        begins = reader.joining
        audience_subscriptions = [
            await self._audience_subscription(
                reader, view, is_member=is_member, begins=begins
            )
            for view in joined
        ]
        await self._subscribe([sub.log for sub in audience_subscriptions])
        # It may have left while this waited, or been given them by somebody else.
        there = reader in self._hub.readers(log)
        hears = {sub.log for sub in reader.audience_subscriptions if sub not in left}
        fresh = [
            sub for sub in audience_subscriptions if there and sub.log not in hears
        ]
        for sub in audience_subscriptions:
            if sub not in fresh:
                self._pubsub.unsubscribe(sub.log)
        gone = [sub for sub in reader.audience_subscriptions if sub in left]
        if not fresh and not gone:
            return
        kept = [sub for sub in reader.audience_subscriptions if sub not in left]
        _remember_positions(reader, gone)
        self._detach_audiences(gone)
        reader.set_audiences((*kept, *fresh))
        for sub in fresh:
            self._hub.attach_audience(sub)

    async def _subscribe(self, logs: Iterable[Log]) -> None:
        """Subscribe to all of these logs, or to none."""
        subscribed = []
        try:
            for log in logs:
                # Also the one that fails is to be unsubscribed.
                subscribed.append(log)
                await self._pubsub.subscribe(log)
        except BaseException:
            for log in subscribed:
                self._pubsub.unsubscribe(log)
            raise

    def _detach_audiences(
        self, audience_subscriptions: Iterable[AudienceSubscription]
    ) -> None:
        for sub in audience_subscriptions:
            self._hub.detach_audience(sub)
            self._pubsub.unsubscribe(sub.log)

    async def _locate(self, log: Log, reader: Reader, views: Sequence[View]) -> None:
        """Let a reader whose cursor is a bare id begin in the log that it is of."""
        if reader.cursor is not None:
            located = await self._audiences.resolve_cursor(log, views, reader.cursor)
            if located is not reader.cursor:
                reader.cursor = located
                reader.subscription = Subscription(located.own)

    async def _audience_subscription(
        self, reader: Reader, view: View, *, is_member: bool, begins: bool
    ) -> AudienceSubscription:
        place = await self._read_from(reader, view, is_member=is_member, begins=begins)
        return AudienceSubscription(
            view.log, reader, place, joined_at=view.joined, is_member=is_member
        )

    async def _read_from(
        self, reader: Reader, view: View, *, is_member: bool, begins: bool
    ) -> ReadFrom:
        """Return where a reader, which may begin itself, begins to hear an audience."""
        cursor = reader.cursor
        if not begins:
            # What its player joined a moment ago, or sees again; or the reader just
            # asked for.
            if not is_member:
                return Start.LATEST
            left = cursor and cursor.audiences.get(audience_key(view.log))
            return later_position(view.joined, left) if left else view.joined
        if cursor is None:
            start = reader.subscription.read_from
            return start if isinstance(start, Start) else Start.LATEST
        place = cursor.audiences.get(audience_key(view.log))
        if place is not None:
            return place
        if not is_member:
            return Start.LATEST
        # It was not among its audiences then, or had said nothing; or the cursor is
        # but an id. What came since that moment is owed.
        head = self._hub.head(view.log)
        if head is None or head.at_ms >= cursor.own.at_ms:
            head = await self._audiences.position_before(view.log, cursor.own.at_ms)
        return later_position(view.joined, head)


def _unmuted(views: Iterable[View]) -> list[View]:
    return [view for view in views if not view.muted]


def _has_all(reader: Reader, sub: AudienceSubscription, view: View) -> bool:
    """Whether a reader that asked for a topic has had what its player joined it for."""
    begin = sub.began_at
    if begin is None or begin.offset <= view.joined.offset:
        return begin is not None
    # What it has heard before was muted since; what it missed then is not owed.
    return reader.cursor is not None and audience_key(view.log) in (
        reader.cursor.audiences
    )


def _remember_positions(reader: Reader, gone: Iterable[AudienceSubscription]) -> None:
    """Note where a reader was in what it hears no more: it may be shown it again."""
    if reader.joining:
        return
    places = dict(reader.cursor.audiences) if reader.cursor else {}
    for sub in gone:
        if isinstance(place := sub.read_from, Position):
            places[audience_key(sub.log)] = place
    reader.cursor = Cursor(ZERO, places)
