from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from ..conftest import AddKey, Mint, Start

MIB = 1_048_576
PUBLISH = "/v1/notifications"


def inbox(player: str = "me") -> str:
    return f"/v1/players/{player}/notifications"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def assert_problem(answer: Any, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"about:{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    return problem


class Backend:
    """A studio's backend, which publishes."""

    def __init__(self, client: Any, key: str) -> None:
        self.client = client
        self.headers = bearer(key)

    async def publish(self, *players: str, key: str = "", **message: Any) -> Any:
        headers = {**self.headers, **({"Idempotency-Key": key} if key else {})}
        body = {"to": {"players": list(players)}, **message}
        return await self.client.post(PUBLISH, headers=headers, json=body)

    async def post(self, body: bytes, **headers: str) -> Any:
        sent = {**self.headers, "content-type": "application/json", **headers}
        return await self.client.post(PUBLISH, headers=sent, content=body)

    async def say(self, player: str, *bodies: str) -> list[str]:
        """Publish one notification per body; return the ids."""
        ids = []
        for body in bodies:
            answer = await self.publish(player, body=body)
            assert answer.status_code == 200, answer.text
            ids.append(answer.json()["results"][0]["id"])
        return ids


class Reader:
    """A player's client."""

    def __init__(self, client: Any, headers: dict[str, str]) -> None:
        self.client = client
        self.headers = headers

    async def page(self, *, etag: str = "", **query: Any) -> Any:
        headers = {**self.headers, **({"If-None-Match": etag} if etag else {})}
        return await self.client.get(inbox(), headers=headers, params=query)

    async def one(self, notification_id: str) -> Any:
        url = f"{inbox()}/{notification_id}"
        return await self.client.get(url, headers=self.headers)

    async def read(self, **what: Any) -> Any:
        return await self.client.post(
            f"{inbox()}/read", headers=self.headers, json=what
        )

    async def unread(self) -> int:
        count: int = (await self.page()).json()["unread"]
        return count


@pytest.fixture
def backend(client: httpx2.AsyncClient, backend_key: str) -> Backend:
    return Backend(client, backend_key)


@pytest.fixture
def alice(client: httpx2.AsyncClient, mint: Mint) -> Reader:
    return Reader(client, mint.bearer("alice"))


def bodies(page: Any) -> list[str]:
    assert page.status_code == 200, page.text
    return [shown["body"] for shown in page.json()["notifications"]]


# Publishing.


async def test_a_published_notification_is_read_unchanged(
    backend: Backend, alice: Reader
) -> None:
    sent: dict[str, Any] = {
        "type": "t",
        "title": "T\r\n\x00",
        "body": "",
        "data": {"any": [1, None, {"é": 2.5}], "big": 2**64 - 1},
        "properties": [{"key": "k", "value": "1"}, {"key": "k", "value": "2"}],
        "priority": "emergency",
        "resource": {"url": "/r", "etag": "e"},
    }
    (result,) = (await backend.publish("alice", **sent)).json()["results"]

    assert result["to"] == "alice"
    shown = (await alice.one(result["id"])).json()
    assert {name: shown[name] for name in sent} == sent
    assert shown["id"] == result["id"]
    assert shown["created_at"].endswith("Z")
    assert shown["source"] == "native"


async def test_null_data_is_a_value(backend: Backend, alice: Reader) -> None:
    await backend.publish("alice", data=None)

    (shown,) = (await alice.page()).json()["notifications"]

    assert shown["data"] is None


async def test_results_come_in_the_order_of_the_request(backend: Backend) -> None:
    answer = await backend.publish("b", "a", "b", body="x")

    results = answer.json()["results"]
    assert [result["to"] for result in results] == ["b", "a", "b"]
    assert results[0]["id"] == results[2]["id"] != results[1]["id"]


async def test_a_player_publishes_only_to_itself(
    client: httpx2.AsyncClient, mint: Mint
) -> None:
    alice = mint("alice")

    assert (await Backend(client, alice).publish("alice", body="x")).status_code == 200
    answer = await Backend(client, alice).publish("alice", "bob", body="x")
    assert_problem(answer, 403, "forbidden")
    assert (await Reader(client, mint.bearer("bob")).unread()) == 0


async def test_a_repetition_with_its_key_is_not_stored_again(
    backend: Backend, alice: Reader
) -> None:
    first = await backend.publish("alice", body="x", key="k")
    again = await backend.publish("alice", body="x", key="k")

    assert again.json() == first.json()
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert bodies(await alice.page()) == ["x"]


async def test_a_key_of_another_request_is_a_conflict(
    backend: Backend, alice: Reader
) -> None:
    await backend.publish("alice", body="x", key="k")

    for players, body in ((["alice"], "y"), (["alice", "bob"], "x"), (["bob"], "x")):
        answer = await backend.publish(*players, body=body, key="k")
        assert_problem(answer, 422, "idempotency-key-reuse")
    assert bodies(await alice.page()) == ["x"]


async def test_concurrent_duplicates_are_stored_once(
    backend: Backend, alice: Reader
) -> None:
    answers = await asyncio.gather(
        *(backend.publish("alice", "bob", body="x", key="k") for _ in range(10))
    )

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert bodies(await alice.page()) == ["x"]


async def test_one_of_concurrent_requests_with_one_key_wins(
    backend: Backend, alice: Reader
) -> None:
    answers = await asyncio.gather(
        *(backend.publish("alice", body=str(i), key="k") for i in range(10))
    )

    assert sorted(answer.status_code for answer in answers) == [200, *[422] * 9]
    assert len(bodies(await alice.page())) == 1


async def test_keys_of_apps_are_separate(
    client: httpx2.AsyncClient, backend: Backend, add_key: AddKey
) -> None:
    other = Backend(client, await add_key(app="other"))

    first = await backend.publish("alice", body="x", key="k")
    second = await other.publish("alice", body="y", key="k")

    assert first.status_code == second.status_code == 200
    assert "Idempotent-Replayed" not in second.headers


# Pages.


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_next_visits_every_entry_once(
    backend: Backend, alice: Reader, limit: int
) -> None:
    await backend.say("alice", *"0123456")

    page = await alice.page(limit=limit)
    walked = bodies(page)
    while (before := page.json()["next"]) is not None:
        page = await alice.page(limit=limit, before=before)
        assert 1 <= len(bodies(page)) <= limit
        walked += bodies(page)

    assert walked == list("6543210")


async def test_before_and_after_are_exclusive(backend: Backend, alice: Reader) -> None:
    ids = await backend.say("alice", *"01234")

    assert bodies(await alice.page(before=ids[2])) == ["1", "0"]
    assert bodies(await alice.page(after=ids[2])) == ["4", "3"]
    assert bodies(await alice.page(before=ids[3], after=ids[0])) == ["2", "1"]
    assert bodies(await alice.page(before=ids[0])) == []


async def test_a_page_has_the_cursor_of_its_head(
    backend: Backend, alice: Reader
) -> None:
    await backend.say("alice", "a")
    cursor = (await alice.page()).json()["cursor"]

    await backend.say("alice", "b")

    assert bodies(await alice.page(after=cursor)) == ["b"]


async def test_an_empty_inbox_has_a_page(alice: Reader) -> None:
    page = (await alice.page()).json()

    assert page["notifications"] == []
    assert page["next"] is None
    assert page["unread"] == 0
    assert page["cursor"]


async def test_a_cached_page_is_not_sent_again(backend: Backend, alice: Reader) -> None:
    await backend.say("alice", "a")
    etag = (await alice.page()).headers["ETag"]

    for tag in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        again = await alice.page(etag=tag)
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["ETag"] == etag


@pytest.mark.parametrize("change", ["publish", "mark"])
async def test_every_visible_change_changes_the_etag(
    backend: Backend, alice: Reader, change: str
) -> None:
    await backend.say("alice", "a")
    etag = (await alice.page()).headers["ETag"]

    if change == "publish":
        await backend.say("alice", "b")
    else:
        await alice.read(all=True)

    assert (await alice.page(etag=etag)).status_code == 200


@pytest.mark.parametrize("limit", ["0", "101", "-1", "", "x", "1.0", "9" * 30])
async def test_limit_has_limits(alice: Reader, limit: str) -> None:
    problem = assert_problem(await alice.page(limit=limit), 400, "invalid")

    assert problem["errors"][0]["query"] == "limit"


@pytest.mark.parametrize("name", ["before", "after"])
@pytest.mark.parametrize(
    "cursor", ["x", "A" * 26, "A" * 28, "!" * 27, "A" * 5000, "\x00", "é" * 27]
)
async def test_hostile_cursors_are_refused(
    alice: Reader, name: str, cursor: str
) -> None:
    problem = assert_problem(await alice.page(**{name: cursor}), 400, "invalid")

    assert problem["errors"][0]["query"] == name


@pytest.mark.parametrize(
    "hostile", ["x", "%00", "%C3%BF", "A" * 27, "A" * 5000, "read"]
)
async def test_an_unknown_id_is_not_found(alice: Reader, hostile: str) -> None:
    assert_problem(await alice.one(hostile), 404, "not-found")


# Marks.


async def test_marking_by_ids(backend: Backend, alice: Reader) -> None:
    ids = await backend.say("alice", *"abc")

    answer = await alice.read(ids=[ids[0], ids[2], "unknown", ids[0].upper()])

    assert answer.json() == {"unread": 1}
    shown = {
        n["id"]: "read_at" in n for n in (await alice.page()).json()["notifications"]
    }
    assert shown == {ids[0]: True, ids[1]: False, ids[2]: True}
    assert (await alice.one(ids[0])).json()["read_at"].endswith("Z")


async def test_marking_up_to_a_cursor(backend: Backend, alice: Reader) -> None:
    ids = await backend.say("alice", *"abc")

    assert (await alice.read(up_to=ids[1])).json() == {"unread": 1}
    assert (await alice.read(up_to=ids[0])).json() == {"unread": 1}


async def test_marking_all(backend: Backend, alice: Reader) -> None:
    await backend.say("alice", *"abc")

    assert (await alice.read(all=True)).json() == {"unread": 0}
    await backend.say("alice", "d")
    assert await alice.unread() == 1


async def test_marks_are_idempotent(backend: Backend, alice: Reader) -> None:
    ids = await backend.say("alice", *"ab")
    await alice.read(ids=ids[:1])
    first = (await alice.one(ids[0])).json()["read_at"]

    assert (await alice.read(ids=ids[:1])).json() == {"unread": 1}
    await alice.read(all=True)

    assert (await alice.one(ids[0])).json()["read_at"] == first


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"all": False},
        {"all": True, "ids": []},
        {"ids": "x"},
        {"ids": [1]},
        {"ids": None},
        {"ids": ["x"] * 1_001},
        {"up_to": "x"},
        {"up_to": ""},
        {"some": True},
    ],
)
async def test_an_invalid_mark_marks_nothing(
    backend: Backend, alice: Reader, what: Any
) -> None:
    await backend.say("alice", "a")

    assert_problem(await alice.read(**what), 422, "invalid")
    assert await alice.unread() == 1


