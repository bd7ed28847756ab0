"""
The Teak surface: schedule and unschedule.

Decides the order of checks: what is there at all, the credential, the rate, then all
parameters at once. Knows Starlette, the services and `wire`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ...core.access.rights import Caller
from ...errors import Error, Unauthenticated
from ...service.access.authenticator import Authenticator, Credentials
from ...store.access.apps import KEY_PREFIX
from ...transports.web.requests import FORM, JSON, media_type_of, read_body
from . import wire
from .deliveries import Deliveries
from .wire import (
    Credential,
    Parameters,
    ScheduleRequest,
    UnscheduleRequest,
    Wrong,
)

__all__ = ["Teak"]

Asked = TypeVar("Asked")


class Teak:
    """The surface and its routes."""

    def __init__(self, *, authenticator: Authenticator, deliveries: Deliveries) -> None:
        self._authenticator = authenticator
        self._deliveries = deliveries

    def routes(self) -> list[BaseRoute]:
        return [
            self._route("/v2/schedule", Parameters.schedule, self.schedule),
            self._route("/v2/unschedule", Parameters.unschedule, self.unschedule),
        ]

    async def schedule(
        self, request: Request, caller: Caller, asked: ScheduleRequest
    ) -> Response:
        ids, replayed = await self._deliveries.schedule(
            caller,
            asked.players,
            identifier=asked.identifier,
            message=asked.message,
            due_ms=asked.due_ms,
            source=wire.SOURCE,
            idempotency_key=request.headers.get("idempotency-key"),
        )
        return _json(wire.encode_ids(ids), replayed=replayed)

    async def unschedule(
        self, request: Request, caller: Caller, asked: UnscheduleRequest
    ) -> Response:
        if asked.ids:
            ids = await self._deliveries.cancel(caller, asked.ids)
        else:
            ids = await self._deliveries.cancel_named(
                caller, asked.players, asked.identifier
            )
        return _json(wire.encode_ids(ids))

    def _route(
        self,
        path: str,
        understand: Callable[[Parameters, int], Asked],
        handler: Callable[[Request, Caller, Asked], Awaitable[Response]],
    ) -> Route:
        async def answering(request: Request) -> Response:
            try:
                parameters = await _parameters(request)
                credential = parameters.credential()
                nameless = bool(parameters.wrong)
                asked = understand(parameters, await self._deliveries.now_ms())
                if nameless:
                    # Nobody is anybody yet: the same is said of every game.
                    parameters.done()
                caller = await self._caller(credential)
                if caller is None:
                    return wire.unknown_game(credential.game_id)
                await self._deliveries.count(caller, path)
                parameters.done()
                return await handler(request, caller, asked)
            except (Error, Wrong) as error:
                return wire.refusal(error, path)

        return Route(path, answering, methods=["POST"])

    async def _caller(self, credential: Credential) -> Caller | None:
        """
        Return the game, None if it is not known by that secret. Raises
        StoreUnavailable.
        """
        secret = Credentials.from_token(credential.secret_key)
        if not secret.token.startswith(KEY_PREFIX):
            return None
        try:
            caller = await self._authenticator.caller(secret)
        except Unauthenticated:
            return None
        return caller if caller.app == credential.app else None


async def _parameters(request: Request) -> Parameters:
    body = await read_body(request, wire.BODY_BYTES_MAX, media_types=(JSON, FORM))
    is_form = media_type_of(request) == FORM
    return Parameters(wire.parse_form(body) if is_form else wire.parse_json(body))


def _json(body: bytes, *, replayed: bool = False) -> Response:
    headers = {"Idempotent-Replayed": "true"} if replayed else None
    return Response(body, headers=headers, media_type="application/json")
