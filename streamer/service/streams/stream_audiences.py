"""
The audiences of open streams and waiting polls.

Decides which logs a reader follows beside the player's own, and where it begins in
each. Knows Pub/Sub, the hub and the views. Knows nothing of transports.

A reader follows the audiences that its player has joined, everyone's log, and the
topics that it has subscribed to itself. It is attached in one step without waiting,
after Pub/Sub has subscribed to all of these logs: it either follows all of them or does
not exist. Later, every read of the player's log compares the reader's audiences with
the player's views (`refresh`). That finds a topic which was joined or left since,
whether it was announced or not.
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
    A reader that is about to follow a player's log.

    `subscribing` is done when Pub/Sub has confirmed the log's subscription. `commands`
    read the player's views. `newcomer` is the first view of a player without any, if
    it is known.
    """

    log: Log
    subscribing: asyncio.Future[None]
    commands: Sequence[Packed]
    newcomer: Newcomer | None


class StreamAudiences:
    """
    Attaches readers to their logs. Methods raise `StoreUnavailable`.

    Args:
        hub: The readers.
        pubsub: The subscriptions of this process.
        audiences: The players' audiences.

    """

    def __init__(self, hub: Hub, pubsub: PubSub, audiences: PlayerAudiences) -> None:
        self._hub = hub
        self._pubsub = pubsub
        self._audiences = audiences

    @asynccontextmanager
    async def follow(self, log: Log, reader: Reader) -> AsyncIterator[None]:
        """Let `reader` follow a player's log for the block."""
        await self.join(log, reader)
        try:
            yield
        finally:
            self.leave(log, reader)

    async def join(self, log: Log, reader: Reader) -> None:
        """Let `reader` follow a player's log; see `finish_join`."""
        await self.finish_join(self.begin_join(log), reader)

    def begin_join(self, log: Log) -> PendingJoin:
        """
        Begin to subscribe to a player's log; `finish_join` or `abort_join` follows.

        Meanwhile the caller may run the `PendingJoin.commands`. Nothing relies on their
        replies: the first read asks the same again, after the subscription, when no
        change can be missed any more.
        """
        views, head = self._audiences.views, self._hub.head(everyone_log(log.app))
        newcomer = None if head is None else views.newcomer(head)
        return PendingJoin(
            log, self._pubsub.begin_subscribe(log), views.peek(log), newcomer
        )

    def abort_join(self, pending_join: PendingJoin) -> None:
        """Give up a join."""
        self._pubsub.unsubscribe(pending_join.log)

    async def finish_join(
        self, pending_join: PendingJoin, reader: Reader, replies: Sequence[Reply] = ()
    ) -> None:
        """
        Let `reader` follow its player's log and the logs of the player's audiences.

        `replies` are those to `PendingJoin.commands`, if the caller has run them. The
        caller has to call `leave` later, but only if this returns: if it raises, it has
        aborted the join.
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
        """Detach a reader from all of its logs, without waiting."""
        self.unsubscribe(log, self.detach(log, reader))

    def detach(self, log: Log, reader: Reader) -> Sequence[AudienceSubscription]:
        """
        Detach a reader from all of its logs; nothing is delivered to it any more.

        Returns its subscriptions, for `unsubscribe`, which has to follow once. They
        keep their positions.
        """
        self._hub.detach(log, reader)
        subs, reader.audience_subscriptions = reader.audience_subscriptions, ()
        for sub in subs:
            self._hub.detach_audience(sub)
        return subs

    def unsubscribe(self, log: Log, followed: Iterable[AudienceSubscription]) -> None:
        """Leave the channels of a reader that was detached; see `detach`."""
        self._pubsub.unsubscribe(log)
        for sub in followed:
            self._pubsub.unsubscribe(sub.log)

    async def refresh(self, log: Log, reader: Reader, views: Sequence[View]) -> None:
        """Make a reader follow the audiences in `views` and its own topics."""
        views_by_log = {view.log: view for view in _unmuted(views)}
        requested = {topic_log(log.app, topic) for topic in reader.topics}
        for sub in reader.audience_subscriptions:
            # The player may have joined a topic that the reader has subscribed to.
            view = None if sub.is_member else views_by_log.get(sub.log)
            if view is not None and _has_all(reader, sub, view):
                sub.leave_group()  # Entries count as unread from now on.
                sub.is_member = True
        logs = {sub.log for sub in reader.audience_subscriptions if sub.is_member}
        # These audiences were left, or joined but without all that is due from them.
        outdated = [
            sub
            for sub in reader.audience_subscriptions
            if sub.is_member is not (sub.log in views_by_log)
        ]
        missing = [
            view for audience, view in views_by_log.items() if audience not in logs
        ]
        await self._change(log, reader, outdated, missing, is_member=True)
        # An audience that the player has left may be one of the reader's own topics.
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
        Set the topics that a reader has subscribed to itself.

        If this raises, nothing has changed.
        """
        before = reader.topics
        after = tuple(dict.fromkeys(topics))
        if after == before:
            return
        # What a group has delivered was counted by the topics so far.
        for sub in reader.audience_subscriptions:
            sub.leave_group()
        reader.topics = after
        try:
            await self.refresh(log, reader, await self._audiences.views_of(log))
        except BaseException:
            reader.topics = before
            raise
        finally:
            # From when on the client counts by the new ones is not known.
            if (stream := reader.stream) is not None:
                stream.doubt_count(is_told=True)

    async def _first_subscriptions(
        self, log: Log, reader: Reader, views: Sequence[View]
    ) -> list[AudienceSubscription]:
        """Return the subscriptions with which a reader begins."""
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
        # Meanwhile the reader may have left, or got these audiences by another call.
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
        """Subscribe to all of these logs, in one packet, or to none."""
        begun = [(log, self._pubsub.begin_subscribe(log)) for log in logs]
        try:
            for _, subscribing in begun:
                await self._pubsub.wait_confirmed(subscribing)
        except BaseException:
            for log, _ in begun:
                self._pubsub.unsubscribe(log)
            raise

    def _detach_audiences(self, subs: Iterable[AudienceSubscription]) -> None:
        for sub in subs:
            self._hub.detach_audience(sub)
            self._pubsub.unsubscribe(sub.log)

    async def _locate(self, log: Log, reader: Reader, views: Sequence[View]) -> None:
        """Resolve a cursor that is a bare id, which may be in any of the logs."""
        if reader.cursor is not None:
            located = await self._audiences.resolve_cursor(
                log,
                views,
                reader.cursor,
                listened=[topic_log(log.app, topic) for topic in reader.topics],
            )
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
        """
        Return where a reader begins in an audience's log.

        With `begins` the reader itself begins, too; without, it gets one more audience.
        """
        cursor = reader.cursor
        if not begins:
            # The player has just joined the audience or unmuted it, or the reader has
            # just subscribed to it.
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
        # The audience was not among the player's then, or the cursor is a bare id. The
        # reader is owed everything since that moment.
        head = self._hub.head(view.log)
        if head is None or head.at_us >= cursor.own.at_us:
            head = await self._audiences.position_before(view.log, cursor.own.at_us)
        return later_position(view.joined, head)


def _unmuted(views: Iterable[View]) -> list[View]:
    return [view for view in views if not view.muted]


def _has_all(reader: Reader, sub: AudienceSubscription, view: View) -> bool:
    """Whether a reader's own subscription has all that is due to a member since."""
    began_at = sub.began_at
    if began_at is None or began_at.offset <= view.joined.offset:
        return began_at is not None
    # It followed the audience before the player muted it. Entries that it missed while
    # it was muted are not due.
    return reader.cursor is not None and audience_key(view.log) in (
        reader.cursor.audiences
    )


def _remember_positions(reader: Reader, subs: Iterable[AudienceSubscription]) -> None:
    """Keep the positions in audiences that a reader leaves and may follow again."""
    if reader.joining:
        return
    positions = dict(reader.cursor.audiences) if reader.cursor else {}
    for sub in subs:
        if isinstance(position := sub.read_from, Position):
            positions[audience_key(sub.log)] = position
    reader.cursor = Cursor(ZERO, positions)
