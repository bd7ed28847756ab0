"""The client and the commands against a real server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import httpx2
import msgspec
import pytest

from streamer_client import (
    Client,
    CursorMoved,
    Gap,
    Notification,
    Property,
    Read,
    Refused,
    Rejected,
    Resource,
    Stream,
    Token,
    TokenExpired,
    Unread,
)

from .conftest import Running
from .proxy import LosingProxy

Serve = Callable[..., Awaitable[Running]]
GUARD_S = 60
COUNTS_AND_CURSORS = Unread | Read | CursorMoved


@pytest.fixture
async def server(serve_streams: Serve) -> Running:
    return await serve_streams()


@pytest.fixture
async def backend(server: Running) -> AsyncIterator[Client]:
    async with Client(server.url, token=server.key) as client:
        yield client


@pytest.fixture
async def alice(server: Running) -> AsyncIterator[Client]:
    async with Client(server.url, token=server.token("alice")) as client:
        yield client


async def take(stream: Stream, count: int) -> list[Notification]:
    """Take `count` notifications, without a gap among them."""
    taken = []
    async with asyncio.timeout(GUARD_S):
        for _ in range(count):
            event = await anext(stream)
            while isinstance(event, COUNTS_AND_CURSORS):
                event = await anext(stream)
            assert isinstance(event, Notification)
            taken.append(event)
    return taken


async def publish(client: Client, *titles: str) -> list[str]:
    sent = [(await client.publish("alice", title=title))[0].id for title in titles]
    return [id for id in sent if id is not None]


async def test_what_is_published_arrives_whole(backend: Client, alice: Client) -> None:
    stream = alice.notifications("earliest")
    resource = Resource("/friends/bob", "7")

    (sent,) = await backend.publish(
        "alice",
        type="friend",
        title="Bob",
        body="wants to be friends",
        data={"from": ["bob", None]},
        properties=[Property("k", "1"), Property("k", "2")],
        priority="high",
        resource=resource,
    )
    (arrived,) = await take(stream, 1)

    assert sent.to == "alice"
    assert sent.id is not None
    assert arrived == Notification(
        id=sent.id,
        created_at=arrived.created_at,
        type="friend",
        title="Bob",
        body="wants to be friends",
        data={"from": ["bob", None]},
        properties=(Property("k", "1"), Property("k", "2")),
        priority="high",
        resource=resource,
        source="native",
        cursor=stream.cursor,
    )
    kept = await alice.get(sent.id)
    assert kept == msgspec.structs.replace(arrived, cursor=None)


async def test_history_and_live_make_one_stream(backend: Client, alice: Client) -> None:
    stream = alice.notifications("earliest")

    before = await publish(backend, *"abcde")
    arrived = await take(stream, 3)
    after = await publish(backend, *"fghij")
    arrived += await take(stream, 7)

    assert [notification.id for notification in arrived] == before + after


async def test_a_stream_continues_a_page(backend: Client, alice: Client) -> None:
    old = await publish(backend, "a", "b")
    page = await alice.page()
    new = await publish(backend, "c")

    arrived = await take(alice.notifications(page.cursor), 1)

    assert [notification.id for notification in page.notifications] == old[::-1]
    assert [notification.id for notification in arrived] == new


async def test_pages_and_marks_agree(backend: Client, alice: Client) -> None:
    ids = await publish(backend, *"abcde")

    first = await alice.page(limit=2)
    rest = await alice.page(limit=10, before=first.next)
    unread = [
        await alice.mark_read(ids=[ids[0], "not-an-id"]),
        await alice.mark_read(up_to=ids[2]),
        await backend.mark_read("alice", all=True),
    ]
    marked = await alice.page()

    assert [n.id for n in first.notifications + rest.notifications] == ids[::-1]
    assert (first.unread, rest.next) == (5, None)
    assert unread == [4, 2, 0]
    assert all(notification.read_at for notification in marked.notifications)


async def test_a_stream_outlives_its_server(server: Running, alice: Client) -> None:
    stream = alice.notifications("earliest")
    async with Client(server.url, token=server.key) as backend:
        ids = await publish(backend, "a", "b")
    arrived = await take(stream, 1)

    await server.stop()
    waiting = asyncio.ensure_future(take(stream, 3))
    await server.start()
    async with Client(server.url, token=server.key) as backend:
        ids += await publish(backend, "c", "d")
    arrived += await waiting

    assert [notification.id for notification in arrived] == ids


async def test_a_stored_cursor_resumes_in_another_client(
    server: Running, backend: Client, alice: Client
) -> None:
    ids = await publish(backend, *"abc")
    stream = alice.notifications("earliest")
    await take(stream, 2)
    cursor = stream.cursor
    await alice.aclose()

    async with Client(server.url, token=server.token("alice")) as another:
        assert [n.id for n in await take(another.notifications(cursor), 1)] == ids[2:]
        assert [n.id for n in await take(another.notifications(ids[0]), 2)] == ids[1:]


async def test_a_reader_that_missed_too_much_gets_a_gap_and_finds_the_rest_on_pages(
    serve_streams: Serve,
) -> None:
    server = await serve_streams(replay_max=3)
    async with (
        Client(server.url, token=server.key) as backend,
        Client(server.url, token=server.token("alice")) as alice,
    ):
        ids = await publish(backend, *"abcdefg")
        stream = alice.notifications(ids[0])
        async with asyncio.timeout(GUARD_S):
            before, gap, after = [await anext(stream) for _ in range(3)]
        missed = await alice.page(after=ids[0])
        new = await publish(backend, "h")
        arrived = await take(stream, 1)

    assert (before, after) == (Unread(1), Unread(7))
    assert isinstance(gap, Gap)
    assert gap.reason == "too_far"
    assert [n.id for n in missed.notifications] == ids[:0:-1]
    assert [n.id for n in arrived] == new


async def test_a_token_that_expires_on_an_open_stream_is_replaced(
    server: Running, backend: Client
) -> None:
    lives_s = [1, 3600]
    replaced = asyncio.Event()

    async def source() -> Token:
        token = server.token("alice", ttl_s=lives_s.pop(0))
        if not lives_s:
            replaced.set()
        # The expiry in the token is wrong, so only the server knows it.
        return Token(token, datetime(2100, 1, 1, tzinfo=UTC))

    async with Client(server.url, token_source=source) as alice:
        stream = alice.notifications("earliest")
        ids = await publish(backend, "a")
        arrived = await take(stream, 1)
        async with asyncio.timeout(GUARD_S):
            await replaced.wait()
        ids += await publish(backend, "b")
        arrived += await take(stream, 1)

    assert [n.id for n in arrived] == ids


async def test_a_reconnecting_client_replaces_its_own_dead_connection(
    serve_streams: Serve,
) -> None:
    server = await serve_streams(listeners_per_player_max=1)
    proxy = LosingProxy(server.url)
    url = await proxy.listen()
    token = server.token("alice")
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        Client(server.url, token=server.key) as backend,
        Client(url, token=token) as alice,
        httpx2.AsyncClient(headers=headers) as stranger,
    ):
        stream = alice.notifications("earliest")
        ids = await publish(backend, "a")
        arrived = await take(stream, 1)

        proxy.lose_clients()
        ids += await publish(backend, "b")
        arrived += await take(stream, 1)

        refused = await stranger.get(f"{server.url}/v1/stream")

    await proxy.close()
    assert [n.id for n in arrived] == ids
    assert refused.status_code == 409


async def test_a_bad_token_is_refused(server: Running) -> None:
    async with Client(server.url, token="x.y.z") as client:
        with pytest.raises(TokenExpired):
            await anext(client.notifications())
        with pytest.raises(Rejected) as caught:
            await client.page()

    assert (caught.value.status, caught.value.type) == (401, "unauthenticated")


async def test_a_stream_needs_a_player_token(backend: Client) -> None:
    with pytest.raises(Refused) as caught:
        await anext(backend.notifications())

    assert caught.value.code == 4201


async def test_an_invalid_cursor_is_refused_for_good(alice: Client) -> None:
    with pytest.raises(Refused) as caught:
        await anext(alice.notifications("no cursor"))

    assert caught.value.code == 4203


async def test_an_idempotency_key_has_one_effect(
    backend: Client, alice: Client
) -> None:
    once = await backend.publish("alice", title="a", idempotency_key="k")
    again = await backend.publish("alice", title="a", idempotency_key="k")
    with pytest.raises(Rejected) as caught:
        await backend.publish("alice", title="b", idempotency_key="k")

    assert once == again
    assert caught.value.type == "idempotency-key-reuse"
    assert len((await alice.page()).notifications) == 1


async def test_wrong_fields_are_named(backend: Client, alice: Client) -> None:
    with pytest.raises(Rejected) as body:
        await backend.publish(["alice", "me"], title="a")
    with pytest.raises(Rejected) as query:
        await alice.page(limit=101)
    with pytest.raises(Rejected) as missing:
        await alice.get("0197a000-0000-7000-8000-000000000000")

    assert [error.where for error in body.value.errors] == ["/to/players/1"]
    assert [error.where for error in query.value.errors] == ["query limit"]
    assert missing.value.status == 404


async def test_publish_and_tail_talk_to_the_server(server: Running) -> None:
    async def run(*arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streamer", *arguments, "--url", server.url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    publishing = await run(
        *("publish", "--player", "alice", "--title", "Hello", "--key", server.key)
    )
    printed, _ = await publishing.communicate()
    tailing = await run(
        *("tail", "--cursor", "earliest", "--token", server.token("alice"))
    )
    assert tailing.stdout is not None
    line = await tailing.stdout.readline()
    tailing.terminate()
    _, errors = await tailing.communicate()

    assert len(printed.split()) == 1
    assert line.endswith(b"Hello\n")
    assert errors.startswith(b"cursor: ")
    assert (publishing.returncode, tailing.returncode) == (0, 0)