async def test_marks_of_another_player_require_the_right_to_write(
    client: httpx2.AsyncClient, mint: Mint, backend: Backend, alice: Reader
) -> None:
    await backend.say("alice", "a")
    reading = mint.bearer("bob", "notification:player:read")

    answer = await client.post(
        f"{inbox('alice')}/read", headers=reading, json={"all": True}
    )

    assert_problem(answer, 403, "forbidden")
    assert await alice.unread() == 1


# Invalid requests.


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 400, "malformed"),
        (b"{", 400, "malformed"),
        (b"\xef\xbb\xbf{}", 422, "invalid"),
        (b'{"to":{"players":["a"]},"body":"\xff"}', 400, "malformed"),
        (b'{"to":{"players":["a"]},"body":"\\ud800"}', 400, "malformed"),
        (b'{"to":{"players":["a"]},"data":"\\udc00\\ud800"}', 400, "malformed"),
        (b'{"to":{"players":["a"]},"data":NaN}', 400, "malformed"),
        (
            b'{"to":{"players":["a"]},"data":%b%b}' % (b"[" * 9999, b"]" * 9999),
            400,
            "malformed",
        ),
        (
            b'{"to":{"players":["a"]},"data":%b%b}' % (b"[" * 65, b"]" * 65),
            422,
            "invalid",
        ),
        (b'{"to":{"players":["a"]},"data":18446744073709551616}', 422, "invalid"),
        (b'{"to":{"players":["a"]},"data":%b}' % (b"9" * 5000), 422, "invalid"),
        (b"null", 422, "invalid"),
        (b"[]", 422, "invalid"),
        (b"{}", 422, "invalid"),
        (b'{"to":{"players":["a"]}}', 422, "invalid"),
        (b'{"to":{"players":["a"]},"body":1}', 422, "invalid"),
        (b'{"to":{"players":["a"]},"body":"x","priority":"no"}', 422, "invalid"),
        (b'{"to":{"players":["a"]},"body":"x","unknown":1}', 422, "invalid"),
        (b'{"to":{"players":[]},"body":"x"}', 422, "invalid"),
        (b'{"to":{"players":["a","me"]},"body":"x"}', 422, "invalid"),
        (b'{"to":{"players":["a\\u0000"]},"body":"x"}', 422, "invalid"),
        (b'{"to":{"players":["a"]},"data":"%b"}' % (b"x" * 65_536), 422, "invalid"),
    ],
)
async def test_hostile_bodies_are_refused_and_nothing_is_stored(
    backend: Backend,
    client: httpx2.AsyncClient,
    mint: Mint,
    body: bytes,
    status: int,
    kind: str,
) -> None:
    assert_problem(await backend.post(body), status, kind)

    assert await Reader(client, mint.bearer("a")).unread() == 0


