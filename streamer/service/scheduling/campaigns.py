"""
Campaigns and their cards: creating, reading and changing them.

Decides the scopes each step needs, and that an unknown campaign and another app's are
the same. Knows the store's campaigns. Knows nothing of how a surface writes any of it,
nor of what is sent to a campaign.
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
"""WalletWerk: notifications of a campaign in its life, so that nobody is spammed."""


class CampaignSummary(NamedTuple):
    """A campaign with its numbers."""

    campaign: Campaign
    cards: int
    slots_used: int


class CampaignOperations:
    """
    What a caller may do with campaigns and cards.

    Args:
        campaigns: Where they are.
        timetable: Has the time.

    """

    def __init__(self, campaigns: Campaigns, timetable: Timetable) -> None:
        self._campaigns = campaigns
        self._timetable = timetable

    async def put(
        self, caller: Caller, campaign_id: str, name: str | None
    ) -> CampaignSummary:
        """
        Make a campaign, or rename it; without a name it keeps the one it has.

        Raises:
            Forbidden: The caller's key lacks the scope.
            Unavailable: It may have been made; a repetition is harmless.

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
        Write cards of a campaign, each whole, in any number.

        Raises:
            Forbidden: The caller's key lacks the scope.
            NotFound: There is no such campaign in the caller's app.
            StoreUnavailable: None was written.
            OutcomeUnknown: Some may have been; a repetition is harmless.

        """
        caller.require_scope("campaigns:write")
        await self._require(caller, campaign_id)
        await self._campaigns.put_cards(caller.app, campaign_id, cards)

    async def set_status(
        self, caller: Caller, campaign_id: str, card_id: str, status: CardStatus
    ) -> Card:
        """Change a card's status. Raises as `put_cards`, NotFound for the card too."""
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
