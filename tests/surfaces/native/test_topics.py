"""Topics and mutes of players on the native surface: rights and effects."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from ..conftest import AddKey, Mint

TOPICS = "/v1/players/{}/topics"
MUTES = "/v1/players/{}/mutes"


class Somebody:
    """A caller."""

    def __init__(self, client: Any, headers: dict[str, str]) -> None:
        self.client = client
        self.headers = headers

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        return await self.client.request(method, path, headers=self.headers, json=body)

    async def does(self, method: str, path: str, status: int = 204) -> None:
        answer = await self.ask(method, path)
        assert answer.status_code == status, answer.text
        assert bool(answer.content) is (status != 204)

    async def topics(self, player: str = "alice") -> list[tuple[str, bool]]:
        answer = (await self.ask("GET", TOPICS.format(player))).json()
        return [(one["topic"], one["muted"]) for one in answer["topics"]]

    async def mutes(self, player: str = "alice") -> Any:
        return (await self.ask("GET", MUTES.format(player))).json()

    async def say(self, to: Any, **message: Any) -> Any:
        body = {"to": to, "title": "t", **message}
        return (await self.ask("POST", "/v1/notifications", body)).json()["results"]

    async def unread(self, player: str = "alice") -> int:
        answer = await self.ask("GET", f"/v1/players/{player}/notifications")
        count: int = answer.json()["unread"]
        return count


@pytest.fixture
def backend(client: httpx2.AsyncClient, backend_key: str) -> Somebody:
    return Somebody(client, {"Authorization": f"Bearer {backend_key}"})


@pytest.fixture
def alice(client: httpx2.AsyncClient, mint: Mint) -> Somebody:
    return Somebody(client, mint.bearer("alice", topics=("open", "guild/*")))


# Topics.


async def test_a_backend_subscribes_and_unsubscribes_players(backend: Somebody) -> None:
    for topic in ("b", "a/b", "b"):
        await backend.does("PUT", f"{TOPICS.format('alice')}/{topic}")
    assert await backend.topics() == [("a/b", False), ("b", False)]
    assert await backend.topics("bob") == []

    for _ in range(2):
        await backend.does("DELETE", f"{TOPICS.format('alice')}/b")
    assert await backend.topics() == [("a/b", False)]


async def test_a_player_subscribes_to_topics_of_its_token(alice: Somebody) -> None:
    me = TOPICS.format("me")
    for topic, status in (("open", 204), ("guild/7", 204), ("other", 403)):
        await alice.does("PUT", f"{me}/{topic}", status)
    assert await alice.topics("me") == [("guild/7", False), ("open", False)]

    for topic, status in (("open", 204), ("other", 403)):
        await alice.does("DELETE", f"{me}/{topic}", status)
    assert await alice.topics("me") == [("guild/7", False)]


async def test_a_player_subscribes_itself_only(alice: Somebody) -> None:
    for method in ("PUT", "DELETE"):
        await alice.does(method, f"{TOPICS.format('bob')}/open", 403)
    await alice.does("GET", TOPICS.format("bob"), 403)


async def test_a_key_that_only_reads_cannot_subscribe_players(
    client: httpx2.AsyncClient, add_key: AddKey
) -> None:
    key = await add_key("notifications:read")
    reader = Somebody(client, {"Authorization": f"Bearer {key}"})

    await reader.does("PUT", f"{TOPICS.format('alice')}/t", 403)
    assert await reader.topics() == []


async def test_the_number_of_topics_is_limited(backend: Somebody) -> None:
    for number in range(16):
        await backend.does("PUT", f"{TOPICS.format('alice')}/{number}")

    answer = await backend.ask("PUT", f"{TOPICS.format('alice')}/one-more")

    assert answer.status_code == 409
    assert answer.json()["limit"] == "topics_per_player"


@pytest.mark.parametrize("topic", ["a%20b", "%00", "x" * 129, "é", ""])
async def test_an_invalid_topic_is_refused(backend: Somebody, topic: str) -> None:
    for path in (TOPICS, f"{MUTES}/topics"):
        answer = await backend.ask("PUT", f"{path.format('alice')}/{topic}")
        assert answer.status_code == 400
        assert [error["path"] for error in answer.json()["errors"]] == ["topic"]


async def test_a_topic_may_contain_segments_of_a_path(backend: Somebody) -> None:
    topic = "x/topics/y"
    await backend.does("PUT", f"{TOPICS.format('alice')}/{topic}")

    assert await backend.topics() == [(topic, False)]


async def test_a_player_name_with_a_slash_has_topics(backend: Somebody) -> None:
    await backend.does("PUT", f"{TOPICS.format('a%2Fb')}/t")

    assert await backend.topics("a%2Fb") == [("t", False)]


# Mutes.


async def test_a_muted_type_is_not_stored(backend: Somebody, alice: Somebody) -> None:
    url = f"{MUTES.format('me')}/types/ad%2Fbig%20one"
    for _ in range(2):
        await alice.does("PUT", url)
    assert await alice.mutes("me") == {"types": ["ad/big one"], "topics": []}

    results = await backend.say({"players": ["alice"]}, type="ad/big one")
    assert results == [{"to": "alice", "muted": True}]
    for _ in range(2):
        await alice.does("DELETE", url)
    await backend.say({"players": ["alice"]}, type="ad/big one")

    assert await backend.unread() == 1


async def test_a_muted_topic_is_hidden_until_it_is_unmuted(
    backend: Somebody, alice: Somebody
) -> None:
    await backend.does("PUT", f"{TOPICS.format('alice')}/t")
    await backend.say({"topic": "t"})
    url = f"{MUTES.format('me')}/topics/t"

    for _ in range(2):
        await alice.does("PUT", url)
    assert await alice.mutes("me") == {"types": [], "topics": ["t"]}
    assert await alice.topics("me") == [("t", True)]
    assert await backend.unread() == 0

    for _ in range(2):
        await alice.does("DELETE", url)
    assert await backend.unread() == 1


async def test_only_a_subscribed_topic_can_be_muted(alice: Somebody) -> None:
    url = f"{MUTES.format('me')}/topics/t"

    await alice.does("PUT", url, 404)
    await alice.does("DELETE", url)


async def test_the_number_of_mutes_is_limited(alice: Somebody) -> None:
    for number in range(100):
        await alice.does("PUT", f"{MUTES.format('me')}/types/{number}")

    answer = await alice.ask("PUT", f"{MUTES.format('me')}/types/one-more")

    assert answer.status_code == 409
    assert answer.json()["limit"] == "mutes_per_player"


@pytest.mark.parametrize("type_", ["", "x" * 256])
async def test_an_empty_or_long_type_is_refused(alice: Somebody, type_: str) -> None:
    answer = await alice.ask("PUT", f"{MUTES.format('me')}/types/{type_}")

    assert answer.status_code == 400
    assert [error["path"] for error in answer.json()["errors"]] == ["type"]


async def test_a_player_changes_its_own_mutes_only(alice: Somebody) -> None:
    bob = MUTES.format("bob")

    await alice.does("GET", bob, 403)
    await alice.does("PUT", f"{bob}/types/t", 403)
    await alice.does("PUT", f"{bob}/topics/open", 403)
