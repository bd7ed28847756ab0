"""nginx in front of the server, configured as the operations page says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from .processes import GUARD_S, ServerProcess, eventually, free_port
from .readers import Api, SseStream, StreamRefused, WsStream

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

pytestmark = pytest.mark.skipif(
    not Path(NGINX).exists(), reason="nginx is not installed"
)

RunNginx = Callable[[str], int]


def documented(server: ServerProcess, port: int) -> str:
    """Return the configuration of the page, for these ports."""
    (text,) = re.findall(r"^```nginx\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert isinstance(text, str)
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{server.port}")
    return text.replace("listen 80;", f"listen 127.0.0.1:{port};")


@pytest.fixture
def run_nginx(tmp_path: Path) -> Iterator[RunNginx]:
    """Yield a function that runs nginx with a configuration of its `http` block."""
    running: list[subprocess.Popen[bytes]] = []

    def run(http: str) -> int:
        paths = "".join(
            f"{kind}_temp_path {tmp_path / kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = tmp_path / "nginx.conf"
        config.write_text(
            f"daemon off; pid {tmp_path / 'pid'}; error_log stderr;"
            f"events {{}} http {{ access_log off; {paths} {http} }}"
        )
        command = [NGINX, "-c", str(config), "-p", str(tmp_path), "-e", "stderr"]
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return running[-1].pid

    yield run
    for process in running:
        process.terminate()
        process.wait(GUARD_S)


@pytest.fixture
async def proxied(
    make_server: Callable[..., ServerProcess], run_nginx: RunNginx
) -> tuple[ServerProcess, int]:
    """Return a server, and the port of nginx in front of it."""
    server = await make_server(trusted_proxies="127.0.0.1").start()
    port = free_port()
    run_nginx(documented(server, port))
    await eventually(lambda: _answers(port))
    return server, port


async def _answers(port: int) -> bool:
    try:
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"http://127.0.0.1:{port}/healthz")
    except httpx2.TransportError:
        return False
    return answer.status_code == 200


async def test_streams_pass_nginx(proxied: tuple[ServerProcess, int]) -> None:
    server, port = proxied
    token = await server.token("p")
    socket = await WsStream.open(port, token)
    events = await SseStream.open(port, token)
    await socket.until("hello")
    await events.until("hello")
    async with Api(port, await server.key()) as backend:
        (id,) = await backend.published("p", title="live")
    for stream in (socket, events):
        assert (await stream.until("notification")).id == id
        stream.cut()


async def test_a_page_of_nginx_may_use_its_cookie(
    proxied: tuple[ServerProcess, int],
) -> None:
    server, port = proxied
    cookie = {"Cookie": f"Authorization=bearer {await server.token('p')}"}
    url = f"http://127.0.0.1:{port}/v1/players/me/notifications/read"

    async with httpx2.AsyncClient(trust_env=False) as http:
        statuses = [
            (
                await http.post(
                    url, json={"all": True}, headers=cookie | {"Origin": origin}
                )
            ).status_code
            for origin in (f"http://127.0.0.1:{port}", server.url)
        ]

    assert statuses == [200, 403]


async def test_the_log_has_the_client_of_nginx(
    proxied: tuple[ServerProcess, int],
) -> None:
    server, port = proxied
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Request-Id": "mine"}

    async with httpx2.AsyncClient(trust_env=False) as http:
        url = f"http://127.0.0.1:{port}/v1/players/me/notifications"
        assert (await http.get(url, headers=headers)).status_code == 401

    await eventually(lambda: '"mine"' in server.logged)
    (line,) = [
        json.loads(text) for text in server.logged.splitlines() if '"mine"' in text
    ]
    assert line["client"] == "203.0.113.9"
    assert (line["refusal"], line["reason"]) == ("unauthenticated", "missing")


async def test_a_websocket_through_a_plain_proxy_is_a_426(
    server: ServerProcess, token: str, run_nginx: RunNginx
) -> None:
    port = free_port()
    run_nginx(
        f"server {{ listen 127.0.0.1:{port};"
        f" location / {{ proxy_pass http://127.0.0.1:{server.port}; }} }}"
    )
    await eventually(lambda: _answers(port))

    with pytest.raises(StreamRefused) as refused:
        await WsStream.open(port, token)

    assert refused.value.status == 426
    assert "a proxy has removed" in refused.value.problem["detail"]
