"""
Campaigns and their cards: creating, reading and changing them.

Decides the scopes that each operation requires, and that a campaign of another app does
not exist for a caller. Knows the campaigns in the store. Knows nothing of how a surface
encodes them, nor of sends to campaigns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ...core.access.rights import Caller
from ...errors import NotFound
from ...store.scheduling.campaigns import Campaign, Campaigns, Card, CardStatus
from ...store.scheduling.timetable import Timetable

__all__ = ["SENDS_MAX", "CampaignOperations", "CampaignSummary", "require_campaign"]

SENDS_MAX: Final = 3
"""WalletWerk: notifications that a campaign may have in its lifetime."""


class CampaignSummary(NamedTuple):
    """A campaign with the numbers of its cards and used notification slots."""

    campaign: Campaign
    cards: int
    slots_used: int


class CampaignOperations:
    """
    The operations on campaigns and cards, with the rights of a caller.

    Args:
        campaigns: The campaigns in the store.
        timetable: Has the store's time.

    """

    def __init__(self, campaigns: Campaigns, timetable: Timetable) -> None:
        self._campaigns = campaigns
        self._timetable = timetable

    async def put(
        self, caller: Caller, campaign_id: str, name: str | None
    ) -> CampaignSummary:
        """
        Create a campaign, or rename it; without a name it keeps its name.

        Raises:
            Forbidden: The caller's key lacks the scope.
            Unavailable: It may have been created; a retry is safe.

        """
        caller.require_scope("campaigns:write")
        if name is None:
            existing = await self._campaigns.get(caller.app, campaign_id)
            name = existing.name if existing else ""
        now_ms = await self._timetable.now_ms()
        campaign = await self._campaigns.put(
            caller.app, campaign_id, name, now_ms=now_ms
        )
        return await self._summary(caller, campaign)

    async def get(self, caller: Caller, campaign_id: str) -> CampaignSummary:
        """Return a campaign. Raises Forbidden, NotFound, StoreUnavailable."""
        caller.require_scope("campaigns:read")
        return await self._summary(caller, await self._require(caller, campaign_id))

    async def list_all(self, caller: Caller) -> list[Campaign]:
        """Return the app's campaigns by id. Raises Forbidden, StoreUnavailable."""
        caller.require_scope("campaigns:read")
        return await self._campaigns.of_app(caller.app)

    async def put_cards(
        self, caller: Caller, campaign_id: str, cards: Sequence[Card]
    ) -> None:
        """
        Create or replace cards of a campaign. O(cards).

        Each card is written atomically, all of them are not.

        Raises:
            Forbidden: The caller's key lacks the scope.
            NotFound: The caller's app has no such campaign.
            StoreUnavailable: None was written.
            OutcomeUnknown: Some may have been written; a retry is safe.

        """
        caller.require_scope("campaigns:write")
        await self._require(caller, campaign_id)
        await self._campaigns.put_cards(caller.app, campaign_id, cards)

    async def set_status(
        self, caller: Caller, campaign_id: str, card_id: str, status: CardStatus
    ) -> Card:
        """
        Change the status of a card. Raises as `put_cards`, and NotFound for the card.
        """
        caller.require_scope("campaigns:write")
        await self._require(caller, campaign_id)
        card = await self._campaigns.set_status(
            caller.app, campaign_id, card_id, status
        )
        if card is None:
            raise NotFound("the card")
        return card

    async def card(self, caller: Caller, campaign_id: str, card_id: str) -> Card:
        """Return a card. Raises Forbidden, NotFound, StoreUnavailable."""
        caller.require_scope("campaigns:read")
        await self._require(caller, campaign_id)
        card = await self._campaigns.get_card(caller.app, campaign_id, card_id)
        if card is None:
            raise NotFound("the card")
        return card

    async def cards(
        self,
        caller: Caller,
        campaign_id: str,
        *,
        after: tuple[int, str],
        limit: int,
        status: CardStatus | None,
    ) -> tuple[list[Card], tuple[int, str] | None]:
        """Return a page of cards; see `store.scheduling.campaigns`. Raises as
        `card`."""
        caller.require_scope("campaigns:read")
        await self._require(caller, campaign_id)
        return await self._campaigns.page(
            caller.app, campaign_id, after=after, limit=limit, status=status
        )

    async def _require(self, caller: Caller, campaign_id: str) -> Campaign:
        return await require_campaign(self._campaigns, caller, campaign_id)

    async def _summary(self, caller: Caller, campaign: Campaign) -> CampaignSummary:
        return CampaignSummary(
            campaign,
            await self._campaigns.count_cards(caller.app, campaign.id),
            await self._campaigns.count_slots(caller.app, campaign.id),
        )


async def require_campaign(
    campaigns: Campaigns, caller: Caller, campaign_id: str
) -> Campaign:
    """Return a campaign of the caller's app. Raises NotFound, StoreUnavailable."""
    campaign = await campaigns.get(caller.app, campaign_id)
    if campaign is None:
        raise NotFound("the campaign")
    return campaign
