"""
The LootLocker surface: server sessions and sending, a player's list and read marks.

Decides only which service an operation calls, and which header has its credential.
Knows Starlette, the services, `wire` and `refusals`. Credentials are in headers that
browsers do not send by themselves, so the origin of a request needs no check.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ...contract.binding import Endpoints
from ...contract.fallbacks import Fallback
from ...contract.responses import json_response, no_content
from ...core.access.rights import Caller
from ...errors import Defect, Error, Unauthenticated
from ...model import Log
from ...service.access.authenticator import Authenticator, Credentials
from ...service.inboxes.inbox import InboxOperations
from ...service.inboxes.numbered import NumberedInbox, NumberedPage
from ...service.node.in_flight import InFlight
from ...service.node.request_context import name_request, request_id
from ...service.publishing.publisher import Publisher
from ...transports.web.requests import single_header_of
from . import contract, wire
from .refusals import failed, no_route, refusal
from .server_sessions import SESSION_PREFIX, ServerSessions
from .wire import LootLockerListQuery

__all__ = ["LootLocker"]


def _name(headers: Headers) -> str:
    """Return the id of a request, for errors and for the log: its client's, if any."""
    name_request(headers.get("ll-request-id", ""))
    return request_id()


def _no_route(error: HTTPException, headers: Headers) -> Response:
    return no_route(error, _name(headers))


def _failed(headers: Headers) -> Response:
    return failed(_name(headers))


class LootLocker:
    """
    The surface, with its routes.

    Args:
        authenticator: Identifies players and backend keys.
        sessions: Keeps server sessions.
        publisher: Publishes notifications.
        inboxes: Marks notifications.
        listing: Lists notifications.
        in_flight: Counts requests in flight.
        retention_ms: Age at which an entry leaves an inbox.
        clock: Returns Unix time in seconds, for the response to a ping.

    """

    fallback = Fallback(("/server/", "/game/"), _no_route, _failed)

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        sessions: ServerSessions,
        publisher: Publisher,
        inboxes: InboxOperations,
        listing: NumberedInbox,
        in_flight: InFlight,
        retention_ms: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authenticator = authenticator
        self._sessions = sessions
        self._publisher = publisher
        self._inboxes = inboxes
        self._listing = listing
        self._in_flight = in_flight
        self._retention_ms = retention_ms
        self._clock = clock

    def routes(self) -> list[BaseRoute]:
        return [
            *Endpoints(_server_key, _refuse).bind(
                (contract.OPEN_SESSION, self.open_session),
            ),
            *Endpoints(self._renewed, _refuse).bind(
                (contract.PING, self.ping),
            ),
            *Endpoints(self._server, _refuse).bind(
                (contract.SEND, self.send),
            ),
            *Endpoints(self._game, _refuse).bind(
                (contract.LIST, self.page),
                (contract.MARK_READ, self.mark_read),
                (contract.MARK_ALL_READ, self.mark_all_read),
            ),
        ]

    async def open_session(self, request: Request, key: Credentials) -> Response:
        return json_response(wire.encode_session(await self._sessions.open(key.token)))

    async def ping(self, request: Request, caller: Caller) -> Response:
        return json_response(wire.encode_pong(int(self._clock() * 1000)))

    async def send(self, request: Request, caller: Caller) -> Response:
        body = await contract.SEND_BODY.read(request)
        player, notification = body.checked()
        with self._in_flight.track(Log(caller.app, player)):
            published = await self._publisher.publish(
                caller,
                [player],
                [notification],
                idempotency_key=single_header_of(request, b"idempotency-key"),
            )
        return json_response(b"{}", replayed=published.replayed)

    async def page(self, request: Request, caller: Caller) -> Response:
        player = caller.require_player()
        caller.require_read(player)
        query = LootLockerListQuery.parse(request.query_params)
        listed = NumberedPage(0, [])
        if not query.is_empty:
            with self._in_flight.track(Log(caller.app, player)):
                listed = await self._listing.page(
                    caller,
                    player,
                    skip=query.offset,
                    count=query.per_page,
                    read=query.read,
                    matches=query.matches(),
                )
        body = wire.encode_list(listed, player, query, retention_ms=self._retention_ms)
        return json_response(body, headers={"Cache-Control": "no-store"})

    async def mark_read(self, request: Request, caller: Caller) -> Response:
        player = caller.require_player()
        ids = (await contract.MARK_BODY.read(request)).ids()
        with self._in_flight.track(Log(caller.app, player)):
            await self._inboxes.mark_ids(caller, player, ids, ids_max=wire.IDS_MAX)
        return no_content()

    async def mark_all_read(self, request: Request, caller: Caller) -> Response:
        player = caller.require_player()
        with self._in_flight.track(Log(caller.app, player)):
            await self._inboxes.mark_all(caller, player)
        return no_content()

    async def _renewed(self, request: Request) -> Caller:
        """Return the calling backend, and renew its session."""
        return await self._server(request, renew=True)

    async def _server(self, request: Request, *, renew: bool = False) -> Caller:
        """Return the calling backend, by its session or its key."""
        _name(request.headers)
        sent = Credentials.from_header(request.headers.raw, b"x-auth-token")
        if sent.token.startswith(SESSION_PREFIX):
            return await self._sessions.caller(sent.token, renew=renew)
        caller = await self._authenticator.caller(sent)
        if caller.player is not None:
            raise Unauthenticated(Defect.UNKNOWN_KEY)
        return caller

    async def _game(self, request: Request) -> Caller:
        """Return the calling player."""
        _name(request.headers)
        sent = Credentials.from_header(request.headers.raw, b"x-session-token")
        return await self._authenticator.caller(sent)


async def _server_key(request: Request) -> Credentials:
    _name(request.headers)
    return Credentials.from_header(request.headers.raw, b"x-server-key")


def _refuse(error: Error, request: Request) -> Response:
    return refusal(error, request_id())
