"""
The Teak surface: scheduling and cancelling deliveries.

Decides the order of checks: the form of the parameters, the credential, the rate, then
all parameters at once. Knows Starlette, the services, `wire` and `refusals`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ...contract.binding import Endpoints
from ...contract.fallbacks import Fallback
from ...contract.responses import json_response
from ...core.access.rights import Caller
from ...errors import Defect, Error, Unauthenticated
from ...service.access.authenticator import Authenticator, Credentials
from ...service.node.request_context import note_failed_authentication
from ...store.access.apps import KEY_PREFIX
from ...transports.web.requests import (
    FORM,
    JSON,
    media_type_of,
    read_body,
    single_header_of,
)
from . import contract, refusals, wire
from .deliveries import Deliveries
from .wire import (
    Credential,
    Parameters,
    ScheduleRequest,
    UnscheduleRequest,
)

__all__ = ["Teak"]

T = TypeVar("T", ScheduleRequest, UnscheduleRequest)


class Teak:
    """The surface, with its routes."""

    fallback = Fallback(("/v2/",), refusals.no_route, refusals.failed)

    def __init__(self, *, authenticator: Authenticator, deliveries: Deliveries) -> None:
        self._authenticator = authenticator
        self._deliveries = deliveries

    def routes(self) -> list[BaseRoute]:
        scheduling = self._endpoints(Parameters.schedule)
        cancelling = self._endpoints(Parameters.unschedule)
        return [
            *scheduling.bind((contract.SCHEDULE, self.schedule)),
            *cancelling.bind((contract.UNSCHEDULE, self.unschedule)),
        ]

    async def schedule(
        self, request: Request, call: tuple[Caller, ScheduleRequest]
    ) -> Response:
        caller, parameters = call
        assert parameters.message is not None  # `_with_message` has found one
        ids, replayed = await self._deliveries.schedule(
            caller,
            parameters.players,
            identifier=parameters.identifier,
            message=parameters.message,
            due_ms=parameters.due_ms,
            source=wire.SOURCE,
            idempotency_key=single_header_of(request, b"idempotency-key"),
        )
        body = wire.encode_scheduled(parameters, ids)
        return json_response(body, replayed=replayed)

    async def unschedule(
        self, request: Request, call: tuple[Caller, UnscheduleRequest]
    ) -> Response:
        caller, parameters = call
        if parameters.ids:
            ids = await self._deliveries.cancel(caller, parameters.ids)
        else:
            ids = await self._deliveries.cancel_by_identifier(
                caller, parameters.players, parameters.identifier
            )
        return json_response(wire.encode_cancelled(ids))

    def _endpoints(
        self, parse: Callable[[Parameters, int], T]
    ) -> Endpoints[tuple[Caller, T]]:
        async def identify(request: Request) -> tuple[Caller, T]:
            parameters = await _parameters(request)
            credential = parameters.credential()
            is_incomplete = bool(parameters.problems)
            call = parse(parameters, await self._deliveries.now_ms())
            if is_incomplete:
                # Without a whole credential the response is the same for every game.
                parameters.raise_problems()
            caller = await self._caller(credential)
            await self._deliveries.count_call(caller, request.scope["path"])
            call = await self._with_message(caller, parameters, call)
            parameters.raise_problems()
            return caller, call

        return Endpoints(identify, _refuse)

    async def _with_message(self, caller: Caller, parameters: Parameters, call: T) -> T:
        """
        Return a call whose message is the registered one if it has none.

        If none is registered either, that is a problem of `parameters`.
        """
        if not isinstance(call, ScheduleRequest) or call.message is not None:
            return call
        message = await self._deliveries.message_of(caller, call.identifier)
        if message is None:
            parameters.require_message()
        return call._replace(message=message)

    async def _caller(self, credential: Credential) -> Caller:
        """
        Return the calling game.

        Raises:
            UnknownGame: No game has this id and secret.
            StoreUnavailable: The store cannot be reached.

        """
        secret = Credentials.from_token(credential.secret_key)
        failure = Unauthenticated(Defect.UNKNOWN_KEY)
        if secret.token.startswith(KEY_PREFIX):
            try:
                caller = await self._authenticator.caller(secret)
                if caller.app == credential.app:
                    return caller
            except Unauthenticated as error:
                failure = error
        note_failed_authentication(failure)
        raise refusals.UnknownGame(credential.game_id)


def _refuse(error: Error, request: Request) -> Response:
    return refusals.refusal(error, request.scope["path"])


async def _parameters(request: Request) -> Parameters:
    body = await read_body(request, wire.BODY_BYTES_MAX, media_types=(JSON, FORM))
    is_form = media_type_of(request) == FORM
    return Parameters(wire.parse_form(body) if is_form else wire.parse_json(body))