async def test_a_problem_has_a_pointer_to_the_field(backend: Backend) -> None:
    wrong_type = await backend.publish("alice", body="x", properties=[{"key": 1}])
    wrong_player = await backend.publish("alice", "me", "\x7f", body="x")

    pointers = [error["pointer"] for error in wrong_type.json()["errors"]]
    assert pointers == ["/properties/0/key", "/properties/0/value"]
    pointers = [error["pointer"] for error in wrong_player.json()["errors"]]
    assert pointers == ["/to/players/1", "/to/players/2"]


@pytest.mark.parametrize(
    ("member", "limit"), [("type", 255), ("title", 1_000), ("body", 4_096)]
)
async def test_strings_have_limits(backend: Backend, member: str, limit: int) -> None:
    fits = {member: "\U0001f600" * limit}
    one_more = {member: "x" * (limit + 1)}

    assert (await backend.publish("alice", **fits)).status_code == 200
    answer = await backend.publish("alice", **one_more)
    problem = assert_problem(answer, 422, "invalid")
    assert problem["errors"][0]["pointer"] == f"/{member}"


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_two_mib_is_too_large(
    backend: Backend, declared: bool
) -> None:
    async def chunks() -> Any:
        for _ in range(3):
            yield b" " * MIB

    body: Any = b" " * (2 * MIB + 1) if declared else chunks()

    assert_problem(await backend.post(body), 413, "too-large")


