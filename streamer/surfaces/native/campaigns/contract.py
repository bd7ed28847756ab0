"""
The contract of campaigns and their cards, with the types of responses.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ....contract.operation import (
    BEARER,
    COOKIE,
    TIME,
    Link,
    Operation,
    ResponseSpec,
    integer,
    matching,
    path,
    query,
)
from ....contract.refusals import (
    BAD_PATH,
    BAD_QUERY,
    BODY,
    CREDENTIAL,
    FOREIGN_ORIGIN,
    RIGHT,
    STORE,
    WRITE,
    unknown,
)
from ....store.scheduling.campaigns import CardStatus
from ..common.body_types import CheckedBody
from . import wire

__all__ = ["CAMPAIGN_OPERATIONS"]

CampaignId = Annotated[str, matching(wire.CAMPAIGN_PATTERN)]
Time = Annotated[str, TIME]
Count = Annotated[int, Meta(ge=0)]


class NotificationsUsed(msgspec.Struct, frozen=True):
    """How many of its notifications a campaign has used."""

    used: Count
    limit: Count


class CampaignItem(msgspec.Struct, frozen=True):
    id: str
    name: str | None
    created_at: Time
    updated_at: Time


class CampaignResponse(CampaignItem, frozen=True):
    cards: Count
    notifications: NotificationsUsed


class CampaignsResponse(msgspec.Struct, frozen=True):
    campaigns: list[CampaignItem]


class CardResponse(msgspec.Struct, frozen=True):
    id: str
    player: str
    status: CardStatus


class CardsResponse(msgspec.Struct, frozen=True):
    """A page of cards. Pass `next` as `after` to get the next page."""

    cards: list[CardResponse]
    next: str | None


class CardsWrittenResponse(msgspec.Struct, frozen=True):
    written: Count


CAMPAIGN_ID: Final = path("id", CampaignId, "Id of the campaign.")
CARD_ID: Final = path("card", str, "Id of the card.", has_slashes=True)
LIMIT: Final = integer(
    "limit", "Maximum number of cards.", default=100, least=1, most=1_000
)
CAMPAIGN_BODY: Final = CheckedBody[wire.CampaignBody](wire.CampaignBody, required=False)
CARDS_BODY: Final = CheckedBody[list[wire.CardBody]](wire.Cards, wire.CARDS_BYTES_MAX)
STATUS_BODY: Final = CheckedBody[wire.StatusBody](wire.StatusBody)
ONE: Final = "/v1/campaigns/{id}"
CALLER_ERRORS: Final = (*CREDENTIAL, *RIGHT, *FOREIGN_ORIGIN)
WRITTEN_CARD: Final = {"id": "$request.path.id", "card": "$request.body#/0/id"}
NO_CAMPAIGN: Final = unknown("the campaign")
NO_CARD: Final = unknown("the campaign", "the card")

CAMPAIGNS: Final = Operation(
    method="GET",
    path="/v1/campaigns",
    name="campaigns",
    summary="List campaigns",
    description="Requires the scope `campaigns:read`, as all reads of campaigns.",
    responses=(ResponseSpec(200, "All campaigns of the app.", CampaignsResponse),),
    refusals=(*CALLER_ERRORS, *STORE),
    security=(BEARER, COOKIE),
)
CAMPAIGN: Final = Operation(
    method="GET",
    path=ONE,
    name="campaign",
    summary="Retrieve a campaign",
    parameters=(CAMPAIGN_ID,),
    responses=(ResponseSpec(200, "The campaign.", CampaignResponse),),
    refusals=(*CALLER_ERRORS, *NO_CAMPAIGN, *STORE),
    security=(BEARER, COOKIE),
)
PUT_CAMPAIGN: Final = Operation(
    method="PUT",
    path=ONE,
    name="putCampaign",
    summary="Create or rename a campaign",
    description="Requires the scope `campaigns:write`, as all changes of campaigns.",
    parameters=(CAMPAIGN_ID,),
    body=CAMPAIGN_BODY,
    responses=(
        ResponseSpec(
            200,
            "The campaign.",
            CampaignResponse,
            links=(
                Link("native.campaign", {"id": "$response.body#/id"}),
                Link("native.putCards", {"id": "$response.body#/id"}),
                Link("walletwerk.send", {"campaign": "$response.body#/id"}),
                Link("walletwerk.schedule", {"campaign": "$response.body#/id"}),
                Link("walletwerk.scheduled", {"campaign": "$response.body#/id"}),
            ),
        ),
    ),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *BODY, *WRITE),
    security=(BEARER, COOKIE),
)
CARDS: Final = Operation(
    method="GET",
    path=f"{ONE}/cards",
    name="cards",
    summary="List a campaign's cards",
    parameters=(
        CAMPAIGN_ID,
        LIMIT,
        query("after", str, "The `next` of the previous page."),
        query("status", CardStatus, "Only cards with this status."),
    ),
    responses=(ResponseSpec(200, "A page of cards.", CardsResponse),),
    refusals=(*CALLER_ERRORS, *NO_CAMPAIGN, *BAD_QUERY, *STORE),
    security=(BEARER, COOKIE),
)
PUT_CARDS: Final = Operation(
    method="PUT",
    path=f"{ONE}/cards",
    name="putCards",
    summary="Create or replace cards in bulk",
    parameters=(CAMPAIGN_ID,),
    body=CARDS_BODY,
    responses=(
        ResponseSpec(
            200,
            "The number of cards written.",
            CardsWrittenResponse,
            links=(
                Link("native.cards", {"id": "$request.path.id"}),
                Link("native.card", WRITTEN_CARD),
                Link("native.setCardStatus", WRITTEN_CARD),
            ),
        ),
    ),
    refusals=(*CALLER_ERRORS, *NO_CAMPAIGN, *BODY, *WRITE),
    security=(BEARER, COOKIE),
)
CARD: Final = Operation(
    method="GET",
    path=f"{ONE}/cards/{{card}}",
    name="card",
    summary="Retrieve a card",
    parameters=(CAMPAIGN_ID, CARD_ID),
    responses=(ResponseSpec(200, "The card.", CardResponse),),
    refusals=(*CALLER_ERRORS, *NO_CARD, *STORE),
    security=(BEARER, COOKIE),
)
SET_CARD_STATUS: Final = Operation(
    method="PATCH",
    path=f"{ONE}/cards/{{card}}",
    name="setCardStatus",
    summary="Change the status of a card",
    parameters=(CAMPAIGN_ID, CARD_ID),
    body=STATUS_BODY,
    responses=(ResponseSpec(200, "The card.", CardResponse),),
    refusals=(*CALLER_ERRORS, *NO_CARD, *BODY, *WRITE),
    security=(BEARER, COOKIE),
)
CAMPAIGN_OPERATIONS: Final = (
    CAMPAIGNS,
    CAMPAIGN,
    PUT_CAMPAIGN,
    CARDS,
    PUT_CARDS,
    CARD,
    SET_CARD_STATUS,
)
