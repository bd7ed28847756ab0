"""
Expiry: how soon badges are right after a notification to everyone has expired.

One process of streamer, one WebSocket for each player. A notification to everyone
expires, and each stream has to be told the unread count without it. The times are from
the expiry to the message, by the clock of this machine, which is the store's as well.
The readers share one process, so a part of the time is theirs.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Final, cast

import click
import httpx2
import uvloop

from streamer.bench.requests import player_name
from streamer.bench.target import Requirements

from .peers.streamer import Streamer

AT_ONCE: Final = 200
"""Handshakes in flight."""
GUARD_S: Final = 60
TTL_S: Final = 3

_UNREAD: Final = re.compile(rb'"type":"unread","unread":(\d+)')


class Reader(asyncio.Protocol):
    """A stream whose unread count is awaited."""

    def __init__(self, token: str, host: str) -> None:
        self._request = (
            f"GET /v1/stream HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Authorization: Bearer {token}\r\n\r\n"
        ).encode()
        loop = asyncio.get_running_loop()
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.notified: asyncio.Future[None] = loop.create_future()
        self.corrected: asyncio.Future[float] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.greeted.done() and b'"type":"hello"' in data:
            self.greeted.set_result(None)
        if not self.notified.done() and b'"type":"notification"' in data:
            self.notified.set_result(None)
        if self.notified.done() and not self.corrected.done():
            for match in _UNREAD.finditer(data):
                if match[1] == b"0":
                    self.corrected.set_result(time.time())
                    break


async def measure(server: Streamer, count: int) -> list[float]:
    """Return how late each stream was told, in seconds, ascending."""
    host, port = server.address
    loop = asyncio.get_running_loop()
    slots = asyncio.Semaphore(AT_ONCE)

    async def open_reader(token: str) -> Reader:
        async with slots:
            reader = Reader(token, f"{host}:{port}")
            await loop.create_connection(lambda: reader, host, port)
            await asyncio.wait_for(reader.greeted, GUARD_S)
            return reader

    tokens = await asyncio.to_thread(server.mint, range(count))
    readers = await asyncio.gather(*map(open_reader, tokens))
    async with httpx2.AsyncClient(trust_env=False, timeout=GUARD_S) as client:
        answer = await client.post(
            f"http://{host}:{port}/v1/notifications",
            headers={"Authorization": f"Bearer {server.key}"},
            json={"to": {"everyone": True}, "title": "Soon over", "ttl_s": TTL_S},
        )
        answer.raise_for_status()
        page = await client.get(
            f"http://{host}:{port}/v1/players/{player_name(0)}/notifications",
            headers={"Authorization": f"Bearer {server.key}"},
        )
        stamp = page.json()["notifications"][0]["expires_at"]
    expires_s = _unix_s(stamp)
    await asyncio.gather(*(asyncio.wait_for(r.notified, GUARD_S) for r in readers))
    assert time.time() < expires_s, "the streams were told after the expiry"
    told = await asyncio.gather(
        *(asyncio.wait_for(r.corrected, GUARD_S) for r in readers)
    )
    return sorted(at_s - expires_s for at_s in told)


def _unix_s(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


@click.command()
@click.option("--connections", default=10_000, help="Number of streams.")
@click.option("--rounds", default=3, help="Number of expiries.")
def main(connections: int, rounds: int) -> None:
    """Measure how soon badges are right after an expiry."""
    server = Streamer()
    with tempfile.TemporaryDirectory() as folder:
        try:
            server.start(Requirements(connections, connections), Path(folder))
            for _ in range(rounds):
                before = server.usage()
                late_s = uvloop.run(measure(server, connections))
                used = server.usage()
                marks = {
                    "first": late_s[0],
                    "median": late_s[len(late_s) // 2],
                    "p99": late_s[len(late_s) * 99 // 100],
                    "last": late_s[-1],
                }
                text = ", ".join(f"{name} {at:.2f} s" for name, at in marks.items())
                cpu_s = used.server_cpu_s - before.server_cpu_s
                click.echo(
                    f"{connections:,} streams: {text}; CPU with connects {cpu_s:.1f} s"
                )
        finally:
            server.stop()


if __name__ == "__main__":
    main()
