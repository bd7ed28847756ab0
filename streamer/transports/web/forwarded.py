"""
What a trusted proxy says of a request: the client's address, the host and the scheme.

Decides whom to believe. ``X-Forwarded-For`` grows at its right end, so the client is
the rightmost address that is not a trusted proxy; what stands left of it was sent by
the client. Of the other headers only the last value counts, which the nearest proxy
has set. From any other peer the headers are ignored. Knows ASGI.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Iterable
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["TrustedProxies"]

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX: Final = "unix"
"""Stands for the peers of a Unix socket, which have no address."""

_SCHEMES: Final = {
    ("http", "https"): "https",
    ("http", "http"): "http",
    ("websocket", "https"): "wss",
    ("websocket", "wss"): "wss",
    ("websocket", "http"): "ws",
    ("websocket", "ws"): "ws",
}


class TrustedProxies:
    """
    An ASGI application around another, which gets the forwarded values in its scope.

    They become ``client``, ``scheme`` and the header ``host``.

    Args:
        app: The application that responds.
        networks: Addresses of proxies in CIDR notation, or `UNIX`.

    """

    def __init__(self, app: ASGIApp, networks: Iterable[str]) -> None:
        self._app = app
        names = list(networks)
        self._trusts_unix = UNIX in names
        self._networks = [ipaddress.ip_network(it) for it in names if it != UNIX]

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        self.apply(scope)
        return self._app(scope, receive, send)

    def apply(self, scope: Scope) -> None:
        """Replace what a trusted proxy says of a request, in its scope."""
        client = scope.get("client")
        if self._trusts(client[0] if client else None):
            scope.update(self._forwarded(scope))

    def _trusts(self, address: str | None) -> bool:
        if address is None:
            return self._trusts_unix
        parsed = _parse_address(address)
        return parsed is not None and any(parsed in it for it in self._networks)

    def _forwarded(self, scope: Scope) -> dict[str, Any]:
        """Return the members of the scope that the proxy has replaced."""
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        members: dict[str, Any] = {}
        if client := self._client(_values(headers, b"x-forwarded-for")):
            members["client"] = (client, 0)
        if hosts := _values(headers, b"x-forwarded-host"):
            own = [(b"host", hosts[-1].encode("latin-1"))]
            members["headers"] = own + [it for it in headers if it[0] != b"host"]
        if schemes := _values(headers, b"x-forwarded-proto"):
            scheme = _SCHEMES.get((scope["type"], schemes[-1].lower()))
            if scheme is not None:
                members["scheme"] = scheme
        return members

    def _client(self, addresses: list[str]) -> str:
        """Return the rightmost address that is no trusted proxy, "" without any."""
        client = ""
        for text in reversed(addresses):
            parsed = _parse_address(text)
            if parsed is None:
                break
            client = str(parsed)
            if not self._trusts(client):
                break
        return client


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """Return the elements of a list header, in the order of all of its lines."""
    joined = ",".join(str(value, "latin-1") for key, value in headers if key == name)
    return [it for part in joined.split(",") if (it := part.strip())]


def _parse_address(
    text: str,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address, which may have a port: ``1.2.3.4:5``, ``[::1]:5``."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
