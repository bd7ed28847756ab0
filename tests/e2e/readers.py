"""
Clients for the wire protocol: strict, and able to violate it.

They share no code with the server or the Python client, so that a mistake on both sides
does not go unnoticed. A stream of either transport returns `StreamMessage`s and raises
`StreamEnded` at its end; a stream that is refused raises `StreamRefused`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import re
import secrets
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

GUARD_S = 60
_LINE_END = re.compile(rb"\r\n|\r|\n")


class StreamRefused(Exception):
    """The response is not a stream."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(status, body)
        self.status = status
        self.headers = headers
        self.problem: Any = json.loads(body) if body else None


class StreamEnded(Exception):
    """A stream has ended. `code` is None if the connection was lost."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class StreamMessage(NamedTuple):
    """One event of a stream: ``notification``, ``hello``, ``gap``, …"""

    kind: str
    cursor: str | None
    data: Any

    @property
    def id(self) -> str:
        return str(self.data["id"])


class SseEvent(NamedTuple):
    """One dispatched event of a ``text/event-stream``."""

    name: str
    id: str
    data: str


class EventParser:
    """
    A parser of event streams by the letter of the HTML Standard, section 9.2.6.

    CR, LF and CRLF each end a line. Bytes that are not UTF-8 are an error here; a
    browser would replace them by U+FFFD. `unknown` collects fields a browser ignores.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._name = self._id = ""
        self._data: list[str] = []
        self.unknown: list[str] = []
        self.retry_ms: int | None = None

    @property
    def last_event_id(self) -> str:
        """The last id that was received, on an event or in a block without one."""
        return self._id

    def feed(self, chunk: bytes) -> Iterator[SseEvent]:
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
        for line in lines:
            if event := self._line(line.decode()):
                yield event

    def _line(self, line: str) -> SseEvent | None:
        if not line:
            data, self._data = self._data, []
            name, self._name = self._name, ""
            return (
                SseEvent(name or "message", self._id, "\n".join(data)) if data else None
            )
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isdecimal():
            self.retry_ms = int(value)
        else:
            self.unknown.append(line)
        return None


class RawStream:
    """What both transports share."""

    async def next(self) -> StreamMessage:
        raise NotImplementedError

    def cut(self) -> None:
        raise NotImplementedError

    async def until(self, kind: str) -> StreamMessage:
        while True:
            message = await self.next()
            if message.kind == kind:
                return message

    async def notifications(self, count: int) -> list[StreamMessage]:
        return [await self.until("notification") for _ in range(count)]

    async def end(self) -> StreamEnded:
        """Read to the end of the stream and return how it ended."""
        while True:
            try:
                await self.next()
            except StreamEnded as ended:
                return ended


