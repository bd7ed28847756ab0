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
            subs = await self._first_subscriptions(log, reader, views)
            await self._subscribe([sub.log for sub in subs])
        except BaseException:
            self.abort_join(pending_join)
            raise
        reader.set_audiences(tuple(subs))
        self._hub.attach(log, reader)
        for sub in subs:
            self._hub.attach_audience(sub)

    def leave(self, log: Log, reader: Reader) -> None:
        """Let `reader` go, at once."""
        self._hub.detach(log, reader)
        self._pubsub.unsubscribe(log)
        subs, reader.audience_subscriptions = reader.audience_subscriptions, ()
        self._detach_audiences(subs)

    async def refresh(self, log: Log, reader: Reader, views: Sequence[View]) -> None:
        """Subscribe a reader to what its player's views and its own topics say."""
        views_by_log = {view.log: view for view in _unmuted(views)}
        requested = {topic_log(log.app, topic) for topic in reader.topics}
        for sub in reader.audience_subscriptions:
            # The player may have joined what the reader had asked for.
            view = None if sub.is_member else views_by_log.get(sub.log)
            if view is not None and _has_all(reader, sub, view):
                sub.leave_group()  # What it is given counts from here on.
                sub.is_member = True
        logs = {sub.log for sub in reader.audience_subscriptions if sub.is_member}
        # Either it hears what is wanted no more, or too little of what is.
        outdated = [
            sub
            for sub in reader.audience_subscriptions
            if sub.is_member is not (sub.log in views_by_log)
        ]
        missing = [
            view for audience, view in views_by_log.items() if audience not in logs
        ]
        await self._change(log, reader, outdated, missing, is_member=True)
        # What was heard for the player's sake may have been asked for as well.
        logs = {sub.log for sub in reader.audience_subscriptions}
        missing = [View(audience, ZERO) for audience in requested - logs]
        outdated = [
            sub
            for sub in reader.audience_subscriptions
            if not sub.is_member and sub.log not in requested
        ]
        await self._change(log, reader, outdated, missing, is_member=False)

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

    async def _first_subscriptions(
        self, log: Log, reader: Reader, views: Sequence[View]
    ) -> list[AudienceSubscription]:
        """Return what a reader that begins is woven of."""
        await self._locate(log, reader, views)
        subs = [
            await self._audience_subscription(reader, view, is_member=True, begins=True)
            for view in _unmuted(views)
        ]
        logs = {sub.log for sub in subs}
        for topic in reader.topics:
            audience = topic_log(log.app, topic)
            if audience not in logs:
                view = View(audience, ZERO)
                subs.append(
                    await self._audience_subscription(
                        reader, view, is_member=False, begins=True
                    )
                )
        return subs

    async def _change(
        self,
        log: Log,
        reader: Reader,
        outdated: Sequence[AudienceSubscription],
        missing: Sequence[View],
        *,
        is_member: bool,
    ) -> None:
        if not outdated and not missing:
            return
        begins = reader.joining
        subs = [
            await self._audience_subscription(
                reader, view, is_member=is_member, begins=begins
            )
            for view in missing
        ]
        await self._subscribe([sub.log for sub in subs])
        # It may have left while this waited, or been given them by somebody else.
        is_attached = reader in self._hub.readers(log)
        before = reader.audience_subscriptions
        kept = [sub for sub in before if sub not in outdated]
        removed = [sub for sub in before if sub in outdated]
        logs = {sub.log for sub in kept}
        added = [sub for sub in subs if is_attached and sub.log not in logs]
        for sub in subs:
            if sub not in added:
                self._pubsub.unsubscribe(sub.log)
        if not added and not removed:
            return
        _remember_positions(reader, removed)
        self._detach_audiences(removed)
        reader.set_audiences((*kept, *added))
        for sub in added:
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

    def _detach_audiences(self, subs: Iterable[AudienceSubscription]) -> None:
        for sub in subs:
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
        read_from = await self._read_from(
            reader, view, is_member=is_member, begins=begins
        )
        return AudienceSubscription(
            view.log, reader, read_from, joined_at=view.joined, is_member=is_member
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
            left_at = cursor and cursor.audiences.get(audience_key(view.log))
            return later_position(view.joined, left_at) if left_at else view.joined
        if cursor is None:
            start = reader.subscription.read_from
            return start if isinstance(start, Start) else Start.LATEST
        position = cursor.audiences.get(audience_key(view.log))
        if position is not None:
            return position
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
    began_at = sub.began_at
    if began_at is None or began_at.offset <= view.joined.offset:
        return began_at is not None
    # What it has heard before was muted since; what it missed then is not owed.
    return reader.cursor is not None and audience_key(view.log) in (
        reader.cursor.audiences
    )


def _remember_positions(reader: Reader, subs: Iterable[AudienceSubscription]) -> None:
    """Note where a reader was in what it hears no more: it may be shown it again."""
    if reader.joining:
        return
    positions = dict(reader.cursor.audiences) if reader.cursor else {}
    for sub in subs:
        if isinstance(position := sub.read_from, Position):
            positions[audience_key(sub.log)] = position
    reader.cursor = Cursor(ZERO, positions)
