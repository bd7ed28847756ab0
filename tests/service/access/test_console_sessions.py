"""Sessions of the console: who may log in, and when a session ends."""

from __future__ import annotations

import pytest

from streamer.errors import Defect, Forbidden, Unauthenticated
from streamer.model import App
from streamer.service.access.console_sessions import (
    CLIENTS_MAX,
    EXISTS_S,
    FAILURES_MAX,
    SESSION_MS,
    WINDOW_S,
    ConsoleSessions,
    TooManyLogins,
)
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection

from ...clock import NOON

APP = App("game")
HERE = "192.0.2.7"


class Clock:
    """The node's time in seconds, which stands still."""

    def __init__(self) -> None:
        self.now = NOON / 1_000

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def apps(redis: RedisConnection, clock: Clock) -> Apps:
    apps = Apps(redis, clock=clock)
    await apps.create(APP)
    return apps


@pytest.fixture
def sessions(redis: RedisConnection, apps: Apps, clock: Clock) -> ConsoleSessions:
    return ConsoleSessions(redis, apps, clock=clock, monotonic=clock)


async def id_of(apps: Apps, key: str) -> str:
    record = await apps.find_key(key.encode())
    assert record is not None
    return record.id


async def test_a_session_has_the_role_and_the_app_of_its_key(
    apps: Apps, sessions: ConsoleSessions, clock: Clock
) -> None:
    key = await apps.add_key(APP, role="support", name="Ann")

    secret, opened = await sessions.open(key, client=HERE)

    assert await sessions.find(secret) == opened
    assert (opened.app, opened.role, opened.name) == (APP, "support", "Ann")
    assert opened.id == await id_of(apps, key)
    assert opened.expires_at_ms == int(clock() * 1_000) + SESSION_MS


async def test_the_secret_is_not_in_the_store(
    redis: RedisConnection, apps: Apps, sessions: ConsoleSessions
) -> None:
    key = await apps.add_key(APP, role="viewer")
    secret, _ = await sessions.open(key, client=HERE)

    names = await redis.call("KEYS", "*")

    assert any(b"session:" in name for name in names)
    assert not any(secret.encode() in name for name in names)


@pytest.mark.parametrize("text", ["sk_unknown", "", "token", "sk_\ud800", "sk_\0"])
async def test_what_is_no_console_key_opens_nothing(
    sessions: ConsoleSessions, text: str
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await sessions.open(text, client=HERE)

    assert refused.value.defect is Defect.UNKNOWN_KEY


async def test_a_backend_key_without_a_role_opens_nothing(
    apps: Apps, sessions: ConsoleSessions
) -> None:
    with pytest.raises(Unauthenticated):
        await sessions.open(await apps.add_key(APP), client=HERE)


async def test_a_console_key_has_no_rights_outside_the_console(apps: Apps) -> None:
    record = await apps.find_key((await apps.add_key(APP, role="operator")).encode())

    assert record is not None
    assert record.scopes == {"console:operator"}


async def test_a_revoked_key_ends_its_sessions_at_once(
    apps: Apps, sessions: ConsoleSessions
) -> None:
    key = await apps.add_key(APP, role="viewer")
    secret, _ = await sessions.open(key, client=HERE)

    await apps.revoke_key(await id_of(apps, key))

    with pytest.raises(Unauthenticated) as refused:
        await sessions.find(secret)
    assert refused.value.defect is Defect.REVOKED


async def test_a_session_ends_after_a_working_day(
    apps: Apps, sessions: ConsoleSessions, clock: Clock
) -> None:
    secret, _ = await sessions.open(await apps.add_key(APP, role="viewer"), client=HERE)

    clock.now += SESSION_MS / 1_000 - 1
    await sessions.find(secret)
    clock.now += 1

    with pytest.raises(Unauthenticated) as refused:
        await sessions.find(secret)
    assert refused.value.defect is Defect.REVOKED


async def test_a_session_does_not_outlive_its_key(
    apps: Apps, sessions: ConsoleSessions, clock: Clock
) -> None:
    key = await apps.add_key(APP, role="viewer", lifetime_ms=60_000)
    secret, opened = await sessions.open(key, client=HERE)

    clock.now += 61
    assert opened.expires_at_ms <= clock() * 1_000
    with pytest.raises(Unauthenticated):
        await sessions.find(secret)


async def test_a_closed_session_has_ended(
    apps: Apps, sessions: ConsoleSessions
) -> None:
    secret, _ = await sessions.open(await apps.add_key(APP, role="viewer"), client=HERE)

    await sessions.close(secret)
    await sessions.close(secret)

    with pytest.raises(Unauthenticated):
        await sessions.find(secret)


async def test_a_client_that_fails_too_often_has_to_wait(
    apps: Apps, sessions: ConsoleSessions, clock: Clock
) -> None:
    key = await apps.add_key(APP, role="viewer")
    for _ in range(FAILURES_MAX):
        with pytest.raises(Unauthenticated):
            await sessions.open("sk_wrong", client=HERE)

    with pytest.raises(TooManyLogins) as refused:
        await sessions.open(key, client=HERE)
    await sessions.open(key, client="192.0.2.8")

    clock.now += WINDOW_S
    await sessions.open(key, client=HERE)
    assert refused.value.retry_after_s == WINDOW_S + 1


async def test_addresses_of_one_ipv6_network_are_one_client(
    sessions: ConsoleSessions,
) -> None:
    for i in range(FAILURES_MAX):
        with pytest.raises(Unauthenticated):
            await sessions.open("sk_wrong", client=f"2001:db8::{i}")

    with pytest.raises(TooManyLogins):
        await sessions.open("sk_wrong", client="2001:db8::ffff")


async def test_the_clients_that_are_counted_are_bounded(
    sessions: ConsoleSessions,
) -> None:
    for i in range(CLIENTS_MAX + 10):
        sessions.note_failure(str(i))

    assert len(sessions._failures) == CLIENTS_MAX


async def test_the_console_exists_while_there_is_a_console_key(
    apps: Apps, sessions: ConsoleSessions, clock: Clock
) -> None:
    await apps.add_key(APP)
    assert not await sessions.exists()

    key = await apps.add_key(APP, role="viewer", lifetime_ms=60_000)
    clock.now += EXISTS_S
    assert await sessions.exists()

    await apps.revoke_key(await id_of(apps, key))
    clock.now += EXISTS_S
    assert not await sessions.exists()


async def test_a_role_includes_those_below_it(
    apps: Apps, sessions: ConsoleSessions
) -> None:
    _, session = await sessions.open(
        await apps.add_key(APP, role="support"), client=HERE
    )

    session.require("viewer")
    session.require("support")
    with pytest.raises(Forbidden, match="the role operator"):
        session.require("operator")


async def test_a_rotated_key_keeps_its_role(
    apps: Apps, sessions: ConsoleSessions
) -> None:
    key = await apps.add_key(APP, role="operator")

    other = await apps.rotate_key(await id_of(apps, key))

    _, session = await sessions.open(other, client=HERE)
    assert session.role == "operator"
