"""A store that refuses to announce: everything else is done, counted and said once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from streamer.model import ZERO, App, Log, Topic, topic_log
from streamer.store.client.connection import RedisConnection
from streamer.store.client.faults import StoreFaults
from streamer.store.client.unannounced import LOG_EVERY_S, Unannounced, result_of
from streamer.store.logs.inbox import Draft, Inbox, Once
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import Views
from streamer.store.presence.leases import Leases

NEWS = topic_log(App("app"), Topic("news"))


@pytest.fixture
async def quiet(any_store: str) -> AsyncIterator[RedisConnection]:
    """Return a connection of a user that may do everything but publish."""
    admin = RedisConnection(any_store)
    await admin.call("FLUSHALL")
    user = ("ACL", "SETUSER", "quiet", "reset", "on", "nopass", "~*", "+@all")
    await admin.call(*user, write=True)
    redis = RedisConnection(any_store.replace("unix://", "unix://quiet:x@"))
    yield redis
    await redis.close()
    await admin.call("ACL", "DELUSER", "quiet", write=True)
    await admin.close()


@pytest.mark.parametrize("collapse_key", ["", "k"], ids=["fast", "general"])
async def test_a_refused_announcement_leaves_one_entry_per_key(
    quiet: RedisConnection, log: Log, collapse_key: str
) -> None:
    inbox = Inbox(quiet)
    await inbox.append(log, [b"first"])
    keys = ("a", "b", "a", "b", "c")

    appended = [
        await inbox.append(
            log, [Draft(b"x", collapse_key=collapse_key)], once=Once(key, "digest")
        )
        for key in keys
    ]

    assert [result.stored[0].offset for result in appended] == [2, 3, 2, 3, 4]
    assert [result.replayed for result in appended] == [False, False, True, True, False]
    assert quiet.unannounced.count == 4
    read = await inbox.read_after(log, ZERO, count=9)
    assert [entry.offset for entry in read.history.entries] == [1, 2, 3, 4]
    assert read.unread == (2 if collapse_key else 4)


async def test_every_script_that_announces_does_all_else(
    quiet: RedisConnection, log: Log
) -> None:
    inbox, views = Inbox(quiet), Views(quiet, LogSettings())
    leases = Leases(quiet, leases_max=1)
    places = (await inbox.append(log, [b"1", b"2", b"3"])).stored

    assert (await inbox.mark_ids(log, places[:1])).unread == 2
    assert (await inbox.mark_unread(log, places[:1])).unread == 3
    withdrawn = await inbox.withdraw(log, places[0])
    assert withdrawn is not None and withdrawn.done
    assert (await inbox.mark_all(log)).changed == 2
    assert await views.join(log, NEWS, ZERO)
    assert await views.mute(log, NEWS, muted=True)
    assert await views.leave(log, NEWS)
    await leases.acquire(log, "one", instance="i")
    await leases.acquire(log, "two", instance="i")

    assert quiet.unannounced.count == 9


def test_a_refusal_is_logged_once_a_minute_with_the_words_of_the_store(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 100.0
    unannounced = Unannounced(lambda: now_s)

    for _ in range(3):
        assert result_of([b"UNANNOUNCED", b"NOPERM no", 7], unannounced) == 7
    now_s += LOG_EVERY_S
    assert result_of([b"UNANNOUNCED", b"NOPERM still", b"x"], unannounced) == b"x"
    assert result_of([b"other", b"NOPERM", 7], unannounced) == [b"other", b"NOPERM", 7]

    assert unannounced.count == 4
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "NOPERM no" in caplog.messages[0]
    assert "NOPERM still" in caplog.messages[1]


async def test_a_refused_announcement_is_a_forbidden_command(
    quiet: RedisConnection, log: Log
) -> None:
    faults = StoreFaults()
    redis = RedisConnection(quiet.address, faults=faults)

    await Inbox(redis).append(log, [b"x"])

    assert faults.forbidden == 1
    assert "channel" in faults.forbidden_words
    await redis.close()
