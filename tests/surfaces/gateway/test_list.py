from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from streamer.model import App, Log, Notification, Player, encode_fragment
from streamer.service.inboxes.numbered import NumberedInbox
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Inbox

from ..conftest import Mint, Start
from .conftest import AssertError, Casino, CasinoAt

PATH = "/gateway/notifications/1.0/1001"
SECOND = "/notifications/1.0/1001/12345"


def without_id_and_time(body: dict[str, Any]) -> dict[str, Any]:
    """Return a list without the values that the server chooses."""
    for shown in body["data"]["notifications"]:
        del shown["message_id"], shown["time"]
    return body


async def publish_example(casino: Any, example: dict[str, Any]) -> list[str]:
    """Publish the notifications of an example; return the ids, oldest first."""
    ids = []
    for shown in reversed(example["response"]["data"]["notifications"]):
        ids.append(
            await casino.publish(type=shown["event"], data=shown["event_details"])
        )
        if shown["is_read"]:
            await casino.mark(ids[-1])
    return ids


@pytest.mark.parametrize("name", ["list", "list_unread"])
async def test_the_pages_examples_of_lists_pass(
    casino: Casino, client: httpx2.AsyncClient, examples: dict[str, Any], name: str
) -> None:
    example = examples[name]
    if name == "list_unread":
        await casino.mark(await casino.publish(type="read", data={}))
    ids = await publish_example(casino, example)

    answer = await client.request(
        example["method"], example["path"], headers=casino.headers
    )

    assert answer.status_code == example["status"]
    body = answer.json()
    shown = body["data"]["notifications"]
    assert [item["message_id"] for item in shown] == ids[::-1]
    expected = example["response"]
    for item, printed in zip(shown, expected["data"]["notifications"], strict=True):
        assert list(item) == list(printed)
    assert without_id_and_time(body) == without_id_and_time(expected)


async def test_the_pages_examples_of_marks_pass(
    casino: Casino, client: httpx2.AsyncClient, examples: dict[str, Any]
) -> None:
    example = examples["marks"]
    for request in example["requests"]:
        answer = await client.request(
            example["method"], example["path"], headers=casino.headers, json=request
        )
        assert answer.status_code == example["status"]
        assert answer.json() == example["response"]


async def test_the_pages_examples_of_errors_pass(
    casino: Casino,
    client: httpx2.AsyncClient,
    answered_client: httpx2.AsyncClient,
    examples: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("broken")

    errors = examples["errors"]
    for answer in (await client.get(PATH), await client.patch(PATH)):
        assert (answer.status_code, answer.json()) == (401, errors["401"])
    answer = await casino.mark()
    assert (answer.status_code, answer.json()) == (400, errors["400"])
    monkeypatch.setattr(NumberedInbox, "page", broken)
    casino.client = answered_client
    answer = await casino.list()
    assert (answer.status_code, answer.json()) == (500, errors["500"])


async def test_time_is_utc_without_a_zone(casino: Casino) -> None:
    await casino.publish(data={})

    (shown,) = await casino.shown()

    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown["time"])
    at = datetime.fromisoformat(shown["time"]).replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - at) < timedelta(seconds=60)


async def test_every_spelling_of_the_path_is_the_same_list(casino: Casino) -> None:
    await casino.publish(data={})
    whole = (await casino.list()).json()

    for path in (
        SECOND,
        f"{PATH}/12345",
        "/notifications/1.0/1001",
        "/gateway/notifications/2/1001",
        "/gateway/notifications/latest/1001",
    ):
        answer = await casino.list(path)
        assert answer.status_code == 200, path
        assert answer.json() == whole


async def test_only_unread_omits_read_notifications(casino: Casino) -> None:
    ids = [await casino.publish(data={"n": i}) for i in range(3)]
    await casino.mark(ids[1])

    for text in ("true", "1", "t", "TRUE", "True", "T"):
        shown = await casino.shown(only_unread=text)
        assert [item["message_id"] for item in shown] == [ids[2], ids[0]]
        assert not any(item["is_read"] for item in shown)
    for text in ("false", "0", "f", "FALSE", "False", "F", ""):
        shown = await casino.shown(only_unread=text)
        assert [item["is_read"] for item in shown] == [False, True, False]


async def test_an_invalid_only_unread_is_refused(
    casino: Casino, assert_error: AssertError
) -> None:
    for text in ("yes", "2", "tRUE", " true"):
        message = assert_error(await casino.list(only_unread=text), 400)
        assert "only_unread" in message


