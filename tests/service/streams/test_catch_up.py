"""Readers that join, fall behind or lose Pub/Sub, and get everything all the same."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from streamer.core.streams.audience_subscription import AudienceSubscription
from streamer.core.streams.subscription import ReadFrom, Start, State
from streamer.errors import DRAINING, RESYNC, Disconnect, StoreUnavailable
from streamer.model import (
    AT_US_MAX,
    ZERO,
    App,
    Entry,
    Log,
    Player,
    Position,
    Topic,
    everyone_log,
    topic_log,
)
from streamer.service.inboxes.audiences import PlayerAudiences
from streamer.service.streams import catch_up as catching_up
from streamer.service.streams.catch_up import BATCH, CatchUp
from streamer.store.client.connection import RedisConnection, RespConnection
from streamer.store.client.pubsub import PubSub
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Inbox, Read, ReadAfter
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import Views
from streamer.store.server.embedded import Embedded

from ...conftest import Until
from ..conftest import Client

NEVER_S = 3_600
FRAGMENT = b'"title":"t"}'

MakeCatchUp = Callable[..., Awaitable[CatchUp]]


@pytest.fixture
async def make_catch_up(
    store_url: str, inbox: Inbox, until: Until
) -> AsyncIterator[MakeCatchUp]:
    """Return a function that runs a `CatchUp`; position checks are off by default."""
    async with AsyncExitStack() as stack:

        async def make(
            *,
            url: str = store_url,
            inbox: Inbox = inbox,
            replay_max: int = 500,
            check_s: int = NEVER_S,
            kind: type[CatchUp] = CatchUp,
        ) -> CatchUp:
            audiences = PlayerAudiences(Views(inbox._redis, LogSettings()), inbox)
            catch_up = kind(
                url, inbox, audiences, replay_max=replay_max, check_s=check_s
            )
            running = asyncio.create_task(catch_up.run())
            stack.push_async_callback(end, running)
            await until(lambda: catch_up.connected)
            return catch_up

        yield make


async def end(running: asyncio.Task[None]) -> None:
    # An error of the task itself is raised here.
    if not running.done():
        running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.fixture
async def catch_up(make_catch_up: MakeCatchUp) -> CatchUp:
    return await make_catch_up()


class HeldInbox(Inbox):
    """An inbox whose reads happen and return when a test lets them."""

    def __init__(self, redis: RedisConnection) -> None:
        super().__init__(redis)
        self.released = asyncio.Event()
        self.released.set()
        self.waiting = 0
        self.reads = 0

    async def read_many(self, reads: Sequence[ReadAfter]) -> list[Read | Exception]:
        replies = await super().read_many(reads)
        self.reads += len(reads)
        self.waiting += 1
        await self.released.wait()
        self.waiting -= 1
        return replies


async def test_a_reader_gets_entries_from_now_on(
    catch_up: CatchUp, inbox: Inbox, log: Log, make_client: type[Client], until: Until
) -> None:
    await inbox.append(log, [FRAGMENT] * 3)
    client = make_client()
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 3)

        await inbox.append(log, [FRAGMENT] * 2)

        await until(lambda: client.has(5))


class Broken:
    """A reader that fails when it gets entries from its log."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.ended: Disconnect | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client.session, name)

    def on_history(self, *args: Any, **kwargs: Any) -> None:
        raise KeyError("broken")

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        self.ended = disconnect
        self._client.session.end(disconnect)


