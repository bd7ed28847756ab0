"""
The native surface's inboxes: pages, marks, deletion, receipts, unread counts.

Decides which service an operation calls, and which change answers a page that waits.
Knows Starlette, the services, and the wire.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Final, NamedTuple

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ....contract.responses import json_response, no_content
from ....core.access.rights import Caller
from ....core.streams.cursor import Cursor
from ....errors import FieldError, Invalid
from ....model import Log, Player
from ....service.access.authenticator import Authenticator
from ....service.inboxes.inbox import InboxOperations, parse_cursor
from ....service.inboxes.receipts import ReceiptOperations
from ....service.inboxes.search import EntryFilter, InboxSearch, SearchPage
from ....service.node.in_flight import InFlight
from ....service.streams.admission import Admission
from ....transports.streams.longpoll import wait_for_entry
from ....transports.web.callers import Callers
from ....transports.web.requests import RawResponse, list_header_of, tag_matches
from ..common.endpoints import cursor_in, endpoints, player_of
from ..common.parameters import LIMIT, read_purge, read_reason
from . import contract, wire

__all__ = ["NativeInboxes"]

_REVALIDATED: Final = (b"cache-control", b"private, no-cache")


class _PageRequest(NamedTuple):
    """The parsed query of a page. `etag_suffix` identifies it in ETags."""

    oldest_first: bool
    matches: EntryFilter | None
    only_unread: bool
    remembered_as: wire.Filter | None
    etag_suffix: str
    limit: int
    before: Cursor | None
    after: Cursor | None
    wait_s: int

    def etag(self, page: SearchPage) -> str:
        return f'"{page.state.version}{self.etag_suffix}"'


class NativeInboxes:
    """Inboxes of players on the native surface, with their routes."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        inboxes: InboxOperations,
        searching: InboxSearch,
        receipts: ReceiptOperations,
        in_flight: InFlight,
        admission: Admission,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._inboxes = inboxes
        self._searching = searching
        self._receipts = receipts
        self._in_flight = in_flight
        self._admission = admission

    def routes(self) -> list[BaseRoute]:
        return endpoints(self._callers).bind(
            # The most frequent operation is matched first.
            (contract.PAGE, self.page),
            (contract.COUNT_UNREAD, self.unread),
            (contract.MARK_READ, self.mark_read),
            (contract.MARK_UNREAD, self.mark_unread),
            (contract.ACKNOWLEDGE, self.acknowledge),
            (contract.RECEIPT, self.receipt),
            (contract.ONE, self.one),
            (contract.DELETE, self.delete),
        )

    async def page(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        query = _page_request(request.scope["query_string"])
        if_none_match = list_header_of(request, b"if-none-match") or ""
        if query.wait_s:
            page = await self._poll(request, caller, player, query, if_none_match)
        else:
            version = _known_version(if_none_match, query.etag_suffix)
            page = await self._read(caller, player, query, version)
        etag = query.etag(page)
        if page.entries is None or tag_matches(if_none_match, etag):
            return RawResponse(304, [(b"etag", etag.encode()), _REVALIDATED])
        response = json_response(wire.encode_page(page))
        response.raw_headers += [(b"etag", etag.encode()), _REVALIDATED]
        return response

    async def _poll(
        self,
        request: Request,
        caller: Caller,
        player: Player,
        query: _PageRequest,
        if_none_match: str,
    ) -> SearchPage:
        """
        Read a page; if it has no news for the caller, wait until there is some.

        News is what the page shows, unless the caller has its ETag. Without a filter a
        change of the number of unread notifications is news, too.
        """
        page = await self._read(caller, player, query)
        unread = page.state.unread

        def is_news(*, has_changed: bool) -> bool:
            if tag_matches(if_none_match, query.etag(page)):
                return False
            is_shown = bool(page.entries or page.gap or page.next)
            return is_shown or (has_changed and query.matches is None)

        async def reads_news() -> bool:
            nonlocal page
            # Its slot limits a poll that waits; to be refused now would be too late.
            page = await self._search(caller, player, query, "")
            return is_news(has_changed=page.state.unread != unread)

        if not is_news(has_changed=bool(if_none_match)):
            is_answered = await wait_for_entry(
                self._admission,
                Log(caller.app, player),
                page.state.cursor,
                deadline_s=query.wait_s,
                request=request,
                caller=caller,
                wakes_on_marks=True,
                is_enough=reads_news,
            )
            if not is_answered:
                # Whatever ended the wait, the log has what arrived.
                await reads_news()
        return page

    async def _read(
        self, caller: Caller, player: Player, query: _PageRequest, version: str = ""
    ) -> SearchPage:
        with self._in_flight.track(Log(caller.app, player)):
            return await self._search(caller, player, query, version)

    async def _search(
        self, caller: Caller, player: Player, query: _PageRequest, version: str
    ) -> SearchPage:
        if query.oldest_first:
            return await self._searching.oldest_first(
                caller,
                player,
                after=query.after,
                count=query.limit,
                matches=query.matches,
                only_unread=query.only_unread,
                version=version,
            )
        return await self._searching.newest_first(
            caller,
            player,
            newest=query.before,
            oldest=query.after,
            count=query.limit,
            matches=query.matches,
            only_unread=query.only_unread,
            version=version,
            remembered_as=query.remembered_as,
        )

    async def one(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        notification_id = request.path_params["id"]
        with self._in_flight.track(Log(caller.app, player)):
            page_entry = await self._inboxes.get(caller, player, notification_id)
        return json_response(wire.encode_entry(page_entry))

    async def delete(self, request: Request, caller: Caller) -> Response:
        player, named = player_of(request, caller), request.path_params["id"]
        purge = read_purge(request.query_params)
        reason = read_reason(request.query_params)
        with self._in_flight.track(Log(caller.app, player)):
            if purge:
                await self._inboxes.purge(caller, player, named, reason=reason)
            else:
                await self._inboxes.delete(caller, player, named)
        return no_content()

    async def receipt(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        notification_id = request.path_params["id"]
        with self._in_flight.track(Log(caller.app, player)):
            receipt = await self._receipts.of_player(caller, player, notification_id)
        return json_response(wire.encode_receipt(notification_id, receipt))

    async def mark_read(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        body = await contract.MARK_BODY.read(request)
        if isinstance(body.ids, list):
            marked = await self._inboxes.mark_ids(caller, player, body.ids)
        elif isinstance(body.up_to, str):
            cursor = parse_cursor(body.up_to, "body", "up_to")
            marked = await self._inboxes.mark_up_to(caller, player, cursor)
        else:
            marked = await self._inboxes.mark_all(caller, player)
        return json_response(b'{"unread":%d}' % marked.unread)

    async def mark_unread(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        body = await contract.MARK_UNREAD_BODY.read(request)
        marked = await self._inboxes.mark_unread(caller, player, body.ids)
        return json_response(b'{"unread":%d}' % marked.unread)

    async def acknowledge(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        body = await contract.ACK_BODY.read(request)
        cursor = parse_cursor(body.cursor, "body", "cursor")
        await self._receipts.acknowledge(caller, player, cursor)
        return no_content()

    async def unread(self, request: Request, caller: Caller) -> Response:
        body = await contract.UNREAD_BODY.read(request)
        players = body.named()
        with self._in_flight.track_app(caller.app):
            counts = await self._inboxes.unread_counts(caller, players)
        return json_response(wire.encode_unread(body.players, counts))


@lru_cache(maxsize=256)
def _page_request(query_string: bytes) -> _PageRequest:
    """Return the query of a page, cached since most are the same. Raises Invalid."""
    query = QueryParams(query_string)
    filter_ = wire.read_filter(query)
    oldest_first = wire.read_order(query)
    limit = LIMIT.read(query)
    before, after = cursor_in(query, "before"), cursor_in(query, "after")
    wait_s = contract.WAIT.read(query)
    if oldest_first and before is not None:
        raise Invalid(
            FieldError(("query", "before"), "cannot be combined with order=oldest")
        )
    if wait_s and not oldest_first:
        raise Invalid(FieldError(("query", "wait_s"), "requires order=oldest"))
    return _PageRequest(
        oldest_first=oldest_first,
        matches=None if filter_.matches_all else filter_.matches,
        only_unread=filter_.unread,
        # Marks change, and the notification itself does not.
        remembered_as=None if filter_.matches_all or filter_.unread else filter_,
        etag_suffix=filter_.etag_suffix(oldest_first=oldest_first),
        limit=limit,
        before=before,
        after=after,
        wait_s=wait_s,
    )


def _known_version(if_none_match: str, etag_suffix: str) -> str:
    # A single tag of this surface, which is what clients send, saves reading the
    # entries. A list of tags is compared after reading.
    tag = if_none_match.strip().removeprefix("W/").strip('"')
    if tag.isascii() and len(tag) <= 100 and tag.endswith(etag_suffix):
        return tag.removesuffix(etag_suffix)
    return ""
