"""A game on LootLocker's API: its server sends, a player reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from ..conftest import Mint

SEND = "/server/notifications/v1"
LIST = "/game/notifications/v1"


Rows = list[dict[str, Any]]
Contents = list[Any]


class GameServer:
    """The game's server, with its own credential."""

    def __init__(
        self, client: httpx2.AsyncClient, token: str, message: dict[str, Any]
    ) -> None:
        self.client = client
        self.headers = {"x-auth-token": token}
        self.message = message

    async def send(self, *, without: str = "", key: str = "", **changes: Any) -> Any:
        """Send the example of the page with changes."""
        body = {**self.message, **changes}
        body.pop(without, None)
        headers = {**self.headers, **({"Idempotency-Key": key} if key else {})}
        return await self.client.post(SEND, headers=headers, json=body)

    async def post(self, body: bytes, **headers: str) -> Any:
        """Send a raw body."""
        sent = {**self.headers, "content-type": "application/json", **headers}
        return await self.client.post(SEND, headers=sent, content=body)

    async def say(self, *contents: Any, **changes: Any) -> None:
        """Send notifications, which must succeed."""
        for content in contents:
            answer = await self.send(content=content, **changes)
            assert answer.status_code == 200, answer.text


class Player:
    """The game on a player's machine."""

    def __init__(self, client: httpx2.AsyncClient, token: str) -> None:
        self.client = client
        self.headers = {"x-session-token": token}

    async def list(self, **query: Any) -> Any:
        return await self.client.get(LIST, headers=self.headers, params=query)

    async def shown(self, **query: Any) -> Rows:
        """Return the notifications of a page, which must succeed."""
        answer = await self.list(**query)
        assert answer.status_code == 200, answer.text
        shown: Rows = answer.json()["notifications"]
        return shown

    async def contents(self, **query: Any) -> Contents:
        return [item["content"]["body"] for item in await self.shown(**query)]

    async def paging(self, **query: Any) -> dict[str, Any]:
        answer = await self.list(**query)
        assert answer.status_code == 200, answer.text
        paging: dict[str, Any] = answer.json()["pagination"]
        return paging

    async def read(self, *ids: Any) -> Any:
        body = {"notifications": list(ids)}
        return await self.client.put(f"{LIST}/read", headers=self.headers, json=body)

    async def read_all(self) -> Any:
        return await self.client.put(f"{LIST}/read/all", headers=self.headers)


AssertError = Callable[..., dict[str, Any]]
GameServerOf = Callable[[str], GameServer]
PlayerOf = Callable[[str], Player]


@pytest.fixture(scope="session")
def example() -> dict[str, Any]:
    """Return the example that is printed on the vendor's page."""
    text = (Path(__file__).parent / "fixtures" / "send.json").read_bytes()
    example: dict[str, Any] = msgspec.json.decode(text)
    return example


@pytest.fixture
def recipient(example: dict[str, Any]) -> str:
    """Return the player of the example, named as on other surfaces."""
    return "0195fc45-81c8-fe7c-bd31-87f1bd229a3d"


@pytest.fixture
def game_server(
    client: httpx2.AsyncClient, backend_key: str, example: dict[str, Any]
) -> GameServer:
    return GameServer(client, backend_key, example["request"])


@pytest.fixture
def game_server_of(client: httpx2.AsyncClient, example: dict[str, Any]) -> GameServerOf:
    """Return the constructor of servers: ``game_server_of(token)``."""
    return lambda token: GameServer(client, token, example["request"])


@pytest.fixture
def player(client: httpx2.AsyncClient, mint: Mint, recipient: str) -> Player:
    return Player(client, mint(recipient))


@pytest.fixture
def player_of(client: httpx2.AsyncClient) -> PlayerOf:
    """Return the constructor of players: ``player_of(token)``."""
    return lambda token: Player(client, token)


@pytest.fixture
def assert_error() -> AssertError:
    """Return a check of the format of an error, which returns the body."""

    def assert_error(answer: Any, status: int, code: str) -> dict[str, Any]:
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        body: dict[str, Any] = answer.json()
        assert body["code"] == code
        assert body["message"]
        assert body["request_id"] == body["trace_id"]
        assert set(body) <= {"code", "message", "request_id", "trace_id", "param"}
        if status in (429, 503):
            assert int(answer.headers["retry-after"]) >= 1
        return body

    return assert_error
