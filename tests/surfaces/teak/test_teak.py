"""Scheduling and cancelling as Teak's clients do it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest

from streamer.model import App
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection

from ..conftest import AddKey, Mint, Until

PAGE = json.loads((Path(__file__).parent / "fixtures" / "page.json").read_text())
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


class Game:
    """A game's backend."""

    def __init__(self, client: Any, secret: str, game_id: Any) -> None:
        self.client = client
        self.credential = {"game_id": game_id, "secret_key": secret}

    def call(self, **parameters: Any) -> dict[str, Any]:
        """Return the parameters of a valid call; None omits one."""
        good = {
            **self.credential,
            "notification_identifier": "daily",
            "notification_message": "come back",
            "user_ids": ["alice"],
        }
        both = {**good, **parameters}
        return {name: value for name, value in both.items() if value is not None}

    async def schedule(self, key: str = "", **parameters: Any) -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        return await self.client.post(
            "/v2/schedule", json=self.call(**parameters), headers=headers
        )

    async def unschedule(self, **parameters: Any) -> Any:
        return await self.client.post(
            "/v2/unschedule", json={**self.credential, **parameters}
        )

    async def post(self, path: str, body: bytes, media_type: str = JSON) -> Any:
        headers = {"content-type": media_type}
        return await self.client.post(path, content=body, headers=headers)


Read = Callable[..., Awaitable[list[dict[str, Any]]]]
Bodies = Callable[[str], Awaitable[list[str]]]


@pytest.fixture
def game(client: httpx2.AsyncClient, backend_key: str, mint: Mint) -> Game:
    return Game(client, backend_key, mint.name())


@pytest.fixture
def read(client: httpx2.AsyncClient, mint: Mint) -> Read:
    """Return a function that returns a player's notifications, oldest first."""

    async def read(player: str, app: str = "demo") -> list[dict[str, Any]]:
        url = "/v1/players/me/notifications"
        answer = await client.get(url, headers=mint.bearer(player, app=app))
        assert answer.status_code == 200, answer.text
        return list(reversed(answer.json()["notifications"]))

    return read


@pytest.fixture
def bodies(read: Read) -> Bodies:
    async def bodies(player: str) -> list[str]:
        return [shown["body"] for shown in await read(player)]

    return bodies


def ahead(**time: float) -> str:
    return f"{datetime.now(UTC) + timedelta(**time):%Y-%m-%d %H:%M:%S}"


