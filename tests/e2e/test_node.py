"""Programs of the Node ecosystem in front of the server, and as its clients."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from .processes import GUARD_S, ServerProcess
from .proxy import TcpProxy
from .readers import Api, SseStream, WsStream

SCRIPTS = Path(__file__).parent / "node"

pytestmark = [
    pytest.mark.skipif(not shutil.which("node"), reason="node is not installed"),
    pytest.mark.skipif(
        not (SCRIPTS / "node_modules").exists(),
        reason="`npm ci` has not run in tests/e2e/node",
    ),
]


class Script:
    """A running script, which prints lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> Any:
        assert self.process.stdout is not None
        async with asyncio.timeout(GUARD_S):
            line = await self.process.stdout.readline()
        assert line, "it has ended"
        return json.loads(line)

    async def message(self) -> Any:
        """Return the data of the next unnamed event."""
        while (event := await self.line())["kind"] != "message":
            pass
        return event["data"]

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


RunScript = Callable[..., Awaitable[Script]]


@pytest.fixture
async def run_script() -> AsyncIterator[RunScript]:
    """Yield a function that runs a script with arguments."""
    running: list[Script] = []

    async def run(name: str, *arguments: object) -> Script:
        process = await asyncio.create_subprocess_exec(
            *("node", str(SCRIPTS / name), *map(str, arguments)),
            stdout=asyncio.subprocess.PIPE,
        )
        running.append(Script(process))
        return running[-1]

    yield run
    for script in running:
        await script.end()


@pytest.mark.stack("compression (npm)", "SSE through it, as development servers do")
async def test_a_proxy_with_compression_delays_no_event(
    server: ServerProcess,
    backend: Api,
    player: str,
    token: str,
    run_script: RunScript,
) -> None:
    proxy_port = await (await run_script("compressing_proxy.js", server.port)).line()
    compressible = {"Accept-Encoding": "gzip"}

    stream = await SseStream.open(proxy_port, token, headers=compressible)
    await stream.until("hello")
    (id,) = await backend.published(player, title="live")

    assert (await stream.until("notification")).id == id
    stream.cut()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            "event-source-polyfill",
            marks=pytest.mark.stack(
                "event-source-polyfill (npm)",
                "reconnecting and resuming after a disconnect",
            ),
        ),
        pytest.param(
            "eventsource",
            marks=pytest.mark.stack(
                "eventsource (npm)", "reconnecting and resuming after a disconnect"
            ),
        ),
        pytest.param(
            "@microsoft/fetch-event-source",
            marks=pytest.mark.stack(
                "@microsoft/fetch-event-source (npm)",
                "reconnecting and resuming after a disconnect",
            ),
        ),
    ],
)
async def test_an_implementation_of_event_source_resumes(
    server: ServerProcess,
    backend: Api,
    player: str,
    token: str,
    run_script: RunScript,
    make_proxy: Callable[[int], Awaitable[TcpProxy]],
    name: str,
) -> None:
    proxy = await make_proxy(server.port)
    url = f"http://127.0.0.1:{proxy.port}/v1/stream?cursor=earliest"
    await backend.published(player, title="one")
    reader = await run_script("event_source.js", name, url, token)
    assert (await reader.message())["title"] == "one"

    proxy.go_away()
    await backend.published(player, title="two, while away")
    proxy.come_back()

    assert (await reader.message())["title"] == "two, while away"


@pytest.mark.stack(
    "http-proxy-middleware (npm)", "WebSocket, SSE, `changeOrigin`; as Vite has it"
)
async def test_streams_pass_a_development_server(
    server: ServerProcess,
    backend: Api,
    player: str,
    token: str,
    run_script: RunScript,
) -> None:
    proxy_port = await (await run_script("middleware.js", server.port)).line()

    socket = await WsStream.open(proxy_port, token)
    events = await SseStream.open(proxy_port, token)
    await socket.until("hello")
    await events.until("hello")
    (id,) = await backend.published(player, title="live")

    for stream in (socket, events):
        assert (await stream.until("notification")).id == id
        stream.cut()


@pytest.mark.stack(
    "reconnecting-websocket (npm)",
    "reconnecting after a disconnect, and resuming by the cursor",
)
async def test_a_websocket_that_reconnects_resumes(
    server: ServerProcess,
    backend: Api,
    player: str,
    token: str,
    run_script: RunScript,
    make_proxy: Callable[[int], Awaitable[TcpProxy]],
) -> None:
    proxy = await make_proxy(server.port)
    url = f"ws://127.0.0.1:{proxy.port}/v1/stream"
    await backend.published(player, title="one")
    reader = await run_script("reconnecting.js", url, token)

    async def title() -> str:
        while (event := await reader.line())["kind"] != "notification":
            pass
        return str(event["data"]["title"])

    assert await title() == "one"
    proxy.go_away()
    await backend.published(player, title="two, while away")
    proxy.come_back()

    assert await title() == "two, while away"


LARGEST = "x" * 64_000
"""Nearly the largest data of a notification."""


@pytest.mark.stack("ws (npm)", "deflate is offered; largest notification; ping; close")
async def test_ws_receives_the_largest_notification(
    server: ServerProcess,
    backend: Api,
    player: str,
    token: str,
    run_script: RunScript,
) -> None:
    url = f"ws://127.0.0.1:{server.port}/v1/stream?cursor=earliest"
    await backend.published(player, data=LARGEST)

    reader = await run_script("web_socket.js", url, token, "")
    data: dict[str, Any] = {}
    while "close" not in data:
        event = await reader.line()
        data[event["kind"]] = event.get("data")

    assert data["open"]["extensions"] == ""
    assert data["pong"] == "alive?"
    assert data["notification"]["data"] == LARGEST
    assert data["close"] == 1000
    await server.listeners(player, 0)


@pytest.mark.stack(
    "ws (npm)",
    "`maxPayload` below 1 MiB",
    fails="it closes at a larger notification, and would do so at each resume; allow "
    "1 MiB",
)
async def test_ws_with_a_small_payload_refuses_a_large_notification(
    server: ServerProcess,
    backend: Api,
    player: str,
    token: str,
    run_script: RunScript,
) -> None:
    url = f"ws://127.0.0.1:{server.port}/v1/stream?cursor=earliest"
    await backend.published(player, data=LARGEST)

    reader = await run_script("web_socket.js", url, token, 16_384)
    kinds = []
    while "close" not in kinds:
        kinds.append((await reader.line())["kind"])

    assert "error" in kinds
    assert "notification" not in kinds
    await server.listeners(player, 0)
