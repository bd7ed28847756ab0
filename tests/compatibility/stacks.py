"""
The programs of other people that the tests run the server with, and their versions.

A test names what it tries with ``@pytest.mark.stack("nginx", "streams pass")``; `page`
writes ``docs/compatibility.md`` of it. Each stack is the real program or library,
unless its name says that it is a part of one.
"""

from __future__ import annotations

import functools
import json
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from streamer.store.server.server_binary import find_server

GO = Path(__file__).parent / "go"
NODE = Path(__file__).parents[1] / "e2e" / "node"


class Stack(NamedTuple):
    """A program or library, and what tells its version."""

    kind: str
    version: Callable[[], str]


def program(*command: str) -> Callable[[], str]:
    """Return what asks a program for its version."""

    @functools.cache
    def ask() -> str:
        path = shutil.which(command[0]) or shutil.which(f"/usr/sbin/{command[0]}")
        if path is None:
            return "not installed"
        done = subprocess.run(
            [path, *command[1:]], capture_output=True, text=True, check=False
        )
        found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
        return found[0] if found else "unknown"

    return ask


def npm(package: str) -> Callable[[], str]:
    """Return what reads the version of an npm package that the tests install."""

    def read() -> str:
        manifest = NODE / "node_modules" / package / "package.json"
        if not manifest.exists():
            return "not installed"
        return str(json.loads(manifest.read_text("utf-8"))["version"])

    return read


def pypi(distribution: str) -> Callable[[], str]:
    """Return what reads the version of a Python package."""

    def read() -> str:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            return "not installed"

    return read


def go(module: str) -> Callable[[], str]:
    """Return what reads the version of a Go module that the tests build with."""

    def read() -> str:
        text = (GO / "go.mod").read_text("utf-8")
        found = re.search(rf"{re.escape(module)} v(\S+)", text)
        return found[1] if found else "unknown"

    return read


def valkey() -> str:
    """Return the version of the store that is installed with streamer."""
    return program(str(find_server()), "--version")()


def kernel() -> str:
    """Return the version of the kernel, without the distribution's suffix."""
    return platform.release().partition("-")[0]


def no_version() -> str:
    """Return that a stack has none: it is a protocol or a set of names."""
    return "—"


PROXIES = "Proxies"
BROWSERS = "Browsers"
STREAM_CLIENTS = "Clients of streams and of HTTP"
TOKENS = "Libraries for tokens"
PLATFORMS = "Service managers and containers"
STORES = "Stores"

STACKS = {
    "nginx": Stack(PROXIES, program("nginx", "-v")),
    "HAProxy": Stack(PROXIES, program("haproxy", "-v")),
    "Caddy": Stack(PROXIES, program("caddy", "version")),
    "Apache": Stack(PROXIES, program("apache2", "-v")),
    "compression (npm)": Stack(PROXIES, npm("compression")),
    "http-proxy-middleware (npm)": Stack(PROXIES, npm("http-proxy-middleware")),
    "Chromium": Stack(BROWSERS, program("chromium", "--version")),
    "curl": Stack(STREAM_CLIENTS, program("curl", "--version")),
    "event-source-polyfill (npm)": Stack(STREAM_CLIENTS, npm("event-source-polyfill")),
    "eventsource (npm)": Stack(STREAM_CLIENTS, npm("eventsource")),
    "@microsoft/fetch-event-source (npm)": Stack(
        STREAM_CLIENTS, npm("@microsoft/fetch-event-source")
    ),
    "ws (npm)": Stack(STREAM_CLIENTS, npm("ws")),
    "httpx-sse (PyPI)": Stack(STREAM_CLIENTS, pypi("httpx-sse")),
    "sseclient-py (PyPI)": Stack(STREAM_CLIENTS, pypi("sseclient-py")),
    "websocket-client (PyPI)": Stack(STREAM_CLIENTS, pypi("websocket-client")),
    "websockets (PyPI)": Stack(STREAM_CLIENTS, pypi("websockets")),
    "aiohttp (PyPI)": Stack(STREAM_CLIENTS, pypi("aiohttp")),
    "reconnecting-websocket (npm)": Stack(
        STREAM_CLIENTS, npm("reconnecting-websocket")
    ),
    "coder/websocket (Go)": Stack(STREAM_CLIENTS, go("github.com/coder/websocket")),
    "gorilla/websocket (Go)": Stack(STREAM_CLIENTS, go("github.com/gorilla/websocket")),
    "jsonwebtoken (npm)": Stack(TOKENS, npm("jsonwebtoken")),
    "jose (npm)": Stack(TOKENS, npm("jose")),
    "PyJWT (PyPI)": Stack(TOKENS, pypi("PyJWT")),
    "joserfc (PyPI)": Stack(TOKENS, pypi("joserfc")),
    "OpenSSL": Stack(TOKENS, program("openssl", "version")),
    "systemd-socket-activate": Stack(
        PLATFORMS, program("systemd-socket-activate", "--version")
    ),
    "protocol of systemd": Stack(PLATFORMS, no_version),
    "variables of Kubernetes": Stack(PLATFORMS, no_version),
    "Procfile": Stack(PLATFORMS, no_version),
    "Linux namespaces": Stack(PLATFORMS, kernel),
    "Redis": Stack(STORES, program("redis-server", "--version")),
    "Valkey": Stack(STORES, valkey),
    "Sentinel (Valkey)": Stack(STORES, valkey),
    "Redis Cluster": Stack(STORES, program("redis-server", "--version")),
    "a managed store's ACL": Stack(STORES, program("redis-server", "--version")),
}

NOT_TRIED = {
    "Firefox, Safari": "the tests install one browser",
    "Envoy, Traefik, load balancers of clouds": "not in Debian 12",
    "Docker, a Kubernetes cluster, systemd as PID 1": "the tests use the kernel's own "
    "namespaces, the names of the variables, and systemd's socket activation",
    "a hosted identity provider": "libraries sign what Auth0, Entra ID and Keycloak "
    "sign",
}
"""What users have and the tests do not, and why."""
