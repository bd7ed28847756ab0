"""Quotas: refusals, borrowed permits, and refunds."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import pytest

from streamer.core.access.apps import AppRecord
from streamer.core.access.rights import Caller
from streamer.core.quotas import QuotaLimits, QuotaOverrides
from streamer.errors import Conflict, OverQuota, Quota
from streamer.model import App, Notification, Player
from streamer.service.node.quotas import COUNT_TTL_S, Quotas
from streamer.service.publishing.publisher import Publisher
from streamer.service.scheduling.schedules import Schedules
from streamer.store.access import quotas as usage
from streamer.store.access.quotas import QuotaUsage
from streamer.store.client.commands import Script
from streamer.store.client.connection import Command, RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import LogSettings
from streamer.store.scheduling.timetable import Timetable

APP, OTHER = App("quotas"), App("other")
BACKEND = Caller.from_key(APP, frozenset({"notifications:send", "schedules:write"}))
P, Q, R = Player("p"), Player("q"), Player("r")
HELLO = Notification(title="hello")
NOON_MS = 1_800_000_000_000
HOUR_MS = 3_600_000


class Clock:
    """The time of the store and of every node."""

    def __init__(self) -> None:
        self.now_ms = NOON_MS

    def us(self) -> int:
        return self.now_ms * 1_000

    def s(self) -> float:
        return self.now_ms / 1_000

    def monotonic_s(self) -> float:
        return (self.now_ms - NOON_MS) / 1_000


class Counted(RedisConnection):
    """A connection that counts its uses."""

    uses = 0

    async def call_many(
        self, commands: Sequence[Command | bytes], **how: Any
    ) -> list[Any]:
        self.uses += 1
        return await super().call_many(commands, **how)


class Node:
    """One node that publishes and schedules for an app with these quotas."""

    def __init__(self, redis: RedisConnection, clock: Clock, **quotas: int) -> None:
        self.own = QuotaOverrides(**quotas)
        self.refusals: Counter[str] = Counter()
        self.used = Counted(redis.address)
        self.quotas = Quotas(
            self.record,
            QuotaUsage(self.used, LogSettings(clock_us=clock.us), clock_s=clock.s),
            QuotaLimits(),
            monotonic=clock.monotonic_s,
            refusals=self.refusals,
        )
        self.inbox = Inbox(redis, LogSettings(clock_us=clock.us))
        self.publisher = Publisher(redis, self.inbox, quotas=self.quotas)
        timetable = Timetable(redis, LogSettings(clock_us=clock.us))
        self.schedules = Schedules(redis, timetable, self.quotas)

    async def record(self, name: App) -> AppRecord:
        return AppRecord(name, bytes(32), "i", 0, quotas=self.own)

    async def publish(self, *players: Player, **how: Any) -> bool:
        """Publish to players; return whether no quota refused it."""
        try:
            await self.publisher.publish(BACKEND, players or [P], [HELLO], **how)
        except OverQuota:
            return False
        return True

    async def schedule(self, *players: Player, **how: Any) -> str | None:
        """Schedule for players in an hour; return its id unless a quota refused it."""
        due_ms = NOON_MS + HOUR_MS
        try:
            made, _ = await self.schedules.schedule(
                BACKEND, players or [P], HELLO, due_ms=due_ms, **how
            )
        except OverQuota:
            return None
        return made.id


MakeNode = Callable[..., Node]


class LastingBucket(Script):
    """
    The script of a token bucket whose key never expires.

    The key expires by the store's clock, which goes on while `Clock` stands still. On a
    busy machine a bucket would be full again before its time.
    """

    def __init__(self) -> None:
        super().__init__("quota_permits")
        expiry = re.compile(r", 'PX',\s+string\.format\('%\.0f', full_ms\)")
        self.text, count = expiry.subn("", self.text)
        assert count == 1
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


@pytest.fixture(autouse=True)
def lasting_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "_QUOTA_PERMITS", LastingBucket())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make_node(redis: RedisConnection, clock: Clock) -> AsyncIterator[MakeNode]:
    made: list[Node] = []

    def make(**quotas: int) -> Node:
        made.append(Node(redis, clock, **quotas))
        return made[-1]

    yield make
    for node in made:
        await node.used.close()


# Notifications per second.


async def test_an_app_without_quotas_needs_no_command(make_node: MakeNode) -> None:
    node = make_node()

    assert await node.publish(P, Q)
    assert await node.schedule()

    assert node.used.uses == 0


async def test_each_inbox_counts(make_node: MakeNode, clock: Clock) -> None:
    node = make_node(publishes_per_s=5)

    assert await node.publish(P, Q, R)
    assert not await node.publish(P, Q, R)
    assert await node.publish(P, Q)
    clock.now_ms += 600
    assert await node.publish(P, Q, R)


async def test_a_refusal_has_the_quota_and_the_delay(make_node: MakeNode) -> None:
    node = make_node(publishes_per_s=1)
    await node.publish()

    with pytest.raises(OverQuota) as refused:
        await node.publisher.publish(BACKEND, [P], [HELLO])

    assert (refused.value.quota, refused.value.maximum) == (Quota.PUBLISHES_PER_S, 1)
    assert refused.value.retry_after_s == 1
    assert str(refused.value) == (
        "the app has used its quota of 1 notifications per second"
    )
    assert node.refusals == {"publishes_per_s": 1}


async def test_a_refused_publish_stores_nothing_and_claims_no_key(
    make_node: MakeNode, redis: RedisConnection
) -> None:
    node = make_node(publishes_per_s=1)
    await node.publish(P)

    assert not await node.publish(Q, idempotency_key="k")

    assert await redis.call("EXISTS", keys_of().request(APP, "k")) == 0
    assert await node.used.call("KEYS", "*:log:*:q") == []


async def test_most_publishes_spend_borrowed_permits(make_node: MakeNode) -> None:
    node = make_node(publishes_per_s=1_000)

    for _ in range(100):
        assert await node.publish()

    # Twenty at a time; the first EVALSHA is followed by an EVAL.
    assert node.used.uses <= 6


async def test_a_flood_of_refused_publishes_borrows_once(
    make_node: MakeNode, clock: Clock
) -> None:
    node = make_node(publishes_per_s=1)
    assert await node.publish(*(Player(f"p{n}") for n in range(30)))
    assert not await node.publish()
    uses = node.used.uses

    for _ in range(50):
        assert not await node.publish()

    assert node.used.uses == uses


@pytest.mark.parametrize("per_s", [7, 300])
async def test_nodes_together_keep_the_rate(
    make_node: MakeNode, clock: Clock, per_s: int
) -> None:
    nodes = [make_node(publishes_per_s=per_s) for _ in range(4)]
    through = 0
    for _ in range(20):
        outcomes = await asyncio.gather(
            *(node.publish() for node in nodes for _ in range(per_s // 10 + 1))
        )
        through += sum(outcomes)
        clock.now_ms += 250

    # Five seconds of quota and one burst, less the balances of the nodes.
    assert through <= 6 * per_s
    assert through >= 5 * per_s - 4 * (per_s // 50 + 1)


async def test_a_repetition_is_not_charged(make_node: MakeNode) -> None:
    node = make_node(publishes_per_s=2)
    assert await node.publish(idempotency_key="k")

    for _ in range(5):
        assert await node.publish(idempotency_key="k")

    assert await node.publish()
    assert not await node.publish()


async def test_a_conflict_is_not_charged(make_node: MakeNode) -> None:
    node = make_node(publishes_per_s=2)
    await node.publish(idempotency_key="k")

    for _ in range(5):
        with pytest.raises(Conflict):
            await node.publish(Q, idempotency_key="k")

    assert await node.publish()


async def test_a_changed_quota_applies_at_once(make_node: MakeNode) -> None:
    node = make_node(publishes_per_s=1)
    await node.publish()
    assert not await node.publish()

    node.own = msgspec.structs.replace(node.own, publishes_per_s=0)

    assert await node.publish()


async def test_apps_are_charged_separately(make_node: MakeNode) -> None:
    node = make_node(publishes_per_s=1)
    await node.publish()
    assert not await node.publish()

    other = Caller.from_key(OTHER, frozenset({"notifications:send"}))
    await node.publisher.publish(other, [P], [HELLO])


# Bytes per day.


async def test_bytes_are_counted_for_each_inbox(
    make_node: MakeNode, clock: Clock
) -> None:
    node = make_node(bytes_per_day=4_000)
    big = [Notification(body="x" * 1_100)]
    await node.publisher.publish(BACKEND, [P, Q, R], big)

    with pytest.raises(OverQuota) as refused:
        await node.publisher.publish(BACKEND, [P], big)

    assert refused.value.quota is Quota.BYTES_PER_DAY
    wait_s = refused.value.retry_after_s
    assert 0 < wait_s < 86_400 / 4
    clock.now_ms += wait_s * 1_000
    await node.publisher.publish(BACKEND, [P], big)


async def test_a_refusal_by_one_quota_refunds_the_other(
    make_node: MakeNode, clock: Clock
) -> None:
    node = make_node(publishes_per_s=3, bytes_per_day=200)
    big = [Notification(body="x" * 250)]
    await node.publisher.publish(BACKEND, [P], big)
    for _ in range(5):
        with pytest.raises(OverQuota) as refused:
            await node.publisher.publish(BACKEND, [P], big)
        assert refused.value.quota is Quota.BYTES_PER_DAY

    node.own = msgspec.structs.replace(node.own, bytes_per_day=0)

    assert await node.publish(P, Q)


# Players.


async def test_at_the_quota_only_players_with_an_inbox_are_sent_to(
    make_node: MakeNode,
) -> None:
    node = make_node(players=2)
    assert await node.publish(P, Q)

    with pytest.raises(OverQuota) as refused:
        await node.publisher.publish(BACKEND, [P, R], [HELLO])

    assert refused.value.quota is Quota.PLAYERS
    assert refused.value.retry_after_s == 3_600
    assert await node.publish(P, Q)


async def test_players_are_counted_across_nodes(
    make_node: MakeNode, clock: Clock
) -> None:
    first, second = make_node(players=2), make_node(players=2)
    assert await first.publish(P)
    assert await second.publish(Q)
    clock.now_ms += int(COUNT_TTL_S * 1_000)

    assert not await first.publish(R)
    assert not await second.publish(R)


async def test_new_players_are_counted_at_once(
    make_node: MakeNode,
) -> None:
    node = make_node(players=3)

    accepted = [await node.publish(Player(f"p{n}")) for n in range(6)]

    assert accepted == [True] * 3 + [False] * 3


# Pending schedules.


async def test_pending_schedules_are_limited(make_node: MakeNode) -> None:
    node = make_node(pending_schedules=2)
    assert await node.schedule()
    assert await node.schedule(P, Q)

    with pytest.raises(OverQuota) as refused:
        await node.schedules.schedule(
            BACKEND, [P], HELLO, due_ms=NOON_MS + HOUR_MS, idempotency_key="k"
        )

    assert refused.value.quota is Quota.PENDING_SCHEDULES
    assert refused.value.retry_after_s == 3_600
    assert await node.used.call("EXISTS", keys_of().request(APP, "k")) == 0


async def test_a_cancelled_schedule_releases_its_slot(make_node: MakeNode) -> None:
    node = make_node(pending_schedules=1)
    made = await node.schedule()
    assert made is not None
    assert not await node.schedule()

    await node.schedules.cancel(BACKEND, made)

    assert await node.schedule()


async def test_a_moved_schedule_keeps_its_slot(
    make_node: MakeNode, clock: Clock
) -> None:
    node = make_node(pending_schedules=1)
    made = await node.schedule()
    assert made is not None
    await node.schedules.move(BACKEND, made, NOON_MS + 3 * HOUR_MS)

    clock.now_ms += 2 * HOUR_MS

    assert not await node.schedule()


async def test_a_paused_schedule_keeps_its_slot_until_it_is_sent(
    make_node: MakeNode, clock: Clock
) -> None:
    node = make_node(pending_schedules=1)
    made = await node.schedule()
    assert made is not None
    await node.schedules.pause(BACKEND, made)
    # Its time has passed, and it still waits.
    clock.now_ms += 2 * HOUR_MS
    assert not await node.schedule()

    await node.schedules.resume(BACKEND, made)

    clock.now_ms += 1
    assert await node.schedule()


async def test_a_repeated_schedule_has_one_slot(make_node: MakeNode) -> None:
    node = make_node(pending_schedules=2, publishes_per_s=2)
    first = await node.schedule(idempotency_key="k")

    for _ in range(3):
        assert await node.schedule(idempotency_key="k") == first

    assert await node.schedule()


async def test_schedules_of_one_call_get_all_slots_or_none(
    make_node: MakeNode, redis: RedisConnection
) -> None:
    node = make_node(pending_schedules=2)
    due_ms = NOON_MS + HOUR_MS

    with pytest.raises(OverQuota):
        await node.schedules.schedule_each(
            BACKEND, [P, Q, R], HELLO, due_ms=due_ms, label="l"
        )
    ids, _ = await node.schedules.schedule_each(
        BACKEND, [P, Q], HELLO, due_ms=due_ms, label="l"
    )

    assert not await node.schedule()
    assert await node.schedules.cancel_many(BACKEND, ids) == ids
    assert await node.schedule()


async def test_a_schedule_counts_for_each_of_its_recipients(
    make_node: MakeNode, clock: Clock
) -> None:
    node = make_node(publishes_per_s=2)

    assert await node.schedule(P, Q, R)

    assert not await node.publish()
    clock.now_ms += 1_500
    assert await node.publish()
