"""Inboxes on the native surface: filters, both directions, deletion, receipts."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
import pytest_asyncio

from streamer.model import Topic, topic_log
from streamer.store.keys import keys_of

from ..conftest import Mint, Server, Start

ALICE = "/v1/players/alice"
ME = "/v1/players/me"
UNKNOWN = "01a1fb45-4a92-76ac-8000-00006974eed3"


class Backend:
    """A studio's backend, which publishes and reads."""

    def __init__(self, client: Any, key: str) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {key}"}

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        return await self.client.request(method, path, headers=self.headers, json=body)

    async def say(self, body: str, to: Any = None, **message: Any) -> str:
        """Publish to alice unless told otherwise; return the id."""
        message = {"to": to or {"players": ["alice"]}, "body": body, **message}
        answer = await self.ask("POST", "/v1/notifications", message)
        assert answer.status_code == 200, answer.text
        notification_id: str = answer.json()["results"][0]["id"]
        return notification_id

    async def page(self, *, etag: str = "", **query: Any) -> Any:
        headers = {**self.headers, **({"If-None-Match": etag} if etag else {})}
        url = f"{ALICE}/notifications"
        return await self.client.get(url, headers=headers, params=query)

    async def bodies(self, **query: Any) -> list[str]:
        """Return the bodies on a page of alice's inbox."""
        page = await self.page(**query)
        assert page.status_code == 200, page.text
        return [shown["body"] for shown in page.json()["notifications"]]

    async def walk(self, step: str, **query: Any) -> list[str]:
        """Return the bodies on all pages, following `next`."""
        walked: list[str] = []
        while True:
            page = (await self.page(**query)).json()
            walked += [shown["body"] for shown in page["notifications"]]
            if page["next"] is None:
                return walked
            query[step] = page["next"]

    async def receipt(self, notification_id: str) -> dict[str, Any]:
        url = f"{ALICE}/notifications/{notification_id}/receipt"
        answer = await self.ask("GET", url)
        assert answer.status_code == 200, answer.text
        receipt: dict[str, Any] = answer.json()
        return receipt


class Player:
    """A player's client."""

    def __init__(self, client: Any, headers: dict[str, str]) -> None:
        self.client = client
        self.headers = headers

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        url = f"{ME}/notifications{path}"
        return await self.client.request(method, url, headers=self.headers, json=body)

    async def mark(self, how: str, *ids: str) -> int:
        answer = await self.ask("POST", f"/{how}", {"ids": ids})
        assert answer.status_code == 200, answer.text
        unread: int = answer.json()["unread"]
        return unread


@pytest.fixture
def backend(client: httpx2.AsyncClient, backend_key: str) -> Backend:
    return Backend(client, backend_key)


@pytest.fixture
def alice(client: httpx2.AsyncClient, mint: Mint) -> Player:
    return Player(client, mint.bearer("alice"))


@pytest_asyncio.fixture(loop_scope="module")
async def mixed(backend: Backend, alice: Player) -> list[str]:
    """Fill alice's inbox, in part from two audiences; return the ids, oldest first."""
    await backend.bodies()
    await backend.ask("PUT", f"{ALICE}/topics/t")
    messages: list[dict[str, Any]] = [
        {"body": "0", "type": "a", "priority": "high"},
        {"body": "1", "to": {"topic": "t"}, "type": "b"},
        {"body": "2", "type": "a"},
        {"body": "3", "to": {"everyone": True}, "type": "c", "priority": "low"},
        {"body": "4", "to": {"topic": "t"}, "type": "a"},
        {"body": "5"},
    ]
    ids = [await backend.say(**message) for message in messages]
    await alice.mark("read", ids[1], ids[2])
    return ids


# Filters.


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ({"type": "a"}, "420"),
        ({"type": "a,c"}, "4320"),
        ({"type": ["b", "c"]}, "31"),
        ({"priority": "medium"}, "5421"),
        ({"priority": "high,low"}, "30"),
        ({"unread": "true"}, "5430"),
        ({"topic": "t"}, "41"),
        ({"topic": "t", "unread": "true", "type": "a"}, "4"),
        ({"type": "unknown"}, ""),
        ({}, "543210"),
    ],
)
async def test_a_page_has_the_matching_notifications(
    backend: Backend, mixed: list[str], query: Any, shown: str
) -> None:
    assert await backend.bodies(**query) == list(shown)
    assert await backend.bodies(order="oldest", **query) == list(reversed(shown))
    for limit in (1, 2):
        walked = await backend.walk("before", limit=limit, **query)
        assert walked == list(shown)
        walked = await backend.walk("after", limit=limit, order="oldest", **query)
        assert walked == list(reversed(shown))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (r"a\,b", "a,b"),
        (r"x,a\,b", "a,b"),
        (r"\\\,", "\\,"),
        ("a\\b", "a\\b"),
        ("\\", "\\"),
    ],
)
async def test_a_type_with_a_comma_is_found(
    backend: Backend, text: str, kind: str
) -> None:
    await backend.say("this", type=kind)
    await backend.say("other", type="a")

    assert await backend.bodies(type=text) == ["this"]


