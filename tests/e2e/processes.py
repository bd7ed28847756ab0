"""
The programs under test as processes: `streamer serve`, and a store.

Tests start a server, use it over its ports, and stop or kill it; nothing here accesses
the inside of a running server. Credentials are created in the store, as by `streamer
token` but without the cost of a process each; servers accept them at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import inspect
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from streamer.core.access.tokens import mint
from streamer.model import App, Log, Player
from streamer.store.access.apps import AppExists, Apps
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.server.directory import socket_path, socket_url
from streamer.store.server.server_binary import find_server

GUARD_S = 60
"""The longest wait in these tests; none comes near it on a working machine."""

KEY = re.compile(r"^ +(sk_\S+)$", re.MULTILINE)
TOKEN = re.compile(r"^ +(eyJ\S+)$", re.MULTILINE)


PORTS = range(20_000, 32_000)
"""Below those that systems assign to outgoing connections."""


def free_port() -> int:
    """
    Return a free port that the system assigns to no other socket by itself.

    No process of this user gets it again before all the others were given: whoever asks
    binds it later, and a cluster of eight asks for sixteen.
    """
    while True:
        port = PORTS[_next_number() % len(PORTS)]
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _next_number() -> int:
    """Count the calls of all processes of this user."""
    path = Path(tempfile.gettempdir(), f"streamer-test-ports-{os.getuid()}")
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        number = int(file.read() or random.randrange(len(PORTS)))
        file.truncate(0)
        file.write(str(number + 1))
        file.flush()
    return number


async def eventually(
    fact: Callable[[], object] | Callable[[], Awaitable[object]], *, within_s: float = 0
) -> None:
    """Wait until `fact` is true, by polling."""
    deadline = time.monotonic() + (within_s or GUARD_S)
    while True:
        value = fact()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)


async def probe(port: int, path: str) -> int:
    """Return the status of a GET; 0 if there is no server."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0
    try:
        writer.write(b"GET %b HTTP/1.0\r\n\r\n" % path.encode())
        status = await reader.readline()
    except OSError:
        return 0
    finally:
        writer.transport.abort()
    return int(status.split()[1]) if status else 0


def _is_in_order(line: str) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False  # a traceback, or the output of another program
    return isinstance(record, dict) and record.get("level") == "info"


class ChildProcess:
    """A program whose output goes to files, so that no pipe has to be read."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._out = folder / f"{name}.out"
        self._err = folder / f"{name}.err"
        self._process: subprocess.Popen[bytes] | None = None

    def _spawn(self, command: list[str], env: dict[str, str] | None = None) -> None:
        assert self._process is None
        with self._out.open("ab") as out, self._err.open("ab") as err:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    @property
    def printed(self) -> str:
        """Everything it has written to stdout, in all of its runs."""
        return self._out.read_text()

    @property
    def logged(self) -> str:
        """Everything it has written to stderr, in all of its runs."""
        return self._err.read_text()

    @property
    def complaints(self) -> str:
        """Everything it has logged, except for lines of level ``info``."""
        lines = self.logged.splitlines(keepends=True)
        return "".join(line for line in lines if not _is_in_order(line))

    def send_signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self) -> int:
        """Wait for it to end; return its exit status."""
        assert self._process is not None
        await eventually(lambda: self.ended)
        status = self._process.wait()
        self._process = None
        return status

    async def stop(self, number: int = signal.SIGTERM) -> int:
        self.send_signal(number)
        return await self.end()

    async def kill(self) -> None:
        await self.stop(signal.SIGKILL)

    def discard(self) -> None:
        """End it, if it still runs."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(GUARD_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


