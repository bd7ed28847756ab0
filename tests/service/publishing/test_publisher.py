"""Publishing: checks before writes, and idempotency keys."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from streamer.core.access.rights import Caller
from streamer.core.schedule import parse_time
from streamer.core.streams.subscription import Start
from streamer.errors import (
    Conflict,
    Forbidden,
    Invalid,
    OutcomeUnknown,
    StoreUnavailable,
    Unavailable,
)
from streamer.model import App, Log, Notification, Player, decode_fragment
from streamer.service.publishing.drafts import FRAGMENT_BYTES_MAX
from streamer.service.publishing.idempotency import IDEMPOTENCY_KEY_CHARS_MAX
from streamer.service.publishing.publisher import BATCH, Publisher, PublishResult
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import AppendResult, Inbox
from streamer.store.logs.mutes import Mutes

APP = App("publisher")
BACKEND = Caller(APP, None, frozenset({"notification:player:*"}))
P, Q = Player("p"), Player("q")
HELLO = Notification(title="hello")


@pytest.fixture
def publisher(redis: RedisConnection, inbox: Inbox) -> Publisher:
    return Publisher(redis, inbox)


async def titles(inbox: Inbox, player: Player) -> list[str | None]:
    read = await inbox.read_after(Log(APP, player), Start.EARLIEST, count=10_000)
    return [decode_fragment(entry.fragment).title for entry in read.history.entries]


async def test_every_player_gets_every_notification_in_order(
    publisher: Publisher, inbox: Inbox
) -> None:
    two = [Notification(title="a"), Notification(title="b")]

    published = await publisher.publish(BACKEND, [Q, P], two)

    assert [player for player, _ in published.positions] == [Q, P]
    for player, positions in published.positions:
        assert [place and place.offset for place in positions] == [1, 2]
        assert await titles(inbox, player) == ["a", "b"]


async def test_a_player_named_twice_gets_one_entry_and_two_results(
    publisher: Publisher, inbox: Inbox
) -> None:
    published = await publisher.publish(BACKEND, [P, Q, P], [HELLO])

    assert [player for player, _ in published.positions] == [P, Q, P]
    assert published.positions[0] == published.positions[2]
    assert await titles(inbox, P) == ["hello"]


async def test_more_players_than_fit_into_a_packet(
    publisher: Publisher, inbox: Inbox
) -> None:
    players = [Player(f"p{n}") for n in range(2 * BATCH + 3)]

    published = await publisher.publish(BACKEND, players, [HELLO])

    assert len(published.positions) == len(players)
    for player in players:
        assert await titles(inbox, player) == ["hello"]


@pytest.mark.parametrize(
    ("players", "notifications", "key"),
    [
        ([P, Q], [HELLO, Notification()], None),
        ([P, Q], [HELLO, Notification(body="x" * FRAGMENT_BYTES_MAX)], None),
        ([P, Q], [HELLO, Notification(data={1: object()})], None),
        ([P, Q], [HELLO, Notification(title="\ud800")], None),
        ([P, Q], [HELLO], ""),
        ([P, Q], [HELLO], "k" * (IDEMPOTENCY_KEY_CHARS_MAX + 1)),
        ([P, Q], [HELLO], "a\nb"),
        ([P, Q], [HELLO], "ü"),
    ],
)
async def test_one_invalid_notification_stores_nothing(
    publisher: Publisher,
    redis: RedisConnection,
    players: Sequence[Player],
    notifications: Sequence[Notification],
    key: str | None,
) -> None:
    with pytest.raises(Invalid):
        await publisher.publish(BACKEND, players, notifications, idempotency_key=key)

    assert await redis.call("KEYS", "streamer:{*") == []


async def test_one_forbidden_player_stores_nothing(
    publisher: Publisher, redis: RedisConnection
) -> None:
    caller = Caller(APP, P, frozenset({"notification:player:self:*"}))

    with pytest.raises(Forbidden):
        await publisher.publish(caller, [P, Q], [HELLO])

    assert await redis.call("KEYS", "streamer:{*") == []
    await publisher.publish(caller, [P], [HELLO])


# Keys.


async def test_a_repeated_request_returns_the_first_result(
    publisher: Publisher, inbox: Inbox
) -> None:
    first = await publisher.publish(BACKEND, [P, Q], [HELLO], idempotency_key="k")

    again = await publisher.publish(BACKEND, [P, Q], [HELLO], idempotency_key="k")

    assert again == first._replace(replayed=True)
    assert not first.replayed
    assert await titles(inbox, P) == ["hello"]


@pytest.mark.parametrize(
    ("players", "notification"),
    [([P, Q], Notification(title="other")), ([P], HELLO), ([Q, P], HELLO)],
)
@pytest.mark.row("D2")
async def test_a_key_of_another_request_is_a_conflict_and_stores_nothing(
    publisher: Publisher,
    inbox: Inbox,
    players: Sequence[Player],
    notification: Notification,
) -> None:
    await publisher.publish(BACKEND, [P, Q], [HELLO], idempotency_key="k")

    with pytest.raises(Conflict):
        await publisher.publish(BACKEND, players, [notification], idempotency_key="k")

    assert await titles(inbox, P) == await titles(inbox, Q) == ["hello"]


async def test_a_log_detects_a_conflict_without_the_claim(
    publisher: Publisher, inbox: Inbox, redis: RedisConnection
) -> None:
    # The claim is gone; the record of the append is not.
    await publisher.publish(BACKEND, [P], [HELLO], idempotency_key="k")
    await redis.call("DEL", keys_of().request(APP, "k"))

    with pytest.raises(Conflict):
        await publisher.publish(
            BACKEND, [P], [Notification(title="other")], idempotency_key="k"
        )


async def test_a_repetition_across_an_upgrade_is_stored_once(
    publisher: Publisher, inbox: Inbox, redis: RedisConnection
) -> None:
    first = await publisher.publish(BACKEND, [P, Q], [HELLO], idempotency_key="k")
    # Earlier versions had the key itself in the name of the claim.
    claim = keys_of().request(APP, "k")
    earlier = f"{claim.rpartition(':')[0]}:k"
    await redis.call("RENAME", claim, earlier, write=True)

    again = await publisher.publish(BACKEND, [P, Q], [HELLO], idempotency_key="k")

    assert again == first._replace(replayed=True)
    assert await titles(inbox, P) == await titles(inbox, Q) == ["hello"]


@pytest.mark.row("D2")
async def test_a_key_belongs_to_one_app(publisher: Publisher) -> None:
    other = Caller(App("other"), None, BACKEND.permissions)
    await publisher.publish(BACKEND, [P], [HELLO], idempotency_key="k")

    published = await publisher.publish(other, [Q], [HELLO], idempotency_key="k")

    assert not published.replayed


@pytest.mark.row("D2")
async def test_concurrent_requests_with_one_key_have_one_effect(
    publisher: Publisher, inbox: Inbox
) -> None:
    outcomes: list[PublishResult] = await asyncio.gather(
        *(
            publisher.publish(BACKEND, [P, Q], [HELLO], idempotency_key="k")
            for _ in range(50)
        )
    )

    assert len({str(outcome.positions) for outcome in outcomes}) == 1
    assert sum(not outcome.replayed for outcome in outcomes) == 1
    assert await titles(inbox, P) == await titles(inbox, Q) == ["hello"]


# Publishes that the store does not confirm.


class Failing(Inbox):
    """An inbox that stores packets, and returns the given outcome for each."""

    def __init__(self, redis: RedisConnection, *answers: Any) -> None:
        super().__init__(redis)
        self.answers = list(answers)

    async def append_many(
        self, batches: Sequence[Any], **more: Any
    ) -> list[AppendResult | Exception]:
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, StoreUnavailable):
            raise answer
        stored = await super().append_many(batches, **more)
        return [answer or one for one in stored]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([StoreUnavailable()], StoreUnavailable),
        ([OutcomeUnknown()], OutcomeUnknown),
        ([None, StoreUnavailable()], OutcomeUnknown),
        ([None, OutcomeUnknown()], OutcomeUnknown),
    ],
)
async def test_a_retry_with_the_key_completes_an_unconfirmed_publish(
    redis: RedisConnection, inbox: Inbox, answers: list[Any], error: type[Unavailable]
) -> None:
    players = [Player(f"p{n}") for n in range(BATCH + 10)]
    publisher = Publisher(redis, Failing(redis, *answers))

    with pytest.raises(error) as raised:
        await publisher.publish(BACKEND, players, [HELLO], idempotency_key="k")
    assert raised.type is error
    await publisher.publish(BACKEND, players, [HELLO], idempotency_key="k")

    for player in players:
        assert await titles(inbox, player) == ["hello"]


async def test_a_partly_confirmed_packet_is_outcome_unknown(
    redis: RedisConnection,
) -> None:
    class Mixed(Inbox):
        async def append_many(self, *_: Any, **__: Any) -> list[Any]:
            return [StoreUnavailable(), AppendResult([], False)]

    with pytest.raises(OutcomeUnknown):
        await Publisher(redis, Mixed(redis)).publish(BACKEND, [P, Q], [HELLO])


async def test_an_unreachable_store_is_store_unavailable(tmp_path: Path) -> None:
    redis = RedisConnection(f"unix://{tmp_path}/no.sock")
    publisher = Publisher(redis, Inbox(redis))

    for key in (None, "k"):
        with pytest.raises(StoreUnavailable):
            await publisher.publish(BACKEND, [P], [HELLO], idempotency_key=key)


# Mutes and expiry.


async def test_a_muted_type_has_no_position(
    publisher: Publisher, inbox: Inbox, redis: RedisConnection
) -> None:
    await Mutes(redis).mute(Log(APP, P), "news")
    news = Notification(title="a", type="news")

    published = await publisher.publish(BACKEND, [P, Q], [news, HELLO])

    assert [
        [place and place.offset for place in places]
        for _, places in published.positions
    ] == [[None, 1], [1, 2]]
    assert await titles(inbox, P) == ["hello"]


async def test_a_repetition_with_a_ttl_is_recognized(
    publisher: Publisher, inbox: Inbox, redis: RedisConnection
) -> None:
    first = await publisher.publish(
        BACKEND, [P], [HELLO], ttls_ms=[60_000], idempotency_key="k"
    )
    at_ms = await now_ms(redis)
    while await now_ms(redis) == at_ms:
        pass  # Waits for another millisecond.

    again = await publisher.publish(
        BACKEND, [P], [HELLO], ttls_ms=[60_000], idempotency_key="k"
    )

    assert again.positions == first.positions
    with pytest.raises(Conflict):
        await publisher.publish(
            BACKEND, [P], [HELLO], ttls_ms=[60_001], idempotency_key="k"
        )
    page = await inbox.page(Log(APP, P), count=1)
    stored = (page.entries or [])[0]
    expires_at = decode_fragment(stored.entry.fragment).expires_at
    assert expires_at is not None
    lives_ms = (parse_time(expires_at) or 0) - stored.entry.at_ms
    assert lives_ms == pytest.approx(60_000, abs=10_000)


async def now_ms(redis: RedisConnection) -> int:
    seconds, micros = await redis.call("TIME")
    return int(seconds) * 1_000 + int(micros) // 1_000
