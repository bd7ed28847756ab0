"""Reverse proxies of others as processes, configured as users do it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest

from ..e2e.processes import GUARD_S, ChildProcess, ServerProcess, eventually
from ..e2e.readers import Api, SseStream, WsStream

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")


def documented(language: str, server_port: int, port: int) -> str:
    """Return the configuration that the operations page has, for these ports."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", OPERATIONS, re.M | re.S)
    assert isinstance(text, str)
    local = f"127.0.0.1:{port}"
    text = text.replace("listen 80;", f"listen {local};")
    text = text.replace("bind :80\n", f"bind {local}\n")
    text = text.replace("<VirtualHost *:80>", f"Listen {local}\n<VirtualHost {local}>")
    assert local in text
    return text.replace("127.0.0.1:8080", f"127.0.0.1:{server_port}")


def caddyfile(server_port: int, port: int) -> str:
    """Return the configuration in `deploy`, for these ports and without TLS."""
    text = (ROOT / "deploy" / "proxies" / "Caddyfile").read_text("utf-8")
    local = f"http://127.0.0.1:{port} {{"
    assert "\npush.game.example {" in text
    text = text.replace("push.game.example {", local)
    return text.replace("127.0.0.1:8080", f"127.0.0.1:{server_port}")


def nginx_with_tls(server_port: int, port: int, certificate: Path) -> str:
    """Return the configuration in `deploy`, for these ports and a certificate."""
    text = (ROOT / "deploy" / "proxies" / "nginx.conf").read_text("utf-8")
    assert "listen 443 ssl http2;" in text
    for here, there in (
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        ("/etc/ssl/push.game.example.crt", str(certificate)),
        ("/etc/ssl/push.game.example.key", str(certificate.with_suffix(".key"))),
        ("access_log /var/log/nginx/streamer.log streamer;", ""),
        ("127.0.0.1:8080", f"127.0.0.1:{server_port}"),
    ):
        text = text.replace(here, there)
    return text


def path_of(program: str) -> str:
    """Return the path of a program, or skip the test."""
    path = shutil.which(program) or shutil.which(f"/usr/sbin/{program}")
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


async def answers(url: int | str, *, verify: ssl.SSLContext | bool = True) -> None:
    """Wait until the server answers through the proxy at a port or URL."""
    base = f"http://127.0.0.1:{url}" if isinstance(url, int) else url
    async with httpx2.AsyncClient(verify=verify, trust_env=False) as http:

        async def does() -> bool:
            try:
                return (await http.get(f"{base}/healthz")).status_code == 200
            except httpx2.TransportError:
                return False

        await eventually(does)


class Nginx(ChildProcess):
    """nginx with the text of an `http` block."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "nginx")
        self._folder = folder

    def run(self, http: str) -> None:
        binary = path_of("nginx")
        paths = "".join(
            f"{kind}_temp_path {self._folder / kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = self._folder / "nginx.conf"
        config.write_text(
            f"daemon off; pid {self._folder / 'pid'}; error_log stderr;"
            f"events {{}} http {{ access_log off; {paths} {http} }}"
        )
        self._spawn(
            [binary, "-c", str(config), "-p", str(self._folder), "-e", "stderr"]
        )


class HAProxy(ChildProcess):
    """HAProxy with a configuration."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "haproxy")
        self._config = folder / "haproxy.cfg"

    def run(self, configuration: str) -> None:
        binary = path_of("haproxy")
        self._config.write_text(configuration)
        self._spawn([binary, "-db", "-f", str(self._config)])


