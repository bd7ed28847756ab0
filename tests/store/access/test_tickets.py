"""The lifetime of tickets, and their single first use."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from streamer.core.access.rights import Caller, TokenProof
from streamer.model import App, Player
from streamer.store.access.tickets import (
    CLOSED_MS,
    FIRST_MS,
    OPEN_MS,
    TicketStore,
    TicketUse,
    ticket_digest,
)
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of

CALLER = Caller(
    App("demo"),
    Player("p 1 {x} ü"),
    frozenset({"notification:player:self:read"}),
    expires_at_s=2_000_000_000,
    proof=TokenProof("streamer", "demo", "key", 1_800_000_000),
)
HOUR_MS = 3_600_000
SLACK_MS = 5_000


@pytest.fixture
def tickets(redis: RedisConnection) -> TicketStore:
    return TicketStore(redis)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def issue(tickets: TicketStore, *, lives_ms: int = HOUR_MS) -> tuple[bytes, int]:
    digest, ends_ms = ticket_digest(os.urandom(8)), now_ms() + lives_ms
    await tickets.issue(digest, CALLER, now_ms=now_ms(), ends_ms=ends_ms)
    return digest, ends_ms


async def left_ms(redis: RedisConnection, digest: bytes) -> int:
    left: int = await redis.call("PTTL", keys_of().ticket(digest))
    return left


def about(left: int, expected_ms: int) -> bool:
    return expected_ms - SLACK_MS < left <= expected_ms


async def test_a_ticket_is_used_once(tickets: TicketStore) -> None:
    digest, ends_ms = await issue(tickets)

    assert await tickets.use(digest, resuming=False) == TicketUse(CALLER, ends_ms, True)
    assert await tickets.use(digest, resuming=False) is None
    assert await tickets.use(ticket_digest(b"other"), resuming=False) is None


async def test_of_concurrent_first_uses_one_succeeds(tickets: TicketStore) -> None:
    digest, _ = await issue(tickets)

    uses = await asyncio.gather(
        *(tickets.use(digest, resuming=False) for _ in range(20))
    )

    assert len([use for use in uses if use is not None]) == 1


async def test_a_used_ticket_resumes_its_stream(tickets: TicketStore) -> None:
    digest, ends_ms = await issue(tickets)
    await tickets.use(digest, resuming=False)

    again = await tickets.use(digest, resuming=True)

    assert again == TicketUse(CALLER, ends_ms, False)
    assert await tickets.use(digest, resuming=False) is None


async def test_resuming_may_be_the_first_use(tickets: TicketStore) -> None:
    digest, ends_ms = await issue(tickets)

    assert await tickets.use(digest, resuming=True) == TicketUse(CALLER, ends_ms, True)


async def test_the_lifetime_of_a_ticket_follows_its_stream(
    tickets: TicketStore, redis: RedisConnection
) -> None:
    digest, ends_ms = await issue(tickets)
    assert about(await left_ms(redis, digest), FIRST_MS)

    await tickets.use(digest, resuming=False)
    assert about(await left_ms(redis, digest), OPEN_MS)

    await tickets.close(digest)
    assert about(await left_ms(redis, digest), CLOSED_MS)

    await tickets.keep({digest: ends_ms}, now_ms=now_ms())
    assert about(await left_ms(redis, digest), OPEN_MS)


async def test_a_ticket_never_outlives_its_token(
    tickets: TicketStore, redis: RedisConnection
) -> None:
    digest, ends_ms = await issue(tickets, lives_ms=30_000)
    assert about(await left_ms(redis, digest), 30_000)

    await tickets.use(digest, resuming=False)
    assert about(await left_ms(redis, digest), 30_000)

    await tickets.keep({digest: ends_ms}, now_ms=now_ms())
    await tickets.close(digest)
    assert about(await left_ms(redis, digest), 30_000)


async def test_a_ticket_expires_with_its_token(tickets: TicketStore) -> None:
    digest, _ = await issue(tickets, lives_ms=-1)

    assert await tickets.use(digest, resuming=False) is None


async def test_an_undone_use_leaves_the_ticket_as_it_was(
    tickets: TicketStore, redis: RedisConnection
) -> None:
    digest, ends_ms = await issue(tickets)
    await tickets.use(digest, resuming=False)

    await tickets.undo_use(digest)

    assert about(await left_ms(redis, digest), FIRST_MS)
    assert await tickets.use(digest, resuming=False) == TicketUse(CALLER, ends_ms, True)


async def test_a_use_undone_after_a_minute_expires_the_ticket(
    tickets: TicketStore, redis: RedisConnection
) -> None:
    digest = ticket_digest(os.urandom(8))
    early_ms = now_ms() - FIRST_MS + 3_000  # Enough for a use on a busy machine.
    ends_ms = now_ms() + HOUR_MS
    await tickets.issue(digest, CALLER, now_ms=early_ms, ends_ms=ends_ms)
    assert await tickets.use(digest, resuming=False) is not None
    async with asyncio.timeout(60):
        # In its last millisecond a key still exists.
        while now_ms() <= early_ms + FIRST_MS:  # noqa: ASYNC110  # Clocks have no event.
            await asyncio.sleep(0.01)

    await tickets.undo_use(digest)

    assert await tickets.use(digest, resuming=True) is None


async def test_an_expired_ticket_is_not_created_again(
    tickets: TicketStore, redis: RedisConnection
) -> None:
    digest = ticket_digest(os.urandom(8))

    await tickets.undo_use(digest)
    await tickets.close(digest)
    await tickets.keep({digest: now_ms() + HOUR_MS}, now_ms=now_ms())
    await tickets.keep({}, now_ms=now_ms())

    assert await redis.call("EXISTS", keys_of().ticket(digest)) == 0


async def test_the_store_holds_the_digest_and_not_the_ticket(
    redis: RedisConnection,
) -> None:
    text = b"tk_secret"
    tickets = TicketStore(redis)
    await tickets.issue(
        ticket_digest(text), CALLER, now_ms=now_ms(), ends_ms=now_ms() + HOUR_MS
    )

    key = keys_of().ticket(ticket_digest(text))

    assert "secret" not in key
    assert b"secret" not in await redis.call("GET", key)
