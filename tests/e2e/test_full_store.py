"""
A full store, row by row: what is refused, what goes on, and how space is freed.

The table in docs/operations.md has the same rows. The store of `full` has a limit of
32 MiB, and a key that no log uses takes more than that.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx2
import pytest

from .processes import DURABLE, ServerProcess, StoreProcess, eventually
from .readers import TRANSPORTS, Api

MIB = 1_048_576
LIMIT = "32MiB"
BALLAST = "ballast"
LATER = (datetime.now(UTC) + timedelta(days=1)).isoformat()
LATEST = (datetime.now(UTC) + timedelta(days=2)).isoformat()


class World(NamedTuple):
    """A full store behind a server, and what was stored before it was full."""

    server: ServerProcess
    key: str
    token: str
    names: dict[str, str]
    """Values for the paths and bodies of rows."""


async def fill(server: ServerProcess) -> None:
    """Take more memory than the limit allows, past the server."""
    await server.ask_store("SETRANGE", BALLAST, 40 * MIB, "x")


async def post_once(
    backend: Api, name: str, path: str, body: dict[str, Any]
) -> httpx2.Response:
    headers = {"Idempotency-Key": name}
    if path.startswith("/v2/"):
        secret = backend.http.headers["authorization"].removeprefix("Bearer ")
        body = {"game_id": "demo", "secret_key": secret, **body}
    return await backend.http.post(path, json=body, headers=headers)


async def prepare(server: ServerProcess) -> World:
    key, token = await server.key(), await server.token("ann")
    names: dict[str, str] = {}
    async with Api(server.port, key) as backend:
        for topic in ("news", "left", "hushed"):
            joined = await backend.http.put(f"/v1/players/ann/topics/{topic}")
            assert joined.status_code < 300
        for n in range(6):
            (names[f"own{n}"],) = await backend.published("ann", title=f"own {n}")
        topical = {"to": {"topic": "news"}, "title": "topical"}
        for n in range(2):
            sent = await backend.http.post("/v1/notifications", json=topical)
            names[f"topical{n}"] = sent.json()["results"][0]["id"]
        for name in ("moved", "cancelled"):
            scheduled = await backend.http.post(
                "/v1/notifications",
                json={"to": {"players": ["ann"]}, "title": "later", "send_at": LATER},
            )
            assert scheduled.status_code == 202, scheduled.text
            names[name] = re.findall(r'"(?:schedule_)?id": ?"([^"]+)"', scheduled.text)[
                0
            ]
        for name, (path, body) in REPEATED.items():
            first = await post_once(backend, name, path, body)
            assert first.status_code < 300, first.text
            names[f"answer of {name}"] = first.text
        page = await backend.http.get("/v1/players/ann/notifications")
        names["cursor"] = page.json()["cursor"]
    return World(server, key, token, names)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    server = ServerProcess(tmp_path_factory.mktemp("full"), store_memory=LIMIT)

    async def start() -> World:
        await server.start()
        world = await prepare(server)
        await fill(server)
        return world

    try:
        yield asyncio.run(start())
    finally:
        server.discard()


OWN = "/v1/players/ann/notifications"

NOTIFICATIONS = "/v1/notifications"
REPEATED: dict[str, tuple[str, dict[str, Any]]] = {
    "publish": (NOTIFICATIONS, {"to": {"players": ["ann", "ben"]}, "title": "t"}),
    "publish to a topic": (NOTIFICATIONS, {"to": {"topic": "news"}, "title": "t"}),
    "publish what expires": (
        NOTIFICATIONS,
        {"to": {"players": ["ann"]}, "title": "t", "ttl_s": 600, "collapse_key": "r"},
    ),
    "schedule": (
        NOTIFICATIONS,
        {"to": {"players": ["ann"]}, "title": "t", "send_at": LATER},
    ),
    "schedule for several": (
        NOTIFICATIONS,
        {"to": {"players": ["ann", "ben"]}, "title": "t", "send_at": LATER},
    ),
    "schedule by Teak": (
        "/v2/schedule",
        {
            "notification_identifier": "daily",
            "notification_message": "come back",
            "user_ids": ["ann", "ben"],
            "send_time": f"{datetime.now(UTC) + timedelta(hours=5):%Y-%m-%d %H:%M:%S}",
        },
    ),
}
"""Requests that were answered before the store was full."""

REFUSED: dict[str, tuple[str, str, Any]] = {
    "publish": (
        "POST",
        "/v1/notifications",
        {"to": {"players": ["ann"]}, "title": "t"},
    ),
    "publish to a new player": (
        "POST",
        "/v1/notifications",
        {"to": {"players": ["new"]}, "title": "t"},
    ),
    "publish to a topic": (
        "POST",
        "/v1/notifications",
        {"to": {"topic": "news"}, "title": "t"},
    ),
    "publish to everyone": (
        "POST",
        "/v1/notifications",
        {"to": {"everyone": True}, "title": "t"},
    ),
    "publish what expires": (
        "POST",
        "/v1/notifications",
        {"to": {"players": ["ann"]}, "title": "t", "ttl_s": 60, "collapse_key": "c"},
    ),
    "schedule": (
        "POST",
        "/v1/notifications",
        {"to": {"players": ["ann"]}, "title": "t", "send_at": LATER},
    ),
    "schedule for several": (
        "POST",
        "/v1/notifications",
        {"to": {"players": ["ann", "ben"]}, "title": "t", "send_at": LATER},
    ),
    "join": ("PUT", "/v1/players/ann/topics/other", None),
}

ACCEPTED: dict[str, tuple[str, str, Any]] = {
    "page": ("GET", OWN, None),
    "page of a new player": ("GET", "/v1/players/nobody/notifications", None),
    "one notification": ("GET", OWN + "/{own0}", None),
    "unread counts": ("POST", "/v1/unread", {"players": ["ann", "ben"]}),
    "receipt": ("GET", OWN + "/{own0}/receipt", None),
    "mark": ("POST", OWN + "/read", {"ids": ["{own1}", "{topical0}"]}),
    "mark up to": ("POST", OWN + "/read", {"up_to": "{cursor}"}),
    "mark as unread": ("POST", OWN + "/unread", {"ids": ["{own1}"]}),
    "mark all": ("POST", OWN + "/read", {"all": True}),
    "acknowledge": ("POST", OWN + "/ack", {"cursor": "{cursor}"}),
    "delete": ("DELETE", OWN + "/{own2}", None),
    "delete what a topic has": ("DELETE", OWN + "/{topical1}", None),
    "withdraw": ("DELETE", "/v1/topics/news/notifications/{topical0}", None),
    "leave": ("DELETE", "/v1/players/ann/topics/left", None),
    "mute a topic": ("PUT", "/v1/players/ann/mutes/topics/hushed", None),
    "mute a type": ("PUT", "/v1/players/ann/mutes/types/noise", None),
    "unmute a type": ("DELETE", "/v1/players/ann/mutes/types/noise", None),
    "schedules": ("GET", "/v1/schedules", None),
    "move a schedule": ("PATCH", "/v1/schedules/{moved}", {"send_at": LATEST}),
    "cancel a schedule": ("DELETE", "/v1/schedules/{cancelled}", None),
    "send live only": (
        "POST",
        "/v1/notifications",
        {"to": {"players": ["ann"]}, "title": "t", "persist": False},
    ),
    "mint a token": ("POST", "/v1/tokens", {"player": "ann"}),
    "ready": ("GET", "/readyz", None),
}


async def ask(world: World, row: tuple[str, str, Any]) -> httpx2.Response:
    method, path, body = row
    text = json.dumps(body)
    for name, value in world.names.items():
        path = path.replace(f"{{{name}}}", value)
        text = text.replace(f"{{{name}}}", value)
    async with Api(world.server.port, world.key) as backend:
        return await backend.http.request(
            method, path, **({"json": json.loads(text)} if body is not None else {})
        )


@pytest.mark.row("F13")
@pytest.mark.parametrize("name", REFUSED)
async def test_a_full_store_refuses_what_takes_memory(full: World, name: str) -> None:
    answer = await ask(full, REFUSED[name])

    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) == 30
    problem = answer.json()
    assert problem["type"] == "about:store-full"
    assert problem["detail"] == "the store is full; nothing was stored"


@pytest.mark.row("F13")
@pytest.mark.parametrize("name", ACCEPTED)
async def test_a_full_store_accepts_the_rest(full: World, name: str) -> None:
    answer = await ask(full, ACCEPTED[name])

    assert answer.status_code in (200, 201, 202, 204), answer.text


@pytest.mark.row("F13")
@pytest.mark.parametrize("name", REPEATED)
async def test_a_full_store_answers_a_repetition_as_the_first_time(
    full: World, name: str
) -> None:
    path, body = REPEATED[name]
    changed = {**body, "notification_message" if "v2" in path else "title": "other"}
    async with Api(full.server.port, full.key) as backend:
        answer = await post_once(backend, name, path, body)
        other = await post_once(backend, name, path, changed)
        fresh = await post_once(backend, f"{name} again", path, body)

    assert answer.status_code < 300, answer.text
    assert answer.headers["idempotent-replayed"] == "true"
    assert answer.text == full.names[f"answer of {name}"]
    assert fresh.status_code == 503
    assert other.status_code in (409, 422), other.text


@pytest.mark.row("F13")
async def test_a_full_store_answers_a_repeated_join(full: World) -> None:
    answer = await ask(full, ("PUT", "/v1/players/ann/topics/news", None))

    assert answer.status_code < 300, answer.text


@pytest.mark.row("F13")
async def test_a_full_store_cancels_by_teak(full: World) -> None:
    async with Api(full.server.port, full.key) as backend:
        identifier = {"notification_identifier": "daily", "user_ids": ["ann"]}
        answer = await post_once(backend, "none", "/v2/unschedule", identifier)

    assert answer.status_code == 200, answer.text


@pytest.mark.row("F13")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_full_store_serves_streams(full: World, transport: str) -> None:
    stream = await TRANSPORTS[transport].open(
        full.server.port, full.token, cursor="earliest"
    )
    try:
        assert (await stream.until("notification")).id == full.names["own0"]
    finally:
        stream.cut()


@pytest.mark.row("F13")
async def test_a_full_store_serves_a_player_that_was_never_seen(full: World) -> None:
    token = await full.server.token("newcomer")
    stream = await TRANSPORTS["sse"].open(full.server.port, token)
    try:
        assert (await stream.until("hello")).data["unread"] == 0
    finally:
        stream.cut()


@pytest.mark.row("F13")
async def test_a_full_store_issues_tickets_and_opens_their_streams(full: World) -> None:
    async with Api(full.server.port, full.token) as mine:
        issued = await mine.http.post("/v1/tickets", json={})
    assert issued.status_code < 300, issued.text
    ticket = issued.json()["ticket"]

    stream = await TRANSPORTS["sse"].open(full.server.port, None, ticket=ticket)
    try:
        assert (await stream.until("hello")).cursor
    finally:
        stream.cut()


@pytest.mark.row("F13")
async def test_a_full_store_revokes_tokens_and_keys(full: World) -> None:
    server = full.server
    token = await server.token("mallory")
    key = await server.key(app="other")
    options = ("--data-dir", str(server.data_dir))

    revoked = server.run(
        "token", "revoke", "--app", "demo", "--player", "mallory", *options
    )
    listed = server.run("key", "list", "--app", "other", *options)
    ended = server.run(
        "key", "revoke", listed.stdout.splitlines()[1].split()[0], *options
    )

    assert revoked.returncode == 0, revoked.stderr
    assert ended.returncode == 0, ended.stderr

    async def refused(credential: str, player: str) -> bool:
        async with Api(server.port, credential) as api:
            answer = await api.http.get(f"/v1/players/{player}/notifications")
            return answer.status_code == 401

    await eventually(lambda: refused(token, "me"))
    await eventually(lambda: refused(key, "ann"))


@pytest.mark.row("F13")
async def test_a_full_store_is_reported(full: World) -> None:
    await ask(full, REFUSED["publish"])
    await eventually(lambda: "the store is full" in full.server.logged)

    ready = await ask(full, ACCEPTED["ready"])
    found = full.server.run("doctor", "--data-dir", str(full.server.data_dir))

    assert ready.json()["memory"] == "full"
    assert full.server.logged.count("the store is full and refuses") == 1
    assert found.returncode == 1
    assert "the store is full: 4" in found.stdout


# How space is freed. Each has a store of its own.


@pytest.fixture
async def own(make_server: Callable[..., ServerProcess]) -> AsyncIterator[World]:
    server = await make_server(store_memory=LIMIT, metrics_token="m" * 16).start()
    yield await prepare(server)


async def publishes(world: World) -> int:
    return (await ask(world, REFUSED["publish"])).status_code


async def metric(world: World, name: str) -> str:
    async with Api(world.server.port, "m" * 16) as scraper:
        text = (await scraper.http.get("/metrics")).text
    return str(re.findall(rf"^{name}(?:\{{\}})? (\S+)$", text, re.MULTILINE)[0])


@pytest.mark.row("F13")
async def test_a_server_restarts_on_a_full_store(own: World) -> None:
    await fill(own.server)

    await own.server.kill()
    await own.server.start()

    assert await publishes(own) == 503
    page = await ask(own, ACCEPTED["page"])
    assert len(page.json()["notifications"]) == 11


@pytest.mark.row("F13")
async def test_freed_memory_ends_the_refusals_and_is_logged(own: World) -> None:
    await fill(own.server)
    assert await publishes(own) == 503
    await eventually(lambda: "the store is full and refuses" in own.server.logged)
    assert await metric(own, "streamer_store_full") == "1"

    await own.server.ask_store("DEL", BALLAST)

    assert await publishes(own) == 200
    await eventually(lambda: "the store is no longer full" in own.server.logged)
    assert await metric(own, "streamer_store_full") == "0"
    assert await metric(own, "streamer_store_memory_max_bytes") == str(32 * MIB)


@pytest.mark.row("F13")
async def test_a_higher_limit_ends_the_refusals(
    own: World, make_server: Callable[..., ServerProcess]
) -> None:
    await fill(own.server)
    assert await publishes(own) == 503
    await own.server.stop()

    own.server._settings["store_memory"] = "256MiB"
    await own.server.start()

    assert await publishes(own) == 200


async def fill_with_notifications(world: World) -> None:
    """Publish until the store refuses it."""
    async with Api(world.server.port, world.key) as backend:
        for _ in range(200):
            answer = await backend.publish(
                *(f"p{n}" for n in range(16)), data="x" * 60_000
            )
            if answer.status_code == 503:
                return
    raise AssertionError("the store is not full")


@pytest.mark.row("F13")
async def test_trim_frees_the_memory_of_old_notifications(own: World) -> None:
    await fill_with_notifications(own)

    trimmed = own.server.run(
        "trim", "--older-than", "0s", "--data-dir", str(own.server.data_dir)
    )

    assert trimmed.returncode == 0, trimmed.stderr
    assert re.match(r"removed \d{3,} notifications from \d+ inboxes; ", trimmed.stdout)
    assert await publishes(own) == 200
    page = await ask(own, ACCEPTED["page"])
    assert [one["title"] for one in page.json()["notifications"]] == ["t"]


@pytest.mark.row("F13")
async def test_a_schedule_that_is_due_waits_for_space(own: World) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    body = {"to": {"players": ["zoe"]}, "title": "due", "send_at": soon}
    assert (await ask(own, ("POST", "/v1/notifications", body))).status_code == 202
    await fill(own.server)
    page = ("GET", "/v1/players/zoe/notifications", None)

    async def errors() -> bool:
        value = await metric(
            own, r'streamer_store_errors_total\{connection="commands",kind="full"\}'
        )
        return float(value) > 0

    await eventually(errors)
    assert (await ask(own, page)).json()["notifications"] == []

    await own.server.ask_store("DEL", BALLAST)

    async def fired() -> bool:
        return bool((await ask(own, page)).json()["notifications"])

    await eventually(fired)


@pytest.mark.row("F13")
async def test_an_external_store_with_a_limit_is_full_in_the_same_way(
    make_server: Callable[..., ServerProcess], make_store: Callable[..., StoreProcess]
) -> None:
    store = await make_store(*DURABLE, "--maxmemory", str(32 * MIB)).start()
    server = await make_server(redis=store.url, metrics_token="m" * 16).start()
    world = await prepare(server)
    await fill(server)

    assert await publishes(world) == 503
    assert (await ask(world, ACCEPTED["mark all"])).status_code == 200
    await eventually(lambda: "the store is full and refuses" in server.logged)
    assert (await ask(world, ACCEPTED["ready"])).json()["memory"] == "full"
