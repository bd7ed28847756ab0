"""
The reads of one page, in as few packets as possible.

Decides what is read together. A page shows the player's own log, everyone's log, and
those of the topics that the player has joined. The topics are known only after the
views are read; everything else goes into one packet. Most players have no topics and
most apps no log for everyone, so both are peeked at first, which costs less than a
script that finds nothing. The entries of a first page are read by a command after the
script, and belong to the same moment if they fit its reply. Knows the scripts of inbox
and views. Knows nothing of merging.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ...core.streams.views import Audience
from ...model import App, Log, Position, everyone_log
from ..client.commands import Command, Packed
from ..client.connection import RedisConnection, ScriptCall
from ..client.replies import ok
from .entries import Page, bound, parse_audience, parse_page
from .inbox import FIRST_PAGE_MAX, Inbox
from .views import PlayerViews, Views

__all__ = ["AudiencePage", "PageReads", "PlayerPage"]

APPS_MAX: Final = 10_000
"""Apps known to have a log for everyone; at more, all are forgotten."""


class AudiencePage(NamedTuple):
    """A page of an audience's log, and the state of that log."""

    page: Page
    audience: Audience


class PlayerPage(NamedTuple):
    """A page of a player's own log, the player's views, a page of everyone's log."""

    own: Page
    views: PlayerViews
    everyone: AudiencePage


class PageReads:
    """
    Reads for pages. Every method raises StoreUnavailable.

    Bounds are inclusive and compare time and offset. Entries of two logs may have the
    same time and offset; a caller that needs a total order compares tags.

    Args:
        redis: The connection to the store.
        inbox: The logs.
        views: The views of players.

    """

    def __init__(self, redis: RedisConnection, inbox: Inbox, views: Views) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._inbox = inbox
        self._views = views
        # For other apps only the existence of everyone's log is checked.
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
        """Read all that is known to be needed; see `store.logs.inbox.Inbox.page`."""
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
        after += [*self._views.peek(log), ("EXISTS", self._keys.state(everyone))]
        replies = await self._run(calls, after)
        reply, *audience_replies = replies[: len(calls)]
        *items, names, ttl_ms, everyone_exists = replies[len(calls) :]
        own = (
            self._inbox.parse_first_page(reply, items[0], count)
            if items
            else parse_page(reply)
        )
        if own is None:
            # The log has changed between the script and the command.
            own = await self._inbox.page(log, count=count)
        views = self._views.parse_peek(log, (names, ttl_ms)) or await self._views.read(
            log
        )
        if audience_replies:
            everyone_page = _parse_audience_page(audience_replies)
        elif everyone_exists:
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
        """Read the same page of audiences' logs, each down to its own position."""
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


# The replies of the scripts for a log that does not exist.
_NO_LOG: Final = _parse_audience_page(
    ([b"0.0.0.1.0.0", [b"0"] * 4, 0, [], []], [[b"0"] * 4, b"1", b"0", b""])
)