def ids_of(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == JSON
    body = answer.json()
    is_scheduled = answer.request.url.path == PAGE["path"]
    assert body.keys() == PAGE["scheduled" if is_scheduled else "success"].keys()
    assert body["status"] == "ok"
    if is_scheduled:
        assert set(body["scheduled"].values()) == set(body["ids"])
    return list(body["ids"])


def errors_of(answer: Any, status: int = 422) -> dict[str, list[str]]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == JSON
    body = answer.json()
    assert body.keys() == PAGE["validation"].keys()
    assert body["status"] == ("rate_limit" if status == 429 else "error")
    for texts in body["errors"].values():
        assert texts
        assert all(isinstance(text, str) for text in texts)
    errors: dict[str, list[str]] = body["errors"]
    return errors


# The examples of the page.


async def test_a_call_without_a_time_is_delivered_at_once(
    game: Game, read: Read
) -> None:
    (delivery,) = ids_of(await game.schedule())

    assert isinstance(delivery, str)
    (shown,) = await read("alice")
    assert (shown["type"], shown["body"]) == ("daily", "come back")
    assert shown["source"] == "teak"


async def test_the_example_time_is_past_and_sends_at_once(
    game: Game, read: Read
) -> None:
    ids_of(await game.schedule(send_time=PAGE["send_time"]))

    (shown,) = await read("alice")
    assert "due_at" not in shown


async def test_an_unknown_game_has_the_documented_response(game: Game) -> None:
    answer = await game.schedule(game_id="42")

    assert answer.status_code == 404
    assert answer.json() == PAGE["not_found"]


async def test_a_missing_identifier_has_the_documented_response(game: Game) -> None:
    answer = await game.schedule(notification_identifier=None)

    assert answer.status_code == 422
    assert answer.json() == PAGE["validation"]


async def test_the_31st_call_in_a_second_has_the_documented_response(
    game: Game,
) -> None:
    """Whatever the responses to the other calls were."""
    calls = [game.schedule(user_ids=["u"] if i % 2 else []) for i in range(40)]
    answers = await asyncio.gather(*calls)

    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 10
    assert refused[0].json() == PAGE["rate_limit"]
    assert refused[0].headers["retry-after"] == "1"
    assert {answer.status_code for answer in answers} == {200, 422, 429}


# Credentials.


async def test_a_wrong_secret_is_an_unknown_game(
    game: Game, client: httpx2.AsyncClient, mint: Mint, add_key: AddKey
) -> None:
    unknown = await game.schedule(game_id="nobody")
    for secret in (
        "wrong",
        "sk_wrong",
        game.credential["secret_key"] + "x",
        await add_key(app="other"),
        mint("alice", "notification:player:*"),
        "\x00",
        "é",
    ):
        refused = await Game(client, secret, mint.name()).schedule()

        assert refused.status_code == unknown.status_code == 404
        assert refused.headers == unknown.headers | {
            "content-length": refused.headers["content-length"],
            "x-request-id": refused.headers["x-request-id"],
        }
        assert refused.text == unknown.text.replace("nobody", mint.name())


async def test_calls_without_the_secret_do_not_count_against_the_rate(
    game: Game, client: httpx2.AsyncClient, mint: Mint
) -> None:
    stranger = Game(client, "sk_wrong", mint.name())
    answers = await asyncio.gather(*(stranger.schedule() for _ in range(60)))

    assert {answer.status_code for answer in answers} == {404}
    ids_of(await game.schedule())


async def test_games_and_operations_have_separate_rates(
    game: Game, client: httpx2.AsyncClient, add_key: AddKey, mint: Mint
) -> None:
    other = Game(client, await add_key(app="other"), mint.name("other"))
    await asyncio.gather(*(game.schedule() for _ in range(31)))

    ids_of(await other.schedule())
    ids_of(await game.unschedule(ids=["x"]))


async def test_a_key_without_the_scope_is_a_403(
    game: Game, client: httpx2.AsyncClient, add_key: AddKey, mint: Mint
) -> None:
    reader = Game(client, await add_key("notifications:read"), mint.name())
    answer = await reader.schedule()

    assert errors_of(answer, 403).keys() == {"authorization"}
    errors_of(await reader.unschedule(ids=["x"]), 403)


async def test_a_missing_credential_is_reported_with_every_problem(
    client: httpx2.AsyncClient,
) -> None:
    answer = await client.post("/v2/schedule", json={"user_ids": "x"})

    errors = errors_of(answer)
    assert errors["game_id"] == errors["secret_key"] == ["must be present"]
    assert errors.keys() >= {"user_ids", "notification_message"}


async def test_a_game_may_be_a_number(
    client: httpx2.AsyncClient, add_key: AddKey, mint: Mint, redis: RedisConnection
) -> None:
    mint.records["1001"] = await Apps(redis).create(App("1001"))
    numbered = Game(client, await add_key(app="1001"), 1001)

    ids_of(await numbered.schedule())


# Parameters.


async def test_every_problem_is_reported_and_nothing_is_scheduled(
    game: Game, bodies: Bodies
) -> None:
    answer = await game.schedule(
        notification_identifier="i" * 256,
        notification_message="m" * 161,
        user_ids=["alice", "me", "", "x" * 129],
        send_time="tomorrow",
    )

    errors = errors_of(answer)
    assert errors.keys() == {
        "notification_identifier",
        "notification_message",
        "user_ids",
        "send_time",
    }
    assert len(errors["user_ids"]) == 3
    assert await bodies("alice") == []
    # Nothing is registered, either.
    ids_of(await game.schedule(notification_message="first"))
    assert await bodies("alice") == ["first"]


@pytest.mark.parametrize(
    ("name", "at_limit", "past_it"),
    [
        ("notification_identifier", "i" * 255, "i" * 256),
        ("notification_identifier", "é" * 255, "é" * 256),
        ("notification_message", "m" * 160, "m" * 161),
        ("notification_message", "😀" * 160, "😀" * 161),
        ("user_ids", [f"u{i}" for i in range(100)], [f"u{i}" for i in range(101)]),
        ("user_ids", ["u" * 128], ["u" * 129]),
        ("user_ids", ["u"] * 100, ["u"] * 101),
        ("send_time", "d+30", "d+31"),
    ],
)
async def test_every_limit_is_enforced(
    game: Game, name: str, at_limit: Any, past_it: Any
) -> None:
    if name == "send_time":
        at_limit, past_it = ahead(days=30), ahead(days=30, seconds=2)

    ids_of(await game.schedule(**{name: at_limit}))
    assert errors_of(await game.schedule(**{name: past_it})).keys() == {name}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("notification_identifier", ""),
        ("notification_identifier", "  "),
        ("notification_identifier", None),
        ("notification_identifier", ["a"]),
        ("notification_identifier", "\ud800"),
        ("notification_message", None),
        ("notification_message", ""),
        ("notification_message", "  "),
        ("notification_message", []),
        ("notification_message", {"a": 1}),
        ("notification_message", True),
        ("user_ids", None),
        ("user_ids", []),
        ("user_ids", "alice"),
        ("user_ids", {"a": "b"}),
        ("user_ids", [None]),
        ("user_ids", [["alice"]]),
        ("user_ids", ["alice", "me"]),
        ("user_ids", ["a\x00b"]),
        ("send_time", ""),
        ("send_time", " "),
        ("send_time", []),
        ("send_time", {}),
        ("send_time", False),
        ("send_time", 0),
        ("send_time", 1_535_043_600),
        ("send_time", "1535043600"),
        ("send_time", "2018-08-23"),
        ("send_time", "2018-08-23 17:00:60"),
        ("send_time", "2026-02-29 00:00:00"),
        ("send_time", "9999-12-31 23:59:59"),
        ("send_time", "9999-12-31T23:59:59-23:59"),
        ("send_time", "-0001-01-01 00:00:00"),
        ("send_time", 1e308),
        ("send_time", ["2018-08-23 17:00:00"]),
        ("device_ids", "d1"),
        ("device_ids", ["d1"]),
        ("device_ids", {"alice": None}),
        ("device_ids", {"alice": ["d1"]}),
        ("personalization_data", {"alice": "Alex"}),
        ("personalization_data", {"alice": {"name": None}}),
        ("personalization_data", [{"name": "Alex"}]),
    ],
)
async def test_an_invalid_parameter_is_refused(
    game: Game, bodies: Bodies, name: str, value: Any
) -> None:
    body = {**game.call(), name: value}
    # A lone surrogate is an escape in JSON.
    answer = await game.post("/v2/schedule", json.dumps(body).encode())

    if name == "notification_identifier" and value == "\ud800":
        assert errors_of(answer)
    else:
        assert errors_of(answer).keys() == {name}
    assert await bodies("alice") == []


