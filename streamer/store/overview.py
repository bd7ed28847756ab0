"""
What a page needs of a player and of everybody, in one packet.

Decides what is read together. A page shows the player's own log, everybody's, and the
topics' that the player has joined; which topics is known only when the views have been
read, the rest is asked for at once. Knows the scripts of inbox and views. Knows nothing
of how they are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..core.views import Audience
from ..model import Log, Position, everyone_log
from .entries import Page, bound, parse_audience, parse_page
from .inbox import Inbox
from .link import Link, ScriptCall
from .views import PlayerViews, Views, parse

__all__ = ["Overview", "Overviews", "Part"]


class Part(NamedTuple):
    """A page of an audience's log, and the state of that log."""

    page: Page
    audience: Audience


class Overview(NamedTuple):
    """A page of a player's own log, its views, and a page of everybody's log."""

    own: Page
    views: PlayerViews
    everyone: Part


class Overviews:
    """
    Reads for pages. Every method raises StoreAway.

    Bounds are inclusive, and go by time and offset: entries of two logs may have the
    same, so that a caller who wants an order among them has to compare tags.

    Args:
        link: The way to the store.
        inbox: What knows the logs.
        views: What knows the views.

    """

    def __init__(self, link: Link, inbox: Inbox, views: Views) -> None:
        self._link = link
        self._inbox = inbox
        self._views = views

    async def of(
        self,
        log: Log,
        *,
        newest: Position | None,
        oldest: Position | None,
        count: int,
        version: str = "",
    ) -> Overview:
        """Read what is known to be needed; see `store.inbox.Inbox.page`."""
        bounds = _bounds(newest, oldest)
        own, views, *everyone = await self._run(
            [
                self._inbox.page_call(log, bounds, count, version),
                self._views.read_call(log),
                *self._part(everyone_log(log.app), bounds, count),
            ]
        )
        return Overview(parse_page(own), parse(log, views), _parse_part(everyone))

    async def parts(
        self,
        audiences: Sequence[tuple[Log, Position | None]],
        *,
        newest: Position | None,
        count: int,
    ) -> list[Part]:
        """Read the same page of audiences' logs, each down to a place of its own."""
        calls = []
        for log, oldest in audiences:
            calls += self._part(log, _bounds(newest, oldest), count)
        replies = await self._run(calls)
        return [_parse_part(replies[i : i + 2]) for i in range(0, len(replies), 2)]

    def _part(self, log: Log, bounds: tuple[str, str], count: int) -> list[ScriptCall]:
        return [
            self._inbox.page_call(log, bounds, count),
            self._inbox.audience_call(log),
        ]

    async def _run(self, calls: Sequence[ScriptCall]) -> list[list[Any]]:
        replies = await self._link.run_many(calls, write=False)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies


def _parse_part(replies: Sequence[list[Any]]) -> Part:
    page, audience = replies
    return Part(parse_page(page), parse_audience(audience))


def _bounds(newest: Position | None, oldest: Position | None) -> tuple[str, str]:
    return bound(newest, True, "+"), bound(oldest, True, "-")
