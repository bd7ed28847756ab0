"""
Campaigns and their cards.

Decides how a card moves from one player to another, so that it is active for both no
longer than the call takes. Knows the scripts in ``lua/`` and the form of a record.
Knows nothing of rights, nor of sending, which reads the copies of cards.

A card is stored twice. Its record, which is authoritative, is in the bucket of its id.
A copy is in the bucket of its player, so that sending a schedule reads it in the slot
of the player's log. Copies carry the version of the record, and the record lists all
buckets that the card was ever in. However calls race, and whichever of them fails half
way, the next write of the card repairs all copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec

from ...core.deployment import SPELLED_CARDS
from ...errors import OutcomeUnknown, StoreUnavailable
from ...model import App, Player
from ..client.connection import RedisConnection, Reply, Script, ScriptCall
from ..client.damage import parsed
from ..client.replies import ok
from ..keys import BUCKETS, bucket_of

__all__ = [
    "SPELLED",
    "Campaign",
    "Campaigns",
    "Card",
    "CardStatus",
]

CardStatus = Literal["draft", "active", "revoked", "expired", "removed"]
STATUSES: Final = frozenset(get_args(CardStatus))

SCANNED_MAX: Final = 20_000
"""Cards read for one page. If few of them have the status, the page is shorter."""

PART: Final = "campaigns"
"""The name of this part in `Damage`."""

_WRITE = Script("card_write", includes=("_whole",))
_COPY = Script("card_copy", includes=("_whole",))


class Campaign(msgspec.Struct, frozen=True):
    """A campaign. It can send to the players of its active cards."""

    id: str
    name: str
    created_at_ms: int
    updated_at_ms: int


class Card(NamedTuple):
    """A card of a campaign. Only players of ``active`` cards are sent to."""

    id: str
    player: Player
    status: CardStatus
    spelling: str = ""
    """The player as the card was put, "" if by the player's name."""


class _Record(NamedTuple):
    """The authoritative record of a card."""

    card: Card
    version: int
    buckets: Sequence[int]


SPELLED: Final = "\x01"
"""Precedes another spelling of a player's name; no name contains it."""

_encode = msgspec.json.Encoder().encode
_decode_campaign = msgspec.json.Decoder(Campaign).decode


