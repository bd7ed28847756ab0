"""The audit log: what is recorded, and who may read it."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
import pytest_asyncio

from streamer.service.privacy.audit import Audit
from streamer.store.access.apps import Apps

from ..conftest import AddKey, Mint


class Support:
    """A backend with every scope, and its audit log."""

    def __init__(self, client: httpx2.AsyncClient, key: str) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {key}", "X-Request-Id": "r-1"}

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        return await self.client.request(method, path, headers=self.headers, json=body)

    async def publish(self, to: Any) -> str:
        body = {"to": to, "title": "t"}
        answer = (await self.ask("POST", "/v1/notifications", body)).json()
        found: str = answer["results"][0]["id"]
        return found

    async def audit(self, query: str = "") -> list[dict[str, Any]]:
        answer = await self.ask("GET", f"/v1/audit{query}")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["entries"]
        return found


@pytest_asyncio.fixture(loop_scope="module")
async def support(client: httpx2.AsyncClient, add_key: AddKey) -> Support:
    return Support(
        client, await add_key("admin", "notifications:send", "schedules:write")
    )


async def test_an_entry_says_who_did_what_when_and_why(
    support: Support, redis: Any, mint: Mint
) -> None:
    found = await support.publish({"players": ["ann"]})
    path = f"/v1/players/ann/notifications/{found}?purge=true&reason=ticket%20%237"

    await support.ask("DELETE", path)

    (entry,) = await support.audit()
    (key,) = await Apps(redis).list_keys(mint.name())
    assert entry.pop("id") and entry.pop("at").endswith("Z")
    assert len(entry.pop("player")) == 32
    assert entry == {
        "action": "purge",
        "by": f"key {key.id}",
        "outcome": "done",
        "reason": "ticket #7",
        "request_id": "r-1",
        "details": {"id": found},
    }


async def test_what_concerns_many_is_recorded(support: Support) -> None:
    everyone = await support.publish({"everyone": True})
    await support.ask("DELETE", f"/v1/everyone/notifications/{everyone}")
    await support.ask("PUT", "/v1/players/ann/mutes/types/ad")
    await support.publish({"players": ["ann"]})
    body = {"to": {"players": ["ann"]}, "title": "t", "spread_s": 60}
    later = (await support.ask("POST", "/v1/notifications", body)).json()["schedule"]
    for step in ("pause", "resume", "pause?reason=wrong+text"):
        await support.ask("POST", f"/v1/schedules/{later['id']}/{step}")
    await support.ask("DELETE", f"/v1/schedules/{later['id']}")

    entries = await support.audit()

    assert [(it["action"], it.get("target")) for it in reversed(entries)] == [
        ("publish.everyone", "everyone"),
        ("withdraw", "everyone"),
        ("mute", "type:ad"),
        ("schedule.pause", f"schedule:{later['id']}"),
        ("schedule.resume", f"schedule:{later['id']}"),
        ("schedule.pause", f"schedule:{later['id']}"),
        ("schedule.cancel", f"schedule:{later['id']}"),
    ]
    assert entries[1]["reason"] == "wrong text"


async def test_an_operation_that_fails_is_recorded_with_its_outcome(
    support: Support,
) -> None:
    await support.ask("DELETE", "/v1/everyone/notifications/x")

    (entry,) = await support.audit()

    assert (entry["action"], entry["outcome"]) == ("withdraw", "not_found")


async def test_callers_without_the_right_leave_no_entry(
    support: Support, mint: Mint, client: httpx2.AsyncClient
) -> None:
    path = "/v1/everyone/notifications/x"
    answer = await client.delete(path, headers=mint.bearer("ann"))
    assert answer.status_code == 403

    assert await support.audit() == []


async def test_what_players_mute_for_themselves_is_not_recorded(
    support: Support, mint: Mint, client: httpx2.AsyncClient
) -> None:
    path = "/v1/players/me/mutes/types/ad"
    assert (await client.put(path, headers=mint.bearer("ann"))).status_code == 204

    assert await support.audit() == []


async def test_a_player_is_named_by_the_hash_that_the_filter_finds(
    support: Support, mint: Mint, client: httpx2.AsyncClient
) -> None:
    for player in ("ann", "bob"):
        await support.ask("PUT", f"/v1/players/{player}/mutes/types/ad")
    found = await support.publish({"players": ["ann"]})
    path = f"/v1/players/me/notifications/{found}?purge=true"
    await client.delete(path, headers=mint.bearer("ann"))

    purge, mute = await support.audit("?player=ann")

    assert purge["player"] == mute["player"]
    assert purge["by"] == f"token {purge['player']}"
    assert "player_name" not in mute
    assert len(await support.audit("?action=mute")) == 2
    assert await support.audit("?player=carl") == []


async def test_the_name_is_recorded_if_the_log_has_names(
    redis: Any, mint: Mint
) -> None:
    audit = Audit(redis, Apps(redis), names_players=True)
    app = mint.name()

    async with audit.recorded(app, "cli root", "player.export", player="ann"):  # type: ignore[arg-type]
        pass

    (record,) = await audit.read(app, limit=9)
    assert record.entry.player_name == "ann"


async def test_pages_are_newest_first_and_complete(
    support: Support, redis: Any, mint: Mint
) -> None:
    audit = Audit(redis, Apps(redis))
    for number in range(7):
        async with audit.recorded(
            mint.name(), "cli root", "key.create", target=f"key:{number}"
        ):
            pass
    targets, before = [], ""
    while True:
        page = (await support.ask("GET", f"/v1/audit?limit=3{before}")).json()
        targets += [entry["target"] for entry in page["entries"]]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"

    assert targets == [f"key:{number}" for number in range(6, -1, -1)]


async def test_nothing_is_before_the_lowest_id(support: Support) -> None:
    await support.ask("PUT", "/v1/players/ann/mutes/types/ad")

    for lowest in ("0-0", "000-0", "0-1", "1-0"):
        assert await support.audit(f"?before={lowest}") == []
    assert len(await support.audit("?before=999999999999999-9999999999")) == 1


async def test_reading_takes_the_scope(
    client: httpx2.AsyncClient, mint: Mint, add_key: AddKey
) -> None:
    key = {"Authorization": f"Bearer {await add_key()}"}
    for headers in (key, mint.bearer("ann", "notification:player:*")):
        answer = await client.get("/v1/audit", headers=headers)
        assert answer.status_code == 403
    key = {"Authorization": f"Bearer {await add_key('admin:read')}"}
    assert (await client.get("/v1/audit", headers=key)).status_code == 200


async def test_another_app_has_another_log(
    support: Support, client: httpx2.AsyncClient, add_key: AddKey
) -> None:
    await support.ask("PUT", "/v1/players/ann/mutes/types/ad")
    key = {"Authorization": f"Bearer {await add_key('admin', app='other')}"}

    answer = await client.get("/v1/audit?player=ann", headers=key)

    assert answer.json() == {"entries": [], "next": None}


@pytest.mark.parametrize(
    "query", ["before=x", "before=", "before=1", "player=", "limit=0", "befor=1-0"]
)
async def test_a_query_that_is_not_valid_is_refused(
    support: Support, query: str
) -> None:
    answer = await support.ask("GET", f"/v1/audit?{query}")

    assert answer.status_code == 400
