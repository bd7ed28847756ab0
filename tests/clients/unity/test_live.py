"""The client on Mono, with its real sockets, against the real server."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from streamer_client import EVERYONE, Client
from streamer_conformance.listener import Listener

from ...client.conftest import GUARD_S, Running
from .conftest import CORE, PROGRAMS, Compile, needs_mono

pytestmark = needs_mono

Serve = Callable[..., Awaitable[Running]]


class Driver:
    """The driver of the conformance suite, which uses the client as a game does."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.skipped: list[dict[str, Any]] = []
        """Events that came before the one that a test waited for."""

    def tell(self, command: str, **members: Any) -> None:
        assert self._process.stdin is not None
        line = json.dumps({"cmd": command, **members})
        self._process.stdin.write(line.encode() + b"\n")

    def connect(self, url: str, token: str | None, **members: Any) -> None:
        defaults: dict[str, Any] = {
            "transport": "websocket",
            "cursor": None,
            "topics": [],
            "auth": "message",
            "token_source": False,
            "scale": 1,
            "random": 0,
        }
        self.tell("connect", url=url, token=token, **{**defaults, **members})

    async def event(self, **wanted: Any) -> dict[str, Any]:
        """Return the next event that has these members."""
        assert self._process.stdout is not None
        async with asyncio.timeout(GUARD_S):
            while True:
                line = await self._process.stdout.readline()
                assert line, "the driver has ended"
                event: dict[str, Any] = json.loads(line)
                if wanted.items() <= event.items():
                    return event
                assert event["event"] != "failed", event
                self.skipped.append(event)

    async def notification(self) -> dict[str, Any]:
        event = await self.event(event="notification")
        notification: dict[str, Any] = event["notification"]
        return notification

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


@pytest.fixture
def program(compile_cs: Compile) -> Path:
    return compile_cs([PROGRAMS / "Driver.cs", *CORE])


@pytest.fixture
async def driver(program: Path) -> AsyncIterator[Driver]:
    process = await asyncio.create_subprocess_exec(
        "mono", program, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    driver = Driver(process)
    await driver.event(event="ready", protocol=1)
    yield driver
    await driver.end()


async def test_notifications_arrive_live_and_unchanged(
    serve_streams: Serve, driver: Driver
) -> None:
    server = await serve_streams()
    driver.connect(server.url, server.token("alice"))
    await driver.event(event="status", status="open")
    data = {"big": 2**64 - 1, "small": -(2**63), "list": [None, 1.5, "\u2028é😀"]}
    async with Client(server.url, token=server.key) as backend:
        await backend.publish("alice", type="t", title="Hi", data=data)
        note = await driver.notification()
        await backend.publish(EVERYONE, title="all")
        assert (await driver.notification())["everyone"] is True
    assert note["data"] == data
    assert note["title"] == "Hi"


async def test_nothing_is_lost_over_a_restart_of_the_server(
    serve_streams: Serve, driver: Driver
) -> None:
    server = await serve_streams()
    driver.connect(server.url, server.token("alice"))
    await driver.event(event="status", status="open")
    async with Client(server.url, token=server.key) as backend:
        await backend.publish("alice", title="1")
        await driver.notification()
        await server.stop()
        await driver.event(event="status", status="waiting")
        await server.start()
        await backend.publish("alice", title="2")
    assert (await driver.notification())["title"] == "2"


async def test_marks_and_acknowledgements_reach_the_server(
    serve_streams: Serve, driver: Driver
) -> None:
    server = await serve_streams()
    driver.connect(server.url, server.token("alice"))
    await driver.event(event="status", status="open")
    async with Client(server.url, token=server.key) as backend:
        await backend.publish("alice", title="1")
        note = await driver.notification()
        driver.tell("mark", id=1, ids=[note["id"]])
        assert (await driver.event(event="result", id=1))["unread"] == 0
        driver.tell("ack", id=2, cursor=note["id"])
        assert (await driver.event(event="result", id=2))["ok"] is True
        receipt = await backend.receipt(note["id"], "alice")
    assert receipt.acknowledged
    assert receipt.state == "read"


async def test_a_page_is_read(serve_streams: Serve, driver: Driver) -> None:
    server = await serve_streams()
    async with Client(server.url, token=server.key) as backend:
        for number in range(3):
            await backend.publish("alice", title=str(number))
    driver.connect(server.url, server.token("alice"))
    driver.tell("page", id=1, query={"limit": "2"})
    body = (await driver.event(event="result", id=1))["body"]
    assert [it["title"] for it in body["notifications"]] == ["2", "1"]
    assert body["unread"] == 3
    driver.tell("page", id=2, query={"limit": "200"})
    refused = await driver.event(event="result", id=2)
    assert refused["error"].startswith("400")


async def test_a_wrong_token_ends_the_stream_with_the_servers_words(
    serve_streams: Serve, driver: Driver
) -> None:
    server = await serve_streams()
    driver.connect(server.url, "wrong")
    stopped = await driver.event(event="stopped")
    assert stopped["code"] == 4200
    assert stopped["reason"]


@pytest.mark.nightly
async def test_a_token_that_ends_is_renewed_on_the_open_stream(
    serve_streams: Serve, driver: Driver
) -> None:
    server = await serve_streams()
    driver.connect(server.url, None, token_source=True)
    await driver.event(event="token_wanted")
    driver.tell("token", token=server.token("alice", ttl_s=5))
    await driver.event(event="status", status="open")
    await driver.event(event="token_wanted")
    driver.tell("token", token=server.token("alice", ttl_s=10))
    # It is asked for the third one when the first one has ended.
    await driver.event(event="token_wanted")
    driver.tell("token", token=server.token("alice"))
    async with Client(server.url, token=server.key) as backend:
        await backend.publish("alice", title="still here")
        await driver.notification()
    states = [it["status"] for it in driver.skipped if it["event"] == "status"]
    assert "waiting" not in states


def context_of(folder: Path) -> ssl.SSLContext:
    """Return the TLS of a server with a certificate that it signed itself."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    request = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    subprocess.run(
        ["openssl", *request.split(), "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_a_certificate_that_nobody_trusts_is_refused(
    driver: Driver, tmp_path: Path
) -> None:
    context = context_of(tmp_path)
    received = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(100))

    async with Listener(serve, tls=context) as listener:
        driver.connect(f"https://localhost:{listener.port}", "t0")
        await driver.event(event="status", status="waiting")
    assert not any(received), "it has sent something"
