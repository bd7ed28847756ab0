"""What trusted proxies say of a request, and what others say."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from streamer.transports.web.forwarded import TrustedProxies

NETWORKS = ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]


async def seen(
    *headers: tuple[str, str],
    peer: str | None = "10.0.0.1",
    networks: list[str] = NETWORKS,
    kind: str = "http",
) -> Any:
    """Return client, scheme and host of a request, as the application gets them."""
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)

    async def nothing(*_: Any) -> Any: ...

    fields = [("Host", "inner"), *headers]
    scope = {
        "type": kind,
        "client": (peer, 1) if peer else None,
        "scheme": {"http": "http", "websocket": "ws"}[kind],
        "headers": [(k.lower().encode(), v.encode()) for k, v in fields],
    }
    await TrustedProxies(app, networks)(scope, nothing, nothing)
    got = scopes[0]
    (host,) = (v.decode() for k, v in got["headers"] if k == b"host")
    client = got["client"]
    return client and client[0], got["scheme"], host


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, 10.1.1.1"], "203.0.113.9"),
        (["203.0.113.9, 192.0.2.7, 10.1.1.1"], "203.0.113.9"),
        # What the client itself has sent stands on the left.
        (["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        (["10.2.2.2, 203.0.113.9, 10.1.1.1"], "203.0.113.9"),
        (["203.0.113.9", "10.1.1.1"], "203.0.113.9"),
        (["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9:4711"], "203.0.113.9"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
        (["unknown, 10.1.1.1"], "10.1.1.1"),
        (["unknown"], "10.0.0.1"),
        ([""], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
async def test_the_client_is_the_rightmost_address_that_is_no_proxy(
    lines: list[str], client: str
) -> None:
    headers = [("X-Forwarded-For", line) for line in lines]
    assert (await seen(*headers))[0] == client


async def test_host_and_scheme_are_those_of_the_nearest_proxy() -> None:
    headers = [
        ("X-Forwarded-Host", "forged.example, game.example"),
        ("X-Forwarded-Proto", "http, HTTPS"),
    ]
    assert await seen(*headers) == ("10.0.0.1", "https", "game.example")
    assert await seen(*headers, kind="websocket") == (
        "10.0.0.1",
        "wss",
        "game.example",
    )


@pytest.mark.parametrize("proto", ["", "gopher", "file"])
async def test_an_unknown_scheme_is_ignored(proto: str) -> None:
    assert (await seen(("X-Forwarded-Proto", proto)))[1] == "http"


@pytest.mark.parametrize("peer", ["203.0.113.1", "::1", None])
async def test_another_peer_is_not_believed(peer: str | None) -> None:
    headers = [
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-Host", "game.example"),
        ("X-Forwarded-Proto", "https"),
    ]
    assert await seen(*headers, peer=peer) == (peer, "http", "inner")


@pytest.mark.parametrize("peer", ["fd00::5", "::ffff:10.0.0.1", "192.0.2.7"])
async def test_a_proxy_is_known_by_any_spelling(peer: str) -> None:
    assert (await seen(("X-Forwarded-For", "203.0.113.9"), peer=peer))[0] == (
        "203.0.113.9"
    )


async def test_a_proxy_on_a_unix_socket_is_known_by_name() -> None:
    forwarded = ("X-Forwarded-For", "203.0.113.9")
    assert (await seen(forwarded, peer=None, networks=["unix"]))[0] == "203.0.113.9"