@pytest.mark.parametrize("name", ["type", "priority", "unread", "topic", "order"])
@pytest.mark.parametrize("value", ["", "no such", "x" * 256, ",".join("x" * 33)])
async def test_an_invalid_filter_is_named(
    backend: Backend, name: str, value: str
) -> None:
    answer = await backend.page(**{name: value})

    if name == "type" and value == "no such":
        assert answer.status_code == 200
    else:
        assert answer.status_code == 400
        assert [error["query"] for error in answer.json()["errors"]] == [name]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("limt", "limit"), ("Before", "before"), ("read", "unread"), ("types", "type")],
)
async def test_a_misspelled_parameter_is_refused(
    backend: Backend, name: str, meant: str
) -> None:
    answer = await backend.page(**{name: "1"})

    assert answer.status_code == 400
    problem = f"is not a parameter; did you mean {meant!r}?"
    assert answer.json()["errors"] == [{"query": name, "problem": problem}]


async def test_an_unknown_parameter_is_ignored(backend: Backend) -> None:
    assert (await backend.page(_="17", utm_source="mail")).status_code == 200


async def test_before_requires_newest_first(backend: Backend, mixed: list[str]) -> None:
    answer = await backend.page(order="oldest", before=mixed[2])

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["query"] == "before"


async def test_a_long_search_continues_from_next(backend: Backend) -> None:
    first = await backend.say("first", type="rare")
    for _ in range(2):
        players = {"to": {"players": ["alice"]}, "body": "x", "type": "common"}
        await backend.ask("POST", "/v1/notifications", [players] * 600)

    page = (await backend.page(type="rare")).json()

    assert page["notifications"] == []
    assert page["next"]
    assert await backend.walk("before", type="rare") == ["first"]
    assert await backend.walk("after", type="rare", order="oldest") == ["first"]
    page = (await backend.page(type="common", order="oldest", limit=3)).json()
    assert page["notifications"][0]["id"] > first


@pytest.mark.parametrize(
    "query", [{"type": "a"}, {"order": "oldest"}, {"unread": "true"}, {}]
)
async def test_a_filtered_page_has_its_own_etag(
    backend: Backend, alice: Player, mixed: list[str], query: Any
) -> None:
    etag = (await backend.page(**query)).headers["ETag"]

    again = await backend.page(etag=etag, **query)
    assert (again.status_code, again.headers["ETag"]) == (304, etag)
    assert (await backend.page(etag=etag, type="c")).status_code == 200

    await alice.mark("read", mixed[0])
    assert (await backend.page(etag=etag, **query)).status_code == 200


# Oldest first.


async def test_next_of_the_oldest_page_returns_later_notifications(
    backend: Backend, mixed: list[str]
) -> None:
    page = (await backend.page(order="oldest", limit=5)).json()
    assert [shown["body"] for shown in page["notifications"]] == list("01234")
    assert page["unread"] == 4
    assert "gap" not in page

    await backend.say("6", {"topic": "t"})
    await backend.say("7")

    bodies = await backend.bodies(order="oldest", after=page["next"])
    assert bodies == list("567")


async def test_read_marks_appear_oldest_first_too(
    backend: Backend, mixed: list[str]
) -> None:
    page = (await backend.page(order="oldest")).json()

    read = {n["body"] for n in page["notifications"] if "read_at" in n}
    assert read == {"1", "2"}


@pytest.mark.parametrize("number", range(6))
async def test_a_page_continues_from_an_id(
    backend: Backend, mixed: list[str], number: int
) -> None:
    page = (await backend.page(order="oldest", after=mixed[number])).json()

    rest = [str(i) for i in range(number + 1, 6)]
    assert [shown["body"] for shown in page["notifications"]] == rest
    assert "gap" not in page


