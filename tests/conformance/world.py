"""Players with streams on two nodes, a backend, and whatever may happen to an inbox."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import httpx2

from small_client import SmallClient, Transport

__all__ = ["GUARD_S", "Player", "World"]

GUARD_S: Final = 60
TOPICS: Final = ("news", "clan/1")
TYPES: Final = ("chat", "ad")
IDS_KEPT: Final = 30
"""Ids among which one is chosen to be marked or withdrawn."""

TRANSPORTS: Final[Sequence[Transport]] = ("websocket", "sse")


class Player:
    """One player: its name, its token, and its streams."""

    def __init__(self, name: str, token: str, clients: list[SmallClient]) -> None:
        self.name = name
        self.token = token
        self.clients = clients
        self.busy = asyncio.Lock()
        """Held while a stream of the player is reconnecting."""


class World:
    """
    Players on nodes of one store.

    Args:
        urls: The nodes.
        key: A backend key.
        token: Returns a player's token.
        seed: Of all that is chosen at random.

    """

    def __init__(
        self, urls: Sequence[str], key: str, token: Callable[[str], str], seed: int
    ) -> None:
        self.random = random.Random(seed)
        self.players: list[Player] = []
        self.settled_in_s: list[float] = []
        """How long it took, each time, until all numbers were right."""
        self.done: list[str] = []
        """The names of the steps that were taken."""
        self._urls = urls
        self._token = token
        self._ids: list[str] = []
        self._http = httpx2.AsyncClient(
            base_url=urls[0],
            headers={"Authorization": f"Bearer {key}"},
            timeout=GUARD_S,
        )

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, *_: object) -> None:
        for player in self.players:
            for client in player.clients:
                await client.close()
        await self._http.aclose()

    async def add_player(self, name: str, topics: Sequence[str] = ()) -> Player:
        """
        Add a player with a stream of each transport, each on another node.

        The streams ask for `topics` themselves.
        """
        token = self._token(name)
        player = Player(name, token, [])
        self.players.append(player)
        for n, transport in enumerate(TRANSPORTS):
            url = self._urls[n % len(self._urls)]
            device = f"device-{n}"
            client = SmallClient(url, token, transport, topics=topics, device=device)
            await client.open()
            player.clients.append(client)
        return player

    async def call(self, method: str, path: str, json: Any = None) -> Any:
        """Send a request as the backend; return the body of the response."""
        response = await self._http.request(method, path, json=json)
        # What is marked or withdrawn may be another player's, or have ended.
        if response.status_code not in (200, 202, 204, 404, 409):
            raise AssertionError(f"{method} {path}: {response.status_code}")
        return response.json() if response.content else None

    async def publish(self, to: Any, **message: Any) -> str:
        """Publish a notification; return its id, "" if the player has muted it."""
        body = {"to": to, "type": "chat", "title": "t"} | message
        answer = await self.call("POST", "/v1/notifications", body)
        found = str(answer["results"][0].get("id", ""))
        if found:
            self._ids = [*self._ids[1 - IDS_KEPT :], found]
        return found

    async def unread(self, player: Player) -> int:
        """Return the number that the player's page shows."""
        path = f"/v1/players/{player.name}/notifications?limit=1"
        return int((await self.call("GET", path))["unread"])

    async def wrong(self) -> list[str]:
        """Return which streams have another number than the page, and both."""
        found = []
        for player in self.players:
            unread = await self.unread(player)
            found += [
                f"{player.name} {n}: {client.number} instead of {unread}"
                for n, client in enumerate(player.clients)
                if client.number != unread
            ]
        return found

    async def settle(self) -> None:
        """Wait until every stream has the number that the page shows."""
        begun_s = time.monotonic()
        wrong: list[str] = []
        try:
            async with asyncio.timeout(GUARD_S):
                # What happens on the servers has no event here.
                while wrong := await self.wrong():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(
                f"{wrong} after {len(self.done)} steps, the last {self.done[-20:]}"
            ) from None
        self.settled_in_s.append(time.monotonic() - begun_s)

    async def burst(self, count: int) -> None:
        """Take so many steps at once."""
        steps = [self.random.choice(STEPS) for _ in range(count)]
        self.done += [step.__name__ for step in steps]
        await asyncio.gather(*(step(self) for step in steps))

    def some_id(self) -> str:
        return self.random.choice(self._ids) if self._ids else "none"

    def some_player(self) -> Player:
        return self.random.choice(self.players)

    def some_audience(self) -> Any:
        """Return recipients of a publish."""
        return self.random.choice(
            [
                {"players": [self.some_player().name]},
                {"everyone": True},
                *({"topic": topic} for topic in TOPICS),
            ]
        )


