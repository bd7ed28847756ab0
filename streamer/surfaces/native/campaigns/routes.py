"""
The native surface's campaigns: create, list, and maintain their cards.

Decides only which service an operation calls. Knows Starlette, the service, and the
wire. Notifications to campaigns are sent on the surface of their vendor.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ....contract.responses import json_response
from ....core.access.rights import Caller
from ....service.access.authenticator import Authenticator
from ....service.scheduling.campaigns import CampaignOperations
from ....transports.web.callers import Callers
from ..common.endpoints import endpoints
from . import contract, wire

__all__ = ["NativeCampaigns"]


class NativeCampaigns:
    """Campaigns on the native surface, with their routes."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        campaigns: CampaignOperations,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._campaigns = campaigns

    def routes(self) -> list[BaseRoute]:
        return endpoints(self._callers).bind(
            (contract.CAMPAIGNS, self.campaigns),
            (contract.CAMPAIGN, self.campaign),
            (contract.PUT_CAMPAIGN, self.put_campaign),
            (contract.CARDS, self.cards),
            (contract.PUT_CARDS, self.put_cards),
            (contract.CARD, self.card),
            (contract.SET_CARD_STATUS, self.set_card_status),
        )

    async def campaigns(self, request: Request, caller: Caller) -> Response:
        campaigns = await self._campaigns.list_all(caller)
        return json_response(wire.encode_campaigns(campaigns))

    async def campaign(self, request: Request, caller: Caller) -> Response:
        state = await self._campaigns.get(caller, request.path_params["id"])
        return json_response(wire.encode_campaign(state))

    async def put_campaign(self, request: Request, caller: Caller) -> Response:
        caller.require_scope("campaigns:write")
        campaign_id = wire.parse_campaign_id(request.path_params["id"])
        body = await contract.CAMPAIGN_BODY.read(request)
        state = await self._campaigns.put(caller, campaign_id, body.name)
        return json_response(wire.encode_campaign(state))

    async def cards(self, request: Request, caller: Caller) -> Response:
        query = request.query_params
        limit = contract.LIMIT.read(query)
        cards, after = await self._campaigns.cards(
            caller,
            request.path_params["id"],
            after=wire.parse_after(query.get("after") or "0."),
            limit=limit,
            status=wire.parse_status(query.get("status")),
        )
        return json_response(wire.encode_cards(cards, after))

    async def put_cards(self, request: Request, caller: Caller) -> Response:
        caller.require_scope("campaigns:write")
        cards = wire.parse_cards(await contract.CARDS_BODY.read(request))
        await self._campaigns.put_cards(caller, request.path_params["id"], cards)
        return json_response(b'{"written":%d}' % len(cards))

    async def card(self, request: Request, caller: Caller) -> Response:
        campaign_id, card_id = request.path_params["id"], request.path_params["card"]
        card = await self._campaigns.card(caller, campaign_id, card_id)
        return json_response(wire.encode_card(card))

    async def set_card_status(self, request: Request, caller: Caller) -> Response:
        campaign_id, card_id = request.path_params["id"], request.path_params["card"]
        caller.require_scope("campaigns:write")
        body = await contract.STATUS_BODY.read(request)
        card = await self._campaigns.set_status(
            caller, campaign_id, card_id, body.status
        )
        return json_response(wire.encode_card(card))
