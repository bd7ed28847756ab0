"""
Campaigns as bytes: campaigns, cards and pages of cards.

Decides the types and limits of fields. Pure: no I/O, no services.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from ....errors import FieldError, Invalid
from ....model import iso_time, parse_player
from ....service.scheduling.campaigns import SENDS_MAX, CampaignSummary
from ....store.scheduling.campaigns import Campaign, Card, CardStatus

__all__ = [
    "CARDS_BYTES_MAX",
    "CampaignBody",
    "CardBody",
    "Cards",
    "StatusBody",
    "encode_campaign",
    "encode_campaigns",
    "encode_card",
    "encode_cards",
    "parse_after",
    "parse_campaign_id",
    "parse_cards",
    "parse_status",
]

CARDS_BYTES_MAX: Final = 4 * 1024 * 1024
CARDS_MAX: Final = 10_000

CAMPAIGN_PATTERN: Final = r"\A[A-Za-z0-9_.:-]{1,128}\Z"

_CAMPAIGN: Final = re.compile(CAMPAIGN_PATTERN)
_POSITION: Final = re.compile(r"(\d{1,3})\.(.{0,128})", re.ASCII | re.DOTALL)
_CARD_ID: Final = r"^[^\x00-\x1f\x7f\ud800-\udfff]+\Z"

_encode: Final = msgspec.json.Encoder().encode


class CampaignBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PUT /v1/campaigns/{id}``."""

    name: Annotated[str, Meta(max_length=255)] | None = None


class CardBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One card of ``PUT /v1/campaigns/{id}/cards``."""

    id: Annotated[str, Meta(min_length=1, max_length=128, pattern=_CARD_ID)]
    player: Annotated[str, Meta(min_length=1, max_length=128)]
    status: CardStatus


Cards = Annotated[list[CardBody], Meta(min_length=1, max_length=CARDS_MAX)]


class StatusBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PATCH /v1/campaigns/{id}/cards/{card}``."""

    status: CardStatus


def parse_campaign_id(text: str) -> str:
    """Return the id of a campaign to create. Raises Invalid."""
    if _CAMPAIGN.fullmatch(text):
        return text
    problem = "must be 1 to 128 letters, digits, '_', '-', '.' or ':'"
    raise Invalid(FieldError(("path", "id"), problem))


def parse_cards(bodies: Sequence[CardBody]) -> list[Card]:
    """Return cards with normalised players. Raises Invalid with every problem."""
    cards, problems = [], []
    for i, body in enumerate(bodies):
        player = parse_player(body.player)
        if player is None:
            problems.append(FieldError(("body", i, "player"), "is not a player name"))
        else:
            cards.append(Card(body.id, player, body.status, body.player))
    if problems:
        raise Invalid(*problems)
    return cards


def parse_after(text: str) -> tuple[int, str]:
    """Return the position of a ``next``. Raises Invalid."""
    match = _POSITION.fullmatch(text)
    if match is None:
        raise Invalid(
            FieldError(("query", "after"), "is not the next of a page of cards")
        )
    return int(match[1]), match[2]


def parse_status(text: str | None) -> CardStatus | None:
    """Return the status to filter by, None for any. Raises Invalid."""
    if text is None:
        return None
    try:
        status: CardStatus = msgspec.convert(text, CardStatus)
    except msgspec.ValidationError:
        problem = "must be draft, active, revoked, expired or removed"
        raise Invalid(FieldError(("query", "status"), problem)) from None
    return status


def encode_campaign(state: CampaignSummary) -> bytes:
    """Return a campaign with its counts."""
    return _encode(
        {
            **_campaign(state.campaign),
            "cards": state.cards,
            "notifications": {"used": state.slots_used, "limit": SENDS_MAX},
        }
    )


def encode_campaigns(campaigns: Sequence[Campaign]) -> bytes:
    """Return a response with the campaigns of an app."""
    return _encode({"campaigns": [_campaign(campaign) for campaign in campaigns]})


def encode_card(card: Card) -> bytes:
    """Return a response with one card."""
    return _encode(_card(card))


def encode_cards(cards: Sequence[Card], after: tuple[int, str] | None) -> bytes:
    """Return a page of cards. Further cards may follow the position `after`."""
    next_ = None if after is None else f"{after[0]}.{after[1]}"
    return _encode({"cards": [_card(card) for card in cards], "next": next_})


def _campaign(campaign: Campaign) -> dict[str, Any]:
    return {
        "id": campaign.id,
        "name": campaign.name,
        "created_at": iso_time(campaign.created_at_ms),
        "updated_at": iso_time(campaign.updated_at_ms),
    }


def _card(card: Card) -> dict[str, Any]:
    return {
        "id": card.id,
        "player": card.spelling or card.player,
        "status": card.status,
    }
