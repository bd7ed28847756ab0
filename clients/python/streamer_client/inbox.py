"""
A player's inbox over HTTP: pages, marks, deletion, receipts, topics and mutes.

Knows the paths and bodies. All operations are idempotent, so they are repeated when the
server is unavailable. A page is requested with the ETag that it had last, and the
server does not send it again while it is unchanged.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
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

__all__ = ["Inboxes", "PageCache", "acknowledge", "mark_read"]

CACHED_PAGES_MAX: Final = 32
"""A few MiB, if each page has 100 small notifications."""


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
    """The pages requested last, each with its ETag; up to `CACHED_PAGES_MAX`."""

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
    """
    Inboxes: the player's own with a player token, any player's with a backend key.

    `player` is the name of a player, or ``me`` for the player of the token. Every
    method raises `Rejected` if the server refuses the request, and `Unavailable` if
    there was no usable response.
    """

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
        Return a page of `player`'s notifications, newest first.

        With filters a page may have fewer than `limit` notifications, or none, and
        still have a `Page.next`.

        Args:
            limit: 1 to 100, by default 20.
            before, after: Cursors or ids, both exclusive. Pass `Page.next` as `before`
                to get the next older page; with `oldest_first`, as `after` to get the
                next newer one.
            type, priority: One or up to 32 values, of which one must match.
            topic: Only what was sent to this topic.
            unread: Only what is not marked as read.
            oldest_first: Begin after `after`, or at the oldest notification kept;
                excludes `before`.
        """
        params: Params = {
            "limit": limit,
            "before": before,
            "after": after,
            "type": _listed((type,) if isinstance(type, str) else type),
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
            Rejected: With status 404 if the inbox has no such notification.
        """
        response = await self._http.request("GET", f"{_inbox(player)}/{quote(id)}")
        return decode(response, Notification)

    async def delete(self, id: str, player: str = "me") -> None:
        """
        Delete a notification from `player`'s inbox, on all devices. Idempotent.

        Raises:
            Rejected: With status 404 if the inbox never had it.
        """
        await self._http.request("DELETE", f"{_inbox(player)}/{quote(id)}")

    async def receipt(self, id: str, player: str = "me") -> Receipt:
        """
        Return the state of a notification for `player`.

        Raises:
            Rejected: With status 404 if the inbox does not have it, or no longer.
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
        Mark as read, and return how many notifications remain unread. Idempotent.

        Give exactly one of `ids` (at most 1,000; unknown ones are ignored), `up_to` (a
        cursor or id, inclusive) and `all`.

        Raises:
            ValueError: None or several of them are given.
        """
        check_mark(ids, up_to, all)
        return await mark_read(self._http, player, ids=ids, up_to=up_to, all=all)

    async def mark_unread(self, ids: Sequence[str], player: str = "me") -> int:
        """Mark as unread (at most 1,000 ids), and return how many are unread."""
        response = await self._http.request(
            "POST", f"{_inbox(player)}/unread", content=_Ids(tuple(ids))
        )
        return decode(response, _UnreadCount).unread

    async def ack(self, cursor: str, player: str = "me") -> None:
        """Acknowledge that everything up to `cursor` has arrived; for receipts."""
        await acknowledge(self._http, player, cursor)

    async def unread(self, players: Sequence[str]) -> dict[str, int]:
        """Return the unread counts of up to 1,000 players, by name."""
        response = await self._http.request(
            "POST", "unread", content=_Players(tuple(players))
        )
        return {
            one.player: one.unread for one in decode(response, _UnreadCounts).unread
        }

    async def topics(self, player: str = "me") -> tuple[Membership, ...]:
        """Return the topics that `player` is subscribed to."""
        response = await self._http.request("GET", f"{_player(player)}/topics")
        return decode(response, _Memberships).topics

    async def join(self, topic: str, player: str = "me") -> None:
        """
        Subscribe `player` to what is sent to `topic` from now on. Idempotent.

        Raises:
            Rejected: With status 409 if the player has 16 topics already.
        """
        await self._http.request(
            "PUT", f"{_player(player)}/topics/{quote(topic, slashes=True)}"
        )

    async def leave(self, topic: str, player: str = "me") -> None:
        """Unsubscribe `player` from `topic`; its messages are gone. Idempotent."""
        await self._http.request(
            "DELETE", f"{_player(player)}/topics/{quote(topic, slashes=True)}"
        )

    async def mutes(self, player: str = "me") -> Mutes:
        """Return the types and topics that `player` has muted."""
        response = await self._http.request("GET", f"{_player(player)}/mutes")
        return decode(response, Mutes)

    async def mute(
        self, player: str = "me", *, type: str | None = None, topic: str | None = None
    ) -> None:
        """
        Mute a type of notifications or a topic for `player`. Idempotent.

        Notifications of a muted type are not stored for the player. The messages of a
        muted topic are hidden while it is muted.

        Raises:
            Rejected: With status 404 if the player is not subscribed to the topic; with
                409 if the player has muted 100 types already.
            ValueError: Neither or both of `type` and `topic` are given.
        """
        await self._http.request("PUT", _mute(player, type, topic))

    async def unmute(
        self, player: str = "me", *, type: str | None = None, topic: str | None = None
    ) -> None:
        """Unmute a type or a topic. Idempotent. Raises as `mute`."""
        await self._http.request("DELETE", _mute(player, type, topic))


def _listed(values: Iterable[str]) -> tuple[str, ...]:
    """Return values of a parameter in which a comma separates values."""
    return tuple(it.replace("\\", "\\\\").replace(",", "\\,") for it in values)


def _player(player: str) -> str:
    return f"players/{quote(player)}"


async def mark_read(
    http: Http,
    player: str,
    *,
    ids: Sequence[str] | None,
    up_to: str | None,
    all: bool,
) -> int:
    """See `Inboxes.mark_read`, which checks its arguments."""
    mark = _Mark(ids=None if ids is None else tuple(ids), up_to=up_to, all=all)
    response = await http.request("POST", f"{_inbox(player)}/read", content=mark)
    return decode(response, _UnreadCount).unread


async def acknowledge(http: Http, player: str, cursor: str) -> None:
    """See `Inboxes.ack`."""
    await http.request("POST", f"{_inbox(player)}/ack", content=_Ack(cursor))


def _inbox(player: str) -> str:
    return f"{_player(player)}/notifications"


def _mute(player: str, type: str | None, topic: str | None) -> str:
    if type is not None and topic is None:
        return f"{_player(player)}/mutes/types/{quote(type)}"
    if topic is not None and type is None:
        return f"{_player(player)}/mutes/topics/{quote(topic, slashes=True)}"
    raise ValueError("give exactly one of type and topic")
