"""
Every publishing surface against every reading surface: six publishers, seven readers.

The expected results are written by hand, from the table of the vendors' fields, and not
computed by the code under test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from .conftest import Mint, OpenEvents, Server

PLAYER = "01563e3a-b5d3-d676-4c61-efb99302bd5b"
ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
"""The same 128 bits."""

INBOX = f"/v1/players/{PLAYER}/notifications"
RALLYHERE = f"/notification/v1/player/{PLAYER}"
GUARD_S = 60

# The requests of each publishing surface, oldest first: surface, path, body.
SENT: list[tuple[str, str, dict[str, Any]]] = [
    (
        "native",
        "/v1/notifications",
        {
            "to": {"players": [PLAYER]},
            "type": "quest.done",
            "title": "Quest complete",
            "body": "Well done",
            "data": {"gold": 250},
            "properties": [{"key": "zone", "value": "moor"}, {"key": "e", "value": ""}],
            "priority": "high",
            "resource": {"url": "/quests/17", "etag": "7"},
        },
    ),
    (
        "gateway",
        "/v1/notifications",
        {
            "to": {"players": [PLAYER]},
            "type": "bonus_granted",
            "data": {"amount": 5, "currency": "EUR"},
        },
    ),
    (
        "rallyhere",
        f"{RALLYHERE}/notification",
        {
            "notifications": [
                {
                    "message": "Your friend is here",
                    "custom_data": {"friend": "bob"},
                    "rh_url": "/friends/bob",
                    "etag": "v1",
                }
            ]
        },
    ),
    (
        "lootlocker",
        "/server/notifications/v1/",
        {
            "notification_type": "pull.message.test",
            "priority": "low",
            "recipient": ULID,
            "content": ["a", None],
            "properties": [{"key": "k", "value": "v"}],
        },
    ),
    (
        "teak",
        "/v2/schedule",
        {
            "notification_identifier": "daily",
            "notification_message": "Come back!",
            "user_ids": [PLAYER],
        },
    ),
    (
        "walletwerk",
        "/campaigns/spring/notifications",
        {"header": "Sale", "body": "Half price"},
    ),
]

# The fields that reading surfaces must show of each, in order.
NATIVE: list[dict[str, Any]] = [
    {
        "type": "quest.done",
        "title": "Quest complete",
        "body": "Well done",
        "data": {"gold": 250},
        "properties": [{"key": "zone", "value": "moor"}, {"key": "e", "value": ""}],
        "priority": "high",
        "resource": {"url": "/quests/17", "etag": "7"},
    },
    {"type": "bonus_granted", "data": {"amount": 5, "currency": "EUR"}},
    {
        "body": "Your friend is here",
        "properties": [{"key": "friend", "value": "bob"}],
        "resource": {"url": "/friends/bob", "etag": "v1"},
    },
    {
        "type": "pull.message.test",
        "data": ["a", None],
        "properties": [{"key": "k", "value": "v"}],
        "priority": "low",
    },
    {"type": "daily", "body": "Come back!"},
    {"title": "Sale", "body": "Half price"},
]
RALLYHERE_SHOWN: list[dict[str, Any]] = [
    {
        "message": "Well done",
        "custom_data": {
            "zone": "moor",
            "type": "quest.done",
            "title": "Quest complete",
        },
        "rh_url": "/quests/17",
        "etag": "7",
    },
    {"message": "bonus_granted", "custom_data": {"type": "bonus_granted"}},
    {
        "message": "Your friend is here",
        "custom_data": {"friend": "bob"},
        "rh_url": "/friends/bob",
        "etag": "v1",
    },
    {
        "message": "pull.message.test",
        "custom_data": {"k": "v", "type": "pull.message.test"},
    },
    {"message": "Come back!", "custom_data": {"type": "daily"}},
    {"message": "Half price", "custom_data": {"title": "Sale"}},
]
NO_TYPE = "custom.notification.received"
LOOTLOCKER_SHOWN: list[tuple[str, str, Any, list[dict[str, str]]]] = [
    (
        "quest.done",
        "high",
        {"gold": 250},
        [{"key": "zone", "value": "moor"}, {"key": "e", "value": ""}],
    ),
    ("bonus_granted", "medium", {"amount": 5, "currency": "EUR"}, []),
    (
        NO_TYPE,
        "medium",
        {"body": "Your friend is here"},
        [{"key": "friend", "value": "bob"}],
    ),
    ("pull.message.test", "low", ["a", None], [{"key": "k", "value": "v"}]),
    ("daily", "medium", {"body": "Come back!"}, []),
    (NO_TYPE, "medium", {"title": "Sale", "body": "Half price"}, []),
]
GATEWAY_SHOWN: list[tuple[str, dict[str, Any]]] = [
    ("quest.done", {"gold": 250}),
    ("bonus_granted", {"amount": 5, "currency": "EUR"}),
    ("notification", {"body": "Your friend is here"}),
    ("pull.message.test", {"data": ["a", None]}),
    ("daily", {"body": "Come back!"}),
    ("notification", {"title": "Sale", "body": "Half price"}),
]


class Studio:
    """A studio that uses every surface for one player."""

    def __init__(self, server: Any, key: str, token: str, app: str) -> None:
        self.server = server
        self.client = server.client
        self.key = key
        self.player = {"Authorization": f"Bearer {token}"}
        self.token = token
        self.app = app

    async def publish_all(self) -> None:
        await self._campaign()
        for i, (surface, path, body) in enumerate(SENT, 1):
            headers = {"Authorization": f"Bearer {self.key}"}
            if surface == "lootlocker":
                headers = {"x-auth-token": self.key}
            elif surface == "teak":
                headers = {}
                body = {**body, "game_id": self.app, "secret_key": self.key}
            answer = await self.client.post(path, headers=headers, json=body)
            assert answer.is_success, (surface, answer.text)
            await self._arrived(i)

    async def _campaign(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        card = {"id": "card", "player": PLAYER, "status": "active"}
        for path, body in (
            ("/v1/campaigns/spring", {}),
            ("/v1/campaigns/spring/cards", [card]),
        ):
            answer = await self.client.put(path, headers=headers, json=body)
            assert answer.is_success, answer.text

    async def _arrived(self, count: int) -> None:
        # A scheduled notification is stored a moment after the response.
        async with asyncio.timeout(GUARD_S):
            while len(await self.native_page()) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def _get(self, path: str, headers: dict[str, str] | None = None) -> Any:
        answer = await self.client.get(path, headers=headers or self.player)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def native_page(self) -> list[Any]:
        shown: list[Any] = (await self._get(INBOX))["notifications"]
        return shown[::-1]

    async def rallyhere_page(self) -> list[Any]:
        page = await self._get(f"{RALLYHERE}/notification")
        shown: list[Any] = page["notifications"]
        return shown[::-1]

    async def rallyhere_poll(self) -> list[Any]:
        query = "deadline=0&offset_reset_strategy=earliest"
        poll = await self._get(f"{RALLYHERE}/stream/notification/lp?{query}")
        shown: list[Any] = poll["notifications"]
        return shown

    async def lootlocker_list(self) -> list[Any]:
        headers = {"x-session-token": self.token}
        listed = await self._get("/game/notifications/v1", headers)
        shown: list[Any] = listed["notifications"]
        return shown[::-1]

    async def gateway_list(self) -> list[Any]:
        headers = {"x-auth-token": self.token}
        listed = await self._get(f"/gateway/notifications/1.0/{self.app}", headers)
        shown: list[Any] = listed["data"]["notifications"]
        return shown[::-1]


@pytest_asyncio.fixture(loop_scope="module")
async def studio(server: Server, backend_key: str, mint: Mint) -> Studio:
    return Studio(server, backend_key, mint(PLAYER), mint.name())


async def shown_by(stream: Any, studio: Studio, pick: Any) -> list[Any]:
    """Publish while a stream is open; return the notifications it delivered."""

    def shown(stream: Any) -> list[Any]:
        picked = map(pick, stream.data)
        return [one for one in picked if one is not None]

    async with asyncio.timeout(GUARD_S):
        await studio.publish_all()
        await stream.until(lambda stream: len(shown(stream)) == len(SENT))
    return shown(stream)


def native_view(shown: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in shown.items()
        if name not in ("id", "created_at", "source", "read_at")
    }


def rallyhere_view(shown: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in shown.items()
        if name not in ("notification_id", "created") and value is not None
    }


def lootlocker_view(shown: dict[str, Any]) -> tuple[Any, ...]:
    content = shown["content"]
    kind, priority = shown["notification_type"], shown["priority"]
    return kind, priority, content["body"], content["context"]


def gateway_view(shown: dict[str, Any]) -> tuple[Any, ...]:
    return shown["event"], shown["event_details"]


async def test_the_native_page_shows_all_in_order(studio: Studio) -> None:
    await studio.publish_all()

    assert [native_view(shown) for shown in await studio.native_page()] == NATIVE


async def test_the_native_stream_shows_all_in_order(
    studio: Studio, open_events: OpenEvents
) -> None:
    def pick(data: Any) -> Any:
        return native_view(data) if "id" in data else None

    stream = await open_events("/v1/stream", studio.player)

    assert await shown_by(stream, studio, pick) == NATIVE


async def test_the_rallyhere_page_shows_all_in_order(studio: Studio) -> None:
    await studio.publish_all()

    shown = [rallyhere_view(one) for one in await studio.rallyhere_page()]
    assert shown == RALLYHERE_SHOWN


async def test_the_rallyhere_poll_shows_all_in_order(studio: Studio) -> None:
    await studio.publish_all()

    shown = [rallyhere_view(one) for one in await studio.rallyhere_poll()]
    assert shown == RALLYHERE_SHOWN


async def test_the_lootlocker_list_shows_all_in_order(studio: Studio) -> None:
    await studio.publish_all()

    shown = [lootlocker_view(one) for one in await studio.lootlocker_list()]
    assert shown == LOOTLOCKER_SHOWN


async def test_the_gateway_list_shows_all_in_order(studio: Studio) -> None:
    await studio.publish_all()

    shown = [gateway_view(one) for one in await studio.gateway_list()]
    assert shown == GATEWAY_SHOWN


async def test_the_gateway_stream_shows_all_in_order(
    studio: Studio, open_events: OpenEvents
) -> None:
    def pick(data: Any) -> Any:
        if data.get("event_type") != "notification":
            return None
        return gateway_view(data["event_data"])

    headers = {"x-auth-token": studio.token, "accept": "text/event-stream"}
    stream = await open_events(f"/gateway/sse/{studio.app}/stream", headers)

    assert await shown_by(stream, studio, pick) == GATEWAY_SHOWN


async def test_texts_and_data_together_are_whole_on_the_native_page_only(
    studio: Studio,
) -> None:
    """The table of the documentation says so, and how to reach every reader."""
    answer = await studio.client.post(
        "/v1/notifications",
        headers={"Authorization": f"Bearer {studio.key}"},
        json={
            "to": {"players": [PLAYER]},
            "type": "quest.done",
            "title": "Quest complete",
            "body": "Well done",
            "data": {"body": "Well done", "gold": 250},
        },
    )
    assert answer.is_success, answer.text

    (native,) = await studio.native_page()
    (rallyhere,) = await studio.rallyhere_page()
    (lootlocker,) = await studio.lootlocker_list()
    (gateway,) = await studio.gateway_list()

    data = {"body": "Well done", "gold": 250}
    assert (native["title"], native["body"], native["data"]) == (
        "Quest complete",
        "Well done",
        data,
    )
    assert rallyhere["message"] == "Well done"
    assert rallyhere["custom_data"] == {"type": "quest.done", "title": "Quest complete"}
    assert lootlocker["content"] == {"context": [], "body": data}
    assert gateway["event_details"] == data


async def native_mark(studio: Studio, ids: list[str]) -> Any:
    return await studio.client.post(
        f"{INBOX}/read", headers=studio.player, json={"ids": ids}
    )


async def lootlocker_mark(studio: Studio, ids: list[str]) -> Any:
    return await studio.client.put(
        "/game/notifications/v1/read",
        headers={"x-session-token": studio.token},
        json={"notifications": ids},
    )


async def gateway_mark(studio: Studio, ids: list[str]) -> Any:
    return await studio.client.patch(
        f"/gateway/notifications/1.0/{studio.app}",
        headers={"x-auth-token": studio.token},
        json={"message_ids": ids},
    )


@pytest.mark.parametrize("mark", [native_mark, lootlocker_mark, gateway_mark])
async def test_a_mark_on_one_surface_shows_on_all(
    studio: Studio, mark: Callable[[Studio, list[str]], Awaitable[Any]]
) -> None:
    await studio.publish_all()
    ids = [shown["id"] for shown in await studio.native_page()]

    answer = await mark(studio, [ids[1], ids[4]])

    assert answer.is_success, answer.text
    read = [False, True, False, False, True, False]
    assert ["read_at" in shown for shown in await studio.native_page()] == read
    assert [shown["read"] for shown in await studio.lootlocker_list()] == read
    assert [shown["is_read"] for shown in await studio.gateway_list()] == read
    assert (await studio._get(INBOX))["unread"] == 4


@pytest.mark.parametrize("mark", [native_mark, lootlocker_mark, gateway_mark])
async def test_a_token_that_may_read_its_own_inbox_may_mark_on_every_surface(
    server: Server,
    backend_key: str,
    mint: Mint,
    mark: Callable[[Studio, list[str]], Awaitable[Any]],
) -> None:
    token = mint(PLAYER, "notification:player:self:read")
    reader = Studio(server, backend_key, token, mint.name())
    await reader.publish_all()
    ids = [shown["id"] for shown in await reader.native_page()]

    answer = await mark(reader, ids[:2])

    assert answer.is_success, answer.text
    assert (await reader._get(INBOX))["unread"] == len(SENT) - 2


async def test_a_token_that_may_read_every_inbox_changes_only_its_own(
    studio: Studio, mint: Mint
) -> None:
    await studio.publish_all()
    ids = [shown["id"] for shown in await studio.native_page()]
    studio.player = mint.bearer("bob", "notification:player:read")
    requests = [
        ("POST", f"{INBOX}/read", {"ids": ids}),
        ("POST", f"{INBOX}/unread", {"ids": ids}),
        ("DELETE", f"{INBOX}/{ids[0]}", None),
    ]

    for method, path, body in requests:
        answer = await studio.client.request(
            method, path, headers=studio.player, json=body
        )
        assert answer.status_code == 403, (method, path)

    own = INBOX.replace(PLAYER, "me")
    answer = await studio.client.post(
        f"{own}/read", headers=studio.player, json={"ids": ids}
    )
    assert answer.is_success, answer.text
    assert (await studio._get(INBOX))["unread"] == len(SENT)
