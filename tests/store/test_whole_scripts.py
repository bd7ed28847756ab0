"""
Every script with each of its commands refused in turn, on every server.

A script that fails leaves the store as it was, and works when the command is allowed
again. A script that does not fail has done everything: the refused command was not
reached, or it was the announcement.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from streamer.core.streams.subscription import Start
from streamer.model import App, Log, Player, Position, Topic, topic_log
from streamer.store.client.commands import Call
from streamer.store.client.connection import RedisConnection, Reply
from streamer.store.client.slots import slot_of
from streamer.store.client.unannounced import result_of
from streamer.store.logs.inbox import Draft, Inbox, Once
from streamer.store.logs.mutes import Mutes
from streamer.store.logs.numbered import NumberedLists
from streamer.store.logs.receipts import ReceiptStore
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import Views
from streamer.store.presence.devices import Devices
from streamer.store.presence.leases import Lease, Leases
from streamer.store.privacy.audit_log import AuditEntry, AuditLog
from streamer.store.privacy.traces import Trace, Traces
from streamer.store.scheduling.schedule_records import ScheduleRef
from streamer.store.scheduling.timetable import Timetable

from ..clock import NOON, Clock
from .scheduling.timetables import audience, reminder

LOG = Log(App("app"), Player("p"))
NEWS = topic_log(App("app"), Topic("news"))
FRAGMENT = b'"body":"b"}'


class Captured(Exception):
    """The calls are in `Capturing.calls` and were not sent."""


class Capturing(RedisConnection):
    """Runs everything, but of the script `wanted` it only keeps the calls."""

    wanted = ""
    calls: Sequence[Call] = ()

    async def run_many(self, calls: Sequence[Call], **options: Any) -> list[Reply]:
        if calls and calls[0].script.name == self.wanted:
            self.calls = calls
            raise Captured
        return await super().run_many(calls, **options)


class World:
    """Everything that runs scripts, on one store with a clock of its own."""

    def __init__(self, redis: Capturing, clock: Clock) -> None:
        self.redis = redis
        self.clock = clock
        settings = LogSettings(clock_us=clock, entries_max=6)
        self.inbox = Inbox(redis, settings)
        self.lists = NumberedLists(redis, settings)
        self.receipts = ReceiptStore(redis, settings)
        self.views = Views(redis, settings)
        self.mutes = Mutes(redis)
        self.timetable = Timetable(redis, settings)
        self.leases = Leases(redis, leases_max=3)
        self.places: list[Position] = []
        self.schedule = REMINDER

    async def fill(self, log: Log = LOG) -> None:
        """Append five entries, two of which end later, and mark one as read."""
        drafts: list[Draft | bytes] = [
            b"1",
            Draft(b"2", collapse_key="k"),
            Draft(b"3", expires_ms=NOON + 1),
            b"4",
            b"5",
        ]
        self.places = (await self.inbox.append(log, drafts)).stored
        await self.inbox.mark_ids(log, self.places[:1])
        self.clock.now_us += 7

    async def expire(self) -> None:
        """Fill the log, and let an entry expire that no operation has noticed."""
        await self.fill()
        self.clock.now_ms += 2

    def late(self) -> None:
        """Let the next append renew the expiry of the keys."""
        self.clock.now_ms += 3_600_000


Step = Callable[[World], Awaitable[Any]]
CASES: list[Any] = []


def case(script: str, before: Step, what: str = "") -> Callable[[Step], Step]:
    """Register a use of a script, after `before`."""

    def register(use: Step) -> Step:
        CASES.append(pytest.param(script, before, use, id=f"{script} {what}".strip()))
        return use

    return register


async def nothing(world: World) -> None:
    pass


async def fill(world: World) -> None:
    await world.fill()


async def full_and_late(world: World) -> None:
    await world.fill()
    await world.inbox.append(LOG, [b"6"])
    world.late()


async def full(world: World) -> None:
    await world.fill()
    await world.inbox.append(LOG, [b"6"])


async def expire(world: World) -> None:
    await world.expire()


async def muted(world: World) -> None:
    await world.fill()
    await world.mutes.mute(LOG, "other")


async def marked(world: World) -> None:
    await world.fill()
    await world.inbox.mark_all(LOG)


async def joined(world: World) -> None:
    await world.fill(NEWS)
    (audience,) = await world.inbox.audiences([NEWS])
    await world.views.join(LOG, NEWS, audience.head._replace(offset=1, tag=0, at_us=0))


# Logs.

PLAIN: list[Draft | bytes] = [b"x", b"y"]
ENDING: list[Draft | bytes] = [
    Draft(b"x", collapse_key="k", expires_ms=NOON + 10**7),
    Draft(b"y", collapse_key="k"),
    Draft(b"z", expires_ms=NOON - 1),
    b"w",
]
ONCE = Once("key", "digest")


def append(
    drafts: Sequence[Draft | bytes], before: Step, what: str, once: Once | None = ONCE
) -> None:
    @case("append", before, what)
    async def _(world: World) -> None:
        await world.inbox.append(LOG, drafts, once=once)


append(PLAIN, nothing, "to a new log")
append(PLAIN, fill, "plain")
append(PLAIN, full, "plain, and trims")
append(PLAIN, fill, "plain without a key", None)
append(PLAIN, muted, "with a muted type")
append(ENDING, nothing, "what ends to a new log")
append(ENDING, fill, "what ends")
append(ENDING, full_and_late, "what ends, trims and renews")


@case("withdraw", fill)
@case("withdraw", full_and_late, "and trims")
@case("withdraw", expire, "after an expiry")
async def withdraw(world: World) -> None:
    await world.inbox.withdraw(LOG, world.places[3])


@case("withdraw", nothing, "of another log")
async def withdraw_elsewhere(world: World) -> None:
    await world.inbox.append_withdrawal(LOG, "00000000-0000-7000-8000-000040000000")


@case("purge", fill)
@case("purge", full_and_late, "and trims")
@case("purge", expire, "after an expiry")
async def purge(world: World) -> None:
    await world.inbox.purge(LOG, world.places[1])


@case("purge", expire, "what has ended")
async def purge_ended(world: World) -> None:
    await world.inbox.purge(LOG, world.places[2])


@case("read_after", expire)
async def read_after(world: World) -> None:
    await world.inbox.read_after(LOG, Start.EARLIEST, count=9)


@case("page", expire)
async def page(world: World) -> None:
    await world.inbox.page(LOG, count=9)


@case("list", expire)
async def numbered(world: World) -> None:
    await world.lists.page(LOG, skip=0, count=9)


@case("audience", expire)
async def audience_state(world: World) -> None:
    await world.inbox.audiences([LOG])


@case("receipt", expire)
async def receipt(world: World) -> None:
    await world.receipts.of(LOG, world.places[2])


@case("acknowledge", expire)
async def acknowledge(world: World) -> None:
    await world.receipts.acknowledge(LOG, world.places[3])


@case("mark", expire, "ids")
async def mark_ids(world: World) -> None:
    await world.inbox.mark_ids(LOG, world.places)


@case("mark", expire, "up to")
async def mark_up_to(world: World) -> None:
    await world.inbox.mark_up_to(LOG, world.places[3])


@case("mark", expire, "all")
async def mark_all(world: World) -> None:
    await world.inbox.mark_all(LOG)


@case("mark_unread", fill)
@case("mark_unread", marked, "below the bitmap")
async def mark_unread(world: World) -> None:
    await world.inbox.mark_unread(LOG, world.places)


@case("mute", nothing)
async def mute_type(world: World) -> None:
    await world.mutes.mute(LOG, "type")


# Views.


@case("views", joined)
async def views(world: World) -> None:
    await world.views.read(LOG)


@case("view_join", nothing)
async def join(world: World) -> None:
    await world.views.join(LOG, NEWS, Position(1, 2, 3, 4))


@case("view_leave", joined)
async def leave(world: World) -> None:
    await world.views.leave(LOG, NEWS)


@case("view_mute", joined)
async def mute_view(world: World) -> None:
    await world.views.mute(LOG, NEWS, muted=True)


async def mark_view(world: World, change: Any, *offsets: int) -> None:
    epoch = world.places[0].epoch
    await world.views.change(LOG, NEWS, change, offsets, epoch=epoch, floor=1)


@case("view_mark", joined, "read")
async def mark_view_read(world: World) -> None:
    await mark_view(world, "ids", 2, 4)


@case("view_mark", joined, "up to")
async def mark_view_up_to(world: World) -> None:
    epoch = world.places[0].epoch
    await world.views.mark_up_to(LOG, [(NEWS, 4, epoch, 1)])


@case("view_mark", joined, "deleted")
async def delete_in_view(world: World) -> None:
    await mark_view(world, "deleted", 2, 4)


async def view_read(world: World) -> None:
    await joined(world)
    await mark_view_read(world)


@case("view_mark", view_read, "unread")
async def mark_view_unread(world: World) -> None:
    await mark_view(world, "unread", 2)


@case("view_ack", joined)
async def acknowledge_view(world: World) -> None:
    await world.views.acknowledge(LOG, NEWS, world.places[3])


@case("view_find", expire)
async def find(world: World) -> None:
    await world.views.find([(LOG, world.places)])


@case("player_count", expire)
async def count_inbox(world: World) -> None:
    (count,) = await world.views.count_many([LOG])
    if isinstance(count, Exception):
        raise count


@case("tally", joined)
async def tally(world: World) -> None:
    await world.views.count("read", [(NEWS, [range(2, 4)])])


# Connections.


async def connected(world: World) -> None:
    await world.leases.beat()
    await world.leases.acquire(LOG, "one", instance="i")


@case("lease_acquire", connected)
async def acquire(world: World) -> None:
    newcomer = world.views.newcomer(Position(1, 2, 3, 4))
    await world.leases.acquire(LOG, "two", instance="i", newcomer=newcomer)


@case("lease_release", connected)
async def release(world: World) -> None:
    await world.leases._release_batch([Lease(LOG, "one")])


@case("device_used", nothing)
async def use_device(world: World) -> None:
    await Devices(world.redis, world.leases.node).note_use(LOG, "two", "phone")


# Schedules.

REMINDER = reminder("p", expires_ms=NOON + 10**7, collapse_key="k")


async def scheduled(world: World) -> None:
    await world.fill()
    await world.timetable.add(REMINDER)


async def with_audience(world: World) -> None:
    await world.fill()
    world.schedule = await audience(world.timetable, "p", "q", "r")


async def sending(world: World) -> None:
    await with_audience(world)
    await world.timetable.firing.begin_sending([ScheduleRef.of(world.schedule)])


@case("schedule", nothing)
@case("schedule", scheduled, "again")
async def schedule(world: World) -> None:
    await world.timetable.add(REMINDER, slots_max=2)


@case("fire", scheduled)
async def fire(world: World) -> None:
    await world.timetable.firing.fire([REMINDER])


@case("cancel", scheduled)
async def cancel(world: World) -> None:
    await world.timetable.cancel(ScheduleRef.of(REMINDER))


@case("cancel", scheduled, "moves it")
async def move(world: World) -> None:
    await world.timetable.cancel(ScheduleRef.of(REMINDER), due_ms=NOON + 9)


async def cancelled(world: World) -> None:
    await scheduled(world)
    await world.timetable.cancel(ScheduleRef.of(REMINDER))


async def paused(world: World) -> None:
    await scheduled(world)
    await world.timetable.pause(ScheduleRef.of(REMINDER))


async def paused_audience(world: World) -> None:
    await sending(world)
    await world.timetable.pause(ScheduleRef.of(world.schedule))


@case("pause", scheduled)
@case("pause", paused, "again")
async def pause(world: World) -> None:
    await world.timetable.pause(ScheduleRef.of(REMINDER))


@case("pause", sending, "an audience")
async def pause_audience(world: World) -> None:
    await world.timetable.pause(ScheduleRef.of(world.schedule))


@case("resume", paused)
async def resume(world: World) -> None:
    await world.timetable.resume(
        ScheduleRef.of(REMINDER),
        due_ms=REMINDER.due_ms,
        fragment=FRAGMENT,
        expires_ms=NOON + 9,
    )


@case("resume", paused_audience, "an audience")
async def resume_audience(world: World) -> None:
    ref = ScheduleRef.of(world.schedule)
    await world.timetable.resume(ref, due_ms=world.schedule.due_ms)


@case("cancel", paused, "a paused one")
async def cancel_paused(world: World) -> None:
    await world.timetable.cancel(ScheduleRef.of(REMINDER))


@case("close", paused_audience)
async def close(world: World) -> None:
    schedule = world.schedule._replace(buckets=world.schedule.buckets[:1])
    await world.timetable.recipients.remove_unserved(schedule)


@case("finish", paused_audience, "the last bucket of a paused one")
async def finish_paused(world: World) -> None:
    schedule = world.schedule._replace(buckets=world.schedule.buckets[:1])
    await world.timetable.recipients.finish(schedule, {schedule.buckets[0]: 1})


@case("schedule_purge", cancelled)
async def purge_schedule(world: World) -> None:
    await world.timetable.purge(ScheduleRef.of(REMINDER))


@case("begin", with_audience)
async def begin(world: World) -> None:
    await world.timetable.firing.begin_sending([ScheduleRef.of(world.schedule)])


@case("enlist", nothing)
async def enlist(world: World) -> None:
    players = [Player("p")]
    await world.timetable.recipients.enlist(ScheduleRef.of(REMINDER), players)


@case("deliver", sending)
async def deliver(world: World) -> None:
    bucket = world.schedule.buckets[0]
    players, _ = await world.timetable.recipients.next_players(
        world.schedule, bucket, limit=9
    )
    await world.timetable.recipients.deliver(world.schedule, bucket, players)


@case("postpone", sending)
async def postpone(world: World) -> None:
    bucket = world.schedule.buckets[0]
    players, _ = await world.timetable.recipients.next_players(
        world.schedule, bucket, limit=1
    )
    await world.timetable.recipients.postpone(world.schedule, bucket, players[0])


@case("finish", sending)
async def finish(world: World) -> None:
    counts = {world.schedule.buckets[0]: 1}
    await world.timetable.recipients.finish(world.schedule, counts)


@case("finish", sending, "the last bucket")
async def finish_last(world: World) -> None:
    schedule = world.schedule._replace(buckets=world.schedule.buckets[:1])
    await world.timetable.recipients.finish(schedule, {schedule.buckets[0]: 1})


# Audit logs.


async def audited(world: World) -> None:
    log = AuditLog(world.redis)
    for player in ("0a", "0b", "0a"):
        entry = AuditEntry(action="purge", by="cli", player=player, reason="r")
        await log.append(LOG.app, entry)


@case("audit_forget", audited)
async def forget(world: World) -> None:
    await AuditLog(world.redis).forget(LOG.app, "0a")


# Erasures.


@case("player_erase", joined)
async def erase(world: World) -> None:
    await Traces(world.redis).remove_own(LOG)


@case("schedule_erase", scheduled)
async def erase_schedule(world: World) -> None:
    traces = Traces(world.redis, LogSettings(clock_us=world.clock))
    trace = Trace("schedule", {}, schedule=ScheduleRef.of(REMINDER))
    await traces.remove(LOG, trace)


# The test.

LUA = Path(__file__).parents[2] / "streamer/store/lua"
READ_ONLY = {"view_read_at"}
ONE_WRITE = {
    # Each card or key is one write, which may be repeated.
    *("card_copy", "card_write", "keys_used"),
    *("key_rotate", "quota_permits", "ticket_undo_use", "ticket_use"),
    *("heartbeat", "rate", "schedule_slots", "app_put", "deployment_raise"),
    *("key_put", "lease_renew", "put_until"),
}


CLOCKED = ("device_used", "lease_release")
"""Scripts that always take the time from the store."""

READS = {
    b"string": ("GET",),
    b"hash": ("HGETALL",),
    b"list": ("LRANGE", 0, -1),
    b"set": ("SMEMBERS",),
    b"zset": ("ZRANGE", 0, -1, "WITHSCORES"),
    b"stream": ("XRANGE", "-", "+"),
}


async def content(redis: RedisConnection) -> dict[bytes, Any]:
    """Return what is stored, without lifetimes."""
    keys = await redis.call("KEYS", "*")
    kinds = await redis.call_many([("TYPE", key) for key in keys])
    reads = [READS[kind] for kind in kinds]
    values = await redis.call_many(
        [(name, key, *rest) for key, (name, *rest) in zip(keys, reads, strict=True)]
    )
    found: dict[bytes, Any] = {}
    for key, kind, value in zip(keys, kinds, values, strict=True):
        if kind == b"hash":
            found[key] = dict(zip(value[::2], value[1::2], strict=True))
        elif kind == b"set":
            found[key] = sorted(value)
        elif kind == b"string" and b":done:" in key:
            found[key] = value.rstrip(b"\0")  # A longer bitmap says the same.
        else:
            found[key] = value
    return {key: value for key, value in found.items() if value}


def sizes(found: dict[bytes, Any]) -> dict[bytes, int]:
    return {
        key: 1 if isinstance(value, bytes) else len(value)
        for key, value in found.items()
    }


async def keep(redis: RedisConnection) -> list[tuple[bytes, int, bytes]]:
    keys = await redis.call("KEYS", "*")
    lifetimes = await redis.call_many([("PTTL", key) for key in keys])
    dumps = await redis.call_many([("DUMP", key) for key in keys])
    return list(zip(keys, lifetimes, dumps, strict=True))


async def put_back(
    redis: RedisConnection, kept: list[tuple[bytes, int, bytes]]
) -> None:
    replies = await redis.call_many(
        [
            ("FLUSHDB",),
            *(
                ("RESTORE", key, max(lifetime_ms, 0), dump)
                for key, lifetime_ms, dump in kept
            ),
        ],
        write=True,
    )
    assert set(replies) == {b"OK"}


def declared(call: Call) -> list[bytes]:
    """Return the keys that a call declares."""
    command = call.by_digest()
    if isinstance(command, bytes):
        # Lengths and arguments in turn, after the number of arguments.
        command = tuple(command.split(b"\r\n")[2::2])
    count = int(command[2])
    return [it if isinstance(it, bytes) else str(it).encode() for it in command[3:]][
        :count
    ]


@pytest.fixture
async def admin(any_store: str) -> AsyncIterator[Capturing]:
    redis = Capturing(any_store)
    await redis.call("FLUSHALL", write=True)
    yield redis
    await redis.call("ACL", "DELUSER", "limited", write=True)
    await redis.close()


async def allow_all_but(redis: RedisConnection, *commands: str) -> None:
    rules = [f"-{command.lower()}" for command in commands]
    user = ("ACL", "SETUSER", "limited", "reset", "on", "nopass", "~*", "&*", "+@all")
    await redis.call(*user, *rules, write=True)


@pytest.fixture
async def limited(admin: Capturing) -> AsyncIterator[RedisConnection]:
    await allow_all_but(admin)
    redis = RedisConnection(f"unix://limited:x@{quote(admin.address.where)}")
    yield redis
    await redis.close()


async def captured(world: World, admin: Capturing, script: str, use: Step) -> Call:
    """Return the first call of a script by `use`, which is not sent."""
    admin.wanted = script
    with pytest.raises(Captured):
        await use(world)
    admin.wanted = ""
    (call, *_) = admin.calls
    return call


@pytest.mark.parametrize(("script", "before", "use"), CASES)
async def test_a_script_does_everything_or_nothing(
    admin: Capturing,
    limited: RedisConnection,
    clock: Clock,
    script: str,
    before: Step,
    use: Step,
) -> None:
    world = World(admin, clock)
    await before(world)
    call = await captured(world, admin, script, use)
    command = call.by_text()
    kept, unchanged = await keep(admin), await content(admin)
    assert not isinstance(await limited.call_many([command]), Exception)
    done = await content(admin)

    failed = set()
    for refused in sorted(call.script.commands):
        await put_back(admin, kept)
        await allow_all_but(admin, refused)

        (reply,) = await limited.call_many([command])

        if isinstance(reply, Exception):
            failed.add(refused)
            assert await content(admin) == unchanged, refused
            clock.now_us += 1
            await use(world)  # By a user who is refused nothing.
            assert sizes(await content(admin)) == sizes(done), refused
        elif script not in CLOCKED:
            assert await content(admin) == done, refused
    assert failed


@pytest.mark.parametrize(("script", "before", "use"), CASES)
async def test_a_script_touches_the_keys_that_it_declares_in_one_slot(
    admin: Capturing,
    limited: RedisConnection,
    clock: Clock,
    script: str,
    before: Step,
    use: Step,
) -> None:
    world = World(admin, clock)
    await before(world)
    keys = declared(call := await captured(world, admin, script, use))
    first = keys[0]
    (slot,) = {slot_of(key) for key in keys}
    tag = first[first.index(b"{") : first.index(b"}") + 1]
    # The store itself refuses any other key, and any channel of another slot.
    await admin.call(
        *("ACL", "SETUSER", "limited", "reset", "on", "nopass", "+@all"),
        *(b"~" + key for key in keys),
        b"&streamer@0:" + tag + b"*",
        write=True,
    )

    (reply,) = await limited.call_many([call.by_text()], write=True)

    assert not isinstance(result_of(reply, limited.unannounced), Exception)
    assert limited.unannounced.count == 0, limited.unannounced.words
    assert slot_of(b"streamer@0:" + tag) == slot


async def test_the_store_refuses_a_script_a_key_that_it_does_not_declare(
    admin: Capturing, limited: RedisConnection
) -> None:
    await admin.call(
        *("ACL", "SETUSER", "limited", "reset", "on", "nopass", "+@all", "~own"),
        write=True,
    )

    text = "redis.call('SET', KEYS[1] .. ARGV[1], '')"
    own, other = await limited.call_many(
        [("EVAL", text, 1, "own", ""), ("EVAL", text, 1, "own", "x")]
    )

    assert own is None
    assert isinstance(other, Exception)


def test_every_script_that_writes_is_tested() -> None:
    names = {path.stem for path in LUA.rglob("*.lua") if path.stem[0] != "_"}
    assert {param.values[0] for param in CASES} == names - ONE_WRITE - READ_ONLY
