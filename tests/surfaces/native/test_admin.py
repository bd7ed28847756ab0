"""Administration of players, on one server and on two that share a store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from streamer.service.access import authenticator
from streamer.service.inspection import nodes as nodes_module
from streamer.store.access.apps import Apps

OpenEvents = Callable[..., Awaitable[Any]]
AddKey = Callable[..., Awaitable[str]]
Until = Callable[[Callable[[], Any]], Awaitable[None]]
Start = Callable[..., Awaitable[Any]]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nodes on a busy machine answer late: all of them do answer here."""
    monkeypatch.setattr(nodes_module, "ANSWER_S", 2.5)


@pytest_asyncio.fixture(loop_scope="module")
async def admin(add_key: AddKey) -> dict[str, str]:
    """Return the headers of a key with both scopes."""
    return bearer(await add_key("admin:read", "admin:write"))


@pytest_asyncio.fixture(loop_scope="module")
async def backend(backend_key: str) -> dict[str, str]:
    return bearer(backend_key)


async def published(
    client: httpx2.AsyncClient, backend: dict[str, str], to: Any, **fields: Any
) -> str:
    response = await client.post(
        "/v1/notifications", json={"to": to, "title": "Hi", **fields}, headers=backend
    )
    assert response.status_code == 200, response.text
    return str(response.json()["results"][0]["id"])