async def test_a_cursor_of_a_lost_inbox_is_a_gap(
    backend: Backend, server: Server
) -> None:
    await backend.say("lost")
    cursor = (await backend.page()).json()["cursor"]
    await server.redis.call("DEL", *keys_of().inbox(server.log("alice")))
    await backend.say("new")

    page = (await backend.page(order="oldest", after=cursor)).json()

    assert page["gap"] == "epoch"
    assert [shown["body"] for shown in page["notifications"]] == ["new"]


async def test_a_page_names_a_topic_that_is_damaged(
    backend: Backend, server: Server
) -> None:
    await backend.ask("PUT", f"{ALICE}/topics/news")
    await backend.say("lost", {"topic": "news"})
    before = (await backend.page()).json()["cursor"]
    await backend.say("kept", type="common")
    state = keys_of().inbox(topic_log(server.log("alice").app, Topic("news"))).state
    await server.redis.call("DEL", state)
    await server.redis.call("SET", state, "not a hash")

    page = await backend.page()
    others = [
        await backend.page(order="oldest"),
        await backend.page(order="oldest", after=before),
        await backend.page(unread="true"),
        await backend.page(type="common"),
    ]
    counted = await backend.ask("POST", "/v1/unread", {"players": ["alice"]})
    marked = await backend.ask("POST", f"{ALICE}/notifications/read", {"all": True})

    assert page.status_code == 200
    assert page.json()["unreadable"] == [{"topic": "news"}]
    assert [shown["body"] for shown in page.json()["notifications"]] == ["kept"]
    assert page.json()["unread"] == 1
    for other in others:
        assert other.json()["notifications"] == page.json()["notifications"]
        assert other.json()["unreadable"] == [{"topic": "news"}]
        assert "gap" not in other.json()
    assert counted.json()["unread"] == [{"player": "alice", "unread": 1}]
    assert marked.json() == {"unread": 0}


async def test_a_cursor_that_was_overtaken_is_a_gap(
    start: Start, backend_key: str
) -> None:
    backend = Backend((await start(entries_max=3)).client, backend_key)
    await backend.say("0")
    cursor = (await backend.page()).json()["cursor"]
    for body in "12345":
        await backend.say(body)

    page = (await backend.page(order="oldest", after=cursor)).json()

    assert page["gap"] == "trimmed"
    assert [shown["body"] for shown in page["notifications"]] == list("345")


# Deletion.


@pytest.mark.parametrize("number", range(6))
async def test_a_deleted_notification_is_on_no_page(
    backend: Backend, alice: Player, mixed: list[str], number: int
) -> None:
    for _ in range(2):
        answer = await alice.ask("DELETE", f"/{mixed[number]}")
        assert (answer.status_code, answer.content) == (204, b"")

    rest = [str(i) for i in range(6) if i != number]
    assert await backend.bodies(order="oldest") == rest
    assert (await alice.ask("GET", f"/{mixed[number]}")).status_code == 404


async def test_a_deletion_affects_one_player_only(
    backend: Backend, alice: Player, client: httpx2.AsyncClient, mint: Mint
) -> None:
    await client.get(f"{ME}/notifications", headers=mint.bearer("bob"))
    await backend.bodies()
    sent = await backend.say("x", {"everyone": True})

    await alice.ask("DELETE", f"/{sent}")

    page = await client.get(f"{ME}/notifications", headers=mint.bearer("bob"))
    assert len(page.json()["notifications"]) == 1


async def test_a_backend_deletes_what_it_sent(backend: Backend, alice: Player) -> None:
    sent = await backend.say("x")

    answer = await backend.ask("DELETE", f"{ALICE}/notifications/{sent}")

    assert answer.status_code == 204
    assert await backend.bodies() == []
    assert (await backend.receipt(sent))["state"] == "withdrawn"


async def test_another_caller_deletes_nothing(
    backend: Backend, client: httpx2.AsyncClient, mint: Mint
) -> None:
    sent = await backend.say("x")
    reading = mint.bearer("bob", "notification:player:read")

    answer = await client.delete(f"{ALICE}/notifications/{sent}", headers=reading)

    assert answer.status_code == 403
    assert await backend.bodies() == ["x"]


@pytest.mark.parametrize("unknown", [UNKNOWN, "x"])
async def test_an_unknown_notification_is_not_deleted(
    alice: Player, unknown: str
) -> None:
    assert (await alice.ask("DELETE", f"/{unknown}")).status_code == 404


