"""
A player's inbox over HTTP: pages, marks, deleting, receipts, topics and mutes.

Knows the paths and bodies. Whatever changes something may be done twice, and is
repeated. A page is asked for with the ETag that it had the last time, and is not sent
again while it is the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from .http import Http, Params, decode, quote
from .model import (
    Membership,
    Mutes,
    Notification,
    Page,
    Receipt,
    check_mark,
)

__all__ = ["Inboxes", "PageCache"]

CACHED_PAGES_MAX: Final = 32
"""The last pages asked for; of 100 small notifications each they are a few MiB."""


class _Mark(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    ids: tuple[str, ...] | None = None
    up_to: str | None = None
    all: bool = False


class _Ids(msgspec.Struct, frozen=True):
    ids: tuple[str, ...]


class _Ack(msgspec.Struct, frozen=True):
    cursor: str


class _Players(msgspec.Struct, frozen=True):
    players: tuple[str, ...]


class _UnreadCount(msgspec.Struct, frozen=True):
    unread: int


class _PlayerUnread(msgspec.Struct, frozen=True):
    player: str
    unread: int


class _UnreadCounts(msgspec.Struct, frozen=True):
    unread: tuple[_PlayerUnread, ...]


class _Memberships(msgspec.Struct, frozen=True):
    topics: tuple[Membership, ...]


class PageCache:
    """The pages asked for last, each with its ETag."""

    def __init__(self) -> None:
        self._pages: OrderedDict[object, tuple[str, Page]] = OrderedDict()

    def get(self, key: object) -> tuple[str, Page] | None:
        if key in self._pages:
            self._pages.move_to_end(key)
        return self._pages.get(key)

    def put(self, key: object, etag: str, page: Page) -> None:
        self._pages[key] = (etag, page)
        self._pages.move_to_end(key)
        if len(self._pages) > CACHED_PAGES_MAX:
            self._pages.popitem(last=False)


class Inboxes:
    """Inboxes: the own one with a player's token, anybody's with a backend key."""

    _http: Http
    _pages: PageCache

    async def page(
        self,
        player: str = "me",
        *,
        limit: int | None = None,
        before: str | None = None,
        after: str | None = None,
        type: str | Sequence[str] = (),
        priority: str | Sequence[str] = (),
        topic: str | None = None,
        unread: bool = False,
        oldest_first: bool = False,
    ) -> Page:
        """
        Return notifications of `player`, newest first.

        `before` and `after` are cursors or ids, both exclusive. `Page.next` as
        `before` leads on to the older ones; or, with `oldest_first`, as `after` to the
        newer ones. `type` and `priority` are one or several, of which one has to
        match. A page of those that match may end before it is full.
        """
        params: Params = {
            "limit": limit,
            "before": before,
            "after": after,
            "type": (type,) if isinstance(type, str) else tuple(type),
            "priority": (priority,) if isinstance(priority, str) else tuple(priority),
            "topic": topic,
            "unread": "true" if unread else None,
            "order": "oldest" if oldest_first else None,
        }
        key = (player, *params.values())
        cached = self._pages.get(key)
        response = await self._http.request(
            "GET",
            _inbox(player),
            params=params,
            etag=cached[0] if cached else None,
        )
        if response.status_code == 304 and cached:
            return cached[1]
        page = decode(response, Page)
        if etag := response.headers.get("ETag"):
            self._pages.put(key, etag, page)
        return page

    async def get(self, id: str, player: str = "me") -> Notification:
        """
        Return one notification of `player`.

        Raises:
            Rejected: With status 404 if there is no such thing in that inbox.
        """
        response = await self._http.request("GET", f"{_inbox(player)}/{quote(id)}")
        return decode(response, Notification)

    async def delete(self, id: str, player: str = "me") -> None:
        """
        Take a notification out of `player`'s inbox, everywhere; legal twice.

        Raises:
            Rejected: With status 404 if it was never there.
        """
        await self._http.request("DELETE", f"{_inbox(player)}/{quote(id)}")

    async def receipt(self, id: str, player: str = "me") -> Receipt:
        """
        Return what became of a notification for `player`.

        Raises:
            Rejected: With status 404 if it is not there, or not any more.
        """
        path = f"{_inbox(player)}/{quote(id)}/receipt"
        return decode(await self._http.request("GET", path), Receipt)

    async def mark_read(
        self,
        player: str = "me",
        *,
        ids: Sequence[str] | None = None,
        up_to: str | None = None,
        all: bool = False,
    ) -> int:
        """
        Mark as read, and return how many remain unread.

        Exactly one of `ids` (at most 1,000; unknown ones are ignored), `up_to` (a
        cursor, inclusive) and `all` is given. Marking twice is marking once.

        Raises:
            ValueError: None or several of them are given.
        """
        check_mark(ids, up_to, all)
        mark = _Mark(ids=None if ids is None else tuple(ids), up_to=up_to, all=all)
        response = await self._http.request(
            "POST", f"{_inbox(player)}/read", content=mark
        )
        return decode(response, _UnreadCount).unread

    async def mark_unread(self, ids: Sequence[str], player: str = "me") -> int:
        """Take read marks back; return how many are unread."""
        response = await self._http.request(
            "POST", f"{_inbox(player)}/unread", content=_Ids(tuple(ids))
        )
        return decode(response, _UnreadCount).unread

    async def ack(self, cursor: str, player: str = "me") -> None:
        """Tell the sender that everything up to `cursor` has come."""
        await self._http.request("POST", f"{_inbox(player)}/ack", content=_Ack(cursor))

    async def unread(self, players: Sequence[str]) -> dict[str, int]:
        """Return how many are unread, by the names of up to 1,000 players."""
        response = await self._http.request(
            "POST", "unread", content=_Players(tuple(players))
        )
        return {
            one.player: one.unread for one in decode(response, _UnreadCounts).unread
        }

    async def topics(self, player: str = "me") -> tuple[Membership, ...]:
        """Return the topics that `player` has joined."""
        response = await self._http.request("GET", f"{_player(player)}/topics")
        return decode(response, _Memberships).topics

    async def join(self, topic: str, player: str = "me") -> None:
        """
        Let `player` have what is sent to `topic` from now on; legal twice.

        Raises:
            Rejected: With status 409 if that would be too many (16).
        """
        await self._http.request(
            "PUT", f"{_player(player)}/topics/{quote(topic, slashes=True)}"
        )

    async def leave(self, topic: str, player: str = "me") -> None:
        """Let `player` have no more of `topic`; legal twice."""
        await self._http.request(
            "DELETE", f"{_player(player)}/topics/{quote(topic, slashes=True)}"
        )

    async def mutes(self, player: str = "me") -> Mutes:
        """Return what `player` does not want."""
        response = await self._http.request("GET", f"{_player(player)}/mutes")
        return decode(response, Mutes)

    async def mute(
        self, player: str = "me", *, type: str | None = None, topic: str | None = None
    ) -> None:
        """
        Keep a type of notifications, or a topic joined, from `player`; legal twice.

        Raises:
            ValueError: Neither or both of `type` and `topic` are given.
        """
        await self._http.request("PUT", _mute(player, type, topic))

    async def unmute(
        self, player: str = "me", *, type: str | None = None, topic: str | None = None
    ) -> None:
        """Take a mute back, as it was given; legal twice. Raises as `mute`."""
        await self._http.request("DELETE", _mute(player, type, topic))


def _player(player: str) -> str:
    return f"players/{quote(player)}"


def _inbox(player: str) -> str:
    return f"{_player(player)}/notifications"


def _mute(player: str, type: str | None, topic: str | None) -> str:
    if type is not None and topic is None:
        return f"{_player(player)}/mutes/types/{quote(type)}"
    if topic is not None and type is None:
        return f"{_player(player)}/mutes/topics/{quote(topic, slashes=True)}"
    raise ValueError("give exactly one of type and topic")