async def test_a_list_has_the_newest_thousand(
    casino: Casino, redis: RedisConnection
) -> None:
    log = Log(App("1001"), Player("12345"))
    fragments = [encode_fragment(Notification(data={"n": i})) for i in range(1_001)]
    appended = await Inbox(redis).append(log, fragments[:1_000])
    assert len(await casino.shown()) == 1_000

    await Inbox(redis).append(log, fragments[1_000:])
    shown = await casino.shown()
    assert len(shown) == 1_000
    assert [item["event_details"]["n"] for item in shown] == list(range(1_000, 0, -1))

    await Inbox(redis).mark_up_to(log, appended.stored[10])
    shown = await casino.shown(only_unread="true")
    assert [item["event_details"]["n"] for item in shown] == list(range(1_000, 10, -1))


async def test_event_and_details_are_filled(casino: Casino) -> None:
    sent: list[dict[str, Any]] = [
        {"type": "t", "title": "T", "body": "B", "data": {}},
        {"title": "T", "body": "B", "data": [1]},
        {"body": "B", "data": None},
        {"title": "T"},
        {"type": "t"},
    ]
    for message in sent:
        await casino.publish(**message)

    shown = [(i["event"], i["event_details"]) for i in reversed(await casino.shown())]

    assert shown == [
        ("t", {}),
        ("notification", {"title": "T", "body": "B", "data": [1]}),
        ("notification", {"body": "B", "data": None}),
        ("notification", {"title": "T"}),
        ("t", {}),
    ]


async def test_numeric_names_are_shown_as_numbers(casino: Casino, mint: Mint) -> None:
    for player, shown_as in (
        ("0", 0),
        ("12345", 12_345),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", "9223372036854775808"),
        ("007", "007"),
        ("-1", "-1"),
        ("٣", "٣"),
        ("alice/b", "alice/b"),
    ):
        await casino.publish(player, data={})
        casino.headers = {"x-auth-token": mint(player, app="1001")}

        (shown,) = await casino.shown()
        assert shown["player_id"] == shown_as
        assert shown["brand_id"] == 1001
        path = f"/notifications/1.0/1001/{player}"
        assert (await casino.list(path)).status_code == 200


async def test_a_brand_may_have_a_name(
    client: httpx2.AsyncClient, mint: Mint, backend_key: str
) -> None:
    await client.post(
        "/v1/notifications",
        headers={"Authorization": f"Bearer {backend_key}"},
        json={"to": {"players": ["7"]}, "body": "x"},
    )

    brand = mint.name()
    answer = await client.get(
        f"/gateway/notifications/1.0/{brand}", headers={"x-auth-token": mint("7")}
    )

    (shown,) = answer.json()["data"]["notifications"]
    assert (shown["brand_id"], shown["player_id"]) == (brand, 7)


async def test_every_defect_of_a_credential_is_the_same_401(
    casino: Casino,
    client: httpx2.AsyncClient,
    mint: Mint,
    brand_key: str,
    examples: dict[str, Any],
) -> None:
    mine = casino.headers["x-auth-token"]
    wrong: list[tuple[str, dict[str, str]]] = [
        (PATH, {}),
        (PATH, {"x-auth-token": ""}),
        (PATH, {"x-auth-token": "x"}),
        (PATH, {"x-auth-token": mine[:-4] + "AAAA"}),
        (PATH, {"x-auth-token": mint("12345", app="1001", at_s=1)}),
        (PATH, {"x-auth-token": brand_key}),
        (PATH, {"x-auth-token": "sk_" + "x" * 43}),
        (PATH, {"x-auth-token": mint("12345")}),
        (
            PATH,
            {"x-auth-token": mint("1", "notification:player:self:write", app="1001")},
        ),
        (PATH, {"Authorization": f"Bearer {mine}"}),
        (PATH, {"Cookie": f"Authorization=bearer {mine}"}),
        ("/gateway/notifications/1.0/1002", casino.headers),
        (f"/gateway/notifications/1.0/{mint.name()}", casino.headers),
        ("/gateway/notifications/1.0/01001", casino.headers),
        ("/notifications/1.0/1001/12346", casino.headers),
        ("/notifications/1.0/1001/me", casino.headers),
        (f"/notifications/1.0/{mint.name()}/12345", casino.headers),
    ]

    for path, headers in wrong:
        for method in ("GET", "PATCH"):
            answer = await client.request(
                method, path, headers=headers, json={"message_ids": ["x"]}
            )
            assert answer.status_code == 401, (method, path)
            assert answer.json() == examples["errors"]["401"]