@pytest.mark.parametrize(
    "spelling",
    [
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%dT%H:%M:%SZ",
        "%Y-%m-%d %H:%M:%S UTC",
        "%Y-%m-%dT%H:%M:%S+00:00",
        "%Y-%m-%dT%H:%M:%S.250Z",
    ],
)
async def test_every_time_format_delays_the_delivery(
    game: Game, bodies: Bodies, client: httpx2.AsyncClient, spelling: str
) -> None:
    when = datetime.now(UTC) + timedelta(hours=1)

    (delivery,) = ids_of(await game.schedule(send_time=when.strftime(spelling)))

    assert await bodies("alice") == []
    headers = {"Authorization": f"Bearer {game.credential['secret_key']}"}
    schedule = (await client.get(f"/v1/schedules/{delivery}", headers=headers)).json()
    assert schedule["state"] == "pending"
    assert schedule["send_at"].startswith(f"{when:%Y-%m-%dT%H:%M:%S}.")


async def test_a_time_with_an_offset_is_parsed(
    game: Game, client: httpx2.AsyncClient
) -> None:
    when = datetime.now(UTC) + timedelta(hours=1)
    there = f"{when + timedelta(hours=5, minutes=30):%Y-%m-%dT%H:%M:%S}+05:30"

    (delivery,) = ids_of(await game.schedule(send_time=there))

    headers = {"Authorization": f"Bearer {game.credential['secret_key']}"}
    schedule = (await client.get(f"/v1/schedules/{delivery}", headers=headers)).json()
    assert schedule["send_at"].startswith(f"{when:%Y-%m-%dT%H:%M:%S}.")


