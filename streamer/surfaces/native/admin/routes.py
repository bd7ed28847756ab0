"""
The native surface's administration of players.

Decides only which service an operation calls. Knows Starlette, the service, and the
wire.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ....contract.responses import json_response
from ....core.access.rights import Caller
from ....errors import FieldError, Invalid
from ....names import PLAYER_CHARS_MAX
from ....service.access.authenticator import Authenticator
from ....service.inspection.operations import Administration
from ....service.node.in_flight import InFlight
from ....transports.web.callers import Callers
from ..common.endpoints import endpoints, player_of
from . import contract, wire

__all__ = ["NativeAdmin"]


class NativeAdmin:
    """Administration of players on the native surface, with its routes."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        administration: Administration,
        in_flight: InFlight,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._administration = administration
        self._in_flight = in_flight

    def routes(self) -> list[BaseRoute]:
        return endpoints(self._callers).bind(
            (contract.NODES, self.nodes),
            (contract.ONLINE, self.online),
            (contract.PRESENCE, self.presence),
            (contract.TRACE, self.trace),
            (contract.CONNECTIONS, self.connections),
            (contract.INSPECT, self.inspect),
            (contract.DISCONNECT, self.disconnect),
        )

    async def nodes(self, request: Request, caller: Caller) -> Response:
        with self._in_flight.track_app(caller.app):
            states = await self._administration.nodes(caller)
        return json_response(wire.encode_nodes(states))

    async def connections(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        with self._in_flight.track_app(caller.app):
            found = await self._administration.connections(caller, player)
        return json_response(wire.encode_connections(found))

    async def inspect(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        count = contract.COUNT.read(request.query_params)
        with self._in_flight.track_app(caller.app):
            found = await self._administration.inspect(caller, player, count=count)
        return json_response(
            wire.encode_inspection(request.path_params["player"], found)
        )

    async def trace(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        notification_id = request.path_params["id"]
        with self._in_flight.track_app(caller.app):
            traced = await self._administration.trace(caller, player, notification_id)
        return json_response(wire.encode_trace(traced))

    async def disconnect(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        caller.require_scope("admin:write")
        body = await contract.DISCONNECT_BODY.read(request)
        connection = "" if body.connection is UNSET else body.connection
        with self._in_flight.track_app(caller.app):
            ended = await self._administration.disconnect(
                caller,
                player,
                connection,
                reconnect=body.reconnect,
                reason=body.reason,
            )
        return json_response(wire.encode_disconnected(ended))

    async def online(self, request: Request, caller: Caller) -> Response:
        query = request.query_params
        limit, after = contract.LIMIT.read(query), query.get("after", "")
        if len(after) > PLAYER_CHARS_MAX:
            problem = f"must have at most {PLAYER_CHARS_MAX} characters"
            raise Invalid(FieldError(("query", "after"), problem))
        with self._in_flight.track_app(caller.app):
            page = await self._administration.online(caller, after=after, limit=limit)
        return json_response(wire.encode_online(page))

    async def presence(self, request: Request, caller: Caller) -> Response:
        caller.require_scope("admin:read")
        body = await contract.PRESENCE_BODY.read(request)
        players = body.named()
        with self._in_flight.track_app(caller.app):
            sightings = await self._administration.presence(caller, players)
        return json_response(wire.encode_presence(body.players, sightings))
