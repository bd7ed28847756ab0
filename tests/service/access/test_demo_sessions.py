"""What somebody without a credential gets from the demo, and what not."""

from __future__ import annotations

import time

import pytest

from streamer.core.access.rights import Caller
from streamer.errors import Forbidden, NotFound, RateLimited
from streamer.model import App, Log, Notification, topic_log
from streamer.service.access.authenticator import Authenticator, Credentials
from streamer.service.access.demo_sessions import (
    DEMO_APP,
    OPEN_S,
    TOKEN_TTL_S,
    DemoSession,
    DemoSessions,
    demo_logs,
)
from streamer.service.publishing.publisher import Publisher
from streamer.store.access.apps import Apps
from streamer.store.access.rates import Rates
from streamer.store.access.sandboxes import Sandboxes
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.mutes import Mutes

HELLO = Notification(title="Hello")


@pytest.fixture
def apps(redis: RedisConnection) -> Apps:
    return Apps(redis)


class Later:
    """The time, and `s` seconds more."""

    s = 0

    def __call__(self) -> float:
        return time.time() + self.s


@pytest.fixture
def later() -> Later:
    return Later()


def made(
    apps: Apps, inbox: Inbox, redis: RedisConnection, later: Later
) -> DemoSessions:
    return DemoSessions(
        apps,
        Publisher(redis, inbox),
        Rates(redis),
        Sandboxes(redis, DEMO_APP, demo_logs),
        clock=later,
    )


@pytest.fixture
async def sessions(
    apps: Apps, inbox: Inbox, redis: RedisConnection, later: Later
) -> DemoSessions:
    await apps.create(DEMO_APP)
    return made(apps, inbox, redis, later)


async def callers(apps: Apps, session: DemoSession) -> list[Caller]:
    authenticator = Authenticator(apps)
    return [
        await authenticator.caller(Credentials.from_token(it.token))
        for it in session.players
    ]


async def test_a_session_has_two_players_and_a_topic_of_its_own(
    sessions: DemoSessions, apps: Apps
) -> None:
    one, other = await sessions.open(), await sessions.open()

    assert one.session != other.session
    assert one.topic != other.topic
    assert [it.name for it in one.players] == ["alice", "bob"]
    assert not {it.player for it in one.players} & {it.player for it in other.players}
    for caller, player in zip(await callers(apps, one), one.players, strict=True):
        assert (caller.app, caller.player) == (DEMO_APP, player.player)


async def test_a_token_reads_its_own_inbox_and_does_nothing_else(
    sessions: DemoSessions, apps: Apps
) -> None:
    session = await sessions.open()
    alice, bob = await callers(apps, session)

    assert alice.player is not None and bob.player is not None
    assert alice.may_read(alice.player) and alice.may_mark(alice.player)
    assert not alice.may_write(alice.player)
    assert not alice.may_read(bob.player) and not alice.may_mark(bob.player)
    assert not alice.may_write_all and not alice.scopes
    assert alice.may_subscribe(session.topic)
    assert not alice.may_subscribe(f"{session.topic}2")
    with pytest.raises(Forbidden):
        alice.require_scope("tokens:mint")


async def test_tokens_are_short_lived_and_renewed_for_the_same_players(
    sessions: DemoSessions, apps: Apps
) -> None:
    first = await sessions.open()
    again = await sessions.open(first.session)

    assert [it.player for it in again.players] == [it.player for it in first.players]
    assert again.topic == first.topic
    assert again.expires_at_s <= time.time() + TOKEN_TTL_S
    (alice, _) = await callers(apps, again)
    assert alice.expires_at_s == again.expires_at_s


async def test_a_token_is_valid_right_after_a_revocation(
    sessions: DemoSessions, apps: Apps
) -> None:
    session = await sessions.open()
    await apps.revoke_tokens(DEMO_APP, session.players[0].player)
    await apps.revoke_tokens(DEMO_APP)

    again = await sessions.open(session.session)

    assert len(await callers(apps, again)) == 2


@pytest.mark.parametrize("app", [None, "other"])
async def test_without_the_app_there_is_nothing(
    apps: Apps, inbox: Inbox, redis: RedisConnection, later: Later, app: str | None
) -> None:
    if app:
        await apps.create(App(app))
    sessions = made(apps, inbox, redis, later)

    with pytest.raises(NotFound):
        await sessions.open()
    with pytest.raises(NotFound):
        await sessions.publish("0" * 24, "alice", HELLO)


async def test_it_publishes_to_the_players_and_the_topic_of_the_session(
    sessions: DemoSessions, inbox: Inbox
) -> None:
    session = await sessions.open()

    ids = [
        await sessions.publish(session.session, to, HELLO) for to in ("alice", "topic")
    ]

    logs = [
        Log(DEMO_APP, session.players[0].player),
        topic_log(DEMO_APP, session.topic),
    ]
    for log, notification_id in zip(logs, ids, strict=True):
        assert notification_id is not None
        page = await inbox.page(log, count=10)
        assert page.entries is not None
        (entry,) = page.entries
        assert entry.entry.id == notification_id
    bob = Log(DEMO_APP, session.players[1].player)
    assert not (await inbox.page(bob, count=10)).entries


async def test_after_an_hour_a_session_is_over(
    sessions: DemoSessions, later: Later
) -> None:
    first = await sessions.open()
    later.s = OPEN_S

    again = await sessions.open(first.session)

    assert again.session != first.session
    with pytest.raises(NotFound):
        await sessions.publish(first.session, "alice", HELLO)


async def test_a_name_that_was_not_given_out_is_no_session(
    sessions: DemoSessions,
) -> None:
    assert (await sessions.open("0" * 24)).session != "0" * 24
    with pytest.raises(NotFound):
        await sessions.publish("0" * 24, "alice", HELLO)


async def test_nothing_stays_of_a_session_that_is_over(
    sessions: DemoSessions, redis: RedisConnection, later: Later
) -> None:
    session = await sessions.open()
    for to in ("alice", "bob", "topic"):
        await sessions.publish(session.session, to, HELLO)
    for player in session.players:
        await Mutes(redis).mute(Log(DEMO_APP, player.player), "a type")
    later.s = 2 * OPEN_S + 1

    await sessions.open()

    keys = await redis.call("KEYS", f"*{session.session}*")
    assert keys == []


async def test_too_much_at_once_is_refused(sessions: DemoSessions) -> None:
    session = await sessions.open()

    with pytest.raises(RateLimited):
        for _ in range(1_000):
            await sessions.publish(session.session, "bob", HELLO)


async def test_too_many_sessions_at_once_are_refused(sessions: DemoSessions) -> None:
    with pytest.raises(RateLimited):
        for _ in range(1_000):
            await sessions.open()