@pytest.mark.parametrize(
    "pairs",
    [
        [("user_ids[]", "alice"), ("user_ids[]", "bob")],
        [("user_ids", "alice"), ("user_ids", "bob")],
        [("user_ids[0]", "alice"), ("user_ids[1]", "bob")],
        [("user_ids[]", "alice"), ("user_ids", "bob")],
        [("user_ids", "alice,bob")],
        [("user_ids", " alice, bob ")],
        [("user_ids[]", "alice,bob")],
        [("user_ids", '["alice","bob"]')],
        [("user_ids", ' [ "alice" ] '), ("user_ids", "bob")],
        [("user_ids[]", '["alice"]'), ("user_ids[]", "bob")],
        [("user_ids", '"alice"'), ("user_ids", "bob")],
    ],
    ids=[
        *("bracketed", "repeated", "numbered", "mixed", "commas", "commas-spaces"),
        *("commas-bracketed", "array", "array-repeated", "array-bracketed", "string"),
    ],
)
async def test_a_form_is_equivalent_to_json(
    game: Game, bodies: Bodies, pairs: list[tuple[str, str]]
) -> None:
    scalars = list(game.call(user_ids=None, notification_message="a & b = ü").items())
    body = urlencode([*scalars, *pairs]).encode()

    ids = ids_of(await game.post("/v2/schedule", body, f"{FORM}; charset=UTF-8"))

    assert len(set(ids)) == 2
    assert await bodies("alice") == await bodies("bob") == ["a & b = ü"]


async def test_a_form_with_one_user_makes_a_list(game: Game, bodies: Bodies) -> None:
    body = urlencode(game.call(user_ids="alice")).encode()

    assert len(ids_of(await game.post("/v2/schedule", body, FORM))) == 1


@pytest.mark.parametrize(
    "value",
    [
        *("", ",", "alice,", '["alice"', "[alice]", '[["alice"]]', "[null]", "[]"),
        *("null", '{"alice": 1}', '"alice', '""', "[object Object]"),
    ],
)
async def test_a_form_whose_list_is_broken_is_refused(
    game: Game, bodies: Bodies, value: str
) -> None:
    body = urlencode(game.call(user_ids=value)).encode()

    errors = errors_of(await game.post("/v2/schedule", body, FORM))

    assert errors.keys() == {"user_ids"}
    assert await bodies("alice") == []


async def test_an_id_with_a_comma_may_be_sent_in_an_array(
    game: Game, bodies: Bodies
) -> None:
    body = urlencode(game.call(user_ids='["a,b", 7]')).encode()

    answer = await game.post("/v2/schedule", body, FORM)

    assert list(answer.json()["scheduled"]) == ["a,b", "7"]
    assert await bodies("a,b") == await bodies("7") == ["come back"]


async def test_a_form_cancels_a_list_in_one_value(game: Game) -> None:
    users = ["alice", "bob", "carl", "dora"]
    ids = ids_of(await game.schedule(user_ids=users, send_time=ahead(hours=1)))

    for value in (",".join(ids[:2]), json.dumps(ids[2:])):
        body = urlencode({**game.credential, "ids": value}).encode()
        cancelled = ids_of(await game.post("/v2/unschedule", body, FORM))
        assert len(cancelled) == 2


async def test_a_form_with_an_empty_time_is_refused(game: Game, bodies: Bodies) -> None:
    body = urlencode(game.call(user_ids="alice", send_time="")).encode()

    errors = errors_of(await game.post("/v2/schedule", body, FORM))

    assert errors.keys() == {"send_time"}
    assert await bodies("alice") == []


async def test_a_null_time_is_absent(game: Game, bodies: Bodies) -> None:
    body = json.dumps({**game.call(), "send_time": None}).encode()

    ids_of(await game.post("/v2/schedule", body))

    assert await bodies("alice") == ["come back"]


async def test_an_unescaped_plus_in_a_form_is_a_plus(
    game: Game, bodies: Bodies
) -> None:
    when = datetime.now(UTC) + timedelta(hours=3)
    pairs = urlencode(game.call(user_ids="alice"))
    body = f"{pairs}&send_time={when:%Y-%m-%dT%H:%M:%S}+02:00".encode()

    ids_of(await game.post("/v2/schedule", body, FORM))

    assert await bodies("alice") == []


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"", JSON, 422),
        (b"[]", JSON, 422),
        (b"{", JSON, 422),
        (b"\xff", JSON, 422),
        (b"[" * 100_000, JSON, 422),
        (b"game_id=%ff", FORM, 422),
        (b"\xff=1", FORM, 422),
        (b"a=1&" * 2_001, FORM, 422),
        (b"", FORM, 422),
        (b"{}", "text/plain", 415),
        (b"x" * 300_000, JSON, 413),
    ],
)
async def test_a_malformed_body_is_refused(
    game: Game, body: bytes, media_type: str, status: int
) -> None:
    errors_of(await game.post("/v2/schedule", body, media_type), status)


