"""Transports other than WebSocket, on a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from streamer_client import (
    BadResponse,
    Client,
    CommandFailed,
    Event,
    Gap,
    Notification,
    Stream,
    Unread,
    links,
)
from streamer_client.backoff import SYSTEM_CLOCK, Clock
from streamer_client.inbox import mark_read
from streamer_client.transports import Transport

from ..e2e.processes import eventually
from .conftest import GUARD_S, Running

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHERS: list[Transport] = ["sse", "poll"]


def hurried(seconds_per_second: float = 0.01) -> Clock:
    """A clock whose waits are short: pages are requested often."""

    async def sleep(delay_s: float) -> None:
        await asyncio.sleep(delay_s * seconds_per_second)

    return SYSTEM_CLOCK._replace(sleep=sleep)


def a_client(server: Running, player: str) -> Client:
    return Client(server.url, token=server.token(player), clock=hurried())


async def until_note(stream: Stream, title: str) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(GUARD_S):
        async for event in stream:
            events.append(event)
            if isinstance(event, Notification) and event.title == title:
                break
    return events


async def until_unread(stream: Stream, number: int) -> None:
    async with asyncio.timeout(GUARD_S):
        while stream.unread != number:
            await anext(stream)


@pytest.mark.parametrize("transport", OTHERS)
async def test_what_is_published_arrives_once_and_in_order(
    shared_server: Running, transport: Transport
) -> None:
    player = f"once-{transport}"
    async with (
        Client(shared_server.url, token=shared_server.key) as backend,
        a_client(shared_server, player) as client,
    ):
        await backend.publish(player, title="before")
        stream = client.notifications("earliest", transport=transport)
        events = await until_note(stream, "before")
        for number in range(5):
            await backend.publish(player, title=f"n{number}")
        events += await until_note(stream, "n4")
        titles = [it.title for it in events if isinstance(it, Notification)]

        assert titles == ["before", "n0", "n1", "n2", "n3", "n4"]
        assert stream.transport == transport
        await until_unread(stream, 6)


@pytest.mark.parametrize("transport", OTHERS)
async def test_a_stream_from_now_on_continues_where_it_was_closed(
    shared_server: Running, transport: Transport
) -> None:
    player = f"resume-{transport}"
    async with (
        Client(shared_server.url, token=shared_server.key) as backend,
        a_client(shared_server, player) as client,
    ):
        await backend.publish(player, title="old")
        async with client.notifications(transport=transport) as stream:
            await until_unread(stream, 1)
            await backend.publish(player, title="one")
            events = await until_note(stream, "one")
            assert [e.title for e in events if isinstance(e, Notification)] == ["one"]
        await backend.publish(player, title="two")
        async with client.notifications(stream.cursor, transport=transport) as stream:
            events = await until_note(stream, "two")

        assert [e.title for e in events if isinstance(e, Notification)] == ["two"]


@pytest.mark.parametrize("transport", OTHERS)
async def test_marks_and_acknowledgements_are_sent_over_http(
    shared_server: Running, transport: Transport
) -> None:
    player = f"marks-{transport}"
    async with (
        Client(shared_server.url, token=shared_server.key) as backend,
        a_client(shared_server, player) as client,
        client.notifications("earliest", transport=transport) as stream,
    ):
        (sent,) = await backend.publish(player, title="one")
        await until_note(stream, "one")
        assert sent.id is not None

        await stream.ack()
        assert (await backend.receipt(sent.id, player)).acknowledged
        assert await stream.mark_read(ids=[sent.id]) == 0
        await until_unread(stream, 0)
        with pytest.raises(CommandFailed, match="WebSocket"):
            await stream.subscribe("match/1")


async def test_a_mark_that_a_captive_portal_answers_is_sent_again(
    shared_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [BadResponse("unreadable response")]

    async def mark(*arguments: Any, **options: Any) -> int:
        if answers:
            raise answers.pop()
        return await mark_read(*arguments, **options)

    monkeypatch.setattr("streamer_client.stream.mark_read", mark)
    async with (
        Client(shared_server.url, token=shared_server.key) as backend,
        a_client(shared_server, "portal") as client,
        client.notifications("earliest", transport="sse") as stream,
    ):
        await backend.publish("portal", title="one")
        await until_note(stream, "one")
        stream.mark_read_later(all=True)
        await stream.sent()

        assert (await client.page()).unread == 0


async def test_a_cursor_of_another_inbox_is_a_gap_of_a_page(
    shared_server: Running,
) -> None:
    async with (
        Client(shared_server.url, token=shared_server.key) as backend,
        a_client(shared_server, "gap-bob") as bob,
        a_client(shared_server, "gap-ann") as ann,
    ):
        await backend.publish(["gap-ann", "gap-bob"], title="one")
        cursor = (await bob.page()).cursor
        await backend.publish("gap-ann", title="two")
        stream = ann.notifications(cursor, transport="poll")
        events = await until_note(stream, "two")

        assert isinstance(events[0], Gap)
        titles = [it.title for it in events if isinstance(it, Notification)]
        assert titles[-1] == "two"


async def test_the_server_holds_a_page_until_there_is_something(
    shared_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "POLL_S", 3_600.0)
    async with (
        Client(shared_server.url, token=shared_server.key) as backend,
        a_client(shared_server, "held") as client,
        client.notifications(transport="poll") as stream,
    ):
        assert await anext(stream) == Unread(0)
        for title in ("one", "two"):
            await backend.publish("held", title=title)
            await until_note(stream, title)
        # A mark of another device ends the wait, too.
        marked = asyncio.create_task(until_unread(stream, 0))
        await eventually(lambda: shared_server.is_read("held"))
        await client.mark_read(all=True)
        await marked


async def test_a_proxy_without_websockets_leads_to_server_sent_events(
    shared_server: Running,
) -> None:
    """The proxy answers handshakes itself; requests go to the server."""

    def refuse(connection: ServerConnection, _: Request) -> Response:
        return connection.respond(426, "Upgrade Required")

    async def never(_: Any) -> None:
        raise AssertionError("no handshake succeeds")

    async with (
        serve(never, "127.0.0.1", 0, process_request=refuse) as proxy,
        Client(shared_server.url, token=shared_server.key) as backend,
        a_client(shared_server, "fallback") as client,
    ):
        port = next(iter(proxy.sockets)).getsockname()[1]
        client._stream_url = f"ws://127.0.0.1:{port}/v1/stream"
        stream = client.notifications()
        assert isinstance(await anext(stream), Unread)
        await backend.publish("fallback", title="one")
        await until_note(stream, "one")

        assert stream.transport == "sse"
