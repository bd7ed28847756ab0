"""The page of the demo and its operations over HTTP."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import pytest_asyncio

from streamer.service.access.demo_sessions import DEMO_APP
from streamer.store.access.apps import AppExists, Apps
from streamer.store.client.connection import RedisConnection

from ..conftest import Server, Start


@pytest_asyncio.fixture(loop_scope="module")
async def demo(start: Start, redis: RedisConnection) -> Server:
    try:
        await Apps(redis).create(DEMO_APP)
    except AppExists:
        pass  # By an earlier test: they share the store.
    return await start(demo_page=True)


async def opened(server: Server, **body: Any) -> Any:
    answer = await server.client.post("/demo/session", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/demo"),
        ("GET", "/demo/page.js"),
        ("POST", "/demo/session"),
        ("POST", "/demo/publish"),
    ],
)
async def test_it_does_not_exist_unless_it_is_wanted(
    server: Server, method: str, path: str
) -> None:
    answer = await server.client.request(method, path, json={})

    assert answer.status_code == 404


async def test_the_root_leads_to_it(demo: Server, server: Server) -> None:
    with_demo = (await demo.client.get("/")).text
    without = (await server.client.get("/")).text

    assert '<a href="demo">' in with_demo
    assert '<a href="demo">' not in without


async def test_the_page_loads_files_of_this_server_only(demo: Server) -> None:
    page = await demo.client.get("/demo")

    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "style=" not in page.text and "onclick" not in page.text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    loaded = [it for it in sources if it.startswith("demo/")]
    assert loaded == ["demo/page.css", "demo/page.js"]
    for source in loaded:
        assert (await demo.client.get(f"/{source}")).status_code == 200, source


async def test_the_script_loads_the_version_of_the_client_that_is_served(
    demo: Server,
) -> None:
    script = (await demo.client.get("/demo/page.js")).text

    imported = re.findall(r'"\.\./(client/[^"]+)"', script)
    assert len(imported) == 2
    for path in imported:
        module = await demo.client.get(f"/{path}")
        assert module.status_code == 200
        assert "immutable" in module.headers["cache-control"]


async def test_what_is_published_is_in_the_inbox_of_the_player(demo: Server) -> None:
    session = await opened(demo)
    message = {"session": session["session"], "to": "alice", "title": "Hello"}
    published = await demo.client.post("/demo/publish", json=message)

    headers = {"Authorization": f"Bearer {session['players'][0]['token']}"}
    page = await demo.client.get("/v1/players/me/notifications", headers=headers)
    (notification,) = page.json()["notifications"]
    assert notification["id"] == published.json()["id"]
    assert notification["title"] == "Hello"
    assert "expires_at" in notification


async def test_who_joins_the_topic_gets_what_is_sent_there(demo: Server) -> None:
    session = await opened(demo)
    headers = {"Authorization": f"Bearer {session['players'][1]['token']}"}
    joined = await demo.client.put(
        f"/v1/players/me/topics/{session['topic']}", headers=headers
    )
    assert joined.status_code == 204
    message = {"session": session["session"], "to": "topic", "title": "To all"}
    await demo.client.post("/demo/publish", json=message)

    page = await demo.client.get("/v1/players/me/notifications", headers=headers)
    assert [it["title"] for it in page.json()["notifications"]] == ["To all"]


async def test_the_token_of_a_player_cannot_publish(demo: Server) -> None:
    session = await opened(demo)
    player = session["players"][0]

    answer = await demo.client.post(
        "/v1/notifications",
        headers={"Authorization": f"Bearer {player['token']}"},
        json={"to": {"players": [player["player"]]}, "title": "no"},
    )

    assert answer.status_code == 403


async def test_a_session_is_continued_by_its_name(demo: Server) -> None:
    first = await opened(demo)
    again = await opened(demo, session=first["session"])

    names = [it["player"] for it in first["players"]]
    assert [it["player"] for it in again["players"]] == names


@pytest.mark.parametrize(
    "change",
    [
        {"session": "alice"},
        {"session": "0" * 25},
        {"to": "everyone"},
        {"title": ""},
        {"title": "x" * 201},
        {"body": "x" * 501},
        {"priority": "urgent"},
        {"more": 1},
    ],
    ids=json.dumps,
)
async def test_what_it_publishes_is_bounded(
    demo: Server, change: dict[str, Any]
) -> None:
    message = {"session": "0" * 24, "to": "bob", "title": "Hello", **change}
    answer = await demo.client.post("/demo/publish", json=message)

    assert answer.status_code == 422


async def test_a_large_body_is_refused(demo: Server) -> None:
    answer = await demo.client.post(
        "/demo/session",
        content=b" " * 9_000,
        headers={"Content-Type": "application/json"},
    )

    assert answer.status_code == 413


async def test_a_session_that_was_not_opened_is_unknown(demo: Server) -> None:
    message = {"session": "0" * 24, "to": "bob", "title": "Hello"}
    answer = await demo.client.post("/demo/publish", json=message)

    assert answer.status_code == 404


async def test_too_many_calls_are_told_to_wait(demo: Server) -> None:
    for _ in range(1_000):
        answer = await demo.client.post("/demo/session", json={})
        if answer.status_code != 200:
            break

    assert answer.status_code == 429
    assert answer.json()["type"] == "about:limit-reached"
    assert int(answer.headers["retry-after"]) >= 1
