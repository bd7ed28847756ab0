"""A casino brand, 1001, and its player 12345 on the gateway's API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import pytest_asyncio

from streamer.model import App
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection
from streamer.store.deployment import enter_deployment

from ..conftest import Mint, OpenEvents, Server, Start
from ..event_stream import EventStream

PATH = "/gateway/notifications/1.0/1001"
STREAM = "/gateway/sse/1001/stream"


Rows = list[dict[str, Any]]


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

    async def shown(self, **query: Any) -> Rows:
        """Return the notifications of a list, which must succeed."""
        answer = await self.list(**query)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert set(body) == {"status", "data"}
        assert body["status"] == "Success"
        shown: Rows = body["data"]["notifications"]
        assert body["data"]["total_count"] == len(shown)
        return shown

    async def mark(self, *ids: Any, path: str = PATH) -> Any:
        body = {"message_ids": list(ids)}
        return await self.client.patch(path, headers=self.headers, json=body)


@pytest_asyncio.fixture(loop_scope="module")
async def redis(redis: RedisConnection) -> Any:
    """
    Empty the store for each test.

    The brand and the player are those of the vendor's pages, so they have the same
    names in every test.
    """
    await redis.call("FLUSHALL", write=True)
    await enter_deployment(redis)
    return redis


@pytest_asyncio.fixture(loop_scope="module")
async def server(start: Start) -> Any:
    """Start a server for each test, since one may remember the last test's brand."""
    return await start()


@pytest_asyncio.fixture(loop_scope="module")
async def brand_key(redis: Any, mint: Mint) -> str:
    """Create the brand; return its backend key."""
    apps = Apps(redis)
    mint.records["1001"] = await apps.create(App("1001"))
    return await apps.add_key(App("1001"))


@pytest.fixture
def token(mint: Mint, brand_key: str) -> str:
    text: str = mint("12345", app="1001")
    return text


OpenStream = Callable[..., Awaitable[EventStream]]
AssertError = Callable[[httpx2.Response, int], str]
CasinoAt = Callable[[Server], Casino]


@pytest.fixture
def casino(client: httpx2.AsyncClient, brand_key: str, token: str) -> Casino:
    return Casino(client, brand_key, token)


@pytest.fixture
def casino_at(brand_key: str, token: str) -> CasinoAt:
    """Return the constructor for another server: ``casino_at(server)``."""
    return lambda server: Casino(server.client, brand_key, token)


@pytest.fixture
def open_stream(open_events: OpenEvents, token: str) -> OpenStream:
    """Return a function that opens a stream, by default the player's."""

    async def open_stream(
        headers: dict[str, str] | None = None,
        *,
        path: str = STREAM,
        at: Server | None = None,
    ) -> EventStream:
        sent = {"x-auth-token": token, "accept": "text/event-stream"}
        return await open_events(path, sent if headers is None else headers, at=at)

    return open_stream


@pytest.fixture(scope="session")
def examples() -> dict[str, Any]:
    """Return the examples that are printed on the vendor's pages, by name."""
    folder = Path(__file__).parent / "fixtures"
    return {
        path.stem: msgspec.json.decode(path.read_bytes())
        for path in folder.glob("*.json")
    }


@pytest.fixture
def assert_error() -> AssertError:
    """Return a check of the format of an error."""

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
