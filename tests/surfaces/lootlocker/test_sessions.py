from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2

from streamer.store.access.apps import key_digest
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.surfaces.lootlocker.server_sessions import SESSION_TTL_MS

from ..conftest import AddKey, Mint
from .conftest import AssertError, GameServerOf, Player

SESSION = "/server/session"
PING = "/server/ping"


async def open_session(client: Any, key: str) -> str:
    answer = await client.post(
        SESSION, headers={"x-server-key": key}, json={"game_version": "1.0"}
    )
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["token"]
    return token


async def test_a_session_token_sends(
    client: httpx2.AsyncClient,
    backend_key: str,
    game_server_of: GameServerOf,
    player: Player,
) -> None:
    token = await open_session(client, backend_key)

    assert token != await open_session(client, backend_key)
    await game_server_of(token).say("hello")
    assert await player.contents() == ["hello"]


async def test_the_body_is_ignored(
    client: httpx2.AsyncClient, backend_key: str
) -> None:
    headers = {"x-server-key": backend_key}

    for body in (b"", b"{", b"[]"):
        answer = await client.post(SESSION, headers=headers, content=body)
        assert answer.status_code == 200


async def test_a_ping_returns_the_time(
    client: httpx2.AsyncClient, backend_key: str
) -> None:
    token = await open_session(client, backend_key)

    for credential in (token, backend_key):
        answer = await client.get(PING, headers={"x-auth-token": credential})
        assert answer.status_code == 200
        age = datetime.now(UTC) - datetime.fromisoformat(answer.json()["pong"])
        assert abs(age) < timedelta(seconds=60)


async def test_a_session_lives_for_a_day_after_its_last_ping(
    client: httpx2.AsyncClient,
    backend_key: str,
    redis: RedisConnection,
    assert_error: AssertError,
) -> None:
    token = await open_session(client, backend_key)
    name = keys_of().session(key_digest(token.encode()))
    assert SESSION_TTL_MS == 24 * 3_600_000
    assert SESSION_TTL_MS - 60_000 < await redis.call("PTTL", name) <= SESSION_TTL_MS

    await redis.call("PEXPIRE", name, 60_000, write=True)
    assert (await client.get(PING, headers={"x-auth-token": token})).status_code == 200
    assert await redis.call("PTTL", name) > SESSION_TTL_MS - 60_000

    await redis.call("PEXPIRE", name, -1, write=True)
    answer = await client.get(PING, headers={"x-auth-token": token})
    assert_error(answer, 401, "unauthorized")


async def test_sending_does_not_renew_a_session(
    client: httpx2.AsyncClient,
    backend_key: str,
    redis: RedisConnection,
    game_server_of: GameServerOf,
) -> None:
    token = await open_session(client, backend_key)
    name = keys_of().session(key_digest(token.encode()))
    await redis.call("PEXPIRE", name, 60_000, write=True)

    await game_server_of(token).say(1)

    assert await redis.call("PTTL", name) <= 60_000


async def test_the_store_has_neither_the_token_nor_the_key(
    client: httpx2.AsyncClient, backend_key: str, redis: RedisConnection
) -> None:
    token = await open_session(client, backend_key)
    name = keys_of().session(key_digest(token.encode()))

    kept = await redis.call("GET", name)

    assert kept == key_digest(backend_key.encode())
    assert token not in name


async def test_a_session_ends_with_its_key(
    client: httpx2.AsyncClient,
    add_key: AddKey,
    redis: RedisConnection,
    game_server_of: GameServerOf,
    assert_error: AssertError,
) -> None:
    key = await add_key()
    token = await open_session(client, key)
    await game_server_of(token).say(1)

    await redis.call(
        "HDEL", keys_of().backend_keys, key_digest(key.encode()).hex(), write=True
    )

    assert_error(await game_server_of(token).send(), 401, "unauthorized")


async def test_a_session_has_the_scopes_of_its_key(
    client: httpx2.AsyncClient,
    add_key: AddKey,
    game_server_of: GameServerOf,
    assert_error: AssertError,
) -> None:
    key = await add_key("notifications:read")

    for credential in (key, await open_session(client, key)):
        answer = await game_server_of(credential).send()
        assert_error(answer, 403, "forbidden")


async def test_a_session_is_valid_in_its_own_app_only(
    client: httpx2.AsyncClient,
    add_key: AddKey,
    game_server_of: GameServerOf,
    player: Player,
) -> None:
    token = await open_session(client, await add_key(app="other"))

    await game_server_of(token).say(1)

    assert await player.shown() == []


async def test_every_wrong_key_has_the_same_response(
    client: httpx2.AsyncClient, backend_key: str, mint: Mint, assert_error: AssertError
) -> None:
    wrong = [
        "x",
        "sk_" + "x" * 43,
        backend_key[:-1],
        backend_key + "x",
        backend_key.upper(),
        mint("alice"),
        await open_session(client, backend_key),
    ]

    messages = set()
    for key in wrong:
        answer = await client.post(SESSION, headers={"x-server-key": key})
        messages.add(assert_error(answer, 401, "unauthorized")["message"])

    assert len(messages) == 1


async def test_a_missing_key_is_a_401(
    client: httpx2.AsyncClient, assert_error: AssertError
) -> None:
    for headers in ({}, {"x-server-key": " "}):
        assert_error(await client.post(SESSION, headers=headers), 401, "unauthorized")


async def test_only_the_documented_header_counts(
    client: httpx2.AsyncClient,
    backend_key: str,
    assert_error: AssertError,
    example: dict[str, Any],
) -> None:
    for headers in (
        {"Authorization": f"Bearer {backend_key}"},
        {"x-server-key": backend_key},
        {"Cookie": f"Authorization=bearer {backend_key}"},
        [("x-auth-token", backend_key), ("x-auth-token", backend_key)],
    ):
        answer = await client.post(
            "/server/notifications/v1", headers=headers, json=example["request"]
        )
        assert_error(answer, 401, "unauthorized")


async def test_a_player_token_is_not_a_server_token(
    mint: Mint, game_server_of: GameServerOf, recipient: str, assert_error: AssertError
) -> None:
    for permission in ("self:*", "*"):
        token = mint(recipient, f"notification:player:{permission}")
        assert_error(await game_server_of(token).send(), 401, "unauthorized")


async def test_an_unknown_session_is_a_401(
    game_server_of: GameServerOf, assert_error: AssertError
) -> None:
    assert_error(await game_server_of("ss_" + "x" * 43).send(), 401, "unauthorized")
