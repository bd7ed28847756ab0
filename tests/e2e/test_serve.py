"""`streamer serve`: its output, its start and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamer.bench.usage import measure

from .processes import GUARD_S, KEY, TOKEN, ServerProcess, command, eventually
from .readers import TRANSPORTS, Api, RawStream, SseStream

MakeServer = Callable[..., ServerProcess]

READY_CPU_S = 5
"""With a free core, it is ready well within that; beside others all takes longer."""

POLL = "/notification/v1/player/me/stream/notification/lp"
FAREWELL_S = 25
"""The drain window, and a margin for a busy machine; supervisors wait for 30 s."""


def curl_lines(greeting: str) -> list[str]:
    return [line for line in greeting.splitlines() if line.startswith("curl ")]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
async def test_the_printed_commands_work(make_server: MakeServer) -> None:
    server = await make_server().start()
    listen, publish, page = curl_lines(await server.greeting())
    with pasted(listen) as listening:
        await output_with(listening, b"event: hello")
        published = await asyncio.to_thread(paste, publish)
        (result,) = published["results"]
        received = await output_with(listening, result["id"].encode())
    assert b'"title":"Hello"' in received
    page_body = await asyncio.to_thread(paste, page)
    assert [one["id"] for one in page_body["notifications"]] == [result["id"]]


@contextlib.contextmanager
def pasted(line: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command that does not end by itself, for the block."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {line}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def paste(line: str) -> dict[str, list[dict[str, str]]]:
    done = subprocess.run(
        ["bash", "-c", f"{line} -sS"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer: dict[str, list[dict[str, str]]] = json.loads(done.stdout)
    return answer


async def output_with(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    assert process.stdout is not None
    stdout, output = process.stdout, bytearray()

    def has_it() -> bool:
        output.extend(stdout.read() or b"")
        return text in output

    await eventually(has_it)
    return bytes(output)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_it_is_ready_after_little_work(make_server: MakeServer) -> None:
    server = await make_server().start()
    # CPU time, since other processes on the machine prolong the elapsed time.
    used = measure([server.pid])
    assert used.server_cpu_s + used.store_cpu_s < READY_CPU_S
    assert await server.probe("/healthz") == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_it_cleanly(
    make_server: MakeServer, number: signal.Signals
) -> None:
    server = await make_server().start()
    store = await server.store_pid()
    assert await server.stop(number) == 0
    assert not is_running(store)
    assert server.complaints == ""
    assert "Traceback" not in server.printed


async def test_a_hangup_disconnects_nobody(make_server: MakeServer) -> None:
    server = await make_server().start()
    stream = await SseStream.open(server.port, await server.token("p"))
    await stream.until("hello")
    server.send_signal(signal.SIGHUP)
    await eventually(lambda: "nothing to reload" in server.logged)
    async with Api(server.port, await server.key()) as backend:
        (id,) = await backend.published("p", title="live")
    assert (await stream.until("notification")).id == id
    stream.cut()
    assert await server.stop() == 0


async def test_a_signal_during_the_start_leaves_nothing_behind(
    make_server: MakeServer,
) -> None:
    server = make_server()
    server.spawn()
    await eventually((server.data_dir / "lock").exists)
    server.send_signal(signal.SIGTERM)
    await server.end()
    # It starts again at once, so nothing has locked the directory.
    await server.start()
    assert await server.stop() == 0


async def test_sigterm_sends_bye_on_every_transport(
    make_server: MakeServer,
) -> None:
    server = await make_server(drain_s=2).start()
    tokens = {name: await server.token(name) for name in TRANSPORTS}
    streams = {
        name: await opener.open(server.port, tokens[name])
        for name, opener in TRANSPORTS.items()
    }
    for stream in streams.values():
        await stream.until("hello")
    begun = time.monotonic()
    server.send_signal(signal.SIGTERM)
    farewells = {name: await farewell(stream) for name, stream in streams.items()}
    # EventSource must not reconnect over a connection to the stopping node.
    assert streams["sse"].headers["connection"] == "close"  # type: ignore[union-attr]
    assert farewells == dict.fromkeys(TRANSPORTS, 4100)
    assert await server.end() == 0
    assert time.monotonic() - begun < FAREWELL_S
    assert server.complaints == ""


async def farewell(stream: RawStream) -> int | None:
    bye = await stream.until("bye")
    assert bye.data["reconnect"] is True
    assert bye.data["delay_ms"] > 0
    ended = await stream.end()
    assert ended.code == bye.data["code"]
    return ended.code


async def test_sigterm_answers_a_held_poll_with_an_empty_page(
    make_server: MakeServer,
) -> None:
    server = await make_server(drain_s=2).start()
    async with Api(server.port, await server.token("p")) as player:
        polling = asyncio.create_task(player.http.get(POLL, params={"deadline": "20"}))
        await server.listeners("p", 1)
        server.send_signal(signal.SIGTERM)
        answer = await polling
    assert answer.status_code == 200
    assert answer.json()["notifications"] == []
    assert await server.end() == 0
    assert server.complaints == ""


async def test_a_second_start_keeps_what_was_stored(make_server: MakeServer) -> None:
    server = await make_server().start()
    first = await server.greeting()
    key, token = KEY.search(first)[1], TOKEN.search(first)[1]  # type: ignore[index]
    async with Api(server.port, key) as backend:
        ids = [*await backend.published("alice", title="kept")]
    assert await server.stop() == 0
    await server.start()
    async with Api(server.port, key) as backend:
        assert [one["id"] for one in await backend.inbox("alice")] == ids
        ids += await backend.published("alice", title="more")
    async with Api(server.port, token) as player:
        assert [one["id"] for one in await player.inbox("me")] == ids
    again = server.printed.removeprefix(first)
    # A key is shown only once: this start has printed one of its own.
    assert KEY.search(again)[1] != key  # type: ignore[index]
    assert len(curl_lines(again)) == 3


async def test_a_second_server_on_a_data_directory_is_refused(
    make_server: MakeServer,
) -> None:
    server = await make_server().start()
    second = await asyncio.to_thread(
        server.run, "serve", "--port", "0", "--data-dir", str(server.data_dir)
    )
    assert second.returncode == 1
    assert str(server.data_dir) in second.stderr
    assert "Traceback" not in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert await server.probe("/readyz") == 200


async def test_a_port_in_use_is_reported(make_server: MakeServer) -> None:
    server = await make_server().start()
    data_dir = str(server.folder / "other")
    second = await asyncio.to_thread(
        server.run, "serve", "--port", str(server.port), "--data-dir", data_dir
    )
    assert second.returncode == 1
    assert f"127.0.0.1:{server.port} is in use" in second.stderr
    assert "Traceback" not in second.stderr
    assert await server.probe("/readyz") == 200


async def test_doctor_reports_what_is_in_effect(make_server: MakeServer) -> None:
    server = await make_server().start()
    options = ("--data-dir", str(server.data_dir))
    done = await asyncio.to_thread(server.run, "doctor", *options)
    assert done.returncode == 0, done.stdout
    for fact in ("noeviction", "always", "files", "clock"):
        assert fact in done.stdout
    assert re.search(r"\d+\.\d+\.\d+", done.stdout)  # The store's version.


async def test_a_killed_store_ends_the_server_and_loses_nothing(
    make_server: MakeServer,
) -> None:
    server = await make_server().start()
    ids = []
    async with Api(server.port, await server.key()) as backend:
        for i in range(20):
            ids += await backend.published("p", title=str(i))
    os.kill(await server.store_pid(), signal.SIGKILL)
    assert await server.end() != 0
    assert "embedded store exited unexpectedly" in server.logged
    await server.start()
    async with Api(server.port, await server.key()) as backend:
        assert [one["id"] for one in await backend.inbox("p")] == ids


async def test_a_killed_server_leaves_no_store_running(
    make_server: MakeServer,
) -> None:
    server = await make_server().start()
    store = await server.store_pid()
    await server.kill()
    await eventually(lambda: not is_running(store))


# A service manager.


class ServiceManager:
    """Opens a socket for the server, starts it, and hears what it says, as systemd."""

    def __init__(self, folder: Path) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.hears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.hears.bind(str(folder / "notify"))
        self.hears.settimeout(GUARD_S)

    def start(self, server: ServerProcess, *options: str) -> subprocess.Popen[bytes]:
        fd = self.listening.fileno()
        # The pid is known in the child alone.
        code = (
            "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid());"
            f"os.dup2({fd}, 3); os.execv(sys.argv[1], sys.argv[1:])"
        )
        started = [*command("serve"), "--data-dir", str(server.data_dir), *options]
        return subprocess.Popen(
            [sys.executable, "-c", code, *started],
            env=server.environment()
            | {"LISTEN_FDS": "1", "NOTIFY_SOCKET": self.hears.getsockname()},
            pass_fds=[fd],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )


@pytest.mark.stack(
    "protocol of systemd",
    "`LISTEN_FDS`, `NOTIFY_SOCKET`, a stop; one process and workers",
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_manager_hands_over_the_socket_and_is_told(
    make_server: MakeServer, tmp_path: Path, workers: str
) -> None:
    manager = ServiceManager(tmp_path)
    process = manager.start(make_server(), "--workers", workers)
    with manager.hears, manager.listening, process:
        assert manager.hears.recv(100) == b"READY=1"
        with socket.create_connection(("127.0.0.1", manager.port)) as client:
            client.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            assert b" 200 " in client.recv(1_000)
        process.send_signal(signal.SIGTERM)
        assert manager.hears.recv(100) == b"STOPPING=1"
        assert process.wait(GUARD_S) == 0
        assert process.stdout is not None
        printed = process.stdout.read().decode()
        assert "streamer key create --app demo" in printed
        assert f"ready at http://127.0.0.1:{manager.port}\n" in printed
        # The socket is the service manager's: the next start finds its queue.
        socket.create_connection(("127.0.0.1", manager.port)).close()


async def test_a_unix_socket_alone_is_announced_as_one(
    make_server: MakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    server = make_server(host=f"unix:{path}", workers=2)
    server.spawn()
    greeting = await server.greeting()
    assert f"ready at unix:{path}\n" in greeting
    assert f"--unix-socket {path} http://localhost/v1/stream" in greeting
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
    assert b" 200 " in await reader.readline()
    writer.close()
    assert await server.stop() == 0
    assert not path.exists()
