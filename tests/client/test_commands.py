"""Commands on a stream, and a token that is renewed on it."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from streamer_client import (
    Client,
    CommandFailed,
    Refused,
    Token,
    Unavailable,
)
from streamer_client.buffer import EXTRA_ITEMS_MAX

from .scripted import (
    Act,
    FakeClock,
    ScriptedServer,
    audience_note,
    bye,
    hello,
    note,
    says,
    take,
)

Received = list[dict[str, Any]]


@pytest.fixture
def received() -> Received:
    """The messages that the server has received, in order."""
    return []


def answers(
    received: Received, *messages: dict[str, Any], answer: dict[str, Any] | None = None
) -> Act:
    """An act: send these, note the messages received, reply to those with a ref."""

    async def act(connection: ServerConnection) -> None:
        await says(hello("c0"), *messages, stay=True)(connection)
        async for text in connection:
            message = json.loads(text)
            received.append(message)
            if ref := message.pop("ref", None):
                reply = answer or {"type": "reply"}
                await connection.send(json.dumps(reply | {"ref": ref}))

    return act


async def test_commands_are_sent_as_the_protocol_says(
    server: ScriptedServer, client: Client, received: Received
) -> None:
    server.script = [answers(received, note(1), answer={"type": "reply", "unread": 2})]
    stream = client.notifications()
    await take(stream, 1)

    unread = await stream.mark_read(ids=["n1"])
    await stream.mark_read(up_to="c1")
    await stream.mark_read(all=True)
    await stream.ack()
    await stream.ack("c0")
    await stream.subscribe("a", "b")
    await stream.unsubscribe("a")

    assert unread == 2
    assert stream.topics == ("b",)
    assert received == [
        {"type": "read", "ids": ["n1"]},
        {"type": "read", "up_to": "c1"},
        {"type": "read", "all": True},
        {"type": "ack", "cursor": "c1"},
        {"type": "ack", "cursor": "c0"},
        {"type": "subscribe", "topics": ["a", "b"]},
        {"type": "unsubscribe", "topics": ["a"]},
    ]


async def test_a_command_that_the_server_refuses_raises(
    server: ScriptedServer, client: Client, received: Received
) -> None:
    server.script = [
        answers(received, answer={"type": "error", "problem": "not allowed"})
    ]
    stream = client.notifications()

    with pytest.raises(CommandFailed, match="not allowed"):
        await stream.subscribe("a")

    assert stream.topics == ()


async def test_an_invalid_command_is_not_sent(client: Client) -> None:
    stream = client.notifications()

    with pytest.raises(ValueError, match="exactly one"):
        await stream.mark_read()
    with pytest.raises(ValueError, match="no cursor"):
        await stream.ack()


async def test_a_command_whose_reply_is_lost_is_sent_again(
    server: ScriptedServer, client: Client, received: Received
) -> None:
    async def deaf(connection: ServerConnection) -> None:
        await says(hello("c0"), stay=True)(connection)
        await connection.recv()
        connection.transport.abort()

    server.script = [deaf, answers(received)]

    await client.notifications().mark_read(all=True)

    assert received == [{"type": "read", "all": True}]


async def test_topics_and_device_are_those_of_every_connection(
    server: ScriptedServer, client: Client, received: Received
) -> None:
    async def leave(connection: ServerConnection) -> None:
        await says(hello("c0"), stay=True)(connection)
        for _ in range(2):
            ref = json.loads(await connection.recv())["ref"]
            await connection.send(json.dumps({"type": "reply", "ref": ref}))
        await connection.close(1001)

    server.script = [leave, says(hello("c0"), note(1), stay=True)]
    stream = client.notifications(topics=["a", "b"], device="phone")
    await stream.subscribe("c")
    await stream.unsubscribe("a")
    await take(stream, 1)

    assert [query["topics"] for query in server.queries] == [["a,b"], ["b,c"]]
    assert [query["device"] for query in server.queries] == [["phone"], ["phone"]]


async def test_a_topic_is_not_counted_before_the_reply_either(
    server: ScriptedServer, client: Client
) -> None:
    async def act(connection: ServerConnection) -> None:
        await says({**hello("c0"), "unread": 3}, stay=True)(connection)
        ref = json.loads(await connection.recv())["ref"]
        await connection.send(json.dumps(audience_note(1, topic="a")))
        await connection.send(json.dumps({"type": "reply", "ref": ref}))
        await connection.send(json.dumps(audience_note(2, topic="a")))

    server.script = [act]
    stream = client.notifications()
    await stream.subscribe("a")

    assert await take(stream, 3) == ["unread:3", "n1", "n2"]
    assert stream.unread == 3


async def test_a_consumer_with_a_full_buffer_gets_its_reply(
    server: ScriptedServer, client: Client, received: Received
) -> None:
    notes = [note(number) for number in range(1, 101)]
    server.script = [answers(received, *notes)]
    stream = client.notifications(buffer_max=1)
    await take(stream, 1)

    await stream.mark_read(all=True)

    assert await take(stream, 99) == [f"n{number}" for number in range(2, 101)]


async def test_a_reply_after_too_many_events_is_given_up(
    server: ScriptedServer, client: Client, received: Received
) -> None:
    notes = [note(number) for number in range(1, EXTRA_ITEMS_MAX + 10)]
    server.script = [answers(received, *notes)]
    stream = client.notifications(buffer_max=1)
    await take(stream, 1)

    with pytest.raises(Unavailable, match="too many events"):
        await stream.mark_read(all=True)

    assert await take(stream, 2) == ["n2", "n3"]


async def test_commands_stay_below_the_servers_rate(
    server: ScriptedServer, client: Client, time: FakeClock, received: Received
) -> None:
    server.script = [answers(received)]
    stream = client.notifications("c0")

    for _ in range(12):
        await stream.ack()

    assert time.slept_s == pytest.approx([0.1, 0.2])


async def test_a_closed_stream_takes_no_commands(client: Client) -> None:
    stream = client.notifications()
    await stream.aclose()

    with pytest.raises(Unavailable, match="closed"):
        await stream.mark_read(all=True)


async def test_closing_ends_the_wait_for_a_reply(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [says(hello("c0"), note(1), stay=True)]
    stream = client.notifications()
    await take(stream, 1)
    pending = asyncio.ensure_future(stream.mark_read(all=True))
    await asyncio.sleep(0)

    await stream.aclose()

    with pytest.raises(Unavailable, match="closed"):
        await pending


async def test_a_refused_stream_fails_pending_commands(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [says(hello("c0"), bye(4201, 0), code=4201)]

    with pytest.raises(Refused):
        await client.notifications().mark_read(all=True)


def jwt(expires_at_s: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expires_at_s}).encode())
    return f"e30.{claims.decode().rstrip('=')}.sig"


ENDING: list[Callable[[float], str | Token]] = [
    jwt,
    lambda at_s: Token("t1", datetime.fromtimestamp(at_s, UTC)),
]


@pytest.mark.parametrize("ending", ENDING)
async def test_a_token_is_renewed_on_an_open_stream_before_it_ends(
    server: ScriptedServer,
    time: FakeClock,
    received: Received,
    ending: Callable[[float], str | Token],
) -> None:
    tokens: list[str | Token] = [ending(time.clock.unix_s() + 1000), "t2"]

    async def source() -> str | Token:
        return tokens.pop(0)

    async def act(connection: ServerConnection) -> None:
        await says(hello("c0"), stay=True)(connection)
        received.append(json.loads(await connection.recv()))
        await connection.send(json.dumps(note(1)))

    server.script = [act]
    async with Client(server.url, token_source=source, clock=time.clock) as client:
        await take(client.notifications(), 1)

    assert received == [{"type": "auth", "token": "t2"}]
    assert time.slept_s == [825.0]
    assert len(server.tokens) == 1


async def test_a_source_that_fails_early_is_called_again(
    server: ScriptedServer,
    time: FakeClock,
    received: Received,
) -> None:
    answers: list[str | Exception] = [
        jwt(time.clock.unix_s() + 1000),
        LookupError("away"),
        "t2",
    ]

    async def source() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def act(connection: ServerConnection) -> None:
        await says(hello("c0"), stay=True)(connection)
        received.append(json.loads(await connection.recv()))
        await connection.send(json.dumps(note(1)))

    server.script = [act]
    async with Client(server.url, token_source=source, clock=time.clock) as client:
        await take(client.notifications(), 1)

    assert received == [{"type": "auth", "token": "t2"}]


async def test_a_plain_function_may_block_to_get_a_token(
    server: ScriptedServer, time: FakeClock
) -> None:
    threads = []

    def source() -> str:
        threads.append(threading.current_thread())
        return "t1"

    server.script = [says(hello("c0"), note(1), stay=True)]
    async with Client(server.url, token_source=source, clock=time.clock) as client:
        await take(client.notifications(), 1)

    assert server.tokens == ["t1"]
    assert threads != [threading.current_thread()]
