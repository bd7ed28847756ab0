"""Pages of the native surface that wait for the first notification."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from redis.exceptions import ResponseError
from starlette.types import Message

from streamer.store.keys import keys_of
from streamer.surfaces.native.inboxes import routes
from streamer.transports.streams.longpoll import wait_for_entry

from ..conftest import Mint, Server, Start, Until

HELD_S = 45
"""A wait that no test sits out: a poll that is held longer has failed."""
ALICE = "/v1/players/alice"
PAGE = f"{ALICE}/notifications"


class World:
    """A backend that publishes, and the player alice, on one server."""

    def __init__(self, server: Server, mint: Mint, backend_key: str) -> None:
        self.server = server
        self.client = server.client
        self.backend = {"Authorization": f"Bearer {backend_key}"}
        self.alice = mint.bearer("alice")

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.client.request(
            method, path, headers=self.backend, json=body
        )
        assert answer.is_success, answer.text
        return answer

    async def say(self, text: str, to: Any = None, **message: Any) -> str:
        body = {"to": to or {"players": ["alice"]}, "body": text, **message}
        answer = await self.ask("POST", "/v1/notifications", body)
        notification_id: str = answer.json()["results"][0]["id"]
        return notification_id

    async def page(
        self,
        *,
        headers: dict[str, str] | None = None,
        etag: str = "",
        order: str = "oldest",
        **query: Any,
    ) -> Any:
        sent = headers or self.alice
        if etag:
            sent = {**sent, "If-None-Match": etag}
        query = {"order": order, **query}
        return await self.client.get(PAGE, headers=sent, params=query)

    async def cursor(self) -> str:
        """Return the cursor after everything."""
        page = await self.client.get(PAGE, headers=self.alice, params={"limit": 1})
        cursor: str = page.json()["cursor"]
        return cursor

    def hold(self, **query: Any) -> asyncio.Task[Any]:
        """Begin a poll."""
        return asyncio.create_task(self.page(**{"wait_s": HELD_S, **query}))

    async def leases(self) -> int:
        return await self.server.leases("alice")


def bodies(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["body"] for item in answer.json()["notifications"]]


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json().get("limit") or answer.json()["title"]


@pytest.fixture
def world(server: Server, mint: Mint, backend_key: str) -> World:
    return World(server, mint, backend_key)


@pytest_asyncio.fixture(loop_scope="module")
async def other_world(start: Start, mint: Mint, backend_key: str) -> Callable[..., Any]:
    """Return a function that starts a world with settings of its own."""

    async def other_world(**settings: Any) -> World:
        return World(await start(**settings), mint, backend_key)

    return other_world


# What there is.


async def test_what_follows_the_cursor_is_answered_at_once(world: World) -> None:
    cursor = await world.cursor()
    await world.say("a")
    await world.say("b")

    answer = await world.page(after=cursor, wait_s=HELD_S, limit=1)
    assert bodies(answer) == ["a"]
    answer = await world.page(after=answer.json()["next"], wait_s=HELD_S)

    assert bodies(answer) == ["b"]
    assert answer.json()["next"] is None
    assert await world.leases() == 0


async def test_without_a_cursor_a_poll_begins_with_the_oldest(world: World) -> None:
    await world.say("a")

    assert bodies(await world.page(wait_s=HELD_S)) == ["a"]


async def test_a_cursor_older_than_what_is_kept_has_a_gap_at_once(
    other_world: Any,
) -> None:
    world = await other_world(entries_max=3)
    old = await world.say("0")
    for text in "12345":
        await world.say(text)

    answer = await world.page(after=old, wait_s=HELD_S)

    assert answer.json()["gap"] == "trimmed"
    assert bodies(answer) == ["3", "4", "5"]


async def test_wait_s_has_limits(world: World) -> None:
    await world.say("a")

    for good in ("0", "45"):
        assert bodies(await world.page(wait_s=good)) == ["a"]
    for bad in ("-1", "46", "", "x", "1.5", "9" * 30):
        answer = await world.page(wait_s=bad)
        assert answer.status_code == 400, bad
        (error,) = answer.json()["errors"]
        assert error["query"] == "wait_s"


async def test_a_wait_requires_oldest_first(world: World) -> None:
    answer = await world.page(order="newest", wait_s=1)

    assert answer.status_code == 400
    assert answer.json()["errors"] == [
        {"query": "wait_s", "problem": "requires order=oldest"}
    ]


# Waiting.


async def test_a_publish_wakes_a_poll(world: World, until: Until) -> None:
    held = world.hold(after=await world.cursor())
    await until(world.leases)

    await world.say("a")
    answer = await held

    assert bodies(answer) == ["a"]
    assert answer.json()["unread"] == 1
    assert await world.leases() == 0
    assert world.server.app.admission.open == 0
    await world.say("b")
    answer = await world.page(after=answer.json()["cursor"], wait_s=HELD_S)
    assert bodies(answer) == ["b"]


async def test_a_poll_of_an_inbox_that_never_had_anything_is_woken(
    world: World, until: Until
) -> None:
    held = world.hold()
    await until(world.leases)

    await world.say("a")

    assert bodies(await held) == ["a"]


@pytest.mark.parametrize("to", [{"everyone": True}, {"topic": "news"}])
async def test_an_audience_wakes_a_poll(world: World, until: Until, to: Any) -> None:
    await world.ask("PUT", f"{ALICE}/topics/news")
    held = world.hold(after=await world.cursor())
    await until(world.leases)

    await world.say("a", to)
    answer = await held

    assert bodies(answer) == ["a"]
    assert answer.json()["unread"] == 1


async def test_a_topic_that_is_joined_during_the_wait_wakes_the_poll(
    world: World, until: Until
) -> None:
    held = world.hold(after=await world.cursor(), type="x")
    await until(world.leases)
    await world.ask("PUT", f"{ALICE}/topics/news")

    await world.say("a", {"topic": "news"}, type="x")

    assert bodies(await held) == ["a"]


async def test_a_notification_too_large_to_be_announced_wakes_a_poll(
    world: World, until: Until
) -> None:
    held = world.hold(after=await world.cursor())
    await until(world.leases)

    await world.say("a", data="x" * 60_000)

    assert bodies(await held) == ["a"]


async def test_the_wait_ends_with_an_empty_page_to_continue_from(world: World) -> None:
    await world.say("before")
    cursor = await world.cursor()
    begun_s = time.monotonic()

    answer = await world.page(after=cursor, wait_s=1)

    assert time.monotonic() - begun_s >= 0.99
    assert bodies(answer) == []
    assert answer.json()["next"] is None
    assert answer.json()["unread"] == 1
    await world.say("a")
    assert bodies(await world.page(after=answer.json()["cursor"])) == ["a"]


async def test_a_chain_of_polls_gets_everything_once(world: World) -> None:
    total = 40
    at = await world.cursor()

    async def publish() -> None:
        for i in range(total):
            await world.say(str(i), {"everyone": True} if i % 3 == 0 else None)

    publishing = asyncio.create_task(publish())
    seen: list[str] = []
    while len(seen) < total:
        answer = await world.page(after=at, wait_s=HELD_S, limit=3)
        seen += bodies(answer)
        page = answer.json()
        if page["next"] is None:
            assert page["unread"] == len(seen)
        at = page["next"] or page["cursor"]
    await publishing

    assert sorted(seen, key=int) == [str(i) for i in range(total)]


async def test_a_mark_elsewhere_answers_a_poll_with_the_new_count(
    world: World, until: Until
) -> None:
    await world.say("a")
    cursor = await world.cursor()
    held = world.hold(after=cursor)
    await until(world.leases)

    await world.ask("POST", f"{PAGE}/read", {"all": True})
    answer = await held

    assert bodies(answer) == []
    assert answer.json()["unread"] == 0


@pytest.mark.parametrize("to", [None, {"everyone": True}])
async def test_a_withdrawal_answers_a_poll_with_the_new_count(
    world: World, until: Until, to: Any
) -> None:
    await world.cursor()
    name = await world.say("a", to)
    held = world.hold(after=await world.cursor())
    await until(world.leases)

    await world.ask("DELETE", f"{PAGE}/{name}")
    answer = await held

    assert bodies(answer) == []
    assert answer.json()["unread"] == 0
    await world.say("b")
    assert bodies(await world.page(after=answer.json()["cursor"])) == ["b"]


async def test_a_filtered_poll_waits_for_what_matches(
    world: World, until: Until
) -> None:
    held = world.hold(after=await world.cursor(), type="wanted")
    await until(world.leases)

    await world.say("a", type="other")
    await world.ask("POST", f"{PAGE}/read", {"all": True})
    await world.say("b", type="wanted")
    await world.say("c", type="other")

    assert bodies(await held) == ["b"]


async def test_a_poll_for_what_is_unread_gets_what_becomes_unread(
    world: World, until: Until
) -> None:
    cursor = await world.cursor()
    name = await world.say("a")
    await world.ask("POST", f"{PAGE}/read", {"all": True})
    held = world.hold(after=cursor, unread="true")
    await until(world.leases)

    await world.ask("POST", f"{PAGE}/unread", {"ids": [name]})

    assert bodies(await held) == ["a"]


# ETags.


async def test_a_known_page_counts_as_empty(world: World, until: Until) -> None:
    await world.say("a")
    etag = (await world.page(wait_s=HELD_S)).headers["ETag"]
    held = world.hold(etag=etag)
    await until(world.leases)

    await world.say("b")
    answer = await held

    assert bodies(answer) == ["a", "b"]
    assert answer.headers["ETag"] != etag


async def test_a_wait_without_a_change_ends_with_304(world: World) -> None:
    etag = (await world.page()).headers["ETag"]

    answer = await world.page(etag=etag, wait_s=1)

    assert answer.status_code == 304
    assert answer.headers["ETag"] == etag


async def test_a_mark_between_two_polls_is_told_at_once(world: World) -> None:
    await world.say("a")
    page = await world.page()
    cursor, etag = page.json()["cursor"], page.headers["ETag"]
    await world.ask("POST", f"{PAGE}/read", {"all": True})

    answer = await world.page(after=cursor, etag=etag, wait_s=HELD_S)

    assert bodies(answer) == []
    assert answer.json()["unread"] == 0


# Who may wait, and for how long.


async def test_a_poll_ends_with_its_token(world: World, mint: Mint) -> None:
    # Two seconds short of the end of the leeway.
    token = mint.bearer("alice", ttl_s=100, at_s=int(time.time()) - 128)

    answer = await world.page(headers=token, wait_s=HELD_S)

    assert bodies(answer) == []


async def test_a_backend_key_may_wait_for_any_player(
    world: World, until: Until
) -> None:
    held = world.hold(headers=world.backend)
    await until(world.leases)

    await world.say("a")

    assert bodies(await held) == ["a"]


async def test_a_player_may_not_wait_for_another(world: World, mint: Mint) -> None:
    answer = await world.page(headers=mint.bearer("bob"), wait_s=HELD_S)

    assert answer.status_code == 403


# What fails.


async def test_a_damaged_log_fails_as_for_a_page(world: World) -> None:
    await world.say("a")
    key = keys_of().state(world.server.log("alice"))
    await world.server.redis.call("SET", key, "damaged")

    for wait_s in (0, HELD_S):
        with pytest.raises(ResponseError):
            await world.page(wait_s=wait_s)

    assert await world.leases() == 0


async def test_damage_that_is_met_during_the_wait_ends_it(
    world: World, until: Until
) -> None:
    held = world.hold(after=await world.cursor())
    await until(world.leases)
    log = world.server.log("alice")
    await world.server.redis.call("SET", keys_of().state(log), "damaged")

    world.server.app.admission._catch_up.on_read(log, marks=1, body=b"")
    with pytest.raises(ResponseError):
        await held

    assert await world.leases() == 0
    assert world.server.app.admission.open == 0


async def test_a_poll_of_an_erased_player_reads_nothing_more(
    world: World, until: Until
) -> None:
    held = world.hold()
    await until(world.leases)

    alice = world.server.log("alice")
    await world.server.app._components.erasing.erase_for("cli root", alice)

    assert (await held).status_code == 401
    views = world.server.redis.keys.views(alice)
    assert await world.server.redis.call("EXISTS", views) == 0


# Slots.


async def test_only_a_poll_that_waits_occupies_a_slot(
    other_world: Any, until: Until
) -> None:
    world = await other_world(listeners_per_player_max=1, connections_max=1)
    cursor = await world.cursor()
    held = world.hold(after=cursor)
    await until(world.leases)

    refused = await world.page(after=cursor, wait_s=HELD_S)
    assert problem(refused) in {
        (409, "listeners_per_player"),
        (503, "connections_per_node"),
    }
    assert bodies(await world.page(after=cursor)) == []
    await world.say("a")
    assert bodies(await held) == ["a"]
    assert bodies(await world.page(after=cursor, wait_s=HELD_S)) == ["a"]


async def test_a_poll_over_the_limit_of_its_player_is_refused(
    other_world: Any, until: Until
) -> None:
    world = await other_world(listeners_per_player_max=1)
    held = world.hold()
    await until(world.leases)

    refused = await world.page(wait_s=HELD_S)

    assert problem(refused) == (409, "listeners_per_player")
    assert int(refused.headers["Retry-After"]) > 0
    await world.say("a")
    assert bodies(await held) == ["a"]


async def test_a_full_node_refuses(other_world: Any, mint: Mint, until: Until) -> None:
    world = await other_world(connections_max=1)
    held = world.hold()
    await until(world.leases)

    refused = await world.client.get(
        "/v1/players/me/notifications",
        headers=mint.bearer("bob"),
        params={"order": "oldest", "wait_s": HELD_S},
    )

    assert problem(refused) == (503, "connections_per_node")
    assert int(refused.headers["Retry-After"]) > 0
    await world.say("a")
    assert bodies(await held) == ["a"]


async def test_a_poll_that_waits_is_no_request_in_flight(
    other_world: Any, until: Until
) -> None:
    world = await other_world(requests_per_player_max=1)
    held = world.hold()
    await until(world.leases)

    async def another_is_served() -> bool:
        return bool((await world.page()).status_code == 200)

    # The poll itself reads when it has begun to wait.
    await until(another_is_served)
    assert not held.done()
    await world.say("a")
    assert bodies(await held) == ["a"]


async def test_a_client_that_disconnects_frees_its_slot(
    world: World, until: Until
) -> None:
    gone = asyncio.Event()
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await gone.wait()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pass

    scope = {
        "type": "http",
        "method": "GET",
        "path": PAGE,
        "query_string": b"order=oldest&wait_s=45",
        "headers": [
            (name.lower().encode(), value.encode())
            for name, value in world.alice.items()
        ],
    }
    serving = asyncio.ensure_future(world.server.app.asgi(scope, receive, send))
    await until(world.leases)

    gone.set()
    await asyncio.wait_for(serving, HELD_S)

    assert await world.leases() == 0
    assert world.server.app.admission.open == 0
    assert world.server.readers("alice") == 0


async def test_a_poll_that_is_cancelled_frees_its_slot(
    world: World, until: Until
) -> None:
    held = world.hold()
    await until(world.leases)

    held.cancel()

    async def is_freed() -> bool:
        return not (await world.leases() or world.server.app.admission.open)

    await until(is_freed)
    assert world.server.readers("alice") == 0


async def test_a_draining_node_answers_polls_and_refuses_others(
    other_world: Any, until: Until
) -> None:
    world = await other_world(drain_s=0)
    held = world.hold(wait_s=45)
    await until(world.leases)

    await asyncio.wait_for(world.server.app.drain(), HELD_S)
    answer = await asyncio.wait_for(held, HELD_S)

    assert bodies(answer) == []
    assert answer.json()["cursor"]
    refused = await world.page(wait_s=HELD_S)
    assert problem(refused) == (503, "draining")
    assert int(refused.headers["Retry-After"]) > 0


async def test_a_poll_is_answered_over_a_connection_of_its_own(
    world: World, until: Until
) -> None:
    port = await world.server.listen()
    url = f"http://127.0.0.1:{port}{PAGE}"
    query: dict[str, Any] = {"order": "oldest", "wait_s": HELD_S}
    async with httpx2.AsyncClient(headers=world.alice, timeout=HELD_S) as client:
        held = asyncio.create_task(client.get(url, params=query))
        await until(world.leases)
        await world.say("a")
        assert bodies(await held) == ["a"]

        cursor = (await held).json()["cursor"]
        held = asyncio.create_task(client.get(url, params={**query, "after": cursor}))
        await until(world.leases)
        held.cancel()

        async def is_freed() -> bool:
            return not await world.leases()

        await until(is_freed)


async def test_a_mark_between_the_first_look_and_the_wait_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.say("a")
    cursor = await world.cursor()

    async def mark_first(*args: Any, **options: Any) -> bool:
        await world.ask("POST", f"{PAGE}/read", {"all": True})
        return await wait_for_entry(*args, **options)

    monkeypatch.setattr(routes, "wait_for_entry", mark_first)
    async with asyncio.timeout(HELD_S / 2):
        answer = await world.page(after=cursor, wait_s=HELD_S)

    assert bodies(answer) == []
    assert answer.json()["unread"] == 0
