"""
Appends after one that was undone, on every server, when the clock was set back since.

XDEL does not give an id back, so the stream has had a later id than the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from streamer.core.streams.subscription import Start
from streamer.errors import OutcomeUnknown
from streamer.model import App, Log, Player, Position
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Draft, Inbox, Once
from streamer.store.logs.settings import LogSettings
from streamer.store.scheduling.schedule_records import ScheduleRef
from streamer.store.scheduling.timetable import Timetable

from ...clock import NOON, Clock
from ..scheduling.timetables import audience, reminder

LOG = Log(App("app"), Player("p"))
HOUR_US = 3_600_000_000
PLAIN: list[Draft | bytes] = [b"x", b"y"]
ENDING: list[Draft | bytes] = [
    Draft(b"x", collapse_key="k"),
    Draft(b"y", expires_ms=NOON + 10**9),
]


@pytest.fixture
async def redis(any_store: str) -> AsyncIterator[RedisConnection]:
    redis = RedisConnection(any_store)
    await redis.call("FLUSHALL", write=True)
    yield redis
    await redis.close()


@pytest.fixture
def inbox(redis: RedisConnection, clock: Clock) -> Inbox:
    return Inbox(redis, LogSettings(clock_us=clock))


async def undo_an_append(redis: RedisConnection, inbox: Inbox, clock: Clock) -> None:
    """Append, undo an append an hour later, and set the clock back."""
    await inbox.append(LOG, [b"before"])
    clock.now_us += HOUR_US
    user = ("ACL", "SETUSER", "limited", "reset", "on", "nopass", "~*", "&*", "+@all")
    await redis.call(*user, "-zadd", write=True)
    limited = RedisConnection(f"unix://limited:x@{quote(redis.address.where)}")
    try:
        with pytest.raises(OutcomeUnknown):
            await Inbox(limited, LogSettings(clock_us=clock)).append(LOG, ENDING)
    finally:
        await limited.close()
        await redis.call("ACL", "DELUSER", "limited", write=True)
    clock.now_us -= HOUR_US


async def stored(inbox: Inbox) -> list[Position]:
    read = await inbox.read_after(LOG, Start.EARLIEST, count=99)
    return [entry.position for entry in read.history.entries]


def assert_ascends(positions: list[Position], count: int) -> None:
    assert [position.offset for position in positions] == list(range(1, count + 1))
    times = [position.at_us for position in positions]
    assert times == sorted(times)
    ids = [position.id for position in positions]
    assert ids == sorted(ids)


@pytest.mark.parametrize("drafts", [PLAIN, ENDING])
@pytest.mark.parametrize("once", [None, Once("key", "digest")])
async def test_appends_go_on(
    redis: RedisConnection,
    inbox: Inbox,
    clock: Clock,
    drafts: list[Draft | bytes],
    once: Once | None,
) -> None:
    await undo_an_append(redis, inbox, clock)

    first = await inbox.append(LOG, drafts, once=once)
    second = await inbox.append(LOG, [b"z"])

    positions = await stored(inbox)
    assert positions[1:] == [*first.stored, *second.stored]
    assert_ascends(positions, 4)
    if once is not None:
        assert (await inbox.append(LOG, drafts, once=once)).stored == first.stored
    # The clock catches up.
    clock.now_us += 2 * HOUR_US
    (last,) = (await inbox.append(LOG, [b"later"])).stored
    assert last.at_us == clock.now_us


async def test_withdrawals_schedules_and_audiences_go_on(
    redis: RedisConnection, inbox: Inbox, clock: Clock
) -> None:
    timetable = Timetable(redis, LogSettings(clock_us=clock))
    await undo_an_append(redis, inbox, clock)
    await inbox.withdraw(LOG, (await stored(inbox))[0])
    await undo_an_append_of_a_new_log(redis)

    one = reminder("p")
    await timetable.add(one)
    assert await timetable.firing.fire([one]) == 1
    several = await audience(timetable, "p", "q")
    await timetable.firing.begin_sending([ScheduleRef.of(several)])
    for bucket in several.buckets:
        players, _ = await timetable.recipients.next_players(several, bucket, limit=9)
        assert await timetable.recipients.deliver(several, bucket, players) == 1

    assert_ascends(await stored(inbox), 4)


async def undo_an_append_of_a_new_log(redis: RedisConnection) -> None:
    """Leave a stream without a state, as an undone append to a new log does."""
    log = keys_of().inbox(Log(App("app"), Player("q"))).log
    later = f"{(NOON + 10**7) * 1_000}-1"
    await redis.call("XADD", log, later, "t", "1", "n", "f", write=True)
    await redis.call("XDEL", log, later, write=True)