@pytest.mark.parametrize(
    "headers", [{"content-type": "text/plain"}, {"content-encoding": "gzip"}]
)
async def test_other_media_are_unsupported(
    backend: Backend, headers: dict[str, str]
) -> None:
    assert_problem(await backend.post(b"{}", **headers), 415, "unsupported-media")


@pytest.mark.parametrize("key", ["", "x" * 256, "\x7f"])
async def test_an_idempotency_key_has_limits(backend: Backend, key: str) -> None:
    answer = await backend.post(
        b'{"to":{"players":["a"]},"body":"x"}', **{"idempotency-key": key}
    )

    problem = assert_problem(answer, 400, "invalid")
    assert problem["errors"][0]["header"] == "Idempotency-Key"


@pytest.mark.parametrize("player", ["%00", "%ff%00", "x" * 129, "a%1Bb", ""])
async def test_hostile_player_names_are_refused(
    client: httpx2.AsyncClient, backend_key: str, player: str
) -> None:
    answer = await client.get(inbox(player), headers=bearer(backend_key))

    assert_problem(answer, 400, "invalid")


@pytest.mark.parametrize("player", ["a%2Fb", "é", "%F0%9F%98%80", "a:b{c}", "*", ".x"])
async def test_unusual_player_names_are_valid(
    client: httpx2.AsyncClient, backend: Backend, player: str
) -> None:
    url = inbox(player)
    name = client.build_request("GET", url).url.path.split("/", 3)[3]
    name = name.removesuffix("/notifications")

    await backend.say(name, "x")

    assert bodies(await client.get(url, headers=backend.headers)) == ["x"]


