"""
What announcements by player's channel cost, and what those by node would cost instead.

A node subscribes to a channel for each player that is connected to it. The alternative
is a channel per node and bucket, and scripts that find the nodes of a player in the
player's leases. Three parts, each with its control in the same run and in turns:

* what a connect takes with the subscription and without, of the node's thread and of
  the store's process;
* what an announcement takes of the store: to the player's channel, and to the nodes of
  the player's leases, where the player is away or on one node;
* what a node takes for an announcement that concerns none of its connections, and how
  much memory a channel takes in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click
import hiredis

from streamer.bench.usage import cpu_s
from streamer.errors import StoreUnavailable
from streamer.model import App, Log, Player
from streamer.store.client import pubsub as pubsub_module
from streamer.store.client.connection import RedisConnection
from streamer.store.client.pubsub import PubSub
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import Views
from streamer.store.presence.leases import Leases
from streamer.store.server.embedded import Embedded

PLAYERS: Final = 500
"""Connects in a turn."""

AT_ONCE: Final = 50
"""Connects in flight: a burst, as in a storm."""

ANNOUNCED: Final = 5_000
"""Announcements in a turn."""

CHANNELS: Final = 10_000

SETTLE_S: Final = 1.0

PAYLOAD: Final = b"entry 1 1700000000000000 7 9 " + b"x" * 250

TO_PLAYER: Final = "redis.call('SPUBLISH', KEYS[2], ARGV[1])"
TO_NODES: Final = """
local told = {}
for _, held in ipairs(redis.call('HKEYS', KEYS[1])) do
    local node = string.sub(held, 1, string.find(held, ':', 1, true) - 1)
    if not told[node] then
        told[node] = true
        redis.call('SPUBLISH', KEYS[3] .. node, ARGV[1])
    end