async def get(client: httpx2.AsyncClient, path: str, headers: dict[str, str]) -> Any:
    response = await client.get(f"/v1/admin/{path}", headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


async def test_an_inspection_follows_a_notification_to_a_connection(
    client: httpx2.AsyncClient,
    server: Any,
    admin: dict[str, str],
    backend: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
) -> None:
    token = mint.bearer("ann")
    stream = await open_events("/v1/stream?device=phone", token)
    id_ = await published(client, backend, {"players": ["ann"]}, type="gift")
    await stream.until(lambda s: id_ in s.text)
    await client.post(
        "/v1/players/me/notifications/ack", json={"cursor": id_}, headers=token
    )
    await client.post(
        "/v1/players/me/notifications/read", json={"all": True}, headers=token
    )

    found = await get(client, "players/ann/inspection", admin)

    (connection,) = found["connections"]
    assert connection["node"] == server.app.admission.node
    assert (connection["transport"], connection["device"]) == ("sse", "phone")
    assert (connection["state"], connection["lag"]) == ("live", 0)
    assert connection["client"] == "127.0.0.1"
    assert found["online"] is True
    assert found["silent"] == []
    (trace,) = found["notifications"]
    assert (trace["id"], trace["type"], trace["state"]) == (id_, "gift", "read")
    (announced,) = trace["announced"]
    (written,) = trace["written"]
    assert written["connection"] == connection["id"]
    assert written["replayed"] is False
    times = trace["stored_at"], announced["at"], written["at"]
    assert list(times) == sorted(times)
    assert trace["acknowledged"] is True
    assert written["at"] <= trace["acknowledged_at"] <= trace["read_at"]


async def test_a_trace_tells_a_replay_from_a_live_delivery(
    client: httpx2.AsyncClient,
    admin: dict[str, str],
    backend: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
) -> None:
    token = mint.bearer("ann")
    id_ = await published(client, backend, {"players": ["ann"]})
    before = await get(client, f"players/ann/notifications/{id_}/trace", admin)
    stream = await open_events("/v1/stream?cursor=earliest", token)
    await stream.until(lambda s: id_ in s.text)

    after = await get(client, f"players/ann/notifications/{id_}/trace", admin)

    assert before["trace"]["announced"] == before["trace"]["written"] == []
    (written,) = after["trace"]["written"]
    assert written["replayed"] is True
    assert written["at"] >= after["trace"]["stored_at"]


async def test_a_connection_that_came_later_is_not_said_to_have_got_it(
    client: httpx2.AsyncClient,
    admin: dict[str, str],
    backend: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
) -> None:
    token = mint.bearer("ann")
    first = await open_events("/v1/stream", token)
    id_ = await published(client, backend, {"players": ["ann"]})
    await first.until(lambda s: id_ in s.text)
    await open_events("/v1/stream", token)

    found = await get(client, "players/ann/inspection", admin)

    oldest, newest = (it["id"] for it in found["connections"])
    (trace,) = found["notifications"]
    assert [it["connection"] for it in trace["written"]] == [oldest] != [newest]


async def test_a_notification_to_a_topic_is_traced_to_each_member_alone(
    client: httpx2.AsyncClient,
    admin: dict[str, str],
    backend: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
) -> None:
    streams = []
    for player in ("ann", "bob"):
        path = f"/v1/players/{player}/topics/news"
        assert (await client.put(path, headers=backend)).status_code == 204
        streams.append(await open_events("/v1/stream", mint.bearer(player)))
    id_ = await published(client, backend, {"topic": "news"})
    for stream in streams:
        await stream.until(lambda s: id_ in s.text)

    for player in ("ann", "bob"):
        found = await get(client, f"players/{player}/inspection", admin)

        (connection,) = found["connections"]
        (trace,) = found["notifications"]
        assert (trace["id"], trace["topic"]) == (id_, "news")
        assert [it["connection"] for it in trace["written"]] == [connection["id"]]
        path = f"players/{player}/notifications/{id_}/trace"
        traced = (await get(client, path, admin))["trace"]
        assert traced["written"] == trace["written"]


async def test_a_notification_for_one_device_was_not_written_to_another(
    client: httpx2.AsyncClient,
    admin: dict[str, str],
    backend: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
) -> None:
    token = mint.bearer("ann")
    await open_events("/v1/stream?device=tablet", token)
    phone = await open_events("/v1/stream?device=phone", token)
    id_ = await published(client, backend, {"players": ["ann"]}, device="latest")
    await phone.until(lambda s: id_ in s.text)

    found = await get(client, "players/ann/inspection", admin)

    devices = {it["id"]: it["device"] for it in found["connections"]}
    (trace,) = found["notifications"]
    assert [devices[it["connection"]] for it in trace["written"]] == ["phone"]


async def test_a_waiting_poll_is_listed_and_ended_by_a_disconnect(
    client: httpx2.AsyncClient,
    server: Any,
    admin: dict[str, str],
    mint: Any,
    until: Until,
) -> None:
    path = "/notification/v1/player/me/stream/notification/lp?deadline=60"
    poll = asyncio.create_task(client.get(path, headers=mint.bearer("ann")))
    await until(lambda: server.readers("ann"))

    (connection,) = (await get(client, "players/ann/connections", admin))["connections"]
    ended = await client.post("/v1/admin/players/ann/disconnect", headers=admin)

    assert (connection["transport"], connection["state"]) == ("longpoll", "waiting")
    assert ended.json()["disconnected"] == [connection["id"]]
    assert (await poll).status_code == 200


async def test_a_withdrawn_notification_is_traced(
    client: httpx2.AsyncClient,
    admin: dict[str, str],
    backend: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
) -> None:
    stream = await open_events("/v1/stream", mint.bearer("ann"))
    id_ = await published(client, backend, {"players": ["ann"]})
    await stream.until(lambda s: id_ in s.text)
    await client.delete(f"/v1/players/ann/notifications/{id_}", headers=backend)

    found = await get(client, f"players/ann/notifications/{id_}/trace", admin)

    assert found["trace"]["state"] == "withdrawn"
    assert len(found["trace"]["written"]) == 1


async def test_a_refusal_is_remembered_with_its_reason(
    client: httpx2.AsyncClient, admin: dict[str, str], mint: Any
) -> None:
    expired = mint.bearer("ann", ttl_s=60, at_s=1_700_000_000)
    token = mint.bearer("ann", "notification:player:self:write")
    page = "/v1/players/me/notifications"
    assert (await client.get(page, headers=expired)).status_code == 401
    assert (await client.get(page, headers=token)).status_code == 403

    found = await get(client, "players/ann/inspection", admin)

    reasons = [(it["refusal"], it["reason"]) for it in found["refused"]]
    assert reasons[:2] == [
        ("forbidden", "permission notification:player:self:read"),
        ("unauthenticated", "expired"),
    ]


async def test_a_forged_token_leaves_no_trace_with_the_player(
    client: httpx2.AsyncClient, admin: dict[str, str], mint: Any
) -> None:
    head, claims, signature = mint("ann").split(".")
    forged = bearer(f"{head}.{claims}.{signature[::-1]}")
    page = "/v1/players/me/notifications"
    assert (await client.get(page, headers=forged)).status_code == 401

    found = await get(client, "players/ann/inspection", admin)

    assert found["refused"] == []


async def test_a_closed_connection_is_remembered_with_code_and_reason(
    client: httpx2.AsyncClient,
    admin: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
    server: Any,
    until: Until,
) -> None:
    stream = await open_events("/v1/stream", mint.bearer("ann"))
    other = await open_events("/v1/stream", mint.bearer("ann"))
    (first, _) = (await get(client, "players/ann/connections", admin))["connections"]

    response = await client.post(
        "/v1/admin/players/ann/disconnect",
        json={"connection": first["id"], "reconnect": False},
        headers=admin,
    )
    assert response.json() == {"disconnected": [first["id"]], "silent": []}
    await stream.until(lambda s: "4204" in s.text)
    assert stream.data[-1]["reconnect"] is False
    await other.close()
    await until(lambda: server.readers("ann") == 0)

    found = await get(client, "players/ann/inspection", admin)

    closed = {it["id"]: it for it in found["closed"]}
    assert closed[first["id"]]["code"] == 4204
    assert closed[first["id"]]["reason"] == "stopped by operator"
    (left,) = (it for it in found["closed"] if it["id"] != first["id"])
    assert ("code" in left, left["reason"]) == (False, "left")
    assert found["connections"] == []


async def test_all_connections_of_a_player_are_closed_and_may_return(
    client: httpx2.AsyncClient,
    admin: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    anns = [await open_events("/v1/stream", mint.bearer("ann")) for _ in range(2)]
    bobs = await open_events("/v1/stream", mint.bearer("bob"))

    response = await client.post(
        "/v1/admin/players/ann/disconnect",
        json={"reason": "a stuck\nclient"},
        headers=admin,
    )

    assert len(response.json()["disconnected"]) == 2
    (line,) = (
        vars(record)["fields"]
        for record in caplog.records
        if record.msg == "an operator closed connections"
    )
    assert (line["app"], line["connections"]) == (mint.name(), 2)
    assert (line["reason"], "ann" in line["player"]) == ("a stuck\nclient", False)
    for stream in anns:
        await stream.until(lambda s: "4106" in s.text)
        assert stream.data[-1]["reconnect"] is True
    found = await get(client, "players/bob/connections", admin)
    assert len(found["connections"]) == 1
    assert "4106" not in bobs.text


async def test_nodes_can_be_made_to_forget_a_player(
    client: httpx2.AsyncClient, server: Any, admin: dict[str, str], mint: Any
) -> None:
    for player in ("ann", "bob"):
        token = mint.bearer(player, "notification:player:self:write")
        page = await client.get("/v1/players/me/notifications", headers=token)
        assert page.status_code == 403

    await nodes_module.forget_player(server.redis, server.log("ann"))

    anns = await get(client, "players/ann/inspection", admin)
    bobs = await get(client, "players/bob/inspection", admin)
    assert (len(anns["refused"]), len(bobs["refused"])) == (0, 1)


async def test_presence_tells_who_is_online_and_when_the_others_were(
    client: httpx2.AsyncClient,
    admin: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
    server: Any,
    until: Until,
) -> None:
    await open_events("/v1/stream", mint.bearer("ann"))
    gone = await open_events("/v1/stream", mint.bearer("bob"))
    await gone.close()

    async def is_released() -> bool:
        return bool(await server.leases("bob") == 0)

    await until(is_released)
    response = await client.post(
        "/v1/admin/presence",
        json={"players": ["ann", "bob", "eve"]},
        headers=admin,
    )

    ann, bob, eve = response.json()["presence"]
    assert ann == {"player": "ann", "online": True, "connections": 1}
    assert (bob["online"], bob["connections"]) == (False, 0)
    assert bob["last_seen_at"]
    assert eve == {"player": "eve", "online": False, "connections": 0}


async def test_those_online_are_listed_in_pages(
    client: httpx2.AsyncClient,
    admin: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
) -> None:
    for player in ("a", "b/c", "d", "a"):
        await open_events("/v1/stream", mint.bearer(player))
    await open_events("/v1/stream", mint.bearer("theirs", app="other"))

    first = await get(client, "presence?limit=2", admin)
    last = await get(client, f"presence?limit=2&after={first['next']}", admin)

    assert first["online"] == [
        {"player": "a", "connections": 2},
        {"player": "b/c", "connections": 1},
    ]
    assert last["online"] == [{"player": "d", "connections": 1}]
    assert last["next"] is None
    assert (first["players_total"], first["connections_total"]) == (3, 4)


async def test_nodes_count_the_connections_of_the_callers_app_alone(
    client: httpx2.AsyncClient,
    admin: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
    server: Any,
) -> None:
    await open_events("/v1/stream", mint.bearer("ann"))
    await open_events("/v1/stream", mint.bearer("theirs", app="other"))

    found = await get(client, "nodes", admin)

    (node,) = found["nodes"]
    assert node["node"] == server.app.admission.node
    assert node["connections"] == {"sse": 1}
    assert node["draining"] is False


OPERATIONS = [
    ("GET", "nodes", "admin:read"),
    ("GET", "presence", "admin:read"),
    ("POST", "presence", "admin:read"),
    ("GET", "players/ann/connections", "admin:read"),
    ("GET", "players/ann/inspection", "admin:read"),
    ("GET", "players/ann/notifications/none/trace", "admin:read"),
    ("POST", "players/ann/disconnect", "admin:write"),
]


@pytest.mark.parametrize(("method", "path", "scope"), OPERATIONS)
async def test_an_operation_needs_its_scope(
    client: httpx2.AsyncClient,
    add_key: AddKey,
    backend: dict[str, str],
    mint: Any,
    method: str,
    path: str,
    scope: str,
) -> None:
    (other,) = {"admin:read", "admin:write"} - {scope}
    credentials = [backend, bearer(await add_key(other))]
    credentials.append(mint.bearer("ann", "notification:player:*"))
    for headers in credentials:
        response = await client.request(
            method,
            f"/v1/admin/{path}",
            headers=headers,
            json={"players": ["ann"]} if path == "presence" else None,
        )

        assert response.status_code == 403, headers
        assert scope in response.json()["detail"]


async def test_a_key_with_the_scope_admin_has_both(
    client: httpx2.AsyncClient, add_key: AddKey
) -> None:
    headers = bearer(await add_key("admin"))
    response = await client.post("/v1/admin/players/ann/disconnect", headers=headers)

    assert response.status_code == 200
    await get(client, "nodes", headers)


async def test_a_revoked_key_is_refused(
    client: httpx2.AsyncClient,
    redis: Any,
    add_key: AddKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(authenticator, "RECORD_TTL_S", 0)
    key = await add_key("admin")
    await get(client, "nodes", bearer(key))
    record = await Apps(redis).find_key(key.encode())
    assert record is not None
    await Apps(redis).revoke_key(record.id)

    response = await client.get("/v1/admin/nodes", headers=bearer(key))

    assert response.status_code == 401


async def test_a_player_of_another_app_is_another_player(
    client: httpx2.AsyncClient,
    add_key: AddKey,
    backend: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
) -> None:
    stream = await open_events("/v1/stream", mint.bearer("ann"))
    id_ = await published(client, backend, {"players": ["ann"]})
    await stream.until(lambda s: id_ in s.text)
    theirs = bearer(await add_key("admin", app="other"))

    found = await get(client, "players/ann/inspection", theirs)
    trace = f"/v1/admin/players/ann/notifications/{id_}/trace"
    traced = await client.get(trace, headers=theirs)
    ended = await client.post("/v1/admin/players/ann/disconnect", headers=theirs)
    (connection,) = (await get(client, "players/ann/connections", theirs))[
        "connections"
    ] or [None]

    assert found["online"] is False
    assert found["connections"] == found["notifications"] == found["closed"] == []
    assert traced.status_code == 404
    assert ended.json() == {"disconnected": [], "silent": []}
    assert connection is None
    assert "4106" not in stream.text


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"players": []}, "/players"),
        ({"players": ["a\u202e"]}, "/players/0"),
        ({"players": ["ann"], "app": "other"}, "/app"),
    ],
)
async def test_a_wrong_body_says_what_is_wrong(
    client: httpx2.AsyncClient, admin: dict[str, str], body: Any, pointer: str
) -> None:
    response = await client.post("/v1/admin/presence", json=body, headers=admin)

    assert response.status_code == 422
    assert [it["pointer"] for it in response.json()["errors"]] == [pointer]


