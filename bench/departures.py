"""
Many connections that end at once: the longest turn of the event loop, in CPU time.

A node in this process has event streams over TCP on this machine, one for each player,
with leases in an embedded store and log lines that go nowhere. All clients disconnect
between two turns, by a close or by a reset. A turn is measured from one call of the
loop to the next, as CPU time of this thread. Ends in portions, all at once, and all at
once again as a control take turns. All at once is what a node did before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import click
import uvloop

from streamer.config import Config
from streamer.core.streams.codec import SseCodec
from streamer.core.streams.session import Session, SessionLimits
from streamer.core.streams.subscription import Start
from streamer.model import App, Log, Player
from streamer.service.inboxes.audiences import PlayerAudiences
from streamer.service.streams import departures
from streamer.service.streams.admission import Admission
from streamer.service.streams.catch_up import CatchUp
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import Views
from streamer.store.presence.leases import Leases
from streamer.store.server.embedded import Embedded
from streamer.transports.streams.detached import BatchWriter, EventStream
from streamer.transports.streams.framing import chunk

AT_ONCE: Final = 50
"""Connects in flight."""

SETTLE_S: Final = 0.3

RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with which a close resets the connection."""


class Node:
    """A node with event streams, and their clients."""

    def __init__(self, server: Embedded, *, per_turn: int) -> None:
        redis = RedisConnection(server.url)
        inbox = Inbox(redis)
        audiences = PlayerAudiences(Views(redis, LogSettings()), inbox)
        catch_up = CatchUp(server.url, inbox, audiences, replay_max=500, check_s=3_600)
        config = Config(connects_per_s_max=1_000_000, connections_max=1_000_000)
        self._redis, self._catch_up = redis, catch_up
        self._admission = Admission(catch_up, Leases(redis, leases_max=10), config)
        self._admission._departures = departures.Departures(per_turn)
        self._admission._closings = departures.Departures(per_turn)
        self._running = asyncio.create_task(self._admission.run())
        self._writer = BatchWriter(chunk)
        self._streams: set[Any] = set()
        self._clients: list[socket.socket] = []

    async def open(self, players: int) -> None:
        while not self._catch_up.connected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with socket.create_server(("127.0.0.1", 0), backlog=AT_ONCE) as listening:
            for first in range(0, players, AT_ONCE):
                numbers = range(first, min(first + AT_ONCE, players))
                await asyncio.gather(*(self._open(listening, n) for n in numbers))
        while self._catch_up.hub.needs_read:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def _open(self, listening: socket.socket, number: int) -> None:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        self._clients.append(client)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=accepted)
        connection = self._admission.admit()
        stream = EventStream(connection, self._writer)
        session = Session(
            Start.LATEST,
            codec=SseCodec(),
            sink=stream,
            limits=SessionLimits(),
            pinged_at_s=1e12,
            connection=self._admission.new_connection(),
            transport=self._admission.counters.sse,
        )
        await connection.join(Log(App("bench"), Player(f"player-{number}")), session)
        transport.set_protocol(stream)
        stream.begin(transport, self._streams, None)

    async def lose_all(self, *, reset: bool) -> tuple[float, float]:
        """Return the longest turn in ms, and the CPU time per connection in µs."""
        await asyncio.sleep(SETTLE_S)
        turns = _Turns()
        for client in self._clients:
            # Nothing is unread, which would make a reset of a close.
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while client.recv(65_536):
                    pass
        for client in self._clients:
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
        turns.begin()
        while self._streams or len(self._admission._departures):  # noqa: ASYNC110
            await asyncio.sleep(0)
        await self._admission._leases.wait_released()
        turns.end()
        return turns.longest_s * 1e3, turns.sum_s / len(self._clients) * 1e6

    async def close(self) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])
        await self._redis.close()


class _Turns:
    """Measures each iteration of the loop: it calls itself in every one."""

    def begin(self) -> None:
        self.longest_s = self.sum_s = 0.0
        self._is_on = True
        self._begun_s = time.thread_time()
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        now_s = time.thread_time()
        taken_s, self._begun_s = now_s - self._begun_s, now_s
        self.longest_s = max(self.longest_s, taken_s)
        self.sum_s += taken_s
        if self._is_on:
            asyncio.get_running_loop().call_soon(self._next)

    def end(self) -> None:
        self._is_on = False


async def compare(players: int, rounds: int) -> None:
    ways = {
        f"{departures.PER_TURN} in a turn": departures.PER_TURN,
        "all at once": sys.maxsize,
        "all at once, again": sys.maxsize,
    }
    taken: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="departures-") as folder:
        server = await Embedded.start(Path(folder), fsync="no")
        try:
            for _ in range(rounds):
                for name, reset in random.sample(
                    [(name, reset) for name in ways for reset in (False, True)],
                    2 * len(ways),
                ):
                    node = Node(server, per_turn=ways[name])
                    await node.open(players)
                    figures = await node.lose_all(reset=reset)
                    taken.setdefault((name, reset), []).append(figures)
                    await node.close()
        finally:
            await server.stop()
    click.echo(f"{players} connections, {rounds} rounds, medians")
    for (name, reset), rows in sorted(taken.items(), key=lambda it: it[0][::-1]):
        longest_ms, sum_us = map(statistics.median, zip(*rows, strict=True))
        how = "reset" if reset else "closed"
        click.echo(
            f"  {how:8}{name:22}{longest_ms:8.1f} ms longest turn"
            f"{sum_us:8.1f} µs a connection"
        )


@click.command(help=__doc__)
@click.option("--players", default=2_000, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(players: int, rounds: int) -> None:
    logging.basicConfig(stream=open("/dev/null", "w"), level=logging.INFO)
    uvloop.run(compare(players, rounds))


if __name__ == "__main__":
    main()
