"""The stream against a server that follows a script."""

from __future__ import annotations

import asyncio
import json
import random
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection, serve

from streamer_client import Client, Error, Refused, TokenExpired, Unavailable

from .scripted import (
    HEARTBEAT_S,
    Act,
    FakeClock,
    Refusal,
    ScriptedServer,
    bye,
    cut,
    gap,
    hello,
    note,
    says,
    take,
)


async def test_a_stream_resumes_after_the_last_cursor_it_received(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [
        says(hello("c0"), note(1), note(2)),
        says(hello("c2"), note(3), stay=True),
    ]

    assert await take(client.notifications(), 3) == ["n1", "n2", "n3"]
    assert server.cursors == [None, "c2"]


async def test_a_stream_from_now_on_has_the_cursor_of_hello(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [cut, says(hello("c5"), note(1), stay=True)]

    await take(client.notifications(), 1)

    assert server.cursors == [None, "c0"]


async def test_all_connections_of_a_stream_have_one_instance(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [cut, says(hello("c0"), note(1), stay=True)]
    await take(client.notifications(), 1)

    assert len(server.instances) == 2
    assert len(set(server.instances)) == 1


async def test_streams_have_different_instances(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [says(hello("c0"), note(1), stay=True)] * 2
    await take(client.notifications(), 1)
    await take(client.notifications(), 1)

    assert len(set(server.instances)) == 2


async def test_a_cursor_of_its_own_is_kept_after_hello(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [cut, says(hello("c5"), note(1), stay=True)]

    await take(client.notifications("mine"), 1)

    assert server.cursors == ["mine", "mine"]


async def test_the_cursor_moves_when_an_event_is_taken(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [says(hello("c0"), note(1), note(2), note(3), stay=True)]
    stream = client.notifications()
    cursors = [stream.cursor]

    for _ in range(3):
        await anext(stream)
        cursors.append(stream.cursor)

    assert cursors == [None, "c1", "c2", "c3"]


async def test_a_gap_is_reported_and_the_stream_continues_after_it(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [
        says(hello("c0"), note(1), gap("trimmed", "c9")),
        says(hello("c9"), note(10), stay=True),
    ]
    stream = client.notifications()

    assert await take(stream, 2) == ["n1", "gap:trimmed"]
    assert stream.cursor == "c9"
    assert await take(stream, 1) == ["n10"]
    assert server.cursors == [None, "c9"]


async def test_a_repeat_of_a_second_connection_is_dropped(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [
        says(hello("c0"), note(1), note(2)),
        says(hello("c0"), note(1), note(2), note(3), stay=True),
    ]

    assert await take(client.notifications(), 3) == ["n1", "n2", "n3"]


async def test_a_repeat_within_one_connection_is_delivered(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [says(hello("c0"), note(1), note(1, "c2"), stay=True)]

    assert await take(client.notifications(), 2) == ["n1", "n1"]


async def test_lost_connections_are_backed_off(
    server: ScriptedServer, client: Client, time: FakeClock
) -> None:
    server.script = [cut, cut, cut, says(hello("c0"), note(1), stay=True)]

    await take(client.notifications(), 1)

    assert time.slept_s == [0.25, 0.5, 1.0]


async def test_a_new_notification_resets_the_backoff_and_a_repeat_does_not(
    server: ScriptedServer, client: Client, time: FakeClock
) -> None:
    server.script = [
        says(hello("c0"), note(1)),
        says(hello("c0"), note(1)),
        says(hello("c0"), note(1)),
        says(hello("c0"), note(2)),
        says(hello("c2"), note(3), stay=True),
    ]

    await take(client.notifications(), 3)

    assert time.slept_s == [0.25, 0.5, 1.0, 0.25]


async def test_a_quiet_connection_that_lasted_resets_the_backoff(
    server: ScriptedServer, client: Client, time: FakeClock
) -> None:
    async def hold(connection: ServerConnection) -> None:
        await says(hello("c0"), {"type": "ping"}, stay=True)(connection)
        assert await connection.recv() == '{"type":"pong"}'
        time.now_s += 10
        await connection.close()

    server.script = [cut, cut, hold, says(hello("c0"), note(1), stay=True)]

    await take(client.notifications(), 1)

    assert time.slept_s == [0.25, 0.5, 0.25]


async def test_the_delay_of_a_bye_is_kept(
    server: ScriptedServer, client: Client, time: FakeClock
) -> None:
    server.script = [
        says(hello("c0"), bye(4100, 2500), code=4100),
        says(hello("c0"), note(1), stay=True),
    ]

    await take(client.notifications(), 1)

    assert time.slept_s == [2.75]


async def test_a_bye_counts_even_if_the_close_is_lost(
    server: ScriptedServer, client: Client, time: FakeClock
) -> None:
    async def act(connection: ServerConnection) -> None:
        await connection.send(json.dumps(hello("c0")))
        await connection.send(json.dumps(bye(4100, 4000)))
        await connection.wait_closed()

    server.script = [act, says(hello("c0"), note(1), stay=True)]

    await take(client.notifications(), 1)

    assert time.slept_s == [4.25]


@pytest.mark.parametrize("code", [4201, 4202, 4203])
async def test_a_final_close_code_ends_the_iteration_once(
    server: ScriptedServer, client: Client, code: int
) -> None:
    server.script = [says(hello("c0"), note(1), code=code)]
    stream = client.notifications()
    await take(stream, 1)

    with pytest.raises(Refused) as caught:
        await anext(stream)

    assert caught.value.code == code
    assert [event async for event in stream] == []


async def test_a_refused_token_without_a_source_ends_the_iteration(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [says(hello("c0"), code=4200)]

    with pytest.raises(TokenExpired):
        await anext(client.notifications())


@pytest.mark.parametrize("refusal", [says(code=4200), Refusal(401)])
async def test_a_refused_token_is_replaced_from_the_source(
    server: ScriptedServer, time: FakeClock, refusal: Act | Refusal
) -> None:
    tokens = iter(["t1", "t2"])

    async def source() -> str:
        return next(tokens)

    server.script = [refusal, says(hello("c0"), note(1), stay=True)]
    async with Client(server.url, token_source=source, clock=time.clock) as client:
        await take(client.notifications("c0"), 1)

    assert server.tokens == ["t1", "t2"]
    assert time.slept_s == []


async def test_a_source_of_bad_tokens_is_called_once_more_only(
    server: ScriptedServer, time: FakeClock
) -> None:
    asked = 0

    async def source() -> str:
        nonlocal asked
        asked += 1
        return f"bad{asked}"

    server.script = [Refusal(401), Refusal(401), Refusal(401)]
    async with Client(server.url, token_source=source, clock=time.clock) as client:
        with pytest.raises(TokenExpired):
            await anext(client.notifications())

    assert server.tokens == ["bad1", "bad2"]


async def test_exceptions_of_the_token_source_reach_the_consumer(
    server: ScriptedServer, time: FakeClock
) -> None:
    async def source() -> str:
        raise LookupError("nobody is signed in")

    async with Client(server.url, token_source=source, clock=time.clock) as client:
        with pytest.raises(LookupError):
            await anext(client.notifications())


async def test_a_full_server_is_retried_after_its_delay(
    server: ScriptedServer, client: Client, time: FakeClock
) -> None:
    server.script = [
        Refusal(503, retry_after="3"),
        Refusal(409, retry_after="1"),
        Refusal(500),
        says(hello("c0"), note(1), stay=True),
    ]

    await take(client.notifications(), 1)

    assert time.slept_s == [3.25, 1.5, 1.0]


@pytest.mark.parametrize("status", [200, 302, 400, 403, 404, 426])
async def test_a_handshake_that_stays_wrong_is_not_repeated(
    server: ScriptedServer, client: Client, status: int
) -> None:
    server.script = [Refusal(status, detail="a proxy ate it")]

    with pytest.raises(Refused, match=f"{status} a proxy ate it") as caught:
        await anext(client.notifications(transport="websocket"))

    assert (caught.value.status, caught.value.detail) == (status, "a proxy ate it")


async def test_a_first_connection_that_never_works_is_an_error(
    server: ScriptedServer, client: Client, time: FakeClock
) -> None:
    server.script = [Refusal(503, detail="no slot is free") for _ in range(7)]

    with pytest.raises(Unavailable) as caught:
        await anext(client.notifications("mine"))

    assert (caught.value.status, caught.value.detail) == (503, "no slot is free")
    assert time.slept_s == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert str(caught.value) == (
        f"503 no slot is free (after 6 attempts) (ws://127.0.0.1:{server.port}/v1/stream)"
    )


async def test_a_first_connection_that_ends_without_hello_has_not_worked(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [says(bye(4102, 0)) for _ in range(7)]

    with pytest.raises(Unavailable, match="why"):
        await anext(client.notifications())


async def test_an_address_without_a_server_is_an_error(time: FakeClock) -> None:
    url = "http://alice:secret@127.0.0.1:1"
    async with Client(url, token="t", clock=time.clock) as client:
        with pytest.raises(Unavailable, match="cannot connect") as caught:
            await anext(client.notifications())

    assert caught.value.url == "ws://127.0.0.1:1/v1/stream"
    assert "secret" not in str(caught.value)


async def test_a_stream_that_was_connected_waits_for_as_long_as_it_takes(
    server: ScriptedServer, client: Client, time: FakeClock
) -> None:
    server.script = [
        cut,
        *(Refusal(503) for _ in range(20)),
        says(hello("c0"), note(1), stay=True),
    ]

    assert await take(client.notifications(), 1) == ["n1"]
    assert len(time.slept_s) == 21


async def test_a_ping_is_answered(server: ScriptedServer, client: Client) -> None:
    heard: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def act(connection: ServerConnection) -> None:
        await says(hello("c0"), note(1), {"type": "ping"}, stay=True)(connection)
        heard.put_nowait(await connection.recv())

    server.script = [act]
    await take(client.notifications(), 1)

    assert await heard.get() == '{"type":"pong"}'


async def test_a_quiet_server_is_pinged_and_a_pong_suffices(
    server: ScriptedServer, client: Client
) -> None:
    pinged = 0

    async def act(connection: ServerConnection) -> None:
        nonlocal pinged
        await connection.send(json.dumps(hello("c0", HEARTBEAT_S)))
        while pinged < 5:
            assert await connection.recv() == '{"type":"ping"}'
            pinged += 1
            await connection.send('{"type":"pong"}')
        await connection.send(json.dumps(note(1)))

    server.script = [act]
    await take(client.notifications(), 1)

    assert pinged == 5
    assert server.cursors == [None]


async def test_a_dead_connection_is_dropped_and_replaced(
    server: ScriptedServer, client: Client
) -> None:
    async def deaf(connection: ServerConnection) -> None:
        await connection.send(json.dumps(hello("c0", HEARTBEAT_S)))
        # A peer that reads no more looks like a half-open connection.
        connection.transport.pause_reading()
        await dead.wait()
        connection.transport.resume_reading()

    dead = asyncio.Event()
    server.script = [deaf, says(hello("c0"), note(1), stay=True)]

    assert await take(client.notifications(), 1) == ["n1"]
    dead.set()
    assert server.cursors == [None, "c0"]


async def test_a_slow_consumer_is_not_taken_for_a_silent_server(
    server: ScriptedServer, client: Client
) -> None:
    pings: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def act(connection: ServerConnection) -> None:
        await says(hello("c0", HEARTBEAT_S), note(1), note(2), note(3), stay=True)(
            connection
        )
        async for message in connection:
            pings.put_nowait(message)
            await connection.send('{"type":"pong"}')

    server.script = [act]
    stream = client.notifications(buffer_max=1)
    await take(stream, 1)
    # Notification 2 fills the buffer and 3 waits: the stream reads nothing, for longer
    # than the silence that it allows its server.
    loop = asyncio.get_running_loop()
    late = asyncio.Event()
    loop.call_later(5 * HEARTBEAT_S, late.set)
    await late.wait()

    assert pings.empty()
    assert await take(stream, 2) == ["n2", "n3"]
    assert await pings.get() == '{"type":"ping"}'
    assert server.cursors == [None]


async def test_a_full_buffer_stops_reading_the_socket(
    server: ScriptedServer, client: Client
) -> None:
    sent = 0
    stuck = asyncio.Event()
    padding = "x" * 200_000

    async def act(connection: ServerConnection) -> None:
        nonlocal sent
        await connection.send(json.dumps(hello("c0")))
        for number in range(1, 500):
            message = note(number)
            message["notification"]["body"] = padding
            try:
                async with asyncio.timeout(0.2):
                    await connection.send(json.dumps(message))
            except TimeoutError:
                stuck.set()
                connection.transport.abort()
                return
            sent = number

    server.script = [act]
    stream = client.notifications(buffer_max=2)
    await take(stream, 1)
    await stuck.wait()

    assert sent < 200


@pytest.mark.parametrize(
    "message",
    [
        "no json",
        '{"type":"notification","cursor":"c1","notification":{"id":7}}',
        '{"type":"gap"}',
    ],
)
async def test_a_stream_resumes_before_an_unreadable_message(
    server: ScriptedServer, client: Client, time: FakeClock, message: str
) -> None:
    server.script = [
        says(hello("c0"), note(1), message, note(3), stay=True),
        says(hello("c1"), note(2), note(3), stay=True),
    ]

    assert await take(client.notifications(), 3) == ["n1", "n2", "n3"]
    assert server.cursors == [None, "c1"]
    assert time.slept_s == [0.25]


async def test_a_stream_that_does_not_begin_with_hello_is_unreadable(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [
        says(note(7), stay=True),
        says(hello("c0"), note(1), stay=True),
    ]

    assert await take(client.notifications(), 1) == ["n1"]


async def test_pings_may_come_before_hello(
    server: ScriptedServer, client: Client
) -> None:
    ping = {"type": "ping"}
    server.script = [says(ping, ping, hello("c0"), note(1), stay=True)]

    assert await take(client.notifications(), 1) == ["n1"]
    assert server.cursors == [None]


async def test_messages_of_a_newer_server_are_ignored(
    server: ScriptedServer, client: Client
) -> None:
    weather = {"type": "weather", "cursor": "c99"}
    read = {"type": "read", "all": True, "unread": 0, "marks_version": 3}
    server.script = [says(hello("c0"), weather, read, note(1), stay=True)]

    assert await take(client.notifications(), 2) == ["read:0", "n1"]


async def test_closing_closes_the_socket_and_ends_a_waiting_consumer(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [says(hello("c0"), note(1), stay=True)]
    stream = client.notifications()
    await take(stream, 1)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)

    await stream.aclose()
    await stream.aclose()

    with pytest.raises(StopAsyncIteration):
        await waiting
    await server.closed(1)
    assert server.closed_with == [1000]
    assert stream.cursor == "c1"


async def test_a_client_closes_its_streams(
    server: ScriptedServer, time: FakeClock
) -> None:
    server.script = [says(hello("c0"), note(1), stay=True)]
    async with Client(server.url, token="t", clock=time.clock) as client:
        async for _ in client.notifications():
            break

    await server.closed(1)
    assert server.closed_with == [1000]


async def test_a_stream_that_never_began_can_be_closed(client: Client) -> None:
    stream = client.notifications()

    await stream.aclose()

    assert [event async for event in stream] == []


async def test_cancelling_a_step_loses_nothing(
    server: ScriptedServer, client: Client
) -> None:
    go_on = asyncio.Event()

    async def act(connection: ServerConnection) -> None:
        await says(hello("c0"), stay=True)(connection)
        await go_on.wait()
        await says(note(1), note(2), stay=True)(connection)

    server.script = [act]
    stream = client.notifications()
    step = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    go_on.set()

    assert await take(stream, 2) == ["n1", "n2"]


def test_all_errors_have_one_root() -> None:
    assert issubclass(TokenExpired, Refused)
    assert issubclass(Refused, Error)


class Log:
    """A log of `length` notifications on a server that misbehaves, by `chance`."""

    def __init__(self, length: int, chance: random.Random) -> None:
        self.length = length
        self.chance = chance
        self.connections = 0

    async def play(self, connection: ServerConnection) -> None:
        self.connections += 1
        assert connection.request is not None
        query = parse_qs(urlsplit(connection.request.path).query)
        begin = int(query.get("cursor", ["0"])[0])
        # A slightly older cursor: a server that lost its tail may resume there.
        begin = max(0, begin - self.chance.choice([0, 0, 3]))
        await connection.send(json.dumps(hello(str(begin))))
        patience = self.chance.randrange(12)
        for number in range(begin + 1, self.length + 1):
            if patience == 0:
                await self.misbehave(connection)
                return
            patience -= 1
            await connection.send(json.dumps(note(number, str(number))))
        await connection.wait_closed()

    async def misbehave(self, connection: ServerConnection) -> None:
        match self.chance.randrange(5):
            case 0:
                connection.transport.abort()
            case 1:
                await connection.close(self.chance.choice([1000, 1012, 4000, 4104]))
            case 2:
                await connection.send(json.dumps(bye(4100, 10)))
                await connection.close(4100)
            case 3:
                await connection.send('{"type":"notification"')
                await connection.wait_closed()
            case 4:
                await connection.send(json.dumps({"type": "ping"}))
                connection.transport.abort()


@pytest.mark.parametrize("seed", range(8))
async def test_every_notification_comes_once_and_in_order_whatever_the_server_does(
    seed: int, time: FakeClock
) -> None:
    log = Log(60, random.Random(seed))
    async with serve(log.play, "127.0.0.1", 0, ping_interval=None) as listener:
        port = next(iter(listener.sockets)).getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        async with Client(url, token="t", clock=time.clock) as client:
            stream = client.notifications("0", buffer_max=1 + seed)
            taken = await take(stream, log.length)

    assert taken == [f"n{number}" for number in range(1, log.length + 1)]
    assert stream.cursor == str(log.length)
    assert log.connections > 1
