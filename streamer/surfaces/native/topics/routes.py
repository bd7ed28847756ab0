"""
The native surface's topics and mutes of players.

Decides only which service an operation calls. Knows Starlette, the service, and the
wire.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ....contract.responses import json_response, no_content
from ....core.access.rights import Caller
from ....model import Log, Topic
from ....service.access.authenticator import Authenticator
from ....service.inboxes.topics import TopicOperations
from ....service.node.in_flight import InFlight
from ....transports.web.callers import Callers
from ..common import names
from ..common.endpoints import endpoints, player_of
from . import contract, wire

__all__ = ["NativeTopics"]


class NativeTopics:
    """Topics and mutes of players on the native surface, with their routes."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        memberships: TopicOperations,
        in_flight: InFlight,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._memberships = memberships
        self._in_flight = in_flight

    def routes(self) -> list[BaseRoute]:
        return endpoints(self._callers).bind(
            # Before the topics, since a player's name may contain slashes.
            (contract.MUTE_TYPE, self.mute_type),
            (contract.UNMUTE_TYPE, self.unmute_type),
            (contract.MUTE_TOPIC, self.mute_topic),
            (contract.UNMUTE_TOPIC, self.unmute_topic),
            (contract.MUTES, self.mutes),
            (contract.JOIN_TOPIC, self.join_topic),
            (contract.LEAVE_TOPIC, self.leave_topic),
            (contract.TOPICS, self.topics),
        )

    async def topics(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        with self._in_flight.track(Log(caller.app, player)):
            topics = await self._memberships.topics(caller, player)
        return json_response(wire.encode_topics(topics))

    async def join_topic(self, request: Request, caller: Caller) -> Response:
        player, topic = player_of(request, caller), _topic_of(request)
        with self._in_flight.track(Log(caller.app, player)):
            await self._memberships.join(caller, player, topic)
        return no_content()

    async def leave_topic(self, request: Request, caller: Caller) -> Response:
        player, topic = player_of(request, caller), _topic_of(request)
        with self._in_flight.track(Log(caller.app, player)):
            await self._memberships.leave(caller, player, topic)
        return no_content()

    async def mutes(self, request: Request, caller: Caller) -> Response:
        player = player_of(request, caller)
        with self._in_flight.track(Log(caller.app, player)):
            types = await self._memberships.muted_types(caller, player)
            topics = await self._memberships.topics(caller, player)
        return json_response(wire.encode_mutes(types, topics))

    async def mute_type(self, request: Request, caller: Caller) -> Response:
        return await self._set_type(request, caller, muted=True)

    async def unmute_type(self, request: Request, caller: Caller) -> Response:
        return await self._set_type(request, caller, muted=False)

    async def mute_topic(self, request: Request, caller: Caller) -> Response:
        return await self._set_topic(request, caller, muted=True)

    async def unmute_topic(self, request: Request, caller: Caller) -> Response:
        return await self._set_topic(request, caller, muted=False)

    async def _set_type(
        self, request: Request, caller: Caller, *, muted: bool
    ) -> Response:
        player = player_of(request, caller)
        type_ = names.type_in_path(request.path_params["type"])
        with self._in_flight.track(Log(caller.app, player)):
            await self._memberships.mute_type(caller, player, type_, muted=muted)
        return no_content()

    async def _set_topic(
        self, request: Request, caller: Caller, *, muted: bool
    ) -> Response:
        player, topic = player_of(request, caller), _topic_of(request)
        with self._in_flight.track(Log(caller.app, player)):
            await self._memberships.mute_topic(caller, player, topic, muted=muted)
        return no_content()


def _topic_of(request: Request) -> Topic:
    return names.topic_in_path(request.path_params["topic"])
