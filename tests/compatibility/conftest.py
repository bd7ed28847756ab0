"""Running servers, as the e2e tests have them, and proxies in front of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

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


P = TypeVar("P", Apache, Caddy, HAProxy, Nginx)


def running(proxy: P) -> Iterator[Callable[[str], P]]:
    """Yield a function that runs a proxy with a configuration; end it afterwards."""

    def run(configuration: str) -> P:
        proxy.run(configuration)
        return proxy

    yield run
    proxy.discard()


@pytest.fixture
def run_nginx(tmp_path: Path) -> Iterator[Callable[[str], Nginx]]:
    """Yield a function that runs nginx with the text of an `http` block."""
    yield from running(Nginx(tmp_path / "nginx"))


@pytest.fixture
def run_haproxy(tmp_path: Path) -> Iterator[Callable[[str], HAProxy]]:
    """Yield a function that runs HAProxy with a configuration."""
    yield from running(HAProxy(tmp_path / "haproxy"))


@pytest.fixture
def run_caddy(tmp_path: Path) -> Iterator[Callable[[str], Caddy]]:
    """Yield a function that runs Caddy with a Caddyfile."""
    yield from running(Caddy(tmp_path / "caddy"))


@pytest.fixture
def run_apache(tmp_path: Path) -> Iterator[Callable[[str], Apache]]:
    """Yield a function that runs Apache with a virtual host."""
    yield from running(Apache(tmp_path / "apache"))
