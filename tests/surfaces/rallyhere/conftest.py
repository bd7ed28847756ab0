"""A player, and a client with RallyHere's four operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from ..conftest import Mint

PLAYER = "2f7c2b9a-5d0e-4c3b-9a53-0d7c8f1f5a10"
BASE = "/notification/v1/player"

UNKNOWN_CURSORS = [
    text.encode("utf-8", "surrogatepass")
    for text in (
        *("x", "0", "1700000000000-0", "A" * 26, "A" * 28, "!" * 27, "A" * 5000),
        *("\x00", "é", "\ud800", "../../etc/passwd", "ﾊﾟ" * 13, "a.b", "$", " "),
        "00000000-0000-0000-0000-000000000000",
        "0b1f2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
        "01975a3b-1c2d-7e3f-8a4b-5c6d7e8f9a0b",
    )
]
"""Texts that are no cursors of this server, among them other servers' ids."""


class Inbox:
    """The inbox of one player, with the credential of one caller."""

    def __init__(
        self, client: httpx2.AsyncClient, headers: dict[str, str], player: str
    ) -> None:
        self.client = client
        self.headers = headers
        self.url = f"{BASE}/{player}/notification"
        self.poll_url = f"{BASE}/{player}/stream/notification/lp"

    async def page(
        self, *, headers: dict[str, Any] | None = None, **query: Any
    ) -> httpx2.Response:
        sent = {**self.headers, **(headers or {})}
        return await self.client.get(self.url, headers=sent, params=query)

    async def poll(self, **query: Any) -> httpx2.Response:
        return await self.client.get(self.poll_url, headers=self.headers, params=query)

    async def create(
        self, *items: Any, headers: dict[str, Any] | None = None
    ) -> httpx2.Response:
        return await self.client.post(
            self.url,
            headers={**self.headers, **(headers or {})},
            json={"notifications": list(items)},
        )

    async def post(self, body: bytes, **headers: str) -> httpx2.Response:
        """Send a raw body."""
        sent = {**self.headers, "content-type": "application/json", **headers}
        return await self.client.post(self.url, headers=sent, content=body)

    async def one(self, notification_id: str) -> httpx2.Response:
        url = f"{self.url}/{notification_id}"
        return await self.client.get(url, headers=self.headers)

    async def say(self, *messages: str) -> str:
        """Create notifications, which must succeed; return the last id."""
        answer = await self.create(*({"message": message} for message in messages))
        assert answer.status_code == 200, answer.text
        notification_id: str = answer.json()["notification_id"]
        return notification_id


@pytest.fixture
def player() -> str:
    return PLAYER


@pytest.fixture
def inbox(client: httpx2.AsyncClient, mint: Mint, player: str) -> Inbox:
    """Return the player's inbox, with the player's token."""
    return Inbox(client, mint.bearer(player), player)


@pytest.fixture
def inbox_of() -> type[Inbox]:
    """Return the constructor of inboxes: ``inbox_of(client, headers, player)``."""
    return Inbox


@pytest.fixture(scope="session")
def shapes() -> dict[str, Any]:
    """Return the forms of responses that the vendor's page documents."""
    text = (Path(__file__).parent / "fixtures" / "page.json").read_bytes()
    shapes: dict[str, Any] = msgspec.json.decode(text)
    return shapes
