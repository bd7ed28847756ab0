"""A page in a real browser streams, is disconnected, and resumes without loss."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from .browser import CHROMIUM, Browser
from .processes import ServerProcess
from .proxy import TcpProxy
from .readers import Api

MakeServer = Callable[..., ServerProcess]
MakeProxy = Callable[[int], Awaitable[TcpProxy]]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="neither chromium nor google-chrome is installed"
)

STREAMS = ("eventsource", "websocket", "websocket-auth")


class Visit(NamedTuple):
    """A page with streams through a proxy."""

    browser: Browser
    server: ServerProcess
    proxy: TcpProxy
    backend: Api


@pytest.fixture
async def visit(
    tmp_path: Path, make_server: MakeServer, make_proxy: MakeProxy
) -> AsyncIterator[Visit]:
    browser = Browser(tmp_path)
    try:
        await browser.serve()
        server = make_server(allowed_origins=browser.origin, drain_s=1)
        await server.start()
        proxy = await make_proxy(server.port)
        stream = f"{proxy.port}/v1/stream?instance"
        browser.visit(
            await server.token("p"),
            {
                "eventsource": f"http://127.0.0.1:{stream}=a",
                "websocket": f"ws://127.0.0.1:{stream}=b",
                # The cookie is not sent to this name; the first message has the token.
                "websocket-auth": f"ws://localhost:{stream}=c",
            },
        )
        async with Api(server.port, await server.key()) as backend:
            for name in STREAMS:
                await browser.saw(name, "hello")
            yield Visit(browser, server, proxy, backend)
    finally:
        await browser.close()


@pytest.mark.stack("Chromium", "EventSource and WebSocket through disconnects")
@pytest.mark.row("F15")
async def test_after_a_disconnect_it_gets_everything_once_and_in_order(
    visit: Visit,
) -> None:
    browser, _, proxy, backend = visit
    ids: list[str] = []

    async def publish(count: int) -> None:
        for i in range(count):
            ids.extend(await backend.published("p", title=f"number {len(ids)} ({i})"))

    publishing = asyncio.create_task(publish(60))
    for name in STREAMS:
        await browser.saw(name, "notification", 5)
    proxy.cut()
    await publishing
    for name in STREAMS:
        await browser.saw(name, "hello", 2)
    proxy.go_away()
    await publish(20)
    proxy.come_back()
    await publish(5)
    for name in STREAMS:
        await browser.has(name, ids)
        assert browser.ids(name) == ids, name
        assert browser.count(name, "gap") == 0
        assert browser.count(name, "hello") >= 3


@pytest.mark.stack(
    "Chromium", "EventSource and WebSocket through a restart of the server"
)
@pytest.mark.row("F15")
async def test_it_reconnects_after_a_restart(visit: Visit) -> None:
    browser, server, _, backend = visit
    ids = await backend.published("p", title="before")
    server.send_signal(signal.SIGTERM)
    for name in STREAMS:
        await browser.saw(name, "bye")
    assert await server.end() == 0
    await server.start()
    ids += await backend.published("p", title="after")
    for name in STREAMS:
        await browser.has(name, ids)
        assert browser.ids(name) == ids, name
    byes = {r.data["code"] for r in browser.reports if r.kind == "bye"}
    assert byes == {4100}
    closes = {
        r.data["code"]
        for r in browser.reports
        if r.kind == "close" and r.data["code"] != 1006
    }
    assert closes == {4100}


@pytest.mark.stack("Chromium", "texts with every kind of line break")
@pytest.mark.row("F15")
async def test_every_text_stays_within_its_event(visit: Visit) -> None:
    browser, _, _, backend = visit
    texts = [
        "a\rdata: spoofed\r\revent: bye\rdata: {}\r\r",
        "a\ndata: spoofed\n\n",
        "a\r\nid: 1\r\n\r\n",
        "\0 \x1b[31m \x7f \x85 \u2028 \u2029 \ufeff \U0001f600",
    ]
    ids = [(await backend.published("p", title=text))[0] for text in texts]
    for name in STREAMS:
        await browser.has(name, ids)
        titles = [
            report.data["title"]
            for report in browser.reports
            if (report.transport, report.kind) == (name, "notification")
        ]
        assert titles == texts
        assert browser.count(name, "bye") == 0
