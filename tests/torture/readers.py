"""
Readers that stay: each keeps a stream, or a chain of polls, whatever happens to it.

The raw ones are written from ``clients/PROTOCOL.md`` alone. `ClientReader` is the
Python client. All of them record what they receive and keep a badge, the unread count,
by the protocol's rule: the last number received, and one more for each notification.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import Iterator
from typing import Any

import httpx2

from streamer_client import (
    Client,
    CursorMoved,
    Gap,
    Notification,
    Read,
    Replaced,
    Unavailable,
    Unread,
    Withdrawn,
)

from ..e2e.readers import (
    RawStream,
    SseStream,
    StreamEnded,
    StreamMessage,
    StreamRefused,
    WsStream,
)
from .history import EVERYONE, Reading, Received, log_of, own, topic_log

SILENCE = 2.5
"""Heartbeats without a message after which a connection is dead."""

OPENING_S = 5.0
POLL_S = 3


class Reader:
    """What all readers share: their record."""

    def __init__(self, reading: Reading, dice: random.Random) -> None:
        self.reading = reading
        self._dice = dice
        self._connection = 0

    async def run(self) -> None:
        """Read until cancelled."""
        raise NotImplementedError

    def _record(self, kind: str, **members: Any) -> None:
        self.reading.events.append(
            Received(time.time(), self._connection, kind, **members)
        )

    def _received(self, notification: dict[str, Any]) -> None:
        self._record(
            "notification",
            id=notification["id"],
            log=log_of(self.reading.player, notification),
            other=notification.get("collapse_key") or "",
        )
        if self.reading.unread is not None:
            self.reading.unread += 1

    def _counted(self, kind: str, unread: int) -> None:
        self.reading.unread = unread
        self._record(kind, unread=unread)

    def _gap(self, reason: str, topic: str | None, everyone: bool) -> None:
        log = topic_log(topic) if topic else EVERYONE if everyone else ""
        self._record("gap", log=log, other=reason)

    async def _back_off(self) -> None:
        # Shorter than the protocol's, as a run has seconds and not minutes.
        await asyncio.sleep(self._dice.uniform(0.02, 0.4))


class StreamReader(Reader):
    """A raw WebSocket or SSE stream that reconnects with its cursor."""

    def __init__(
        self,
        reading: Reading,
        dice: random.Random,
        *,
        fronts: Iterator[int],
        token: str,
        heartbeat_s: float,
    ) -> None:
        super().__init__(reading, dice)
        self._fronts = fronts
        self._token = token
        self._silence_s = heartbeat_s * SILENCE
        self._cursor: str | None = "earliest" if reading.from_earliest else None
        self._instance = f"{dice.getrandbits(64):x}"

    async def run(self) -> None:
        while True:
            self._connection += 1
            try:
                await self._follow()
            except StreamRefused as refused:
                self._record("refused", other=str(refused.status))
            except StreamEnded as ended:
                self._record("ended", other=str(ended.code))
            except TimeoutError:
                self._record("ended", other="silent")
            except ValueError:
                # The body of a refusal is no problem document.
                self._record("refused", other="unreadable")
            await self._back_off()

    async def _follow(self) -> None:
        opener = WsStream if self.reading.transport == "websocket" else SseStream
        async with asyncio.timeout(OPENING_S):
            stream = await opener.open(
                next(self._fronts),
                self._token,
                cursor=self._cursor,
                instance=self._instance,
            )
        try:
            while True:
                async with asyncio.timeout(self._silence_s):
                    message = await stream.next()
                await self._take(stream, message)
        finally:
            if isinstance(stream, SseStream):
                # A block with nothing but an id is no event, and moves the cursor.
                self._cursor = stream.parser.last_event_id or self._cursor
            stream.cut()

    async def _take(self, stream: RawStream, message: StreamMessage) -> None:
        data = message.data
        match message.kind:
            case "hello":
                self._counted("hello", data["unread"])
                if self._cursor in (None, "earliest"):
                    self._cursor = data["cursor"]
            case "notification":
                self._received(data)
                self._cursor = message.cursor or self._cursor
            case "withdrawn":
                self._record("withdrawn", id=data["id"])
                self._cursor = message.cursor or self._cursor
            case "replaced":
                self._record("replaced", id=data["id"], other=data["by"])
            case "gap":
                self._gap(
                    data["reason"], data.get("topic"), data.get("everyone", False)
                )
                self._cursor = message.cursor
            case "cursor":
                self._record("cursor")
                self._cursor = message.cursor
            case "read" | "unread":
                self._counted(message.kind, data["unread"])
            case "ping" if isinstance(stream, WsStream):
                with contextlib.suppress(Exception):
                    await stream.send(type="pong")
            case "bye":
                self._record("bye", other=str(data["code"]))


class PollReader(Reader):
    """A chain of long polls on the surface of RallyHere; it has no badge."""

    PATH = "/notification/v1/player/me/stream/notification/lp"

    def __init__(
        self,
        reading: Reading,
        dice: random.Random,
        *,
        fronts: Iterator[int],
        token: str,
    ) -> None:
        super().__init__(reading, dice)
        self._fronts = fronts
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {token}"},
            timeout=POLL_S + OPENING_S,
            trust_env=False,
        )
        self._cursor = ""

    async def run(self) -> None:
        try:
            for self._connection in itertools.count(1):
                await self._poll()
        finally:
            await self._client.aclose()

    async def _poll(self) -> None:
        params = {
            "deadline": str(POLL_S if self._cursor else 0),
            "max_page_size": "100",
            "exclude_before": self._cursor,
            "offset_reset_strategy": "latest",
        }
        try:
            response = await self._client.get(
                f"http://127.0.0.1:{next(self._fronts)}{self.PATH}", params=params
            )
        except httpx2.TransportError as error:
            self._record("ended", other=type(error).__name__)
            await self._back_off()
            return
        if response.status_code != 200:
            self._record("refused", other=str(response.status_code))
            await self._back_off()
            return
        body = json.loads(response.content)
        if not self._cursor:
            self._record("begun")
        for one in body["notifications"]:
            self._record("notification", id=one["notification_id"])
        self._cursor = body["cursor"]


class ClientReader(Reader):
    """The Python client; its connections are its own business."""

    def __init__(
        self, reading: Reading, dice: random.Random, *, url: str, token: str
    ) -> None:
        super().__init__(reading, dice)
        self._url = url
        self._token = token
        self._connection = 1

    async def run(self) -> None:
        while True:
            # A stream that was never connected gives up after a few attempts.
            with contextlib.suppress(Unavailable):
                await self._read()

    async def _read(self) -> None:
        cursor = "earliest" if self.reading.from_earliest else None
        async with (
            Client(self._url, token=self._token) as client,
            client.notifications(cursor=cursor) as stream,
        ):
            reading = asyncio.ensure_future(anext(stream))
            try:
                while True:
                    # A stream has begun when it knows its count; that is no event.
                    await asyncio.wait([reading], timeout=0.2)
                    if not self.reading.events and stream.cursor not in (
                        None,
                        "earliest",
                    ):
                        self._record("begun")
                    if reading.done():
                        self._take(reading.result())
                        reading = asyncio.ensure_future(anext(stream))
                    self.reading.unread = stream.unread
            finally:
                reading.cancel()
                await asyncio.wait([reading])

    def _take(self, event: Any) -> None:
        match event:
            case Notification():
                topic = event.topic
                log = (
                    topic_log(topic)
                    if topic
                    else EVERYONE
                    if event.everyone
                    else own(self.reading.player)
                )
                collapse_key = event.collapse_key or ""
                self._record("notification", id=event.id, log=log, other=collapse_key)
            case Withdrawn():
                self._record("withdrawn", id=event.id)
            case Replaced():
                self._record("replaced", id=event.id, other=event.by)
            case Gap():
                self._gap(event.reason, event.topic, event.everyone)
            case CursorMoved():
                self._record("cursor")
            case Read():
                self._record("read", unread=event.unread)
            case Unread():
                self._record("unread", unread=event.unread)
