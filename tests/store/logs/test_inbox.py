"""Appending, reading and marking on a real server."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from redis.exceptions import ResponseError

from streamer.core.deployment import LISTED_MARKS
from streamer.core.streams.subscription import Start
from streamer.core.trace_context import TraceContext
from streamer.errors import OutcomeUnknown, StoreUnavailable
from streamer.model import (
    AT_US_MAX,
    OFFSET_MAX,
    TAG_MAX,
    ZERO,
    App,
    Gap,
    Log,
    Player,
    Position,
)
from streamer.store.client.connection import RedisConnection
from streamer.store.client.pubsub import PubSub
from streamer.store.client.replies import StoreConflict
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import (
    INLINE_MAX,
    PAGE_BYTES,
    Draft,
    Inbox,
    Once,
    ReadAfter,
)
from streamer.store.logs.mutes import Mutes
from streamer.store.logs.settings import LogSettings

from ...clock import NOON_US, Clock
from ...conftest import Until
from ..recording import RecordingHandler


@pytest.fixture
def inbox(redis: RedisConnection) -> Inbox:
    return Inbox(redis)


async def fragments(inbox: Inbox, log: Log) -> list[bytes]:
    """Return the whole log, oldest first."""
    read = await inbox.read_after(log, Start.EARLIEST, count=100_000)
    return [entry.fragment for entry in read.history.entries]


async def fill(inbox: Inbox, log: Log, count: int) -> list[Position]:
    appended = await inbox.append(log, [b"%d" % n for n in range(1, count + 1)])
    return appended.stored


def forged(position: Position) -> Position:
    return position._replace(tag=position.tag ^ 1)


# Appending.


async def test_offsets_count_from_one_without_holes(inbox: Inbox, log: Log) -> None:
    positions = []
    for size in (1, 3, 2):
        positions += (await inbox.append(log, [b"x"] * size)).stored

    assert [p.offset for p in positions] == [1, 2, 3, 4, 5, 6]
    assert len({p.epoch for p in positions}) == 1
    assert len({p.tag for p in positions}) == 6


async def test_concurrent_publishers_get_distinct_offsets(
    inbox: Inbox, log: Log
) -> None:
    appended = await asyncio.gather(
        *(inbox.append(log, [b"%d" % n] * (n % 3 + 1)) for n in range(200))
    )

    offsets = [p.offset for one in appended for p in one.stored]
    assert sorted(offsets) == list(range(1, len(offsets) + 1))
    for one in appended:
        batch = [p.offset for p in one.stored]
        assert batch == list(range(batch[0], batch[0] + len(batch)))


async def test_ids_sort_as_the_log_does(inbox: Inbox, log: Log) -> None:
    await asyncio.gather(*(inbox.append(log, [b"x"] * 3) for _ in range(30)))

    entries = (await inbox.read_after(log, ZERO, count=100)).history.entries

    ids = [entry.id for entry in entries]
    assert len(ids) == 90
    assert ids == sorted(ids)


async def test_times_of_a_log_never_decrease(redis: RedisConnection, log: Log) -> None:
    now_us = [5_000_000, 4_999_999, 5_000_001]
    inbox = Inbox(redis, LogSettings(clock_us=lambda: now_us.pop(0)))

    at_us = [(await inbox.append(log, [b"x"])).stored[0].at_us for _ in range(3)]

    assert at_us == [5_000_000, 5_000_000, 5_000_001]


async def test_times_are_those_of_the_store_clock(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    before = await redis.call("TIME")

    (position,) = (await inbox.append(log, [b"x"])).stored

    after = await redis.call("TIME")
    seconds, us = divmod(position.at_us, 1_000_000)
    assert tuple(map(int, before)) < (seconds, us) < tuple(map(int, after))


async def test_each_log_has_its_own_epoch(inbox: Inbox, log: Log) -> None:
    other = Log(log.app, Player(log.player + "-other"))

    (one,) = (await inbox.append(log, [b"x"])).stored
    (two,) = (await inbox.append(other, [b"x"])).stored

    assert one.epoch != two.epoch
    assert one.offset == two.offset == 1


async def test_apps_are_isolated(inbox: Inbox, log: Log) -> None:
    await inbox.append(log, [b"x"])

    for app in ("other", log.app.upper()):
        page = await inbox.page(Log(App(app), log.player), count=1)
        assert (page.entries, page.head) == ([], ZERO)


async def test_a_read_creates_no_epoch(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    read = await inbox.read_after(log, Start.LATEST, count=1)
    await inbox.page(log, count=1)
    await inbox.mark_all(log)

    assert read.history.head == ZERO
    assert await redis.call("EXISTS", *keys_of().inbox(log)) == 0


@pytest.mark.row("B3")
async def test_a_lost_log_starts_again_with_another_epoch(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    (before, *_) = await fill(inbox, log, 5)
    await inbox.mark_all(log)
    # Its other keys are useless without the state.
    await redis.call("DEL", keys_of().inbox(log)[0])

    (after,) = (await inbox.append(log, [b"new"])).stored

    assert after.offset == 1
    assert after.epoch != before.epoch
    assert await fragments(inbox, log) == [b"new"]
    assert (await inbox.page(log, count=9)).unread == 1


async def test_only_the_newest_entries_are_kept(
    redis: RedisConnection, log: Log
) -> None:
    inbox = Inbox(redis, LogSettings(entries_max=10))
    await fill(inbox, log, 7)

    positions = await fill(inbox, log, 25)

    assert positions[-1].offset == 32
    assert await fragments(inbox, log) == [b"%d" % n for n in range(16, 26)]
    assert (await inbox.page(log, count=99)).unread == 10


async def test_any_bytes_are_stored_unchanged(inbox: Inbox, log: Log) -> None:
    hostile = [bytes(range(256)), b"\r\n", b" ", b"x" * 600_000, b"CONFLICT"]

    await inbox.append(log, hostile)

    assert await fragments(inbox, log) == hostile


async def test_players_with_any_name_have_separate_logs(inbox: Inbox) -> None:
    names = ["a", "A", "a:b", "a b", "{x}", "ü♥", "a:log", "*", "x" * 128, " "]
    logs = [Log(App("names"), Player(name)) for name in names]
    for log in logs:
        await inbox.append(log, [log.player.encode()])

    for log in logs:
        assert await fragments(inbox, log) == [log.player.encode()]


# Once.


async def test_the_same_key_gives_the_same_positions(inbox: Inbox, log: Log) -> None:
    once = Once("key", "digest")
    first = await inbox.append(log, [b"a", b"b"], once=once)
    await inbox.append(log, [b"between"])

    again = await inbox.append(log, [b"a", b"b"], once=once)

    assert again.positions == first.positions
    assert (first.replayed, again.replayed) == (False, True)
    assert await fragments(inbox, log) == [b"a", b"b", b"between"]


async def test_a_key_used_for_another_request_is_a_conflict(
    inbox: Inbox, log: Log
) -> None:
    await inbox.append(log, [b"a"], once=Once("key", "digest"))

    with pytest.raises(StoreConflict):
        await inbox.append(log, [b"b"], once=Once("key", "other"))

    assert await fragments(inbox, log) == [b"a"]


async def test_a_conflict_writes_nothing(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    await inbox.append(log, [b"a"], once=Once("key", "digest"))
    before = await snapshot(redis)

    with pytest.raises(ResponseError):
        await inbox.append(log, [b"b"], once=Once("key", "other"))

    assert await snapshot(redis) == before


async def snapshot(redis: RedisConnection) -> dict[bytes, bytes]:
    names = sorted(await redis.call("KEYS", "streamer:{*"))
    dumps = await redis.call_many([("DUMP", name) for name in names])
    return dict(zip(names, dumps, strict=True))


async def test_keys_belong_to_one_player_of_one_app(inbox: Inbox, log: Log) -> None:
    once = Once("key", "digest")
    logs = [log, Log(log.app, Player("other")), Log(App("else"), log.player)]

    appended = await inbox.append_many([(log, [b"x"]) for log in logs], once=once)

    assert [getattr(one, "replayed", None) for one in appended] == [False] * 3


async def test_concurrent_appends_with_one_key_append_once(
    inbox: Inbox, log: Log
) -> None:
    appended = await asyncio.gather(
        *(inbox.append(log, [b"x"], once=Once("key", "digest")) for _ in range(50))
    )

    assert Counter(one.replayed for one in appended) == {False: 1, True: 49}
    assert len({tuple(one.stored) for one in appended}) == 1
    assert await fragments(inbox, log) == [b"x"]


async def test_a_failure_of_one_log_does_not_fail_the_others(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    bad = Log(log.app, Player("bad"))
    await redis.call("SET", keys_of().inbox(bad)[0], "not a hash")

    good, failed, other = await inbox.append_many(
        [(log, [b"x"]), (bad, [b"x"]), (Log(log.app, Player("z")), [b"x"])]
    )

    assert isinstance(failed, ResponseError)
    assert not isinstance(good, Exception)
    assert not isinstance(other, Exception)


# Lifetimes.


async def test_every_key_expires(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    positions = await fill(inbox, log, 3)
    await inbox.append(log, [b"x"], once=Once("key", "digest"))
    await inbox.mark_ids(log, positions[:1])
    await inbox.mark_up_to(log, positions[1])

    names = await redis.call("KEYS", "streamer:{*")
    days = {
        name.split(b":")[2]: (await redis.call("PTTL", name)) / 86_400_000
        for name in names
    }

    assert days == pytest.approx(
        {b"state": 182, b"log": 91, b"done": 91, b"reads": 91, b"once": 1}, abs=0.01
    )
    assert keys_of().once(log, "key").encode() in names


@pytest.mark.parametrize(("later_ms", "renewed"), [(3_599_999, False), (1, True)])
async def test_the_first_entry_of_an_hour_renews_the_keys(
    redis: RedisConnection, log: Log, later_ms: int, renewed: bool
) -> None:
    hour_ms = 1_800_000_000_000
    now_ms = hour_ms - 1 if renewed else hour_ms
    inbox = Inbox(redis, LogSettings(clock_us=lambda: now_ms * 1_000))
    positions = await fill(inbox, log, 3)
    await inbox.mark_ids(log, positions[:1])
    await inbox.mark_up_to(log, positions[1])
    names = await redis.call("KEYS", "streamer:{*")
    for name in names:
        await redis.call("PEXPIRE", name, 100_000)

    now_ms += later_ms
    await fill(inbox, log, 1)

    assert len(names) == 4
    for name in names:
        assert (await redis.call("PTTL", name) > 100_000) == renewed


async def test_marks_do_not_outlive_the_log(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    await fill(inbox, log, 3)
    await redis.call("PEXPIRE", keys_of().inbox(log)[1], 100_000)

    await inbox.mark_all(log)

    keys = keys_of().inbox(log)
    for key in (keys.done, keys.reads):
        assert 0 < await redis.call("PTTL", key) <= 100_000


async def test_offsets_continue_after_the_log_has_expired(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    (*_, last) = await fill(inbox, log, 3)
    await inbox.mark_all(log)
    await redis.call("DEL", *keys_of().inbox(log)[1:])

    read = await inbox.read_after(log, last, count=9)
    (after,) = (await inbox.append(log, [b"x"])).stored

    assert (read.history.gap, read.unread) == (None, 0)
    assert (after.epoch, after.offset) == (last.epoch, 4)
    read = await inbox.read_after(log, last, count=9)
    assert [e.offset for e in read.history.entries] == [4]
    assert read.unread == 1


async def test_entries_older_than_the_retention_leave_without_a_timer(
    redis: RedisConnection, log: Log
) -> None:
    now_ms = 1_000_000
    inbox = Inbox(
        redis, LogSettings(retention_ms=1_000, clock_us=lambda: now_ms * 1_000)
    )
    await fill(inbox, log, 3)
    now_ms += 600
    await fill(inbox, log, 2)

    now_ms += 401
    page = await inbox.page(log, count=9)

    assert page.entries is not None
    assert [item.entry.offset for item in page.entries] == [5, 4]
    assert page.unread == 2
    assert await redis.call("XLEN", keys_of().inbox(log)[1]) == 2


# Announcements.


async def test_entries_are_announced_large_ones_without_fragment(
    inbox: Inbox, store_url: str, log: Log, until: Until
) -> None:
    recorder = RecordingHandler()
    pubsub = PubSub(store_url, recorder)
    running = asyncio.create_task(pubsub.run())
    await until(lambda: pubsub.connected)
    await pubsub.subscribe(log)
    small, large = b"with blanks \xff", b"x" * (INLINE_MAX + 1)

    appended = await inbox.append(log, [small, large, b"y" * INLINE_MAX])
    await inbox.mark_up_to(log, appended.stored[0])
    await inbox.mark_up_to(log, appended.stored[0])
    await inbox.mark_ids(log, appended.stored)
    await inbox.append(log, [b"end"])
    await until(lambda: recorder.entries and recorder.entries[-1].fragment == b"end")

    assert [e.position for e in recorder.entries[:3]] == appended.stored
    assert [e.fragment for e in recorder.entries[:3]] == [small, b"", b"y" * INLINE_MAX]
    assert [marks for marks, _ in recorder.reads] == [1, 2]
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize("trace", [None, TraceContext("00-1-2-01", "a=b,c=d")])
@pytest.mark.parametrize("once", [None, Once("k", "digest")])
async def test_the_fast_append_writes_what_the_general_one_does(
    redis: RedisConnection,
    store_url: str,
    log: Log,
    until: Until,
    once: Once | None,
    trace: TraceContext | None,
) -> None:
    recorder = RecordingHandler()
    pubsub = PubSub(store_url, recorder)
    running = asyncio.create_task(pubsub.run())
    await until(lambda: pubsub.connected)
    inbox = Inbox(redis, LogSettings(entries_max=4, clock_us=lambda: NOON_US))
    # A muted type disables the fast path, whichever it is.
    long = Log(log.app, Player(log.player + "-long"))
    await Mutes(redis).mute(long, "other")
    left = []

    for of_log in (log, long):
        await pubsub.subscribe(of_log)
        first = await inbox.append(of_log, [b"1"])
        batch: list[Draft | bytes]
        batch = [Draft(b"2", type="t"), b"x" * (INLINE_MAX + 1), b"4", b"5"]
        appended = await inbox.append(of_log, batch, once=once, trace=trace)
        again = appended
        if once:
            again = await inbox.append(of_log, batch, once=once, trace=trace)
        await until(lambda: len(recorder.entries) == 5)
        assert [
            it.position for it in recorder.entries
        ] == first.stored + appended.stored
        assert again.positions == appended.positions
        assert recorder.traces == [None, *[trace] * 4]
        recorder.traces.clear()
        fragments = [it.fragment for it in recorder.entries]
        recorder.entries.clear()
        left.append((fragments, *await everything(redis, of_log, appended.stored)))

    assert left[0] == left[1]
    running.cancel()
    await asyncio.wait([running])


async def everything(
    redis: RedisConnection, log: Log, stored: list[Position]
) -> tuple[Any, ...]:
    """Return all that an append has written, except random values."""
    keys = keys_of().inbox(log)
    items = await redis.call("XRANGE", keys.log, "-", "+")
    tags = [int(fields[1]) for _, fields in items]
    assert tags == [position.tag for position in stored]
    fields = await redis.call("HGETALL", keys.state)
    state = dict(zip(fields[::2], fields[1::2], strict=True))
    assert int(state.pop(b"epoch")) == stored[-1].epoch
    assert int(state.pop(b"tag")) == stored[-1].tag
    lives = [await redis.call("EXISTS", key) for key in keys]
    return [(place, it[0], *it[2:]) for place, it in items], state, lives


# Reading after a position.


async def test_a_forged_time_skips_no_entry(redis: RedisConnection, log: Log) -> None:
    # The entry of the position has just been trimmed, so its time cannot be verified.
    # If it were used, the reader would miss entries.
    inbox = Inbox(redis, LogSettings(entries_max=5))
    positions = await fill(inbox, log, 8)
    place = positions[2]

    for at_us in (0, place.at_us + 1, AT_US_MAX):
        read = await inbox.read_after(log, place._replace(at_us=at_us), count=99)
        assert read.history.gap is None
        assert [e.offset for e in read.history.entries] == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("place", "gap"),
    [
        (lambda p: p[5]._replace(epoch=p[5].epoch ^ 1), Gap.EPOCH),
        (lambda p: p[9]._replace(offset=11), Gap.AHEAD),
        (lambda p: p[9]._replace(offset=2**32 - 1), Gap.AHEAD),
        (lambda p: forged(p[9]), Gap.DIVERGED),
        (lambda p: forged(p[5]), Gap.DIVERGED),
        (lambda p: p[5]._replace(at_us=p[5].at_us - 1), Gap.DIVERGED),
        (lambda p: p[9]._replace(at_us=p[9].at_us + 1), Gap.DIVERGED),
        (lambda p: p[1], Gap.TRIMMED),
        (lambda p: ZERO, Gap.TRIMMED),
        (lambda p: p[4], Gap.TOO_FAR),
    ],
)
async def test_a_gap_has_a_reason(
    redis: RedisConnection, log: Log, place: object, gap: Gap
) -> None:
    inbox = Inbox(redis, LogSettings(entries_max=7))
    positions = await fill(inbox, log, 10)
    asked = place(positions)  # type: ignore[operator]

    read = await inbox.read_after(log, asked, count=99, replay_max=4)

    assert read.history.gap is gap
    assert read.history.entries == []
    assert read.history.head == positions[9]


async def test_a_reader_of_an_empty_log_can_fall_too_far_behind(
    inbox: Inbox, log: Log
) -> None:
    await fill(inbox, log, 10)

    read = await inbox.read_after(log, ZERO, count=99, replay_max=9)
    assert read.history.gap is Gap.TOO_FAR

    read = await inbox.read_after(log, ZERO, count=99, replay_max=10)
    assert len(read.history.entries) == 10


async def test_a_bare_id_reads_as_its_cursor_does(inbox: Inbox, log: Log) -> None:
    positions = await fill(inbox, log, 3)

    read = await inbox.read_after(log, positions[0]._replace(epoch=0), count=99)

    assert read.history.start == positions[0]
    assert [e.position for e in read.history.entries] == positions[1:]


async def test_a_read_counts_the_unread_entries_before_it(
    inbox: Inbox, log: Log
) -> None:
    positions = (await inbox.append(log, [b"1"] * 6)).stored
    await inbox.mark_ids(log, [positions[1], positions[4]])

    read = await inbox.read_after(log, positions[2], count=10)
    far = await inbox.read_after(log, positions[2], count=10, replay_max=2)
    latest = await inbox.read_after(log, Start.LATEST, count=10)

    assert (read.unread, read.unread_before) == (4, 2)
    assert (far.history.gap, far.unread_before) == (Gap.TOO_FAR, 2)
    assert latest.unread_before == 4


async def test_a_read_ends_at_its_size(inbox: Inbox, log: Log) -> None:
    await inbox.append(log, [b"x" * 100_000] * 40)

    (read,) = await inbox.read_many([ReadAfter(log, ZERO, 40, bytes_max=250_000)])

    assert not isinstance(read, Exception)
    entries = read.history.entries
    assert 3 <= len(entries) <= 10
    assert [e.offset for e in entries] == list(range(1, len(entries) + 1))


async def test_an_entry_over_the_size_is_read_alone(inbox: Inbox, log: Log) -> None:
    await inbox.append(log, [b"x" * 100_000] * 2)

    (read,) = await inbox.read_many([ReadAfter(log, ZERO, 1, bytes_max=1)])

    assert not isinstance(read, Exception)
    assert len(read.history.entries) == 1


# Pages.


@pytest.mark.parametrize("included", [True, False])
async def test_every_cursor_can_bound_a_page(
    inbox: Inbox, log: Log, included: bool
) -> None:
    await fill(inbox, log, 3)
    last = Position(1, AT_US_MAX, OFFSET_MAX, TAG_MAX)

    for place, below in ((ZERO, []), (last, [3, 2, 1])):
        page = await inbox.page(log, newest=place, newest_included=included, count=9)
        assert [e.entry.offset for e in page.entries or ()] == below
        page = await inbox.page(log, oldest=place, oldest_included=included, count=9)
        above = [3, 2, 1] if place is ZERO else []
        assert [e.entry.offset for e in page.entries or ()] == above


async def test_a_rewritten_tail_changes_the_version(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    await fill(inbox, log, 3)
    keys = keys_of().inbox(log)[:2]
    saved = [await redis.call("DUMP", key) for key in keys]
    await inbox.append(log, [b"lost"])
    before = await inbox.page(log, count=9)
    for key, dump in zip(keys, saved, strict=True):
        await redis.call("RESTORE", key, 0, dump, "REPLACE")

    await inbox.append(log, [b"again"])
    after = await inbox.page(log, count=9, version=before.version)

    assert after.version != before.version
    assert after.entries is not None


@pytest.mark.row("D4")
async def test_paging_shows_each_entry_once_during_other_changes(
    redis: RedisConnection, log: Log
) -> None:
    # Battery D4, small: pages newest first while others insert, read and expire.
    rng = random.Random(4)
    clock = [1_000_000]
    inbox = Inbox(
        redis,
        LogSettings(
            retention_ms=3_000, entries_max=60, clock_us=lambda: clock[0] * 1_000
        ),
    )
    known: list[Position] = []
    stop = False

    async def disturb() -> None:
        while not stop:
            clock[0] += rng.randrange(100)
            known.extend((await inbox.append(log, [b"x"] * rng.randint(1, 3))).stored)
            await inbox.mark_ids(log, rng.sample(known[-40:], min(3, len(known))))
            if rng.random() < 0.1:
                await inbox.mark_up_to(log, rng.choice(known[-40:]))

    async def walk() -> int:
        first = await inbox.page(log, count=1_000)
        positions: list[Position] = []
        newest = None
        while True:
            page = await inbox.page(
                log, newest=newest, newest_included=False, count=rng.randint(1, 9)
            )
            if not page.entries:
                break
            positions += [item.entry.position for item in page.entries]
            newest = positions[-1]
        last = await inbox.page(log, count=1_000)
        before = {item.entry.position for item in first.entries or ()}
        after = {item.entry.position for item in last.entries or ()}
        throughout = before & after
        assert [p.offset for p in positions] == sorted(
            {p.offset for p in positions}, reverse=True
        )
        assert throughout <= set(positions)
        return len(throughout)

    disturbing = asyncio.create_task(disturb())
    held = 0
    for _ in range(40):
        held += sum(await asyncio.gather(*(walk() for _ in range(4))))
    stop = True
    await disturbing

    assert held > 500


# Marks.


async def test_marking_is_idempotent_and_ignores_unknown_entries(
    inbox: Inbox, log: Log
) -> None:
    positions = await fill(inbox, log, 5)
    other = await fill(inbox, Log(log.app, Player("other")), 5)

    first = await inbox.mark_ids(log, positions[:2])
    second = await inbox.mark_ids(log, positions[:2])
    nothing = await inbox.mark_ids(log, [*map(forged, positions), *other])
    none = await inbox.mark_ids(log, [])

    assert (first.unread, first.changed, first.marks) == (3, 2, 1)
    assert second == nothing == none == first._replace(changed=0)


async def test_marking_up_to_a_diverged_position_marks_nothing(
    inbox: Inbox, log: Log
) -> None:
    positions = await fill(inbox, log, 5)
    place = positions[3]

    for wrong in (
        forged(place),
        place._replace(epoch=place.epoch ^ 1),
        place._replace(at_us=place.at_us + 1),
        place._replace(offset=6),
        ZERO,
    ):
        assert (await inbox.mark_up_to(log, wrong)).changed == 0

    assert (await inbox.mark_up_to(log, place._replace(epoch=0))).changed == 4


async def test_the_time_of_the_first_mark_counts(
    redis: RedisConnection, log: Log
) -> None:
    clock = [1_000_000]
    inbox = Inbox(redis, LogSettings(clock_us=lambda: clock[0] * 1_000))
    positions = await fill(inbox, log, 6)
    for marking in (
        inbox.mark_ids(log, [positions[1]]),
        inbox.mark_up_to(log, positions[2]),
        inbox.mark_up_to(log, positions[1]),
        inbox.mark_ids(log, [positions[0], positions[4]]),
        inbox.mark_all(log),
    ):
        clock[0] += 1
        await marking

    page = await inbox.page(log, count=9)

    times = [item.read_at_ms - 1_000_000 for item in (page.entries or [])[::-1]]
    assert times == [2, 1, 2, 5, 4, 5]


async def test_entries_after_marking_all_are_unread(inbox: Inbox, log: Log) -> None:
    await fill(inbox, log, 13)
    await inbox.mark_all(log)

    await fill(inbox, log, 2)

    page = await inbox.page(log, count=4)
    assert page.unread == 2
    assert [bool(s.read_at_ms) for s in page.entries or ()] == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.row("D5")
async def test_counts_do_not_drift_under_concurrent_marks(
    redis: RedisConnection, log: Log
) -> None:
    # Battery D5, small.
    rng = random.Random(5)
    clock = [1_000_000]
    inbox = Inbox(
        redis,
        LogSettings(
            retention_ms=4_000, entries_max=50, clock_us=lambda: clock[0] * 1_000
        ),
    )
    other = Log(log.app, Player("other"))
    known = await fill(inbox, log, 20) + await fill(inbox, other, 3)
    changed = 0

    async def act() -> None:
        nonlocal changed
        for _ in range(100):
            clock[0] += rng.randrange(20)
            places = rng.sample(known, 3)
            kind = rng.random()
            if kind < 0.3:
                fresh = await inbox.append(log, [b"x"] * rng.randint(1, 2))
                known.extend(fresh.stored)
            elif kind < 0.7:
                changed += (await inbox.mark_ids(log, places)).changed
            elif kind < 0.98:
                changed += (await inbox.mark_up_to(log, places[0])).changed
            else:
                changed += (await inbox.mark_all(log)).changed

    await asyncio.gather(*(act() for _ in range(10)))

    page = await inbox.page(log, count=1_000)
    assert page.entries is not None
    assert page.unread == sum(not item.read_at_ms for item in page.entries)
    assert changed > 0
    done = await inbox.mark_all(log)
    assert (done.unread, done.changed) == (0, page.unread)


async def test_marks_stay_correct_while_the_bitmap_moves(
    redis: RedisConnection, log: Log
) -> None:
    # Two moves of 8,192 and more, at a cap of 2,000 kept entries.
    inbox = Inbox(redis, LogSettings(entries_max=2_000))
    keys = keys_of().inbox(log)
    rng = random.Random(8)
    read: set[int] = set()
    for _ in range(40):
        positions = await fill(inbox, log, 500)
        picked = rng.sample(positions, 25)
        await inbox.mark_ids(log, picked)
        read |= {p.offset for p in picked}
        head = positions[-1].offset
        page = await inbox.page(log, count=0)
        assert page.unread == sum(
            n not in read for n in range(max(1, head - 1_999), head + 1)
        )

    page = await inbox.page(log, count=2_000)
    assert page.entries is not None
    assert {s.entry.offset for s in page.entries if s.read_at_ms} == {
        n for n in read if n > head - 2_000
    }
    assert int(await redis.call("HGET", keys.state, "base")) >= 2 * 8_192
    assert await redis.call("STRLEN", keys.done) <= (8_192 + 2_000) // 8 + 1
    assert await redis.call("HLEN", keys.reads) <= 3_000


async def test_marks_of_entries_that_have_left_are_deleted(
    redis: RedisConnection, log: Log
) -> None:
    inbox = Inbox(redis, LogSettings(entries_max=10))
    for _ in range(280):
        await inbox.mark_ids(log, await fill(inbox, log, 4))

    assert await redis.call("HLEN", keys_of().inbox(log)[3]) <= 1_014


# Failures.


async def test_every_method_fails_without_a_store(tmp_path: object, log: Log) -> None:
    inbox = Inbox(RedisConnection(f"unix://{tmp_path}/no.sock"))

    for call in (
        inbox.append(log, [b"x"]),
        inbox.page(log, count=1),
        inbox.read_after(log, ZERO, count=1),
        inbox.mark_all(log),
    ):
        with pytest.raises((StoreUnavailable, OutcomeUnknown)) as failed:
            await call
        assert failed.type is StoreUnavailable


async def test_a_page_of_large_entries_is_shorter_and_has_a_next_one(
    inbox: Inbox, log: Log
) -> None:
    large = b'"body":"%b"}' % (b"x" * 500_000)
    appended = await inbox.append(log, [large] * 12)

    page = await inbox.page(log, count=12)

    assert page.entries is not None
    assert len(page.entries) == PAGE_BYTES // len(large)
    assert page.following == appended.stored[-1 - len(page.entries)]


async def test_an_entry_larger_than_a_page_is_returned(inbox: Inbox, log: Log) -> None:
    huge = b'"body":"%b"}' % (b"x" * (PAGE_BYTES + 1))
    appended = await inbox.append(log, [huge, huge])

    page = await inbox.page(log, count=10)

    assert page.entries is not None
    assert len(page.entries) == 1
    assert page.following == appended.stored[0]


async def test_the_last_page_is_followed_by_nothing(inbox: Inbox, log: Log) -> None:
    await inbox.append(log, [b'"n":1}'] * 40)

    for count, follows in ((39, True), (40, False), (41, False)):
        page = await inbox.page(log, count=count)
        assert (page.following is not None) is follows


async def test_range_marks_of_an_older_version_are_understood_and_kept(
    redis: RedisConnection, log: Log, clock: Clock
) -> None:
    inbox = Inbox(redis, LogSettings(clock_us=clock))
    places = (await inbox.append(log, [b"1"] * 6)).stored
    await inbox.mark_up_to(log, places[2])
    first_ms, reads = clock.now_ms, keys_of().inbox(log).reads
    # One field for each mark.
    await redis.call("DEL", reads, write=True)
    await redis.call("HSET", reads, "<=3", str(first_ms), write=True)
    clock.now_ms += 1_000

    before = await inbox.page(log, count=6)
    await inbox.mark_all(log)
    after = await inbox.page(log, count=6)

    times = [found.read_at_ms for found in before.entries or ()]
    assert times == [0, 0, 0, first_ms, first_ms, first_ms]
    times = [found.read_at_ms for found in after.entries or ()]
    assert times == [clock.now_ms] * 3 + [first_ms] * 3


async def test_marks_beside_an_older_version_are_those_that_it_reads(
    redis: RedisConnection, log: Log, clock: Clock
) -> None:
    inbox = Inbox(redis, LogSettings(clock_us=clock))
    places = (await inbox.append(log, [b"1"] * 6)).stored
    times = [clock.now_ms]
    reads = keys_of().inbox(log).reads
    await inbox.mark_up_to(log, places[1])  # A list, as the level allows it.

    redis.terms.level = LISTED_MARKS - 1
    for place in places[3], places[4]:
        clock.now_ms += 1_000
        times.append(clock.now_ms)
        await inbox.mark_up_to(log, place)

    assert sorted(await redis.call("HKEYS", reads)) == [b"<=4", b"<=5", b"upto"]
    expected = [0, times[2], times[1], times[1], times[0], times[0]]
    found = (await inbox.page(log, count=6)).entries or ()
    assert [it.read_at_ms for it in found] == expected

    redis.terms.level = LISTED_MARKS
    clock.now_ms += 1_000
    await inbox.mark_all(log)

    found = (await inbox.page(log, count=6)).entries or ()
    assert [it.read_at_ms for it in found] == [clock.now_ms, *expected[1:]]
