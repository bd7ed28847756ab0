"""Cards are written, moved, and read by id and by player, on a real server."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from streamer.core.deployment import SPELLED_CARDS
from streamer.errors import OutcomeUnknown, StoreUnavailable
from streamer.model import App, Player
from streamer.store.client.cluster import redis_at
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import BUCKETS, bucket_of, keys_of
from streamer.store.scheduling.campaigns import Campaigns, Card, CardStatus

APP = App("app")
STATUSES: list[CardStatus] = ["draft", "active", "revoked", "expired", "removed"]


@pytest.fixture
def campaigns(redis: RedisConnection) -> Campaigns:
    return Campaigns(redis)


def card(name: str, player: str, status: CardStatus = "active") -> Card:
    return Card(name, Player(player), status)


async def copies(redis: RedisConnection, name: str = "c") -> dict[str, list[str]]:
    """Return the copies that sending reads: by card, "status player" per bucket."""
    found: dict[str, list[str]] = {}
    for bucket in range(BUCKETS):
        items = await redis.call("HGETALL", keys_of().cards(bucket, APP, name))
        for card_id, value in zip(items[::2], items[1::2], strict=True):
            status, _, player = value.decode().partition(" ")
            if status == "moved":
                continue
            player = player.partition(" ")[2]
            assert bucket_of(APP, player) == bucket
            found.setdefault(card_id.decode(), []).append(f"{status} {player}")
    return found


async def listed(campaigns: Campaigns, **how: Any) -> list[Card]:
    found: list[Card] = []
    after: tuple[int, str] | None = (0, "")
    while after is not None:
        page, after = await campaigns.page(APP, "c", after=after, **how)
        assert len(page) <= how["limit"]
        found += page
    return found


async def test_a_card_is_read_as_it_was_written(
    campaigns: Campaigns, redis: RedisConnection
) -> None:
    cards = [
        card("plain", "p"),
        card("with blanks", "a player  with blanks", "draft"),
        card("1,2 3", "active 7 x", "revoked"),
        card("é:😀", "9,9", "removed"),
    ]
    await campaigns.put_cards(APP, "c", cards)

    for one in cards:
        assert await campaigns.get_card(APP, "c", one.id) == one
    assert await copies(redis) == {c.id: [f"{c.status} {c.player}"] for c in cards}
    assert await campaigns.get_card(APP, "c", "other") is None
    assert await campaigns.get_card(APP, "d", "plain") is None
    assert await campaigns.get_card(App("other"), "c", "plain") is None


async def test_a_card_with_a_new_player_leaves_the_old_one(
    campaigns: Campaigns, redis: RedisConnection
) -> None:
    for player in ("a", "b", "c", "a", "b"):
        await campaigns.put_cards(APP, "c", [card("k", player)])

        assert await copies(redis) == {"k": [f"active {player}"]}


async def test_changing_the_status_keeps_the_player(
    campaigns: Campaigns, redis: RedisConnection
) -> None:
    await campaigns.put_cards(APP, "c", [card("k", "a")])

    assert await campaigns.set_status(APP, "c", "k", "revoked") == card(
        "k", "a", "revoked"
    )
    assert await copies(redis) == {"k": ["revoked a"]}
    assert await campaigns.set_status(APP, "c", "other", "active") is None
    assert await campaigns.count_cards(APP, "c") == 1


async def test_of_two_cards_with_one_id_the_last_wins(
    campaigns: Campaigns, redis: RedisConnection
) -> None:
    await campaigns.put_cards(APP, "c", [card("k", "a"), card("k", "b", "draft")])

    assert await copies(redis) == {"k": ["draft b"]}


async def test_ten_thousand_cards_are_written_in_one_call(
    campaigns: Campaigns, redis: RedisConnection
) -> None:
    cards = [card(f"k{i}", f"p{i}", STATUSES[i % 5]) for i in range(10_000)]

    await campaigns.put_cards(APP, "c", cards)

    assert await campaigns.count_cards(APP, "c") == 10_000
    found = await listed(campaigns, limit=997)
    assert sorted(found) == sorted(cards)
    active = await listed(campaigns, limit=100, status="active")
    assert sorted(active) == sorted(c for c in cards if c.status == "active")


async def test_concurrent_writers_leave_one_player_per_card(
    store_url: str, campaigns: Campaigns, redis: RedisConnection
) -> None:
    """In whatever order their steps reach the store."""
    connections = [redis_at(store_url) for _ in range(4)]
    names = [f"k{i}" for i in range(30)]

    async def write(redis: RedisConnection) -> None:
        for _ in range(15):
            some = random.sample(names, 10)
            cards = [
                card(n, f"p{random.randrange(40)}", random.choice(STATUSES))
                for n in some
            ]
            await Campaigns(redis).put_cards(APP, "c", cards)

    await asyncio.gather(*map(write, connections))
    for each in connections:
        await each.close()

    by_player = await copies(redis)
    for name, held in by_player.items():
        found = await campaigns.get_card(APP, "c", name)
        assert found is not None
        assert held == [f"{found.status} {found.player}"]
    assert by_player.keys() == {c.id for c in await listed(campaigns, limit=7)}


class Fragile(RedisConnection):
    """A connection that fails at its nth command."""

    def __init__(self, url: str, *, fails_at: int) -> None:
        super().__init__(url)
        self._left = fails_at

    async def call_many(self, commands: Any, *, write: bool = False) -> list[Any]:
        self._left -= 1
        if self._left == 0:
            raise StoreUnavailable
        return await super().call_many(commands, write=write)


async def test_a_repetition_completes_an_interrupted_write(
    store_url: str, campaigns: Campaigns, redis: RedisConnection
) -> None:
    before = [card(f"k{i}", f"a{i}") for i in range(20)]
    after = [card(f"k{i}", f"b{i}") for i in range(20)]
    await campaigns.put_cards(APP, "c", before)
    fragile = Fragile(store_url, fails_at=2)

    with pytest.raises(OutcomeUnknown):
        await Campaigns(fragile).put_cards(APP, "c", after)
    await fragile.close()
    await campaigns.put_cards(APP, "c", after)

    assert await copies(redis) == {c.id: [f"active {c.player}"] for c in after}


async def test_nothing_is_written_without_a_store(store_url: str) -> None:
    fragile = Fragile(store_url, fails_at=1)

    with pytest.raises(StoreUnavailable):
        await Campaigns(fragile).put_cards(APP, "c", [card("k", "a")])
    assert await Campaigns(fragile).get_card(APP, "c", "k") is None
    await fragile.close()


async def test_a_campaign_keeps_its_creation_time(campaigns: Campaigns) -> None:
    made = await campaigns.put(APP, "c", "one", now_ms=5)
    renamed = await campaigns.put(APP, "c", "two", now_ms=9)
    await campaigns.put(APP, "b", "", now_ms=7)

    assert (made.created_at_ms, made.updated_at_ms) == (5, 5)
    assert renamed == await campaigns.get(APP, "c")
    assert (renamed.name, renamed.created_at_ms, renamed.updated_at_ms) == ("two", 5, 9)
    assert [c.id for c in await campaigns.of_app(APP)] == ["b", "c"]
    assert await campaigns.get(App("other"), "c") is None
    assert await campaigns.of_app(App("other")) == []


async def test_a_damaged_campaign_and_a_damaged_card_hide_no_other(
    campaigns: Campaigns, redis: RedisConnection
) -> None:
    for name in ("a", "b"):
        await campaigns.put(APP, name, "name", now_ms=1)
    await campaigns.put_cards(APP, "c", [card("x", "p"), card("y", "q")])
    await redis.call("HSET", redis.keys.campaigns(APP), "a", "{")
    await redis.call("HSET", redis.keys.card(APP, "c", "x"), "x", "odd")

    assert [one.id for one in await campaigns.of_app(APP)] == ["b"]
    assert [one.id for one in await listed(campaigns, limit=9)] == ["y"]
    assert redis.damage.counts == {"campaigns": 2}


async def test_a_spelling_is_not_stored_while_an_older_version_would_misread_it(
    campaigns: Campaigns, redis: RedisConnection
) -> None:
    spelled = Card("id", Player("ann"), "active", "ANN")
    redis.terms.level = SPELLED_CARDS - 1

    await campaigns.put_cards(APP, "c", [spelled])
    assert await campaigns.get_card(APP, "c", "id") == spelled._replace(spelling="")

    redis.terms.level = SPELLED_CARDS
    await campaigns.put_cards(APP, "c", [spelled])
    assert await campaigns.get_card(APP, "c", "id") == spelled