class SseStream(RawStream):
    """A raw connection with an event stream on it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.parser = EventParser()
        self.headers: dict[str, str] = {}
        self._events: list[SseEvent] = []
        self._bye: Any = None

    @classmethod
    async def open(
        cls,
        port: int,
        token: str | None,
        *,
        cursor: str | None = None,
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> SseStream:
        try:
            stream = cls(*await asyncio.open_connection("127.0.0.1", port))
        except OSError as error:
            raise StreamEnded(None) from error
        request_headers = {
            "Host": "127.0.0.1",
            "Accept": "text/event-stream",
            **(headers or {}),
        }
        if token is not None:
            request_headers["Authorization"] = f"Bearer {token}"
        if cursor is not None:
            query["cursor"] = cursor
        stream.writer.write(request_head("GET", "/v1/stream", query, request_headers))
        try:
            async with asyncio.timeout(GUARD_S):
                await stream._read_head()
        except (OSError, EOFError) as error:
            stream.cut()
            raise StreamEnded(None) from error
        except BaseException:
            stream.cut()
            raise
        return stream

    async def _read_head(self) -> None:
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines if line)
        self.headers = {name.lower(): value for name, value in pairs}
        status = int(first.split()[1])
        if status != 200:
            body = await self.reader.readexactly(int(self.headers["content-length"]))
            raise StreamRefused(status, self.headers, body)

    async def next(self) -> StreamMessage:
        while not self._events:
            self._events += self.parser.feed(await self._chunk())
        event = self._events.pop(0)
        data = json.loads(event.data)
        kind = "notification" if event.name == "message" else event.name
        if kind == "bye":
            self._bye = data
        return StreamMessage(kind, event.id or None, data)

    async def _chunk(self) -> bytes:
        try:
            async with asyncio.timeout(GUARD_S):
                size = int(await self.reader.readline(), 16)
                chunk = await self.reader.readexactly(size + 2)
        except (OSError, EOFError, ValueError):  # No size: the peer has closed.
            self.cut()
            raise StreamEnded(None) from None
        if size == 0:
            self.cut()
            bye = self._bye or {"code": None, "reason": ""}
            raise StreamEnded(bye["code"], bye["reason"])
        return chunk[:-2]

    def cut(self) -> None:
        self.writer.transport.abort()


class WsStream(RawStream):
    """A WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    @classmethod
    async def open(
        cls,
        port: int,
        token: str | None,
        *,
        cursor: str | None = None,
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> WsStream:
        request_headers = dict(headers or {})
        if token is not None:
            request_headers["Authorization"] = f"Bearer {token}"
        if cursor is not None:
            query["cursor"] = cursor
        url = f"ws://127.0.0.1:{port}/v1/stream?{urlencode(query)}"
        try:
            connection = await connect(
                url,
                additional_headers=request_headers,
                compression=None,
                proxy=None,
                ping_interval=None,
                open_timeout=GUARD_S,
                close_timeout=1,
                max_queue=None,
            )
        except InvalidStatus as error:
            answer = error.response
            response_headers = {k.lower(): v for k, v in answer.headers.raw_items()}
            raise StreamRefused(
                answer.status_code, response_headers, bytes(answer.body or b"")
            ) from None
        except (OSError, EOFError, InvalidHandshake, ConnectionClosed) as error:
            raise StreamEnded(None) from error
        return cls(connection)

    async def next(self) -> StreamMessage:
        try:
            async with asyncio.timeout(GUARD_S):
                text = await self.connection.recv()
        except ConnectionClosed as error:
            closed = error.rcvd
            raise StreamEnded(
                closed.code if closed else None, closed.reason if closed else ""
            ) from None
        data = json.loads(text)
        kind = data["type"]
        cursor = data.get("cursor")
        return StreamMessage(
            kind, cursor, data["notification"] if "notification" in data else data
        )

    async def send(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    def cut(self) -> None:
        self.connection.transport.abort()


TRANSPORTS: dict[str, type[SseStream] | type[WsStream]] = {
    "sse": SseStream,
    "websocket": WsStream,
}


class Follower:
    """
    A reader that reconnects with its cursor whenever it is disconnected.

    `ids` has the notifications it received, in order of arrival, with duplicates.
    """

    def __init__(self, transport: str, port: int, token: str) -> None:
        self._opener = TRANSPORTS[transport]
        self._port = port
        self._token = token
        # With it, a reader that reconnects replaces its previous stream.
        self._instance = secrets.token_hex(8)
        self._changed = asyncio.Event()
        self.cursor: str | None = None
        self.ids: list[str] = []
        self.gaps: list[Any] = []
        self.refusals: list[int] = []
        self.ends: list[int | None] = []
        self.connects = 0
        self.stream: RawStream | None = None

    async def run(self) -> None:
        while True:
            try:
                self.stream = await self._come()
                await self._follow(self.stream)
            except StreamRefused as refused:
                self.refusals.append(refused.status)
            except StreamEnded as ended:
                self.ends.append(ended.code)
            finally:
                if self.stream is not None:
                    self.stream.cut()
            await asyncio.sleep(0.05)  # The back-off of a client, not a wait.

    async def _come(self) -> RawStream:
        position: dict[str, Any] = {"cursor": self.cursor}
        if self.cursor and self._opener is SseStream:
            # As EventSource does, which repeats its first URL.
            position = {"cursor": "earliest", "headers": {"Last-Event-ID": self.cursor}}
        return await self._opener.open(
            self._port, self._token, instance=self._instance, **position
        )

    async def _follow(self, stream: RawStream) -> None:
        while True:
            message = await stream.next()
            if message.kind == "hello":
                self.connects += 1
                self.cursor = self.cursor or message.cursor
            elif message.kind == "notification":
                self.ids.append(message.id)
                self.cursor = message.cursor
            elif message.kind == "gap":
                self.gaps.append(message.data)
                self.cursor = message.cursor
            self._changed.set()

    async def joined(self, times: int = 1) -> None:
        """Wait until it has received so many ``hello``s."""
        await self._until(lambda: self.connects >= times)

    async def missed(self) -> None:
        """Wait until it has received a gap."""
        await self._until(lambda: self.gaps)

    async def has(self, ids: Collection[str]) -> None:
        """Wait until it has received all of these notifications."""
        missing = set(ids)

        def complete() -> bool:
            missing.difference_update(self.ids)
            return not missing

        await self._until(complete, lambda: f"{len(missing)} of {len(ids)} missing")

    async def _until(self, fact: Any, why: Any = lambda: "") -> None:
        try:
            async with asyncio.timeout(GUARD_S):
                while not fact():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"waited in vain: {why()}") from None


@asynccontextmanager
async def following(transport: str, port: int, token: str) -> AsyncIterator[Follower]:
    """Yield a follower that has received its ``hello`` and runs for the block."""
    follower = Follower(transport, port, token)
    running = asyncio.create_task(follower.run())
    try:
        await follower.joined()
        yield follower
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


class Roamer(Follower):
    """A follower that tries one node after the other when it is disconnected."""

    def __init__(self, transport: str, ports: Sequence[int], token: str) -> None:
        self._ports = itertools.cycle(ports)
        self.at = 0
        """Port of the node that it is connected to, or was last."""
        self.greeted_at_s: list[float] = []
        super().__init__(transport, ports[0], token)

    @property
    def _port(self) -> int:
        self.at = next(self._ports)
        return self.at

    @_port.setter
    def _port(self, port: int) -> None:
        pass

    async def _follow(self, stream: RawStream) -> None:
        self.greeted_at_s.append(time.monotonic())
        await super()._follow(stream)


@asynccontextmanager
async def roaming(roamers: Sequence[Roamer]) -> AsyncIterator[None]:
    """Let roamers run for the block, once each has received its ``hello``."""
    tasks = [asyncio.create_task(roamer.run()) for roamer in roamers]
    try:
        await asyncio.gather(*(roamer.joined() for roamer in roamers))
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Api:
    """The native REST API with one credential."""

    def __init__(self, port: int, credential: str) -> None:
        self.http = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {credential}"},
            timeout=GUARD_S,
            trust_env=False,
        )

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.http.aclose()

    async def publish(
        self, *players: str, key: str | None = None, **fields: Any
    ) -> httpx2.Response:
        headers = {"Idempotency-Key": key} if key else {}
        body = {"to": {"players": players}, **fields}
        return await self.http.post("/v1/notifications", json=body, headers=headers)

    async def published(self, *players: str, **fields: Any) -> list[str]:
        """Publish, which must succeed; return the ids."""
        answer = await self.publish(*players, **fields)
        assert answer.status_code == 200, answer.text
        return [result["id"] for result in answer.json()["results"]]

    async def stored(
        self, *players: str, key: str | None = None, **fields: Any
    ) -> list[str]:
        """Publish as a backend does: with a key, and again while the answer is 503."""
        key = key or secrets.token_hex(8)
        answer = await _patient(lambda: self.publish(*players, key=key, **fields))
        assert answer.status_code == 200, answer.text
        return [result["id"] for result in answer.json()["results"]]

    async def inbox(self, player: str, *, patient: bool = False) -> list[Any]:
        """
        Return a player's whole inbox, oldest first, page by page.

        With `patient` a page that is answered 503 is requested again.
        """
        notifications: list[Any] = []
        before = ""
        while True:
            request = functools.partial(
                self.http.get,
                f"/v1/players/{player}/notifications",
                params={"limit": "100", "before": before},
            )
            answer = await (_patient(request) if patient else request())
            assert answer.status_code == 200, answer.text
            page = answer.json()
            notifications += page["notifications"]
            before = page["next"]
            if before is None:
                return notifications[::-1]


async def _patient(
    request: Callable[[], Awaitable[httpx2.Response]],
) -> httpx2.Response:
    """Send a request until it is not answered 503, as a client does."""
    async with asyncio.timeout(GUARD_S):
        while True:
            answer = await request()
            if answer.status_code != 503:
                return answer
            await asyncio.sleep(0.05)


def request_head(
    method: str, path: str, query: dict[str, str], headers: dict[str, str]
) -> bytes:
    target = f"{path}?{urlencode(query)}" if query else path
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
