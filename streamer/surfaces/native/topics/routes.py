"""
The native surface's topics and mutes of players.

Decides nothing but which service a path asks. Knows Starlette, the service, and the
wire.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ....core.access.rights import Caller
from ....model import Log
from ....service.access.authenticator import Authenticator
from ....service.inboxes.topics import Memberships
from ....service.node.in_flight import InFlight
from ....transports.web.callers import Callers
from ..common import names
from ..common.endpoints import NO_CONTENT, json, player_of, routing
from . import wire

__all__ = ["NativeTopics"]


class NativeTopics:
    """What players have joined and muted on the native surface, and the routes."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        memberships: Memberships,
        in_flight: InFlight,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._memberships = memberships
        self._in_flight = in_flight

    def routes(self) -> list[BaseRoute]:
        route = routing(self._callers)
        player = "/v1/players/{player:path}"
        return [
            # In front of the topics, since a player's name may have a slash too.
            route(
                f"{player}/mutes/types/{{type:path}}",
                self.mute_type,
                "PUT",
                "DELETE",
            ),
            route(
                f"{player}/mutes/topics/{{topic:path}}",
                self.mute_topic,
                "PUT",
                "DELETE",
            ),
            route(f"{player}/mutes", self.mutes, "GET"),
            route(
                f"{player}/topics/{{topic:path}}",
                self.topic,
                "PUT",
                "DELETE",
            ),
            route(f"{player}/topics", self.topics, "GET"),
        ]

    async def topics(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        with self._in_flight.hold(Log(caller.app, player)):
            topics = await self._memberships.topics(caller, player)
        return json(wire.encode_topics(topics))

    async def topic(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        topic = names.topic_in_path(request.path_params["topic"])
        change = self._memberships.leave
        if request.method == "PUT":
            change = self._memberships.join
        with self._in_flight.hold(Log(caller.app, player)):
            await change(caller, player, topic)
        return Response(status_code=NO_CONTENT)

    async def mutes(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        with self._in_flight.hold(Log(caller.app, player)):
            types = await self._memberships.muted_types(caller, player)
            topics = await self._memberships.topics(caller, player)
        return json(wire.encode_mutes(types, topics))

    async def mute_type(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        type_ = names.type_in_path(request.path_params["type"])
        muted = request.method == "PUT"
        with self._in_flight.hold(Log(caller.app, player)):
            await self._memberships.mute_type(caller, player, type_, muted=muted)
        return Response(status_code=NO_CONTENT)

    async def mute_topic(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        topic = names.topic_in_path(request.path_params["topic"])
        muted = request.method == "PUT"
        with self._in_flight.hold(Log(caller.app, player)):
            await self._memberships.mute_topic(caller, player, topic, muted=muted)
        return Response(status_code=NO_CONTENT)
