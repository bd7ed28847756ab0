"""
The RallyHere surface: pages, long poll, creation, retrieval by id.

Decides the order of checks and which service an operation calls. Knows Starlette, the
services, `wire` and `refusals`. Every operation accepts the id of a player or ``me``,
the player of the caller's token, whose name need not be a UUID.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ...contract.binding import Endpoints
from ...contract.fallbacks import Fallback
from ...contract.responses import json_response
from ...core.access.rights import Caller
from ...core.streams.cursor import Cursor
from ...core.streams.subscription import Start
from ...model import Entry, Log, Player
from ...service.access.authenticator import Authenticator
from ...service.inboxes.inbox import InboxOperations
from ...service.node.in_flight import InFlight
from ...service.publishing.publisher import Publisher
from ...service.streams.admission import Admission
from ...transports.streams.longpoll import wait_for_entry
from ...transports.web.callers import Callers
from ...transports.web.requests import (
    etag_matches,
    list_header_of,
    single_header_of,
)
from . import contract, wire
from .refusals import failed, no_route, refusal
from .wire import PageQuery, PollQuery

__all__ = ["RallyHere"]


class RallyHere:
    """The surface, with its routes."""

    fallback = Fallback(("/notification/",), no_route, failed)

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        publisher: Publisher,
        inboxes: InboxOperations,
        in_flight: InFlight,
        admission: Admission,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._publisher = publisher
        self._inboxes = inboxes
        self._in_flight = in_flight
        self._admission = admission

    def routes(self) -> list[BaseRoute]:
        return Endpoints(self._callers.of, lambda error, _: refusal(error)).bind(
            (contract.POLL, self.poll),
            (contract.PAGE, self.page),
            (contract.CREATE, self.create),
            (contract.ONE, self.one),
        )

    async def page(self, request: Request, caller: Caller) -> Response:
        player = _player_of(request, caller)
        caller.require_read(player)
        query = PageQuery.parse(request.query_params)
        with self._in_flight.track(Log(caller.app, player)):
            page = await self._inboxes.page(
                caller,
                player,
                newest=query.start_at,
                oldest=query.exclude_before,
                count=query.page_size,
            )
        body = wire.encode_page(page)
        etag = query.etag(body)
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        sent = (list_header_of(request, b"if-none-match") or "").strip()
        # The page calls it a plain string, so that some clients omit the quotes.
        if etag_matches(request, etag) or sent == etag.strip('"'):
            return Response(status_code=304, headers=headers)
        return json_response(body, headers=headers)

    async def poll(self, request: Request, caller: Caller) -> Response:
        player = _player_of(request, caller)
        caller.require_listen(player)
        query = PollQuery.parse(request.query_params)
        log = Log(caller.app, player)
        with self._in_flight.track(log):
            entries, cursor = await self._after(caller, player, query.start, query)
        if not entries and query.deadline_s:
            await wait_for_entry(
                self._admission,
                log,
                cursor,
                deadline_s=query.deadline_s,
                request=request,
                caller=caller,
            )
            # Whatever ended the wait, the log has what arrived.
            entries, cursor = await self._after(caller, player, cursor, query)
        body = wire.encode_poll(entries, cursor)
        return json_response(body, headers={"Cache-Control": "no-store"})

    async def create(self, request: Request, caller: Caller) -> Response:
        player = _player_of(request, caller)
        caller.require_write(player)
        notifications = (await contract.CREATE_BODY.read(request)).notifications()
        with self._in_flight.track(Log(caller.app, player)):
            published = await self._publisher.publish(
                caller,
                [player],
                notifications,
                idempotency_key=single_header_of(request, b"idempotency-key"),
            )
        ((_, positions),) = published.positions
        return json_response(
            wire.encode_created(positions), replayed=published.replayed
        )

    async def one(self, request: Request, caller: Caller) -> Response:
        player = _player_of(request, caller)
        caller.require_read(player)
        with self._in_flight.track(Log(caller.app, player)):
            page_entry = await self._inboxes.get(
                caller, player, request.path_params["notification_id"]
            )
        return json_response(wire.encode_notification(page_entry.entry))

    async def _after(
        self, caller: Caller, player: Player, start: Cursor | Start, query: PollQuery
    ) -> tuple[list[Entry], Cursor]:
        """Return the entries after a position, and the cursor after them."""
        count, reset_to = query.max_page_size, query.reset_to
        # The strategy is for a cursor that the player's stream does not have. If only
        # the log of an audience has lost entries, the player's own are not passed over.
        read = await self._inboxes.entries_after(
            caller, player, start, count=count, reset_audiences=reset_to
        )
        if read.gap:
            read = await self._inboxes.entries_after(
                caller, player, reset_to, count=count
            )
        return read.entries, read.cursor


def _player_of(request: Request, caller: Caller) -> Player:
    """
    Return the player of a path. ``me`` is the player of the caller's token.

    Raises:
        Forbidden: The path has ``me``, and the caller is not a player.
        Invalid: The path has no valid id.

    """
    text = request.path_params["player_uuid"]
    return caller.require_player() if text == "me" else wire.parse_player_id(text)
