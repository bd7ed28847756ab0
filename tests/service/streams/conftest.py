"""
A player with a topic on a node, whose announcements and counts a test can hold back.

Position checks are off, so that nothing corrects a wrong number later.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from small_client import Badge
from streamer.core.access.rights import Caller
from streamer.model import (
    Entry,
    Log,
    Notification,
    Position,
    Topic,
    encode_fragment,
    everyone_log,
    iso_time,
    topic_log,
)
from streamer.service.inboxes.audiences import PlayerAudiences
from streamer.service.inboxes.inbox import InboxOperations
from streamer.service.inboxes.merge import MergedInbox
from streamer.service.streams.catch_up import CatchUp
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.entries import Draft
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.page_reads import PageReads
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import Views

from ...conftest import Until
from ..conftest import Client

NEVER_S = 3_600
NEWS = Topic("news")


class Holding(CatchUp):
    """Holds the announcements of a log's entries while `held` names it."""

    held: Log | None = None
    kept: list[tuple[Log, Entry]]

    def on_entry(self, log: Log, entry: Entry) -> None:
        if log == self.held:
            self.kept.append((log, entry))
        else:
            super().on_entry(log, entry)

    def release(self) -> None:
        """Deliver what was held."""
        self.held = None
        for log, entry in self.kept:
            self.on_entry(log, entry)


class Gate:
    """Lets calls of a method take place, and return when the test says so."""

    def __init__(self, call: Callable[..., Awaitable[Any]], *, before: bool) -> None:
        self._call = call
        self._before = before
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = 0

    async def __call__(self, *args: Any, **named: Any) -> Any:
        result = None if self._before else await self._call(*args, **named)
        self.waiting += 1
        await self.open.wait()
        self.waiting -= 1
        return await self._call(*args, **named) if self._before else result


class World:
    """A player with a topic, on a node, and what may happen to the inbox."""

    def __init__(
        self,
        log: Log,
        inbox: Inbox,
        audiences: PlayerAudiences,
        catch_up: Holding,
        make_client: type[Client],
        until: Until,
    ) -> None:
        self.log = log
        self.news = topic_log(log.app, NEWS)
        self.everyone = everyone_log(log.app)
        self.inbox = inbox
        self.audiences = audiences
        self.catch_up = catch_up
        redis = inbox._redis
        page_reads = PageReads(redis, inbox, audiences.views)
        self.inboxes = InboxOperations(
            inbox, MergedInbox(inbox, page_reads, audiences), audiences
        )
        self.me = Caller(log.app, log.player, frozenset({"notification:player:self:*"}))
        self._make_client = make_client
        self._until = until
        self._stack = AsyncExitStack()

    async def follow(self, **options: Any) -> Client:
        """Open a stream of the player."""
        client = self._make_client(**options)
        follow = self.catch_up.stream_audiences.follow(self.log, client.session)
        await self._stack.enter_async_context(follow)
        await self._until(lambda: client.begin is not None)
        return client

    async def close(self) -> None:
        await self._stack.aclose()

    async def publish(self, log: Log, **fields: Any) -> Position:
        everyone = log.is_audience and log.topic is None
        sent = Notification(title="t", topic=log.topic, everyone=everyone)
        draft = Draft(encode_fragment(sent), **fields)
        (position,) = (await self.inbox.append(log, [draft])).stored
        return position

    async def publish_expiring(self, log: Log, at_ms: int) -> None:
        everyone = log.is_audience and log.topic is None
        sent = Notification(
            title="t",
            topic=log.topic,
            everyone=everyone,
            expires_at=iso_time(at_ms),
        )
        await self.inbox.append(log, [Draft(encode_fragment(sent), expires_ms=at_ms)])

    async def page(self) -> int:
        """Return the number that the page shows."""
        return (await self.inboxes.page(self.me, self.log.player, count=1)).unread

    async def settled(self, client: Client) -> int:
        """Wait until no count is needed; return the number of the client."""
        hub, recounts = self.catch_up.hub, self.catch_up._recounts
        await self._until(lambda: not (hub.needs_read or recounts.is_counting))
        return number(client)


def number(client: Client) -> int:
    """Return the number that a client shows by the rule of the protocol."""
    badge = Badge()
    for message in client.messages:
        badge.take(message)
    assert badge.number is not None
    return badge.number


@pytest.fixture
def settings() -> LogSettings:
    return LogSettings()


@pytest.fixture
async def world(
    store_url: str,
    redis: RedisConnection,
    settings: LogSettings,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> AsyncIterator[World]:
    inbox = Inbox(redis, settings)
    audiences = PlayerAudiences(Views(redis, settings), inbox)
    await audiences.join(log, NEWS)
    catch_up = Holding(store_url, inbox, audiences, replay_max=10, check_s=NEVER_S)
    catch_up.kept = []
    running = asyncio.create_task(catch_up.run())
    await until(lambda: catch_up.connected)
    world = World(log, inbox, audiences, catch_up, make_client, until)
    yield world
    await world.close()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def gate(
    monkeypatch: pytest.MonkeyPatch, target: Any, name: str, *, before: bool = False
) -> Gate:
    """Hold the calls of a method of `target` back, from now on."""
    gate = Gate(getattr(target, name), before=before)
    monkeypatch.setattr(target, name, gate)
    return gate
