"""Running servers, as the e2e tests have them, and proxies in front of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..e2e.conftest import (
    backend,
    make_proxy,
    make_server,
    make_store,
    player,
    server,
    token,
)
from .proxies import Apache, Caddy, HAProxy, Nginx

__all__ = [
    "backend",
    "make_proxy",
    "make_server",
    "make_store",
    "player",
    "server",
    "token",
]


@pytest.fixture
def run_nginx(tmp_path: Path) -> Iterator[Callable[[str], Nginx]]:
    """Yield a function that runs nginx with the text of an `http` block."""
    nginx = Nginx(tmp_path / "nginx")

    def run(http: str) -> Nginx:
        nginx.run(http)
        return nginx

    yield run
    nginx.discard()


@pytest.fixture
def run_haproxy(tmp_path: Path) -> Iterator[Callable[[str], HAProxy]]:
    """Yield a function that runs HAProxy with a configuration."""
    haproxy = HAProxy(tmp_path / "haproxy")

    def run(configuration: str) -> HAProxy:
        haproxy.run(configuration)
        return haproxy

    yield run
    haproxy.discard()


@pytest.fixture
def run_caddy(tmp_path: Path) -> Iterator[Callable[[str], Caddy]]:
    """Yield a function that runs Caddy with a Caddyfile."""
    caddy = Caddy(tmp_path / "caddy")

    def run(caddyfile: str) -> Caddy:
        caddy.run(caddyfile)
        return caddy

    yield run
    caddy.discard()


@pytest.fixture
def run_apache(tmp_path: Path) -> Iterator[Callable[[str], Apache]]:
    """Yield a function that runs Apache with a virtual host."""
    apache = Apache(tmp_path / "apache")

    def run(virtual_host: str) -> Apache:
        apache.run(virtual_host)
        return apache

    yield run
    apache.discard()
