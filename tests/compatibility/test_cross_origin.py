"""A page of another origin in a real browser: what it may do, and what not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..e2e.browser import CHROMIUM, Browser
from ..e2e.processes import ServerProcess
from ..e2e.readers import Api

PAGE = Path(__file__).parent / "cross_origin.html"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="neither chromium nor google-chrome is installed"
)


async def server_and_ticket(server: ServerProcess) -> dict[str, Any]:
    async with Api(server.port, await server.token("p")) as player:
        ticket = (await player.http.post("/v1/tickets")).json()["ticket"]
    return {"port": server.port, "ticket": ticket}


@pytest.mark.stack(
    "Chromium",
    "a page of another origin: fetch, EventSource, WebSocket",
    setting="`allowed_origins`; without it, WebSocket with the token in its first "
    "message",
)
async def test_a_page_of_another_origin_may_what_the_server_allows(
    tmp_path: Path, make_server: Callable[..., ServerProcess]
) -> None:
    browser = Browser(tmp_path, PAGE)
    try:
        await browser.serve()
        store = await make_server(allowed_origins=browser.origin).start()
        refusing = await make_server(redis=store.store_url).start()
        servers = {
            "allowing": await server_and_ticket(store),
            "refusing": await server_and_ticket(refusing),
        }

        browser.visit(await store.token("p"), servers)
        await browser.saw("refusing", "tried")
    finally:
        await browser.close()

    tried = {report.transport: report.data for report in browser.reports}
    assert tried["allowing"] == {
        "header": 200,
        "cookie": 200,
        "ticket": "hello",
        "WebSocket with cookie": "hello",
        "WebSocket with message": "hello",
    }
    assert tried["refusing"] == {
        "header": "TypeError",
        "cookie": "TypeError",
        "ticket": "error",
        "WebSocket with cookie": "close",
        "WebSocket with message": "hello",
    }
