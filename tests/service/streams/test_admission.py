"""Admission: slots, leases, timers, and the drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest

from streamer import errors
from streamer.config import Config
from streamer.errors import Draining, Limit, LimitReached, StoreUnavailable
from streamer.model import Entry, Log, Player, everyone_log
from streamer.service.inboxes.audiences import PlayerAudiences
from streamer.service.inspection.history import Closed
from streamer.service.streams.admission import Admission
from streamer.service.streams.catch_up import CatchUp
from streamer.service.streams.departures import Departures
from streamer.service.streams.timer_wheel import TICK_S
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import DAY_MS, LogSettings
from streamer.store.logs.views import Views
from streamer.store.presence.leases import Leases

from ...conftest import Until
from ..conftest import Client

Make = Callable[..., Awaitable[Admission]]


def make_catch_up(store_url: str, inbox: Inbox, redis: RedisConnection) -> CatchUp:
    audiences = PlayerAudiences(Views(redis, LogSettings(retention_ms=DAY_MS)), inbox)
    return CatchUp(store_url, inbox, audiences, replay_max=500, check_s=15)


@pytest.fixture
async def make(
    store_url: str, redis: RedisConnection, inbox: Inbox, until: Until
) -> AsyncIterator[Make]:
    running: list[asyncio.Task[None]] = []

    async def make(**settings: Any) -> Admission:
        config = Config(**settings)
        catch_up = make_catch_up(store_url, inbox, redis)
        leases = Leases(redis, leases_max=config.listeners_per_player_max)
        admission = Admission(catch_up, leases, config)
        running.append(asyncio.create_task(admission.run()))
        await until(lambda: catch_up.connected)
        return admission

    yield make
    for task in running:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def admission(make: Make) -> Admission:
    return await make(listeners_per_player_max=2)


async def held(redis: RedisConnection, log: Log) -> int:
    count: int = await redis.call("HLEN", keys_of().lease(log))
    return count


# The node's slots.


async def test_a_full_node_refuses_connections(make: Make) -> None:
    admission = await make(connections_max=2)

    with admission.admit(), admission.admit():
        with pytest.raises(LimitReached) as refused, admission.admit():
            pass
        assert admission.open == 2

    assert refused.value.limit is Limit.CONNECTIONS_PER_NODE
    assert admission.open == 0


async def test_connections_that_arrive_too_fast_are_refused(make: Make) -> None:
    admission = await make(connects_per_s_max=5)
    outcomes: list[Limit | None] = []
    for _ in range(20):
        try:
            with admission.admit():
                outcomes.append(None)
        except LimitReached as refused:
            outcomes.append(refused.limit)

    assert outcomes.count(None) in (4, 5, 6)
    assert outcomes[-1] is Limit.CONNECTS_PER_SECOND
    assert admission.open == 0


async def test_a_slot_is_released_however_the_block_ends(admission: Admission) -> None:
    for error in (KeyError, asyncio.CancelledError, GeneratorExit):
        with pytest.raises(error), admission.admit():
            raise error

    assert admission.open == 0


# Joining.


async def test_a_reader_holds_a_lease_while_it_is_joined(
    admission: Admission,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    client = make_client()

    async with admission.listen(log, client.session):
        await until(lambda: client.begin is not None)
        assert await held(redis, log) == 1

    assert await held(redis, log) == 0


async def test_a_reader_beyond_the_players_limit_is_refused_and_leaves_nothing(
    admission: Admission, redis: RedisConnection, log: Log, make_client: type[Client]
) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(
                admission.listen(log, make_client().session)
            )
        with pytest.raises(LimitReached):
            async with admission.listen(log, make_client().session):
                raise AssertionError
        assert await held(redis, log) == 2


async def test_the_same_instance_ends_its_previous_connection(
    admission: Admission,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    before, after = make_client(), make_client()
    async with (
        admission.listen(log, make_client().session, instance="other"),
        admission.listen(log, before.session, instance="phone"),
        admission.listen(log, after.session, instance="phone"),
    ):
        await until(lambda: before.ended == errors.REPLACED)
        assert await held(redis, log) == 2
        assert after.ended is None


async def test_an_instance_on_another_node_ends_its_previous_connection(
    make: Make, log: Log, make_client: type[Client], until: Until
) -> None:
    one, other = await make(), await make()
    before, after = make_client(), make_client()

    async with (
        one.listen(log, before.session, instance="phone"),
        other.listen(log, after.session, instance="phone"),
    ):
        await until(lambda: before.ended == errors.REPLACED)
        assert after.ended is None


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancelled_join_leaves_nothing_behind(
    admission: Admission,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    turns: int,
) -> None:
    entered = asyncio.Event()

    async def come() -> None:
        with admission.admit():
            async with admission.listen(log, make_client().session):
                entered.set()
                await asyncio.Event().wait()

    coming = asyncio.create_task(come())
    for _ in range(turns):
        await asyncio.sleep(0)

    coming.cancel()
    await asyncio.wait([coming])

    assert admission.open == 0
    await admission._leases._release_all()
    assert await held(redis, log) == 0
    assert len(admission._catch_up.hub) == 0


async def test_the_lease_is_released_if_the_log_cannot_be_followed(
    admission: Admission,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pubsub = admission._catch_up._pubsub
    begin = pubsub.begin_subscribe

    def lose_audiences(followed: Log) -> asyncio.Future[None]:
        begun = begin(followed)
        if followed == log:
            return begun
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lost.cancel()
        return lost

    monkeypatch.setattr(pubsub, "begin_subscribe", lose_audiences)

    with pytest.raises(StoreUnavailable):
        async with admission.listen(log, make_client().session):
            raise AssertionError

    assert await held(redis, log) == 0
    assert not pubsub._subscribers


async def test_a_task_that_fails_ends_the_admission(
    store_url: str,
    redis: RedisConnection,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catch_up = make_catch_up(store_url, inbox, redis)
    admission = Admission(catch_up, Leases(redis, leases_max=2), Config())

    async def dead() -> None:
        raise KeyError("dead")

    monkeypatch.setattr(catch_up._position_check, "run", dead)

    with pytest.raises(ExceptionGroup):
        async with asyncio.timeout(60):
            await admission.run()


async def test_every_reader_is_ticked(
    admission: Admission, log: Log, make_client: type[Client], until: Until
) -> None:
    client = make_client()
    client.session.renew(1.0)

    async with admission.listen(log, client.session):
        await until(lambda: client.ended == errors.TOKEN_INVALID)


class Broken:
    """A reader whose stream fails in the timer."""

    def __init__(self, client: Client, *, ends: bool = True) -> None:
        self._client = client
        self._ends = ends
        self.ticks = 0
        self.ended: errors.Disconnect | None = None

    @property
    def stream(self) -> Broken:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client.session, name)

    def due_in_s(self, now_s: float, unix_s: float) -> float:
        return 0.0

    def tick(self, now_s: float, unix_s: float) -> float:
        self.ticks += 1
        raise KeyError("broken")

    def end(self, disconnect: errors.Disconnect, *, delay_ms: int = 0) -> None:
        self.ended = disconnect
        if not self._ends:
            raise KeyError("broken")


@pytest.mark.parametrize("ends", [True, False])
async def test_a_reader_that_fails_in_the_timer_is_closed_and_others_are_ticked(
    admission: Admission,
    log: Log,
    make_client: type[Client],
    until: Until,
    caplog: pytest.LogCaptureFixture,
    *,
    ends: bool,
) -> None:
    broken, client = Broken(make_client(), ends=ends), make_client()
    with admission.admit() as first, admission.admit() as second:
        client.session.renew(1.0)
        await first.join(log, broken)
        await second.join(log, client.session)

        await until(lambda: client.ended == errors.TOKEN_INVALID)

    assert broken.ended == errors.RESYNC
    assert broken.ticks == 1
    assert "the timer of a stream failed" in caplog.text


# Connections that outlive their coroutines.


async def test_a_connection_that_stays_holds_everything_until_it_leaves(
    admission: Admission,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    with admission.admit() as connection:
        await connection.join(log, make_client().session)
        connection.stay()

    assert admission.open == 1
    assert await held(redis, log) == 1

    connection.leave()

    assert admission.open == 0
    assert len(admission._catch_up.hub) == 0
    await admission._leases.wait_released()
    assert await held(redis, log) == 0


async def test_leaving_twice_releases_once(
    admission: Admission, log: Log, make_client: type[Client]
) -> None:
    with admission.admit(), admission.admit() as connection:
        await connection.join(log, make_client().session)

        connection.leave()
        connection.leave()

        assert admission.open == 1
    assert admission.open == 0


async def test_an_error_while_leaving_keeps_no_slot(
    admission: Admission, redis: RedisConnection, log: Log, make_client: type[Client]
) -> None:
    def fail(opened: bool) -> None:
        raise KeyError("broken")

    connection = admission.admit()
    await connection.join(log, make_client().session)
    connection.on_leave = fail

    with pytest.raises(KeyError):
        connection.leave()

    assert admission.open == 0
    await admission._leases.wait_released()
    assert await held(redis, log) == 0


@pytest.mark.parametrize("error", [StoreUnavailable, KeyError])
async def test_a_refusal_opens_nothing(
    admission: Admission, error: type[Exception]
) -> None:
    outcomes: list[bool] = []

    with pytest.raises(error), admission.admit() as connection:
        connection.on_leave = outcomes.append
        raise error

    assert outcomes == [error is KeyError]


async def test_a_reader_is_not_ticked_before_it_is_due(
    admission: Admission, log: Log, make_client: type[Client], until: Until
) -> None:
    ticks: list[float] = []
    in_tick: list[int] = []
    client = make_client()

    class RecordingTicks:
        @property
        def stream(self) -> RecordingTicks:
            return self

        def __getattr__(self, name: str) -> Any:
            return getattr(client.session, name)

        def due_in_s(self, now_s: float, unix_s: float) -> float:
            return 0.0

        def tick(self, now_s: float, unix_s: float) -> float:
            ticks.append(now_s)
            in_tick.append(admission._timer_wheel._tick_count)
            return 3_600.0

    with admission.admit() as connection:
        await connection.join(log, RecordingTicks())
        await until(lambda: ticks)
        (tick,) = in_tick
        # The time counts from within the tick.
        assert 0 <= connection.due - tick - 3_600 / TICK_S <= 1


# Many that leave at once.

MANY = 5


async def lose_many(
    admission: Admission, log: Log, make_client: type[Client]
) -> list[Client]:
    """Let connections of one player leave in one turn that has room for one of them."""
    clients = [make_client() for _ in range(MANY)]
    connections = [admission.admit() for _ in clients]
    for client, connection in zip(clients, connections, strict=True):
        await connection.join(log, client.session)
        connection.stay()
    admission._departures = Departures(1)
    for connection in connections:
        connection.leave()
    return clients


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        vars(record)["fields"]
        for record in caplog.records
        if record.getMessage().startswith("stream ended")
    ]


async def test_those_that_leave_at_once_count_against_no_limit(
    make: Make, log: Log, make_client: type[Client], redis: RedisConnection
) -> None:
    admission = await make(connections_max=MANY, listeners_per_player_max=MANY)

    await lose_many(admission, log, make_client)

    assert len(admission._departures) == MANY - 1
    assert admission.open == 0
    await admission._leases.wait_released()
    assert await held(redis, log) == 0


async def test_nothing_is_delivered_to_those_that_leave_at_once(
    make: Make, log: Log, make_client: type[Client]
) -> None:
    admission = await make(listeners_per_player_max=MANY)
    clients = await lose_many(admission, log, make_client)
    begun = [len(client.messages) for client in clients]

    entry = Entry(1, 1, 1, 1, b'"title":"late"')

    assert not admission._catch_up.hub.dispatch(log, entry)
    assert len(admission._departures) == MANY - 1
    assert [len(client.messages) for client in clients] == begun


async def test_each_of_those_that_leave_at_once_is_logged_and_counted(
    make: Make,
    log: Log,
    make_client: type[Client],
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    admission = await make(listeners_per_player_max=MANY)
    clients = await lose_many(admission, log, make_client)
    assert len(lines(caplog)) == 1
    # It has left before, whatever is said to it now.
    clients[-1].session.end(errors.DRAINING)

    await until(lambda: len(lines(caplog)) == MANY)

    assert [line["reason"] for line in lines(caplog)] == ["left"] * MANY
    counted = [client.session.transport for client in clients]
    assert [(it.open, it.closes) for it in counted] == [(0, {"left": 1})] * MANY
    assert not admission._catch_up._pubsub._subscribers


async def test_how_far_a_closed_connection_had_come_is_known_of_every_log(
    admission: Admission,
    inbox: Inbox,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    everyone = everyone_log(log.app)
    client, connection = make_client(), admission.admit()
    await connection.join(log, client.session)
    connection.stay()
    await until(lambda: client.begin is not None)
    for to in (log, everyone):
        await inbox.append(to, [b'"title":"t"}'])
    await until(lambda: len(client.offsets) == 2)

    connection.leave()

    (closed,) = admission.connection_log._history.events_of(log)
    assert isinstance(closed, Closed)
    assert {it.name: (it.after, it.upto) for it in closed.places} == {
        log.name: (0, 1),
        everyone.name: (0, 1),
    }


async def test_a_stop_leaves_no_departure_behind(
    store_url: str,
    redis: RedisConnection,
    inbox: Inbox,
    log: Log,
    make_client: type[Client],
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    catch_up = make_catch_up(store_url, inbox, redis)
    admission = Admission(catch_up, Leases(redis, leases_max=MANY), Config())
    running = asyncio.create_task(admission.run())
    await until(lambda: catch_up.connected)
    await lose_many(admission, log, make_client)

    running.cancel()
    await asyncio.wait([running])

    assert len(lines(caplog)) == MANY
    assert len(admission._departures) == 0


async def test_a_turn_has_room_to_close_so_many(admission: Admission) -> None:
    connections = [admission.admit() for _ in range(3)]
    admission._closings = Departures(2)
    closed: list[int] = []

    later = [it.close_soon(lambda: closed.append(1)) for it in connections]
    connections[0].leave()

    assert later == [False, False, True]
    assert not connections[0].close_soon(lambda: closed.append(1))
    assert closed == []
    for _ in range(3):
        await asyncio.sleep(0)
    assert closed == [1]


# The drain.


async def test_a_draining_node_refuses_connections(make: Make) -> None:
    admission = await make(drain_s=0)

    await admission.drain()

    with pytest.raises(Draining), admission.admit():
        pass


async def test_readers_are_closed_one_after_the_other(
    make: Make,
    inbox: Inbox,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits_s: list[float] = []
    passing = asyncio.Semaphore(0)

    async def wait_for(empty: Coroutine[Any, Any, Any], seconds: float) -> None:
        """Let the time pass when the test says so."""
        empty.close()
        waits_s.append(seconds)
        await passing.acquire()
        raise TimeoutError

    monkeypatch.setattr(asyncio, "wait_for", wait_for)
    admission = await make(drain_s=5_000, listeners_per_player_max=10)
    clients = [make_client() for _ in range(5)]

    async def stay(client: Any) -> None:
        with admission.admit():
            async with admission.listen(log, client.session):
                await until(lambda: client.ended)

    def has_ended(client: Client) -> bool:
        return client.ended is not None

    staying = [asyncio.create_task(stay(client)) for client in clients]
    await until(lambda: all(client.begin is not None for client in clients))

    draining = asyncio.create_task(admission.drain())
    for count in range(1, 6):
        passing.release()
        await until(lambda count=count: len(waits_s) == min(count + 1, 5))
        await until(lambda count=count: sum(map(has_ended, clients)) == count)
        if count == 1:
            await inbox.append(log, [b'"title":"late"}'])
            await until(lambda: sum(client.offsets == [1] for client in clients) == 4)
    await draining

    await asyncio.gather(*staying)
    assert [round(wait_s, -3) for wait_s in waits_s] == [0, 1_000, 2_000, 3_000, 4_000]
    assert {client.ended for client in clients} == {errors.DRAINING}
    byes = [client.messages[-1] for client in clients]
    assert all(bye["type"] == "bye" and 0 < bye["delay_ms"] <= 2_000 for bye in byes)
    assert await redis.call("ZCARD", keys_of().nodes) == 0


async def test_an_empty_node_is_drained_at_once(make: Make) -> None:
    admission = await make(drain_s=3_600)

    async with asyncio.timeout(60):
        await admission.drain()


async def test_readers_that_do_not_leave_do_not_delay_the_drain(
    make: Make, log: Log, make_client: type[Client]
) -> None:
    admission = await make(drain_s=0)
    client = make_client()

    with admission.admit():
        async with admission.listen(log, client.session):
            async with asyncio.timeout(60):
                await admission.drain()

    assert client.ended == errors.DRAINING


async def test_a_reader_that_joins_during_the_drain_is_closed_too(
    make: Make, log: Log, make_client: type[Client]
) -> None:
    admission = await make(drain_s=0)
    client = make_client()

    with admission.admit():
        draining = asyncio.create_task(admission.drain())
        await asyncio.sleep(0)
        async with admission.listen(log, client.session):
            assert client.ended == errors.DRAINING
    await draining


async def test_players_do_not_share_their_leases(
    make: Make, log: Log, make_client: type[Client]
) -> None:
    admission = await make(listeners_per_player_max=1)
    other = Log(log.app, Player("other"))

    async with (
        admission.listen(log, make_client().session),
        admission.listen(other, make_client().session),
    ):
        pass
