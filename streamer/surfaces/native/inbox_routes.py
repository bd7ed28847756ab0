"""
The native surface's inboxes: pages, marks, deleting, receipts, counts.

Decides nothing but which service a path asks. Knows Starlette, the services, and the
wire.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ...core.access import Caller
from ...errors import FieldError, Invalid
from ...model import Log, Player
from ...service.authenticator import Authenticator
from ...service.inboxes import Inboxes, parse_cursor
from ...service.receipts import Receipts
from ...service.requests import Requests
from ...service.searching import Found, Searching
from ...transports.callers import Callers
from ...transports.http import etag_matches
from . import inbox_wire, names
from .endpoints import (
    NO_CONTENT,
    body_of,
    cursor_of,
    json,
    limit_of,
    player_of,
    routing,
)
from .shapes import Shape

__all__ = ["NativeInboxes"]

_MARK: Final = Shape[inbox_wire.MarkBody](inbox_wire.MarkBody)
_MARK_UNREAD: Final = Shape[inbox_wire.MarkUnreadBody](inbox_wire.MarkUnreadBody)
_ACK: Final = Shape[inbox_wire.AckBody](inbox_wire.AckBody)
_UNREAD: Final = Shape[inbox_wire.UnreadBody](inbox_wire.UnreadBody)


class NativeInboxes:
    """Players' inboxes on the native surface, and their routes."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        inboxes: Inboxes,
        searching: Searching,
        receipts: Receipts,
        requests: Requests,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._inboxes = inboxes
        self._searching = searching
        self._receipts = receipts
        self._requests = requests

    def routes(self) -> list[BaseRoute]:
        route = routing(self._callers)
        inbox = "/v1/players/{player:path}/notifications"
        return [
            route("/v1/unread", self.unread, "POST"),
            route(f"{inbox}/read", self.mark_read, "POST"),
            route(f"{inbox}/unread", self.mark_unread, "POST"),
            route(f"{inbox}/ack", self.acknowledge, "POST"),
            route(inbox, self.page, "GET"),
            route(f"{inbox}/{{id}}/receipt", self.receipt, "GET"),
            route(f"{inbox}/{{id}}", self.one, "GET", "DELETE"),
        ]

    async def page(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        filter_ = inbox_wire.read_filter(request.query_params)
        oldest_first = inbox_wire.read_order(request.query_params)
        mark = filter_.mark(oldest_first=oldest_first)
        with self._requests.hold(Log(caller.app, player)):
            found = await self._search(
                request, caller, player, filter_, mark, oldest_first=oldest_first
            )
        etag = f'"{found.state.version}{mark}"'
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        if found.entries is None or etag_matches(request, etag):
            return Response(status_code=304, headers=headers)
        return json(inbox_wire.encode_page(found), headers=headers)

    async def _search(
        self,
        request: Request,
        caller: Caller,
        player: Player,
        filter_: inbox_wire.Filter,
        mark: str,
        *,
        oldest_first: bool,
    ) -> Found:
        limit = limit_of(request)
        before, after = cursor_of(request, "before"), cursor_of(request, "after")
        matches = None if filter_.lets_all_pass else filter_.matches
        version = _known_version(request, mark)
        if not oldest_first:
            return await self._searching.newest_first(
                caller,
                player,
                newest=before,
                oldest=after,
                count=limit,
                matches=matches,
                version=version,
            )
        if before is not None:
            raise Invalid(FieldError(("query", "before"), "is for newest first"))
        return await self._searching.oldest_first(
            caller, player, after=after, count=limit, matches=matches, version=version
        )

    async def one(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        notification_id = request.path_params["id"]
        with self._requests.hold(Log(caller.app, player)):
            if request.method == "DELETE":
                await self._inboxes.delete(caller, player, notification_id)
                return Response(status_code=NO_CONTENT)
            found = await self._inboxes.one(caller, player, notification_id)
        return json(inbox_wire.encode_entry(found))

    async def receipt(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        notification_id = request.path_params["id"]
        with self._requests.hold(Log(caller.app, player)):
            receipt = await self._receipts.of_player(caller, player, notification_id)
        return json(inbox_wire.encode_receipt(notification_id, receipt))

    async def mark_read(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        body = await body_of(request, _MARK)
        if isinstance(body.ids, list):
            marked = await self._inboxes.mark_ids(caller, player, body.ids)
        elif isinstance(body.up_to, str):
            cursor = parse_cursor(body.up_to, "body", "up_to")
            marked = await self._inboxes.mark_up_to(caller, player, cursor)
        else:
            marked = await self._inboxes.mark_all(caller, player)
        return json(b'{"unread":%d}' % marked.unread)

    async def mark_unread(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        body = await body_of(request, _MARK_UNREAD)
        marked = await self._inboxes.mark_unread(caller, player, body.ids)
        return json(b'{"unread":%d}' % marked.unread)

    async def acknowledge(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        body = await body_of(request, _ACK)
        cursor = parse_cursor(body.cursor, "body", "cursor")
        await self._receipts.acknowledge(caller, player, cursor)
        return Response(status_code=NO_CONTENT)

    async def unread(self, request: Request, caller: Caller) -> Response:
        body = await body_of(request, _UNREAD)
        players = [names.player_named(text) for text in body.players]
        with self._requests.hold_for(caller.app):
            counts = await self._inboxes.unread_many(caller, players)
        return json(inbox_wire.encode_unread(players, counts))


def _known_version(request: Request, mark: str) -> str:
    # One tag, as every client sends that was given one by us, saves reading the
    # entries; a list is compared afterwards.
    tag = request.headers.get("if-none-match", "").strip().removeprefix("W/").strip('"')
    if tag.isascii() and len(tag) <= 100 and tag.endswith(mark):
        return tag.removesuffix(mark)
    return ""
