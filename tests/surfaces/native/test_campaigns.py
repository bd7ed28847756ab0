"""Campaigns and cards on the native surface."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
import pytest_asyncio

from ..conftest import AddKey, Mint

URL = "/v1/campaigns/c"


class Backend:
    def __init__(self, client: Any, key: str) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {key}"}

    async def ask(self, method: str, url: str, body: Any = None, **query: Any) -> Any:
        return await self.client.request(
            method, url, headers=self.headers, params=query, json=body
        )


@pytest_asyncio.fixture(loop_scope="module")
async def backend(client: httpx2.AsyncClient, backend_key: str) -> Backend:
    backend = Backend(client, backend_key)
    await backend.ask("PUT", URL, {"name": "Summer"})
    return backend


def card(name: str, player: str = "alice", status: str = "active") -> dict[str, str]:
    return {"id": name, "player": player, "status": status}


def good(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def problem(answer: Any, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"about:{kind}"
    return body


async def test_a_campaign_is_created_and_retrieved(backend: Backend) -> None:
    shown = good(await backend.ask("GET", URL))

    assert (shown["id"], shown["name"], shown["cards"]) == ("c", "Summer", 0)
    assert shown["notifications"] == {"used": 0, "limit": 3}
    assert shown["created_at"] == shown["updated_at"]


async def test_putting_a_campaign_again_renames_or_keeps_it(backend: Backend) -> None:
    first = good(await backend.ask("GET", URL))

    assert good(await backend.ask("PUT", URL, {}))["name"] == "Summer"
    renamed = good(await backend.ask("PUT", URL, {"name": "Autumn"}))

    assert renamed["name"] == "Autumn"
    assert renamed["created_at"] == first["created_at"]


async def test_campaigns_are_listed(backend: Backend) -> None:
    await backend.ask("PUT", "/v1/campaigns/campaign_abc123", {})

    listed = good(await backend.ask("GET", "/v1/campaigns"))["campaigns"]

    assert [campaign["id"] for campaign in listed] == ["c", "campaign_abc123"]


async def test_cards_are_written_and_listed(backend: Backend) -> None:
    cards = [card(f"k{i}", f"p{i}", "draft" if i % 3 else "active") for i in range(30)]

    assert good(await backend.ask("PUT", f"{URL}/cards", cards)) == {"written": 30}

    found: list[Any] = []
    query = {"limit": 7}
    while True:
        page = good(await backend.ask("GET", f"{URL}/cards", **query))
        found += page["cards"]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert sorted(found, key=str) == sorted(cards, key=str)
    active = good(await backend.ask("GET", f"{URL}/cards", status="active"))["cards"]
    assert len(active) == 10
    for wrong in ("", "lost"):
        answer = await backend.ask("GET", f"{URL}/cards", status=wrong)
        problem(answer, 400, "invalid")
    assert good(await backend.ask("GET", URL))["cards"] == 30


async def test_a_status_is_changed(backend: Backend) -> None:
    await backend.ask("PUT", f"{URL}/cards", [card("k/1 ü")])
    url = f"{URL}/cards/k/1%20ü"

    changed = good(await backend.ask("PATCH", url, {"status": "revoked"}))

    assert changed == card("k/1 ü", status="revoked")
    assert good(await backend.ask("GET", url)) == changed


async def test_ten_thousand_cards_fit_and_one_more_does_not(backend: Backend) -> None:
    cards = [card("k" * 100 + f"{i:05}", "p" * 120 + f"{i:05}") for i in range(10_001)]

    assert (
        good(await backend.ask("PUT", f"{URL}/cards", cards[1:]))["written"] == 10_000
    )
    problem(await backend.ask("PUT", f"{URL}/cards", cards), 422, "invalid")


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {},
        [card("")],
        [card("k" * 129)],
        [card("k\n")],
        [card("k", "")],
        [card("k", "me")],
        [card("k", "p" * 129)],
        [card("k", status="lost")],
        [{"id": "k", "player": "p"}],
        [{**card("k"), "more": 1}],
    ],
)
async def test_an_invalid_card_prevents_the_whole_write(
    backend: Backend, wrong: Any
) -> None:
    cards = [card("good"), *wrong] if wrong else wrong

    problem(await backend.ask("PUT", f"{URL}/cards", cards), 422, "invalid")

    assert good(await backend.ask("GET", URL))["cards"] == 0


async def test_every_invalid_player_is_reported(backend: Backend) -> None:
    cards = [card("a"), card("b", "me"), card("c", "me")]

    answer = await backend.ask("PUT", f"{URL}/cards", cards)

    pointers = [e["pointer"] for e in problem(answer, 422, "invalid")["errors"]]
    assert pointers == ["/1/player", "/2/player"]


@pytest.mark.parametrize("name", ["a b", "é", "x" * 129, "a%0A"])
async def test_an_invalid_id_creates_no_campaign(backend: Backend, name: str) -> None:
    problem(await backend.ask("PUT", f"/v1/campaigns/{name}", {}), 400, "invalid")
    problem(await backend.ask("GET", f"/v1/campaigns/{name}"), 404, "not-found")


async def test_an_unknown_campaign_or_card_is_not_found(backend: Backend) -> None:
    for method, url, body in (
        ("GET", "/v1/campaigns/d", None),
        ("GET", "/v1/campaigns/d/cards", None),
        ("PUT", "/v1/campaigns/d/cards", [card("k")]),
        ("GET", "/v1/campaigns/d/cards/k", None),
        ("GET", f"{URL}/cards/k", None),
        ("PATCH", f"{URL}/cards/k", {"status": "active"}),
        ("PATCH", "/v1/campaigns/d/cards/k", {"status": "active"}),
    ):
        problem(await backend.ask(method, url, body), 404, "not-found")


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 1_001}, {"after": "x"}, {"status": "lost"}],
)
async def test_an_invalid_parameter_is_refused(
    backend: Backend, query: dict[str, Any]
) -> None:
    problem(await backend.ask("GET", f"{URL}/cards", **query), 400, "invalid")


async def test_operations_require_their_scopes(
    backend: Backend, client: httpx2.AsyncClient, add_key: AddKey, mint: Mint
) -> None:
    await backend.ask("PUT", f"{URL}/cards", [card("k")])
    reader = Backend(client, await add_key("campaigns:read"))
    writer = Backend(client, await add_key("campaigns:write"))
    player = Backend(client, mint("alice", "notification:player:*"))
    reads = [("GET", url, None) for url in ("/v1/campaigns", URL, f"{URL}/cards")]
    reads.append(("GET", f"{URL}/cards/k", None))
    writes = [
        ("PUT", URL, {}),
        ("PUT", f"{URL}/cards", [card("k")]),
        ("PATCH", f"{URL}/cards/k", {"status": "active"}),
    ]

    for method, url, body in reads:
        good(await reader.ask(method, url, body))
        problem(await writer.ask(method, url, body), 403, "forbidden")
    for method, url, body in writes:
        good(await writer.ask(method, url, body))
        problem(await reader.ask(method, url, body), 403, "forbidden")
    for method, url, body in (*reads, *writes):
        problem(await player.ask(method, url, body), 403, "forbidden")
    nobody = await client.get(URL)
    problem(nobody, 401, "unauthenticated")


async def test_a_campaign_of_another_app_is_not_found(
    backend: Backend, client: httpx2.AsyncClient, add_key: AddKey
) -> None:
    foreign = Backend(client, await add_key(app="other"))

    problem(await foreign.ask("GET", URL), 404, "not-found")
    assert good(await foreign.ask("GET", "/v1/campaigns"))["campaigns"] == []


async def test_a_page_of_another_origin_cannot_write_with_a_cookie(
    backend: Backend,
) -> None:
    backend.headers["Origin"] = "https://elsewhere.example"
    backend.headers["Cookie"] = "Authorization=" + backend.headers.pop("Authorization")

    assert (await backend.ask("PUT", URL, {})).status_code == 403