async def test_questions_at_once_get_their_own_answers(
    client: httpx2.AsyncClient,
    admin: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
) -> None:
    players = [f"p{n}" for n in range(5)]
    for player in players:
        await open_events(f"/v1/stream?device={player}", mint.bearer(player))

    found = await asyncio.gather(
        *(get(client, f"players/{it}/connections", admin) for it in players)
    )

    assert [it["connections"][0]["device"] for it in found] == players


async def test_nodes_of_one_store_answer_as_one(
    client: httpx2.AsyncClient,
    start: Start,
    admin: dict[str, str],
    backend: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
) -> None:
    other = await start()
    here = await open_events("/v1/stream", mint.bearer("ann"))
    there = await open_events("/v1/stream", mint.bearer("ann"), at=other)
    id_ = await published(client, backend, {"players": ["ann"]})
    for stream in (here, there):
        await stream.until(lambda s: id_ in s.text)

    (trace,) = (await get(client, "players/ann/inspection", admin))["notifications"]
    online = await get(client, "presence", admin)
    ended = await client.post("/v1/admin/players/ann/disconnect", headers=admin)

    assert len(trace["announced"]) == len(trace["written"]) == 2
    assert len({it["node"] for it in trace["written"]}) == 2
    assert online["online"] == [{"player": "ann", "connections": 2}]
    assert len(ended.json()["disconnected"]) == 2


