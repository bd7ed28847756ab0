"""
The casino gateway's surface: a player's list, read marks and stream.

Decides which callers are permitted: those with a token of that brand and, if the path
names one, of that player. Knows Starlette, the services, `wire` and `refusals`. The
credential is in a header that browsers do not send by themselves, so the origin of a
request needs no check.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ...contract.binding import Endpoints, bind
from ...contract.fallbacks import Fallback
from ...contract.responses import json_response
from ...core.access.rights import Caller
from ...core.streams.subscription import Start
from ...errors import Defect, Unauthenticated, Unsupported
from ...model import Log, Player, parse_player
from ...service.access.authenticator import Authenticator, Credentials
from ...service.inboxes.inbox import InboxOperations
from ...service.inboxes.numbered import NumberedInbox
from ...service.node.in_flight import InFlight
from ...transports.streams.opening import Opening, StreamComponents
from ...transports.streams.sse import SseStream, StreamRequest
from ...transports.web.requests import list_header_of
from . import contract, refusals, wire
from .frames import GatewayCodec

__all__ = ["Gateway"]

KEEPALIVE_S: Final = 15


PlayerCaller = tuple[Caller, Player]


class Gateway:
    """
    The surface, with its routes.

    Args:
        authenticator: Identifies players.
        inboxes: Marks notifications.
        listing: Lists notifications.
        in_flight: Counts requests in flight.
        streams: The components of streams. The heartbeat is the gateway's.
        clock: Returns Unix time in seconds, for the frames of the stream.

    """

    fallback = Fallback(
        ("/gateway/", "/notifications/"), refusals.no_route, refusals.failed
    )

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        inboxes: InboxOperations,
        listing: NumberedInbox,
        in_flight: InFlight,
        streams: StreamComponents,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authenticator = authenticator
        self._inboxes = inboxes
        self._listing = listing
        self._in_flight = in_flight
        self._clock = clock
        limits = msgspec.structs.replace(streams.limits, heartbeat_s=KEEPALIVE_S)
        parts = msgspec.structs.replace(streams, limits=limits)
        self._sse = SseStream(parts, refuse=refusals.refusal, parse=self._parse)

    def routes(self) -> list[BaseRoute]:
        endpoints = Endpoints(self._player, lambda error, _: refusals.refusal(error))
        return [
            *endpoints.bind(
                (contract.LIST, self.page),
                (contract.MARK_READ, self.mark_read),
                (contract.LIST_OF_PLAYER, self.page),
                (contract.MARK_READ_OF_PLAYER, self.mark_read),
            ),
            *bind([(contract.STREAM, self._sse)]),
        ]

    async def page(self, request: Request, player_caller: PlayerCaller) -> Response:
        caller, player = player_caller
        with self._in_flight.track(Log(caller.app, player)):
            only_unread = wire.parse_only_unread(request.query_params)
            listed = await self._listing.page(
                caller,
                player,
                count=wire.LIST_MAX,
                read=False if only_unread else None,
            )
        named = request.path_params.get("player_id") or player
        body = wire.encode_list(caller.app, named, listed.entries)
        return json_response(body, headers={"Cache-Control": "no-store"})

    async def mark_read(
        self, request: Request, player_caller: PlayerCaller
    ) -> Response:
        caller, player = player_caller
        with self._in_flight.track(Log(caller.app, player)):
            caller.require_mark(player)
            ids = (await contract.MARK_BODY.read(request)).ids()
            await self._inboxes.mark_ids(caller, player, ids, ids_max=wire.IDS_MAX)
        return json_response(wire.MARKED)

    async def _parse(self, request: Request) -> StreamRequest:
        caller, player = await self._player(request)
        kinds = (list_header_of(request, b"accept") or "").lower().split(",")
        if "text/event-stream" not in (kind.split(";")[0].strip() for kind in kinds):
            raise Unsupported("Accept", "text/event-stream")
        codec = GatewayCodec(Log(caller.app, player), self._clock)
        return StreamRequest(caller, Opening(Start.LATEST, instance=""), codec)

    async def _player(self, request: Request) -> PlayerCaller:
        """
        Return the caller and its player.

        Raises:
            Unauthenticated: The credential is invalid, or of another brand or player.
            Forbidden: The caller is not a player, or may not read.

        """
        sent = Credentials.from_header(request.headers.raw, b"x-auth-token")
        caller = await self._authenticator.caller(sent)
        player = caller.require_player()
        caller.require_read(player)
        if request.path_params["brand_id"] != caller.app:
            raise Unauthenticated(Defect.CLAIM, "aud")
        named = request.path_params.get("player_id")
        if named is not None and parse_player(named) != player:
            raise Unauthenticated(Defect.CLAIM, "sub")
        return caller, player