class Caddy(ChildProcess):
    """Caddy with a Caddyfile, and without its own port for administration."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "caddy")
        self._folder = folder

    def run(self, text: str) -> None:
        binary = path_of("caddy")
        config = self._folder / "Caddyfile"
        config.write_text(
            f"{{\n\tadmin off\n\tauto_https off\n\tgrace_period 1s\n}}\n{text}"
        )
        self._spawn(
            [binary, "run", "--config", str(config), "--adapter", "caddyfile"],
            os.environ | {"HOME": str(self._folder)},
        )


class Apache(ChildProcess):
    """Apache with a virtual host."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "apache")
        self._folder = folder

    def run(self, virtual_host: str) -> None:
        binary = path_of("apache2")
        modules = ("mpm_event", "authz_core", "proxy", "proxy_http", "proxy_wstunnel")
        loaded = "".join(
            f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
            for name in (*modules, "rewrite", "headers")
        )
        user = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
        config = self._folder / "apache.conf"
        config.write_text(
            f"{loaded}{user}ServerName localhost\nPidFile {self._folder / 'pid'}\n"
            f"ErrorLog {self._folder / 'error.log'}\n"
            f"DefaultRuntimeDir {self._folder}\nMutex fcntl:{self._folder}\n"
            f"{virtual_host}"
        )
        self._spawn([binary, "-D", "FOREGROUND", "-f", str(config)])


# What is tried through a proxy.


async def delivers(server: ServerProcess, port: int, *, player: str = "p") -> None:
    """Check that streams of both transports deliver through nginx as it happens."""
    token = await server.token(player)
    socket = await WsStream.open(port, token)
    events = await SseStream.open(port, token)
    await socket.until("hello")
    await events.until("hello")
    async with Api(port, await server.key()) as backend:
        (id,) = await backend.published(player, title="live")
    for stream in (socket, events):
        assert (await stream.until("notification")).id == id
        stream.cut()


async def line_with(lines: AsyncIterator[str], text: str) -> None:
    """Read until a line has the text."""
    async with asyncio.timeout(GUARD_S):
        async for line in lines:
            if text in line:
                return
    raise AssertionError(f"the stream ended without {text}")


async def mark_of_page(server: ServerProcess, port: int, origin: str) -> int:
    """Return the status of a mark that a page of `origin` sends with its cookie."""
    cookie = f"Authorization=bearer {await server.token('p')}"
    url = f"http://127.0.0.1:{port}/v1/players/me/notifications/read"
    headers = {"Cookie": cookie, "Origin": origin}
    async with httpx2.AsyncClient(trust_env=False) as http:
        return (await http.post(url, json={"all": True}, headers=headers)).status_code


async def line_of_refusal(
    server: ServerProcess, port: int, headers: dict[str, str]
) -> dict[str, str]:
    """Send a request without a credential; return the line that the server logs."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        url = f"http://127.0.0.1:{port}/v1/players/me/notifications"
        answer = await http.get(url, headers=headers | {"X-Request-Id": "mine"})
        assert answer.status_code == 401
    await eventually(lambda: '"mine"' in server.logged)
    (line,) = [text for text in server.logged.splitlines() if '"mine"' in text]
    record: dict[str, str] = json.loads(line)
    return record


class Load:
    """Publishers that use nginx at once, and the statuses of what they got."""

    def __init__(self, port: int, key: str, *, publishers: int) -> None:
        limits = httpx2.Limits(max_connections=publishers)
        self._http = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {key}"},
            limits=limits,
            timeout=GUARD_S,
            trust_env=False,
        )
        self._publishers = publishers
        self.statuses: Counter[int] = Counter()

    async def publish(
        self, until: Callable[[], bool], *, pause_max_s: float = 0
    ) -> None:
        """Publish with all publishers until a fact, each with pauses."""

        async def publisher(name: str) -> None:
            while not until():
                body = {"to": {"players": [name]}, "title": "t"}
                answer = await self._http.post("/v1/notifications", json=body)
                self.statuses[answer.status_code] += 1
                await asyncio.sleep(random.uniform(0, pause_max_s))

        async with asyncio.timeout(2 * GUARD_S), asyncio.TaskGroup() as tasks:
            for number in range(self._publishers):
                tasks.create_task(publisher(f"player-{number}"))

    async def close(self) -> None:
        await self._http.aclose()
