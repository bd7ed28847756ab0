"""HAProxy, Caddy and Apache before the server, as the operations page says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from ..e2e.processes import (
    ChildProcess,
    ServerProcess,
    eventually,
    free_port,
    probe,
)
from ..e2e.proxy import TcpProxy
from .proxies import (
    Load,
    answers,
    caddyfile,
    delivers,
    documented,
    line_of_refusal,
    mark_of_page,
)

MakeServer = Callable[..., ServerProcess]
MakeProxy = Callable[[int], Awaitable[TcpProxy]]
Run = Callable[[str], ChildProcess]


class Proxied(NamedTuple):
    """A server, what connects to it, and the port of a proxy in front of that."""

    server: ServerProcess
    between: TcpProxy
    port: int


async def start(make_server: MakeServer, make_proxy: MakeProxy) -> Proxied:
    server = await make_server(trusted_proxies="127.0.0.1").start()
    return Proxied(server, await make_proxy(server.port), free_port())


CLIENT, PROXY = "203.0.113.9", "127.0.0.1"


async def passes(proxied: Proxied, *, client: str) -> None:
    """Try all that proxies are for. `client` is what the log says of CLIENT."""
    server, between, port = proxied
    await answers(port)
    await delivers(server, port)

    own, other = f"http://127.0.0.1:{port}", server.url
    assert [await mark_of_page(server, port, own) for own in (own, other)] == [200, 403]

    line = await line_of_refusal(server, port, {"X-Forwarded-For": CLIENT})
    assert line["client"] == client

    load = Load(port, await server.key(), publishers=10)
    before = between.accepted
    await load.publish(lambda: load.statuses.total() >= 300)
    await load.close()
    assert load.statuses.keys() == {200}
    # Connections to the server were used again.
    assert between.accepted - before < load.statuses.total()


@pytest.mark.stack(
    "HAProxy",
    "WebSocket, SSE, a page with a cookie, a pool of connections under load: no 502",
    setting="`timeout tunnel`, as documented",
)
async def test_haproxy_passes_everything(
    make_server: MakeServer, make_proxy: MakeProxy, run_haproxy: Run
) -> None:
    proxied = await start(make_server, make_proxy)
    run_haproxy(documented("haproxy", proxied.between.port, proxied.port))

    await passes(proxied, client=CLIENT)


@pytest.mark.stack(
    "Caddy",
    "WebSocket, SSE, a page with a cookie, a pool of connections under load: no 502",
    setting="`keepalive 60s`, as in `deploy`",
)
async def test_caddy_passes_everything(
    make_server: MakeServer, make_proxy: MakeProxy, run_caddy: Run
) -> None:
    proxied = await start(make_server, make_proxy)
    run_caddy(caddyfile(proxied.between.port, proxied.port))

    # Caddy believes no address that its client says of itself.
    await passes(proxied, client=PROXY)


@pytest.mark.stack(
    "Apache",
    "WebSocket, SSE, a page with a cookie, a pool of connections under load: no 502",
    setting="`flushpackets`, `ttl` and a rule for WebSockets, as documented",
)
async def test_apache_passes_everything(
    make_server: MakeServer, make_proxy: MakeProxy, run_apache: Run
) -> None:
    proxied = await start(make_server, make_proxy)
    run_apache(documented("apache", proxied.between.port, proxied.port))

    await passes(proxied, client=CLIENT)
    # It does not see that a reader has left while the server sends nothing, and would
    # take ten seconds to end.
    await proxied.between.close()


@pytest.mark.stack(
    "HAProxy",
    "the PROXY protocol (`send-proxy`)",
    fails="every request is a 400; use `option forwardfor`",
)
async def test_the_proxy_protocol_is_refused(
    server: ServerProcess, run_haproxy: Run
) -> None:
    port = free_port()
    text = documented("haproxy", server.port, port)
    server_line = f"server node1 127.0.0.1:{server.port} check"
    assert server_line in text
    spoken = text.replace(server_line, server_line.replace("check", "send-proxy"))
    run_haproxy(spoken)

    async def status() -> int:
        return await probe(port, "/healthz")

    await eventually(status)

    assert await status() == 400
