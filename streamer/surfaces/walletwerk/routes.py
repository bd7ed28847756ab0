"""
The WalletWerk surface: send to a campaign, schedule, list, retrieve, cancel.

Decides only which service an operation calls. Knows Starlette, the services, `wire` and
`refusals`. Every path exists with and without the prefix ``/api/v1``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ...contract.binding import Endpoints
from ...contract.fallbacks import Fallback
from ...contract.responses import json_response
from ...core.access.rights import Caller
from ...core.schedule import Schedule
from ...errors import TooLate
from ...service.access.authenticator import Authenticator
from ...transports.web.callers import Callers
from ...transports.web.requests import single_header_of
from . import contract, wire
from .campaign_sends import CampaignSends
from .refusals import failed, no_route, refusal
from .wire import CampaignSendsQuery

__all__ = ["WalletWerk"]

PREFIXES: Final = ("/campaigns/", "/api/v1/")


class WalletWerk:
    """The surface, with its routes."""

    fallback = Fallback(PREFIXES, no_route, failed)

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        sends: CampaignSends,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._sends = sends

    def routes(self) -> list[BaseRoute]:
        endpoints = Endpoints(self._callers.of, lambda error, _: refusal(error))
        return endpoints.bind(
            (contract.SEND, self.send),
            (contract.SCHEDULE, self.schedule),
            # Before the ids, since `scheduled` is not an id.
            (contract.SCHEDULED, self.scheduled),
            (contract.ONE, self.one),
            (contract.CANCEL, self.cancel),
        )

    async def send(self, request: Request, caller: Caller) -> Response:
        campaign = request.path_params["campaign"]
        await self._sends.check(caller, campaign)
        body = await contract.SEND_BODY.read(request)
        schedule, replayed = await self._sends.send(
            caller,
            campaign,
            body.notification(),
            idempotency_key=single_header_of(request, b"idempotency-key"),
        )
        return _created(schedule, scheduled=False, replayed=replayed)

    async def schedule(self, request: Request, caller: Caller) -> Response:
        campaign = request.path_params["campaign"]
        await self._sends.check(caller, campaign)
        body = await contract.SCHEDULE_BODY.read(request)
        schedule, replayed = await self._sends.send(
            caller,
            campaign,
            body.notification(),
            due_ms=body.due_ms(),
            idempotency_key=single_header_of(request, b"idempotency-key"),
        )
        return _created(schedule, scheduled=True, replayed=replayed)

    async def scheduled(self, request: Request, caller: Caller) -> Response:
        campaign = request.path_params["campaign"]
        query = CampaignSendsQuery.parse(request.query_params)
        schedules = await self._sends.list_scheduled(
            caller, campaign, state=query.state
        )
        body = wire.encode_list([] if query.is_empty else schedules, query)
        return json_response(body)

    async def one(self, request: Request, caller: Caller) -> Response:
        campaign, send_id = request.path_params["campaign"], request.path_params["id"]
        schedule = await self._sends.get(caller, campaign, send_id)
        return _response(schedule)

    async def cancel(self, request: Request, caller: Caller) -> Response:
        campaign, send_id = request.path_params["campaign"], request.path_params["id"]
        schedule, cancelled = await self._sends.cancel(caller, campaign, send_id)
        # The page allows it while pending only, so that a second one is refused, too.
        if not cancelled.done:
            raise TooLate(cancelled.state.value)
        return _response(schedule)


def _created(schedule: Schedule, *, scheduled: bool, replayed: bool) -> Response:
    body = wire.encode_notification(schedule, scheduled=scheduled)
    return json_response(body, 201, replayed=replayed)


def _response(schedule: Schedule) -> Response:
    # Only a notification that was sent at once has a label.
    body = wire.encode_notification(schedule, scheduled=not schedule.label)
    return json_response(body)
