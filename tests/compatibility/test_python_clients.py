"""Clients of streams that Python programs have, with their defaults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import aiohttp
import httpx
import httpx_sse
import pytest
import requests
import sseclient
import websocket
import websockets.asyncio.client
import websockets.sync.client

from ..e2e.processes import GUARD_S, ServerProcess
from ..e2e.readers import Api

LARGEST = {"data": "x" * 64_000}
"""Nearly the largest data: the message is larger than some clients expect."""

Events = Iterator[tuple[str, str | None, Any]]
"""Name, id and data of one event after the other."""


@contextmanager
def httpx_sse_events(url: str, headers: dict[str, str]) -> Iterator[Events]:
    with (
        httpx.Client(timeout=GUARD_S, trust_env=False) as http,
        httpx_sse.connect_sse(http, "GET", url, headers=headers) as source,
    ):
        yield ((e.event, e.id, e.json()) for e in source.iter_sse())


@contextmanager
def sseclient_events(url: str, headers: dict[str, str]) -> Iterator[Events]:
    with requests.Session() as http:
        http.trust_env = False
        response = http.get(url, headers=headers, stream=True, timeout=GUARD_S)
        with closing(sseclient.SSEClient(response.iter_content(None))) as source:
            yield ((e.event, e.id, json.loads(e.data)) for e in source.events())


@pytest.mark.parametrize(
    "connect",
    [
        pytest.param(
            httpx_sse_events,
            marks=pytest.mark.stack(
                "httpx-sse (PyPI)", "events; no message without data; resuming"
            ),
        ),
        pytest.param(
            sseclient_events,
            marks=pytest.mark.stack(
                "sseclient-py (PyPI)", "events; no message without data; resuming"
            ),
        ),
    ],
)
async def test_a_client_of_sse_receives_each_event_and_resumes(
    server: ServerProcess, backend: Api, player: str, token: str, connect: Any
) -> None:
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    url = f"{server.url}/v1/stream?cursor=earliest"
    await backend.published(player, title="one", **LARGEST)

    def first() -> tuple[list[str], Any, Any]:
        with connect(url, headers) as events:
            seen = [next(events), next(events)]
        return [name for name, _, _ in seen], seen[1][2], seen[1][1]

    def resumed(cursor: str) -> Any:
        with connect(url, headers | {"Last-Event-ID": cursor}) as events:
            return next(data for name, _, data in events if name == "message")

    names, notification, cursor = await asyncio.to_thread(first)
    await backend.published(player, title="two, while away")

    assert names == ["hello", "message"]
    assert (notification["title"], notification["data"]) == ("one", LARGEST["data"])
    assert (await asyncio.to_thread(resumed, cursor))["title"] == "two, while away"


# WebSocket. Each function opens one, and returns the messages up to a notification,
# then answers a ping of the client's own and closes.


def with_websocket_client(url: str, token: str) -> list[Any]:
    header = [f"Authorization: Bearer {token}"]
    socket = websocket.create_connection(url, timeout=GUARD_S, header=header)
    with closing(socket):
        received = [json.loads(socket.recv())]
        while received[-1]["type"] != "notification":
            received.append(json.loads(socket.recv()))
        socket.ping("alive?")
        while (
            socket.recv_data_frame(control_frame=True)[0] != websocket.ABNF.OPCODE_PONG
        ):
            pass
    return received


def with_websockets_sync(url: str, token: str) -> list[Any]:
    headers = {"Authorization": f"Bearer {token}"}
    connect = websockets.sync.client.connect
    with connect(url, additional_headers=headers, proxy=None) as socket:
        received = [json.loads(socket.recv(GUARD_S))]
        while received[-1]["type"] != "notification":
            received.append(json.loads(socket.recv(GUARD_S)))
        assert socket.ping().wait(GUARD_S)
    return received


async def with_websockets(url: str, token: str) -> list[Any]:
    headers = {"Authorization": f"Bearer {token}"}
    connect = websockets.asyncio.client.connect
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        received = [json.loads(await socket.recv())]
        while received[-1]["type"] != "notification":
            received.append(json.loads(await socket.recv()))
        await (await socket.ping())
    return received


async def with_aiohttp(url: str, token: str) -> list[Any]:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession() as http,
        # `heartbeat`: it closes if the server does not answer its pings. `compress`
        # offers permessage-deflate.
        http.ws_connect(url, headers=headers, heartbeat=5, compress=15) as socket,
    ):
        assert not socket.compress
        received = [await socket.receive_json()]
        while received[-1]["type"] != "notification":
            received.append(await socket.receive_json())
        await socket.ping()
    assert socket.close_code == aiohttp.WSCloseCode.OK
    return received


@pytest.mark.parametrize(
    "receive",
    [
        pytest.param(
            with_websocket_client,
            marks=pytest.mark.stack(
                "websocket-client (PyPI)", "largest notification; ping; close"
            ),
        ),
        pytest.param(
            with_websockets_sync,
            marks=pytest.mark.stack(
                "websockets (PyPI)",
                "sync client: deflate is offered; largest notification; ping; close",
            ),
        ),
        pytest.param(
            with_websockets,
            marks=pytest.mark.stack(
                "websockets (PyPI)",
                "asyncio client: deflate is offered; largest notification; ping; close",
            ),
        ),
        pytest.param(
            with_aiohttp,
            marks=pytest.mark.stack(
                "aiohttp (PyPI)",
                "WebSocket: deflate is offered; largest notification; ping; close",
            ),
        ),
    ],
)
async def test_a_client_of_websocket_receives_the_largest_notification(
    server: ServerProcess,
    backend: Api,
    player: str,
    token: str,
    receive: Callable[[str, str], Any],
) -> None:
    await backend.published(player, title="one", **LARGEST)
    url = f"ws://127.0.0.1:{server.port}/v1/stream?cursor=earliest"

    if asyncio.iscoroutinefunction(receive):
        received = await asyncio.wait_for(receive(url, token), GUARD_S)
    else:
        received = await asyncio.to_thread(receive, url, token)

    assert [message["type"] for message in received] == ["hello", "notification"]
    assert received[1]["notification"]["data"] == LARGEST["data"]
    await server.listeners(player, 0)


@pytest.mark.stack("aiohttp (PyPI)", "SSE, read by lines; keep-alive between requests")
async def test_aiohttp_publishes_and_reads_an_event_stream(
    server: ServerProcess, player: str, token: str
) -> None:
    key = await server.key()
    url = f"{server.url}/v1/stream?cursor=earliest"

    async def data(content: aiohttp.StreamReader) -> Any:
        async for line in content:
            if line.startswith(b"data: "):
                return json.loads(line.removeprefix(b"data: "))

    async with aiohttp.ClientSession() as http:
        for title in ("one", "two"):
            body = {"to": {"players": [player]}, "title": title}
            credential = {"Authorization": f"Bearer {key}"}
            async with http.post(
                f"{server.url}/v1/notifications", json=body, headers=credential
            ) as answer:
                assert answer.status == 200
        credential = {"Authorization": f"Bearer {token}"}
        async with http.get(url, headers=credential) as stream:
            assert (await data(stream.content))["unread"] == 0
            titles = [(await data(stream.content))["title"] for _ in range(2)]
    assert titles == ["one", "two"]
