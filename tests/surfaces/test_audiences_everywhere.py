"""
Notifications to everyone and to topics are in the player's inbox on every surface.

So is their state: a mark on one surface shows on all, and a notification that ended is
gone on all. The surfaces are read as their vendors' clients do.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest_asyncio

from .conftest import Mint, Server

PLAYER = "01563e3a-b5d3-d676-4c61-efb99302bd5b"
NATIVE = f"/v1/players/{PLAYER}/notifications"
RALLYHERE = f"/notification/v1/player/{PLAYER}"
LOOTLOCKER = "/game/notifications/v1"
GATEWAY = "/gateway/notifications/1.0"
MARKING = ("native", "lootlocker", "gateway")
"""Surfaces that show read marks."""

GUARD_S = 60


class Player:
    """One player's inbox on every surface."""

    def __init__(self, client: Any, key: str, token: str, app: str) -> None:
        self.client = client
        self.app = app
        self.backend = {"Authorization": f"Bearer {key}"}
        self.bearer = {"Authorization": f"Bearer {token}"}
        self.token = token

    async def send(self, body: str, to: dict[str, Any], **fields: Any) -> str:
        """Publish natively; return the id."""
        order = {"to": to, "body": body, "type": "note", **fields}
        answer = await self.client.post(
            "/v1/notifications", headers=self.backend, json=order
        )
        assert answer.status_code == 200, answer.text
        sent: str = answer.json()["results"][0]["id"]
        return sent

    async def _get(self, path: str, headers: dict[str, str]) -> Any:
        answer = await self.client.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def shown(self) -> dict[str, list[str]]:
        """Return the bodies that each surface lists, oldest first."""
        native = await self._get(NATIVE, self.bearer)
        page = await self._get(f"{RALLYHERE}/notification", self.bearer)
        query = "deadline=0&offset_reset_strategy=earliest"
        poll = await self._get(
            f"{RALLYHERE}/stream/notification/lp?{query}", self.bearer
        )
        looted = await self._get(LOOTLOCKER, {"x-session-token": self.token})
        gate = await self._get(f"{GATEWAY}/{self.app}", {"x-auth-token": self.token})
        return {
            "native": [n["body"] for n in native["notifications"]][::-1],
            "rallyhere": [n["message"] for n in page["notifications"]][::-1],
            "poll": [n["message"] for n in poll["notifications"]],
            "lootlocker": [
                n["content"]["body"]["body"] for n in looted["notifications"]
            ][::-1],
            "gateway": [
                n["event_details"]["body"] for n in gate["data"]["notifications"]
            ][::-1],
        }

    async def read(self) -> dict[str, list[bool]]:
        """Return the read marks on each surface that shows them, oldest first."""
        native = await self._get(NATIVE, self.bearer)
        looted = await self._get(LOOTLOCKER, {"x-session-token": self.token})
        gate = await self._get(f"{GATEWAY}/{self.app}", {"x-auth-token": self.token})
        return {
            "native": ["read_at" in n for n in native["notifications"]][::-1],
            "lootlocker": [n["read"] for n in looted["notifications"]][::-1],
            "gateway": [n["is_read"] for n in gate["data"]["notifications"]][::-1],
        }

    async def unread(self) -> int:
        return int((await self._get(NATIVE, self.bearer))["unread"])


@pytest_asyncio.fixture(loop_scope="module")
async def player(client: httpx2.AsyncClient, backend_key: str, mint: Mint) -> Player:
    player = Player(client, backend_key, mint(PLAYER), mint.name())
    await player.shown()  # The first request makes the player one of everyone.
    return player


async def filled(player: Player) -> list[str]:
    """Publish to the player, to everyone, and to a topic of the player; return ids."""
    answer = await player.client.put(
        f"/v1/players/{PLAYER}/topics/news", headers=player.backend
    )
    assert answer.is_success, answer.text
    return [
        await player.send("mine", {"players": [PLAYER]}),
        await player.send("all", {"everyone": True}),
        await player.send("news", {"topic": "news"}),
    ]


def everywhere(bodies: list[str]) -> dict[str, list[str]]:
    surfaces = ("native", "rallyhere", "poll", "lootlocker", "gateway")
    return dict.fromkeys(surfaces, bodies)


