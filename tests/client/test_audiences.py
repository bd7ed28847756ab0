"""Audiences, commands, fresh tokens and `SyncClient`, on a real server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from streamer_client import (
    EVERYONE,
    Audience,
    Client,
    CommandFailed,
    CursorMoved,
    Event,
    Notification,
    Read,
    Stream,
    SyncClient,
    Token,
    Unread,
    Withdrawn,
)

from .conftest import Running
from .proxy import LosingProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

GUARD_S = 60
CURSOR = b'{"type":"cursor"'
"""How the message begins that has the cursor of an audience's notifications."""

_numbers = itertools.count(1)


@pytest.fixture
def player() -> str:
    """Return a player that no other test uses."""
    return f"player-{next(_numbers)}"


@pytest.fixture
def topic() -> str:
    """Return a topic that no other test uses."""
    return f"topic/{next(_numbers)}"


@pytest_asyncio.fixture(loop_scope="module")
async def backend(shared_server: Running) -> AsyncIterator[Client]:
    async with Client(shared_server.url, token=shared_server.key) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def client(shared_server: Running, player: str) -> AsyncIterator[Client]:
    token = shared_server.token(player, topics=("topic/*",))
    async with Client(shared_server.url, token=token) as client:
        yield client


async def until(stream: Stream, fits: Callable[[Event], object]) -> list[Event]:
    """Take events up to the first one that matches."""
    events: list[Event] = []
    async with asyncio.timeout(GUARD_S):
        while not events or not fits(events[-1]):
            events.append(await anext(stream))
    return events


def has_title(title: str) -> Callable[[Event], bool]:
    return lambda it: isinstance(it, Notification) and it.title == title


def is_a(kind: type[Event]) -> Callable[[Event], bool]:
    return lambda it: isinstance(it, kind)


def titles(events: list[Event]) -> list[str | None]:
    return [it.title for it in events if isinstance(it, Notification)]


async def test_an_audience_message_comes_once_although_its_cursor_is_pending(
    shared_server: Running, backend: Client, player: str, topic: str
) -> None:
    proxy = LosingProxy(shared_server.url)
    url = await proxy.listen()
    await backend.join(topic, player)
    seen: list[Event] = []
    async with Client(url, token=shared_server.token(player)) as client:
        stream = client.notifications("earliest")
        await backend.publish(player, title="own")
        seen += await until(stream, has_title("own"))
        lost = proxy.lose_clients_instead_of(CURSOR)
        for title in ("a", "b", "c"):
            await backend.publish(Audience(topic=topic), title=title)
        seen += await until(stream, has_title("c"))
        async with asyncio.timeout(GUARD_S):
            await lost.wait()
        await backend.publish(EVERYONE, title="d")
        seen += await until(stream, has_title("d"))
        # Finally the cursor arrives, and nothing is repeated after it.
        seen += await until(stream, is_a(CursorMoved))
        proxy.lose_clients()
        await backend.publish(player, title="last")
        seen += await until(stream, has_title("last"))
    await proxy.close()

    assert proxy.connection_count == 3
    assert titles(seen) == ["own", "a", "b", "c", "d", "last"]


async def test_a_cursor_stored_after_an_audience_message_resumes_after_it(
    backend: Client, client: Client, player: str, topic: str
) -> None:
    await client.join(topic)
    async with client.notifications() as stream:
        await until(stream, is_a(Unread))
        await backend.publish(Audience(topic=topic), title="before")
        await until(stream, has_title("before"))
        await until(stream, is_a(CursorMoved))
        cursor = stream.cursor
    await backend.publish(Audience(topic=topic), title="after")

    async with client.notifications(cursor) as stream:
        events = await until(stream, has_title("after"))

    assert titles(events) == ["after"]