end
"""
REPEATED: Final = "for _ = 1, tonumber(ARGV[2]) do %s end"


class Silent:
    """Takes all announcements, and does nothing with them."""

    def may_take(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **named: None


class Bench:
    """A store, and the parts of a node that a connect uses."""

    def __init__(self, server: Embedded) -> None:
        self._pid = server.pid
        self.redis = RedisConnection(server.url)
        self.pubsub = PubSub(server.url, Silent())
        self.leases = Leases(self.redis, leases_max=10)
        self.views = Views(self.redis, LogSettings())
        self._numbers = iter(range(10**9))

    def players(self, count: int) -> list[Log]:
        return [
            Log(App("bench"), Player(f"p{next(self._numbers)}")) for _ in range(count)
        ]

    async def connects(self, *, subscribing: bool) -> tuple[float, float]:
        """Return the CPU time per connect, in µs, of this thread and of the store."""
        logs = self.players(PLAYERS)
        store_s, node_s = cpu_s(self._pid), time.thread_time()
        for first in range(0, len(logs), AT_ONCE):
            await asyncio.gather(
                *(
                    self._connect(log, subscribing=subscribing)
                    for log in logs[first : first + AT_ONCE]
                )
            )
        # Leaving the channels is a part of the cost.
        self.pubsub.on_watch(asyncio.get_running_loop().time() + 60)
        await self.redis.call("PING")
        node_s = time.thread_time() - node_s
        await asyncio.sleep(0.05)
        store_s = cpu_s(self._pid) - store_s
        return node_s / len(logs) * 1e6, store_s / len(logs) * 1e6

    async def _connect(self, log: Log, *, subscribing: bool) -> None:
        begun = self.pubsub.begin_subscribe(log) if subscribing else None
        lease, _ = await self.leases.acquire(
            log, self.leases.new_connection(), commands=self.views.peek(log)
        )
        if begun is not None:
            await self.pubsub.wait_confirmed(begun)
        # The first read follows.
        await self.redis.call("HMGET", self.redis.keys.inbox(log)[1], "a", "b", "c")
        await self.leases.release(lease)
        if begun is not None:
            self.pubsub.unsubscribe(log)

    async def announces(self, body: str, lease: str, channel: str) -> float:
        """Return the CPU time of the store per announcement, in µs."""
        before_s = cpu_s(self._pid)
        for _ in range(10):
            await self.redis.call(
                "EVAL",
                REPEATED % body,
                "3",
                lease,
                channel,
                "{bench}:node:",
                PAYLOAD,
                str(ANNOUNCED // 10),
                write=True,
            )
        return (cpu_s(self._pid) - before_s) / ANNOUNCED * 1e6


async def in_turns(
    ways: Mapping[str, Callable[[], Awaitable[tuple[float, ...]]]], rounds: int
) -> dict[str, list[float]]:
    """Return the median figures of each way."""
    taken: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name in random.sample(list(ways), len(ways)):
            taken[name].append(await ways[name]())
    return {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in taken.items()
    }


async def compare_connects(bench: Bench, rounds: int) -> None:
    async def subscribing() -> tuple[float, ...]:
        return await bench.connects(subscribing=True)

    async def without() -> tuple[float, ...]:
        return await bench.connects(subscribing=False)

    ways = {"without": without, "without, again": without, "subscribing": subscribing}
    click.echo("a connect: lease, views, read; µs of the node's thread and the store")
    for name, (node_us, store_us) in (await in_turns(ways, rounds)).items():
        click.echo(f"  {name:24}{node_us:8.1f}{store_us:8.1f}")


async def compare_announcements(bench: Bench, rounds: int) -> None:
    redis = bench.redis
    await redis.call("HSET", "{bench}:here", "N:connection", "", write=True)
    bench.pubsub._subscriber.send(("SSUBSCRIBE", "{bench}:node:N", "{bench}:present"))

    def way(body: str, lease: str, channel: str) -> Any:
        async def announce() -> tuple[float, ...]:
            return (await bench.announces(body, lease, channel),)

        return announce

    away, here = ("{bench}:away", "{bench}:absent"), ("{bench}:here", "{bench}:present")
    ways = {
        "away, player's channel": way(TO_PLAYER, *away),
        "away, the same again": way(TO_PLAYER, *away),
        "away, nodes of leases": way(TO_NODES, *away),
        "here, player's channel": way(TO_PLAYER, *here),
        "here, the same again": way(TO_PLAYER, *here),
        "here, nodes of leases": way(TO_NODES, *here),
    }
    click.echo("an announcement in a script; µs of the store")
    for name, (store_us,) in (await in_turns(ways, rounds)).items():
        click.echo(f"  {name:24}{store_us:8.2f}")


async def measure_foreign(bench: Bench, rounds: int) -> None:
    """Print what announcements take that concern no connection of the node."""
    channel = b"streamer:{bench}:nobody"
    message = b"*3\r\n$8\r\nsmessage\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        len(channel),
        channel,
        len(PAYLOAD),
        PAYLOAD,
    )
    reader, taken = hiredis.Reader(), []
    for _ in range(rounds):
        begun_s = time.thread_time()
        for _ in range(ANNOUNCED // 100):
            reader.feed(message * 100)
            for reply in [reader.gets() for _ in range(100)]:
                bench.pubsub.on_message(*reply)
        taken.append((time.thread_time() - begun_s) / ANNOUNCED * 1e6)
    click.echo("an announcement that concerns no connection; µs of the node's thread")
    click.echo(f"  {'parsed and dropped':24}{statistics.median(taken):8.2f}")


async def measure_channels(bench: Bench) -> None:
    async def used() -> int:
        info = bytes(await bench.redis.call("INFO", "memory"))
        return int(info.partition(b"used_memory:")[2].split(b"\r\n")[0])

    logs = bench.players(CHANNELS)
    await asyncio.sleep(SETTLE_S)
    before = await used()
    for first in range(0, len(logs), AT_ONCE):
        part = logs[first : first + AT_ONCE]
        await asyncio.gather(*map(bench.pubsub.subscribe, part))
    await asyncio.sleep(SETTLE_S)
    size = (await used() - before) / len(logs)
    click.echo(f"memory of a channel in the store: {size:.0f} bytes")
    await measure_interruption(bench, logs)


async def measure_interruption(bench: Bench, logs: list[Log]) -> None:
    """Print what a lost connection to the store takes: all subscriptions again."""
    node, store = [], []
    for _ in range(5):
        store_s, node_s = cpu_s(bench._pid), time.thread_time()
        bench.pubsub.reconnect()
        while bench.pubsub.connected:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        for log in logs[:: len(logs) - 1]:
            while True:
                with contextlib.suppress(StoreUnavailable):
                    await bench.pubsub.subscribe(log)
                    break
                await asyncio.sleep(0.01)
        node.append((time.thread_time() - node_s) / len(logs) * 1e6)
        store.append((cpu_s(bench._pid) - store_s) / len(logs) * 1e6)
        for log in logs[:: len(logs) - 1]:
            bench.pubsub.unsubscribe(log)
    click.echo(
        f"an interruption, per channel: {statistics.median(node):.1f} µs of the node, "
        f"{statistics.median(store):.1f} µs of the store"
    )


async def measure(rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="addressing-") as folder:
        server = await Embedded.start(Path(folder), fsync="everysec")
        try:
            bench = Bench(server)
            running = asyncio.create_task(bench.pubsub.run())
            while not bench.pubsub.connected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await compare_connects(bench, rounds)
            await compare_announcements(bench, rounds)
            await measure_foreign(bench, rounds)
            await measure_channels(bench)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            await bench.redis.close()
        finally:
            await server.stop()


@click.command(help=__doc__)
@click.option("--rounds", default=15, show_default=True)
def main(rounds: int) -> None:
    pubsub_module.LINGER_S = 0.0  # type: ignore[misc]
    asyncio.run(measure(rounds))


if __name__ == "__main__":
    main()
