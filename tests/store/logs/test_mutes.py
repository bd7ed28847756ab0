from __future__ import annotations

import pytest

from streamer.core.streams.subscription import Start
from streamer.errors import Limit, LimitReached
from streamer.model import Log
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Draft, Inbox, Once
from streamer.store.logs.mutes import MUTES_MAX, Mutes


@pytest.fixture
def inbox(redis: RedisConnection) -> Inbox:
    return Inbox(redis)


@pytest.fixture
def mutes(redis: RedisConnection) -> Mutes:
    return Mutes(redis)


async def fragments(inbox: Inbox, log: Log) -> list[bytes]:
    read = await inbox.read_after(log, Start.EARLIEST, count=100)
    return [entry.fragment for entry in read.history.entries]


async def test_entries_of_a_muted_type_are_not_stored(
    inbox: Inbox, mutes: Mutes, log: Log
) -> None:
    assert await mutes.mute(log, "news")

    drafts: list[Draft | bytes] = [Draft(b"1", "news"), Draft(b"2", "mail"), b"3"]
    drafts.append(Draft(b"4", "news"))
    appended = await inbox.append(log, drafts)

    assert [p and p.offset for p in appended.positions] == [None, 1, 2, None]
    assert [p.offset for p in appended.stored] == [1, 2]
    assert await fragments(inbox, log) == [b"2", b"3"]


async def test_a_log_is_not_created_for_muted_entries_only(
    inbox: Inbox, mutes: Mutes, redis: RedisConnection, log: Log
) -> None:
    await mutes.mute(log, "news")

    appended = await inbox.append(log, [Draft(b"1", "news")])

    assert appended.positions == [None]
    assert await redis.call("EXISTS", *keys_of().inbox(log)) == 0


async def test_a_repeated_append_ignores_later_mutes(
    inbox: Inbox, mutes: Mutes, log: Log
) -> None:
    once = Once("key", "digest")
    drafts = [Draft(b"1", "news"), Draft(b"2", "mail"), Draft(b"3", "mail")]
    await mutes.mute(log, "news")
    first = await inbox.append(log, drafts, once=once)
    await mutes.unmute(log, "news")
    await mutes.mute(log, "mail")

    again = await inbox.append(log, drafts, once=once)

    assert again.positions == first.positions
    assert (first.replayed, again.replayed) == (False, True)


async def test_types_can_be_unmuted_and_listed(mutes: Mutes, log: Log) -> None:
    assert await mutes.mute(log, "b")
    assert await mutes.mute(log, "ä b")
    assert not await mutes.mute(log, "b")

    assert await mutes.of(log) == ["b", "ä b"]
    assert await mutes.unmute(log, "b")
    assert not await mutes.unmute(log, "b")
    assert await mutes.of(log) == ["ä b"]


async def test_the_number_of_muted_types_is_limited(mutes: Mutes, log: Log) -> None:
    for n in range(MUTES_MAX):
        await mutes.mute(log, str(n))

    with pytest.raises(LimitReached) as refused:
        await mutes.mute(log, "one more")

    assert refused.value.limit is Limit.MUTES_PER_PLAYER
    assert not await mutes.mute(log, "0")