async def test_every_surface_shows_notifications_to_audiences(player: Player) -> None:
    await filled(player)

    assert await player.shown() == everywhere(["mine", "all", "news"])


async def test_a_player_without_the_subscription_has_nothing_of_a_topic(
    player: Player,
) -> None:
    await player.send("news", {"topic": "news"})
    await player.send("all", {"everyone": True})

    assert await player.shown() == everywhere(["all"])


async def test_a_mark_on_one_surface_shows_on_the_others(player: Player) -> None:
    ids = await filled(player)
    answer = await player.client.put(
        f"{LOOTLOCKER}/read",
        headers={"x-session-token": player.token},
        json={"notifications": [ids[1]]},
    )
    assert answer.is_success, answer.text

    marks = [False, True, False]
    assert await player.read() == dict.fromkeys(MARKING, marks)
    assert await player.unread() == 2


async def test_marking_all_marks_notifications_to_audiences(player: Player) -> None:
    await filled(player)
    answer = await player.client.put(
        f"{LOOTLOCKER}/read/all", headers={"x-session-token": player.token}
    )
    assert answer.is_success, answer.text

    marks = [True, True, True]
    assert await player.read() == dict.fromkeys(MARKING, marks)
    assert await player.unread() == 0


async def test_a_withdrawn_notification_disappears_everywhere(player: Player) -> None:
    mine, everyone, news = await filled(player)
    for path in (
        f"{NATIVE}/{mine}",
        f"/v1/everyone/notifications/{everyone}",
        f"/v1/topics/news/notifications/{news}",
    ):
        answer = await player.client.delete(path, headers=player.backend)
        assert answer.is_success, answer.text

    assert await player.shown() == everywhere([])
    assert await player.unread() == 0


async def test_a_replaced_notification_disappears_everywhere(player: Player) -> None:
    for to in ({"players": [PLAYER]}, {"everyone": True}):
        await player.send("old", to, collapse_key="score")
        await player.send("new", to, collapse_key="score")

    assert await player.shown() == everywhere(["new", "new"])
    assert await player.unread() == 2


async def test_an_expired_notification_disappears_everywhere(player: Player) -> None:
    await player.send("short", {"players": [PLAYER]}, ttl_s=1)
    await player.send("short", {"everyone": True}, ttl_s=1)
    await player.send("long", {"everyone": True}, ttl_s=3_600)

    async with asyncio.timeout(GUARD_S):
        while await player.unread() > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await player.shown() == everywhere(["long"])


async def test_a_deletion_affects_one_player_only(
    player: Player, client: httpx2.AsyncClient, backend_key: str, mint: Mint
) -> None:
    other = Player(client, backend_key, mint("other"), mint.name())
    await client.get("/v1/players/me/notifications", headers=other.bearer)
    everyone = await player.send("all", {"everyone": True})

    answer = await client.delete(f"{NATIVE}/{everyone}", headers=player.bearer)

    assert answer.is_success, answer.text
    assert await player.shown() == everywhere([])
    page = await client.get("/v1/players/me/notifications", headers=other.bearer)
    assert [n["id"] for n in page.json()["notifications"]] == [everyone]


async def test_a_muted_topic_is_hidden_everywhere(player: Player) -> None:
    await filled(player)
    path = f"/v1/players/{PLAYER}/mutes/topics/news"
    answer = await player.client.put(path, headers=player.bearer)
    assert answer.is_success, answer.text

    assert await player.shown() == everywhere(["mine", "all"])
    assert await player.unread() == 2


async def test_a_notification_to_everyone_wakes_a_waiting_poll(
    player: Player, server: Server
) -> None:
    path = f"{RALLYHERE}/stream/notification/lp?deadline=60"
    polling = asyncio.create_task(player._get(path, player.bearer))
    async with asyncio.timeout(GUARD_S):
        while not server.readers(PLAYER):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    await player.send("all", {"everyone": True})

    async with asyncio.timeout(GUARD_S):
        poll = await polling
    assert [n["message"] for n in poll["notifications"]] == ["all"]

    again = await player._get(
        f"{path[:-2]}0&exclude_before={poll['cursor']}", player.bearer
    )
    assert again["notifications"] == []
