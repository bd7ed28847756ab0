"""What is remembered of a player's own log, and when the script has to read it."""

from __future__ import annotations

import pytest

from streamer.model import Log
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs import own_logs
from streamer.store.logs.inbox import Draft, Inbox
from streamer.store.logs.own_logs import OwnLog, OwnLogs
from streamer.store.logs.settings import DAY_MS

from ...clock import Clock

FRAGMENT = b'"title":"t"}'


class Known:
    """A player's own log, and what a node knows of it."""

    def __init__(self, redis: RedisConnection, inbox: Inbox, log: Log, clock: Clock):
        self.redis = redis
        self.inbox = inbox
        self.log = log
        self.clock = clock
        self.logs = OwnLogs(redis.keys, inbox.settings)

    async def learn(self) -> None:
        page = await self.inbox.page(self.log, count=5)
        replies = await self.redis.call_many(self.logs.learning(self.log))
        self.logs.learn(self.log, page, replies)

    async def look(self) -> OwnLog | None:
        """Read the state by plain commands; None if that takes the script."""
        commands = self.logs.commands(self.log, "a version", only_unread=False)
        if not commands:
            return None
        replies = await self.redis.call_many(commands)
        return self.logs.parse(self.log, replies, self.clock())

    async def by_script(self) -> OwnLog:
        page = await self.inbox.page(self.log, count=5)
        return OwnLog(page.version, page.head, page.unread)


@pytest.fixture
async def known(redis: RedisConnection, inbox: Inbox, log: Log, clock: Clock) -> Known:
    """Return a log of three entries that was read, the last of which expires in 1 s."""
    drafts = [*[Draft(FRAGMENT)] * 2, Draft(FRAGMENT, expires_ms=clock.now_ms + 1_000)]
    await inbox.append(log, drafts)
    known = Known(redis, inbox, log, clock)
    await known.learn()
    return known


async def test_a_log_that_was_read_is_known(known: Known) -> None:
    assert await known.look() == await known.by_script()


async def test_a_change_makes_another_version_whose_unread_entries_are_not_known(
    known: Known,
) -> None:
    await known.inbox.mark_all(known.log)

    state = await known.look()

    assert state == (await known.by_script())._replace(unread=None)


async def test_a_log_without_unread_entries_is_known_to_have_none(known: Known) -> None:
    assert not known.logs.commands(known.log, "", only_unread=True)
    await known.inbox.mark_all(known.log)
    await known.learn()

    assert known.logs.commands(known.log, "", only_unread=True)
    state = await known.look()
    assert state is not None
    assert state.unread == 0


async def test_an_expiry_that_is_due_takes_the_script(known: Known) -> None:
    known.clock.now_us += 999_999
    assert await known.look() is not None

    known.clock.now_us += 1

    assert await known.look() is None
    await known.learn()
    assert await known.look() == await known.by_script()


async def test_entries_past_the_retention_take_the_script(known: Known) -> None:
    known.clock.now_us += 1_000_000
    await known.learn()
    known.clock.now_us += 90 * DAY_MS * 1_000 - 1_000_000
    assert await known.look() is not None

    known.clock.now_us += 1

    assert await known.look() is None
    await known.inbox.append(known.log, [FRAGMENT])
    await known.learn()
    assert await known.look() == await known.by_script()


async def test_entries_that_are_removed_by_hand_make_another_version(
    known: Known,
) -> None:
    key = keys_of().inbox(known.log).log
    await known.redis.call("XTRIM", key, "MAXLEN", 1, write=True)

    state = await known.look()

    assert state is not None
    assert state.version == (await known.by_script()).version


async def test_a_log_that_is_lost_and_written_again_takes_the_script(
    known: Known,
) -> None:
    await known.redis.call("DEL", *keys_of().inbox(known.log), write=True)
    assert await known.look() is None

    await known.inbox.append(known.log, [FRAGMENT] * 3)

    assert await known.look() is None


async def test_an_append_after_the_script_is_not_learned(known: Known) -> None:
    page = await known.inbox.page(known.log, count=5)
    await known.inbox.append(known.log, [FRAGMENT])
    replies = await known.redis.call_many(known.logs.learning(known.log))

    known.logs.learn(known.log, page, replies)

    assert await known.look() is None


async def test_a_state_that_makes_no_sense_is_left_to_the_script(known: Known) -> None:
    key = keys_of().inbox(known.log).state
    await known.redis.call("HSET", key, "head", "no number", write=True)

    assert await known.look() is None


async def test_at_too_many_logs_all_are_forgotten(
    known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_logs, "KNOWN_MAX", 1)
    first, known.log = known.log, Log(known.log.app, "another")
    await known.inbox.append(known.log, [FRAGMENT])

    await known.learn()

    assert await known.look() is not None
    known.log = first
    assert await known.look() is None
