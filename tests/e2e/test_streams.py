"""Streams of a running server: resuming, credentials, limits, the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from .processes import ServerProcess, eventually
from .readers import TRANSPORTS, Api, RawStream, SseStream, StreamRefused, WsStream

MakeServer = Callable[..., ServerProcess]
Opener = type[SseStream] | type[WsStream]
OPENERS: list[Opener] = [*TRANSPORTS.values()]

POLL = "/notification/v1/player/me/stream/notification/lp"

each_transport = pytest.mark.parametrize(
    "opener", TRANSPORTS.values(), ids=TRANSPORTS.keys()
)


async def refused(opener: Opener, *args: Any, **kwargs: Any) -> StreamRefused:
    with pytest.raises(StreamRefused) as caught:
        await opener.open(*args, **kwargs)
    return caught.value


# Resuming.


@each_transport
async def test_a_reader_receives_what_is_published(
    server: ServerProcess, backend: Api, player: str, token: str, opener: Opener
) -> None:
    stream = await opener.open(server.port, token)
    hello = await stream.next()
    assert hello.kind == "hello"
    assert hello.data["unread"] == 0
    (id,) = await backend.published(player, title="Hi", data={"a": [1, None]})
    message = await stream.next()
    assert (message.kind, message.id) == ("notification", id)
    assert message.data["title"] == "Hi"
    assert message.data["data"] == {"a": [1, None]}
    stream.cut()


@each_transport
async def test_a_reader_that_reconnects_receives_what_it_missed(
    server: ServerProcess, backend: Api, player: str, token: str, opener: Opener
) -> None:
    ids = [(await backend.published(player, title=str(i)))[0] for i in range(10)]
    stream = await opener.open(server.port, token, cursor=ids[3])
    assert [m.id for m in await stream.notifications(6)] == ids[4:]
    (id,) = await backend.published(player, title="live")
    message = await stream.until("notification")
    assert message.id == id
    stream.cut()
    again = await opener.open(server.port, token, cursor=message.cursor)
    hello = await again.next()
    assert (hello.kind, hello.cursor) == ("hello", message.cursor)
    (id,) = await backend.published(player, title="next")
    assert (await again.next()).id == id
    again.cut()


@each_transport
async def test_a_stream_from_the_cursor_of_a_page_misses_nothing(
    server: ServerProcess, backend: Api, player: str, token: str, opener: Opener
) -> None:
    await backend.published(player, title="on the page")
    async with Api(server.port, token) as mine:
        page = (await mine.http.get("/v1/players/me/notifications")).json()
    (id,) = await backend.published(player, title="in between")
    stream = await opener.open(server.port, token, cursor=page["cursor"])
    assert (await stream.until("notification")).id == id
    stream.cut()


async def test_last_event_id_overrides_the_cursor_of_the_query(
    server: ServerProcess, backend: Api, player: str, token: str
) -> None:
    ids = [(await backend.published(player, title=str(i)))[0] for i in range(3)]
    stream = await SseStream.open(server.port, token, cursor="earliest")
    assert [m.id for m in await stream.notifications(3)] == ids
    stream.cut()
    head = {"Last-Event-ID": ids[1]}
    stream = await SseStream.open(server.port, token, cursor="earliest", headers=head)
    assert (await stream.until("notification")).id == ids[2]
    stream.cut()


@each_transport
async def test_a_mark_reaches_the_other_devices(
    server: ServerProcess, backend: Api, player: str, token: str, opener: Opener
) -> None:
    stream = await opener.open(server.port, token)
    marker = await WsStream.open(server.port, token)
    await stream.until("hello")
    await marker.until("hello")
    ids = [(await backend.published(player, title=str(i)))[0] for i in range(3)]
    await stream.notifications(3)
    await marker.notifications(3)
    await marker.send(type="read", ids=ids[:2], ref="r")
    assert (await marker.until("reply")).data["unread"] == 1
    assert (await stream.until("read")).data["ids"] == ids[:2]
    for one in (stream, marker):
        one.cut()


async def test_both_transports_send_heartbeats(make_server: MakeServer) -> None:
    server = await make_server(heartbeat_s=1).start()
    token = await server.token("p")

    async def hear_two(opener: Opener) -> None:
        stream = await opener.open(server.port, token)
        await stream.until("ping")
        await stream.until("ping")
        stream.cut()

    await asyncio.gather(*map(hear_two, OPENERS))


# Credentials.


async def test_an_expired_token_ends_its_streams(
    server: ServerProcess, player: str
) -> None:
    # It has to be valid still when the streams are opened on a busy machine.
    token = await server.token(player, ttl_s=5)
    opening = (opener.open(server.port, token) for opener in OPENERS)
    for stream in await asyncio.gather(*opening):
        bye = await stream.until("bye")
        assert bye.data["code"] == 4200
        assert bye.data["reconnect"] is False
        assert (await stream.end()).code == 4200


async def test_a_fresh_token_keeps_a_websocket_open(
    server: ServerProcess, backend: Api, player: str
) -> None:
    short = await server.token(player, ttl_s=5)
    stream = await WsStream.open(server.port, short)
    other = await WsStream.open(server.port, short)
    await stream.send(type="auth", token=await server.token(player))
    # The stream that was not renewed has expired; so would the other have.
    assert (await other.end()).code == 4200
    (id,) = await backend.published(player, title="still here")
    assert (await stream.until("notification")).id == id
    stream.cut()


async def test_a_token_of_another_player_is_not_a_renewal(
    server: ServerProcess, token: str
) -> None:
    stream = await WsStream.open(server.port, token)
    await stream.send(type="auth", token=await server.token("somebody-else"))
    assert (await stream.end()).code == 4201


async def test_a_websocket_can_send_its_token_as_the_first_message(
    server: ServerProcess, backend: Api, player: str, token: str
) -> None:
    stream = await WsStream.open(server.port, None)
    await stream.send(type="auth", token=token)
    assert (await stream.next()).kind == "hello"
    (id,) = await backend.published(player, title="Hi")
    assert (await stream.until("notification")).id == id
    stream.cut()


@pytest.mark.parametrize(
    "first",
    [
        {"type": "auth", "token": "wrong"},
        {"type": "auth", "token": ""},
        {"type": "auth", "token": "a.b.c\n"},
        {"type": "ping"},
        {"type": "read", "all": True},
    ],
)
async def test_a_wrong_first_message_ends_a_websocket(
    server: ServerProcess, first: dict[str, Any]
) -> None:
    stream = await WsStream.open(server.port, None)
    await stream.send(**first)
    bye = await stream.next()
    assert (bye.kind, bye.data["code"]) == ("bye", 4200)
    assert (await stream.end()).code == 4200


async def test_a_websocket_without_a_credential_is_closed(
    make_server: MakeServer,
) -> None:
    server = await make_server(auth_timeout_s=1, connections_max=1).start()
    stream = await WsStream.open(server.port, None)
    assert (await stream.end()).code == 4200
    # It has released its slot.
    stream = await WsStream.open(server.port, await server.token("p"))
    await stream.until("hello")
    stream.cut()


@each_transport
async def test_a_stream_requires_the_right_to_read(
    server: ServerProcess, player: str, opener: Opener
) -> None:
    token = await server.token(player, permissions=["notification:player:self:write"])
    assert (await refused(opener, server.port, token)).status == 403
    wrong = await refused(opener, server.port, token[:-4] + "AAAA")
    assert wrong.status == 401


@each_transport
async def test_a_second_stream_of_an_instance_replaces_the_first(
    server: ServerProcess, backend: Api, player: str, token: str, opener: Opener
) -> None:
    first = await opener.open(server.port, token, instance="phone")
    await first.until("hello")
    second = await opener.open(server.port, token, instance="phone")
    await second.until("hello")
    assert (await first.end()).code == 4202
    (id,) = await backend.published(player, title="Hi")
    assert (await second.until("notification")).id == id
    second.cut()


# Limits.


async def open_until_refused(
    opener: Opener, port: int, token: str, maximum: int
) -> tuple[list[RawStream], StreamRefused]:
    streams: list[RawStream] = []
    while True:
        try:
            streams.append(await opener.open(port, token))
        except StreamRefused as error:
            return streams, error
        assert len(streams) <= maximum


@each_transport
async def test_a_player_can_have_ten_streams(
    server: ServerProcess, player: str, token: str, opener: Opener
) -> None:
    streams, refusal = await open_until_refused(opener, server.port, token, 10)
    assert len(streams) == 10
    assert refusal.status == 409
    assert refusal.problem["limit"] == "listeners_per_player"
    assert int(refusal.headers["retry-after"]) > 0
    # One more is refused on every transport.
    for other in OPENERS:
        assert (await refused(other, server.port, token)).status == 409
    async with Api(server.port, token) as mine:
        assert (await mine.http.get(POLL, params={"deadline": 5})).status_code == 409
        # A poll without a deadline is not held, so it needs no slot.
        assert (await mine.http.get(POLL, params={"deadline": 0})).status_code == 200
    streams.pop().cut()
    await server.listeners(player, 9)
    streams.append(await opener.open(server.port, token))
    for stream in streams:
        stream.cut()
    await server.listeners(player, 0)


async def test_a_late_authentication_over_the_limit_gets_a_close_code(
    server: ServerProcess, token: str
) -> None:
    streams, _ = await open_until_refused(WsStream, server.port, token, 10)
    late = await WsStream.open(server.port, None)
    await late.send(type="auth", token=token)
    assert (await late.end()).code == 4101
    for stream in streams:
        stream.cut()


async def test_a_full_node_refuses_streams_and_serves_pages(
    make_server: MakeServer,
) -> None:
    server = await make_server(connections_max=4, connects_per_s_max=50).start()
    tokens = [await server.token(name) for name in "abc"]
    streams: list[RawStream] = []
    for token, opener in zip(tokens * 2, 2 * OPENERS, strict=False):
        streams.append(await opener.open(server.port, token))
    for opener in OPENERS:
        refusal = await refused(opener, server.port, tokens[2])
        assert refusal.status == 503
        assert refusal.problem["limit"] == "connections_per_node"
        assert int(refusal.headers["retry-after"]) > 0
    async with Api(server.port, tokens[0]) as mine:
        page = await mine.http.get("/v1/players/me/notifications")
        assert page.status_code == 200
    streams.pop().cut()

    async def has_room() -> bool:
        try:
            streams.append(await SseStream.open(server.port, tokens[2]))
        except StreamRefused:
            return False
        return True

    await eventually(has_room)
    for stream in streams:
        stream.cut()


async def test_connecting_too_fast_is_refused(make_server: MakeServer) -> None:
    server = await make_server(
        connects_per_s_max=5, listeners_per_player_max=100
    ).start()
    token = await server.token("p")
    answers = await asyncio.gather(
        *(attempt(opener, server.port, token) for opener in 20 * OPENERS)
    )
    taken = [opener for opener, limit in answers if limit is None]
    assert 3 <= len(taken) <= 7
    refusals = {answer for answer in answers if answer[1] is not None}
    assert refusals == {(opener, "connects_per_second") for opener in OPENERS}


async def attempt(opener: Opener, port: int, token: str) -> tuple[Opener, str | None]:
    try:
        stream = await opener.open(port, token)
    except StreamRefused as error:
        assert error.status == 503
        return opener, error.problem["limit"]
    stream.cut()
    return opener, None


# Protocol violations.


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"binary", 4203),
        ("no JSON", 4203),
        ("[" * 20_000, 4203),
        ('{"type":"unknown"}', 4203),
        ('{"type":"read"}', 4203),
        ('{"type":"read","ids":[1]}', 4203),
        ('{"type":"read","all":true,"more":1}', 4203),
        ('{"type":"auth","token":1e999}', 4203),
        ("x" * 65_537, 1009),
    ],
    ids=lambda value: repr(value)[:24],
)
async def test_an_invalid_message_ends_a_websocket(
    server: ServerProcess, token: str, message: str | bytes, code: int
) -> None:
    stream = await WsStream.open(server.port, token)
    await stream.until("hello")
    await stream.connection.send(message)
    assert (await stream.end()).code == code


async def test_a_flood_of_messages_ends_a_websocket(
    server: ServerProcess, token: str
) -> None:
    stream = await WsStream.open(server.port, token)
    for _ in range(50):
        await stream.send(type="ping")
    assert (await stream.end()).code == 4103


async def test_other_streams_are_unaffected(
    server: ServerProcess, backend: Api, player: str, token: str
) -> None:
    neighbour = await WsStream.open(server.port, token)
    await neighbour.until("hello")
    for _ in range(20):
        rude = await WsStream.open(server.port, await server.token("rude"))
        await rude.connection.send(b"\0" * 1_000)
        await rude.end()
    (id,) = await backend.published(player, title="Hi")
    assert (await neighbour.next()).id == id
    neighbour.cut()
    assert "Traceback" not in server.logged