async def test_a_service_token_reads_its_own_list_only(
    casino: Casino, mint: Mint, assert_error: AssertError
) -> None:
    service = mint("1", "notification:player:*", app="1001")
    casino.headers = {"x-auth-token": service}

    assert_error(await casino.list(SECOND), 401)


async def test_a_mark_is_read_everywhere(
    casino: Casino, client: httpx2.AsyncClient, mint: Mint
) -> None:
    ids = [await casino.publish(data={"n": i}) for i in range(3)]
    bearer = {"Authorization": f"Bearer {casino.headers['x-auth-token']}"}
    inbox = "/v1/players/me/notifications"

    await casino.mark(ids[0], path=SECOND)
    page = (await client.get(inbox, headers=bearer)).json()
    assert [("read_at" in item) for item in page["notifications"]] == [
        False,
        False,
        True,
    ]

    await client.post(f"{inbox}/read", headers=bearer, json={"all": True})
    assert await casino.shown(only_unread="true") == []
    page = await client.get(
        "/game/notifications/v1",
        headers={"x-session-token": casino.headers["x-auth-token"]},
        params={"read": "true"},
    )
    assert page.json()["pagination"]["total"] == 3
    assert {item["player_id"] for item in page.json()["notifications"]} == {"12345"}


async def test_unknown_ids_are_ignored(casino: Casino) -> None:
    mine = await casino.publish(data={})
    foreign = await casino.publish("2", data={})

    answer = await casino.mark(
        "", "x", "me", mine[:-1], foreign, "0" * 10_000, "\u0000", "é", mine.upper()
    )

    assert answer.status_code == 200
    assert [item["is_read"] for item in await casino.shown()] == [True]
    assert (await casino.mark(mine)).json() == answer.json()


async def test_ids_of_another_player_are_unknown(casino: Casino, mint: Mint) -> None:
    mine = await casino.publish(data={})
    headers = casino.headers
    casino.headers = {"x-auth-token": mint("2", app="1001")}

    assert (await casino.mark(mine)).status_code == 200

    casino.headers = headers
    assert [item["is_read"] for item in await casino.shown()] == [False]


async def test_an_invalid_list_of_ids_is_a_400(
    casino: Casino, client: httpx2.AsyncClient, examples: dict[str, Any]
) -> None:
    for body in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"message_ids":null}',
        b'{"message_ids":[]}',
        b'{"message_ids":"x"}',
        b'{"message_ids":[1]}',
        b'{"message_ids":["x",null]}',
        b'{"ids":["x"]}',
        b"\xff",
    ):
        answer = await client.patch(PATH, headers=casino.headers, content=body)
        assert answer.status_code == 400, body
        assert answer.json() == examples["errors"]["400"]
    headers = {**casino.headers, "content-type": "text/plain"}
    answer = await client.patch(PATH, headers=headers, content=b'{"message_ids":["x"]}')
    assert answer.json() == examples["errors"]["400"]


async def test_as_many_ids_as_fit_the_body_are_marked(
    casino: Casino, assert_error: AssertError
) -> None:
    mine = await casino.publish(data={})
    other = [f"00000000-0000-7000-8001-{i:012d}" for i in range(6_600)]

    assert (await casino.mark(*other, mine)).status_code == 200
    assert [item["is_read"] for item in await casino.shown()] == [True]
    assert_error(await casino.mark(*other, *other), 413)


async def test_unknown_paths_and_methods_have_the_same_error_format(
    casino: Casino, assert_error: AssertError
) -> None:
    for path in ("/gateway/nothing", "/gateway/notifications/1.0", "/notifications/x"):
        assert_error(await casino.list(path), 404)
    answer = await casino.client.post(PATH, headers=casino.headers)
    assert_error(answer, 405)
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PATCH"}


async def test_limits_and_outages_have_a_retry_time(
    start: Start, casino_at: CasinoAt, assert_error: AssertError
) -> None:
    full = casino_at(await start(requests_in_flight_max=0))
    assert_error(await full.list(), 503)

    full = casino_at(await start(requests_per_player_max=0))
    assert_error(await full.list(), 429)
    assert_error(await full.mark("x"), 429)
