"""
A small client of the streamer protocol, written from ``clients/PROTOCOL.md`` alone.

It follows one stream over WebSocket or SSE, and counts unread notifications by the rule
of section 6. It is for tests: it has no back-off and renews no token.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal
from urllib.parse import urlencode

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

__all__ = ["Badge", "SmallClient"]

Transport = Literal["websocket", "sse"]


class Badge:
    """
    The number of unread notifications, as a client shows it.

    Args:
        topics: The topics that the stream has asked for itself.

    """

    def __init__(self, topics: Sequence[str] = ()) -> None:
        self.number: int | None = None
        """None while it is unknown."""
        self._topics = frozenset(topics)

    def take(self, message: dict[str, Any]) -> int | None:
        """Process a message of the server; return the number after it."""
        if message["type"] in ("hello", "unread", "read"):
            self.number = message["unread"]
        elif message["type"] == "notification" and self.number is not None:
            notification = message["notification"]
            # A random id, of version 4, is that of a notification that is not stored.
            is_stored = notification["id"][14] != "4"
            if is_stored and notification.get("topic") not in self._topics:
                self.number += 1
        return self.number


class SmallClient:
    """
    One stream of a player, and what it has received.

    Args:
        url: The server, ``http://host:port``.
        token: The player's token.
        transport: How to connect.
        cursor: Where to begin: None is from now on.
        topics: Topics that this stream asks for itself.
        device: The permanent name of the device, "" for none.

    """

    def __init__(
        self,
        url: str,
        token: str,
        transport: Transport = "websocket",
        *,
        cursor: str | None = None,
        topics: Sequence[str] = (),
        device: str = "",
    ) -> None:
        self.badge = Badge(topics)
        self.cursor = cursor
        self.messages: list[dict[str, Any]] = []
        """The messages of the present connection."""
        self.numbers: list[int | None] = []
        """The number after each of them."""
        self.ids: set[str] = set()
        """Ids of all notifications that have arrived, on any connection."""
        self._url = url
        self._token = token
        self._transport = transport
        self._topics = topics
        self._device = device
        self._reading: asyncio.Task[None] | None = None
        self._socket: ClientConnection | None = None

    async def open(self) -> None:
        """Connect, and return after ``hello``."""
        self.messages, self.numbers = [], []
        begun = asyncio.Event()
        self._reading = asyncio.create_task(self._read(begun))
        begun_task = asyncio.create_task(begun.wait())
        await asyncio.wait(
            (begun_task, self._reading), return_when=asyncio.FIRST_COMPLETED
        )
        begun_task.cancel()
        if not begun.is_set():
            await self._reading
            raise ConnectionError("the stream ended before hello")

    async def close(self) -> None:
        """Disconnect. `open` resumes from the last cursor."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    async def send(self, message: dict[str, Any]) -> None:
        """Send a message of section 6. WebSocket only."""
        assert self._socket is not None
        await self._socket.send(json.dumps(message))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the messages of a type, of the present connection."""
        return [message for message in self.messages if message["type"] == kind]

    @property
    def number(self) -> int | None:
        """The number that this client shows."""
        return self.badge.number

    async def _read(self, begun: asyncio.Event) -> None:
        stream = self._websocket() if self._transport == "websocket" else self._sse()
        async for message in stream:
            self._take(message)
            if message["type"] == "hello":
                begun.set()

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "hello":
            # A cursor of its own is better.
            self.cursor = self.cursor or message["cursor"]
        elif message.get("cursor"):
            self.cursor = message["cursor"]
        if message["type"] == "notification":
            self.ids.add(message["notification"]["id"])
        self.messages.append(message)
        self.numbers.append(self.badge.take(message))

    def _query(self) -> str:
        query = {}
        if self.cursor is not None:
            query["cursor"] = self.cursor
        if self._topics:
            query["topics"] = ",".join(self._topics)
        if self._device:
            query["device"] = self._device
        return urlencode(query)

    async def _websocket(self) -> AsyncIterator[dict[str, Any]]:
        url = f"ws{self._url.removeprefix('http')}/v1/stream?{self._query()}"
        headers = {"Authorization": f"Bearer {self._token}"}
        async with connect(url, additional_headers=headers) as socket:
            self._socket = socket
            with contextlib.suppress(ConnectionClosed):
                async for text in socket:
                    message = json.loads(text)
                    if message["type"] == "ping":
                        await socket.send('{"type":"pong"}')
                    yield message

    async def _sse(self) -> AsyncIterator[dict[str, Any]]:
        url = f"{self._url}/v1/stream?{self._query()}"
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Accept": "text/event-stream",
        }
        async with (
            httpx2.AsyncClient(timeout=None) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            response.raise_for_status()
            name, data, last_id, has_id = "", "", "", False
            async for line in response.aiter_lines():
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if field == "event":
                    name = value
                elif field == "data":
                    data = value
                elif field == "id":
                    last_id, has_id = value, True
                elif not line:
                    if data or has_id:
                        yield _of_event(name, data, last_id if has_id else None)
                    name, data, has_id = "", "", False


def _of_event(name: str, data: str, cursor: str | None) -> dict[str, Any]:
    """Return an event of SSE as the WebSocket message of the same meaning."""
    if not data:
        return {"type": "cursor", "cursor": cursor}
    content = json.loads(data)
    if name:
        message = {**content, "type": name}
    else:
        message = {"type": "notification", "notification": content}
    return message if cursor is None else {**message, "cursor": cursor}
