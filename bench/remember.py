"""
What remembering costs: CPU per delivery with the history and without, and its memory.

Announcements are handed to the Pub/Sub of a node in this process, as replies of the
store. Its readers are sessions whose events go to TCP connections on this machine. In a
server a delivery costs more, since the announcement has to be received: the share of
the history is an upper limit. With, without, and without once more as a control take
turns of 200 entries, so that the load of the machine meets all three.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
import socket
import statistics
import time
import tracemalloc
from collections.abc import Iterator
from typing import Final

import click

from streamer.core.counters import TransportCounters
from streamer.core.streams.batch_writer import ONE_BY_ONE, BatchWriter
from streamer.core.streams.codec import WebSocketCodec
from streamer.core.streams.session import Session, SessionLimits
from streamer.core.streams.subscription import History as LogHistory
from streamer.core.streams.subscription import Start
from streamer.errors import Disconnect
from streamer.model import App, Entry, Log, Player, Position
from streamer.service.inboxes.audiences import PlayerAudiences
from streamer.service.inspection import history as sizes
from streamer.service.inspection.history import History
from streamer.service.streams.catch_up import (
    DISPLACED_FOLLOWERS_MAX,
    PROBE_APP,
    CatchUp,
)
from streamer.service.streams.poll_waiter import PollWaiter
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import Views

APP: Final = App("bench")
FRAGMENT: Final = b'"type":"gift","title":"A gift","body":"' + b"x" * 80 + b'"}'
TURN: Final = 200
NOWHERE: Final = "unix:///nowhere"

_codec: Final = WebSocketCodec()
_limits: Final = SessionLimits()


class Forgetful(CatchUp):
    """Delivers as `CatchUp` does, and remembers nothing."""

    def on_entry(self, log: Log, entry: Entry) -> None:
        if self.hub.dispatch(log, entry) and log.app != PROBE_APP:
            latency_s = time.time() - entry.at_us / 1e6
            self._counters.publish_to_write_s.observe(latency_s)
        self._expiries.note_entry(log, entry)
        if entry.offset > self._inbox.entries_max:
            self.hub.note_ended(log, followers_max=DISPLACED_FOLLOWERS_MAX)


class SocketSink:
    """Writes to a TCP connection, whose other end is in this process."""

    batch_writer: BatchWriter = ONE_BY_ONE

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self._far = socket.create_connection(listening.getsockname())
            self._near, _ = listening.accept()
        self._near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._near.setblocking(False)
        self._far.setblocking(False)

    def write(self, event: bytes, buffer_bytes_max: int) -> bool:
        self._near.send(event)
        return True

    def write_events(self, events: list[bytes], buffer_bytes_max: int) -> bool:
        return self.write(b"".join(events), buffer_bytes_max)

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._far.recv(1 << 20):
                pass

    def buffered(self) -> int:
        return 0

    def waiting_since_s(self) -> float | None:
        return None

    def close(self, disconnect: Disconnect) -> None:
        pass

    def abort(self, disconnect: Disconnect) -> None:
        pass


class Node:
    """A node with live readers, each player with the same number."""

    def __init__(self, players: int, readers: int, *, remembers: bool) -> None:
        redis = RedisConnection(NOWHERE)
        inbox = Inbox(redis)
        kind = CatchUp if remembers else Forgetful
        self._catch_up = kind(
            NOWHERE,
            inbox,
            PlayerAudiences(Views(redis, LogSettings()), inbox),
            replay_max=500,
            check_s=3_600,
            history=History(),
        )
        self._sinks: list[SocketSink] = []
        self._readers = readers
        logs = [Log(APP, Player(f"player-{n}")) for n in range(players)]
        for log in logs:
            for _ in range(readers):
                self._add(log)
        self._pubsub = self._catch_up._pubsub
        channels = [redis.keys.channel(log).encode() for log in logs]
        self._pubsub._logs = dict(zip(channels, logs, strict=True))
        self._turn = itertools.cycle(channels)
        self._offsets = dict.fromkeys(channels, 0)

    def _add(self, log: Log) -> None:
        sink = SocketSink()
        session = Session(
            Start.LATEST, codec=_codec, sink=sink, limits=_limits, pinged_at_s=1e12
        )
        self._catch_up.hub.attach(log, session)
        start = Position(1, 1, 0, 0)
        read_from = session.subscription.begin_read()
        session.on_history(read_from, LogHistory(start, start, []))
        self._sinks.append(sink)

    def turn_ns(self) -> float:
        """Deliver `TURN` entries; return the CPU time per delivery."""
        announcements = []
        for channel in itertools.islice(self._turn, TURN):
            self._offsets[channel] = offset = self._offsets[channel] + 1
            head = b"entry 1 %d %d %d " % (time.time_ns() // 1_000, offset, offset)
            announcements.append((channel, head + FRAGMENT))
        on_message = self._pubsub.on_message
        begun_ns = time.thread_time_ns()
        for channel, payload in announcements:
            on_message(b"smessage", channel, payload)
        taken_ns = time.thread_time_ns() - begun_ns
        for sink in self._sinks:
            sink.drain()
        return taken_ns / (TURN * self._readers)


def compare(players: int, readers: int, rounds: int) -> None:
    """Print the CPU time per delivery, and the share of the history."""
    nodes = {
        "without": Node(players, readers, remembers=False),
        "without, again": Node(players, readers, remembers=False),
        "with": Node(players, readers, remembers=True),
    }
    taken: dict[str, list[float]] = {name: [] for name in nodes}
    for number in range(rounds + 5):
        for name in random.sample(list(nodes), len(nodes)):
            turn_ns = nodes[name].turn_ns()
            if number >= 5:
                taken[name].append(turn_ns)
    click.echo(f"{players} players with {readers} readers each, {rounds} rounds")
    base = statistics.median(taken["without"])
    for name, turns in taken.items():
        median = statistics.median(turns)
        ratios = [a / b for a, b in zip(turns, taken["without"], strict=True)]
        share = statistics.median(ratios) - 1
        click.echo(
            f"  {name:16}{median:8.0f} ns per delivery {median / base - 1:+7.2%} "
            f"(paired {share:+.2%})"
        )


def full() -> Iterator[None]:
    """Fill every part of a history, each time with names of its own."""
    history = History()
    logs = (
        Log(APP, f"a player with a name of usual length {n}") for n in itertools.count()
    )
    for offset in range(sizes.ENTRIES_MAX):
        history.announcements.append((next(logs), offset, offset, "", time.time()))
    yield
    for number in range(sizes.REPLAYS_MAX):
        history.replayed(next(logs), f"{number:016x}", number, number + 9)
    yield
    for number in range(sizes.ACKS_MAX):
        log = next(logs)
        history.acknowledged(log, [(log.name, number + 300)])
    yield
    for _ in range(sizes.PLAYERS_MAX):
        log = next(logs)
        for number in range(sizes.EVENTS_PER_PLAYER):
            reader = PollWaiter(
                Position(1, 1, 300 + number, 1),
                f"{number:016x}",
                TransportCounters("x"),
            )
            history.closed(
                log,
                reader,
                (0, "left"),
                transport="websocket",
                client=f"192.0.2.{number}",
                connected_ms=time.time_ns() // 1_000_000,
            )
    yield


def weigh() -> None:
    """Print the memory of a full history."""
    gc.collect()
    tracemalloc.start()
    parts = ("entries", "reads", "acknowledgements", "events")
    before = tracemalloc.get_traced_memory()[0]
    filling = full()
    for part in parts:
        next(filling)
        gc.collect()
        now = tracemalloc.get_traced_memory()[0]
        click.echo(f"  {part:18}{(now - before) / 2**20:6.1f} MiB")
        before = now
    tracemalloc.stop()


@click.command()
@click.option("--rounds", default=200, show_default=True)
def main(rounds: int) -> None:
    """Measure, and print the results."""
    compare(100, 1, rounds)
    compare(1, 50, rounds // 10)
    click.echo("memory of a full history")
    weigh()


if __name__ == "__main__":
    main()