# Marks and counts.


async def test_a_read_mark_is_removed(
    backend: Backend, alice: Player, mixed: list[str]
) -> None:
    assert await alice.mark("unread", mixed[1], mixed[2], "unknown") == 6

    assert await backend.bodies(unread="true") == list("543210")


@pytest.mark.parametrize("body", [{}, {"ids": "x"}, {"ids": ["x"] * 1_001}, []])
async def test_an_invalid_unmark_removes_nothing(alice: Player, body: Any) -> None:
    assert (await alice.ask("POST", "/unread", body)).status_code == 422


async def test_many_players_are_counted_in_one_call(
    backend: Backend, mixed: list[str]
) -> None:
    await backend.say("x", {"players": ["bob"]})

    players = ["bob", "alice", "nobody", "bob"]
    answer = await backend.ask("POST", "/v1/unread", {"players": players})

    counted = [(one["player"], one["unread"]) for one in answer.json()["unread"]]
    assert counted == [("bob", 1), ("alice", 4), ("nobody", 0), ("bob", 1)]


async def test_every_invalid_name_is_reported(backend: Backend) -> None:
    answer = await backend.ask("POST", "/v1/unread", {"players": ["me", "a", ""]})

    assert answer.status_code == 422
    pointers = [error["pointer"] for error in answer.json()["errors"]]
    assert pointers == ["/players/0", "/players/2"]


async def test_a_player_retrieves_its_own_count_only(
    client: httpx2.AsyncClient, mint: Mint
) -> None:
    headers = mint.bearer("alice")
    for players, status in ((["alice"], 200), (["alice", "bob"], 403)):
        answer = await client.post(
            "/v1/unread", headers=headers, json={"players": players}
        )
        assert answer.status_code == status


# Receipts.


@pytest.mark.parametrize("number", [0, 3, 4])
async def test_a_receipt_has_the_state(
    backend: Backend, alice: Player, mixed: list[str], number: int
) -> None:
    sent = mixed[number]
    receipt = await backend.receipt(sent)
    assert receipt.pop("stored_at").endswith("Z")
    assert receipt == {"id": sent, "state": "stored", "acknowledged": False}

    cursor = (await backend.page()).json()["cursor"]
    answer = await alice.ask("POST", "/ack", {"cursor": cursor})
    assert (answer.status_code, answer.content) == (204, b"")
    receipt = await backend.receipt(sent)
    assert (receipt["state"], receipt["acknowledged"]) == ("acknowledged", True)

    await alice.mark("read", sent)
    receipt = await backend.receipt(sent)
    assert (receipt["state"], receipt["acknowledged"]) == ("read", True)
    assert receipt["read_at"].endswith("Z")


async def test_a_receipt_shows_a_replacement(backend: Backend) -> None:
    first = await backend.say("1", collapse_key="k", ttl_s=60)
    await backend.say("2", collapse_key="k")

    receipt = await backend.receipt(first)

    assert receipt["state"] == "replaced"


@pytest.mark.parametrize("unknown", [UNKNOWN, "x"])
async def test_an_unknown_notification_has_no_receipt(
    backend: Backend, unknown: str
) -> None:
    answer = await backend.ask("GET", f"{ALICE}/notifications/{unknown}/receipt")

    assert answer.status_code == 404


@pytest.mark.parametrize("cursor", ["x", "", "A" * 2_049, 1])
async def test_an_invalid_acknowledgement_is_refused(
    alice: Player, cursor: Any
) -> None:
    answer = await alice.ask("POST", "/ack", {"cursor": cursor})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/cursor"


@pytest.mark.parametrize("by", ["cursor", "id"])
async def test_a_withdrawn_head_of_a_topic_is_acknowledged_and_marked_up_to(
    backend: Backend, alice: Player, mixed: list[str], by: str
) -> None:
    last = await backend.say("last", {"topic": "t"})
    named = last if by == "id" else (await backend.page()).json()["cursor"]
    answer = await backend.ask("DELETE", f"/v1/topics/t/notifications/{last}")
    assert answer.status_code == 204

    assert (await alice.ask("POST", "/ack", {"cursor": named})).status_code == 204
    marked = await alice.ask("POST", "/read", {"up_to": named})

    assert marked.json() == {"unread": 0}
    for sent in mixed:
        assert (await backend.receipt(sent))["acknowledged"]
