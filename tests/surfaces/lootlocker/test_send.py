from __future__ import annotations

from typing import Any

import httpx2
import pytest

from streamer.service.publishing.publisher import Publisher

from ..conftest import Mint, Start
from .conftest import AssertError, GameServer, GameServerOf, Player, PlayerOf

SEND = "/server/notifications/v1"
KIB = 1_024


async def test_the_page_s_example_passes_as_printed(
    client: httpx2.AsyncClient,
    backend_key: str,
    player: Player,
    example: dict[str, Any],
) -> None:
    sent = example["request"]

    answer = await client.request(
        example["method"],
        example["path"],
        headers={"x-auth-token": backend_key},
        json=sent,
    )

    assert answer.status_code == example["status"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == example["response"]
    (shown,) = await player.shown()
    assert shown["notification_type"] == sent["notification_type"]
    assert shown["priority"] == sent["priority"]
    assert shown["player_id"] == sent["recipient"]
    assert shown["content"] == {"context": sent["properties"], "body": sent["content"]}


async def test_the_last_slash_does_not_matter(
    game_server: GameServer, client: httpx2.AsyncClient
) -> None:
    for path in (SEND, f"{SEND}/"):
        answer = await client.post(
            path, headers=game_server.headers, json=game_server.message
        )
        assert answer.status_code == 200


async def test_content_is_any_json(game_server: GameServer, player: Player) -> None:
    sent = [None, "", "text", 0, -1, 2**64 - 1, 1.5, True, [], [None], {}, {"a": 1}]
    await game_server.say(*sent)

    shown = await player.contents()

    assert shown == sent[::-1]
    assert [type(value) for value in shown] == [type(value) for value in sent[::-1]]


async def test_every_field_is_required(
    game_server: GameServer, player: Player, assert_error: AssertError
) -> None:
    for name in game_server.message:
        answer = await game_server.send(without=name)
        assert assert_error(answer, 400, "parameter_missing")["param"] == name

    assert await player.shown() == []


async def test_a_priority_is_shown_as_sent(
    game_server: GameServer, player: Player
) -> None:
    for priority in ("low", "medium", "high"):
        await game_server.say(1, priority=priority)

    shown = [item["priority"] for item in await player.shown()]
    assert shown == ["high", "medium", "low"]


async def test_an_emergency_is_refused(
    game_server: GameServer, player: Player, assert_error: AssertError
) -> None:
    answer = await game_server.send(priority="emergency")

    assert assert_error(answer, 400, "parameter_invalid")["param"] == "priority"
    assert await player.shown() == []


async def test_the_first_and_the_last_ulid_are_players(
    game_server: GameServer, mint: Mint, player_of: PlayerOf
) -> None:
    for recipient in ("0" * 26, "7" + "Z" * 25):
        await game_server.say("hello", recipient=recipient)

        (shown,) = await player_of(mint(recipient)).shown()
        assert shown["player_id"] == recipient


async def test_key_and_value_may_be_missing(
    game_server: GameServer, player: Player
) -> None:
    await game_server.say(1, properties=[{"key": "k"}, {"value": "v"}])

    (shown,) = await player.shown()
    assert shown["content"]["context"] == [
        {"key": "k", "value": ""},
        {"key": "", "value": "v"},
    ]


async def test_properties_keep_their_order(
    game_server: GameServer, player: Player
) -> None:
    sent = [{"key": f"k{-i}", "value": str(i)} for i in range(200)]
    await game_server.say(1, properties=sent)
    await game_server.say(2, properties=[])

    empty, full = await player.shown()
    assert full["content"]["context"] == sent
    assert empty["content"]["context"] == []


@pytest.mark.parametrize(
    ("sent", "context"),
    [
        ([("k", "1"), ("j", "2"), ("k", "3")], [("k", "3"), ("j", "2")]),
        ([("k", "1"), ("k", "1")], [("k", "1")]),
        ([("", "1"), ("", "")], [("", "")]),
        # Other spellings are other keys to the SDK, too.
        ([("k", "1"), ("K", "2"), ("k ", "3")], [("k", "1"), ("K", "2"), ("k ", "3")]),
    ],
)
async def test_the_context_has_a_key_once_with_its_last_value(
    game_server: GameServer,
    player: Player,
    sent: list[tuple[str, str]],
    context: list[tuple[str, str]],
) -> None:
    properties = [{"key": key, "value": value} for key, value in sent]
    await game_server.say(1, properties=properties)

    (shown,) = await player.shown()
    assert [tuple(entry.values()) for entry in shown["content"]["context"]] == context


async def test_properties_without_members_have_one_entry(
    game_server: GameServer, player: Player
) -> None:
    await game_server.say(1, properties=[{}, {}])

    (shown,) = await player.shown()
    assert shown["content"]["context"] == [{"key": "", "value": ""}]


async def test_invalid_properties_are_refused(
    game_server: GameServer, assert_error: AssertError
) -> None:
    wrong: list[Any] = [None, {}, "k", ["k"], [{"key": 1}], [{"value": None}]]
    for properties in wrong:
        answer = await game_server.send(properties=properties)
        error = assert_error(answer, 400, "parameter_invalid")
        assert error["param"].startswith("properties")


async def test_one_response_reports_every_problem(
    game_server: GameServer, assert_error: AssertError
) -> None:
    answer = await game_server.send(
        notification_type="x", priority="emergency", recipient="bob"
    )

    message = assert_error(answer, 400, "parameter_invalid")["message"]
    for name in ("notification_type", "priority", "recipient"):
        assert f"{name}: " in message


async def test_a_body_has_at_most_256_kib(
    game_server: GameServer, player: Player, assert_error: AssertError
) -> None:
    room = 256 * KIB - len((await game_server.send(content="")).request.content)

    assert (await game_server.send(content="x" * room)).status_code == 200
    answer = await game_server.send(content="x" * (room + 1))

    assert_error(answer, 413, "request_body_too_large")
    assert [len(text) for text in await player.contents()] == [room, 0]


async def test_a_body_that_is_not_an_object_is_refused(
    game_server: GameServer, assert_error: AssertError
) -> None:
    broken = [b"", b"{", b"\xff", b'"\\ud800"', b"[" * 100_000, b"[]", b"null", b'"x"']
    for body in broken:
        answer = await game_server.post(body)
        assert_error(answer, 400, "request_body_invalid")


async def test_another_media_type_is_refused(
    game_server: GameServer, assert_error: AssertError
) -> None:
    answer = await game_server.post(b"a=b", **{"content-type": "text/plain"})

    assert_error(answer, 415, "request_body_invalid")


async def test_unknown_members_are_ignored(
    game_server: GameServer, player: Player
) -> None:
    await game_server.say(1, source="triggers", expiration_date="2020-01-01")

    (shown,) = await player.shown()
    assert shown["source"] == "lootlocker.server_api"


async def test_a_send_with_an_idempotency_key_happens_once(
    game_server: GameServer, player: Player, assert_error: AssertError
) -> None:
    first = await game_server.send(key="k-1", content=1)
    second = await game_server.send(key="k-1", content=1)

    assert (first.status_code, first.content) == (200, b"{}")
    assert "idempotent-replayed" not in first.headers
    assert (second.status_code, second.content) == (200, b"{}")
    assert second.headers["idempotent-replayed"] == "true"
    answer = await game_server.send(key="k-1", content=2)
    assert_error(answer, 422, "idempotency_key_reused")
    assert await player.contents() == [1]


@pytest.mark.parametrize("length", [255, 256])
async def test_an_idempotency_key_has_at_most_255_characters(
    game_server: GameServer, assert_error: AssertError, length: int
) -> None:
    answer = await game_server.send(key="k" * length)

    if length == 255:
        assert answer.status_code == 200
    else:
        error = assert_error(answer, 400, "parameter_invalid")
        assert error["param"] == "Idempotency-Key"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"LL-Request-Id": "a1B-_"}, "a1B-_"),
        ({"LL-Request-Id": "x" * 64}, "x" * 64),
        ({"LL-Request-Id": "x" * 65}, None),
        ({"LL-Request-Id": "a.b.c"}, None),
        ({"LL-Request-Id": ""}, None),
        ({"X-Request-Id": "proxy-1"}, "proxy-1"),
        ({"X-Request-Id": "proxy-1", "LL-Request-Id": "sdk-1"}, "proxy-1"),
        ({"X-Request-Id": "not well-formed", "LL-Request-Id": "sdk-1"}, "sdk-1"),
        ({}, None),
    ],
)
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", SEND, 401),
        ("POST", "/server/session", 401),
        ("GET", "/server/ping", 401),
        ("GET", "/game/notifications/v1", 401),
        ("GET", "/game/nothing", 404),
        ("DELETE", "/game/notifications/v1", 405),
    ],
)
async def test_an_error_has_the_request_id_of_the_response(
    client: httpx2.AsyncClient,
    method: str,
    path: str,
    status: int,
    headers: dict[str, str],
    expected: str | None,
) -> None:
    answer = await client.request(method, path, headers=headers)

    body = answer.json()
    assert answer.status_code == status
    assert body["request_id"] == body["trace_id"] == answer.headers["x-request-id"]
    if expected is None:
        assert body["request_id"] not in ("", *headers.values())
    else:
        assert body["request_id"] == expected


