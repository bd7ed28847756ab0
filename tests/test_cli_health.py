"""The command `streamer health`, against servers as they run."""

from __future__ import annotations

import contextlib
import os
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streamer.cli import main
from tests.e2e.processes import free_port

READY = b'{"status":"ready","memory":"ok"}'
DRAINING = b'{"status":"not ready","reason":"the node drains"}'


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("STREAMER_"):
            monkeypatch.delenv(name)


def health(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["health", *map(str, arguments)])


def answering(status: bytes, body: bytes) -> type[socketserver.StreamRequestHandler]:
    """Return a handler that sends one response and keeps the line of the request."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = iter(self.rfile.readline, b"\r\n")
            asked.append(next(lines).decode())
            for _line in lines:
                pass
            self.wfile.write(
                b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
                % (status, len(body), body)
            )

    return Handler


asked: list[str] = []


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    asked.clear()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """Start servers that answer every request alike. Returns their port."""
    with contextlib.ExitStack() as stack:

        def start(status: bytes = b"200 OK", body: bytes = READY) -> int:
            server = socketserver.TCPServer(("127.0.0.1", 0), answering(status, body))
            stack.enter_context(serving(server))
            return int(server.server_address[1])

        yield start


def test_a_ready_server_is_a_success_and_its_answer_is_printed(
    serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMER_PORT", str(serve()))
    result = health()
    assert (result.exit_code, result.output) == (0, READY.decode() + "\n")
    assert asked == ["GET /readyz HTTP/1.1\r\n"]


def test_a_server_that_drains_is_a_failure_with_its_reason(
    serve: Callable[..., int],
) -> None:
    port = serve(b"503 Service Unavailable", DRAINING)
    result = health("--url", f"http://127.0.0.1:{port}")
    assert result.exit_code == 1
    assert result.output == "Error: not ready: the node drains\n"


def test_another_answer_is_a_failure_with_its_status(serve: Callable[..., int]) -> None:
    port = serve(b"502 Bad Gateway", b"<html>")
    result = health("--url", f"http://127.0.0.1:{port}/")
    assert result.exit_code == 1
    assert result.output == "Error: the server answered 502\n"


def test_where_nothing_listens_the_address_is_named() -> None:
    port = free_port()
    result = health("--url", f"http://127.0.0.1:{port}")
    assert result.exit_code == 1
    expected = f"no server answers at 127.0.0.1:{port}: Connection refused"
    assert result.output == f"Error: {expected}\n"


def test_live_asks_only_for_the_process(serve: Callable[..., int]) -> None:
    result = health("--live", "--url", f"http://127.0.0.1:{serve(body=b'ok')}/push")
    assert (result.exit_code, result.output) == (0, "ok\n")
    assert asked == ["GET /push/healthz HTTP/1.1\r\n"]


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_a_server_on_every_address_is_asked_on_loopback(
    host: str, serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMER_HOST", host)
    monkeypatch.setenv("STREAMER_PORT", str(serve()))
    assert health().exit_code == 0


def test_a_server_on_a_unix_socket_is_asked_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "http.sock")
    monkeypatch.setenv("STREAMER_HOST", f"unix:{path},127.0.0.1")
    server = socketserver.UnixStreamServer(path, answering(b"200 OK", READY))
    with serving(server):
        assert health().exit_code == 0


@pytest.mark.parametrize(
    "url", ["https://game.example", "127.0.0.1:8080", "http://", "http://h:port"]
)
def test_a_url_that_is_no_address_of_a_server_is_refused(url: str) -> None:
    result = health("--url", url)
    assert result.exit_code == 2
    assert "--url" in result.output
