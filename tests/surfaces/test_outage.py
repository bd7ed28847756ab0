"""
What every surface answers while the store is unavailable.

The store is a real one that is stopped. Credentials were used before, so that most
requests reach the operation itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from streamer.app import build
from streamer.config import Config
from streamer.core.access.tokens import mint
from streamer.model import App, Player
from streamer.service.access import authenticator
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection
from streamer.store.server.embedded import Embedded

from .conformance import Conformance
from .conftest import Mint, Server, client_of
from .in_memory import WAYS

PLAYER = "01563e3a-b5d3-d676-4c61-efb99302bd5b"
ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
INBOX = "/v1/players/me/notifications"
RALLYHERE = "/notification/v1/player/me"
GATEWAY = "/gateway/notifications/1.0/demo"
STREAMS = ("/v1/stream", "/gateway/sse/demo/stream")
ID = "01975a3b-1c2d-7000-8a4b-5c6d7e8f9a0b"
CAMPAIGN = "/campaigns/spring/notifications"
SEND = {
    "notification_type": "a.b.c",
    "priority": "low",
    "recipient": ULID,
    "content": 1,
    "properties": [],
}


class Outage(NamedTuple):
    """A server without its store."""

    server: Server
    key: str
    token: str

    async def send(self, method: str, path: str, kind: str, body: Any) -> Any:
        """Send a request with a credential in the header `kind`, "" for none."""
        credential = self.key if kind in ("key", "x-auth-key") else self.token
        headers = {}
        if kind in ("key", "player"):
            headers["Authorization"] = f"Bearer {credential}"
        elif kind:
            headers["x-auth-token" if kind == "x-auth-key" else kind] = credential
        if path.startswith("/gateway/sse"):
            headers["accept"] = "text/event-stream"
        if path.startswith("/v2/"):
            body = {**body, "game_id": "demo", "secret_key": self.key}
        if path in STREAMS:
            return await self.server.get(path, headers)
        return await self.server.client.request(
            method, path, headers=headers, json=body
        )

    async def refused(self, method: str, path: str, kind: str, body: Any) -> Any:
        """Send a request, which must be refused because the store is unavailable."""
        answer = await self.send(method, path, kind, body)
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert "the store is unavailable" in answer.text
        return answer


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=WAYS)
async def outage(
    request: pytest.FixtureRequest,
    store_binary: Path,
    tmp_path_factory: pytest.TempPathFactory,
    conformance: Conformance,
) -> AsyncIterator[Outage]:
    folder = tmp_path_factory.mktemp("store")
    embedded = await Embedded.start(folder, binary=store_binary)
    app = build(Config(), embedded.url)
    running = asyncio.create_task(app.run())
    # Only then the store belongs to a deployment, and is not one of an old format.
    await app.ready()
    redis = RedisConnection(embedded.url)
    record = await Apps(redis).create(App("demo"))
    key = await Apps(redis).add_key(App("demo"))
    await redis.close()
    token = mint(
        record,
        Player(PLAYER),
        permissions=("notification:player:self:*",),
        ttl_s=3_600,
        now_s=int(time.time()),
    )
    with pytest.MonkeyPatch.context() as patch:
        # However long the tests take, credentials are not read again.
        patch.setattr(authenticator, "RECORD_TTL_S", 3_600)
        async with client_of(app, conformance, request.param) as client:
            server = Server(app, client, redis, Mint({}), Config())
            outage = Outage(server, key, token)
            page = f"/v1/players/{PLAYER}/notifications"
            for kind in ("key", "player"):
                await outage.send("GET", page, kind, None)
            await embedded.stop()
            yield outage
            await server.close()
    running.cancel()
    await asyncio.wait([running])


READS: list[tuple[str, str, str, Any]] = [
    ("GET", INBOX, "player", None),
    ("GET", f"{INBOX}/{ID}", "player", None),
    ("GET", "/v1/schedules", "key", None),
    ("GET", "/v1/stream", "player", None),
    ("POST", "/v1/unread", "key", {"players": ["a"]}),
    ("GET", f"{RALLYHERE}/notification", "player", None),
    ("GET", f"{RALLYHERE}/stream/notification/lp?deadline=0", "player", None),
    ("GET", "/game/notifications/v1", "x-session-token", None),
    ("GET", f"{CAMPAIGN}/scheduled", "key", None),
    ("GET", f"{CAMPAIGN}/x", "key", None),
]
WRITES: list[tuple[str, str, str, Any]] = [
    ("POST", "/v1/notifications", "key", {"to": {"players": ["a"]}, "body": "x"}),
    ("POST", f"{INBOX}/read", "player", {"all": True}),
    (
        "POST",
        f"{RALLYHERE}/notification",
        "player",
        {"notifications": [{"message": "x"}]},
    ),
    ("POST", "/server/notifications/v1", "x-auth-key", SEND),
    ("PUT", "/game/notifications/v1/read/all", "x-session-token", None),
    (
        "POST",
        "/v2/schedule",
        "",
        {
            "notification_identifier": "i",
            "notification_message": "m",
            "user_ids": ["a"],
        },
    ),
    ("POST", CAMPAIGN, "key", {"header": "h", "body": "b"}),
]
GATEWAY_REQUESTS: list[tuple[str, str, str, Any]] = [
    ("GET", GATEWAY, "x-auth-token", None),
    ("PATCH", GATEWAY, "x-auth-token", {"message_ids": ["x"]}),
    ("GET", "/gateway/sse/demo/stream", "x-auth-token", None),
]


@pytest.mark.parametrize(("method", "path", "kind", "body"), READS)
async def test_a_reader_is_not_told_that_nothing_was_stored(
    outage: Outage, method: str, path: str, kind: str, body: Any
) -> None:
    answer = await outage.refused(method, path, kind, body)

    assert "stored" not in answer.text


@pytest.mark.parametrize(("method", "path", "kind", "body"), WRITES)
async def test_a_writer_is_told_that_the_store_is_unavailable(
    outage: Outage, method: str, path: str, kind: str, body: Any
) -> None:
    await outage.refused(method, path, kind, body)


async def test_a_publish_is_told_that_nothing_was_stored(outage: Outage) -> None:
    answer = await outage.send(*WRITES[0])

    assert "the store is unavailable; nothing was stored" in answer.text


@pytest.mark.parametrize(("method", "path", "kind", "body"), GATEWAY_REQUESTS)
async def test_the_gateway_has_the_one_500_of_its_pages(
    outage: Outage, method: str, path: str, kind: str, body: Any
) -> None:
    answer = await outage.send(method, path, kind, body)

    assert answer.status_code == 500
    assert answer.json() == {"status": "error", "message": "Internal server error"}
    assert int(answer.headers["retry-after"]) >= 1
