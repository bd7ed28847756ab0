"""
The native surface's campaigns: make, list, and keep their cards.

Decides nothing but which service a path asks. Knows Starlette, the service, and the two
wires. What is sent to a campaign is asked for on the surface of its vendor.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ...core.access import Caller
from ...errors import Error
from ...service.authenticator import Authenticator
from ...service.campaigns import CampaignsOfApp
from ...transports.callers import Callers
from ...transports.http import decode_body, query_int, read_body
from . import campaign_wire, wire

__all__ = ["NativeCampaigns"]

PAGE_LIMIT: Final = 100
PAGE_LIMIT_MAX: Final = 1_000
BODY_BYTES_MAX: Final = 256 * 1024

_decode_campaign: Final = msgspec.json.Decoder(campaign_wire.CampaignBody)
_decode_cards: Final = msgspec.json.Decoder(campaign_wire.Cards)
_decode_status: Final = msgspec.json.Decoder(campaign_wire.StatusBody)

Handler = Callable[[Request, Caller], Awaitable[Response]]


class NativeCampaigns:
    """The campaigns of the native surface and their routes."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        campaigns: CampaignsOfApp,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._campaigns = campaigns

    def routes(self) -> list[BaseRoute]:
        one = "/v1/campaigns/{id}"
        return [
            Route("/v1/campaigns", self._answers(self.campaigns), methods=["GET"]),
            Route(one, self._answers(self.campaign), methods=["GET", "PUT"]),
            Route(f"{one}/cards", self._answers(self.cards), methods=["GET", "PUT"]),
            Route(
                f"{one}/cards/{{card:path}}",
                self._answers(self.card),
                methods=["GET", "PATCH"],
            ),
        ]

    async def campaigns(self, request: Request, caller: Caller) -> Response:
        found = await self._campaigns.all(caller)
        return _json(campaign_wire.encode_campaigns(found))

    async def campaign(self, request: Request, caller: Caller) -> Response:
        if request.method == "PUT":
            caller.require_scope("campaigns:write")
            name = campaign_wire.parse_campaign_id(request.path_params["id"])
            raw = await read_body(request, BODY_BYTES_MAX)
            body = decode_body(_decode_campaign, raw or b"{}")
            state = await self._campaigns.put(caller, name, body.name)
        else:
            state = await self._campaigns.get(caller, request.path_params["id"])
        return _json(campaign_wire.encode_campaign(state))

    async def cards(self, request: Request, caller: Caller) -> Response:
        handler = self.put_cards if request.method == "PUT" else self.page
        return await handler(request, caller, request.path_params["id"])

    async def put_cards(
        self, request: Request, caller: Caller, campaign_id: str
    ) -> Response:
        caller.require_scope("campaigns:write")
        raw = await read_body(request, campaign_wire.CARDS_BYTES_MAX)
        bodies = decode_body(_decode_cards, raw)
        cards = campaign_wire.parse_cards(bodies)
        await self._campaigns.put_cards(caller, campaign_id, cards)
        return _json(b'{"written":%d}' % len(cards))

    async def page(
        self, request: Request, caller: Caller, campaign_id: str
    ) -> Response:
        limit = query_int(request, "limit", PAGE_LIMIT, least=1, most=PAGE_LIMIT_MAX)
        query = request.query_params
        cards, after = await self._campaigns.cards(
            caller,
            campaign_id,
            after=campaign_wire.parse_place(query.get("after") or "0."),
            limit=limit,
            status=campaign_wire.parse_status(query.get("status")),
        )
        return _json(campaign_wire.encode_cards(cards, after))

    async def card(self, request: Request, caller: Caller) -> Response:
        campaign_id, card_id = request.path_params["id"], request.path_params["card"]
        if request.method == "PATCH":
            caller.require_scope("campaigns:write")
            body = decode_body(_decode_status, await read_body(request, BODY_BYTES_MAX))
            card = await self._campaigns.set_status(
                caller, campaign_id, card_id, body.status
            )
        else:
            card = await self._campaigns.card(caller, campaign_id, card_id)
        return _json(campaign_wire.encode_card(card))

    def _answers(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Let `handler` raise what is wrong; answer it as a problem document."""

        async def answering(request: Request) -> Response:
            try:
                return await handler(request, await self._callers.of(request))
            except Error as error:
                return wire.problem(error)

        return answering


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
