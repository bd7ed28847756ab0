"""
A backend that publishes at a fixed rate, whatever the responses are.

It is a program of its own, so that it takes no time from the process that measures:
``python flood.py PORT KEY PER_S``. It prints a line when it starts, runs until SIGTERM,
and then prints how often it received each status.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections import Counter

CONNECTIONS = 8
BODY = json.dumps({"to": {"players": ["a"]}, "title": "t", "body": "x" * 200}).encode()


class RawBackend:
    """A connection that can only publish, which is cheaper than a full client."""

    def __init__(self, key: str) -> None:
        head = (
            "POST /v1/notifications HTTP/1.1\r\nHost: here\r\n"
            f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n"
        )
        self._request = head.encode() + BODY
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self, port: int) -> RawBackend:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def publish(self) -> int:
        """Publish; return the status."""
        self._writer.write(self._request)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.split(b"content-length: ")[1].split(b"\r\n")[0])
        await self._reader.readexactly(length)
        return int(answer.split()[1])

    def cut(self) -> None:
        self._writer.transport.abort()


async def publish(
    port: int, key: str, turns: asyncio.Semaphore, statuses: Counter[int]
) -> None:
    """Publish once per permit, over one connection."""
    backend = await RawBackend(key).open(port)
    while True:
        await turns.acquire()
        statuses[await backend.publish()] += 1


async def flood(port: int, key: str, per_s: float) -> Counter[int]:
    """Publish until SIGTERM; return how often each status was received."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    statuses: Counter[int] = Counter()
    turns = asyncio.Semaphore(0)
    publishing = [
        asyncio.create_task(publish(port, key, turns, statuses))
        for _ in range(CONNECTIONS)
    ]
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    begun, released = loop.time(), 0
    while not ended.is_set():
        while released < (loop.time() - begun) * per_s:
            turns.release()
            released += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), 0.005)
    for task in publishing:
        task.cancel()
    for outcome in await asyncio.gather(*publishing, return_exceptions=True):
        assert isinstance(outcome, asyncio.CancelledError), outcome
    return statuses


if __name__ == "__main__":
    port, key, per_s = sys.argv[1:]
    answered = asyncio.run(flood(int(port), key, float(per_s)))
    sys.stdout.write(json.dumps(answered))
