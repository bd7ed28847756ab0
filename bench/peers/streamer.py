"""
streamer itself, started here.

Uses its command line, and its store for credentials as `streamer token` does, without
the price of a process each.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path
from typing import ClassVar

from streamer.bench.deployment import StreamerTarget
from streamer.bench.requests import player_name
from streamer.bench.target import Requirements, Turns
from streamer.core.access.tokens import mint
from streamer.model import App, Player
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection
from streamer.store.server.directory import socket_path, socket_url

from ..run.turns import TurnMeter
from .base import Peer, free_port
from .stores import used_bytes

__all__ = ["Streamer"]

TOKEN_TTL_S = 86_400

_KEY = re.compile(r"^ +(sk_\S+)$", re.MULTILINE)


class Streamer(Peer, StreamerTarget):
    """
    One node of it on its embedded store, all features at their defaults.

    Args:
        workers: Its number of processes; several have a supervisor.
        nodes: With further nodes, as large, on the same store.

    """

    name = "streamer"
    title = "streamer"
    does = "verifies tokens, takes leases, stores with fsync, resumes"
    python: ClassVar[str] = sys.executable
    """The interpreter in whose environment streamer is installed."""

    def __init__(self, workers: int = 1, nodes: int = 1) -> None:
        super().__init__()
        self.others: list[tuple[str, int]] = []
        """The addresses of further nodes."""
        self._workers, self._nodes = workers, nodes
        self.start_s *= workers
        self._requirements = Requirements()
        self._folder = Path()
        self._publisher: tuple[str, int] | None = None
        self._meter: TurnMeter | None = None

    @property
    def publisher(self) -> tuple[str, int]:
        return self._publisher or self.address

    def start(self, requirements: Requirements, folder: Path) -> None:
        self._requirements, self._folder = requirements, folder
        self.address = ("127.0.0.1", free_port())
        self.store_url = socket_url(socket_path(self._data_dir))
        if requirements.turns:
            self._meter = TurnMeter(folder)
        self._launch()
        self.key = self._printed_key(folder / "out.log")

    def restart(self) -> None:
        """Kill it without a warning, and start it again on what it has stored."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()
        self.roots = []
        self._launch()

    def mint(self, players: range) -> list[str]:
        return asyncio.run(self._mint(players))

    def turns(self) -> Turns | None:
        return None if self._meter is None else self._meter.read()

    def store_bytes(self) -> int:
        return used_bytes(self.store_url)

    @property
    def _data_dir(self) -> Path:
        return self._folder / "data"

    def _launch(self) -> None:
        needs, folder = self._requirements, self._folder
        connections = str(max(needs.connections + 1_000, 10_000))
        env = {
            "STREAMER_LISTENERS_PER_PLAYER_MAX": connections,
            "STREAMER_CONNECTIONS_MAX": connections,
            "STREAMER_CONNECTS_PER_S_MAX": str(needs.connects_per_s),
        }
        serve = [self.python, "-m", "streamer", "serve", "--port"]
        store = ["--data-dir", str(self._data_dir)]
        node = [*serve, str(self.address[1]), "--demo", *store]
        node += ["--workers", str(self._workers)]
        self.run(node, folder, {**env, **TurnMeter.environment(self._meter)})
        self._wait_until_open("/readyz", folder)
        for number in range(1, self._nodes):
            self.others.append(("127.0.0.1", free_port()))
            serving = [*serve, str(self.others[-1][1]), "--redis", self.store_url]
            serving += ["--workers", str(self._workers)]
            self.run(serving, folder / f"node{number}", env)
            self._wait_until_open("/readyz", folder, self.others[-1])
        if needs.publisher:
            folder = folder / "publisher"
            self._publisher = ("127.0.0.1", free_port())
            store = ["--redis", self.store_url, "--no-background"]
            node = [*serve, str(self._publisher[1]), *store]
            self.run(node, folder, env, publishes=True)
            self._wait_until_open("/readyz", folder, self._publisher)

    def _printed_key(self, log: Path) -> str:
        # It is printed when all workers are ready. A request is answered by the first.
        until_s = time.monotonic() + self.start_s
        while time.monotonic() < until_s:
            if match := _KEY.search(log.read_text()):
                return match[1]
            if any(process.poll() is not None for process in self._processes):
                break
            time.sleep(0.01)
        raise RuntimeError(f"no key was printed: {log.read_text()}")

    async def _mint(self, players: range) -> list[str]:
        redis = RedisConnection(self.store_url, name="bench")
        try:
            record = await Apps(redis).get(App("demo"))
        finally:
            await redis.close()
        assert record is not None, "a new store has the app demo"
        now_s = int(time.time())
        return [
            mint(record, Player(player_name(i)), ttl_s=TOKEN_TTL_S, now_s=now_s)
            for i in players
        ]
