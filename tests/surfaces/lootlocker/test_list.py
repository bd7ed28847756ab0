from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2

from ..conftest import Mint, Start
from .conftest import AssertError, GameServer, Player, PlayerOf

LIST = "/game/notifications/v1"
ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


async def publish(client: Any, key: str, player: str, **message: Any) -> str:
    """Publish natively; return the id."""
    answer = await client.post(
        "/v1/notifications",
        headers={"Authorization": f"Bearer {key}"},
        json={"to": {"players": [player]}, **message},
    )
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["results"][0]["id"]
    return found


async def test_a_notification_has_the_fields_of_the_sdk(
    game_server: GameServer, player: Player
) -> None:
    await game_server.say({"a": 1})

    (shown,) = await player.shown()

    assert list(shown) == [
        "id",
        "player_id",
        "notification_type",
        "priority",
        "source",
        "content",
        "custom",
        "read",
        "created_at",
        "expiration_date",
    ]
    assert ULID.fullmatch(shown["id"])
    assert shown["custom"] is True
    assert shown["read"] is False
    assert "read_at" not in shown


async def test_a_key_repeated_on_another_surface_is_in_the_context_once(
    client: httpx2.AsyncClient, backend_key: str, recipient: str, player: Player
) -> None:
    properties = [{"key": "k", "value": "1"}, {"key": "k", "value": "2"}]
    await publish(client, backend_key, recipient, body="x", properties=properties)

    (shown,) = await player.shown()

    assert shown["content"]["context"] == [{"key": "k", "value": "2"}]


async def test_an_entry_expires_by_the_retention(
    start: Start, mint: Mint, backend_key: str, player_of: PlayerOf
) -> None:
    server = await start(retention_days=7)
    player = type(player_of(""))(server.client, mint("alice"))
    await publish(server.client, backend_key, "alice", body="x")

    (shown,) = await player.shown()

    created, expires = (
        datetime.fromisoformat(shown[name])
        for name in ("created_at", "expiration_date")
    )
    assert expires - created == timedelta(days=7)


async def test_a_notification_that_expires_before_says_when(
    client: httpx2.AsyncClient, backend_key: str, recipient: str, player: Player
) -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    late = soon + timedelta(days=4_000)
    for when in (soon, late):
        await publish(
            client, backend_key, recipient, body="x", expires_at=when.isoformat()
        )

    ages_out, expires = await player.shown()

    assert datetime.fromisoformat(expires["expiration_date"]) == soon
    assert datetime.fromisoformat(ages_out["expiration_date"]) < late


async def test_a_list_is_newest_first_with_read_and_unread(
    game_server: GameServer, player: Player
) -> None:
    await game_server.say("a", "b", "c")
    middle = (await player.shown())[1]["id"]

    await player.read(middle)

    assert await player.contents() == ["c", "b", "a"]
    assert await player.contents(read="false") == ["c", "a"]
    assert await player.contents(read="true") == ["b"]
    (shown,) = await player.shown(read="true")
    assert shown["read"] is True
    assert datetime.fromisoformat(shown["read_at"]).tzinfo is not None


async def test_an_empty_inbox_has_one_empty_page(player: Player) -> None:
    answer = await player.list()

    assert answer.json() == {
        "notifications": [],
        "pagination": {
            "total": 0,
            "offset": 0,
            "per_page": 20,
            "last_page": 1,
            "current_page": 1,
            "next_page": None,
            "prev_page": None,
            "errors": [],
        },
    }


async def test_the_last_slash_does_not_matter(
    client: httpx2.AsyncClient, player: Player
) -> None:
    answer = await client.get(f"{LIST}/", headers=player.headers)

    assert answer.status_code == 200


async def test_pages_have_numbers(game_server: GameServer, player: Player) -> None:
    await game_server.say(*range(7))

    pages = [await player.contents(page=page, per_page=3) for page in (1, 2, 3, 4)]

    assert pages == [[6, 5, 4], [3, 2, 1], [0], []]
    paging = [await player.paging(page=page, per_page=3) for page in (1, 2, 3, 9)]
    assert {page["total"] for page in paging} == {7}
    assert {page["last_page"] for page in paging} == {3}
    assert [page["offset"] for page in paging] == [0, 3, 6, 24]
    assert [page["current_page"] for page in paging] == [1, 2, 3, 9]
    assert [page["next_page"] for page in paging] == [2, 3, None, None]
    assert [page["prev_page"] for page in paging] == [None, 1, 2, 3]
    assert not any(page["errors"] for page in paging)


