"""One player with audiences, on a real store, and what an inbox is made of."""

from __future__ import annotations

import itertools
from typing import Any

from streamer.core.access.rights import Caller
from streamer.model import (
    App,
    Entry,
    Log,
    Player,
    Position,
    Topic,
    everyone_log,
    topic_log,
)
from streamer.service.inboxes.audiences import PlayerAudiences
from streamer.service.inboxes.inbox import InboxOperations
from streamer.service.inboxes.merge import MergedInbox, MergedPage
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Draft, Inbox
from streamer.store.logs.page_reads import PageReads
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import Views

__all__ = ["FRAGMENT", "World", "ids"]

FRAGMENT = b'"title":"t"}'
_apps = itertools.count(1)


class World:
    """
    One player, everyone's log and two topics, in an app of their own at a fixed time.
    """

    def __init__(self, redis: RedisConnection) -> None:
        self.app = App(f"merge-{next(_apps)}")
        self.us = 1_764_000_000_000_000
        self.log = Log(self.app, Player("alice"))
        self.everyone = everyone_log(self.app)
        self.news = topic_log(self.app, Topic("news"))
        self.guild = topic_log(self.app, Topic("guild"))
        self.redis = redis
        self.inbox = Inbox(redis, LogSettings(clock_us=lambda: self.us))
        self.views = Views(redis, LogSettings(clock_us=lambda: self.us))
        self.audiences = PlayerAudiences(self.views, self.inbox)
        page_reads = PageReads(redis, self.inbox, self.views)
        self.merged = MergedInbox(self.inbox, page_reads, self.audiences)
        self.inboxes = InboxOperations(self.inbox, self.merged, self.audiences)
        self.me = Caller(
            self.app, self.log.player, frozenset({"notification:player:self:*"})
        )

        self.backend = Caller(self.app, None, frozenset({"notification:player:*"}))

    @property
    def ms(self) -> int:
        """The time in ms, which is that of marks and of expiries."""
        return self.us // 1_000

    @property
    def logs(self) -> list[Log]:
        return [self.log, self.everyone, self.news, self.guild]

    def with_settings(self, **settings: Any) -> Inbox:
        """Return the same logs with other settings."""
        return Inbox(self.redis, LogSettings(clock_us=lambda: self.us, **settings))

    async def append(self, log: Log, count: int = 1) -> list[Position]:
        return (await self.inbox.append(log, [FRAGMENT] * count)).stored

    async def append_expiring(
        self, log: Log, count: int = 1, *, after_ms: int = 1_000
    ) -> list[Position]:
        draft = Draft(FRAGMENT, expires_ms=self.ms + after_ms)
        return (await self.inbox.append(log, [draft] * count)).stored

    async def page(self, count: int = 20, **options: Any) -> MergedPage:
        return await self.merged.page(self.log, count=count, **options)

    async def shown(self, count: int = 20) -> list[str]:
        page = await self.page(count)
        return [found.entry.id for found in page.entries or ()]

    async def join(self, topic: Log) -> None:
        assert topic.topic is not None
        await self.audiences.join(self.log, topic.topic)

    async def delete(self, *positions: Position) -> None:
        for name in ids([*positions]):
            await self.inboxes.delete(self.me, self.log.player, name)

    async def unread(self) -> int:
        (count,) = await self.inboxes.unread_counts(self.me, [self.log.player])
        return count


def ids(places: list[Position]) -> list[str]:
    return [Entry(*place, b"").id for place in places]