# Deliveries.


async def test_the_deliveries_are_listed_by_user_as_spelled(game: Game) -> None:
    # The second and third are one player.
    ulid, uuid = "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01563E3A-B5D3-D676-4C61-EFB99302BD5B"
    answer = await game.schedule(user_ids=["alice", ulid, uuid, 7, "alice"])

    ids, scheduled = answer.json()["ids"], answer.json()["scheduled"]
    assert list(scheduled) == ["alice", ulid, uuid, "7"]
    assert [scheduled[user] for user in ("alice", ulid, uuid, "7", "alice")] == ids
    assert scheduled[ulid] == scheduled[uuid]


@pytest.mark.parametrize("message", [None, ""])
async def test_a_known_identifier_needs_no_message(
    game: Game, bodies: Bodies, message: str | None
) -> None:
    ids_of(await game.schedule())

    ids_of(await game.schedule(notification_message=message, user_ids=["bob"]))

    assert await bodies("bob") == ["come back"]


async def test_a_form_with_a_known_identifier_needs_no_message(
    game: Game, bodies: Bodies
) -> None:
    ids_of(await game.schedule())
    body = urlencode(game.call(notification_message=None, user_ids="bob")).encode()

    ids_of(await game.post("/v2/schedule", body, FORM))

    assert await bodies("bob") == ["come back"]


async def test_an_unknown_identifier_needs_a_message(
    game: Game, client: httpx2.AsyncClient, add_key: AddKey, mint: Mint, bodies: Bodies
) -> None:
    other = Game(client, await add_key(app="other"), mint.name("other"))
    ids_of(await other.schedule())

    errors = errors_of(await game.schedule(notification_message=None, user_ids=[]))

    assert errors.keys() == {"notification_message", "user_ids"}
    assert errors["notification_message"][0].startswith("must be present")
    # It is not registered, either.
    ids_of(await game.schedule(notification_message="first"))
    assert await bodies("alice") == ["first"]


async def test_a_repetition_without_a_message_has_one_effect(
    game: Game, bodies: Bodies
) -> None:
    ids_of(await game.schedule())
    first = await game.schedule("k", notification_message=None, user_ids=["bob"])
    again = await game.schedule("k", notification_message=None, user_ids=["bob"])

    assert again.json() == first.json()
    assert await bodies("bob") == ["come back"]


async def test_devices_and_personalization_have_no_effect(
    game: Game, bodies: Bodies
) -> None:
    answer = await game.schedule(
        user_ids=["alice", "7", "bob"],
        device_ids={"alice": "d1", "7": 2, "nobody": "d3"},
        personalization_data={"alice": {"name": "Alex", "level": "42"}, "7": {}},
    )

    assert answer.json()["scheduled"].keys() == {"alice", "7", "bob"}
    assert await bodies("alice") == await bodies("7") == ["come back"]
    errors = answer.json()["errors"]
    assert errors["device_ids"].keys() == {"alice", "7"}
    assert errors["personalization_data"].keys() == {"alice"}
    assert "used last" in errors["device_ids"]["7"]


async def test_a_device_of_a_user_in_another_spelling_is_said_to_have_no_effect(
    game: Game,
) -> None:
    uuid = "01563e3a-b5d3-d676-4c61-efb99302bd5b"
    named = uuid.replace("-", "")

    answer = await game.schedule(user_ids=[named], device_ids={uuid: "d1"})

    assert answer.json()["errors"].keys() == {"device_ids"}
    assert answer.json()["errors"]["device_ids"].keys() == {named}


async def test_without_devices_a_response_has_no_errors(game: Game) -> None:
    answer = await game.schedule(device_ids={}, personalization_data=None)

    assert answer.json().keys() == {"status", "ids", "scheduled"}