async def test_a_stream_delivers_topics_of_its_own(
    backend: Client, client: Client, player: str, topic: str
) -> None:
    stream = client.notifications()
    await until(stream, is_a(Unread))
    await backend.publish(Audience(topic=topic), title="too early")
    await stream.subscribe(topic)
    await backend.publish(Audience(topic=topic), title="heard")
    heard = await until(stream, has_title("heard"))
    await stream.unsubscribe(topic)
    await backend.publish(Audience(topic=topic), title="too late")
    await backend.publish(player, title="own")
    heard += await until(stream, has_title("own"))
    with pytest.raises(CommandFailed):
        await stream.subscribe("not/allowed")

    assert titles(heard) == ["heard", "own"]
    assert stream.unread == 1
    assert (await client.page()).unread == 1


async def test_a_mark_on_one_stream_reaches_the_others(
    backend: Client, client: Client, player: str
) -> None:
    one, other = client.notifications(), client.notifications()
    await until(one, is_a(Unread))
    await until(other, is_a(Unread))
    (sent,) = await backend.publish(player, title="a")
    assert sent.id is not None
    await until(one, has_title("a"))

    unread = await one.mark_read(ids=[sent.id])
    await one.ack()
    marked = (await until(other, is_a(Read)))[-1]
    await client.mark_unread([sent.id])
    unmarked = (await until(other, is_a(Read)))[-1]

    assert unread == 0
    assert isinstance(marked, Read)
    assert isinstance(unmarked, Read)
    assert (marked.ids, marked.read, marked.unread) == ((sent.id,), True, 0)
    assert (unmarked.ids, unmarked.read, unmarked.unread) == ((sent.id,), False, 1)
    assert other.unread == 1


async def test_a_deleted_notification_is_withdrawn_and_not_counted(
    backend: Client, client: Client, player: str
) -> None:
    stream = client.notifications()
    await until(stream, is_a(Unread))
    (sent,) = await backend.publish(player, title="a")
    assert sent.id is not None
    await until(stream, has_title("a"))
    await client.delete(sent.id)

    withdrawn = (await until(stream, is_a(Withdrawn)))[-1]

    assert isinstance(withdrawn, Withdrawn)
    assert withdrawn.id == sent.id
    await until(stream, lambda it: it == Unread(0))


async def test_a_token_is_renewed_without_another_connection(
    shared_server: Running, backend: Client, player: str
) -> None:
    tokens: list[Token] = []
    renewed = asyncio.Event()

    async def source() -> Token:
        ttl_s = 3_600 if tokens else 5
        tokens.append(await backend.mint_token(player, ttl_s=ttl_s))
        if len(tokens) > 1:
            renewed.set()
        return tokens[-1]

    proxy = LosingProxy(shared_server.url)
    async with Client(await proxy.listen(), token_source=source) as client:
        stream = client.notifications()
        await until(stream, is_a(Unread))
        async with asyncio.timeout(GUARD_S):
            await renewed.wait()
        # Replies come in order, so the server has the token by now.
        await stream.mark_read(all=True)
        await backend.publish(player, title="a")
        events = await until(stream, has_title("a"))
    await proxy.close()

    assert len(tokens) == 2
    assert titles(events) == ["a"]
    assert proxy.connection_count == 1


async def test_the_synchronous_client_does_what_the_client_does(
    shared_server: Running, backend: Client, player: str
) -> None:
    def work() -> list[object]:
        with (
            SyncClient(shared_server.url, token=shared_server.key) as backend,
            SyncClient(
                shared_server.url, token_source=lambda: backend.mint_token(player)
            ) as client,
            client.notifications("earliest") as stream,
        ):
            (sent,) = backend.publish(player, title="a")
            event = next(it for it in stream if isinstance(it, Notification))
            unread = stream.mark_read(ids=[event.id])
            with pytest.raises(TimeoutError):
                while True:
                    stream.take(timeout_s=0.1)
            stream.close()
            with pytest.raises(StopIteration):
                next(stream)
            return [sent.id == event.id, unread, client.page().unread, stream.cursor]

    same, unread, of_page, cursor = await asyncio.to_thread(work)

    assert (same, unread, of_page) == (True, 0, 0)
    assert cursor is not None
