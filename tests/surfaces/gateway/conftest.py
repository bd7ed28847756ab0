"""A casino brand, 1001, and its player 12345 on the gateway's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from streamer.model import App
from streamer.store.access.apps import Apps

GUARD_S = 5
PATH = "/gateway/notifications/1.0/1001"
STREAM = "/gateway/sse/1001/stream"


class Casino:
    """The brand's backend, which publishes on the native surface, and its player."""

    def __init__(self, client: httpx2.AsyncClient, key: str, token: str) -> None:
        self.client = client
        self.key = key
        self.headers = {"x-auth-token": token}

    async def publish(self, player: str = "12345", **message: Any) -> str:
        """Publish; return the id."""
        answer = await self.client.post(
            "/v1/notifications",
            headers={"Authorization": f"Bearer {self.key}"},
            json={"to": {"players": [player]}, **message},
        )
        assert answer.status_code == 200, answer.text
        published: str = answer.json()["results"][0]["id"]
        return published

    async def list(self, path: str = PATH, **query: Any) -> Any:
        return await self.client.get(path, headers=self.headers, params=query)

    async def shown(self, **query: Any) -> list[dict[str, Any]]:
        """Return the notifications of a list that must be there."""
        answer = await self.list(**query)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert set(body) == {"status", "data"}
        assert body["status"] == "Success"
        shown: list[dict[str, Any]] = body["data"]["notifications"]
        assert body["data"]["total_count"] == len(shown)
        return shown

    async def mark(self, *ids: Any, path: str = PATH) -> Any:
        body = {"message_ids": list(ids)}
        return await self.client.patch(path, headers=self.headers, json=body)


class Stream:
    """
    One open event stream, driven as ASGI: the server's `send` waits for a reader.

    A reader that was told to `stall` takes nothing any more.
    """

    def __init__(self, asgi: Any, headers: dict[str, str], path: str) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self._taking = asyncio.Event()
        self._taking.set()
        self._stuck = asyncio.Event()
        self._gone = asyncio.Event()
        self._arrived = asyncio.Condition()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("here", 80),
        }
        self.task = asyncio.create_task(asgi(scope, self._receive, self._send))
        self.task.add_done_callback(lambda _: asyncio.ensure_future(self._notify()))

    @property
    def frames(self) -> list[dict[str, Any]]:
        """The data of every whole frame so far."""
        return [
            msgspec.json.decode(line.removeprefix("data: "))
            for block in self.text.split("\n\n")[:-1]
            for line in block.split("\n")
            if line.startswith("data: ")
        ]

    async def until(self, fact: Callable[[Stream], bool]) -> None:
        async with asyncio.timeout(GUARD_S), self._arrived:
            await self._arrived.wait_for(lambda: fact(self) or self.task.done())
        assert fact(self), (self.status, self.text)

    async def take(self, count: int) -> list[dict[str, Any]]:
        """Return the first `count` frames as soon as they are there."""
        await self.until(lambda stream: len(stream.frames) >= count)
        return self.frames[:count]

    async def end(self) -> None:
        """Wait until the server ends it."""
        async with asyncio.timeout(GUARD_S):
            await self.task

    def stall(self) -> None:
        self._taking.clear()

    async def until_stuck(self) -> None:
        """Wait until the server waits for a reader that stalls."""
        async with asyncio.timeout(GUARD_S):
            await self._stuck.wait()

    async def close(self) -> None:
        """Go away."""
        self._taking.set()
        self._gone.set()
        await self.end()

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if not self._taking.is_set():
            self._stuck.set()
            await self._taking.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            self.text += message.get("body", b"").decode()
        await self._notify()

    async def _notify(self) -> None:
        async with self._arrived:
            self._arrived.notify_all()


Open = Callable[..., Awaitable[Stream]]


@pytest.fixture
async def brand_key(redis: Any, mint: Any) -> str:
    """Make the brand and return its backend key."""
    apps = Apps(redis)
    mint.records["1001"] = await apps.create(App("1001"))
    return await apps.add_key(App("1001"))


@pytest.fixture
def token(mint: Any, brand_key: str) -> str:
    text: str = mint("12345", app="1001")
    return text


@pytest.fixture
def casino(client: httpx2.AsyncClient, brand_key: str, token: str) -> Casino:
    return Casino(client, brand_key, token)


@pytest.fixture
def casino_at(brand_key: str, token: str) -> Callable[[Any], Casino]:
    """Give the same on another server: ``casino_at(server)``."""
    return lambda server: Casino(server.client, brand_key, token)


@pytest.fixture
async def open_stream(server: Any, token: str) -> AsyncIterator[Open]:
    """Give a function that opens a stream, by default the player's."""
    opened: list[Stream] = []

    async def open_stream(
        headers: dict[str, str] | None = None, *, path: str = STREAM, at: Any = None
    ) -> Stream:
        sent = {"x-auth-token": token, "accept": "text/event-stream"}
        stream = Stream(
            (at or server).app.asgi, sent if headers is None else headers, path
        )
        opened.append(stream)
        await stream.until(lambda s: bool(s.frames) or s.status not in (0, 200))
        return stream

    yield open_stream
    for stream in opened:
        await stream.close()


@pytest.fixture(scope="session")
def examples() -> dict[str, Any]:
    """Return the examples that are printed on the vendor's pages, by name."""
    folder = Path(__file__).parent / "fixtures"
    return {
        path.stem: msgspec.json.decode(path.read_bytes())
        for path in folder.glob("*.json")
    }


@pytest.fixture
def assert_error() -> Any:
    """Give a check of an error's shape."""

    def assert_error(answer: Any, status: int) -> str:
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        body = answer.json()
        assert set(body) == {"status", "message"}
        assert body["status"] == "error"
        if status in (409, 429, 503):
            assert int(answer.headers["retry-after"]) >= 1
        message: str = body["message"]
        return message

    return assert_error
