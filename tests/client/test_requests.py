"""HTTP requests besides pages and marks, on a real server."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from streamer_client import (
    EVERYONE,
    Audience,
    Client,
    Membership,
    Message,
    Mutes,
    Notification,
    Rejected,
    Sent,
)

from .conftest import Running

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count(1)


@pytest.fixture
def player() -> str:
    """Return a player that no other test uses."""
    return f"asked-{next(_numbers)}"


@pytest_asyncio.fixture(loop_scope="module")
async def backend(shared_server: Running) -> AsyncIterator[Client]:
    async with Client(shared_server.url, token=shared_server.key) as client:
        yield client


def titles(notifications: tuple[Notification, ...]) -> list[str | None]:
    return [notification.title for notification in notifications]


async def test_a_list_of_messages_has_results_in_order(
    backend: Client, player: str
) -> None:
    await backend.page(player)
    messages = [
        Message(to=[player, "bob"], title="a", data=None, properties={"k": "v"}),
        Message(to=Audience(topic="of-lists"), title="b"),
        Message(to=EVERYONE, title="c"),
    ]

    first = await backend.publish_many(messages, idempotency_key=player)
    again = await backend.publish_many(messages, idempotency_key=player)

    assert first == again
    assert [[sent.to for sent in results] for results in first] == [
        [player, "bob"],
        [Audience(topic="of-lists")],
        [EVERYONE],
    ]


async def test_expiry_and_collapse_key_are_delivered(
    backend: Client, player: str
) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    await backend.publish(player, title="old", collapse_key="k")
    await backend.publish(player, title="new", collapse_key="k", expires_at=at)

    (kept,) = (await backend.page(player)).notifications

    assert (kept.title, kept.collapse_key, kept.expires_at) == ("new", "k", at)


async def test_a_notification_that_is_not_persisted_is_on_no_page(
    backend: Client, player: str
) -> None:
    (sent,) = await backend.publish(player, title="a", persist=False)

    assert sent.id is not None
    assert (await backend.page(player)).notifications == ()


async def test_pages_are_filtered_and_reversed(backend: Client, player: str) -> None:
    await backend.publish(player, type="x", title="a", priority="high")
    await backend.publish(player, type="y", title="b")
    await backend.publish(player, type="z", title="c")
    await backend.mark_read(
        player, up_to=(await backend.page(player)).notifications[2].id
    )

    of_types = await backend.page(player, type=["x", "y"])
    high = await backend.page(player, priority="high")
    unread = await backend.page(player, unread=True)
    first = await backend.page(player, oldest_first=True, limit=2)
    rest = await backend.page(player, oldest_first=True, after=first.next)

    assert titles(of_types.notifications) == ["b", "a"]
    assert titles(high.notifications) == ["a"]
    assert titles(unread.notifications) == ["c", "b"]
    assert titles(first.notifications) == ["a", "b"]
    assert titles(rest.notifications) == ["c"]


async def test_a_type_may_contain_a_comma(backend: Client, player: str) -> None:
    for kind in ("a,b", "a", "b", "c\\", "c\\,d"):
        await backend.publish(player, type=kind, title=kind)

    for kinds in (["a,b"], ["c\\"], ["c\\,d"], ["b", "a,b"]):
        page = await backend.page(player, type=kinds)
        assert set(titles(page.notifications)) == set(kinds)
    assert titles((await backend.page(player, type="a,b")).notifications) == ["a,b"]


async def test_an_unchanged_page_is_returned_from_the_cache(
    backend: Client, player: str
) -> None:
    await backend.publish(player, title="a")
    first = await backend.page(player)
    same = await backend.page(player)
    await backend.mark_read(player, all=True)
    marked = await backend.page(player)

    assert same is first
    assert (first.unread, marked.unread) == (1, 0)


async def test_a_player_subscribes_and_unsubscribes(
    backend: Client, player: str
) -> None:
    await backend.join("chess/eu", player)
    await backend.join("chess/eu", player)
    await backend.publish(Audience(topic="chess/eu"), title="a")
    joined = await backend.topics(player)
    page = await backend.page(player, topic="chess/eu")
    await backend.leave("chess/eu", player)

    assert joined == (Membership("chess/eu"),)
    assert titles(page.notifications) == ["a"]
    assert await backend.topics(player) == ()


async def test_a_muted_type_is_not_stored(backend: Client, player: str) -> None:
    await backend.join("noise", player)
    await backend.mute(player, type="ad/daily")
    await backend.mute(player, topic="noise")
    muted = await backend.mutes(player)
    (sent,) = await backend.publish(player, type="ad/daily")
    await backend.unmute(player, type="ad/daily")
    await backend.unmute(player, topic="noise")

    assert muted == Mutes(("ad/daily",), ("noise",))
    assert sent == Sent(player, muted=True)
    assert await backend.mutes(player) == Mutes()


async def test_too_many_topics_are_refused_at_once(
    backend: Client, player: str
) -> None:
    for number in range(16):
        await backend.join(f"many-{number}", player)

    with pytest.raises(Rejected) as caught:
        await backend.join("one-more", player)

    assert (caught.value.status, caught.value.limit) == (409, "topics_per_player")


async def test_a_receipt_has_the_state_of_a_notification(
    backend: Client, player: str
) -> None:
    (sent,) = await backend.publish(player, title="a")
    assert sent.id is not None
    states = [(await backend.receipt(sent.id, player)).state]
    await backend.ack(sent.id, player)
    states.append((await backend.receipt(sent.id, player)).state)
    await backend.mark_read(player, ids=[sent.id])
    states.append((await backend.receipt(sent.id, player)).state)
    await backend.delete(sent.id, player)
    await backend.delete(sent.id, player)
    states.append((await backend.receipt(sent.id, player)).state)

    assert states == ["stored", "acknowledged", "read", "withdrawn"]


@pytest.mark.parametrize("audience", [EVERYONE, Audience(topic="news/eu")])
async def test_an_audience_message_has_a_receipt_and_is_withdrawn(
    backend: Client, player: str, audience: Audience
) -> None:
    await backend.join("news/eu", player)
    (sent,) = await backend.publish(audience, title="a")
    assert sent.id is not None
    await backend.mark_read(player, ids=[sent.id])

    receipt = await backend.audience_receipt(sent.id, audience)
    await backend.withdraw(sent.id, audience)
    withdrawn = await backend.audience_receipt(sent.id, audience)

    assert (receipt.state, receipt.read) == ("stored", 1)
    assert withdrawn.state == "withdrawn"


async def test_unread_counts_of_many_players_come_in_one_call(
    backend: Client, player: str
) -> None:
    await backend.publish(player, title="a")

    assert await backend.unread([player, f"not-{player}"]) == {
        player: 1,
        f"not-{player}": 0,
    }


async def test_a_schedule_is_read_moved_and_cancelled(
    backend: Client, player: str
) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    made = await backend.schedule(Message(to=player, title="a"), at)
    moved = await backend.move_schedule(made.id, at + timedelta(hours=1))
    cancelled = await backend.cancel_schedule(made.id)
    listed = await backend.schedules(limit=100)

    assert (made.to, made.total, made.send_at) == (player, 1, at)
    assert moved.send_at == at + timedelta(hours=1)
    assert cancelled.state == "cancelled"
    assert await backend.get_schedule(made.id) == cancelled
    assert made.id in [schedule.id for schedule in listed.schedules]


async def test_tokens_and_tickets_are_created(
    shared_server: Running, backend: Client, player: str
) -> None:
    token = await backend.mint_token(player, ttl_s=60, topics=["a/*"])
    async with Client(shared_server.url, token=token) as client:
        await client.join("a/b")
        ticket = await client.ticket()

    assert token.expires_at is not None
    assert ticket.expires_in_s == 60