async def test_a_reader_that_fails_is_closed_and_others_get_everything(
    catch_up: CatchUp,
    inbox: Inbox,
    log: Log,
    make_client: type[Client],
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await inbox.append(log, [FRAGMENT] * 3)
    broken, client = Broken(make_client(ZERO)), make_client(ZERO)
    audiences = catch_up.stream_audiences
    async with audiences.follow(log, broken):
        await until(lambda: broken.ended == RESYNC)
        async with audiences.follow(log, client.session):
            await until(lambda: client.has(3))

    assert "could not deliver to a reader" in caplog.text


async def test_a_reader_gets_missed_and_new_entries(
    catch_up: CatchUp, inbox: Inbox, log: Log, make_client: type[Client], until: Until
) -> None:
    positions = (await inbox.append(log, [FRAGMENT] * 250)).stored
    clients = [make_client(p) for p in (ZERO, Start.EARLIEST, positions[99])]
    async with AsyncExitStack() as stack:
        for client in clients:
            await stack.enter_async_context(
                catch_up.stream_audiences.follow(log, client.session)
            )
        await inbox.append(log, [FRAGMENT])

        await until(lambda: all(client.has(251) for client in clients))

    assert [client.begin for client in clients] == [0, 0, 100]


async def test_joining_during_publishes_loses_no_entry(
    catch_up: CatchUp, inbox: Inbox, make_client: type[Client], until: Until
) -> None:
    # No position check runs here that would repair what a join lost.
    rng = random.Random(6)
    published = 0

    async def one_log(number: int) -> None:
        nonlocal published
        log = Log(App("join"), Player(f"p{number}"))
        known: list[Position] = [ZERO]
        clients = []
        async with AsyncExitStack() as stack:

            async def publish() -> None:
                for _ in range(30):
                    size = rng.randint(1, 3)
                    known.extend((await inbox.append(log, [FRAGMENT] * size)).stored)

            publishing = asyncio.create_task(publish())
            for _ in range(6):
                starts: list[ReadFrom] = [Start.LATEST, Start.EARLIEST]
                start = rng.choice([*starts, rng.choice(known)])
                clients.append(make_client(start))
                await stack.enter_async_context(
                    catch_up.stream_audiences.follow(log, clients[-1].session)
                )
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
            await publishing
            last = known[-1].offset
            published += last
            await until(lambda: all(client.has(last) for client in clients))
        assert not any(client.gaps for client in clients)

    for first in range(0, 60, 10):
        await asyncio.gather(*(one_log(first + n) for n in range(10)))

    assert published > 2_000
    assert len(catch_up.hub) == 0
    assert not catch_up.hub.needs_read


async def test_a_reader_that_joins_during_anothers_read_misses_nothing(
    make_catch_up: MakeCatchUp,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    # The read was made before the entry, the entry was announced before the second
    # reader was attached, and the result came afterwards.
    inbox = HeldInbox(redis)
    catch_up = await make_catch_up(inbox=inbox)
    first, second = make_client(ZERO), make_client(ZERO)
    inbox.released.clear()
    async with catch_up.stream_audiences.follow(log, first.session):
        await until(lambda: inbox.waiting)
        await inbox.append(log, [FRAGMENT])
        await until(lambda: first.session.subscription._pending)

        async with catch_up.stream_audiences.follow(log, second.session):
            inbox.released.set()

            await until(lambda: first.has(1) and second.has(1))


async def test_a_stale_mark_during_a_read_causes_another(
    make_catch_up: MakeCatchUp,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    class IgnoringEntries(CatchUp):
        def on_entry(self, log: Log, entry: Entry) -> None:
            pass

    inbox = HeldInbox(redis)
    catch_up = await make_catch_up(inbox=inbox, kind=IgnoringEntries)
    client = make_client(ZERO)
    inbox.released.clear()
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: inbox.waiting)
        await inbox.append(log, [FRAGMENT])
        catch_up.on_subscribed(log)

        inbox.released.set()

        await until(lambda: client.has(1))


@pytest.mark.row("C1")
async def test_killed_connections_lose_repeat_and_misorder_nothing(
    catch_up: CatchUp,
    inbox: Inbox,
    redis: RedisConnection,
    make_client: type[Client],
    until: Until,
) -> None:
    # Battery C1, small.
    logs = [Log(App("kill"), Player(f"p{n}")) for n in range(20)]
    clients = {log: [make_client(ZERO), make_client()] for log in logs}
    rng = random.Random(1)
    kills = 0

    async def kill() -> None:
        nonlocal kills
        while True:
            await asyncio.sleep(0.1)
            kills += await redis.call("CLIENT", "KILL", "TYPE", "pubsub")

    async def publish(log: Log) -> None:
        for _ in range(60):
            await inbox.append(log, [FRAGMENT] * rng.randint(1, 3))
            await asyncio.sleep(rng.random() * 0.06)

    async with AsyncExitStack() as stack:
        for log in logs:
            for client in clients[log]:
                await stack.enter_async_context(
                    catch_up.stream_audiences.follow(log, client.session)
                )
        killing = asyncio.create_task(kill())
        await asyncio.gather(*(publish(log) for log in logs))
        killing.cancel()
        await asyncio.wait([killing])
        heads = {log: (await inbox.page(log, count=0)).head.offset for log in logs}
        await until(
            lambda: all(c.has(heads[log]) for log in logs for c in clients[log])
        )

    assert kills >= 5
    assert sum(heads.values()) > 2_000
    assert not any(c.gaps for log in logs for c in clients[log])


@pytest.mark.row("C4")
async def test_the_position_check_finds_the_loss_of_the_last_message(
    make_catch_up: MakeCatchUp,
    inbox: Inbox,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    # Battery C4: no entry follows that would reveal the hole.
    class Lossy(CatchUp):
        lost = 0

        def on_entry(self, log: Log, entry: Entry) -> None:
            if entry.offset == 3:
                self.lost += 1
            else:
                super().on_entry(log, entry)

    catch_up = await make_catch_up(kind=Lossy, check_s=1)
    client = make_client(ZERO)
    async with catch_up.stream_audiences.follow(log, client.session):
        await inbox.append(log, [FRAGMENT] * 2)
        await until(lambda: client.has(2))

        await inbox.append(log, [FRAGMENT])

        await until(lambda: client.has(3))
    assert isinstance(catch_up, Lossy)
    assert catch_up.lost == 1


@pytest.mark.row("C4")
async def test_without_the_position_check_the_last_message_stays_lost(
    make_catch_up: MakeCatchUp,
    inbox: Inbox,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    # The control of the test before.
    class CountingEntries(CatchUp):
        entries = 0

        def on_entry(self, log: Log, entry: Entry) -> None:
            self.entries += 1

    catch_up = await make_catch_up(kind=CountingEntries)
    client = make_client(ZERO)
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.session.subscription.state is State.LIVE)
        await inbox.append(log, [FRAGMENT])
        await until(lambda: catch_up.entries)  # type: ignore[attr-defined]

        assert client.offsets == []


async def test_a_store_that_restarts_costs_its_readers_nothing(
    make_catch_up: MakeCatchUp,
    start_store: Callable[[], Awaitable[Embedded]],
    make_client: type[Client],
    until: Until,
) -> None:
    store = await start_store()
    redis = RedisConnection(store.url)
    inbox = Inbox(redis)
    catch_up = await make_catch_up(url=store.url, inbox=inbox)
    logs = [Log(App("restart"), Player(f"p{n}")) for n in range(30)]
    clients = {log: make_client(ZERO) for log in logs}
    async with AsyncExitStack() as stack:
        for log in logs:
            await stack.enter_async_context(
                catch_up.stream_audiences.follow(log, clients[log].session)
            )
            await inbox.append(log, [FRAGMENT])
        await until(lambda: all(client.has(1) for client in clients.values()))
        for round_ in (2, 3):
            await store.stop()
            await until(lambda: not catch_up.connected)
            with pytest.raises(StoreUnavailable):
                await inbox.append(logs[0], [FRAGMENT])
            with pytest.raises(StoreUnavailable):
                async with catch_up.stream_audiences.follow(
                    logs[0], make_client().session
                ):
                    raise AssertionError

            store = await start_store()
            # Before Pub/Sub is back, so that it is not announced to anyone.
            for log in logs:
                await inbox.append(log, [FRAGMENT])

            await until(lambda: all(c.has(round_) for c in clients.values()))  # noqa: B023
            assert not any(c.ended or c.gaps for c in clients.values())
    await redis.close()


async def test_marks_missed_during_an_interruption_are_sent(
    catch_up: CatchUp,
    inbox: Inbox,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    await inbox.append(log, [FRAGMENT] * 2)
    client = make_client()

    def reads() -> list[Any]:
        return [m for m in client.messages if m["type"] == "read"]

    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 2)
        await inbox.mark_all(log)
        await until(lambda: len(reads()) == 1)
        await inbox.append(log, [FRAGMENT])
        # Both in one packet: the mark is made while Pub/Sub is interrupted.
        await asyncio.gather(
            redis.call("CLIENT", "KILL", "TYPE", "pubsub"), inbox.mark_all(log)
        )

        await until(lambda: len(reads()) == 2)

    assert reads()[1]["marks_version"] == 2
    assert reads()[1]["unread"] == 0


async def test_a_reader_that_joins_too_far_behind_gets_a_gap(
    make_catch_up: MakeCatchUp,
    inbox: Inbox,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    catch_up = await make_catch_up(replay_max=10)
    positions = (await inbox.append(log, [FRAGMENT] * 20)).stored
    far, near, all_ = (make_client(p) for p in (ZERO, positions[9], Start.EARLIEST))
    async with AsyncExitStack() as stack:
        for client in (far, near, all_):
            await stack.enter_async_context(
                catch_up.stream_audiences.follow(log, client.session)
            )
        await until(lambda: all(c.has(20) for c in (far, near, all_)))

    assert far.gaps == ["too_far"]
    assert near.gaps == all_.gaps == []
    assert len(all_.offsets) == 20


async def test_a_reader_that_has_joined_is_never_too_far_behind(
    make_catch_up: MakeCatchUp,
    inbox: Inbox,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    class IgnoringEntries(CatchUp):
        def on_entry(self, log: Log, entry: Entry) -> None:
            pass

    catch_up = await make_catch_up(replay_max=10, kind=IgnoringEntries, check_s=1)
    client = make_client()
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)

        await inbox.append(log, [FRAGMENT] * 300)

        await until(lambda: client.has(300))
    assert client.gaps == []


async def test_a_forged_cursor_harms_nobody(
    make_catch_up: MakeCatchUp,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    # Its time is later than that of entries after it, and its entry is just trimmed.
    inbox = Inbox(redis, LogSettings(entries_max=5))
    catch_up = await make_catch_up(inbox=inbox)
    positions = (await inbox.append(log, [FRAGMENT] * 8)).stored
    forged = [positions[2]._replace(at_us=us) for us in (AT_US_MAX, 0)]
    forged += [positions[5]._replace(tag=0), Position(7, 7, 7, 7)]
    clients = [make_client(position) for position in forged]
    async with AsyncExitStack() as stack:
        for client in clients:
            await stack.enter_async_context(
                catch_up.stream_audiences.follow(log, client.session)
            )
        await until(lambda: all(client.has(8) for client in clients))

        await inbox.append(log, [FRAGMENT])

        await until(lambda: all(client.has(9) for client in clients))

    assert [client.gaps for client in clients] == [[], [], ["diverged"], ["epoch"]]


async def test_history_larger_than_the_buffer_is_sent_in_portions(
    catch_up: CatchUp, inbox: Inbox, log: Log, make_client: type[Client], until: Until
) -> None:
    large = b'"body":"%b"}' % (b"x" * 10_000)
    await inbox.append(log, [large] * 120)
    client = make_client(ZERO, buffer=100_000)
    client.stuck_bytes = 0
    peak = 0
    async with catch_up.stream_audiences.follow(log, client.session):
        while not client.has(120):
            await until(lambda: client.stuck_bytes or client.ended)
            assert client.ended is None
            peak = max(peak, client.stuck_bytes)
            client.stuck_bytes = 0  # It has read everything that was there.

    assert peak <= 100_000


async def test_a_slow_reader_is_not_read_for_and_delays_nobody(
    make_catch_up: MakeCatchUp,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    inbox = HeldInbox(redis)
    catch_up = await make_catch_up(inbox=inbox)
    await inbox.append(log, [FRAGMENT] * 300)
    slow, quick = make_client(ZERO, buffer=30_000), make_client(ZERO)
    slow.stuck_bytes = 0
    async with (
        catch_up.stream_audiences.follow(log, slow.session),
        catch_up.stream_audiences.follow(log, quick.session),
    ):
        await until(lambda: quick.has(300) and slow.session.congested)
        before = inbox.reads

        await asyncio.sleep(0.3)  # Time for reads that must not happen.

        assert inbox.reads - before <= 1
        assert len(slow.offsets) < 300
        slow.stuck_bytes = None
        await until(lambda: slow.has(300))


async def test_a_reader_that_has_ended_causes_no_reads(
    make_catch_up: MakeCatchUp,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    inbox = HeldInbox(redis)
    catch_up = await make_catch_up(inbox=inbox)
    client = make_client(ZERO)
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)
        client.session.end(DRAINING)
        catch_up.hub.mark_stale(log)
        before = inbox.reads

        await asyncio.sleep(0.3)  # Time for reads that must not happen.

        assert inbox.reads - before <= 1


async def test_an_unreadable_log_ends_only_its_readers(
    catch_up: CatchUp,
    inbox: Inbox,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    other = Log(log.app, Player("whole"))
    broken, whole = make_client(), make_client()
    async with (
        catch_up.stream_audiences.follow(log, broken.session),
        catch_up.stream_audiences.follow(other, whole.session),
    ):
        await until(lambda: broken.begin == whole.begin == 0)
        for key in (keys_of().inbox(log)[0], keys_of().views(log)):
            await redis.call("DEL", key, write=True)
            await redis.call("SET", key, "not a hash", write=True)
        catch_up.hub.mark_stale(log)

        await until(lambda: broken.ended == RESYNC)
        await inbox.append(other, [FRAGMENT])
        await until(lambda: whole.has(1))


async def test_an_unreadable_audience_ends_only_its_readers(
    catch_up: CatchUp,
    inbox: Inbox,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    everyone = everyone_log(log.app)
    first, other = make_client(), make_client()
    async with catch_up.stream_audiences.follow(log, first.session):
        await until(lambda: first.begin == 0)
        await redis.call("SET", keys_of().inbox(everyone)[0], "not a hash", write=True)
        catch_up.hub.mark_stale(everyone)
        await until(lambda: first.ended == RESYNC)
    await redis.call("DEL", keys_of().inbox(everyone)[0], write=True)

    async with catch_up.stream_audiences.follow(log, other.session):
        await until(lambda: other.begin == 0)


async def test_more_logs_than_fit_a_packet_are_all_read(
    catch_up: CatchUp, inbox: Inbox, make_client: type[Client], until: Until
) -> None:
    logs = [Log(App("many"), Player(f"p{n}")) for n in range(3 * BATCH + 7)]
    await inbox.append_many([(log, [FRAGMENT]) for log in logs])
    clients = [make_client(ZERO) for _ in logs]
    async with AsyncExitStack() as stack:
        for log, client in zip(logs, clients, strict=True):
            await stack.enter_async_context(
                catch_up.stream_audiences.follow(log, client.session)
            )

        await until(lambda: all(client.has(1) for client in clients))


async def test_a_log_its_views_and_their_audiences_are_read_in_one_packet(
    catch_up: CatchUp,
    inbox: Inbox,
    redis: RedisConnection,
    log: Log,
    make_client: type[Client],
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    audiences = catch_up.stream_audiences._audiences
    for name in ("a", "b"):
        await audiences.join(log, Topic(name))
    packets: list[bytes] = []
    flush = RespConnection._flush

    def recorded(self: RespConnection) -> None:
        packets.append(b"".join(self._unsent))
        flush(self)

    client = make_client()
    await catch_up.stream_audiences.join(log, client.session)
    monkeypatch.setattr(RespConnection, "_flush", recorded)
    await until(lambda: client.begin == 0)

    reads = next(it for it in packets if b"EVALSHA" in it)
    of_log, _, of_views = reads.partition(redis.keys.views(log).encode())
    assert redis.keys.state(log).encode() in of_log
    for topic in ("a", "b"):
        state = redis.keys.state(topic_log(log.app, Topic(topic)))
        assert state.encode() in of_views
    catch_up.stream_audiences.leave(log, client.session)


async def test_a_topic_joined_without_an_announcement_is_counted_by_the_next_read(
    catch_up: CatchUp,
    inbox: Inbox,
    log: Log,
    make_client: type[Client],
    until: Until,
) -> None:
    client = make_client()
    audiences = catch_up.stream_audiences._audiences
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)
        await audiences.join(log, Topic("new"))
        await inbox.append(topic_log(log.app, Topic("new")), [FRAGMENT])
        catch_up.hub.mark_stale(log)

        await until(lambda: client.session.unread == 1)


async def test_joining_and_leaving_leaves_nothing_behind(
    catch_up: CatchUp, inbox: Inbox, make_client: type[Client], until: Until
) -> None:
    rng = random.Random(2)
    logs = [Log(App("churn"), Player(f"p{n}")) for n in range(10)]
    publishing = True
    visits = 0

    async def publish() -> None:
        while publishing:
            await inbox.append(rng.choice(logs), [FRAGMENT])

    async def visit() -> None:
        nonlocal visits
        for _ in range(15):
            log = rng.choice(logs)
            starts: list[ReadFrom] = [ZERO, Start.LATEST, Start.EARLIEST]
            client = make_client(rng.choice(starts))
            await until(lambda: catch_up.connected)
            # A reader that joins at the moment of the interruption is refused, and
            # tries again.
            with contextlib.suppress(TimeoutError, StoreUnavailable):
                async with asyncio.timeout(rng.random() * 0.2):
                    async with catch_up.stream_audiences.follow(log, client.session):
                        await asyncio.sleep(rng.random() * 0.05)
            if client.begin is not None:
                visits += 1
                last = max([client.begin, *client.offsets])
                assert client.has(last)

    async def disturb() -> None:
        for _ in range(5):
            await asyncio.sleep(0.1)
            catch_up.reconnect()

    publisher = asyncio.create_task(publish())
    disturber = asyncio.create_task(disturb())
    await asyncio.gather(*(visit() for _ in range(20)))
    publishing = False
    await asyncio.gather(publisher, disturber)

    assert visits > 5
    assert len(catch_up.hub) == 0
    assert not catch_up.hub.needs_read
    pubsub: PubSub = catch_up._pubsub
    assert not pubsub._subscribers
    pubsub.on_watch(asyncio.get_running_loop().time() + 60)
    assert not pubsub._logs


@pytest.mark.parametrize("turn", [1, 2, 7])
async def test_readers_get_everything_in_order_however_short_a_turn_is(
    make_catch_up: MakeCatchUp,
    inbox: Inbox,
    log: Log,
    make_client: type[Client],
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    turn: int,
) -> None:
    monkeypatch.setattr(catching_up, "TURN", turn)
    monkeypatch.setattr(catching_up, "ANNOUNCEMENT_COST", 1)
    catch_up = await make_catch_up()
    everyone = everyone_log(log.app)
    await inbox.append(everyone, [FRAGMENT])
    async with AsyncExitStack() as stack:
        clients = [make_client() for _ in range(6)]
        for client in clients:
            follow = catch_up.stream_audiences.follow(log, client.session)
            await stack.enter_async_context(follow)
        await until(lambda: all(client.begin is not None for client in clients))

        for _ in range(5):
            await inbox.append(everyone, [FRAGMENT] * 3)
            await inbox.append(log, [FRAGMENT] * 3)

        await until(lambda: all(client.session.unread == 30 for client in clients))
        assert {client.session.transport.deliveries for client in clients} == {30}
        assert not catch_up.hub.portions


async def test_a_turn_delivers_no_more_of_a_read_than_its_share(
    make_catch_up: MakeCatchUp,
    inbox: Inbox,
    log: Log,
    make_client: type[Client],
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catching_up, "DELIVERED_MAX", 4)
    monkeypatch.setattr(catching_up, "READERS_MAX", 5)
    catch_up = await make_catch_up()
    everyone = everyone_log(log.app)
    turn = 0
    in_turn: list[int] = []
    on_history = AudienceSubscription.on_history

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def recording(sub: Any, read_from: Any, history: Any, count: Any = None) -> None:
        in_turn.append(turn)
        on_history(sub, read_from, history, count)

    async with AsyncExitStack() as stack:
        clients = [make_client() for _ in range(12)]
        for client in clients:
            follow = catch_up.stream_audiences.follow(log, client.session)
            await stack.enter_async_context(follow)
        await until(lambda: all(client.begin is not None for client in clients))
        monkeypatch.setattr(AudienceSubscription, "on_history", recording)
        stack.callback(asyncio.create_task(count_turns()).cancel)
        await inbox.append(everyone, [FRAGMENT])
        await until(lambda: all(client.session.unread == 1 for client in clients))
        in_turn.clear()

        catch_up.hub.mark_stale(everyone)

        await until(lambda: len(in_turn) == len(clients))
        await until(lambda: everyone not in catch_up.hub.needs_read)
        assert max(Counter(in_turn).values()) <= 4
        assert len(set(in_turn)) >= 3
        assert {client.session.unread for client in clients} == {1}


async def test_an_error_of_one_announcement_stops_no_other(
    catch_up: CatchUp,
    inbox: Inbox,
    log: Log,
    make_client: type[Client],
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails() -> Iterator[int]:
        yield catching_up.TURN
        raise KeyError("broken")

    client = make_client()
    async with catch_up.stream_audiences.follow(log, client.session):
        await until(lambda: client.begin == 0)
        interruptions = catch_up.interruptions
        # It goes on in the turn in which the announcement of another log arrives.
        catch_up.hub.portions.add(fails())
        catch_up.hub.portions.begin_turn()
        catch_up.hub.mark_stale(everyone_log(log.app))

        await inbox.append(log, [FRAGMENT])
        await until(lambda: client.has(1))

    assert "could not handle an announcement" in caplog.text
    assert catch_up.interruptions == interruptions