async def test_an_invalid_page_is_reported_in_a_successful_response(
    game_server: GameServer, player: Player
) -> None:
    await game_server.say("a")

    answer = await player.list(page="x", per_page="101")

    assert answer.status_code == 200
    assert len(answer.json()["notifications"]) == 1
    errors = answer.json()["pagination"]["errors"]
    assert [error["field"] for error in errors] == ["page", "per_page"]
    assert all(error["message"] for error in errors)


async def test_filters_go_together(game_server: GameServer, player: Player) -> None:
    await game_server.say(1, notification_type="a.b.c", priority="low")
    await game_server.say(2, notification_type="a.b.c", priority="high")
    await game_server.say(3, notification_type="a.b.d", priority="high")
    await player.read((await player.shown())[0]["id"])

    assert await player.contents(notification_type="a.b.c") == [2, 1]
    assert await player.contents(priority="high") == [3, 2]
    assert await player.contents(priority="high", read="false") == [2]
    assert await player.contents(priority="high", notification_type="a.b.c") == [2]
    assert await player.contents(priority="emergency") == []
    assert await player.contents(notification_type="a.b.x") == []
    paging = await player.paging(priority="high", per_page=1)
    assert (paging["total"], paging["last_page"], paging["next_page"]) == (2, 2, 2)
    assert await player.contents(priority="high", per_page=1, page=2) == [2]


async def test_every_notification_is_custom_and_from_the_server_api(
    game_server: GameServer, player: Player
) -> None:
    await game_server.say(1)

    for query in (
        {"custom": "true"},
        {"source": "lootlocker.server_api"},
        {"read": ""},
    ):
        assert await player.contents(**query) == [1]
    for query in ({"custom": "false"}, {"source": "triggers"}):
        assert await player.contents(**query) == []
        assert (await player.paging(**query))["total"] == 0


async def test_an_invalid_filter_is_refused(
    player: Player, assert_error: AssertError
) -> None:
    for query in ({"read": "1"}, {"custom": "yes"}, {"priority": "urgent"}):
        error = assert_error(await player.list(**query), 400, "parameter_invalid")
        assert error["param"] in query


async def test_required_fields_have_values(
    client: httpx2.AsyncClient, backend_key: str, mint: Mint, player_of: PlayerOf
) -> None:
    alice = player_of(mint("alice"))
    sent: list[dict[str, Any]] = [
        {"type": "level-up", "title": "T", "body": "B", "data": None},
        {"title": "T", "body": "B"},
        {"body": "B"},
        {"type": "t"},
    ]
    for message in sent:
        await publish(client, backend_key, "alice", **message)

    shown = [
        (item["notification_type"], item["content"]["body"])
        for item in reversed(await alice.shown())
    ]

    untyped = "custom.notification.received"
    assert shown == [
        ("level-up", None),
        (untyped, {"title": "T", "body": "B"}),
        (untyped, {"body": "B"}),
        ("t", {}),
    ]
    assert [item["player_id"] for item in await alice.shown()] == ["alice"] * 4
    assert len(await alice.shown(notification_type=untyped)) == 2


async def test_a_native_emergency_is_shown(
    client: httpx2.AsyncClient, backend_key: str, mint: Mint, player_of: PlayerOf
) -> None:
    alice = player_of(mint("alice"))
    await publish(client, backend_key, "alice", body="x", priority="emergency")

    assert len(await alice.shown(priority="emergency")) == 1


async def test_a_ulid_and_a_uuid_identify_one_notification(
    client: httpx2.AsyncClient,
    backend_key: str,
    player: Player,
    recipient: str,
    mint: Mint,
) -> None:
    first = await publish(client, backend_key, recipient, data=1)
    await publish(client, backend_key, recipient, data=2)
    (_, shown) = await player.shown()

    assert (await player.read(first)).status_code == 204
    assert await player.contents(read="true") == [1]
    answer = await client.get(
        f"/v1/players/me/notifications/{first}", headers=mint.bearer(recipient)
    )
    assert answer.json()["read_at"] == (await player.shown())[1]["read_at"]
    assert answer.json()["source"] == "native"
    assert int(first.replace("-", ""), 16) == crockford(shown["id"])


def crockford(text: str) -> int:
    number = 0
    for char in text:
        number = number * 32 + "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(char)
    return number


