"""Exporting a player: everything that the store has of it, and nothing of others."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from streamer.errors import StoreUnavailable
from streamer.model import Log
from streamer.store.client.connection import RedisConnection

from ..conftest import AddKey, Mint, OpenEvents, Server, Until

LATER = (datetime.now(UTC) + timedelta(days=1)).isoformat()


class Backend:
    def __init__(self, client: httpx2.AsyncClient, key: str) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {key}"}

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.client.request(
            method, path, headers=self.headers, json=body
        )
        assert answer.status_code < 400, answer.text
        return answer.json() if answer.content else None

    async def publish(self, to: Any, **message: Any) -> Any:
        answer = await self.ask("POST", "/v1/notifications", {"to": to, **message})
        return answer["results"][0]["id"] if "results" in answer else answer

    async def export(self, player: str, query: str = "") -> list[dict[str, Any]]:
        path = f"/v1/players/{player}/export{query}"
        answer = await self.client.get(path, headers=self.headers)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/jsonl"
        return [json.loads(line) for line in answer.text.splitlines()]


def of_kind(items: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in items if item["kind"] == kind]


@pytest_asyncio.fixture(loop_scope="module")
async def backend(client: httpx2.AsyncClient, add_key: AddKey) -> Backend:
    scopes = ("admin", "notifications:send", "notifications:read")
    more = ("schedules:write", "campaigns:read", "campaigns:write")
    return Backend(client, await add_key(*scopes, *more))


async def test_the_inbox_is_exported_with_its_marks(backend: Backend) -> None:
    to = {"players": ["ann"]}
    read = await backend.publish(to, title="read", data={"gold": 2**60})
    gone = await backend.publish(to, title="withdrawn")
    purged = await backend.publish(to, title="purged")
    new = await backend.publish(to, title="new", ttl_s=60)
    me = "/v1/players/ann/notifications"
    await backend.ask("POST", f"{me}/read", {"ids": [read]})
    await backend.ask("DELETE", f"{me}/{gone}")
    await backend.ask("DELETE", f"{me}/{purged}?purge=true")

    items = await backend.export("ann")

    by_id = {it["id"]: it for it in of_kind(items, "notification")}
    assert by_id.keys() == {read, gone, purged, new}
    assert by_id[read]["notification"]["title"] == "read"
    assert by_id[read]["notification"]["data"] == {"gold": 2**60}
    assert by_id[read]["read_at"].endswith("Z")
    assert by_id[gone]["ended"] == "withdrawn"
    assert by_id[gone]["notification"]["title"] == "withdrawn"
    assert "notification" not in by_id[purged]
    assert "expires_at" in by_id[new]
    assert "read_at" not in by_id[new]
    assert [it["id"] for it in of_kind(items, "withdrawal")] == [gone, purged]
    assert items[0]["kind"] == "export"
    assert items[-1] == {"kind": "end", "items": len(items) - 1}


async def test_the_time_when_a_player_was_last_seen_is_exported(
    backend: Backend,
    server: Server,
    mint: Mint,
    open_events: OpenEvents,
    redis: RedisConnection,
    until: Until,
) -> None:
    stream = await open_events("/v1/stream", mint.bearer("gil"))
    await stream.close()
    key = redis.keys.seen(server.log("gil"))

    async def has_left() -> bool:
        return bool(await redis.call("EXISTS", key))

    await until(has_left)

    (presence,) = of_kind(await backend.export("gil"), "presence")

    seen_s = int(await redis.call("GET", key)) // 1_000
    at = datetime.fromisoformat(presence["last_seen_at"])
    assert int(at.timestamp()) == seen_s


async def test_what_an_audience_got_is_exported_as_the_player_sees_it(
    backend: Backend,
) -> None:
    news = {"topic": "news"}
    await backend.publish(news, title="before")
    await backend.ask("PUT", "/v1/players/bea/topics/news")
    deleted = await backend.publish(news, title="deleted")
    read = await backend.publish(news, title="read")
    await backend.publish(news, title="new")
    me = "/v1/players/bea/notifications"
    await backend.ask("DELETE", f"{me}/{deleted}")
    await backend.ask("POST", f"{me}/read", {"ids": [read]})
    await backend.ask("POST", f"{me}/ack", {"cursor": read})
    await backend.ask("PUT", "/v1/players/bea/mutes/topics/news")

    items = await backend.export("bea")

    (subscription,) = [it for it in of_kind(items, "subscription") if "topic" in it]
    assert (subscription["topic"], subscription["muted"]) == ("news", True)
    seen = {it["notification"]["title"]: it for it in of_kind(items, "notification")}
    assert seen.keys() == {"deleted", "read", "new"}
    assert seen["deleted"]["deleted"] is True
    assert "read_at" in seen["read"]
    assert "read_at" not in seen["new"]
    assert {title: it["acknowledged"] for title, it in seen.items()} == {
        "deleted": True,
        "read": True,
        "new": False,
    }


async def test_everything_else_that_names_the_player_is_exported(
    backend: Backend, mint: Mint, open_events: OpenEvents, server: Server
) -> None:
    to = {"players": ["cleo"]}
    await backend.ask("PUT", "/v1/players/cleo/mutes/types/ad")
    await backend.publish(to, title="later", send_at=LATER)
    await backend.publish({"players": ["cleo", "dan"]}, title="both", send_at=LATER)
    await backend.ask("PUT", "/v1/campaigns/spring", {"name": "Spring"})
    cards = [{"id": "c1", "player": "cleo", "status": "active"}]
    await backend.ask("PUT", "/v1/campaigns/spring/cards", cards)
    await server.client.post("/v1/tickets", headers=mint.bearer("cleo"))
    await open_events("/v1/stream?device=phone&instance=i", mint.bearer("cleo"))

    items = await backend.export("cleo", "?reason=asked")

    assert [it["type"] for it in of_kind(items, "mute")] == ["ad"]
    (schedule,) = of_kind(items, "schedule")
    assert schedule["notification"]["title"] == "later"
    assert len(of_kind(items, "recipient")) == 1
    (card,) = of_kind(items, "card")
    assert (card["campaign"], card["card"], card["status"]) == (
        *("spring", "c1", "active"),
    )
    (device,) = of_kind(items, "device")
    assert device["device"] == "phone"
    (connection,) = of_kind(items, "connection")
    assert connection["connection"] == device["connection"]
    (ticket,) = of_kind(items, "ticket")
    assert ticket["used"] is False
    assert [it["action"] for it in of_kind(items, "audit")] == ["mute"]
    audit = (await backend.ask("GET", "/v1/audit?action=player.export"))["entries"]
    assert audit[0]["reason"] == "asked"
    assert audit[0]["details"] == {"items": len(items) - 1}


async def test_of_others_nothing_is_exported(backend: Backend) -> None:
    await backend.publish({"players": ["eve"]}, title="eve's")
    await backend.ask("PUT", "/v1/players/eve/mutes/types/ad")
    await backend.publish({"players": ["eve"]}, title="later", send_at=LATER)

    items = await backend.export("ev")

    assert {it["kind"] for it in items} == {"export", "subscription", "end"} or {
        it["kind"] for it in items
    } == {"export", "end"}


async def test_a_long_inbox_is_exported_once_and_in_order(backend: Backend) -> None:
    messages = [{"to": {"players": ["fay"]}, "title": f"{n}"} for n in range(105)]
    await backend.ask("POST", "/v1/notifications", messages)

    items = of_kind(await backend.export("fay"), "notification")

    titles = [item["notification"]["title"] for item in items]
    assert titles == [str(number) for number in range(105)]


async def test_an_export_that_breaks_off_has_no_end(
    backend: Backend, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await backend.publish({"players": ["gus"]}, title="t")
    exporting = server.app._components.exporting

    async def away(log: Log) -> list[str]:
        raise StoreUnavailable(write=False)

    monkeypatch.setattr(exporting._mutes, "of", away)
    items: list[Any] = []
    with pytest.raises(StoreUnavailable):
        async for item in exporting.export_for("cli root", server.log("gus")):
            items.append(item)  # noqa: PERF401

    assert of_kind(items, "notification")
    assert not of_kind(items, "end")
    audit = (await backend.ask("GET", "/v1/audit?player=gus"))["entries"]
    assert audit[0]["outcome"] == "store_unavailable"


async def test_exporting_takes_the_scope(
    client: httpx2.AsyncClient, mint: Mint, add_key: AddKey
) -> None:
    path = "/v1/players/ann/export"
    keys = [await add_key(), await add_key("admin:write")]
    for headers in (
        *({"Authorization": f"Bearer {key}"} for key in keys),
        mint.bearer("ann"),
    ):
        assert (await client.get(path, headers=headers)).status_code == 403
