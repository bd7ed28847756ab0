"""
What an allocator does for the embedded store: its CPU per append and page, its memory.

Servers of the same program run side by side, each with another allocator loaded before
the C library's: ``--preload /usr/lib/x86_64-linux-gnu/libjemalloc.so.2``, and so on.
Two have none: the second is the control. They take turns, in an order that is random in
each round, and the CPU time is that of the server's process. Then half of the logs are
removed, which shows how much of the memory an allocator gives back.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from streamer.bench.usage import cpu_s
from streamer.model import App, Log, Player
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Inbox
from streamer.store.server.embedded import Embedded

AT_ONCE: Final = 20
"""Requests in flight, each a packet of its own."""

SIZES: Final = (120, 200, 200, 200, 450, 1_500)
"""Bytes of entries, in turn."""

SETTLE_S: Final = 2.0


class Store:
    """An embedded store with an allocator, "" for that of the C library."""

    def __init__(self, name: str, preload: str, folder: Path) -> None:
        self.name = name
        self._preload = preload
        self._folder = folder
        self.append_us: list[float] = []
        self.page_us: list[float] = []

    async def start(self) -> None:
        before = os.environ.get("LD_PRELOAD")
        os.environ["LD_PRELOAD"] = self._preload
        try:
            self._server = await Embedded.start(self._folder, fsync="everysec")
        finally:
            del os.environ["LD_PRELOAD"]
            if before is not None:
                os.environ["LD_PRELOAD"] = before
        if self._preload and not _has_loaded(self._server.pid, self._preload):
            raise click.UsageError(f"{self._preload} could not be loaded")
        self._redis = RedisConnection(self._server.url)
        self._inbox = Inbox(self._redis)

    async def stop(self) -> None:
        await self._redis.close()
        await self._server.stop()

    async def append(self, plan: Sequence[tuple[Log, bytes]]) -> None:
        """Append entries, one in a packet; note the CPU time of each."""
        before_s = cpu_s(self._server.pid)
        for first in range(0, len(plan), AT_ONCE):
            await asyncio.gather(
                *(
                    self._inbox.append(log, [fragment])
                    for log, fragment in plan[first : first + AT_ONCE]
                )
            )
        self.append_us.append((cpu_s(self._server.pid) - before_s) / len(plan) * 1e6)

    async def pages(self, logs: Sequence[Log]) -> None:
        """Read pages of 20; note the CPU time of each."""
        before_s = cpu_s(self._server.pid)
        for first in range(0, len(logs), AT_ONCE):
            await asyncio.gather(
                *(
                    self._inbox.page(log, count=20)
                    for log in logs[first : first + AT_ONCE]
                )
            )
        self.page_us.append((cpu_s(self._server.pid) - before_s) / len(logs) * 1e6)

    async def remove(self, logs: Sequence[Log]) -> None:
        keys = [key for log in logs for key in self._redis.keys.inbox(log)]
        for first in range(0, len(keys), 200):
            await self._redis.call("DEL", *keys[first : first + 200], write=True)

    async def memory_mib(self) -> tuple[float, float]:
        """Return the memory of data, as the server counts it, and of the process."""
        info = bytes(await self._redis.call("INFO", "memory"))
        used = int(info.partition(b"used_memory:")[2].split(b"\r\n")[0])
        return used / 2**20, _resident_bytes(self._server.pid) / 2**20


def _has_loaded(pid: int, library: str) -> bool:
    return os.path.realpath(library) in Path(f"/proc/{pid}/maps").read_text()


def _resident_bytes(pid: int) -> int:
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return resident * os.sysconf("SC_PAGE_SIZE")


def _plan(
    logs: Sequence[Log], count: int, numbers: random.Random
) -> list[tuple[Log, bytes]]:
    sizes = [numbers.choice(SIZES) for _ in range(count)]
    return [(numbers.choice(logs), b'"body":"%b"' % (b"x" * it)) for it in sizes]


async def compare(
    preloads: Sequence[str], players: int, rounds: int, count: int
) -> None:
    names = ["none", "none, again", *(Path(it).name for it in preloads)]
    logs = [Log(App("bench"), Player(f"player-{n}")) for n in range(players)]
    numbers = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="allocators-") as folder:
        stores = [
            Store(name, preload, Path(folder) / str(i))
            for i, (name, preload) in enumerate(
                zip(names, ["", "", *preloads], strict=True)
            )
        ]
        for store in stores:
            await store.start()
        try:
            for _ in range(rounds):
                plan = _plan(logs, count, numbers)
                asked = numbers.choices(logs, k=count // 4)
                for store in random.sample(stores, len(stores)):
                    await store.append(plan)
                    await store.pages(asked)
            await asyncio.sleep(SETTLE_S)
            full = [await store.memory_mib() for store in stores]
            for store in stores:
                await store.remove(logs[::2])
            await asyncio.sleep(SETTLE_S)
            half = [await store.memory_mib() for store in stores]
        finally:
            for store in stores:
                await store.stop()
    plain = stores[0]
    click.echo(
        f"{'':28}{'append':>9}{'ratio':>7}{'page':>9}{'ratio':>7}"
        f"{'data':>9}{'process':>9}{'half':>7}{'process':>9}   (µs, MiB)"
    )
    for store, (used, rss), (used_half, rss_half) in zip(
        stores, full, half, strict=True
    ):
        append, page = (_typical(it) for it in (store.append_us, store.page_us))
        click.echo(
            f"{store.name:28}{append:9.1f}{append / _typical(plain.append_us):7.2f}"
            f"{page:9.1f}{page / _typical(plain.page_us):7.2f}"
            f"{used:9.1f}{rss:9.1f}{used_half:7.1f}{rss_half:9.1f}"
        )


def _typical(values: Sequence[float]) -> float:
    """Return the lower quartile: other processes only add to the time."""
    return statistics.quantiles(values, n=4)[0]


@click.command(help=__doc__)
@click.option("--preload", multiple=True, help="Library of an allocator; repeatable.")
@click.option("--players", default=2_000, show_default=True)
@click.option("--rounds", default=15, show_default=True)
@click.option("--count", default=4_000, show_default=True, help="Appends per round.")
def main(preload: tuple[str, ...], players: int, rounds: int, count: int) -> None:
    asyncio.run(compare(preload, players, rounds, count))


if __name__ == "__main__":
    main()