@pytest.mark.parametrize(
    "pairs",
    [
        {"device_ids[alice]": "d1", "device_ids[7]": "d2"},
        {"device_ids": '{"alice": "d1"}', "personalization_data": ""},
        {"personalization_data[7][name]": "Alex"},
    ],
)
async def test_devices_and_personalization_may_be_in_a_form(
    game: Game, bodies: Bodies, pairs: dict[str, str]
) -> None:
    body = urlencode({**game.call(user_ids="alice,7"), **pairs}).encode()

    answer = await game.post("/v2/schedule", body, FORM)

    assert answer.status_code == 200
    assert await bodies("alice") == await bodies("7") == ["come back"]
    (name,) = answer.json()["errors"]
    assert any(parameter.startswith(name) for parameter in pairs)


async def test_invalid_devices_in_a_form_are_refused(game: Game) -> None:
    body = urlencode({**game.call(user_ids="alice"), "device_ids": "d1"}).encode()

    errors = errors_of(await game.post("/v2/schedule", body, FORM))

    assert errors.keys() == {"device_ids"}


async def test_ids_come_in_the_order_of_the_users(
    game: Game, client: httpx2.AsyncClient
) -> None:
    users = [f"u{i}" for i in range(20)]
    ids = ids_of(await game.schedule(user_ids=users, send_time=ahead(hours=1)))

    assert len(set(ids)) == 20
    headers = {"Authorization": f"Bearer {game.credential['secret_key']}"}
    for user, delivery in zip(users, ids, strict=True):
        shown = (await client.get(f"/v1/schedules/{delivery}", headers=headers)).json()
        assert shown["to"] == user


async def test_a_repeated_user_gets_one_delivery(game: Game, bodies: Bodies) -> None:
    ids = ids_of(await game.schedule(user_ids=["alice", "bob", "alice"]))

    assert ids[0] == ids[2] != ids[1]
    assert await bodies("alice") == await bodies("bob") == ["come back"]


async def test_a_repeated_call_schedules_again(game: Game, bodies: Bodies) -> None:
    first, second = ids_of(await game.schedule()), ids_of(await game.schedule())

    assert first != second
    assert await bodies("alice") == ["come back"] * 2


async def test_the_first_message_of_an_identifier_is_its_message(
    game: Game,
    client: httpx2.AsyncClient,
    add_key: AddKey,
    mint: Mint,
    bodies: Bodies,
    read: Read,
) -> None:
    await game.schedule(notification_message="first")
    await game.schedule(notification_message="second")
    await game.schedule(notification_identifier="other", notification_message="third")

    assert await bodies("alice") == ["first", "first", "third"]
    other = Game(client, await add_key(app="other"), mint.name("other"))
    await other.schedule(notification_message="ours")
    (shown,) = await read("alice", app="other")
    assert shown["body"] == "ours"


async def test_concurrent_calls_with_an_identifier_agree_on_its_message(
    game: Game, bodies: Bodies
) -> None:
    await asyncio.gather(
        *(game.schedule(notification_message=f"m{i}") for i in range(20))
    )

    assert len(set(await bodies("alice"))) == 1
    assert len(await bodies("alice")) == 20


async def test_a_due_delivery_arrives(game: Game, bodies: Bodies, until: Until) -> None:
    when = f"{datetime.now(UTC) + timedelta(seconds=0.3):%Y-%m-%dT%H:%M:%S.%fZ}"
    ids_of(await game.schedule(send_time=when))

    async def arrived() -> bool:
        return bool(await bodies("alice"))

    await until(arrived)
    assert await bodies("alice") == ["come back"]


# Idempotency.


async def test_a_repetition_with_its_key_has_one_effect(
    game: Game, bodies: Bodies
) -> None:
    first = await game.schedule("k", user_ids=["alice", "bob"])
    again = await game.schedule("k", user_ids=["alice", "bob"])

    assert ids_of(again) == ids_of(first)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert await bodies("alice") == ["come back"]


async def test_concurrent_duplicates_have_one_effect(
    game: Game, bodies: Bodies
) -> None:
    twins = await asyncio.gather(*(game.schedule("k") for _ in range(10)))

    assert len({tuple(ids_of(twin)) for twin in twins}) == 1
    assert await bodies("alice") == ["come back"]


@pytest.mark.parametrize(
    "change",
    [
        {"user_ids": ["bob"]},
        {"notification_identifier": "x"},
        {"notification_message": "y"},
        {"send_time": "2999"},
    ],
)
async def test_another_request_with_the_key_is_refused(
    game: Game, bodies: Bodies, change: dict[str, Any]
) -> None:
    if "send_time" in change:
        change = {"send_time": ahead(hours=1)}
    await game.schedule("k")

    refused = await game.schedule("k", **change)

    assert errors_of(refused).keys() == {"Idempotency-Key"}
    assert await bodies("alice") == ["come back"]
    assert await bodies("bob") == []