async def publish(world: World) -> None:
    await world.publish(world.some_audience(), type=world.random.choice(TYPES))


async def publish_to_topic(world: World) -> None:
    await world.publish({"topic": world.random.choice(TOPICS)})


async def publish_expiring(world: World) -> None:
    await world.publish(world.some_audience(), ttl_s=1)


async def publish_collapsing(world: World) -> None:
    key = world.random.choice("ab")
    await world.publish(world.some_audience(), collapse_key=key)


async def publish_passing(world: World) -> None:
    body = {"to": world.some_audience(), "title": "t", "persist": False}
    await world.call("POST", "/v1/notifications", body)


async def publish_to_device(world: World) -> None:
    await world.publish({"players": [world.some_player().name]}, device="latest")


async def publish_large(world: World) -> None:
    # It is announced without its content.
    await world.publish(world.some_audience(), data="x" * 20_000)


async def mark(world: World) -> None:
    ids = [world.some_id() for _ in range(3)]
    path = f"/v1/players/{world.some_player().name}/notifications/read"
    await world.call("POST", path, {"ids": ids})


async def unmark(world: World) -> None:
    ids = [world.some_id() for _ in range(3)]
    path = f"/v1/players/{world.some_player().name}/notifications/unread"
    await world.call("POST", path, {"ids": ids})


async def mark_up_to(world: World) -> None:
    player = world.some_player()
    page = await world.call("GET", f"/v1/players/{player.name}/notifications?limit=1")
    path = f"/v1/players/{player.name}/notifications/read"
    await world.call("POST", path, {"up_to": page["cursor"]})


async def mark_all(world: World) -> None:
    path = f"/v1/players/{world.some_player().name}/notifications/read"
    await world.call("POST", path, {"all": True})


async def mark_on_stream(world: World) -> None:
    player = world.some_player()
    async with player.busy:
        await player.clients[0].send({"type": "read", "ids": [world.some_id()]})


async def delete(world: World) -> None:
    path = f"/v1/players/{world.some_player().name}/notifications/{world.some_id()}"
    await world.call("DELETE", path)


async def withdraw(world: World) -> None:
    place = world.random.choice(["everyone", *(f"topics/{topic}" for topic in TOPICS)])
    await world.call("DELETE", f"/v1/{place}/notifications/{world.some_id()}")


async def join(world: World) -> None:
    player, topic = world.some_player(), world.random.choice(TOPICS)
    await world.call("PUT", f"/v1/players/{player.name}/topics/{topic}")


async def leave(world: World) -> None:
    player, topic = world.some_player(), world.random.choice(TOPICS)
    await world.call("DELETE", f"/v1/players/{player.name}/topics/{topic}")


async def mute(world: World) -> None:
    player, topic = world.some_player(), world.random.choice(TOPICS)
    method = world.random.choice(["PUT", "DELETE"])
    await world.call(method, f"/v1/players/{player.name}/mutes/topics/{topic}")


async def mute_type(world: World) -> None:
    player, method = world.some_player(), world.random.choice(["PUT", "DELETE"])
    await world.call(method, f"/v1/players/{player.name}/mutes/types/ad")


async def reconnect(world: World) -> None:
    player = world.some_player()
    async with player.busy:
        client = world.random.choice(player.clients)
        await client.close()
        await asyncio.sleep(world.random.choice([0, 0.05]))
        await client.open()


Step = Callable[[World], Awaitable[None]]

STEPS: Final[Sequence[Step]] = (
    *(publish, publish, publish, publish_to_topic, publish_to_topic),
    *(publish_expiring, publish_collapsing, publish_passing, publish_large),
    publish_to_device,
    *(mark, unmark, mark_up_to, mark_all, mark_on_stream),
    *(delete, delete, withdraw, withdraw, join, leave, mute, mute_type, reconnect),
)