# Apps and access.


async def test_inboxes_of_another_app_are_invisible(
    client: httpx2.AsyncClient,
    mint: Mint,
    backend: Backend,
    alice: Reader,
    add_key: AddKey,
) -> None:
    (mine,) = await backend.say("alice", "a")
    other = Reader(client, mint.bearer("alice", app="other"))
    other_key = bearer(await add_key(app="other"))

    assert bodies(await other.page()) == []
    assert_problem(await other.one(mine), 404, "not-found")
    assert (await other.read(ids=[mine])).json() == {"unread": 0}
    assert bodies(await client.get(inbox("alice"), headers=other_key)) == []
    assert await alice.unread() == 1


async def test_no_credential_is_401(client: httpx2.AsyncClient) -> None:
    for answer in (await client.get(inbox()), await client.post(PUBLISH, json={})):
        problem = assert_problem(answer, 401, "unauthenticated")
        assert problem["defect"] == "missing"
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_backend_key_is_not_a_player(
    client: httpx2.AsyncClient, backend_key: str
) -> None:
    answer = await client.get(inbox(), headers=bearer(backend_key))

    assert_problem(answer, 403, "forbidden")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://here", 200),
        ("https://game.example", 200),
        ("https://evil.example", 403),
        ("null", 403),
        (None, 403),
    ],
)
async def test_a_post_with_a_cookie_needs_an_origin(
    start: Start, mint: Mint, origin: str | None, status: int
) -> None:
    server = await start(allowed_origins=("https://game.example",))
    headers = {"Cookie": f"Authorization=bearer {mint('alice')}"}
    if origin:
        headers["Origin"] = origin

    answer = await server.client.post(
        f"{inbox()}/read", headers=headers, json={"all": True}
    )

    assert answer.status_code == status


async def test_a_get_with_a_cookie_needs_no_origin(
    client: httpx2.AsyncClient, mint: Mint
) -> None:
    cookie = {"Cookie": f"Authorization=bearer {mint('alice')}"}

    assert (await client.get(inbox(), headers=cookie)).status_code == 200


async def test_unknown_paths_are_problems(client: httpx2.AsyncClient) -> None:
    assert_problem(await client.get("/v1/nothing"), 404, "not-found")
    assert_problem(await client.get(PUBLISH), 405, "not-allowed")
