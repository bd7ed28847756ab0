"""
Streams on a running host: how they open, what they carry, and how they end.

What they cost, and what they leave behind, is in `test_detached.py`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Message, Scope

from ...conftest import Until
from ..conftest import MakeWorld, Serve, World
from ..server.test_websocket_protocol import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    frame,
)


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world()


async def notification(socket: Any) -> Any:
    """Return the next notification, skipping everything else."""
    while (message := await socket.message())["type"] != "notification":
        pass
    return message["notification"]


async def test_a_websocket_delivers_history_then_live_entries(world: World) -> None:
    await world.publish("before")
    socket = await world.websocket(cursor="earliest")

    assert (await socket.message())["type"] == "hello"
    assert (await notification(socket))["title"] == "before"
    await world.publish("live")
    assert (await notification(socket))["title"] == "live"


async def test_an_event_stream_delivers_history_then_live_entries(world: World) -> None:
    await world.publish("before")
    client = await world.event_stream(cursor="earliest")

    hello, before = await client.event(), await client.event()
    assert b"event: unread" in await client.event()
    await world.publish("live")

    assert b"event: hello" in hello
    assert b'"title":"before"' in before
    assert b'"title":"live"' in await client.event()


# Where a stream begins.


NAMES = ["lastEventId", "last_event_id", "Last-Event-ID", "evs_last_event_id"]


async def titles_after_hello(stream: Any, count: int) -> list[str]:
    """Return the titles of the next events of a stream that is not a WebSocket."""
    assert b"event: hello" in await stream.event()
    events = [await stream.event() for _ in range(count)]
    return [json.loads(it.partition(b"data: ")[2])["title"] for it in events]


@pytest.mark.parametrize("name", NAMES)
async def test_a_polyfill_resumes_by_a_parameter(world: World, name: str) -> None:
    for title in ("one", "two"):
        await world.publish(title)
    first = await world.event_stream(cursor="earliest")
    await first.event()
    seen = (await first.event()).partition(b"id: ")[2].partition(b"\n")[0].decode()

    # It repeats its first URL, and so the cursor that it began with.
    query: dict[str, Any] = {"cursor": "earliest", name: seen}
    resumed = await world.event_stream(**query)

    assert await titles_after_hello(resumed, 1) == ["two"]


async def test_the_header_overrides_the_parameter_of_a_polyfill(world: World) -> None:
    for title in ("one", "two", "three"):
        await world.publish(title)
    first = await world.event_stream(cursor="earliest")
    await first.event()
    ids = [
        (await first.event()).partition(b"id: ")[2].partition(b"\n")[0]
        for _ in range(2)
    ]

    client = await world.connect()
    request = world.request(lastEventId=ids[0].decode())
    client.send(request[:-2] + b"Last-Event-ID: %b\r\n\r\n" % ids[1])
    assert await client.status() == 200

    assert await titles_after_hello(client, 1) == ["three"]


async def test_a_websocket_resumes_by_the_parameter_of_a_polyfill(world: World) -> None:
    await world.publish("one")
    first = await world.websocket(cursor="earliest")
    await first.message()
    cursor = (await first.message())["cursor"]
    await world.publish("two")

    resumed = await world.websocket(cursor="earliest", lastEventId=cursor)

    assert (await notification(resumed))["title"] == "two"


async def test_an_empty_parameter_of_a_polyfill_leaves_the_cursor(world: World) -> None:
    await world.publish("one")
    stream = await world.event_stream(cursor="earliest", lastEventId="")
    assert await titles_after_hello(stream, 1) == ["one"]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({"curser": "earliest"}, "curser: is not a parameter; did you mean 'cursor'?"),
        ({"Cursor": "earliest"}, "Cursor: is not a parameter; did you mean 'cursor'?"),
        ({"topic": "news"}, "topic: is not a parameter; did you mean 'topics'?"),
        (
            {"lastEvntId": "x", "instnace": "y"},
            "lastEvntId: is not a parameter; did you mean 'lastEventId'?; "
            "instnace: is not a parameter; did you mean 'instance'?",
        ),
        (
            {"lastEventId": "not a cursor"},
            "lastEventId: must be a cursor or a notification id",
        ),
    ],
)
async def test_a_misspelled_parameter_of_a_stream_is_refused(
    world: World, query: dict[str, Any], problem: str
) -> None:
    client = await world.connect()
    client.send(world.request(**query))
    assert (await client.body()).decode().replace("query.", "") == problem


async def test_an_unknown_parameter_of_a_stream_is_ignored(world: World) -> None:
    await world.publish("one")
    stream = await world.event_stream(cursor="earliest", compression="none", _="17")
    assert await titles_after_hello(stream, 1) == ["one"]


async def test_a_stream_does_not_get_the_headers_of_another(
    world: World, serve: Serve
) -> None:
    world.served = await serve(
        CORSMiddleware(world, allow_origins=["http://a.example"])
    )

    async def head(origin: bytes) -> bytes:
        client = await world.connect()
        client.send(world.request()[:-2] + b"Origin: %b\r\n\r\n" % origin)
        return await client.read_until(b"\r\n\r\n")

    first, second = await head(b"http://a.example"), await head(b"http://b.example")

    assert b"access-control-allow-origin: http://a.example\r\n" in first
    assert b"access-control-allow-origin" not in second
    assert second.count(b"Origin") == 1


async def test_the_first_event_says_when_to_reconnect(world: World) -> None:
    stream = await world.event_stream()
    first = await stream.event()
    assert re.match(rb"retry: [0-9]{4}\nid: .*\nevent: hello\ndata: ", first)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(
    "removed",
    [
        [b"Connection: Upgrade\r\n"],
        [b"Upgrade: websocket\r\n"],
        [b"Connection: Upgrade\r\n", b"Upgrade: websocket\r\n"],
    ],
)
async def test_a_websocket_that_lost_its_upgrade_is_told(
    world: World, version: str, removed: list[bytes]
) -> None:
    client = await world.connect()
    request = world.request(upgrade=True, version=version, refusals="stream")
    for line in removed:
        assert line in request
        request = request.replace(line, b"")

    client.send(request)
    head = (await client.read_until(b"\r\n\r\n")).lower()

    assert head.startswith(b"http/1.1 426 ")
    assert b"\r\nupgrade: websocket\r\n" in head
    assert b"\r\nsec-websocket-version: 13\r\n" in head
    assert world.admission.open == 0


async def test_long_messages_arrive_complete(world: World) -> None:
    socket = await world.websocket()
    await socket.message()

    for size in (100, 1_000, 70_000):
        await world.publish("x" * size)
        assert len((await notification(socket))["title"]) == size


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, b"x" * 1_001), 1009),
        (frame(TEXT, b"x" * 600, fin=False) + frame(CONT, b"x" * 600), 1009),
        (frame(TEXT, b"", fin=False) + frame(CONT, fin=False) * 1_024, 1009),
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"("), 1007),
        (frame(3, b"reserved"), 1002),
        (frame(CONT, b"of nothing"), 1002),
        (b"\x81\x01x", 1002),  # not masked
        (b"\xc1" + frame(TEXT, b"compressed")[1:], 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(PING) * 21, 4103),
        (frame(PONG) * 21, 4103),
        (frame(BINARY, b"x"), 4203),
        (frame(TEXT, b"{}"), 4203),
        (frame(TEXT, b'{"type":"ping"}') * 21, 4103),
        (frame(CLOSE, b"\x03\xe8"), 1000),
        (frame(CLOSE), 1005),
    ],
)
async def test_a_websocket_is_closed_with_the_right_code(
    world: World, until: Until, sent: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    socket = await world.websocket()
    await socket.message()

    socket.send(sent)

    assert await socket.close_code() == code
    socket.send(frame(CLOSE, b"\x03\xe8"))
    assert await socket.read_to_end() == b""
    await until(lambda: world.admission.open == 0)
    assert [r for r in caplog.records if r.levelname != "INFO"] == []


async def test_a_message_can_arrive_in_pieces(world: World) -> None:
    socket = await world.websocket()
    await socket.message()
    sent = frame(TEXT, b'{"ty', fin=False) + frame(PING, b"within")
    sent += frame(CONT, b'pe":"ping"}') + frame(TEXT, b'{"type":"ping"}')

    for byte in sent:
        socket.send(bytes([byte]))
        await socket.writer.drain()

    assert await socket.frame() == (PONG, b"within")
    assert await socket.message() == {"type": "pong"}
    assert await socket.message() == {"type": "pong"}


async def test_commands_are_executed_in_order(world: World) -> None:
    socket = await world.websocket()
    await socket.message()
    for i in range(5):
        await world.publish(str(i))
    ids = [(await notification(socket))["id"] for _ in range(5)]

    for i, id in enumerate(ids):
        mark = json.dumps({"type": "read", "ids": [id], "ref": str(i)})
        socket.send(frame(TEXT, mark.encode()))

    replies: list[tuple[str, int]] = []
    while len(replies) < 5:
        message = await socket.message()
        if message["type"] == "reply":
            replies.append((message["ref"], message["unread"]))
    assert replies == [(str(i), 4 - i) for i in range(5)]


async def test_messages_can_follow_the_first_at_once(world: World) -> None:
    socket = await world.websocket(credential=False)

    socket.send(
        frame(TEXT, b'{"type":"auth","token":"player"}')
        + frame(TEXT, b'{"type":"ping"}')
        + frame(TEXT, b'{"type":"ping"}')[:5]
    )
    kinds = {(await socket.message())["type"], (await socket.message())["type"]}
    socket.send(frame(TEXT, b'{"type":"ping"}')[5:])

    assert kinds == {"hello", "pong"}
    assert await socket.message() == {"type": "pong"}


async def test_an_ended_stream_sends_bye_and_is_released(
    world: World, until: Until
) -> None:
    websocket, event_stream = await world.websocket(), await world.event_stream()
    await websocket.message()
    await event_stream.event()

    await world.admission.drain()

    assert (await websocket.message())["type"] == "bye"
    assert await websocket.close_code() == 4100
    websocket.send(frame(CLOSE, b"\x10\x04"))
    assert b"event: bye" in await event_stream.event()
    assert await event_stream.read_to_end() == b"0\r\n\r\n"
    await until(lambda: world.admission.open == 0)


async def test_a_stream_ends_with_its_credential(world: World) -> None:
    world.expires_in_s = 1
    websocket, event_stream = await world.websocket(), await world.event_stream()
    await websocket.message()
    await event_stream.event()

    assert (await websocket.message())["code"] == 4200
    assert await websocket.close_code() == 4200
    assert b'"code":4200' in await event_stream.event()


@pytest.mark.parametrize("kind", ["websocket", "event_stream"])
async def test_a_lost_connection_releases_slot_and_lease(
    world: World, until: Until, kind: str
) -> None:
    opened = await getattr(world, kind)()
    await until(lambda: world.admission.open == 1)
    assert await world.leases() == 1

    opened.writer.transport.abort()

    await until(lambda: world.admission.open == 0)
    await world.until_leases(0)
    assert len(world.hub) == 0


@pytest.mark.parametrize("kind", ["websocket", "event_stream"])
async def test_a_slow_reader_is_dropped_by_its_bytes(
    make_world: MakeWorld, until: Until, kind: str
) -> None:
    world = await make_world(send_buffer_bytes=262_144)
    opened = await getattr(world, kind)(receive_buffer=4_096)
    await until(lambda: world.admission.open == 1)
    opened.writer.transport.pause_reading()

    for _ in range(120):
        await world.publish("x" * 8_000)

    await until(lambda: world.admission.open == 0)


@pytest.mark.parametrize("kind", ["websocket", "event_stream"])
async def test_a_slow_reader_is_dropped_by_its_age(
    make_world: MakeWorld, until: Until, kind: str
) -> None:
    world = await make_world(send_age_s=1)
    opened = await getattr(world, kind)(receive_buffer=4_096)
    await until(lambda: world.admission.open == 1)
    opened.writer.transport.pause_reading()

    for _ in range(15):
        await world.publish("x" * 60_000)

    await until(lambda: world.admission.open == 0)


@pytest.mark.parametrize("kind", ["websocket", "event_stream"])
async def test_a_refused_stream_holds_nothing(
    make_world: MakeWorld, until: Until, kind: str
) -> None:
    world = await make_world(listeners_per_player_max=1)
    await world.websocket()
    await until(lambda: world.admission.open == 1)

    client = await world.connect()
    client.send(world.request(upgrade=kind == "websocket"))

    assert await client.status() == 409
    await until(lambda: world.admission.open == 1)


async def test_a_refusal_can_be_sent_in_the_stream(world: World, until: Until) -> None:
    world.permissions = frozenset()
    socket = await world.websocket(refusals="stream")
    assert (await socket.message())["code"] == 4201
    assert await socket.close_code() == 4201

    client = await world.connect()
    client.send(world.request(refusals="stream"))

    assert b'"code":4201' in await client.read_to_end()
    await until(lambda: world.admission.open == 0)


async def test_a_head_request_gets_the_head_and_holds_nothing(
    world: World, until: Until
) -> None:
    client = await world.connect()

    answer = await client.exchange(world.request(method="HEAD"))

    assert re.match(rb"HTTP/1.1 200 .*text/event-stream.*\r\n\r\n$", answer, re.DOTALL)
    assert b"\r\ncache-control: no-store, no-transform\r\n" in answer
    await until(lambda: world.admission.open == 0)


async def test_a_disconnect_while_joining_leaves_nothing_behind(
    world: World, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    joining, proceed = asyncio.Event(), asyncio.Event()
    acquire: Callable[..., Any] = world.acquired_leases.acquire

    async def slow(*args: Any, **kwargs: Any) -> Any:
        joining.set()
        await proceed.wait()
        return await acquire(*args, **kwargs)

    monkeypatch.setattr(world.acquired_leases, "acquire", slow)
    for upgrade in (True, False):
        client = await world.connect()
        client.send(world.request(upgrade=upgrade))
        await joining.wait()
        client.writer.transport.abort()
        await until(lambda: not world.connections)
        proceed.set()
        await until(lambda: world.admission.open == 0)
        joining.clear()
        proceed.clear()

    await world.until_leases(0)
    assert len(world.hub) == 0


# A server without the extension.


async def call(world: Any, kind: str, *, extensions: Any = None) -> list[Message]:
    """Call the app as a server without our extension does; return its messages."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": kind,
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [],
        "extensions": extensions or {},
    }
    await world(scope, receive, send)
    return sent


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_server_without_the_extension_is_refused_with_501(
    world: World, kind: str
) -> None:
    denial: dict[str, Any] = {"websocket.http.response": {}}
    start, body = await call(world, kind, extensions=denial)

    assert start["status"] == 501
    assert (b"content-type", b"application/problem+json") in start["headers"]
    problem = json.loads(body["body"])
    assert problem["status"] == 501
    assert "`streamer serve`" in problem["detail"]
    assert world.admission.open == 0


async def test_a_websocket_that_cannot_be_denied_is_closed(world: World) -> None:
    accept, close = await call(world, "websocket")

    assert accept["type"] == "websocket.accept"
    assert (close["type"], close["code"]) == ("websocket.close", 1011)
    assert "`streamer serve`" in close["reason"]
