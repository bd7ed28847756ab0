"""
One player, however a request spells its name, on every surface and in every place.

Responses repeat the spelling of the request. Names that are not text are refused.
"""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from .conftest import Mint, Server

DASHED = "01563e3a-b5d3-d676-4c61-efb99302bd5b"
HEX = DASHED.replace("-", "")
ULID = "01arz3ndektsv4rrffq69g5fav"
BRACED = f"{{{DASHED.upper()}}}"
URN = f"urn:uuid:{DASHED}"
OTHERS = [HEX, ULID, BRACED, URN]
NFC, NFD = "J\xfcrgen", "Ju\u0308rgen"
NAMES = [(DASHED, it) for it in OTHERS] + [(NFC, NFD)]
LATER = "2099-01-01T00:00:00Z"


def good(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


@pytest.fixture
def backend(client: httpx2.AsyncClient, backend_key: str) -> httpx2.AsyncClient:
    """Return the client, with a backend key on every request."""
    client.headers["Authorization"] = f"Bearer {backend_key}"
    return client


async def send(backend: httpx2.AsyncClient, to: list[str], **fields: Any) -> Any:
    body = {"to": {"players": to}, "title": "hello", **fields}
    return await backend.post("/v1/notifications", json=body)


async def titles(backend: httpx2.AsyncClient, player: str, **query: str) -> list[str]:
    """Return the titles on the player's page, newest first."""
    path = f"/v1/players/{player}/notifications"
    page = good(await backend.get(path, params=query))
    return [shown["title"] for shown in page["notifications"]]


@pytest.mark.parametrize(("name", "other"), NAMES)
async def test_what_is_sent_to_one_spelling_is_in_the_inbox_of_the_other(
    backend: httpx2.AsyncClient, name: str, other: str
) -> None:
    (result,) = good(await send(backend, [other]))["results"]

    assert result["to"] == other
    for spelling in (name, other):
        assert await titles(backend, spelling) == ["hello"]


async def test_two_spellings_in_one_request_are_one_notification(
    backend: httpx2.AsyncClient,
) -> None:
    results = good(await send(backend, [DASHED, HEX, "bob", ULID]))["results"]

    assert [result["to"] for result in results] == [DASHED, HEX, "bob", ULID]
    assert results[0]["id"] == results[1]["id"] == results[3]["id"]
    assert await titles(backend, URN) == ["hello"]


async def test_every_message_of_a_list_has_its_own_spelling(
    backend: httpx2.AsyncClient,
) -> None:
    messages = [
        {"to": {"players": [it]}, "title": str(i)} for i, it in enumerate(OTHERS)
    ]

    answers = good(await backend.post("/v1/notifications", json=messages))

    assert [each["results"][0]["to"] for each in answers] == OTHERS
    assert await titles(backend, DASHED) == ["3", "2", "1", "0"]


async def test_a_repetition_may_spell_the_player_in_another_way(
    backend: httpx2.AsyncClient,
) -> None:
    backend.headers["Idempotency-Key"] = "k"
    first, again = await send(backend, [HEX]), await send(backend, [ULID])

    assert again.headers["Idempotent-Replayed"] == "true"
    assert good(first)["results"][0]["id"] == good(again)["results"][0]["id"]
    assert good(again)["results"][0]["to"] == ULID


async def test_a_notification_that_is_not_stored_has_the_spelling_of_its_request(
    backend: httpx2.AsyncClient,
) -> None:
    results = good(await send(backend, [HEX, ULID], persist=False))["results"]

    assert [result["to"] for result in results] == [HEX, ULID]


async def test_a_schedule_keeps_the_spelling_of_its_request(
    backend: httpx2.AsyncClient, mint: Mint
) -> None:
    at = "2000-01-01T00:00:00Z"
    schedule = good(await send(backend, [HEX], send_at=at), 202)["schedule"]
    listed = good(await backend.get("/v1/schedules"))["schedules"]
    read = good(await backend.get(f"/v1/schedules/{schedule['id']}"))

    assert [it["to"] for it in (schedule, read, *listed)] == [HEX] * 3


async def test_a_schedule_of_a_repetition_has_the_spelling_of_that_request(
    backend: httpx2.AsyncClient,
) -> None:
    backend.headers["Idempotency-Key"] = "s"
    at = "2000-01-01T00:00:00Z"
    first = good(await send(backend, [HEX], send_at=at), 202)["schedule"]
    again = good(await send(backend, [DASHED], send_at=at), 202)["schedule"]

    assert first["id"] == again["id"]
    assert (first["to"], again["to"]) == (HEX, DASHED)


async def test_unread_counts_have_the_spelling_of_the_request(
    backend: httpx2.AsyncClient,
) -> None:
    good(await send(backend, [HEX, NFD]))
    players = [*OTHERS, NFC, "bob"]

    counted = good(await backend.post("/v1/unread", json={"players": players}))

    assert [(it["player"], it["unread"]) for it in counted["unread"]] == [
        *((it, 1) for it in (*OTHERS, NFC)),
        ("bob", 0),
    ]


async def test_a_token_in_one_spelling_reads_the_inbox_of_all(
    backend: httpx2.AsyncClient, mint: Mint
) -> None:
    good(await send(backend, [DASHED, NFC]))

    for subject in (*OTHERS, NFD):
        for path in ("me", NFC if subject == NFD else DASHED):
            url = f"/v1/players/{path}/notifications"
            page = good(await backend.get(url, headers=mint.bearer(subject)))
            assert page["unread"] == 1, (subject, path)


async def test_a_token_is_made_for_the_player_of_any_spelling(
    backend: httpx2.AsyncClient,
) -> None:
    good(await send(backend, [DASHED]))
    token = good(await backend.post("/v1/tokens", json={"player": URN}))["token"]

    headers = {"Authorization": f"Bearer {token}"}
    url = f"/v1/players/{HEX}/notifications"
    assert good(await backend.get(url, headers=headers))["unread"] == 1


async def test_membership_and_mutes_are_the_players(
    backend: httpx2.AsyncClient,
) -> None:
    good(await backend.put(f"/v1/players/{HEX}/topics/news"), 204)
    good(await backend.put(f"/v1/players/{ULID}/mutes/types/ad"), 204)

    topics = good(await backend.get(f"/v1/players/{DASHED}/topics"))
    mutes = good(await backend.get(f"/v1/players/{URN}/mutes"))

    assert [it["topic"] for it in topics["topics"]] == ["news"]
    assert mutes["types"] == ["ad"]


async def test_cards_keep_the_spelling_that_was_put(
    backend: httpx2.AsyncClient,
) -> None:
    url = "/v1/campaigns/c"
    good(await backend.put(url, json={}), 200)
    cards = [
        {"id": str(i), "player": player, "status": "active"}
        for i, player in enumerate(OTHERS)
    ]
    good(await backend.put(f"{url}/cards", json=cards))

    listed = good(await backend.get(f"{url}/cards"))["cards"]
    changed = good(
        await backend.patch(f"{url}/cards/0", json={"status": "revoked"}), 200
    )

    assert {it["id"]: it["player"] for it in listed} == {
        str(i): player for i, player in enumerate(OTHERS)
    }
    assert changed == {"id": "0", "player": HEX, "status": "revoked"}


async def test_a_campaign_sends_to_the_player_of_any_spelling(
    backend: httpx2.AsyncClient, until: Any
) -> None:
    url = "/v1/campaigns/c"
    good(await backend.put(url, json={}))
    card = {"id": "a", "player": HEX, "status": "active"}
    good(await backend.put(f"{url}/cards", json=[card]))
    body = {"header": "hello", "body": "b"}
    good(await backend.post("/campaigns/c/notifications", json=body), 201)

    async def has_arrived() -> bool:
        return await titles(backend, DASHED) == ["hello"]

    await until(has_arrived)


async def test_rallyhere_takes_every_spelling_of_a_uuid(
    backend: httpx2.AsyncClient, mint: Mint
) -> None:
    base = "/notification/v1/player"
    for player in OTHERS:
        body = {"notifications": [{"message": player}]}
        good(await backend.post(f"{base}/{player}/notification", json=body))

    headers = mint.bearer(HEX)
    for path in (DASHED, BRACED, "me"):
        page = await backend.get(f"{base}/{path}/notification", headers=headers)
        assert len(good(page)["notifications"]) == len(OTHERS)
    url = f"{base}/{HEX}/stream/notification/lp"
    query = {"deadline": "0", "offset_reset_strategy": "earliest"}
    poll = good(await backend.get(url, params=query, headers=headers))
    assert [it["message"] for it in poll["notifications"]] == OTHERS


async def test_the_gateway_names_a_player_as_the_path_does(
    backend: httpx2.AsyncClient, mint: Mint
) -> None:
    good(await send(backend, [DASHED]))
    app = mint.name()
    headers = {"x-auth-token": mint(HEX)}

    for path in (HEX, DASHED.upper()):
        listed = await backend.get(f"/notifications/1.0/{app}/{path}", headers=headers)
        (shown,) = good(listed)["data"]["notifications"]
        assert shown["player_id"] == path


async def test_a_stream_is_the_players_of_every_spelling(
    backend: httpx2.AsyncClient, server: Server, mint: Mint
) -> None:
    url = f"ws://127.0.0.1:{await server.listen()}/v1/stream"
    async with connect(url, additional_headers=mint.bearer(HEX)) as socket:
        assert '"hello"' in str(await socket.recv())
        good(await send(backend, [ULID], persist=False))
        assert '"title":"hello"' in str(await socket.recv())


@pytest.mark.parametrize(
    "player",
    ["me", "..", " bob", "bob ", "b\u200bob", "\u202ebob", "bob\u200d", "a\ufffd"],
)
async def test_a_name_with_what_nobody_sees_is_refused_everywhere(
    backend: httpx2.AsyncClient, mint: Mint, player: str
) -> None:
    await backend.put("/v1/campaigns/c", json={})
    card = {"id": "a", "player": player, "status": "active"}
    answers = {
        "/to/players/1": await send(backend, ["ann", player]),
        "/to/players/0": await send(backend, [player], persist=False),
        "/players/1": await backend.post(
            "/v1/unread", json={"players": ["ann", player]}
        ),
        "/player": await backend.post("/v1/tokens", json={"player": player}),
        "/0/player": await backend.put("/v1/campaigns/c/cards", json=[card]),
    }

    for pointer, answer in answers.items():
        problem = {"pointer": pointer, "problem": "is not a player name"}
        assert good(answer, 422)["errors"] == [problem]
    token = mint.bearer(player)
    answer = await backend.get("/v1/players/me/notifications", headers=token)
    assert good(answer, 401)["detail"].endswith("claim sub") or answer.json()["defect"]


async def test_every_wrong_name_of_a_list_is_reported(
    backend: httpx2.AsyncClient,
) -> None:
    long = "\u0958" * 100  # 200 characters in normalization form C

    answer = good(await send(backend, ["ann", "b\u200dob", "c", long]), 422)

    assert [it["pointer"] for it in answer["errors"]] == [
        "/to/players/1",
        "/to/players/3",
    ]


async def test_a_lone_surrogate_is_no_name(backend: httpx2.AsyncClient) -> None:
    body = b'{"to":{"players":["a\\ud800"]},"title":"x"}'
    headers = {"Content-Type": "application/json"}

    answer = await backend.post("/v1/notifications", content=body, headers=headers)

    assert answer.status_code in (400, 422)
    assert await titles(backend, "a") == []


PATHS = [
    "/v1/players/{}/notifications",
    "/v1/players/me/topics/{}",
    "/v1/campaigns/{}",
    "/notification/v1/player/{}/notification",
    "/notification/v1/player/me/stream/notification/lp?exclude_before={}",
    "/game/notifications/v1?notification_type={}",
    "/gateway/notifications/1.0/{}",
    "/campaigns/{}/notifications/scheduled",
    "/v1/players/me/notifications?type={}",
    "/v1/stream/poll?topics={}",
    "/nothing/{}",
]


@pytest.mark.parametrize("text", ["%C3%28", "%FF%28", "%ED%A0%80", "a%c3", "%C0%AF"])
@pytest.mark.parametrize("path", PATHS)
async def test_a_target_that_is_not_utf_8_is_a_400(
    backend: httpx2.AsyncClient, mint: Mint, path: str, text: str
) -> None:
    answer = await backend.get(path.format(text), headers=mint.bearer("alice"))

    assert answer.status_code == 400
    assert "UTF-8" in answer.text


@pytest.mark.parametrize("path", ["/v1/stream?cursor=%FF", "/v1/stream?topics=%C3%28"])
async def test_a_stream_with_a_target_that_is_not_utf_8_is_a_400(
    server: Server, mint: Mint, path: str
) -> None:
    address = f"127.0.0.1:{await server.listen()}{path}"
    headers = {"Accept": "text/event-stream", **mint.bearer("alice")}

    assert (await server.get(path, headers)).status_code == 400
    with pytest.raises(InvalidStatus) as caught:
        async with connect(f"ws://{address}", additional_headers=headers):
            pass
    assert caught.value.response.status_code == 400
    assert b"UTF-8" in (caught.value.response.body or b"")


@pytest.mark.parametrize("text", ["\xe9", "\u65e5\u672c", "\U0001f600", "a/b", "50%"])
async def test_a_target_in_utf_8_is_what_it_says(
    backend: httpx2.AsyncClient, text: str
) -> None:
    good(await send(backend, [text], type=text))

    quoted = httpx2.URL("http://x", params={"p": text}).query.partition(b"=")[2]
    path = quoted.decode().replace("+", "%20")
    assert await titles(backend, path, type=text) == ["hello"]


async def test_case_is_part_of_every_other_name(
    backend: httpx2.AsyncClient, mint: Mint
) -> None:
    one, other = uuid.uuid4().hex[:8], "Quest"
    good(await backend.put(f"/v1/players/{one}/topics/{other}"), 204)
    for topic in (other, other.lower()):
        body = {"to": {"topic": topic}, "title": topic}
        good(await backend.post("/v1/notifications", json=body))
    for key in (other, other.lower()):
        good(await send(backend, [one], type=key, collapse_key=key, title=key))

    assert await titles(backend, one) == ["quest", "Quest", "Quest"]
    assert await titles(backend, one, type=other) == ["Quest"]
    with contextlib.suppress(KeyError):
        del backend.headers["Idempotency-Key"]
    keyed = [
        await backend.post(
            "/v1/notifications",
            json={"to": {"players": [one]}, "title": key},
            headers={"Idempotency-Key": key},
        )
        for key in ("Key", "key")
    ]
    assert [answer.status_code for answer in keyed] == [200, 200]
