"""What an application asks for on a stream, and a token that is renewed on it."""

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

Heard = list[dict[str, Any]]


@pytest.fixture
def heard() -> Heard:
    """What the server was told, in order."""
    return []


def answers(
    heard: Heard, *messages: dict[str, Any], answer: dict[str, Any] | None = None
) -> Act:
    """An act: say these, note what is said, and answer what has a ref."""

    async def act(connection: ServerConnection) -> None:
        await says(hello("c0"), *messages, stay=True)(connection)
        async for text in connection:
            message = json.loads(text)
            heard.append(message)
            if ref := message.pop("ref", None):
                reply = answer or {"type": "reply"}
                await connection.send(json.dumps(reply | {"ref": ref}))

    return act


async def test_commands_say_what_was_asked(
    server: ScriptedServer, client: Client, heard: Heard
) -> None:
    server.script = [answers(heard, note(1), answer={"type": "reply", "unread": 2})]
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
    assert heard == [
        {"type": "read", "ids": ["n1"]},
        {"type": "read", "up_to": "c1"},
        {"type": "read", "all": True},
        {"type": "ack", "cursor": "c1"},
        {"type": "ack", "cursor": "c0"},
        {"type": "subscribe", "topics": ["a", "b"]},
        {"type": "unsubscribe", "topics": ["a"]},
    ]


async def test_what_the_server_does_not_do_is_said(
    server: ScriptedServer, client: Client, heard: Heard
) -> None:
    server.script = [answers(heard, answer={"type": "error", "problem": "not allowed"})]
    stream = client.notifications()

    with pytest.raises(CommandFailed, match="not allowed"):
        await stream.subscribe("a")

    assert stream.topics == ()


async def test_what_makes_no_sense_is_not_sent(client: Client) -> None:
    stream = client.notifications()

    with pytest.raises(ValueError, match="exactly one"):
        await stream.mark_read()
    with pytest.raises(ValueError, match="no cursor"):
        await stream.ack()


async def test_an_answer_that_is_lost_is_asked_for_again(
    server: ScriptedServer, client: Client, heard: Heard
) -> None:
    async def deaf(connection: ServerConnection) -> None:
        await says(hello("c0"), stay=True)(connection)
        await connection.recv()
        connection.transport.abort()

    server.script = [deaf, answers(heard)]

    await client.notifications().mark_read(all=True)

    assert heard == [{"type": "read", "all": True}]


async def test_topics_and_device_are_those_of_every_connection(
    server: ScriptedServer, client: Client, heard: Heard
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


async def test_what_comes_of_a_topic_with_the_answer_is_not_counted(
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


async def test_a_consumer_with_a_full_buffer_gets_its_answer(
    server: ScriptedServer, client: Client, heard: Heard
) -> None:
    notes = [note(number) for number in range(1, 101)]
    server.script = [answers(heard, *notes)]
    stream = client.notifications(buffer_max=1)
    await take(stream, 1)

    await stream.mark_read(all=True)

    assert await take(stream, 99) == [f"n{number}" for number in range(2, 101)]


async def test_an_answer_behind_more_than_may_be_held_is_given_up(
    server: ScriptedServer, client: Client, heard: Heard
) -> None:
    notes = [note(number) for number in range(1, EXTRA_ITEMS_MAX + 10)]
    server.script = [answers(heard, *notes)]
    stream = client.notifications(buffer_max=1)
    await take(stream, 1)

    with pytest.raises(Unavailable, match="more than is held"):
        await stream.mark_read(all=True)

    assert await take(stream, 2) == ["n2", "n3"]


async def test_commands_keep_below_what_a_server_takes(
    server: ScriptedServer, client: Client, time: FakeClock, heard: Heard
) -> None:
    server.script = [answers(heard)]
    stream = client.notifications("c0")

    for _ in range(12):
        await stream.ack()

    assert time.slept_s == pytest.approx([0.1, 0.2])


async def test_nothing_can_be_asked_on_a_stream_that_is_closed(client: Client) -> None:
    stream = client.notifications()
    await stream.aclose()

    with pytest.raises(Unavailable, match="closed"):
        await stream.mark_read(all=True)


async def test_closing_ends_the_wait_for_an_answer(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [says(hello("c0"), note(1), stay=True)]
    stream = client.notifications()
    await take(stream, 1)
    waiting = asyncio.ensure_future(stream.mark_read(all=True))
    await asyncio.sleep(0)

    await stream.aclose()

    with pytest.raises(Unavailable, match="closed"):
        await waiting


async def test_who_waits_for_an_answer_learns_that_the_stream_is_refused(
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
    heard: Heard,
    ending: Callable[[float], str | Token],
) -> None:
    tokens: list[str | Token] = [ending(time.clock.unix_s() + 1000), "t2"]

    async def source() -> str | Token:
        return tokens.pop(0)

    async def act(connection: ServerConnection) -> None:
        await says(hello("c0"), stay=True)(connection)
        heard.append(json.loads(await connection.recv()))
        await connection.send(json.dumps(note(1)))

    server.script = [act]
    async with Client(server.url, token_source=source, clock=time.clock) as client:
        await take(client.notifications(), 1)

    assert heard == [{"type": "auth", "token": "t2"}]
    assert time.slept_s == [825.0]
    assert len(server.tokens) == 1


async def test_a_source_that_fails_in_good_time_is_asked_again(
    server: ScriptedServer,
    time: FakeClock,
    heard: Heard,
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
        heard.append(json.loads(await connection.recv()))
        await connection.send(json.dumps(note(1)))

    server.script = [act]
    async with Client(server.url, token_source=source, clock=time.clock) as client:
        await take(client.notifications(), 1)

    assert heard == [{"type": "auth", "token": "t2"}]


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
