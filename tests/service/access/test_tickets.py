"""Which callers get a ticket, and when it opens a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.core.access.rights import Caller
from streamer.core.access.tokens import mint
from streamer.errors import (
    Defect,
    Error,
    Forbidden,
    Limit,
    LimitReached,
    StoreUnavailable,
    Unauthenticated,
)
from streamer.model import App, Player
from streamer.service.access.authenticator import Authenticator, Credentials
from streamer.service.access.key_sets import KeySets
from streamer.service.access.revocation import RevocationCheck
from streamer.service.access.tickets import Tickets, instance_of
from streamer.store.access.apps import Apps
from streamer.store.access.tickets import (
    CLOSED_MS,
    FIRST_MS,
    OPEN_MS,
    TicketStore,
    ticket_digest,
)
from streamer.store.client.address import FixedAddress
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of

NOWHERE = FixedAddress("unix:///nowhere/valkey.sock")

DEMO = App("demo")
Until = Callable[[Callable[[], object]], Awaitable[None]]


@asynccontextmanager
async def stream(
    tickets: Tickets, text: str, *, resuming: bool = False
) -> AsyncIterator[Caller]:
    """Use a ticket as a stream does; an error of ours means it was not opened."""
    ticket = await tickets.open(text, resuming=resuming)
    opened = True
    try:
        yield ticket.caller
    except Error:
        opened = False
        raise
    finally:
        await asyncio.shield(tickets.close(ticket, opened=opened))


class World:
    """A store with an app, and the tickets of one of its players."""

    def __init__(self, redis: RedisConnection) -> None:
        self.redis = redis
        self.apps = Apps(redis)
        self.tickets = Tickets(
            TicketStore(redis), RevocationCheck(self.apps, KeySets())
        )

    async def caller(self, ttl_s: int = 3_600) -> Caller:
        record = await self.apps.get(DEMO)
        assert record is not None
        now_s = int(time.time())
        token = mint(record, Player("p1"), ttl_s=ttl_s, now_s=now_s)
        credentials = Credentials.from_token(token)
        return await Authenticator(self.apps).caller(credentials)

    async def ticket(self) -> str:
        return await self.tickets.issue(await self.caller())

    def stream(
        self, text: str, *, resuming: bool = False
    ) -> AbstractAsyncContextManager[Caller]:
        return stream(self.tickets, text, resuming=resuming)

    async def opens(self, text: str, *, resuming: bool = False) -> bool:
        try:
            async with self.stream(text, resuming=resuming):
                return True
        except Unauthenticated as error:
            assert error.defect is Defect.TICKET
            return False

    async def left_ms(self, text: str) -> int:
        key = keys_of().ticket(ticket_digest(text.encode()))
        left: int = await self.redis.call("PTTL", key)
        return left


@pytest.fixture
async def world(redis: RedisConnection) -> World:
    world = World(redis)
    await world.apps.create(DEMO)
    return world


async def test_a_ticket_opens_one_stream_for_its_player(world: World) -> None:
    asked = await world.caller()
    text = await world.tickets.issue(asked)

    async with world.stream(text) as caller:
        assert (caller.app, caller.player) == (DEMO, "p1")
        assert caller.expires_at_s == asked.expires_at_s
        assert caller.proof == asked.proof
        assert not caller.may_write(Player("p1"))
        assert not await world.opens(text)
    assert not await world.opens(text)


async def test_one_of_two_concurrent_first_uses_succeeds(world: World) -> None:
    for _ in range(10):
        text = await world.ticket()

        opened = await asyncio.gather(world.opens(text), world.opens(text))

        assert sorted(opened) == [False, True]


async def test_the_stream_of_a_ticket_can_be_resumed_repeatedly(world: World) -> None:
    text = await world.ticket()

    assert await world.opens(text)
    for _ in range(3):
        assert await world.opens(text, resuming=True)
        assert not await world.opens(text)


async def test_a_stream_can_be_resumed_before_its_end_is_noticed(
    world: World,
) -> None:
    text = await world.ticket()

    async with world.stream(text):
        async with world.stream(text, resuming=True):
            await world.tickets.renew_open()
        assert await world.opens(text, resuming=True)


async def test_a_refused_stream_does_not_use_its_ticket(world: World) -> None:
    text = await world.ticket()

    for _ in range(2):
        with pytest.raises(LimitReached):
            async with world.stream(text):
                raise LimitReached(Limit.LISTENERS_PER_PLAYER)

    assert await world.left_ms(text) <= FIRST_MS
    assert await world.opens(text)
    with pytest.raises(LimitReached):
        async with world.stream(text, resuming=True):
            raise LimitReached(Limit.LISTENERS_PER_PLAYER)
    assert not await world.opens(text)


async def test_a_cancelled_stream_has_used_its_ticket(world: World) -> None:
    text = await world.ticket()
    entered = asyncio.Event()

    async def listen() -> None:
        async with world.stream(text):
            entered.set()
            await asyncio.Event().wait()

    streaming = asyncio.create_task(listen())
    await entered.wait()
    assert CLOSED_MS < await world.left_ms(text) <= OPEN_MS
    streaming.cancel()
    await asyncio.wait([streaming])

    assert not await world.opens(text)
    assert await world.left_ms(text) <= CLOSED_MS
    assert await world.opens(text, resuming=True)


@pytest.mark.parametrize("resuming", [False, True])
async def test_a_ticket_of_a_revoked_token_opens_nothing(
    world: World, resuming: bool
) -> None:
    text = await world.ticket()
    if resuming:
        assert await world.opens(text)
    await world.apps.revoke_tokens(DEMO, Player("p1"))

    with pytest.raises(Unauthenticated) as refused:
        async with world.stream(text, resuming=resuming):
            pass

    assert refused.value.defect is Defect.REVOKED


async def test_a_ticket_expires_with_its_token(world: World) -> None:
    caller = await world.caller(ttl_s=30)
    text = await world.tickets.issue(caller)

    assert 0 < await world.left_ms(text) <= 30_000


async def test_open_tickets_are_renewed(world: World, until: Until) -> None:
    tickets = Tickets(
        TicketStore(world.redis), RevocationCheck(world.apps, KeySets()), renew_s=0.005
    )
    text = await world.ticket()
    key = keys_of().ticket(ticket_digest(text.encode()))
    keeping = asyncio.create_task(tickets.run())

    async with stream(tickets, text), asyncio.timeout(60):
        await world.redis.call("PEXPIRE", key, 60_000, write=True)
        # The store has no event for it.
        while await world.left_ms(text) <= 60_000:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    await world.redis.call("PEXPIRE", key, 50_000, write=True)
    await tickets.renew_open()

    assert await world.left_ms(text) <= 50_000
    keeping.cancel()
    await asyncio.wait([keeping])


async def test_only_a_player_that_may_stream_gets_a_ticket(world: World) -> None:
    caller = await world.caller()
    writer = msgspec.structs.replace(
        caller, permissions=frozenset({"notification:player:self:write"})
    )
    key = Caller.from_key(DEMO, frozenset({"notifications:read"}))
    endless = msgspec.structs.replace(caller, expires_at_s=None)

    for other in (writer, key, endless):
        with pytest.raises(Forbidden):
            await world.tickets.issue(other)


async def test_an_outage_of_the_store_issues_and_opens_nothing(world: World) -> None:
    text, caller = await world.ticket(), await world.caller()
    world.redis.address = NOWHERE
    await world.redis.close()

    with pytest.raises(StoreUnavailable):
        await world.tickets.issue(caller)
    with pytest.raises(StoreUnavailable):
        async with world.stream(text):
            pass


async def test_a_stream_may_end_during_an_outage_of_the_store(
    world: World,
) -> None:
    text = await world.ticket()

    async with world.stream(text):
        world.redis.address = NOWHERE
        await world.redis.close()


def test_the_instance_of_a_ticket_is_unique_and_does_not_reveal_it() -> None:
    text = "tk_" + "A" * 43

    assert instance_of(text) == instance_of(text)
    assert instance_of(text) != instance_of(text + "A")
    assert len(instance_of(text)) <= 64
    assert instance_of(text).removeprefix("ticket.") not in (
        ticket_digest(text.encode()).hex()
    )


@settings(
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.text(max_size=80) | st.text(max_size=61).map(lambda text: "tk_" + text))
async def test_noise_opens_nothing_and_never_crashes(world: World, text: str) -> None:
    assert not await world.opens(text)
    assert not await world.opens(text, resuming=True)
