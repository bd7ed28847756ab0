"""What is remembered of an audience's log, and what shows that it has changed."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import pytest

from streamer.model import App, Log, Position, everyone_log
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs import shared_logs
from streamer.store.logs.inbox import Draft, Inbox
from streamer.store.logs.settings import DAY_MS
from streamer.store.logs.shared_logs import Damaged, SharedLog, SharedLogs
from streamer.store.logs.trimming import trim_logs

from ...clock import Clock

FRAGMENT = b'"title":"t"}'


class Audience:
    """An audience's log, and what a node knows of it."""

    def __init__(self, redis: RedisConnection, inbox: Inbox, log: Log, clock: Clock):
        self.redis = redis
        self.inbox = inbox
        self.log = log
        self.clock = clock
        self.shared = SharedLogs(redis, inbox, inbox.settings)

    async def read(self) -> SharedLog | Damaged | None:
        """Read the state by plain commands; None if that takes the script."""
        (commands,) = self.shared.state_commands(self.log)
        replies = await self.redis.call_many(commands)
        logs = [(self.log, len(commands))]
        return self.shared.parse_states(logs, replies, self.clock())[self.log]

    async def by_script(self) -> SharedLog | Damaged:
        (state,) = await self.shared.read_by_script([self.log])
        return state

    @property
    def asked(self) -> int:
        """How many commands the next read takes."""
        (commands,) = self.shared.state_commands(self.log)
        return len(commands)

    async def append(self, count: int = 1, expires_ms: int = 0) -> list[Position]:
        drafts = [Draft(FRAGMENT, expires_ms=expires_ms)] * count
        return (await self.inbox.append(self.log, drafts)).stored

    async def lose(self) -> None:
        keys = keys_of().inbox(self.log)
        await self.redis.call("DEL", *keys, write=True)


@pytest.fixture
async def audience(
    redis: RedisConnection, inbox: Inbox, log: Log, clock: Clock
) -> Audience:
    """Return a log of five entries, one of them withdrawn."""
    audience = Audience(redis, inbox, everyone_log(App(log.app)), clock)
    first, *_ = await audience.append(4)
    await inbox.withdraw(audience.log, first)
    return audience


@pytest.fixture
def length_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_logs, "LENGTH_S", math.inf)


@pytest.mark.usefixtures("length_is_remembered")
async def test_a_log_that_is_the_same_takes_one_command(audience: Audience) -> None:
    first = await audience.read()

    assert audience.asked == 1
    assert await audience.read() == first
    assert isinstance(first, SharedLog)
    by_script = await audience.by_script()
    assert isinstance(by_script, SharedLog)
    assert first.version == by_script.version


async def withdraw(audience: Audience) -> None:
    await audience.inbox.withdraw(audience.log, (await audience.append())[0])


async def expire(audience: Audience) -> None:
    await audience.append(expires_ms=audience.clock.now_ms + 1_000)
    # Until it has not changed between two reads.
    for _ in range(3):
        await audience.read()
    assert audience.asked == 1
    audience.clock.now_us += 1_000_000


async def expire_by_another_node(audience: Audience) -> None:
    await expire(audience)
    await audience.by_script()
    audience.clock.now_us -= 1_000_000


async def outlive_the_retention(audience: Audience) -> None:
    audience.clock.now_us += 91 * DAY_MS * 1_000


async def lose_and_write_again(audience: Audience) -> None:
    await audience.lose()
    await audience.append(5)


@pytest.mark.usefixtures("length_is_remembered")
@pytest.mark.parametrize(
    "change",
    [
        *(Audience.append, withdraw, expire, expire_by_another_node),
        *(outlive_the_retention, lose_and_write_again),
    ],
)
async def test_a_change_right_after_a_read_takes_the_script(
    audience: Audience, change: Callable[[Audience], Awaitable[object]]
) -> None:
    await audience.read()
    assert audience.asked == 1

    await change(audience)

    assert await audience.read() is None


@pytest.mark.usefixtures("length_is_remembered")
async def test_a_log_that_is_lost_right_after_a_read_is_empty(
    audience: Audience,
) -> None:
    await audience.read()
    await audience.lose()

    state = await audience.read()

    assert isinstance(state, SharedLog)
    assert state.audience.head.is_zero


@pytest.mark.usefixtures("length_is_remembered")
async def test_a_log_that_changes_between_reads_needs_no_script_again(
    audience: Audience,
) -> None:
    await audience.read()
    await audience.append()
    assert await audience.read() is None

    for _ in range(3):
        await audience.append()
        assert audience.asked == 2
        state = await audience.read()
        assert isinstance(state, SharedLog)
        assert state.version == (await audience.by_script()).version  # type: ignore[union-attr]
    await audience.read()

    assert audience.asked == 1


async def test_what_is_removed_by_hand_shows_when_the_length_is_asked_for_again(
    audience: Audience, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_logs, "LENGTH_S", math.inf)
    before = await audience.read()
    await trim_logs(
        audience.redis, before_us=audience.clock() + 1, app=audience.log.app
    )
    assert await audience.read() == before

    monkeypatch.setattr(shared_logs, "LENGTH_S", 0)

    assert await audience.read() is None
    after = await audience.read()
    assert isinstance(after, SharedLog)
    assert after.audience.floor == after.audience.head.offset + 1


@pytest.mark.usefixtures("length_is_remembered")
async def test_what_has_ended_is_read_once_while_the_log_is_the_same(
    audience: Audience,
) -> None:
    first = await audience.read()
    assert isinstance(first, SharedLog)
    assert not first.is_complete
    (completed,), _ = await audience.shared.read([(audience.log, first)], [])

    again = await audience.read()

    assert again == completed
    assert isinstance(again, SharedLog)
    assert again.audience.has_ended(1)
    assert not again.audience.has_ended(2)


@pytest.mark.usefixtures("length_is_remembered")
async def test_what_has_ended_is_not_remembered_of_a_log_that_has_changed(
    audience: Audience,
) -> None:
    first = await audience.read()
    assert isinstance(first, SharedLog)
    await audience.append()
    assert await audience.read() is None
    later = await audience.read()
    assert isinstance(later, SharedLog)
    await audience.shared.read([(audience.log, first)], [])

    again = await audience.read()

    assert again == later
    assert isinstance(again, SharedLog)
    assert not again.is_complete
