"""nginx in front of the server, as the operations page says and as users vary it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
import websockets.asyncio.client

from ..e2e.processes import GUARD_S, ServerProcess, free_port
from ..e2e.proxy import TcpProxy
from ..e2e.readers import Api, SseStream, StreamRefused, WsStream
from ..e2e.test_workers import is_running, workers_of
from .proxies import (
    Load,
    Nginx,
    answers,
    delivers,
    documented,
    line_of_refusal,
    line_with,
    mark_of_page,
    nginx_with_tls,
    path_of,
)

RunNginx = Callable[[str], Nginx]
MakeServer = Callable[..., ServerProcess]


class Proxied(NamedTuple):
    """A server, and the port of nginx in front of it."""

    server: ServerProcess
    port: int


@pytest.fixture
async def proxied(make_server: MakeServer, run_nginx: RunNginx) -> Proxied:
    """Return a server behind the configuration of the operations page."""
    server = await make_server(trusted_proxies="127.0.0.1").start()
    port = free_port()
    run_nginx(documented("nginx", server.port, port))
    await answers(port)
    return Proxied(server, port)


def plain(server: ServerProcess, port: int, location: str = "/", *lines: str) -> str:
    """Return a configuration with the upgrade, for one location and with `lines`."""
    upstream = f"http://127.0.0.1:{server.port}"
    path = "" if location == "/" else "/"
    return (
        "map $http_upgrade $upgraded { default upgrade; '' close; }"
        f"server {{ listen 127.0.0.1:{port};"
        f" location {location} {{ proxy_pass {upstream}{path}; proxy_http_version 1.1;"
        " proxy_set_header Upgrade $http_upgrade;"
        f" proxy_set_header Connection $upgraded; {' '.join(lines)} }} }}"
    )


@pytest.mark.stack(
    "nginx", "WebSocket and SSE", setting="the headers of an upgrade, as documented"
)
async def test_streams_pass_nginx(proxied: Proxied) -> None:
    await delivers(*proxied)


@pytest.mark.stack(
    "nginx", "`proxy_buffering on` (its default) and `gzip` of event streams"
)
async def test_buffers_and_compression_of_nginx_delay_no_event(
    server: ServerProcess, player: str, run_nginx: RunNginx
) -> None:
    port = free_port()
    lines = ("proxy_buffering on;", "gzip on;", "gzip_types *;", "gzip_proxied any;")
    run_nginx(plain(server, port, "/", *lines))
    await answers(port)
    await delivers(server, port, player=player)

    # A client that takes gzip gets events as they happen, compressed or not.
    headers = {"Authorization": f"Bearer {await server.token(player)}"}
    url = f"http://127.0.0.1:{port}/v1/stream"
    async with (
        httpx2.AsyncClient(trust_env=False, timeout=GUARD_S) as http,
        http.stream("GET", url, headers=headers) as stream,
        Api(port, await server.key()) as backend,
    ):
        events = stream.aiter_lines()
        await line_with(events, "event: hello")
        await backend.published(player, title="compressed")
        await line_with(events, '"compressed"')


@pytest.mark.stack("nginx", "below a prefix that nginx removes; `/docs`, a ticket")
async def test_a_prefix_that_nginx_removes(
    server: ServerProcess, player: str, token: str, run_nginx: RunNginx
) -> None:
    port = free_port()
    run_nginx(plain(server, port, "/push/"))
    base = f"http://127.0.0.1:{port}/push"
    await answers(base)

    async with httpx2.AsyncClient(trust_env=False, timeout=GUARD_S) as http:
        page = await http.get(f"{base}/docs")
        for asset in re.findall(r'(?:src|href)="([^":]+)"', page.text):
            found = await http.get(httpx2.URL(f"{base}/docs").join(asset))
            assert found.status_code == 200, asset
        headers = {"Authorization": f"Bearer {token}"}
        ticket = (await http.post(f"{base}/v1/tickets", headers=headers)).json()
        url = f"{base}/v1/stream?ticket={ticket['ticket']}"
        async with http.stream("GET", url) as stream:
            await line_with(stream.aiter_lines(), "event: hello")
    socket = f"ws://127.0.0.1:{port}/push/v1/stream"
    connect = websockets.asyncio.client.connect
    async with connect(socket, additional_headers=headers, proxy=None) as opened:
        assert json.loads(await opened.recv())["type"] == "hello"


@pytest.mark.stack(
    "nginx",
    "a page with a cookie, and its origin",
    setting="`proxy_set_header Host $http_host`",
)
async def test_a_page_of_nginx_may_use_its_cookie(proxied: Proxied) -> None:
    server, port = proxied

    statuses = [
        await mark_of_page(server, port, origin)
        for origin in (f"http://127.0.0.1:{port}", server.url)
    ]

    assert statuses == [200, 403]


@pytest.mark.stack(
    "nginx",
    "its default `Host`, which is the server's own, and a page with a cookie",
    setting="`X-Forwarded-Host` and `trusted_proxies`",
)
async def test_a_host_that_nginx_rewrites_is_found_in_its_other_header(
    make_server: MakeServer, run_nginx: RunNginx
) -> None:
    server = await make_server(trusted_proxies="127.0.0.1").start()
    port, bare = free_port(), free_port()
    forwarded = "proxy_set_header X-Forwarded-Host $http_host;"
    run_nginx(
        plain(server, port, "/", forwarded)
        + f"server {{ listen 127.0.0.1:{bare}; location / {{"
        f" proxy_pass http://127.0.0.1:{server.port}; }} }}"
    )
    await answers(port)

    assert await mark_of_page(server, port, f"http://127.0.0.1:{port}") == 200
    assert await mark_of_page(server, bare, f"http://127.0.0.1:{bare}") == 403


@pytest.mark.stack(
    "nginx", "addresses of clients in the log", setting="`trusted_proxies`"
)
async def test_the_log_has_the_client_of_nginx(proxied: Proxied) -> None:
    line = await line_of_refusal(*proxied, {"X-Forwarded-For": "203.0.113.9"})

    assert line["client"] == "203.0.113.9"
    assert (line["refusal"], line["reason"]) == ("unauthenticated", "missing")


@pytest.mark.stack(
    "nginx",
    "WebSocket without the headers of an upgrade",
    fails="nginx removes the upgrade; the 426 says so",
)
async def test_a_websocket_through_a_plain_proxy_is_a_426(
    server: ServerProcess, token: str, run_nginx: RunNginx
) -> None:
    port = free_port()
    run_nginx(
        f"server {{ listen 127.0.0.1:{port};"
        f" location / {{ proxy_pass http://127.0.0.1:{server.port}; }} }}"
    )
    await answers(port)

    with pytest.raises(StreamRefused) as refused:
        await WsStream.open(port, token)

    assert refused.value.status == 426
    assert "a proxy has removed" in refused.value.problem["detail"]


@pytest.mark.stack("nginx", "SSE by HTTP/1.0, the default of `proxy_pass`")
async def test_an_event_stream_passes_a_plain_proxy(
    server: ServerProcess, player: str, token: str, run_nginx: RunNginx
) -> None:
    port = free_port()
    run_nginx(
        f"server {{ listen 127.0.0.1:{port};"
        f" location / {{ proxy_pass http://127.0.0.1:{server.port}; }} }}"
    )
    await answers(port)

    stream = await SseStream.open(port, token)
    await stream.until("hello")
    async with Api(port, await server.key()) as backend:
        (id,) = await backend.published(player, title="live")

    assert (await stream.until("notification")).id == id
    stream.cut()


@pytest.mark.stack("nginx", "long poll on `/v1`; a client that leaves frees its slot")
async def test_a_long_poll_passes_nginx(proxied: Proxied, player: str) -> None:
    server, port = proxied
    path = "/v1/players/me/notifications"
    query: dict[str, str | int] = {"order": "oldest", "wait_s": 45}
    async with (
        Api(port, await server.token(player)) as reader,
        Api(port, await server.key()) as backend,
    ):
        held = asyncio.create_task(reader.http.get(path, params=query))
        await server.listeners(player, 1)
        (name,) = await backend.published(player, title="live")
        page = (await held).json()
        assert [item["id"] for item in page["notifications"]] == [name]

        query["after"] = page["cursor"]
        left = asyncio.create_task(reader.http.get(path, params=query))
        await server.listeners(player, 1)
        left.cancel()
        await server.listeners(player, 0)


# A pool of connections.


@pytest.mark.stack("nginx", "a pool of connections under load: no 502")
async def test_a_pool_of_connections_under_load_has_no_502(
    server: ServerProcess,
    run_nginx: RunNginx,
    make_proxy: Callable[[int], Awaitable[TcpProxy]],
) -> None:
    between, port = await make_proxy(server.port), free_port()
    run_nginx(documented("nginx", between.port, port))
    await answers(port)
    load = Load(port, await server.key(), publishers=20)

    await load.publish(lambda: load.statuses.total() >= 800)
    await load.close()

    assert load.statuses.keys() == {200}
    # nginx keeps 32 connections of those that it opens at once, and uses them again.
    assert between.accepted < 100


@pytest.mark.nightly
@pytest.mark.stack(
    "nginx", "a pool of connections while workers are replaced (`SIGHUP`): no 502"
)
async def test_a_pool_of_connections_outlives_the_workers(
    make_server: MakeServer,
    run_nginx: RunNginx,
    make_proxy: Callable[[int], Awaitable[TcpProxy]],
) -> None:
    server, port = await make_server(workers=2, drain_s=1).start(), free_port()
    # nginx learns late that a connection was closed, as over a network.
    network = await make_proxy(server.port)
    network.delay_s = 0.01
    run_nginx(documented("nginx", network.port, port))
    await answers(port)
    load = Load(port, await server.key(), publishers=3)
    before = await workers_of(server)

    server.send_signal(signal.SIGHUP)
    await load.publish(lambda: not any(map(is_running, before)))
    await load.close()

    assert load.statuses.keys() == {200}


@pytest.mark.nightly
@pytest.mark.stack(
    "nginx",
    "a pool of connections that are idle for seconds: no 502",
    setting="`keepalive_timeout` of the upstream below `keep_alive_s`",
)
async def test_a_pool_that_is_closed_in_time_has_no_502(
    make_server: MakeServer, run_nginx: RunNginx
) -> None:
    server, port = await make_server(keep_alive_s=3).start(), free_port()
    text = documented("nginx", server.port, port)
    run_nginx(text.replace("keepalive 32;", "keepalive 32; keepalive_timeout 2s;"))
    await answers(port)
    load = Load(port, await server.key(), publishers=20)

    # Some pauses end just as the server would close the connection.
    await load.publish(lambda: load.statuses.total() >= 150, pause_max_s=5)
    await load.close()

    assert load.statuses.keys() == {200}


# TLS.


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a file with a certificate for 127.0.0.1 and its key."""
    path = tmp_path / "certificate.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run(
        [
            *(path_of("openssl"), *options.split(), *names),
            *("-keyout", str(path.with_suffix(".key")), "-out", str(path)),
        ],
        check=True,
        capture_output=True,
    )
    return path


