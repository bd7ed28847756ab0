"""Marks that wait for a connection."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from streamer_client import Client, Unavailable
from streamer_client.outbox import COMMANDS_MAX, IDS_MAX, Outbox
from streamer_client.wire import AckCommand, ReadCommand

from .scripted import ScriptedServer, bye, cut, hello, says


def read(*ids: str) -> ReadCommand:
    return ReadCommand(ids=ids)


def drain(outbox: Outbox) -> list[ReadCommand | AckCommand]:
    found = []
    while outbox:
        found.append(outbox.first())
        outbox.remove(outbox.first())
    return found


def test_ids_are_one_command() -> None:
    outbox = Outbox()
    outbox.put(read("a", "b"))
    outbox.put(read("b", "c"))

    assert drain(outbox) == [read("a", "b", "c")]


def test_a_command_has_a_thousand_ids_at_most() -> None:
    outbox = Outbox()
    outbox.put(read(*map(str, range(IDS_MAX))))
    outbox.put(read("more"))

    assert drain(outbox) == [read(*map(str, range(IDS_MAX))), read("more")]


def test_only_the_last_acknowledgement_is_sent() -> None:
    outbox = Outbox()
    outbox.put(AckCommand("c1"))
    outbox.put(read("a"))
    outbox.put(AckCommand("c2"))

    assert drain(outbox) == [read("a"), AckCommand("c2")]


def test_all_makes_earlier_marks_superfluous() -> None:
    outbox = Outbox()
    outbox.put(read("a"))
    outbox.put(ReadCommand(up_to="c1"))
    outbox.put(ReadCommand(all=True))
    outbox.put(read("b"))

    assert drain(outbox) == [ReadCommand(all=True), read("b")]


def test_what_was_added_to_a_command_that_was_sent_is_sent_as_well() -> None:
    outbox = Outbox()
    outbox.put(read("a"))
    sent = outbox.first()
    outbox.put(read("b"))
    outbox.remove(sent)

    assert drain(outbox) == [read("a", "b")]


def test_the_outbox_is_bounded() -> None:
    outbox = Outbox()
    for number in range(COMMANDS_MAX):
        outbox.put(ReadCommand(up_to=f"c{number}"))

    with pytest.raises(OverflowError, match="waiting"):
        outbox.put(ReadCommand(up_to="more"))


class Listener:
    """An act that records commands, and replies to them or is cut after the first."""

    def __init__(self, *, replies: bool) -> None:
        self.commands: list[dict[str, Any]] = []
        self._replies = replies

    async def __call__(self, connection: ServerConnection) -> None:
        await connection.send(json.dumps(hello("c0")))
        async for text in connection:
            command = json.loads(text)
            ref = command.pop("ref")
            self.commands.append(command)
            if not self._replies:
                connection.transport.abort()
                return
            await connection.send(json.dumps({"type": "reply", "ref": ref}))


async def test_a_mark_without_a_connection_is_sent_on_the_next_one(
    server: ScriptedServer, client: Client
) -> None:
    first, second = Listener(replies=False), Listener(replies=True)
    server.script = [cut, first, second]
    stream = client.notifications("c0")

    stream.mark_read_later(ids=["a"])
    stream.mark_read_later(ids=["b"])
    stream.ack_later("c1")
    await stream.sent()

    assert first.commands == [{"type": "read", "ids": ["a", "b"]}]
    assert second.commands == [
        {"type": "read", "ids": ["a", "b"]},
        {"type": "ack", "cursor": "c1"},
    ]
    await stream.aclose()


@pytest.mark.parametrize(
    ("cursor", "mark"),
    [("c0", {"up_to": "c0"}), ("earliest", {"all": True}), (None, {"all": True})],
)
async def test_all_without_a_connection_is_all_that_has_arrived(
    server: ScriptedServer, client: Client, cursor: str | None, mark: dict[str, Any]
) -> None:
    listener = Listener(replies=True)
    server.script = [cut, listener]
    stream = client.notifications(cursor)

    stream.mark_read_later(all=True)
    await stream.sent()

    assert listener.commands == [{"type": "read", **mark}]
    await stream.aclose()


async def test_marks_end_with_their_stream(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [says(bye(4201, 0))]
    stream = client.notifications()
    stream.mark_read_later(all=True)

    with pytest.raises(Exception, match="why"):
        await stream.sent()
    await stream.aclose()
    with pytest.raises(RuntimeError, match="ended"):
        stream.mark_read_later(all=True)


async def test_closing_a_stream_gives_its_marks_up(
    server: ScriptedServer, client: Client
) -> None:
    waits = asyncio.Event()

    async def silent(_: ServerConnection) -> None:
        waits.set()

    server.script = [silent]
    stream = client.notifications()
    stream.mark_read_later(all=True)
    await waits.wait()
    waiting = asyncio.ensure_future(stream.sent())
    await asyncio.sleep(0)

    await stream.aclose()

    with pytest.raises(Unavailable, match="closed"):
        await waiting


async def test_too_many_ids_are_an_error(client: Client) -> None:
    with pytest.raises(ValueError, match="1001 ids"):
        client.notifications().mark_read_later(ids=["a"] * 1_001)