async def test_a_notification_sent_here_is_read_natively(
    game_server: GameServer, client: httpx2.AsyncClient, mint: Mint, recipient: str
) -> None:
    await game_server.say({"foo": "bar"})

    page = await client.get(
        "/v1/players/me/notifications", headers=mint.bearer(recipient)
    )

    (shown,) = page.json()["notifications"]
    assert shown["type"] == "pull.message.test"
    assert shown["data"] == {"foo": "bar"}
    assert shown["properties"] == [{"key": "some-prop", "value": "some-value"}]
    assert shown["source"] == "lootlocker"


async def test_ids_are_marked_in_either_form(
    game_server: GameServer, player: Player
) -> None:
    await game_server.say("a", "b", "c")
    c, b, a = [item["id"] for item in await player.shown()]

    answer = await player.read(c, c, b.lower(), "unknown", "", a[:-1], "0" * 26)

    assert (answer.status_code, answer.content) == (204, b"")
    assert await player.contents(read="false") == ["a"]
    assert (await player.read(c)).status_code == 204


async def test_an_empty_list_marks_nothing(
    game_server: GameServer, player: Player
) -> None:
    await game_server.say("a")

    assert (await player.read()).status_code == 204
    assert await player.contents(read="false") == ["a"]


async def test_marking_all_marks_every_notification(
    game_server: GameServer, player: Player
) -> None:
    await game_server.say("a", "b")

    answer = await player.read_all()
    await game_server.say("c")

    assert (answer.status_code, answer.content) == (204, b"")
    assert await player.contents(read="false") == ["c"]
    assert await player.contents(read="true") == ["b", "a"]


async def test_ids_of_another_player_are_unknown(
    game_server: GameServer, player: Player, mint: Mint, player_of: PlayerOf
) -> None:
    await game_server.say("a")
    ids = [item["id"] for item in await player.shown()]

    assert (await player_of(mint("mallory")).read(*ids)).status_code == 204
    assert await player.contents(read="false") == ["a"]


async def test_an_invalid_list_of_ids_is_refused(
    client: httpx2.AsyncClient, player: Player, assert_error: AssertError
) -> None:
    for body, code in (
        (b"", "request_body_invalid"),
        (b"[]", "request_body_invalid"),
        (b'{"n":', "request_body_invalid"),
        (b"{}", "parameter_missing"),
        (b'{"notifications":null}', "parameter_invalid"),
        (b'{"notifications":[1]}', "parameter_invalid"),
    ):
        answer = await client.put(f"{LIST}/read", headers=player.headers, content=body)
        assert_error(answer, 400, code)


async def test_as_many_ids_as_fit_the_body_are_marked(
    client: httpx2.AsyncClient, player: Player, game_server: GameServer
) -> None:
    await game_server.say("a")
    known = (await player.shown())[0]["id"]
    ids = [f"{i:026d}" for i in range(8_000)]

    assert (await player.read(*ids, known)).status_code == 204
    assert await player.contents(read="false") == []
    assert (await player.read(*ids, *ids)).status_code == 413


async def test_a_missing_player_token_is_a_401(
    client: httpx2.AsyncClient, backend_key: str, mint: Mint, assert_error: AssertError
) -> None:
    for headers in (
        {},
        {"x-session-token": "x"},
        {"x-session-token": mint("alice", at_s=1)},
        {"x-session-token": "sk_" + "x" * 43},
        {"x-auth-token": mint("alice")},
        {"Authorization": f"Bearer {mint('alice')}"},
    ):
        for method, path in (("GET", ""), ("PUT", "/read"), ("PUT", "/read/all")):
            answer = await client.request(method, LIST + path, headers=headers)
            assert_error(answer, 401, "unauthorized")


async def test_a_backend_key_is_not_a_player(
    client: httpx2.AsyncClient, backend_key: str, assert_error: AssertError
) -> None:
    headers = {"x-session-token": backend_key}

    assert_error(await client.get(LIST, headers=headers), 403, "forbidden")


async def test_a_list_requires_the_right_to_read(
    mint: Mint, player_of: PlayerOf, assert_error: AssertError
) -> None:
    writer = player_of(mint("alice", "notification:player:self:write"))

    for query in ({}, {"custom": "false"}):
        assert_error(await writer.list(**query), 403, "forbidden")


async def test_apps_are_isolated(
    game_server: GameServer, mint: Mint, player_of: PlayerOf, recipient: str
) -> None:
    await game_server.say("secret")

    assert await player_of(mint(recipient, app="other")).shown() == []
