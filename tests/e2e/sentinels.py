"""A store that Sentinels watch, as processes: a primary, a replica, three Sentinels."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from streamer.store.server.server_binary import find_server

from .processes import DURABLE, GUARD_S, ChildProcess, StoreProcess, free_port

NAME = "main"
PASSWORD = "of-the-store"
SENTINEL_PASSWORD = "of-the-sentinels"

DOWN_AFTER_MS = 500
"""Silence after which a Sentinel takes a server for dead."""


class SentinelProcess(ChildProcess):
    """A Sentinel that watches the primary at a port."""

    def __init__(self, folder: Path, name: str, primary: int) -> None:
        super().__init__(folder, name)
        self.port = free_port()
        self._config = folder / f"{name}.conf"
        self._config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"requirepass {SENTINEL_PASSWORD}\n"
            f"sentinel sentinel-pass {SENTINEL_PASSWORD}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {primary} 2\n"
            f"sentinel auth-pass {NAME} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {NAME} 2000\n"
        )

    def start(self) -> None:
        self._spawn([str(find_server()), str(self._config), "--sentinel"])


class WatchedStore:
    """
    The whole: stores with one password, Sentinels with another.

    `start` returns when every Sentinel knows the replica and the other Sentinels, so
    that a failover can begin.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        options = (*DURABLE, *options)
        options += ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
        options += ("--repl-diskless-sync-delay", "0")
        self.primary = StoreProcess(_made(folder / "primary"), *options)
        self.replica = StoreProcess(
            _made(folder / "replica"),
            *options,
            *("--replicaof", f"127.0.0.1 {self.primary.port}"),
        )
        self.sentinels = [
            SentinelProcess(folder, f"sentinel{number}", self.primary.port)
            for number in range(3)
        ]

    @property
    def url(self) -> str:
        """The URL of the store with both passwords."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return (
            f"redis+sentinel://:{PASSWORD}@{hosts}/{NAME}"
            f"?sentinel_password={SENTINEL_PASSWORD}"
        )

    async def start(self) -> WatchedStore:
        await asyncio.gather(self.primary.start(), self.replica.start())
        for sentinel in self.sentinels:
            sentinel.start()
        deadline = time.monotonic() + GUARD_S
        while not all([await self._complete(each) for each in self.sentinels]):
            assert time.monotonic() < deadline, self.sentinels[0].printed
            await asyncio.sleep(0.05)
        return self

    async def _complete(self, sentinel: SentinelProcess) -> bool:
        state = await ask(sentinel.port, SENTINEL_PASSWORD, f"SENTINEL MASTER {NAME}")
        fields = dict(zip(state[::2], state[1::2], strict=False))
        return (
            fields.get("flags") == "master"
            and fields.get("num-slaves") == "1"
            and fields.get("num-other-sentinels") == "2"
            and "master_link_status:up" in await self._replication()
        )

    async def _replication(self) -> str:
        return "\n".join(await ask(self.replica.port, PASSWORD, "INFO replication"))

    async def fail_over(self) -> None:
        """Ask a Sentinel to promote the replica, although the primary works."""
        port = self.sentinels[0].port
        await ask(port, SENTINEL_PASSWORD, f"SENTINEL FAILOVER {NAME}")

    def discard(self) -> None:
        for process in (*self.sentinels, self.replica, self.primary):
            process.discard()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


async def ask(port: int, password: str, command: str) -> list[str]:
    """Return the lines of a reply without their lengths; empty without a reply."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return []
    try:
        writer.write(f"AUTH {password}\r\n{command}\r\nPING\r\n".encode())
        lines = []
        while (line := (await reader.readline()).decode().strip()) != "+PONG":
            if not line and reader.at_eof():
                return []
            lines.append(line)
        # The first line is the reply of AUTH.
        return [line for line in lines[1:] if not line.startswith(("*", "$"))]
    except OSError:
        return []
    finally:
        writer.transport.abort()
