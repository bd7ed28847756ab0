"""
What a page needs of a player and of everybody, in one packet.

Decides what is read together. A page shows the player's own log, everybody's, and the
topics' that the player has joined; which topics is known only when the views have been
read, the rest is asked for at once. What most players do not have, topics, and most
apps, a log of everybody, is looked for before it is read: that is cheaper than the
scripts that would find nothing. The entries of a first page do not go through its
script, but are read by a command behind it, and belong to its moment if they fit. Knows
the scripts of inbox and views. Knows nothing of how they are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ...core.streams.views import Audience
from ...model import App, Log, Position, everyone_log
from ..client.commands import Command, Packed
from ..client.connection import RedisConnection, ScriptCall
from ..client.replies import ok
from ..keys import state_key
from .entries import Page, bound, parse_audience, parse_page
from .inbox import FIRST_PAGE_MAX, Inbox
from .views import PlayerViews, Views

__all__ = ["AudiencePage", "PageReads", "PlayerPage"]

APPS_MAX: Final = 10_000
"""Apps of which it is remembered that they have a log of everybody."""


class AudiencePage(NamedTuple):
    """A page of an audience's log, and the state of that log."""

    page: Page
    audience: Audience


class PlayerPage(NamedTuple):
    """A page of a player's own log, its views, and a page of everybody's log."""

    own: Page
    views: PlayerViews
    everyone: AudiencePage


class PageReads:
    """
    Reads for pages. Every method raises StoreUnavailable.

    Bounds are inclusive, and go by time and offset: entries of two logs may have the
    same, so that a caller who wants an order among them has to compare tags.

    Args:
        redis: The way to the store.
        inbox: What knows the logs.
        views: What knows the views.

    """

    def __init__(self, redis: RedisConnection, inbox: Inbox, views: Views) -> None:
        self._redis = redis
        self._inbox = inbox
        self._views = views
        # Apps that have sent something to everyone; of the others it is only asked
        # whether they have by now.
        self._apps_with_everyone: set[App] = set()

    async def read(
        self,
        log: Log,
        *,
        newest: Position | None,
        oldest: Position | None,
        count: int,
        version: str = "",
    ) -> PlayerPage:
        """Read what is known to be needed; see `store.logs.inbox.Inbox.page`."""
        bounds, everyone = _bounds(newest, oldest), everyone_log(log.app)
        is_first = newest is None and oldest is None and count <= FIRST_PAGE_MAX
        after: list[Command | Packed] = []
        if is_first and not version:
            call, *after = self._inbox.first_page_call(log, count)
        else:
            call = self._inbox.page_call(log, bounds, count, version)
        calls = [call]
        if log.app in self._apps_with_everyone:
            calls += self._audience_calls(everyone, bounds, count)
        after += [*self._views.peek(log), ("EXISTS", state_key(everyone))]
        replies = await self._run(calls, after)
        reply, *audience_replies = replies[: len(calls)]
        *found, names, left, said = replies[len(calls) :]
        own = (
            self._inbox.parse_first_page(reply, found[0], count)
            if found
            else parse_page(reply)
        )
        if own is None:
            # Something was appended, or has left, between the script and the command.
            own = await self._inbox.page(log, count=count)
        views = self._views.parse_peek(log, (names, left)) or await self._views.read(
            log
        )
        if audience_replies:
            everyone_page = _parse_audience_page(audience_replies)
        elif said:
            self._note_everyone(log.app)
            audiences = [(everyone, oldest)]
            (everyone_page,) = await self.audience_pages(
                audiences, newest=newest, count=count
            )
        else:
            everyone_page = _NO_LOG
        return PlayerPage(own, views, everyone_page)

    async def audience_pages(
        self,
        audiences: Sequence[tuple[Log, Position | None]],
        *,
        newest: Position | None,
        count: int,
    ) -> list[AudiencePage]:
        """Read the same page of audiences' logs, each down to a place of its own."""
        calls = []
        for log, oldest in audiences:
            calls += self._audience_calls(log, _bounds(newest, oldest), count)
        replies = await self._run(calls)
        return [
            _parse_audience_page(replies[i : i + 2]) for i in range(0, len(replies), 2)
        ]

    def _audience_calls(
        self, log: Log, bounds: tuple[str, str], count: int
    ) -> list[ScriptCall]:
        return [
            self._inbox.page_call(log, bounds, count),
            self._inbox.audience_call(log),
        ]

    def _note_everyone(self, app: App) -> None:
        if len(self._apps_with_everyone) >= APPS_MAX:
            self._apps_with_everyone.clear()
        self._apps_with_everyone.add(app)

    async def _run(
        self, calls: Sequence[ScriptCall], after: Sequence[Command | Packed] = ()
    ) -> list[Any]:
        replies = await self._redis.run_many(calls, write=False, after=after)
        return [ok(reply) for reply in replies]


def _parse_audience_page(replies: Sequence[list[Any]]) -> AudiencePage:
    page, audience = replies
    return AudiencePage(parse_page(page), parse_audience(audience))


def _bounds(newest: Position | None, oldest: Position | None) -> tuple[str, str]:
    return bound(newest, True, "+"), bound(oldest, True, "-")


# What the scripts say of a log that is not there.
_NO_LOG: Final = _parse_audience_page(
    ([b"0.0.0.1.0.0", [b"0"] * 4, 0, [], []], [[b"0"] * 4, b"1", b"0", b""])
)