async def test_a_node_that_hangs_is_named_and_delays_nobody_else(
    client: httpx2.AsyncClient,
    server: Any,
    start: Start,
    redis: Any,
    admin: dict[str, str],
    mint: Any,
    open_events: OpenEvents,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = await start()
    await open_events("/v1/stream", mint.bearer("ann"))
    theirs = await open_events("/v1/stream", mint.bearer("ann"), at=other)
    both = {server.app.admission.node, other.app.admission.node}
    found = await get(client, "players/ann/connections", admin)
    assert {it["node"] for it in found["connections"]} == both

    # What a node that hangs does with a question.
    monkeypatch.setattr(nodes_module, "ANSWER_S", 1.0)
    monkeypatch.setattr(
        other.app._components.nodes, "on_question", lambda *question: None
    )
    found = await get(client, "players/ann/inspection", admin)

    assert [it["node"] for it in found["connections"]] == [server.app.admission.node]
    # So may be the nodes of other tests, until their heartbeats are too old.
    assert other.app.admission.node in found["silent"]
    assert theirs.data


async def test_a_disconnect_is_in_the_audit_log(
    client: httpx2.AsyncClient, add_key: AddKey
) -> None:
    headers = bearer(await add_key("admin"))
    await client.post(
        "/v1/admin/players/ann/disconnect",
        json={"reconnect": False, "reason": "stuck"},
        headers=headers,
    )

    (entry,) = (await client.get("/v1/audit", headers=headers)).json()["entries"]

    assert (entry["action"], entry["reason"]) == ("player.disconnect", "stuck")
    assert entry["details"] == {"connections": 0, "reconnect": False}
    assert entry["player"] and entry["by"].startswith("key ")