@pytest.mark.stack(
    "nginx", "TLS, as in `deploy`: WebSocket (`wss`), SSE over HTTP/2, a cookie"
)
async def test_streams_pass_tls_and_http_2(
    make_server: MakeServer, run_nginx: RunNginx, certificate: Path
) -> None:
    server = await make_server(trusted_proxies="127.0.0.1").start()
    port = free_port()
    run_nginx(nginx_with_tls(server.port, port, certificate))
    context = ssl.create_default_context(cafile=certificate)
    headers = {"Authorization": f"Bearer {await server.token('p')}"}
    url = f"https://127.0.0.1:{port}"
    await answers(url, verify=context)

    async with httpx2.AsyncClient(verify=context, trust_env=False) as http:
        cookie = {"Cookie": f"Authorization=bearer {await server.token('p')}"}
        marks = [
            await http.post(
                f"{url}/v1/players/me/notifications/read",
                json={"all": True},
                headers=cookie | {"Origin": origin},
            )
            for origin in (url, url.replace("https", "http"))
        ]
        assert [mark.status_code for mark in marks] == [200, 403]

    connect = websockets.asyncio.client.connect
    socket = f"wss://127.0.0.1:{port}/v1/stream"
    async with connect(
        socket, ssl=context, additional_headers=headers, proxy=None
    ) as opened:
        assert json.loads(await opened.recv())["type"] == "hello"
    stream = await asyncio.create_subprocess_exec(
        *(path_of("curl"), "-sSNi", "--http2", "--cacert", str(certificate)),
        *("-H", f"Authorization: {headers['Authorization']}", f"{url}/v1/stream"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert stream.stdout is not None
        async with asyncio.timeout(GUARD_S):
            assert await stream.stdout.readline() == b"HTTP/2 200 \r\n"
            while b"event: hello" not in await stream.stdout.readline():
                pass
    finally:
        stream.kill()
        await stream.wait()