class ServerProcess(ChildProcess):
    """
    `streamer serve` on a data directory of its own, or on the store at `redis`.

    It keeps its port when it is started again. `settings` become environment variables.
    """

    def __init__(self, folder: Path, *, redis: str = "", **settings: object) -> None:
        super().__init__(folder, "serve")
        self.folder = folder
        self.data_dir = folder / "data"
        self.port = free_port()
        self.redis = redis
        self._settings = settings
        self._records: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def store_url(self) -> str:
        return self.redis or socket_url(socket_path(self.data_dir.absolute()))

    def environment(self) -> dict[str, str]:
        """Return the environment without settings, for a process beside this one."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("STREAMER_")}
        folder = str(self.folder)
        return env | {"HOME": folder, "XDG_DATA_HOME": folder, "TMPDIR": folder}

    def spawn(self) -> None:
        # A busy machine would add lines to logs of which tests know each.
        chosen = {"loop_lag_ms": 0} | self._settings
        settings = {f"STREAMER_{name.upper()}": str(it) for name, it in chosen.items()}
        options = ["--redis", self.redis] if self.redis else []
        options = options or ["--demo", "--data-dir", str(self.data_dir)]
        self._spawn(
            [*command("serve"), "--port", str(self.port), *options],
            self.environment() | settings,
        )

    async def start(self) -> ServerProcess:
        """Start it; return when the status of `/readyz` is 200."""
        self.spawn()
        await self.ready()
        return self

    async def ready(self) -> None:
        deadline = time.monotonic() + GUARD_S
        while await self.probe("/readyz") != 200:
            assert not self.ended, f"did not start: {self.logged}"
            assert time.monotonic() < deadline, f"is not ready: {self.logged}"
            await asyncio.sleep(0.01)

    async def probe(self, path: str) -> int:
        """Return the status of a GET; 0 if there is no server."""
        return await probe(self.port, path)

    async def greeting(self) -> str:
        """Return what it printed, once that is complete."""
        await eventually(lambda: "/me/notifications\n" in self.printed)
        return self.printed

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another `streamer` command to its end."""
        return subprocess.run(
            [*command(*arguments)],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=2 * GUARD_S,  # It starts Python, and may wait for nodes.
            check=False,
        )

    # Credentials.

    async def token(
        self,
        player: str,
        *,
        permissions: Iterable[str] = (),
        ttl_s: int = 3_600,
        app: str = "demo",
    ) -> str:
        if app not in self._records:
            self._records[app] = await self.record(app)
        return mint(
            self._records[app],
            Player(player),
            permissions=permissions,
            ttl_s=ttl_s,
            now_s=int(time.time()),
        )

    async def key(self, *, scopes: Iterable[str] = (), app: str = "demo") -> str:
        await self.record(app)
        redis = RedisConnection(self.store_url)
        try:
            return await Apps(redis).add_key(App(app), scopes)
        finally:
            await redis.close()

    async def record(self, app: str) -> Any:
        redis = RedisConnection(self.store_url)
        try:
            apps = Apps(redis)
            try:
                await apps.create(App(app))
            except AppExists:
                pass
            return await apps.get(App(app))
        finally:
            await redis.close()

    # The store, past the server.

    async def ask_store(self, *words: str | int) -> Any:
        redis = RedisConnection(self.store_url)
        try:
            return await redis.call(*words)
        finally:
            await redis.close()

    async def listeners(self, player: str, count: int) -> None:
        """Wait until a player has so many leases."""
        key = keys_of().lease(Log(App("demo"), Player(player)))

        async def counted() -> bool:
            return bool(await self.ask_store("HLEN", key) == count)

        await eventually(counted)

    async def store_pid(self) -> int:
        info = (await self.ask_store("INFO", "server")).decode()
        return int(re.search(r"process_id:(\d+)", info)[1])  # type: ignore[index]


class StoreProcess(ChildProcess):
    """
    A store on a port of its own, for faults that the embedded one cannot have.

    It is a Valkey, or the program at `binary`.
    """

    def __init__(self, folder: Path, *options: str, binary: Path | None = None) -> None:
        super().__init__(folder, "store")
        self._binary = binary or find_server()
        self._folder = folder
        self._options = options
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> StoreProcess:
        self._spawn(
            [
                *(str(self._binary), "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self._folder), "--save", ""),
                *("--maxmemory-policy", "noeviction", *self._options),
            ]
        )
        deadline = time.monotonic() + GUARD_S
        while not await self._answers():
            assert not self.ended, self.printed
            assert time.monotonic() < deadline, self.printed
            await asyncio.sleep(0.01)
        return self

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            # One that requires a password answers as well.
            return (await reader.readline()).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
        finally:
            writer.transport.abort()


DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
FORGETFUL = ("--appendonly", "no")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "streamer", *arguments]
