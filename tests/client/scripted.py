"""A server that follows a script, and a clock that takes no time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from streamer_client import (
    CursorMoved,
    Event,
    Gap,
    Notification,
    Read,
    Replaced,
    Stream,
    Unread,
    Withdrawn,
)
from streamer_client.backoff import Clock

Act = Callable[[ServerConnection], Awaitable[None]]

NO_HEARTBEAT_S = 3600
HEARTBEAT_S = 0.02


class Refusal:
    """Refuse the handshake with this status."""

    def __init__(
        self, status: int, retry_after: str | None = None, detail: str = ""
    ) -> None:
        self.status = status
        self.retry_after = retry_after
        self.detail = detail


class ScriptedServer:
    """Plays the next act of its script on each connection; keeps further ones open."""

    def __init__(self) -> None:
        self.script: list[Act | Refusal] = []
        self.cursors: list[str | None] = []
        self.tokens: list[str] = []
        self.instances: list[str] = []
        self.queries: list[dict[str, list[str]]] = []
        self.closed_with: list[int | None] = []
        self.changed = asyncio.Condition()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        query = parse_qs(urlsplit(request.path).query)
        self.queries.append(query)
        self.cursors.append(query.get("cursor", [None])[0])
        self.instances.append(query["instance"][0])
        self.tokens.append(request.headers["Authorization"].removeprefix("Bearer "))
        if not self.script or not isinstance(self.script[0], Refusal):
            return None
        refusal = self.script.pop(0)
        assert isinstance(refusal, Refusal)
        body = {"title": "no", "detail": refusal.detail}
        response = connection.respond(refusal.status, json.dumps(body))
        if refusal.retry_after is not None:
            response.headers["Retry-After"] = refusal.retry_after
        return response

    async def play(self, connection: ServerConnection) -> None:
        act = self.script.pop(0) if self.script else says(hello("end"), stay=True)
        assert not isinstance(act, Refusal)
        try:
            await act(connection)
        except ConnectionClosed:
            pass
        await connection.wait_closed()
        async with self.changed:
            self.closed_with.append(connection.close_code)
            self.changed.notify_all()

    async def closed(self, count: int) -> None:
        """Wait until so many connections have ended."""
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.closed_with) >= count)


class FakeClock:
    """Sleeps take no time and are recorded; random numbers are always 0.5."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []
        self.now_s = 0.0
        self.clock = Clock(lambda: self.now_s, self.sleep, lambda: 0.5, lambda: 1e9)

    async def sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        await asyncio.sleep(0)


def hello(cursor: str, heartbeat_s: float = NO_HEARTBEAT_S) -> dict[str, Any]:
    return {"type": "hello", "cursor": cursor, "heartbeat_s": heartbeat_s}


def audience_note(number: int, **to: Any) -> dict[str, Any]:
    """Notification `number` of an audience, without a cursor."""
    message = note(number)
    del message["cursor"]
    message["notification"] |= to or {"everyone": True}
    return message


def note(number: int, cursor: str | None = None) -> dict[str, Any]:
    """Notification `number`, with the cursor after it."""
    return {
        "type": "notification",
        "cursor": cursor or f"c{number}",
        "notification": {"id": f"n{number}", "created_at": "2026-11-20T22:52:39.123Z"},
    }


def gap(reason: str, cursor: str) -> dict[str, Any]:
    return {"type": "gap", "reason": reason, "cursor": cursor}


def bye(code: int, delay_ms: int) -> dict[str, Any]:
    return {"type": "bye", "code": code, "reason": "why", "delay_ms": delay_ms}


def says(*messages: dict[str, Any] | str, stay: bool = False, code: int = 1001) -> Act:
    """An act: send these messages, then close with `code`, or `stay`."""

    async def act(connection: ServerConnection) -> None:
        for message in messages:
            text = message if isinstance(message, str) else json.dumps(message)
            await connection.send(text)
        if not stay:
            await connection.close(code)

    return act


async def cut(connection: ServerConnection) -> None:
    """An act: send ``hello``, and drop the connection without a close."""
    await connection.send(json.dumps(hello("c0")))
    connection.transport.abort()


async def take(stream: Stream, count: int) -> list[str]:
    """Take `count` events, each as a word."""
    return [word(await anext(stream)) for _ in range(count)]


def word(event: Event) -> str:
    match event:
        case Notification(id=id):
            return id
        case Gap(reason):
            return f"gap:{reason}"
        case Withdrawn(id):
            return f"-{id}"
        case Replaced(id, by):
            return f"{id}>{by}"
        case CursorMoved(cursor):
            return f"@{cursor}"
        case Unread(unread):
            return f"unread:{unread}"
        case Read(unread=unread):
            return f"read:{unread}"