class Campaigns:
    """
    All campaigns of the store. Every method raises as `RedisConnection.call` does.
    """

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def put(
        self, app: App, campaign_id: str, name: str, *, now_ms: int
    ) -> Campaign:
        """Create a campaign, or rename it. Idempotent."""
        before = await self.get(app, campaign_id)
        created_ms = before.created_at_ms if before else now_ms
        campaign = Campaign(campaign_id, name, created_ms, now_ms)
        key = self._keys.campaigns(app)
        await self._redis.call("HSET", key, campaign_id, _encode(campaign), write=True)
        return campaign

    async def get(self, app: App, campaign_id: str) -> Campaign | None:
        """Return a campaign of an app, or None."""
        encoded = await self._redis.call("HGET", self._keys.campaigns(app), campaign_id)
        return None if encoded is None else _decode_campaign(encoded)

    async def of_app(self, app: App) -> list[Campaign]:
        """Return an app's campaigns but damaged ones, sorted by id. O(n)."""
        encoded = await self._redis.call("HVALS", self._keys.campaigns(app))
        found = []
        for text in encoded:
            campaign = parsed(_decode_campaign, text)
            if isinstance(campaign, Exception):
                self._redis.damage.note(PART, self._keys.campaigns(app), campaign)
            else:
                found.append(campaign)
        return sorted(found, key=lambda campaign: campaign.id)

    async def count_cards(self, app: App, campaign_id: str) -> int:
        """Return the number of cards of a campaign, of every status. O(buckets)."""
        return sum(await self._sizes(app, campaign_id))

    async def count_slots(self, app: App, campaign_id: str) -> int:
        """Return how many of a campaign's slots are taken."""
        taken: int = await self._redis.call("SCARD", self._keys.slots(app, campaign_id))
        return taken

    async def put_cards(
        self, app: App, campaign_id: str, cards: Sequence[Card]
    ) -> None:
        """
        Create or overwrite cards. Atomic per card; the last of the same id wins.

        Raises:
            StoreUnavailable: None was written.
            OutcomeUnknown: Some or all may have been written. Idempotent.

        """
        # Older versions would take the spelling for a part of the name.
        spelled = self._redis.terms.level >= SPELLED_CARDS
        changes = [(c.id, c.status, _holder(c) if spelled else c.player) for c in cards]
        await self._change(app, campaign_id, changes)

    async def set_status(
        self, app: App, campaign_id: str, card_id: str, status: CardStatus
    ) -> Card | None:
        """Change a card's status; return the card, or None if there is none."""
        records = await self._change(app, campaign_id, [(card_id, status, "")])
        return records[0].card if records else None

    async def get_card(self, app: App, campaign_id: str, card_id: str) -> Card | None:
        """Return a card, or None."""
        key = self._keys.card(app, campaign_id, card_id)
        text = await self._redis.call("HGET", key, card_id)
        return None if text is None else _record(card_id, text).card

    async def page(
        self,
        app: App,
        campaign_id: str,
        *,
        after: tuple[int, str],
        limit: int,
        status: CardStatus | None = None,
    ) -> tuple[list[Card], tuple[int, str] | None]:
        """
        Return cards by bucket and id, those that follow `after`.

        The second item is the `after` of the next page, None at the end. O(cards of a
        bucket): reads at most `SCANNED_MAX` cards, or one bucket.
        """
        sizes = await self._sizes(app, campaign_id)
        cards: list[Card] = []
        scanned = 0
        for bucket in range(after[0], BUCKETS):
            if not sizes[bucket]:
                continue
            if scanned >= SCANNED_MAX:
                return cards, (bucket, "")
            scanned += sizes[bucket]
            for card in await self._bucket(app, campaign_id, bucket):
                if bucket == after[0] and card.id <= after[1]:
                    continue
                if status is not None and card.status != status:
                    continue
                if len(cards) == limit:
                    return cards, (bucket_of(app, cards[-1].id), cards[-1].id)
                cards.append(card)
        return cards, None

    async def _bucket(self, app: App, campaign_id: str, bucket: int) -> list[Card]:
        key = self._keys.cards_of_bucket(bucket, app, campaign_id)
        items = await self._redis.call("HGETALL", key)
        cards = []
        for name, text in zip(items[::2], items[1::2], strict=True):
            record = parsed(_record, name.decode(errors="replace"), text)
            if isinstance(record, Exception):
                self._redis.damage.note(PART, key, record)
            else:
                cards.append(record.card)
        return sorted(cards)

    async def _sizes(self, app: App, campaign_id: str) -> list[int]:
        commands = [
            ("HLEN", self._keys.cards_of_bucket(bucket, app, campaign_id))
            for bucket in range(BUCKETS)
        ]
        return [ok(reply) for reply in await self._redis.call_many(commands)]

    async def _change(
        self, app: App, campaign_id: str, changes: Iterable[tuple[str, str, str]]
    ) -> list[_Record]:
        """Write records and their copies; return the records that exist."""
        by_key: dict[str, list[tuple[str, str, str]]] = {}
        for change in changes:
            key = self._keys.card(app, campaign_id, change[0])
            by_key.setdefault(key, []).append(change)
        calls = []
        for key, group in by_key.items():
            args: list[str | int] = []
            for card_id, status, holder in group:
                player = holder.partition(SPELLED)[0]
                bucket = str(bucket_of(app, player)) if player else ""
                args += [card_id, status, holder, bucket]
            calls.append(ScriptCall(_WRITE, (key,), args))
        records: list[_Record] = []
        replies = _all_or_unknown(await self._redis.run_many(calls))
        for group, reply in zip(by_key.values(), replies, strict=True):
            for (card_id, _, _), text in zip(group, reply, strict=True):
                if text:
                    records.append(_record(card_id, text))
        await self._copy(app, campaign_id, records)
        return records

    async def _copy(
        self, app: App, campaign_id: str, records: Sequence[_Record]
    ) -> None:
        by_bucket: dict[int, list[str | int]] = {}
        for card, version, buckets in records:
            current = bucket_of(app, card.player)
            for bucket in buckets:
                value = f"moved {version}"
                if bucket == current:
                    value = f"{card.status} {version} {card.player}"
                by_bucket.setdefault(bucket, []).extend((card.id, version, value))
        calls = [
            ScriptCall(_COPY, (self._keys.cards(bucket, app, campaign_id),), args)
            for bucket, args in by_bucket.items()
        ]
        try:
            _all_or_unknown(await self._redis.run_many(calls))
        except StoreUnavailable as error:
            # The authoritative records are written already.
            raise OutcomeUnknown from error


def _record(card_id: str, text: bytes) -> _Record:
    status, version, buckets, holder = text.decode().split(" ", 3)
    assert status in STATUSES
    player, _, spelling = holder.partition(SPELLED)
    card = Card(card_id, Player(player), msgspec.convert(status, CardStatus), spelling)
    return _Record(card, int(version), [int(bucket) for bucket in buckets.split(",")])


def _holder(card: Card) -> str:
    """Return a card's player as in its record, with the other spelling, if any."""
    if card.spelling in ("", card.player):
        return card.player
    return f"{card.player}{SPELLED}{card.spelling}"


def _all_or_unknown(replies: Sequence[Reply]) -> list[Any]:
    """Return replies if none failed. Raises Unavailable, or the first failure."""
    for reply in replies:
        if isinstance(reply, StoreUnavailable | OutcomeUnknown):
            none = all(isinstance(other, StoreUnavailable) for other in replies)
            raise StoreUnavailable if none else OutcomeUnknown
        if isinstance(reply, Exception):
            raise reply
    return list(replies)
