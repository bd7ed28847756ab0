"""Purging by the API: a player's notification, an audience's, a schedule's."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from ..conftest import AddKey, Mint

SECRET = "a secret text"


class Backend:
    """A backend that publishes the secret."""

    def __init__(self, client: httpx2.AsyncClient, key: str) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {key}"}

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        return await self.client.request(method, path, headers=self.headers, json=body)

    async def publish(self, to: Any, **message: Any) -> str:
        body = {"to": to, "title": SECRET, **message}
        answer = (await self.ask("POST", "/v1/notifications", body)).json()
        found: str = answer["results"][0]["id"]
        return found

    async def has_secret(self, redis: Any, app: str) -> bool:
        """Whether a value of the app in the store contains the text."""
        for key in await redis.call("KEYS", f"*:{app}:*"):
            if b":audit:" in key:
                continue
            dump = await redis.call("DUMP", key)
            if SECRET.encode() in dump:
                return True
        return False


@pytest_asyncio.fixture(loop_scope="module")
async def backend(client: httpx2.AsyncClient, backend_key: str) -> Backend:
    return Backend(client, backend_key)


async def test_the_text_of_a_players_notification_leaves_the_store(
    backend: Backend, redis: Any, mint: Mint
) -> None:
    found = await backend.publish({"players": ["ann"]}, collapse_key="k")
    path = f"/v1/players/ann/notifications/{found}"
    assert await backend.has_secret(redis, mint.name())

    for _ in range(2):
        assert (await backend.ask("DELETE", f"{path}?purge=true")).status_code == 204

    assert not await backend.has_secret(redis, mint.name())
    assert (await backend.ask("GET", path)).status_code == 404
    receipt = (await backend.ask("GET", f"{path}/receipt")).json()
    assert receipt["state"] == "withdrawn"


async def test_a_deletion_without_purge_keeps_the_text(
    backend: Backend, redis: Any, mint: Mint
) -> None:
    found = await backend.publish({"players": ["ann"]})
    path = f"/v1/players/ann/notifications/{found}"

    assert (await backend.ask("DELETE", f"{path}?purge=false")).status_code == 204
    assert await backend.has_secret(redis, mint.name())

    # What was deleted can be purged afterwards.
    assert (await backend.ask("DELETE", f"{path}?purge=true")).status_code == 204
    assert not await backend.has_secret(redis, mint.name())


@pytest.mark.parametrize(
    ("to", "path"),
    [
        ({"topic": "news"}, "/v1/topics/news/notifications"),
        ({"everyone": True}, "/v1/everyone/notifications"),
    ],
)
async def test_the_text_of_an_audiences_notification_leaves_the_store(
    backend: Backend, redis: Any, mint: Mint, to: Any, path: str
) -> None:
    await backend.ask("PUT", "/v1/players/ann/topics/news")
    await backend.ask("GET", "/v1/players/ann/notifications")
    found = await backend.publish(to)

    of_player = f"/v1/players/ann/notifications/{found}?purge=true"
    answer = await backend.ask("DELETE", of_player)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["query"] == "purge"

    answer = await backend.ask("DELETE", f"{path}/{found}?purge=true")
    assert answer.status_code == 204
    assert not await backend.has_secret(redis, mint.name())
    page = (await backend.ask("GET", "/v1/players/ann/notifications")).json()
    assert (page["notifications"], page["unread"]) == ([], 0)


async def test_the_text_of_a_pending_schedule_leaves_the_store(
    backend: Backend, redis: Any, mint: Mint
) -> None:
    at = datetime.now(UTC) + timedelta(days=1)
    body = {"to": {"players": ["ann"]}, "title": SECRET, "send_at": at.isoformat()}
    answer = (await backend.ask("POST", "/v1/notifications", body)).json()
    path = f"/v1/schedules/{answer['schedule']['id']}"

    for _ in range(2):
        answer = await backend.ask("DELETE", f"{path}?purge=true")
        assert answer.status_code == 200
        assert answer.json()["state"] == "cancelled"
        assert answer.json()["notification"] == {}

    assert not await backend.has_secret(redis, mint.name())


async def test_purging_what_a_schedule_has_sent_purges_its_record(
    backend: Backend, redis: Any, mint: Mint, until: Any
) -> None:
    body = {"to": {"players": ["ann"]}, "title": SECRET, "spread_s": 60}
    schedule = (await backend.ask("POST", "/v1/notifications", body)).json()["schedule"]
    page: Any = {}

    async def arrived() -> bool:
        page.update((await backend.ask("GET", "/v1/players/ann/notifications")).json())
        return bool(page["notifications"])

    await until(arrived)
    found = page["notifications"][0]["id"]

    path = f"/v1/players/ann/notifications/{found}?purge=true"
    assert (await backend.ask("DELETE", path)).status_code == 204

    assert not await backend.has_secret(redis, mint.name())
    record = (await backend.ask("GET", f"/v1/schedules/{schedule['id']}")).json()
    assert (record["state"], record["notification"]) == ("sent", {})


async def test_a_sent_schedule_is_purged_by_its_own_id(
    backend: Backend, until: Any
) -> None:
    body = {"to": {"players": ["ann"]}, "title": SECRET, "spread_s": 60}
    answer = (await backend.ask("POST", "/v1/notifications", body)).json()
    path = f"/v1/schedules/{answer['schedule']['id']}"

    async def sent() -> bool:
        return bool((await backend.ask("GET", path)).json()["state"] == "sent")

    await until(sent)
    assert (await backend.ask("DELETE", path)).status_code == 409

    answer = await backend.ask("DELETE", f"{path}?purge=true")

    assert answer.status_code == 200
    assert answer.json()["notification"] == {}


async def test_a_stream_is_told_and_resumes_without_a_gap(
    backend: Backend, mint: Mint, client: httpx2.AsyncClient
) -> None:
    first = await backend.publish({"players": ["ann"]})
    second = await backend.publish({"players": ["ann"]})
    await backend.ask("DELETE", f"/v1/players/ann/notifications/{second}?purge=true")
    headers = {"Authorization": f"Bearer {mint('ann')}"}
    read = "/v1/players/me/notifications?order=oldest&after="

    for after in (first, second):
        page = (await client.get(read + after, headers=headers)).json()
        assert "gap" not in page
        assert page["notifications"] == []
    body = {"up_to": second}
    marked = await client.post(
        "/v1/players/me/notifications/read", headers=headers, json=body
    )
    assert marked.json() == {"unread": 0}
    acked = await client.post(
        "/v1/players/me/notifications/ack", headers=headers, json={"cursor": second}
    )
    assert acked.status_code == 204


async def test_purging_takes_the_right_to_write(
    backend: Backend, mint: Mint, client: httpx2.AsyncClient, add_key: AddKey
) -> None:
    found = await backend.publish({"players": ["ann"]})
    path = f"/v1/players/ann/notifications/{found}?purge=true"
    reader = mint.bearer("ann", "notification:player:self:read")
    key = {"Authorization": f"Bearer {await add_key('notifications:read')}"}

    for headers in (reader, key, mint.bearer("bob")):
        assert (await client.delete(path, headers=headers)).status_code == 403
    assert (await client.delete(path, headers=mint.bearer("ann"))).status_code == 204


@pytest.mark.parametrize("query", ["purge=yes", "purge=", f"reason={'r' * 501}"])
async def test_a_query_that_is_not_valid_purges_nothing(
    backend: Backend, query: str
) -> None:
    found = await backend.publish({"players": ["ann"]})
    path = f"/v1/players/ann/notifications/{found}"

    answer = await backend.ask("DELETE", f"{path}?{query}")

    assert answer.status_code == 400
    assert json.loads(answer.text)["errors"][0]["query"] == query.partition("=")[0]
    assert (await backend.ask("GET", path)).status_code == 200


async def test_an_unknown_notification_is_not_found(backend: Backend) -> None:
    for name in ("x", "01a3185c-5000-7000-8000-00009d9e3886"):
        path = f"/v1/players/ann/notifications/{name}?purge=true"
        assert (await backend.ask("DELETE", path)).status_code == 404