# Cancellation.


async def test_a_delivery_cancelled_by_id_is_listed_and_not_sent(
    game: Game, client: httpx2.AsyncClient
) -> None:
    users = ["alice", "bob", "carl"]
    ids = ids_of(await game.schedule(user_ids=users, send_time=ahead(hours=1)))

    cancelled = ids_of(await game.unschedule(ids=[ids[2], ids[0], ids[0]]))

    assert sorted(cancelled) == sorted([ids[0], ids[2]])
    assert ids_of(await game.unschedule(ids=ids)) == [ids[1]]
    assert ids_of(await game.unschedule(ids=ids)) == []


async def test_unknown_sent_and_foreign_ids_are_not_listed(
    game: Game, client: httpx2.AsyncClient, add_key: AddKey, mint: Mint
) -> None:
    sent = ids_of(await game.schedule())
    other = Game(client, await add_key(app="other"), mint.name("other"))
    foreign = ids_of(await other.schedule(send_time=ahead(hours=1)))

    assert ids_of(await game.unschedule(ids=[*sent, *foreign, "x", "", 7])) == []
    assert ids_of(await other.unschedule(ids=foreign)) == foreign


async def test_cancelling_by_user_affects_one_identifier(game: Game) -> None:
    users, later = ["alice", "bob"], ahead(hours=1)
    daily = ids_of(await game.schedule(user_ids=users, send_time=later))
    daily += ids_of(await game.schedule(user_ids=["alice"], send_time=later))
    weekly = ids_of(
        await game.schedule(
            user_ids=users, send_time=later, notification_identifier="weekly"
        )
    )

    cancelled = ids_of(
        await game.unschedule(
            user_ids=["alice", "carl", "alice"], notification_identifier="daily"
        )
    )

    assert sorted(cancelled) == sorted([daily[0], daily[2]])
    assert ids_of(await game.unschedule(ids=[daily[1], *weekly])) == [
        daily[1],
        *weekly,
    ]


async def test_an_identifier_beside_ids_has_no_effect(game: Game) -> None:
    (daily,) = ids_of(await game.schedule(send_time=ahead(hours=1)))

    cancelled = await game.unschedule(ids=[daily], notification_identifier="weekly")

    assert ids_of(cancelled) == [daily]


@pytest.mark.parametrize(
    ("parameters", "wrong"),
    [
        ({}, {"ids"}),
        ({"ids": []}, {"ids"}),
        ({"ids": ["x"] * 1_001}, {"ids"}),
        ({"ids": "x"}, {"ids"}),
        ({"ids": [{}]}, {"ids"}),
        ({"ids": ["x"], "user_ids": ["u"]}, {"user_ids"}),
        (
            {"ids": ["x"], "notification_identifier": ["i"]},
            {"notification_identifier"},
        ),
        (
            {"ids": ["x"], "notification_identifier": "i" * 256},
            {"notification_identifier"},
        ),
        ({"user_ids": ["u"]}, {"notification_identifier"}),
        ({"notification_identifier": "i"}, {"user_ids"}),
        (
            {"user_ids": ["u"] * 101, "notification_identifier": "i" * 256},
            {"user_ids", "notification_identifier"},
        ),
    ],
)
async def test_invalid_cancellations_are_refused(
    game: Game, parameters: dict[str, Any], wrong: set[str]
) -> None:
    assert errors_of(await game.unschedule(**parameters)).keys() == wrong


async def test_a_thousand_ids_are_cancelled_at_once(game: Game) -> None:
    ids_of(await game.unschedule(ids=[f"x{i}" for i in range(1_000)]))


async def test_only_post_is_supported(client: httpx2.AsyncClient) -> None:
    for path in ("/v2/schedule", "/v2/unschedule"):
        answer = await client.get(path)
        assert errors_of(answer, 405).keys() == {"method"}
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/v2", "/v2/", "/v2/messages", "/v2/schedule/"])
async def test_an_unknown_path_has_the_format_of_errors(
    client: httpx2.AsyncClient, path: str
) -> None:
    assert errors_of(await client.post(path, json={}), 404).keys() == {"path"}