async def test_a_success_has_the_id_that_the_sdk_sent(game_server: GameServer) -> None:
    game_server.headers["LL-Request-Id"] = "sdk-1"

    assert (await game_server.send()).headers["x-request-id"] == "sdk-1"


async def test_content_may_have_integers_of_any_size(
    game_server: GameServer, player: Player
) -> None:
    sent = [2**64, -(2**64), {"a": [10**30]}, 10**4_000]
    await game_server.say(*sent)

    assert await player.contents() == sent[::-1]


@pytest.mark.parametrize("number", [b"1e400", b"1" * 5_000])
async def test_content_beyond_the_range_of_numbers_is_refused(
    game_server: GameServer, assert_error: AssertError, number: bytes
) -> None:
    body = (await game_server.send(content="?")).request.content

    answer = await game_server.post(body.replace(b'"?"', number))

    error = assert_error(answer, 400, "parameter_invalid")
    assert error["param"] == "content"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/server/nothing", 404, "not_found"),
        ("GET", "/game/", 404, "not_found"),
        ("GET", SEND, 405, "method_not_allowed"),
        ("DELETE", "/game/notifications/v1", 405, "method_not_allowed"),
    ],
)
async def test_unknown_paths_and_methods_have_the_same_error_format(
    client: httpx2.AsyncClient,
    assert_error: AssertError,
    method: str,
    path: str,
    status: int,
    code: str,
) -> None:
    answer = await client.request(method, path)

    assert_error(answer, status, code)


async def test_limits_and_outages_have_a_retry_time(
    start: Start,
    mint: Mint,
    assert_error: AssertError,
    game_server_of: GameServerOf,
    backend_key: str,
) -> None:
    server = await start(requests_in_flight_max=0)
    full = type(game_server_of(""))(server.client, backend_key, {})
    full.message = game_server_of("").message

    assert_error(await full.send(), 503, "service_unavailable")

    server = await start(requests_per_player_max=0)
    full.client = server.client
    assert_error(await full.send(), 429, "rate_limited")


async def test_an_internal_error_is_a_500_in_the_same_format(
    game_server: GameServer,
    answered_client: httpx2.AsyncClient,
    assert_error: AssertError,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Publisher, "publish", broken)
    game_server.client = answered_client
    answer = await game_server.send()

    error = assert_error(answer, 500, "internal_server_error")
    assert error["request_id"] == answer.headers["x-request-id"]
    assert "broken" not in error["message"]
